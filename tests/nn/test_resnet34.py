import pytest
import torch

from sklabelaudio.exceptions import CheckpointError
from sklabelaudio.nn import EfficientAT, ResNet34, load_checkpoint
from sklabelaudio.nn._fold import fold_batch_norm

SMALL = {"n_classes": 5, "width": 4}


def run(model, log_mel):
    with torch.inference_mode():
        return model.eval()(log_mel)


def with_statistics(model):
    """Give batch norms what training would, so that none is the identity."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.running_mean, std=0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.1)
    return model


@pytest.fixture(scope="module")
def image_model():
    """A ResNet-34 of images by others, and its weights by torchvision's names."""
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(
        layer_type="basic",
        depths=[3, 4, 6, 3],
        hidden_sizes=[8, 16, 32, 64],
        embedding_size=8,
        num_labels=7,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = with_statistics(transformers.ResNetForImageClassification(config))
    names = {
        "resnet.embedder.embedder.convolution": "conv1",
        "resnet.embedder.embedder.normalization": "bn1",
        "resnet.encoder.stages.": "layer",
        ".layers.": ".",
        ".layer.0.convolution": ".conv1",
        ".layer.0.normalization": ".bn1",
        ".layer.1.convolution": ".conv2",
        ".layer.1.normalization": ".bn2",
        ".shortcut.convolution": ".downsample.0",
        ".shortcut.normalization": ".downsample.1",
        "classifier.1": "fc",
    }
    state = {}
    for name, values in model.state_dict().items():
        for theirs, ours in names.items():
            name = name.replace(theirs, ours)
        if name.startswith("layer"):
            name = f"layer{int(name[5]) + 1}{name[6:]}"
        state[name] = values
    return model.eval(), state


@pytest.mark.parametrize("shape", [(160, 64), (101, 40), (33, 128)])
def test_is_the_network_of_images(image_model, shape):
    oracle, state = image_model
    model = ResNet34(**ResNet34.config_of(state))
    model.load_state_dict(state)
    log_mel = torch.randn(2, *shape)
    image = log_mel.mT[:, None].expand(-1, 3, -1, -1)
    with torch.inference_mode():
        expected = oracle(image, output_hidden_states=True)
    pooled = expected.hidden_states[-1].mean((2, 3))
    for fold in (False, True):
        if fold:
            fold_batch_norm(model)
            assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules())
        output = run(model, log_mel)
        for values, wanted in [
            (output.embedding, pooled),
            (output.logits, expected.logits),
            (output.frames, expected.hidden_states[-1].mean(dim=2).mT),
        ]:
            atol = 5e-6 * wanted.abs().max().item()
            torch.testing.assert_close(values, wanted, rtol=0, atol=atol)


def test_one_channel_is_the_sum_of_three(image_model, tmp_path):
    _, state = image_model
    torch.save(state, tmp_path / "resnet34-b627a593.pth")
    config = ResNet34.config_of(state)
    assert config == {"n_classes": 7, "n_channels": 3, "width": 8}
    three, one = (
        load_checkpoint(model, tmp_path / "resnet34-b627a593.pth")
        for model in (ResNet34(**config), ResNet34(n_classes=7, width=8))
    )
    assert one.conv1.weight.shape == (8, 1, 7, 7)
    log_mel = torch.randn(2, 70, 64)
    torch.testing.assert_close(run(one, log_mel).logits, run(three, log_mel).logits)
    torch.save(one.state_dict(), tmp_path / "own.pt")
    own = load_checkpoint(ResNet34(n_classes=7, width=8), tmp_path / "own.pt")
    assert torch.equal(run(own, log_mel).logits, run(one, log_mel).logits)
    with pytest.raises(CheckpointError, match=r"conv1\.weight"):
        load_checkpoint(ResNet34(**config), tmp_path / "own.pt")


