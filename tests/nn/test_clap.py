import json

import numpy as np
import pytest
import torch

from sklabelaudio.exceptions import CheckpointError
from sklabelaudio.feature_extraction._front_ends import get_front_end
from sklabelaudio.nn._checkpoint import load_checkpoint, load_state, read_checkpoint
from sklabelaudio.nn._clap import ClapAudioTower

AUDIO = {
    "patch_embeds_hidden_size": 8,
    "depths": [2, 1, 1, 1],
    "num_attention_heads": [1, 1, 2, 2],
    "hidden_size": 64,
}
TEXT = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "vocab_size": 50,
    "max_position_embeddings": 20,
}
RECORD = {"frequency_min": 50, "truncation": "rand_trunc"}


@pytest.fixture(scope="module")
def make_clap():
    """Callable that makes a small CLAP of transformers with random weights."""
    from transformers import ClapConfig, ClapModel

    def make(**audio):
        config = ClapConfig(
            text_config=TEXT, audio_config={**AUDIO, **audio}, projection_dim=12
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            model = ClapModel(config).eval()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(0.2 * torch.randn(parameter.shape))
                norm = model.audio_model.audio_encoder.batch_norm
                norm.running_mean.fill_(-20)
                norm.running_var.fill_(100)
        return model

    return make


@pytest.fixture(scope="module")
def clap(make_clap):
    return make_clap()


@pytest.fixture
def folder(clap, tmp_path):
    """A folder of it, as its users save one."""
    clap.save_pretrained(tmp_path / "clap")
    return tmp_path / "clap"


def save_record(folder, **settings):
    from transformers import ClapFeatureExtractor

    record = {**ClapFeatureExtractor(**RECORD).to_dict(), **settings}
    (folder / "preprocessor_config.json").write_text(json.dumps(record))


def make_log_mel(n_clips, n_frames=1001):
    generator = torch.Generator().manual_seed(1)
    return 10 * torch.randn(n_clips, n_frames, 64, generator=generator) - 20


def get_audio_features(clap, log_mel):
    with torch.inference_mode():
        return clap.get_audio_features(input_features=log_mel).pooler_output


def embed(tower, log_mel):
    with torch.inference_mode():
        output = tower.eval()(log_mel)
    assert output.logits is None
    assert output.framewise is None
    return output.embedding


def test_gives_what_transformers_gives(clap, folder):
    tower = ClapAudioTower.from_pretrained(folder)
    log_mel = make_log_mel(3)
    embedding = embed(tower, log_mel)
    assert torch.equal(embedding, get_audio_features(clap, log_mel.unsqueeze(1)))
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(3))
    assert (tower.n_components, tower.n_classes) == (12, None)


def test_waveforms_give_what_transformers_gives(clap, folder):
    from transformers import ClapFeatureExtractor

    time = np.arange(480_000) / 48_000
    generator = np.random.default_rng(0)
    waveform = np.sin(2 * np.pi * (200 + 700 * time) * time) * np.exp(-time % 0.7)
    waveform = (waveform + 0.01 * generator.standard_normal(480_000)).astype(np.float32)

    theirs = ClapFeatureExtractor(**RECORD)(
        waveform, sampling_rate=48_000, return_tensors="pt"
    )["input_features"]
    ours = torch.from_numpy(get_front_end("clap")(waveform)[np.newaxis])
    tower = ClapAudioTower.from_pretrained(folder)
    error = (embed(tower, ours) - get_audio_features(clap, theirs)).abs().max()
    assert error < 1e-5
    # Which is not for want of a difference that waveforms make.
    reversed_ = ours.flip(1)
    assert (embed(tower, reversed_) - embed(tower, ours)).abs().max() > 1e-3


@pytest.mark.parametrize("record", [False, True])
def test_the_record_of_the_front_end_may_be_there_or_not(folder, record):
    if record:
        save_record(folder)
    ClapAudioTower.from_pretrained(folder)


@pytest.mark.parametrize(
    ("setting", "value", "right"),
    [
        ("frequency_min", 0, 50),
        ("frequency_max", 24_000, 14_000),
        ("sampling_rate", 32_000, 48_000),
        ("hop_length", 320, 480),
        ("fft_window_size", 2048, 1024),
        ("feature_size", 128, 64),
        ("top_db", 80, None),
        ("truncation", "fusion", "'rand_trunc'"),
    ],
)
def test_another_front_end_is_refused(folder, setting, value, right):
    save_record(folder, **{setting: value})
    told = f"another log-mel than CLAP's, with {setting}={value!r} in place of {right}"
    with pytest.raises(ValueError, match=told):
        ClapAudioTower.from_pretrained(folder)


