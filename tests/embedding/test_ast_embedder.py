"""ASTEmbedder beside its module and transformers: windows, files, front ends."""

import json
import pickle

import numpy as np
import pytest
import torch
import transformers
from sklearn.base import clone

from sklabelaudio import ASTEmbedder
from sklabelaudio.embedding._ast import check_window
from sklabelaudio.exceptions import CheckpointError
from sklabelaudio.feature_extraction._front_ends import get_front_end
from sklabelaudio.nn import AST

RATE = 16000
SIZES = {"embed_dim": 64, "depth": 1, "num_heads": 1}


def make_module(n_classes=5, **params):
    model = AST(n_classes, **{**SIZES, **params}).eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture(scope="module")
def module():
    return make_module()


def save(module, folder):
    path = folder / "ast.pth"
    torch.save(module.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def weights(module, tmp_path_factory):
    return save(module, tmp_path_factory.mktemp("ast"))


@pytest.fixture(scope="module")
def waves():
    rng = np.random.default_rng(0)
    lengths = [1, 5000, RATE, 10 * RATE, 25 * RATE]
    return [0.1 * rng.standard_normal(n).astype(np.float32) for n in lengths]


def run(module, wave):
    log_mel = torch.from_numpy(get_front_end("ast")(wave)[np.newaxis])
    with torch.inference_mode():
        return module(log_mel)


@pytest.mark.parametrize("output", ["embedding", "logits", "probabilities"])
def test_rows_are_what_the_module_gives(module, weights, waves, output):
    embedder = ASTEmbedder(weights, sampling_rate=RATE, output=output)
    rows = embedder.fit_transform(waves[:4])
    assert rows.shape == (4, 64 if output == "embedding" else 5)
    for row, wave in zip(rows, waves, strict=False):
        found = run(module, wave)
        expected = found.embedding if output == "embedding" else found.logits
        expected = expected.sigmoid() if output == "probabilities" else expected
        np.testing.assert_allclose(row, expected[0].numpy(), rtol=0, atol=1e-5)


def test_a_clip_has_the_same_bits_in_any_company(weights, waves):
    embedder = ASTEmbedder(weights, sampling_rate=RATE).fit(waves)
    together = embedder.transform(waves)
    alone = np.concatenate([embedder.transform([wave]) for wave in waves])
    np.testing.assert_array_equal(alone, together)
    backwards = embedder.transform(waves[::-1])
    np.testing.assert_array_equal(backwards[::-1], together)
    again = pickle.loads(pickle.dumps(embedder)).transform(waves)
    np.testing.assert_array_equal(again, together)


def test_windows_of_a_long_clip_cover_it(module, weights, waves):
    """The last ends with the clip, and all that a window holds has a frame."""
    wave = waves[4]
    starts = [0, 10 * RATE, 15 * RATE]
    windows = [wave[start : start + 10 * RATE] for start in starts]
    expected = torch.cat([run(module, window).embedding for window in windows]).numpy()
    embedder = ASTEmbedder(weights, sampling_rate=RATE, output="frames").fit([wave])
    np.testing.assert_allclose(
        embedder.transform([wave])[0], expected, rtol=0, atol=1e-5
    )
    np.testing.assert_array_equal(embedder.frame_times(3, duration=25), [5, 15, 20])
    mean = embedder.set_params(output="embedding").fit_transform([wave])[0]
    np.testing.assert_allclose(mean, expected.mean(axis=0), rtol=0, atol=1e-5)
    assert len(get_front_end("ast")(windows[0])) == 998


def test_windows_can_be_as_long_as_the_positions_go(weights, waves):
    embedder = ASTEmbedder(weights, sampling_rate=RATE, window=10.24)
    assert embedder.fit_transform(waves[4:]).shape == (1, 64)
    too_long = clone(embedder).set_params(window=10.27)
    told = r"window=10\.27 s is 1025 frames.*for 1024: lower window to 10\.24"
    with pytest.raises(CheckpointError, match=told):
        too_long.fit(waves)
    embedder.set_params(window=10.27)
    with pytest.raises(CheckpointError, match=told):
        embedder.transform(waves)


@pytest.mark.parametrize("name", ["ast", "passt"])
def test_windows_are_measured_to_the_frame(name):
    front_end = get_front_end(name)
    rate, hop = front_end.sampling_rate, front_end.hop_length
    border = front_end.min_samples
    for n_samples in (*range(border, border + hop + 2), 10 * rate, 10 * rate + 1):
        n_frames = len(front_end(np.zeros(n_samples, dtype=np.float32)))
        check_window(n_samples / rate, front_end, n_frames)
        with pytest.raises(ValueError, match=f"is {n_frames} frames"):
            check_window(n_samples / rate, front_end, n_frames - 1)


def test_a_window_of_a_year_is_refused_at_once(weights, waves):
    with pytest.raises(CheckpointError, match=r"window=3\.15e\+07 s is"):
        ASTEmbedder(weights, sampling_rate=RATE, window=3.15e7).fit(waves)


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({"window": 0.02}, r"window=0\.02 s is 320 samples.*needs 400"),
        ({"window": 0}, "'window' parameter"),
        ({"hop": 11}, "hop=11 s"),
    ],
)
def test_bad_windows_are_refused(weights, waves, params, told):
    with pytest.raises(ValueError, match=told):
        ASTEmbedder(weights, sampling_rate=RATE, **params).fit(waves)


