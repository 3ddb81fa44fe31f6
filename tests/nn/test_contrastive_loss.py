import math

import numpy as np
import pytest
import torch
from torch.nn.functional import cosine_similarity, cross_entropy

from sklabelaudio.nn import SymmetricContrastiveLoss

BOTH = pytest.mark.parametrize("positives", ["diagonal", "class"])


def make_batch(n_clips=7, n_components=5, n_classes=3, *, dtype=torch.float64):
    """Make clips and texts of which each has its own, and their classes."""
    generator = torch.Generator().manual_seed(0)
    options = {"generator": generator, "dtype": dtype}
    clips = torch.randn(n_clips, n_components, **options)
    texts = torch.randn(n_clips, n_components, **options)
    return clips, texts, torch.arange(n_clips) * 2 % n_classes


def loss_by_loops(clips, texts, belongs, scale=1.0):
    """Compute the loss number by number, from who belongs to whom."""
    clips, texts = (vectors.detach().numpy().tolist() for vectors in (clips, texts))

    def cosine(a, b):
        dot = sum(x * y for x, y in zip(a, b, strict=True))
        return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))

    n = len(clips)
    total = 0.0
    for i in range(n):
        own = [j for j in range(n) if belongs[i][j]]
        row = [scale * cosine(clips[i], texts[j]) for j in range(n)]
        column = [scale * cosine(clips[j], texts[i]) for j in range(n)]
        for scores in (row, column):
            others = sum(math.exp(scores[j]) for j in range(n) if not belongs[i][j])
            shares = [math.exp(scores[j]) for j in own]
            total -= sum(math.log(x / (x + others)) for x in shares) / len(own)
    return total / (2 * n)


def make_belongs(positives, classes):
    if positives == "diagonal":
        return np.eye(len(classes), dtype=bool)
    return classes.numpy()[:, None] == classes.numpy()


@BOTH
@pytest.mark.parametrize("scale", [1.0, 1 / 0.07])
def test_is_its_equation(positives, scale):
    clips, texts, classes = make_batch()
    belongs = make_belongs(positives, classes)
    assert belongs.sum() == (7 if positives == "diagonal" else 17)
    loss = SymmetricContrastiveLoss(positives, scale)(clips, texts, classes)
    assert loss.dtype == torch.float64
    expected = loss_by_loops(clips, texts, belongs, scale)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_diagonal_is_the_mean_of_two_cross_entropies():
    """Equation 3 as it is printed."""
    clips, texts, _ = make_batch()
    scores = cosine_similarity(clips[:, None], texts[None], dim=2)
    order = torch.arange(7)
    expected = (cross_entropy(scores, order) + cross_entropy(scores.T, order)) / 2
    loss = SymmetricContrastiveLoss()(clips, texts)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)


def test_positives_are_alike_where_no_class_is_there_twice():
    clips, texts, _ = make_batch()
    found = []
    for positives in ("diagonal", "class"):
        inputs = clips.clone().requires_grad_(), texts.clone().requires_grad_()
        loss = SymmetricContrastiveLoss(positives, 5.0)(*inputs, torch.arange(7))
        found.append((loss, *torch.autograd.grad(loss, inputs)))
    for diagonal, by_class in zip(*found, strict=True):
        torch.testing.assert_close(diagonal, by_class, rtol=1e-7, atol=1e-9)


