import numpy as np
import pytest
import torch

from sklabelaudio import load_audio
from sklabelaudio.exceptions import CheckpointError
from sklabelaudio.feature_extraction._front_ends import get_front_end
from sklabelaudio.nn import EfficientAT, load_checkpoint
from sklabelaudio.nn._checkpoint import read_checkpoint
from sklabelaudio.nn._fold import fold_batch_norm


def embed(model, waveform):
    log_mel = torch.from_numpy(get_front_end("efficientat")(waveform))
    with torch.inference_mode():
        return model.eval()(log_mel[None])


def assert_output(output, expected, name, atol):
    for stage in ("embedding", "logits"):
        np.testing.assert_allclose(
            getattr(output, stage).numpy(),
            expected[f"{name}.{stage}"],
            rtol=0,
            atol=atol[stage],
            err_msg=f"{name}.{stage}",
        )
    assert output.framewise is None


@pytest.mark.parametrize(
    ("stem", "width", "atol"),
    [("efficientat_mn04", 0.4, 1e-4), ("efficientat_mn10", 1.0, 5e-4)],
)
def test_is_the_reference(parity, tmp_path, stem, width, atol):
    reference = parity(stem)
    path = tmp_path / "weights.pt"
    torch.save(reference.state(), path)
    assert EfficientAT.width_of(read_checkpoint(path)) == width
    model = load_checkpoint(EfficientAT(width), path)
    assert list(model.state_dict()) == list(reference.manifest["keys"])
    for _ in range(2):  # as it is, then with the batch norms folded
        for name, item in reference.inputs.items():
            output = embed(model, item.waveform)
            atols = {"embedding": atol, "logits": atol}
            assert_output(output, reference.expected, name, atols)
        fold_batch_norm(model)


@pytest.mark.parametrize("fold", [False, True])
def test_real_weights_on_real_clips(parity, shared, esc10, fold):
    """AudioSet's classes for dogs and rain, to the reference's last digits."""
    reference = parity("efficientat_mn04_real")
    folder = shared / "reference" / "checkpoints" / "efficientat"
    model = load_checkpoint(EfficientAT(0.4), folder / "mn04_as_mAP_432.pt")
    if fold:
        fold_batch_norm(model)
    waveforms = {name: item.waveform for name, item in reference.inputs.items()}
    for i, file in enumerate(reference.expected["clip_files"]):
        path = esc10 / "audio" / str(file)
        waveforms[f"clip{i}"], _ = load_audio(path, sampling_rate=32000)
    assert len(waveforms) == 15
    for name, waveform in waveforms.items():
        atols = {"embedding": 1e-4, "logits": 5e-4}
        assert_output(embed(model, waveform), reference.expected, name, atols)


@pytest.mark.parametrize(
    ("width", "n_parameters", "n_components"),
    [
        (0.4, 983_599, 384),
        (0.5, 1_431_239, 480),
        (1, 4_876_831, 960),
        (2, 17_909_287, 1920),
        (3, 39_086_367, 2880),
        (4, 68_427_303, 3840),
    ],
)
def test_published_sizes(width, n_parameters, n_components):
    with torch.device("meta"):
        model = EfficientAT(width)
    assert sum(p.numel() for p in model.parameters()) == n_parameters
    assert model.n_components == n_components
    assert model.n_classes == 527


@pytest.mark.parametrize(
    "width", [0.01, 0.1, 0.2, 0.33, 0.4, 0.5, 0.75, 1.0, 1.375, 2.0, 3.0, 4.0]
)
def test_width_is_told_from_weights(width):
    with torch.device("meta"):
        state = EfficientAT(width, n_classes=3).state_dict()
        told = EfficientAT.width_of(state)
        assert told == width
        rebuilt = EfficientAT(told, n_classes=3).state_dict()
    assert {k: v.shape for k, v in state.items()} == {
        k: v.shape for k, v in rebuilt.items()
    }


def test_width_of_other_weights_is_an_error():
    state = EfficientAT(0.1).state_dict()
    with pytest.raises(ValueError, match=r"no weight 'features.0.0.weight'"):
        EfficientAT.width_of({})
    without_head = {k: v for k, v in state.items() if not k.startswith("classifier")}
    with pytest.raises(ValueError, match=r"no weight 'classifier.2.weight'"):
        EfficientAT.width_of(without_head)
    other = state | {"features.16.0.weight": torch.zeros(100, 16, 1, 1)}
    with pytest.raises(ValueError, match=r"no width gives.*100 in features\.16"):
        EfficientAT.width_of(other)
    other = state | {"features.9.block.2.0.weight": torch.zeros(8, 8, 1, 1)}
    with pytest.raises(ValueError, match="no width gives"):
        EfficientAT.width_of(other)


def test_file_of_another_width_is_an_error(tmp_path):
    torch.save(EfficientAT(0.1).state_dict(), tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match="another shape"):
        load_checkpoint(EfficientAT(0.2), tmp_path / "weights.pt")


@pytest.mark.parametrize("width", [0, -1, float("nan")])
def test_bad_width(width):
    with pytest.raises(ValueError, match=r"width=.* must be positive"):
        EfficientAT(width)


@pytest.mark.parametrize("shape", [(100, 128), (2, 100, 64), (2, 0, 128), (2, 128)])
def test_bad_log_mel(shape):
    with pytest.raises(ValueError, match=r"takes (\(.*, n_frames, 128\)|1 or more)"):
        EfficientAT(0.1)(torch.zeros(shape))


@pytest.mark.parametrize("n_frames", [1, 2, 31, 33])
def test_any_number_of_frames(n_frames):
    model = EfficientAT(0.1, n_classes=5).eval()
    with torch.inference_mode():
        output = model(torch.randn(2, n_frames, 128))
    assert output.embedding.shape == (2, model.n_components)
    assert output.logits.shape == (2, 5)


def test_training():
    """Gradients reach all weights; dropout is before the last layer alone."""
    torch.manual_seed(0)
    model = EfficientAT(0.1, n_classes=5, dropout=0.5)
    log_mel = torch.randn(4, 64, 128)
    first, second = model(log_mel), model(log_mel)
    torch.testing.assert_close(first.embedding, second.embedding)
    assert not torch.equal(first.logits, second.logits)
    first.logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("momentum", [None, 0.1])
def test_batch_norms_follow_as_told_and_else_slowly(momentum):
    model = EfficientAT(0.1, **({"batch_norm_momentum": momentum} if momentum else {}))
    convolution, norm = model.features[0][:2]
    log_mel = torch.randn(4, 64, 128)
    model(log_mel)
    with torch.no_grad():
        mean = convolution(log_mel.transpose(1, 2)[:, None]).mean((0, 2, 3))
    torch.testing.assert_close(norm.running_mean, (momentum or 0.01) * mean)


def test_untrained_model_passes_its_input_on():
    """Random weights keep the signal's order of magnitude through all layers."""
    torch.manual_seed(0)
    with torch.inference_mode():
        embedding = EfficientAT(0.4).eval()(torch.randn(8, 100, 128)).embedding
    assert 0.01 < embedding.std() < 1000
    assert embedding.std(dim=0).max() > 0.01 * embedding.std()
