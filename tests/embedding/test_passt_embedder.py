"""PaSSTEmbedder beside its module: windows and files."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone

from sklabelaudio import PaSSTEmbedder
from sklabelaudio.exceptions import CheckpointError
from sklabelaudio.feature_extraction._front_ends import get_front_end
from sklabelaudio.nn import PaSST

RATE = 32000
SIZES = {"embed_dim": 64, "depth": 1, "num_heads": 1}


def make_module(n_classes=5, **params):
    model = PaSST(n_classes, **{**SIZES, **params}).eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture(scope="module")
def module():
    return make_module()


def save(module, folder):
    path = folder / "passt.pt"
    torch.save(module.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def weights(module, tmp_path_factory):
    return save(module, tmp_path_factory.mktemp("passt"))


@pytest.fixture(scope="module")
def waves():
    rng = np.random.default_rng(0)
    lengths = [1, 5000, RATE, 10 * RATE, 25 * RATE]
    return [0.1 * rng.standard_normal(n).astype(np.float32) for n in lengths]


def run(module, wave):
    log_mel = torch.from_numpy(get_front_end("passt")(wave)[np.newaxis])
    with torch.inference_mode():
        return module(log_mel)


@pytest.mark.parametrize("output", ["embedding", "logits", "probabilities"])
def test_rows_are_what_the_module_gives(module, weights, waves, output):
    embedder = PaSSTEmbedder(weights, sampling_rate=RATE, output=output)
    rows = embedder.fit_transform(waves[:4])
    assert rows.shape == (4, 64 if output == "embedding" else 5)
    for row, wave in zip(rows, waves, strict=False):
        found = run(module, wave)
        expected = found.embedding if output == "embedding" else found.logits
        expected = expected.sigmoid() if output == "probabilities" else expected
        np.testing.assert_allclose(row, expected[0].numpy(), rtol=0, atol=1e-5)


def test_a_clip_has_the_same_bits_in_any_company(weights, waves):
    embedder = PaSSTEmbedder(weights, sampling_rate=RATE).fit(waves)
    together = embedder.transform(waves)
    alone = np.concatenate([embedder.transform([wave]) for wave in waves])
    np.testing.assert_array_equal(alone, together)
    backwards = embedder.transform(waves[::-1])
    np.testing.assert_array_equal(backwards[::-1], together)
    again = pickle.loads(pickle.dumps(embedder)).transform(waves)
    np.testing.assert_array_equal(again, together)


def test_windows_of_a_long_clip_cover_it(module, weights, waves):
    wave = waves[4]
    starts = [0, 10 * RATE, 15 * RATE]
    windows = [wave[start : start + 10 * RATE] for start in starts]
    expected = torch.cat([run(module, window).embedding for window in windows]).numpy()
    embedder = PaSSTEmbedder(weights, sampling_rate=RATE, output="frames").fit([wave])
    np.testing.assert_allclose(
        embedder.transform([wave])[0], expected, rtol=0, atol=1e-5
    )
    np.testing.assert_array_equal(embedder.frame_times(3, duration=25), [5, 15, 20])
    mean = embedder.set_params(output="embedding").fit_transform([wave])[0]
    np.testing.assert_allclose(mean, expected.mean(axis=0), rtol=0, atol=1e-5)


def test_windows_can_be_as_long_as_the_positions_go(weights, waves):
    embedder = PaSSTEmbedder(weights, sampling_rate=RATE, window=10.05)
    assert embedder.fit_transform(waves[4:]).shape == (1, 64)
    too_long = clone(embedder).set_params(window=20)
    told = r"window=20 s is 2000 frames.*for 1005: lower window to 10\.05"
    with pytest.raises(CheckpointError, match=told):
        too_long.fit(waves)
    embedder.set_params(window=20)
    with pytest.raises(CheckpointError, match=told):
        embedder.transform(waves)


def test_models_of_longer_clips_take_them_whole(waves, tmp_path):
    module = make_module(n_frames=2010)  # as the authors' of 20 s
    embedder = PaSSTEmbedder(save(module, tmp_path), sampling_rate=RATE, window=20)
    wave = waves[4][: 20 * RATE]
    np.testing.assert_allclose(
        embedder.fit_transform([wave]), run(module, wave).embedding, rtol=0, atol=1e-5
    )


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({"window": 0.1}, r"window=0\.1 s is 3200 samples.*needs 4801"),
        ({"window": 0}, "'window' parameter"),
        ({"hop": 11}, "hop=11 s"),
    ],
)
def test_bad_windows_are_refused(weights, waves, params, told):
    with pytest.raises(ValueError, match=told):
        PaSSTEmbedder(weights, sampling_rate=RATE, **params).fit(waves)


def test_a_file_of_another_model_is_refused(waves, small_tagger):
    with pytest.raises(CheckpointError, match="not the weights of a PaSST"):
        PaSSTEmbedder(small_tagger / "efficientat.pt", sampling_rate=RATE).fit(waves)


def test_sizes_are_read_off_the_file(waves, tmp_path):
    module = make_module(7, frequency_stride=16, time_stride=16, depth=2)
    embedder = PaSSTEmbedder(
        save(module, tmp_path), sampling_rate=RATE, output="logits"
    )
    rows = embedder.fit_transform(waves[2:4])
    assert rows.shape == (2, 7)
    expected = run(module, waves[2]).logits[0]
    np.testing.assert_allclose(rows[0], expected, rtol=0, atol=1e-5)