@BOTH
@pytest.mark.parametrize("learn_scale", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_gradients(positives, learn_scale, weighted):
    clips, texts, classes = make_batch(4)
    loss = SymmetricContrastiveLoss(positives, 3.0, learn_scale).double()
    weights = torch.tensor([1.0, 0, 2.5, 0.5]).double() if weighted else None
    scale = [loss.log_scale] if learn_scale else []

    def compute(clips, texts, *_):
        return loss(clips, texts, classes, weights)

    inputs = (clips.requires_grad_(), texts.requires_grad_(), *scale)
    assert torch.autograd.gradcheck(compute, inputs)


@BOTH
def test_least_loss(positives):
    """Clips on their texts, which are as far apart as they can be."""
    texts = torch.eye(16).double() - 1 / 16
    loss = SymmetricContrastiveLoss(positives)(3 * texts, texts, torch.arange(16))
    least = math.log(math.e + 15 * math.exp(-1 / 15)) - 1
    assert loss.item() == pytest.approx(least)
    assert least == pytest.approx(1.82, abs=0.005)
    assert math.log(16) == pytest.approx(2.77, abs=0.005)


def test_clips_of_a_class_are_no_negatives_of_each_other():
    classes = torch.tensor([0, 0, 0, 1])
    texts = torch.eye(2).double()[classes]
    clips = texts.clone()
    floors = {"diagonal": 3 / 4 * math.log(3), "class": 0.0}
    for positives, floor in floors.items():
        loss = SymmetricContrastiveLoss(positives, 99.0)
        assert loss(clips, texts, classes).item() == pytest.approx(floor, abs=1e-9)
    # Among clips of one class there is nothing to tell apart.
    clips, texts, _ = make_batch()
    clips.requires_grad_()
    loss = SymmetricContrastiveLoss("class", 99.0)(clips, texts, torch.ones(7))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(clips.grad, torch.zeros_like(clips))


def test_even_targets_over_a_class_would_do_what_the_diagonal_does():
    """Which is why others of a class are left out where classes are what belongs."""
    clips, texts, classes = make_batch()
    of_class = texts[:3].clone().requires_grad_()
    clips.requires_grad_()

    def gradients(loss):
        return torch.autograd.grad(loss, (clips, of_class))

    scores = cosine_similarity(clips[:, None], of_class[classes][None], dim=2)
    target = (classes[:, None] == classes).double()
    target /= target.sum(dim=1, keepdim=True)
    even = (cross_entropy(scores, target) + cross_entropy(scores.T, target)) / 2
    losses = [
        SymmetricContrastiveLoss(positives)(clips, of_class[classes], classes)
        for positives in ("diagonal", "class")
    ]
    assert losses[0].item() == pytest.approx(even.item(), rel=1e-12)
    assert losses[1] < losses[0]
    expected, diagonal, by_class = map(gradients, (even, *losses))
    for k in range(2):
        torch.testing.assert_close(diagonal[k], expected[k], rtol=1e-9, atol=1e-12)
        assert not torch.allclose(by_class[k], expected[k], rtol=0.1)


def test_weights_count_clips_as_often():
    clips, texts, _ = make_batch()
    counts = torch.tensor([1, 3, 0, 2, 1, 0, 1])
    loss = SymmetricContrastiveLoss(logit_scale=4.0)
    found = []
    for repeats, weights in ((counts, None), (torch.ones_like(counts), counts)):
        inputs = clips.clone().requires_grad_(), texts.clone().requires_grad_()
        value = loss(
            *(vectors.repeat_interleave(repeats, 0) for vectors in inputs),
            sample_weight=weights,
        )
        found.append(torch.autograd.grad(value, inputs))
    for repeated, weighted in zip(*found, strict=True):
        torch.testing.assert_close(weighted, repeated, rtol=1e-9, atol=1e-12)
        assert not weighted[counts == 0].any()


def test_weights_with_classes_are_those_of_negatives_and_of_means():
    clips, texts, classes = make_batch()
    weights = torch.tensor([1, 3, 0, 2, 1, 0, 7]).double()
    of_mean_1 = (weights / weights.mean()).tolist()
    scores = 4.0 * cosine_similarity(clips[:, None], texts[None], dim=2)
    total = 0.0
    for table in (scores.exp().tolist(), scores.exp().T.tolist()):
        for i, row in enumerate(table):
            if not weights[i]:
                continue
            own = [j for j in range(7) if classes[j] == classes[i]]
            others = sum(
                of_mean_1[j] * row[j] for j in range(7) if classes[j] != classes[i]
            )
            mean = sum(
                -of_mean_1[j] * math.log(row[j] / (row[j] + others)) for j in own
            ) / sum(of_mean_1[j] for j in own)
            total += of_mean_1[i] * mean
    loss = SymmetricContrastiveLoss("class", 4.0)
    found = loss(clips, texts, classes, weights)
    assert found.item() == pytest.approx(total / 14, rel=1e-9)


@BOTH
def test_only_the_ratios_of_weights_matter(positives):
    clips, texts, classes = make_batch()
    loss = SymmetricContrastiveLoss(positives, 4.0)
    counts = torch.tensor([1, 3, 0, 2, 1, 0, 1])
    torch.testing.assert_close(
        loss(clips, texts, classes, 0.25 * counts),
        loss(clips, texts, classes, counts),
    )
    torch.testing.assert_close(
        loss(clips, texts, classes, torch.full((7,), 0.5)), loss(clips, texts, classes)
    )


@BOTH
def test_a_batch_without_weight_has_no_loss(positives):
    clips, texts, classes = make_batch()
    clips.requires_grad_()
    loss = SymmetricContrastiveLoss(positives)(clips, texts, classes, torch.zeros(7))
    loss.backward()
    assert loss.item() == 0
    assert not clips.grad.any()


@BOTH
def test_a_batch_of_one_has_no_loss(positives):
    clips, texts, classes = make_batch(1)
    clips.requires_grad_()
    loss = SymmetricContrastiveLoss(positives, 10.0)(clips, texts, classes)
    loss.backward()
    assert loss.item() == 0
    assert not clips.grad.any()


def test_mixed_clips_belong_to_both_of_their_texts():
    clips, texts, _ = make_batch(4)
    partners, shares = torch.tensor([3, 2, 1, 0]), torch.tensor([1.0, 0.7, 0.6, 0.5])
    mixture = {"partners": partners, "shares": shares}
    scores = 2.0 * cosine_similarity(clips[:, None], texts[None], dim=2)
    target = torch.tensor(
        [[1, 0, 0, 0], [0, 0.7, 0.3, 0], [0, 0.4, 0.6, 0], [0.5, 0, 0, 0.5]]
    ).double()
    of_texts = target.T / target.T.sum(dim=1, keepdim=True)
    expected = cross_entropy(scores, target) + cross_entropy(scores.T, of_texts)
    loss = SymmetricContrastiveLoss(logit_scale=2.0)
    found = loss(clips, texts, **mixture)
    torch.testing.assert_close(found, expected / 2, rtol=1e-6, atol=0)


def test_mixed_clips_by_class_count_as_both_of_their_parts():
    """Number by number: each clip stands there twice, in parts of its classes."""
    clips, texts, _ = make_batch(4)
    classes = torch.tensor([0, 0, 1, 2])
    partners, shares = torch.tensor([3, 2, 1, 0]), torch.tensor([1.0, 0.7, 0.6, 0.5])
    scores = 2.0 * cosine_similarity(clips[:, None], texts[None], dim=2)
    powers, of = scores.exp().tolist(), classes.tolist()
    parts = [
        (clip, of[owner], part)
        for clip in range(4)
        for owner, part in (
            (clip, shares[clip].item()),
            (partners[clip].item(), 1 - shares[clip].item()),
        )
    ]
    total = 0.0
    for clip, label, part in parts:
        own = [j for j in range(4) if of[j] == label]
        others = sum(powers[clip][j] for j in range(4) if of[j] != label)
        for j in own:
            x = powers[clip][j]
            total -= part * math.log(x / (x + others)) / len(own)
    for text in range(4):
        own = [(i, part) for i, label, part in parts if label == of[text]]
        others = sum(p * powers[i][text] for i, c, p in parts if c != of[text])
        whole = sum(part for _, part in own)
        for i, part in own:
            x = powers[i][text]
            total -= part * math.log(x / (x + others)) / whole
    loss = SymmetricContrastiveLoss("class", 2.0)
    found = loss(clips, texts, classes, partners=partners, shares=shares)
    assert found.item() == pytest.approx(total / 8, rel=1e-6)


@BOTH
def test_clips_that_are_all_themselves_are_not_mixed(positives):
    clips, texts, classes = make_batch(4)
    loss = SymmetricContrastiveLoss(positives, 2.0)
    partners = torch.tensor([3, 2, 1, 0])
    found = loss(clips, texts, classes, partners=partners, shares=torch.ones(4))
    torch.testing.assert_close(found, loss(clips, texts, classes))
    mixture = {"partners": partners, "shares": torch.tensor([1.0, 0.7, 0.6, 0.5])}
    ones = loss(clips, texts, classes, torch.ones(4), **mixture)
    torch.testing.assert_close(ones, loss(clips, texts, classes, **mixture))


@BOTH
def test_only_directions_matter(positives):
    clips, texts, classes = make_batch()
    loss = SymmetricContrastiveLoss(positives)
    torch.testing.assert_close(
        loss(100 * clips, 0.01 * texts, classes), loss(clips, texts, classes)
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(dtype):
    clips, texts, classes = make_batch(dtype=torch.float32)
    clips, texts = (40 * clips).to(dtype), texts.to(dtype)  # whose squares overflow
    loss = SymmetricContrastiveLoss(logit_scale=100.0)
    expected = loss(clips.double(), texts.double(), classes)
    for found in (
        loss(clips, texts, classes),
        loss(clips.float(), texts, classes),
    ):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=0)
    with torch.autocast("cpu", dtype=dtype):
        found = loss(clips, texts, classes)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=0)
    # Single precision is not rounded to half within autocast either.
    clips, texts, classes = make_batch(dtype=torch.float32)
    with torch.autocast("cpu", dtype=dtype):
        within = loss(clips, texts)
    assert torch.equal(within, loss(clips, texts))


