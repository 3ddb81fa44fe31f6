import numpy as np
import pytest
import torch

from sklabelaudio.exceptions import CheckpointError
from sklabelaudio.feature_extraction._front_ends import get_front_end
from sklabelaudio.nn import VGGish, load_checkpoint
from sklabelaudio.nn._checkpoint import read_checkpoint

PCA = ("pca_eigen_vectors", "pca_means")


@pytest.fixture(scope="module")
def reference(parity):
    return parity("vggish")


@pytest.fixture(scope="module")
def state(reference):
    """Keys as in torchvggish's module, which holds the components too."""
    return reference.state()


def build(output_stage, state):
    """A model that shares the tensors of `state`."""
    with torch.device("meta"):
        model = VGGish(output_stage)
    model.load_state_dict(model.convert_checkpoint(state), assign=True)
    return model.eval()


def examples(waveform):
    log_mel = torch.from_numpy(get_front_end("vggish")(waveform))
    n_examples = len(log_mel) // 96
    return log_mel[: 96 * n_examples].view(n_examples, 96, 64)


@pytest.mark.parametrize(
    ("output_stage", "key"),
    [
        ("linear", "embedding_pre_relu"),
        ("relu", "embedding"),
        ("pca", "pca_unclipped"),
        ("quantized", "postprocessed"),
    ],
)
def test_is_the_reference(reference, state, output_stage, key):
    model = build(output_stage, state)
    for name, item in reference.inputs.items():
        with torch.inference_mode():
            output = model(examples(item.waveform))
        expected = reference.expected[f"{name}.{key}"].reshape(-1, 128)
        # A value on the edge between two steps may be rounded to either.
        atol = 1 if output_stage == "quantized" else 5e-6 * np.abs(expected).max()
        result = output.embedding.numpy()
        np.testing.assert_allclose(result, expected, rtol=0, atol=atol)
        if output_stage == "quantized":
            assert (result != expected).mean() < 0.001
            assert (result == result.round()).all()
        assert output.logits is None
        assert output.framewise is None


def test_default_is_after_the_relu(state):
    log_mel = torch.randn(1, 96, 64, generator=torch.Generator().manual_seed(0))
    with torch.device("meta"):
        default = VGGish()
    default.load_state_dict(default.convert_checkpoint(state), assign=True)
    with torch.inference_mode():
        linear = build("linear", state)(log_mel).embedding
        assert (linear < 0).any()
        torch.testing.assert_close(default(log_mel).embedding, linear.clamp(min=0))


@pytest.mark.parametrize(
    ("output_stage", "n_components"), [("relu", 0), ("linear", 0), ("pca", 16_512)]
)
def test_published_size(output_stage, n_components):
    with torch.device("meta"):
        model = VGGish(output_stage)
    assert sum(p.numel() for p in model.parameters()) == 72_141_184
    assert sum(b.numel() for b in model.buffers()) == n_components
    assert (model.n_components, model.n_classes) == (128, None)


def test_names_are_the_published_ones(reference):
    with torch.device("meta"):
        own = {k: list(v.shape) for k, v in VGGish("pca").state_dict().items()}
    assert own == {k: v["shape"] for k, v in reference.manifest["keys"].items()}


@pytest.fixture
def files(state, tmp_path):
    """The two files of the release, in their layout."""
    network, components = tmp_path / "vggish.pth", tmp_path / "vggish_pca_params.pth"
    torch.save({k: v for k, v in state.items() if not k.startswith("pproc")}, network)
    arrays = {name: state[f"pproc.{name}"].numpy() for name in PCA}
    arrays["pca_means"] = arrays["pca_means"].ravel()
    torch.save(arrays, components)
    yield network, components
    network.unlink()  # 290 MB


def test_published_files(files, state):
    network, components = files
    model = load_checkpoint(VGGish(), network)
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name

    model = VGGish("pca")
    with pytest.raises(ValueError, match=r"pca_means.* in a file of their own"):
        load_checkpoint(model, network)
    both = read_checkpoint(network) | read_checkpoint(components)
    converted = model.convert_checkpoint(both)
    assert converted.keys() == state.keys()
    for name, value in converted.items():
        assert torch.equal(value, state[name]), name


def test_components_are_left_out_where_not_needed():
    state = {"pproc.pca_means": torch.zeros(128, 1), "features.0.bias": torch.ones(64)}
    with torch.device("meta"):
        model = VGGish("relu")
    assert list(model.convert_checkpoint(state)) == ["features.0.bias"]
    assert len(state) == 2


def test_unknown_names_are_reported(tmp_path):
    torch.save(
        {"features.0.bias": torch.ones(64), "extra": torch.ones(1)}, tmp_path / "w"
    )
    with torch.device("meta"):
        model = VGGish()
    with pytest.raises(CheckpointError, match=r"17 missing[^$]*1 unknown[^$]*extra"):
        load_checkpoint(model, tmp_path / "w")


def test_unknown_stage():
    with pytest.raises(ValueError, match=r"output_stage='logits' is none of.*'linear'"):
        VGGish("logits")


@pytest.mark.parametrize("shape", [(96, 64), (2, 95, 64), (2, 96, 128), (1, 2, 96, 64)])
def test_bad_log_mel(shape):
    with torch.device("meta"):
        model = VGGish()
        with pytest.raises(ValueError, match=r"VGGish takes (96: |.*64\)$)"):
            model(torch.zeros(shape))


def test_no_examples():
    with torch.device("meta"):
        assert VGGish()(torch.zeros(0, 96, 64)).embedding.shape == (0, 128)
