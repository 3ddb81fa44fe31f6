import copy

import pytest
import torch
import torch.nn.functional as F

from sklabelaudio.nn import CSCM
from sklabelaudio.nn._fold import fold_batch_norm


def make_head(*args, seed=0, **kwargs):
    """Make a head none of whose weights is 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        head = CSCM(*args, **kwargs).double().eval()
    with torch.no_grad():
        for values in head.state_dict().values():
            if values.is_floating_point():
                values += 0.2 * torch.rand(values.shape, generator=generator)
    return head


def make_map(*shape):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def compute_plainly(head, image):
    """Weigh and convolve a clip's map place by place, by the formulas."""
    state = head.state_dict()
    first, second = (
        (state[f"attention.channels.{i}.weight"], state[f"attention.channels.{i}.bias"])
        for i in (0, 2)
    )

    def score(vector):
        hidden = (first[0] @ vector + first[1]).clamp(min=0)
        return second[0] @ hidden + second[1]

    places = image.flatten(1)
    channels = (score(places.mean(1)) + score(places.max(1).values)).sigmoid()
    image = image * channels[:, None, None]
    _, height, width = image.shape
    profile = torch.stack([image.mean(0), image.max(0).values])
    profile = F.pad(profile, (3, 3, 3, 3))
    kernel = state["attention.places.weight"][0]
    weighted = torch.zeros_like(image)
    for i in range(height):
        for j in range(width):
            weight = (profile[:, i : i + 7, j : j + 7] * kernel).sum().sigmoid()
            weighted[:, i, j] = weight * image[:, i, j]
    padded = F.pad(weighted, (1, 1, 1, 1))
    conv, norm = head.convolutions[:2]
    vectors = []
    for i in range(height):
        for j in range(width):
            patch = padded[:, i : i + 3, j : j + 3]
            hidden = (conv.weight * patch).sum(dim=(1, 2, 3))
            hidden = (hidden - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
            hidden = (hidden * norm.weight + norm.bias).clamp(min=0)
            # The paper's 1 x 1 convolution, at every place.
            weight = state["projection.weight"][:, :, 0, 0]
            vectors.append(weight @ hidden + state["projection.bias"])
    return torch.stack(vectors).mean(dim=0)


def test_is_attention_and_convolutions():
    head = make_head(8, 3, 5, 6, reduction=2)
    image = make_map(2, 8, 3, 5)
    expected = torch.stack([compute_plainly(head, one) for one in image])
    torch.testing.assert_close(head(image), expected.detach())


def test_tokens_are_the_map_row_by_row():
    head = make_head(8, 3, 5, 6)
    image = make_map(2, 8, 3, 5)
    tokens = torch.stack([image[:, :, i, j] for i in range(3) for j in range(5)], dim=1)
    torch.testing.assert_close(head(tokens), head(image))
    other = torch.stack([image[:, :, i, j] for j in range(5) for i in range(3)], dim=1)
    assert not torch.allclose(head(other), head(image))


def test_parameters_of_the_papers_size():
    head = CSCM()
    attention = 768 * 48 + 48 + 48 * 768 + 768 + 2 * 7 * 7
    convolutions = 9 * 768 * 192 + 2 * 192 + 192 * 1024 + 1024
    count = sum(parameter.numel() for parameter in head.parameters())
    assert count == attention + convolutions == 1_599_762
    dense = sum(p.numel() for p in torch.nn.Linear(768 * 64, 1024).parameters())
    assert dense == 50_332_672
    assert dense // count == 31
    # That of a larger map is no larger.
    larger = CSCM(768, 12, 101)
    assert sum(parameter.numel() for parameter in larger.parameters()) == count
    for number in (count, dense):
        assert f"{number:,}" in CSCM.__doc__


@pytest.mark.parametrize("size", [(1, 1, 1), (3, 1, 9), (5, 2, 1), (17, 4, 4)])
def test_sizes(size):
    head = CSCM(*size, n_components=4)
    vectors = head(torch.randn(3, *size, generator=torch.Generator().manual_seed(0)))
    assert vectors.shape == (3, 4)
    assert torch.isfinite(vectors).all()


def test_gradients_reach_all_weights():
    head = make_head(8, 3, 5, 6).train()
    (head(make_map(4, 8, 3, 5)) * make_map(4, 6)).sum().backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad.any(), name


def test_clips_do_not_depend_on_others():
    head = make_head(8, 3, 5, 6)
    image = make_map(4, 8, 3, 5)
    torch.testing.assert_close(head(image)[2:3], head(image[2:3]))


def test_batch_norm_can_be_folded():
    head = make_head(8, 3, 5, 6)
    folded = fold_batch_norm(copy.deepcopy(head))
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
    image = make_map(4, 8, 3, 5)
    torch.testing.assert_close(folded(image), head(image))


def test_half_precision():
    head = make_head(16, 3, 5, 6).float()
    image = make_map(2, 16, 3, 5).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        vectors = head(image)
    error = (vectors.float() - head(image)).abs().max()
    assert error < 0.02 * head(image).abs().max()


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        (
            (2, 8, 3, 4),
            r"\(2, 8, 3, 4\); this CSCM takes a map of \(n_clips, 8, 3, 5\), or tokens "
            r"of \(n_clips, 15, 8\).*n_channels=8, height=3, width=4$",
        ),
        ((2, 9, 3, 5), r"n_channels=9, height=3, width=5$"),
        ((2, 14, 8), r"n_channels=8 and a height and width whose product is 14$"),
        ((2, 8, 15), r"n_channels=15 and .* 8$"),
        ((8, 3, 5), r"n_channels=5 and .* 3$"),
        ((2, 8), r"\(2, 8\); this CSCM takes .* before it pools$"),
        ((2, 8, 0, 5), r"before it pools$"),
    ],
)
def test_features_that_do_not_fit(shape, told):
    head = make_head(8, 3, 5, 6)
    with pytest.raises(ValueError, match=f"features has the shape .*{told}"):
        head(torch.zeros(shape).double())


def test_one_clip():
    """It can be learnt from where its map has several places."""
    head = CSCM(8, 1, 2, 6)
    assert torch.isfinite(head(torch.randn(1, 8, 1, 2))).all()
    head = CSCM(8, 1, 1, 6)
    with pytest.raises(ValueError, match=r"one clip of one place.*two clips or more"):
        head(torch.zeros(1, 8, 1, 1))
    assert head.eval()(torch.zeros(1, 8, 1, 1)).shape == (1, 6)


@pytest.mark.parametrize(
    "name",
    ["n_channels", "height", "width", "n_components", "n_hidden", "reduction"],
)
def test_bad_parameters(name):
    with pytest.raises(ValueError, match=f"{name}=0 must be at least 1"):
        CSCM(**{name: 0})