def test_the_scale_is_learned_up_to_a_hundred():
    fixed = SymmetricContrastiveLoss(logit_scale=5.0)
    assert fixed.scale == 5.0
    assert not list(fixed.parameters())
    assert not fixed.state_dict()
    loss = SymmetricContrastiveLoss(logit_scale=5.0, learn_scale=True)
    clips, texts, _ = make_batch()
    assert loss(clips, texts).item() == pytest.approx(fixed(clips, texts).item())
    # Told apart perfectly, a larger scale is always better.
    optimizer = torch.optim.SGD(loss.parameters(), lr=300.0)
    scales = []
    for _ in range(30):
        optimizer.zero_grad()
        loss(texts, texts).backward()
        optimizer.step()
        scales.append(loss.scale.item())
    assert scales[0] > 5
    assert max(scales) == pytest.approx(100)
    # From the limit there is a way back, for what can't be told apart at all.
    with torch.no_grad():
        loss.log_scale += 3.0
    assert loss.scale.item() == pytest.approx(100)
    loss(clips, texts)
    assert loss.log_scale.item() == pytest.approx(math.log(100))
    for _ in range(3):
        optimizer.zero_grad()
        loss(texts.roll(1, 0), texts).backward()
        optimizer.step()
    assert loss.scale.item() < 90