@pytest.mark.parametrize(
    ("params", "n_parameters"),
    [
        # torchvision's count, and its with one channel and ten classes.
        ({"n_classes": 1000, "n_channels": 3}, 21_797_672),
        ({}, 21_797_672 - 2 * 64 * 49 - 990 * 513),
    ],
)
def test_published_size(params, n_parameters):
    with torch.device("meta"):
        model = ResNet34(**params)
    assert sum(p.numel() for p in model.parameters()) == n_parameters
    assert model.n_components == 512


def test_other_classes_need_another_classifier(image_model, tmp_path):
    _, state = image_model
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=r"fc\.weight"):
        load_checkpoint(ResNet34(n_classes=10, width=8), tmp_path / "weights.pth")
    model = load_checkpoint(ResNet34(n_classes=7, width=8), tmp_path / "weights.pth")
    log_mel = torch.randn(2, 70, 64)
    before = run(model, log_mel).embedding
    assert model.replace_classifier(10) is model
    assert model.n_classes == 10
    output = run(model, log_mel)
    assert output.logits.shape == (2, 10)
    assert torch.equal(output.embedding, before)
    assert model.double().replace_classifier(3).fc.weight.dtype == torch.float64


def test_files_of_others_are_errors(image_model, tmp_path):
    _, state = image_model
    torch.save(EfficientAT(0.1).state_dict(), tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match="unknown to the model"):
        load_checkpoint(ResNet34(**SMALL), tmp_path / "weights.pth")
    flat = state | {"fc.weight": torch.tensor(1.0)}
    for other, told in (
        (EfficientAT(0.1).state_dict(), r"no weight 'conv1\.weight', .* of a ResNet"),
        (flat, r"'fc\.weight' has the shape \(\), .* of a ResNet"),
    ):
        with pytest.raises(ValueError, match=told):
            ResNet34.config_of(other)
    shallow = {k: v for k, v in state.items() if "layer3.5" not in k}
    with pytest.raises(ValueError, match=r"\[3, 4, 5, 3\] blocks"):
        ResNet34.config_of(shallow)
    deep = state | {"layer1.0.conv3.weight": torch.zeros(32, 8, 1, 1)}
    with pytest.raises(ValueError, match="of two convolutions"):
        ResNet34.config_of(deep)


@pytest.mark.parametrize("name", ["n_classes", "n_channels", "width"])
def test_bad_parameters(name):
    with pytest.raises(ValueError, match=f"{name}=0 must be at least 1"):
        ResNet34(**{name: 0})


@pytest.mark.parametrize("shape", [(100, 64), (2, 0, 64), (2, 100, 0), (2, 1, 9, 64)])
def test_bad_log_mel(shape):
    with pytest.raises(ValueError, match=r"log_mel .*(n_mels >= 1\)|1 or more)"):
        ResNet34(**SMALL)(torch.zeros(shape))


@pytest.mark.parametrize("n_mels", [1, 64, 256])
@pytest.mark.parametrize("n_frames", [1, 31, 33, 64])
def test_any_size(n_frames, n_mels):
    output = run(ResNet34(**SMALL), torch.randn(2, n_frames, n_mels))
    assert output.embedding.shape == (2, 32)
    assert output.logits.shape == (2, 5)
    assert output.framewise is None
    assert output.frames.shape == (2, -(-n_frames // ResNet34.frame_stride), 32)
    torch.testing.assert_close(output.embedding, output.frames.mean(dim=1))


@pytest.mark.parametrize("n_channels", [1, 3])
def test_training(n_channels):
    """Gradients reach all weights."""
    torch.manual_seed(0)
    model = ResNet34(**SMALL, n_channels=n_channels)
    model(torch.randn(4, 64, 40)).logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name


def test_learns_from_scratch():
    """Where in frequency a band is, from random weights in a few steps."""
    torch.manual_seed(0)
    labels = torch.arange(16) % 2
    log_mel = torch.randn(16, 64, 32)
    log_mel[labels == 1, :, 20:28] += 2
    model = ResNet34(n_classes=2, width=4)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(10):
        loss = torch.nn.functional.cross_entropy(model(log_mel).logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1