def test_random_weights_have_a_length_too(waves, monkeypatch):
    monkeypatch.setattr("sklabelaudio.nn.AST", lambda: make_module(n_frames=512))
    with pytest.raises(ValueError, match=r"window=10 s .*lower window to 5\.12"):
        ASTEmbedder(None, sampling_rate=RATE).fit(waves)


# Files.


def make_hub_model(**params):
    sizes = {
        "hidden_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "intermediate_size": 256,
        "num_labels": 5,
    }
    config = transformers.ASTConfig(**{**sizes, **params})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        model = transformers.ASTForAudioClassification(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape))
    return model


@pytest.fixture(scope="module")
def hub_model():
    return make_hub_model()


@pytest.mark.filterwarnings("ignore:At least one mel filter")  # of transformers
@pytest.mark.parametrize(
    "params",
    [
        {"max_length": 1000},
        {"num_attention_heads": 4},
        {"frequency_stride": 12},
        {"time_stride": 14},
    ],
)
def test_sizes_that_weights_do_not_tell_are_read_beside_them(waves, tmp_path, params):
    model = make_hub_model(**params)
    model.save_pretrained(tmp_path)
    embedder = ASTEmbedder(tmp_path, sampling_rate=RATE, output="logits")
    rows = embedder.fit_transform(waves[3:4])
    extractor = transformers.ASTFeatureExtractor(
        max_length=params.get("max_length", 1024)
    )
    inputs = extractor(waves[3], sampling_rate=RATE, return_tensors="pt").input_values
    with torch.inference_mode():
        expected = model(inputs).logits.numpy()
    np.testing.assert_allclose(rows, expected, rtol=0, atol=1e-3)
    again = pickle.loads(pickle.dumps(embedder)).transform(waves[3:4])
    np.testing.assert_array_equal(again, rows)


def test_the_cache_knows_what_is_beside_the_weights(waves, tmp_path):
    make_hub_model(num_attention_heads=4).save_pretrained(tmp_path)
    embedder = ASTEmbedder(tmp_path, sampling_rate=RATE, cache=tmp_path / "cache")
    before = embedder.fit_transform(waves[3:4])
    record = tmp_path / "config.json"
    settings = json.loads(record.read_text()) | {"num_attention_heads": 1}
    record.write_text(json.dumps(settings))
    after = embedder.fit_transform(waves[3:4])
    assert not np.array_equal(before, after)
    record.write_text("[]")
    with pytest.raises(CheckpointError, match=r"config\.json.*settings by name"):
        embedder.fit(waves)
    np.testing.assert_array_equal(embedder.transform(waves[3:4]), after)
    (tmp_path / "cache").rename(tmp_path / "moved")
    np.testing.assert_array_equal(embedder.transform(waves[3:4]), after)