def test_a_record_in_the_processors_file_is_read_too(folder):
    record = {"feature_extractor_type": "ClapFeatureExtractor", "frequency_min": 20}
    (folder / "processor_config.json").write_text(
        json.dumps({"feature_extractor": record, "processor_class": "ClapProcessor"})
    )
    with pytest.raises(ValueError, match="frequency_min=20 in place of 50"):
        ClapAudioTower.from_pretrained(str(folder))


def test_the_audio_side_alone_is_loaded(clap, tmp_path):
    from transformers import ClapAudioModelWithProjection

    audio = ClapAudioModelWithProjection(clap.config.audio_config)
    audio.audio_model, audio.audio_projection = clap.audio_model, clap.audio_projection
    audio.save_pretrained(tmp_path)
    log_mel = make_log_mel(1)
    embedding = embed(ClapAudioTower.from_pretrained(tmp_path), log_mel)
    assert torch.equal(embedding, get_audio_features(clap, log_mel.unsqueeze(1)))


def test_the_older_kind_of_file_and_half_precision_are_loaded(clap, folder):
    log_mel = make_log_mel(1)
    expected = get_audio_features(clap, log_mel.unsqueeze(1))
    (folder / "model.safetensors").unlink()
    half = {name: value.clone() for name, value in clap.state_dict().items()}
    for name, value in half.items():
        if value.is_floating_point():
            half[name] = value.half()
    torch.save(half, folder / "pytorch_model.bin")
    tower = ClapAudioTower.from_pretrained(folder)
    assert {parameter.dtype for parameter in tower.parameters()} == {torch.float32}
    assert (embed(tower, log_mel) - expected).abs().max() < 0.01


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("audio_projection.linear1.bias", None, r"missing.*\n.*projection\.linear1"),
        (
            "audio_model.audio_encoder.norm.weight",
            None,
            r"missing.*\n.*encoder\.norm\.weight",
        ),
        ("audio_model.audio_encoder.norm.weight", torch.ones(3), r"shape.*\n.*norm"),
        ("audio_model.audio_encoder.gate", torch.ones(3), r"unknown.*\n.*gate"),
        ("audio_adapter.weight", torch.ones(3), r"unknown.*\n.*audio_adapter"),
    ],
)
def test_weights_that_do_not_fit_are_told(folder, name, value, told):
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "model.safetensors")
    state[name] = value
    if value is None:
        del state[name]
    save_file(state, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=told):
        ClapAudioTower.from_pretrained(folder)


def test_fusion_models_are_refused(make_clap, tmp_path):
    clap = make_clap(enable_fusion=True)
    clap.save_pretrained(tmp_path)
    told = "fusion model of CLAP .* laion/clap-htsat-unfused"
    with pytest.raises(ValueError, match=told):
        ClapAudioTower.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match=told):
        ClapAudioTower.config_of(read_checkpoint(tmp_path / "model.safetensors"))
    with pytest.raises(ValueError, match=told):
        ClapAudioTower(config=clap.config.audio_config)