def test_losses_of_several_batches_add_up():
    """As they do where gradients are accumulated, with the scale at its limit."""
    loss = SymmetricContrastiveLoss(logit_scale=100.0, learn_scale=True)
    batches = [make_batch(n)[:2] for n in (7, 5)]
    expected = [torch.autograd.grad(loss(*b), loss.log_scale)[0] for b in batches]
    sum(loss(*batch) for batch in batches).backward()
    torch.testing.assert_close(loss.log_scale.grad, sum(expected))
    assert loss.log_scale.grad != 0


def test_evaluation_does_not_change_the_scale():
    loss = SymmetricContrastiveLoss(logit_scale=5.0, learn_scale=True).eval()
    with torch.no_grad():
        loss.log_scale += 10.0
    before = loss.log_scale.item()
    clips, texts, _ = make_batch()
    expected = SymmetricContrastiveLoss(logit_scale=100.0)(clips, texts)
    torch.testing.assert_close(loss(clips, texts), expected)
    assert loss.log_scale.item() == before


def test_vectors_of_zeros_make_no_nan():
    clips, texts, classes = make_batch()
    clips[2] = 0
    clips.requires_grad_()
    loss = SymmetricContrastiveLoss()(clips, texts, classes)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(clips.grad).all()


def test_training_finds_the_texts():
    clips, texts, classes = make_batch()
    texts = texts[:3][classes]
    clips.requires_grad_()
    loss = SymmetricContrastiveLoss(logit_scale=10.0)
    optimizer = torch.optim.Adam([clips], lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        loss(clips, texts).backward()
        optimizer.step()
    cosines = cosine_similarity(clips[:, None], texts[None], dim=2)
    assert torch.equal(classes[cosines.argmax(dim=1)], classes)


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({"positives": "pairs"}, r"positives='pairs' is none of \('diagonal', 'class'"),
        ({"logit_scale": 0.0}, r"logit_scale=0\.0 must be positive$"),
        ({"logit_scale": math.inf}, "logit_scale=inf must be positive"),
        ({"logit_scale": math.nan}, "logit_scale=nan must be positive"),
        ({"logit_scale": 101, "learn_scale": True}, "logit_scale=101 .* at most 100"),
    ],
)
def test_bad_parameters(params, told):
    with pytest.raises(ValueError, match=told):
        SymmetricContrastiveLoss(**params)


def test_a_fixed_scale_has_no_limit():
    assert SymmetricContrastiveLoss(logit_scale=1000).scale == 1000


def test_bad_batches():
    clips, texts, classes = make_batch()
    loss = SymmetricContrastiveLoss("class")
    for bad in ((clips[:5], texts), (clips[:, :3], texts), (clips[0], texts[0])):
        with pytest.raises(ValueError, match=r"embeddings has shape .* for each clip"):
            loss(*bad, classes)
    with pytest.raises(ValueError, match=r"embeddings has shape \(0, 5\).*or more"):
        loss(clips[:0], texts[:0], classes[:0])
    with pytest.raises(ValueError, match="classes is None, but positives='class'"):
        loss(clips, texts)
    with pytest.raises(ValueError, match=r"classes has shape \(6,\), but .* 7 clips"):
        loss(clips, texts, classes[1:])
    with pytest.raises(ValueError, match=r"sample_weight has shape \(7, 1\)"):
        loss(clips, texts, classes, torch.ones(7, 1))
    with pytest.raises(ValueError, match="sample_weight has negative values"):
        loss(clips, texts, classes, -torch.ones(7))
    with pytest.raises(ValueError, match="partners and shares go together"):
        loss(clips, texts, classes, partners=torch.arange(7))