@pytest.mark.parametrize("params", [{"hidden_act": "relu"}, {"patch_size": 8}])
def test_networks_of_another_structure_are_refused(waves, tmp_path, params):
    make_hub_model(**params).save_pretrained(tmp_path)
    [(name, value)] = params.items()
    with pytest.raises(
        CheckpointError, match=f"another network, with {name}={value!r}"
    ):
        ASTEmbedder(tmp_path, sampling_rate=RATE).fit(waves)


@pytest.mark.filterwarnings("ignore:At least one mel filter")  # of transformers
@pytest.mark.parametrize("as_folder", [True, False])
def test_gives_what_transformers_gives(hub_model, waves, tmp_path, as_folder):
    extractor = transformers.ASTFeatureExtractor()
    hub_model.save_pretrained(tmp_path)
    extractor.save_pretrained(tmp_path)
    weights = tmp_path if as_folder else tmp_path / "model.safetensors"
    embedder = ASTEmbedder(weights, sampling_rate=RATE, output="logits")
    rows = embedder.fit_transform(waves[1:4])
    with torch.inference_mode():
        inputs = [
            extractor(wave, sampling_rate=RATE, return_tensors="pt").input_values
            for wave in waves[1:4]
        ]
        expected = hub_model(torch.cat(inputs)).logits.numpy()
    np.testing.assert_allclose(rows, expected, rtol=0, atol=1e-3)
    assert np.abs(expected - expected[0])[1:].max() > 0.1


@pytest.mark.parametrize(
    "settings",
    [{"mean": -6.845978}, {"std": 5.5654526}, {"sampling_rate": 8000}, {"mean": None}],
)
def test_another_front_end_beside_the_weights_is_refused(
    hub_model, waves, tmp_path, settings
):
    hub_model.save_pretrained(tmp_path)
    record = tmp_path / "preprocessor_config.json"
    record.write_text(json.dumps({"num_mel_bins": 128, **settings}))
    [(name, value)] = settings.items()
    with pytest.raises(CheckpointError, match=f"another log-mel, with {name}={value}"):
        ASTEmbedder(tmp_path, sampling_rate=RATE).fit(waves)
    record.write_text("{")
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json.*no JSON"):
        ASTEmbedder(tmp_path, sampling_rate=RATE).fit(waves)


def test_what_is_beside_a_file_of_another_name_is_not_read(weights, module, tmp_path):
    path = save(module, tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"mean": 3}')
    ASTEmbedder(path, sampling_rate=RATE).fit([np.zeros(RATE)])


def test_the_model_for_speech_commands_is_refused(waves, tmp_path):
    path = save(make_module(35, n_frames=128), tmp_path)
    with pytest.raises(CheckpointError, match="Speech Commands, which takes another"):
        ASTEmbedder(path, sampling_rate=RATE, window=1.0).fit(waves)


def test_a_file_of_another_model_is_refused(waves, small_tagger):
    with pytest.raises(CheckpointError, match="not the weights of an AST"):
        ASTEmbedder(small_tagger / "efficientat.pt", sampling_rate=RATE).fit(waves)


def test_sizes_are_read_off_the_file(waves, tmp_path):
    path = save(
        make_module(7, n_frames=512, frequency_stride=16, time_stride=16), tmp_path
    )
    embedder = ASTEmbedder(path, sampling_rate=RATE, output="logits", window=5)
    assert embedder.fit_transform(waves).shape == (5, 7)