def test_other_models_are_refused(tmp_path):
    from transformers import BertConfig, BertModel

    BertModel(BertConfig(**TEXT)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is a 'bert' model: pass one of CLAP"):
        ClapAudioTower.from_pretrained(tmp_path)


def test_what_is_not_there_is_told(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for model in (str(tmp_path / "nothing"), "nobody/has-this"):
        with pytest.raises(OSError, match=f"model='{model}' is no folder with a model"):
            ClapAudioTower.from_pretrained(model)
    (folder / "model.safetensors").unlink()
    with pytest.raises(OSError, match=r"has neither a model\.safetensors nor"):
        ClapAudioTower.from_pretrained(folder)


def test_loading_leaves_the_generator_and_the_terminal_alone(folder, capfd, caplog):
    save_record(folder)
    state = torch.get_rng_state()
    capfd.readouterr()
    ClapAudioTower.from_pretrained(folder)
    assert torch.equal(torch.get_rng_state(), state)
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def test_a_clip_does_not_depend_on_the_others(folder):
    tower = ClapAudioTower.from_pretrained(folder)
    log_mel = make_log_mel(3)
    among = embed(tower, log_mel)
    among_others = embed(tower, log_mel[[2, 0, 2]])
    assert torch.equal(among[[2, 0, 2]], among_others)


@pytest.mark.parametrize("shape", [(1, 0, 64), (1, 1025, 64), (1, 1001, 128), (9, 64)])
def test_other_shapes_are_refused(shape):
    tower = ClapAudioTower(8, 12, depths=(1,) * 4, num_heads=(1,) * 4)
    with pytest.raises(ValueError, match=r"log_mel has .* ClapAudioTower takes"):
        tower(torch.zeros(shape))


def project(latent, weights):
    """Return what LAION's projection makes of the encoder's vectors, in doubles."""
    first, second = weights["audio_projection.0"], weights["audio_projection.2"]
    hidden = np.maximum(latent.astype(float) @ first[0].T + first[1], 0)
    vectors = hidden @ second[0].T + second[1]
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def projections():
    generator = np.random.default_rng(11)
    return {
        f"audio_projection.{place}": (
            generator.standard_normal((512, 768 if place == 0 else 512)) / 30,
            generator.standard_normal(512) / 10,
        )
        for place in (0, 2)
    }


@pytest.fixture(scope="module")
def official_file(parity, projections, tmp_path_factory):
    """Weights as LAION's trainer saves them."""
    reference = parity("clap_htsat_tiny")
    trunk = reference.state()
    row, column = np.divmod(np.arange(64), 8)
    index = (row[:, None] - row + 7) * 15 + (column[:, None] - column + 7)
    for key, entry in reference.manifest["keys"].items():
        if key.endswith("relative_position_index"):
            trunk[key] = torch.from_numpy(index)
        elif key not in trunk:  # constants that are not used
            trunk[key] = torch.zeros(entry["shape"])
    state = {f"audio_branch.{key}": value for key, value in trunk.items()}
    for name, (weight, bias) in projections.items():
        state[f"{name}.weight"] = torch.from_numpy(weight).float()
        state[f"{name}.bias"] = torch.from_numpy(bias).float()
    for name in (
        "text_branch.embeddings.position_ids",
        "text_branch.encoder.layer.0.attention.self.query.weight",
        "text_transform.sequential.0.weight",
        "text_projection.0.weight",
        "audio_transform.sequential.0.weight",
        "audio_transform.sequential.3.bias",
    ):
        state[name] = torch.zeros(2, 2)
    state["logit_scale_a"] = state["logit_scale_t"] = torch.tensor(2.6)
    path = tmp_path_factory.mktemp("clap") / "630k-audioset-best.pt"
    content = {
        "epoch": 45,
        "name": "a run",
        "optimizer": {"state": {}, "param_groups": []},
        "state_dict": {f"module.{name}": value for name, value in state.items()},
    }
    torch.save(content, path)
    return path


@pytest.fixture(scope="module")
def trained(official_file):
    sizes = ClapAudioTower.config_of(read_checkpoint(official_file))
    assert sizes == {
        "embed_dim": 96,
        "depths": (2, 2, 6, 2),
        "num_heads": (4, 8, 16, 32),
        "projection_dim": 512,
    }
    return load_checkpoint(ClapAudioTower(**sizes), official_file).eval()


def take_log_mel(reference, name):
    waveform = reference.inputs[name].waveform
    return torch.from_numpy(get_front_end("clap")(waveform)[np.newaxis])


@pytest.mark.parametrize("name", ["noise0", "noise1", "burst", "chirp"])
def test_a_file_of_laion_gives_what_the_authors_give(
    parity, trained, projections, name
):
    reference = parity("clap_htsat_tiny")
    expected = project(reference.expected[f"{name}.embedding"], projections)
    embedding = embed(trained, take_log_mel(reference, name))
    assert np.abs(embedding.numpy() - expected).max() / np.abs(expected).max() < 5e-6


def test_the_larger_model_gives_what_the_authors_give(parity):
    reference = parity("clap_htsat_base")
    state = {f"audio_branch.{key}": v for key, v in reference.state().items()}
    tower = ClapAudioTower(128, depths=(2, 2, 12, 2)).eval()
    own = tower.state_dict()
    converted = tower.convert_checkpoint(state)
    for name, value in own.items():
        if name.startswith("projection.") or name.endswith("position_index"):
            converted[name] = value
    load_state(tower, converted, "music_audioset_epoch_15_esc_90.14.pt")
    expected = reference.expected["chirp.embedding"]
    with torch.inference_mode():
        encoded = tower.encoder(take_log_mel(reference, "chirp").unsqueeze(1))
    error = np.abs(encoded.pooler_output.numpy() - expected).max()
    assert error / np.abs(expected).max() < 5e-6
