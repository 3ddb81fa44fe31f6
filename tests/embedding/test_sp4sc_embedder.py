"""The scene classifier, from a file of its authors to probabilities of scenes."""

import json

import numpy as np
import pytest
from sklearn.base import clone

from sklabelaudio import SP4SCEmbedder
from sklabelaudio.exceptions import CheckpointError
from sklabelaudio.nn import SP4SC

RATE = 44100
NAMES = ("ce", "ce_mixup", "focal")


@pytest.fixture(scope="module")
def manifest(shared):
    path = shared / "reference" / "parity" / "sp4asc.manifest.json"
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def expected(shared):
    with np.load(shared / "reference" / "parity" / "sp4asc.A.npz") as archive:
        return dict(archive)


@pytest.fixture(scope="module")
def waves(expected):
    """The noises of the reference."""
    specs = [json.loads(str(expected["inputs"]))[i] for i in (0, 1)]
    noises = [np.random.default_rng(s["seed"]).standard_normal(s["n"]) for s in specs]
    return [(0.1 * noise).astype(np.float32) for noise in noises]


@pytest.fixture(scope="module")
def checkpoints(shared):
    return shared / "reference" / "checkpoints" / "sp4asc"


@pytest.fixture
def small(tmp_path):
    """The path of a narrow network, and its state."""
    import torch

    torch.manual_seed(0)
    model = SP4SC(3, channels=(2, 2, 2, 4))
    torch.save({"net": model.state_dict()}, tmp_path / "small.pth")
    return tmp_path / "small.pth", model


@pytest.mark.parametrize("name", NAMES)
def test_published_weights(checkpoints, expected, waves, name):
    embedder = SP4SCEmbedder(checkpoints / f"{name}.pth", sampling_rate=RATE)
    for output in ("embedding", "logits"):
        rows = clone(embedder).set_params(output=output).fit_transform(waves)
        wanted = [expected[f"noise{i}.{name}.{output}"][0] for i in (0, 1)]
        noise = 2e-6 * np.abs(wanted).max()
        np.testing.assert_allclose(rows, wanted, rtol=0, atol=noise)


def test_probabilities_are_of_one_scene(checkpoints, manifest, expected, waves):
    path = checkpoints / "focal.pth"
    embedder = SP4SCEmbedder(path, sampling_rate=RATE, output="probabilities")
    rows = embedder.fit_transform(waves)
    for i, row in enumerate(rows):
        powers = np.exp(expected[f"noise{i}.focal.logits"][0].astype(float))
        np.testing.assert_allclose(row, powers / powers.sum(), rtol=1e-4)
    assert embedder.get_feature_names_out().tolist() == manifest["classes"]


@pytest.mark.parametrize("name", NAMES)
def test_published_files_are_recognised(checkpoints, manifest, waves, name):
    embedder = SP4SCEmbedder(checkpoints / f"{name}.pth", sampling_rate=RATE)
    checkpoint = embedder.fit(waves).checkpoint_
    assert checkpoint.name == f"sp4asc_{name}"
    assert checkpoint.licence == "Apache-2.0"
    assert checkpoint.labels == tuple(manifest["classes"])


def test_merged_weights_give_the_same(checkpoints, waves, tmp_path):
    import torch

    from sklabelaudio.nn import load_checkpoint

    path = checkpoints / "ce.pth"
    model = load_checkpoint(SP4SC(), path).merge_batch_norm()
    torch.save({"net": model.state_dict()}, tmp_path / "merged.pth")
    rows, again = (
        SP4SCEmbedder(weights, sampling_rate=RATE, output="logits").fit_transform(waves)
        for weights in (path, tmp_path / "merged.pth")
    )
    np.testing.assert_array_equal(again, rows)


def test_other_sizes_are_read_off_the_weights(small, waves):
    path, model = small
    embedder = SP4SCEmbedder(path, sampling_rate=RATE).fit(waves)
    assert embedder.transform(waves).shape == (2, model.n_components) == (2, 4)
    assert embedder.set_params(output="logits").transform(waves).shape == (2, 3)
    assert embedder.get_feature_names_out()[0] == "sp4scembedder0"


@pytest.mark.parametrize("n_samples", [1, 1000, 15360, 20000])
def test_short_clips_are_followed_by_zeros(small, n_samples):
    path, _ = small
    wave = np.random.default_rng(0).standard_normal(n_samples).astype(np.float32)
    embedder = SP4SCEmbedder(path, sampling_rate=RATE)
    rows = embedder.fit_transform([wave, np.pad(wave, (0, max(0, 15360 - n_samples)))])
    assert np.isfinite(rows).all()
    np.testing.assert_array_equal(rows[0], rows[1])


def test_vectors_over_time(small):
    """Their maximum plus their mean is what the embedding is made of."""
    import torch

    path, model = small
    wave = np.random.default_rng(0).standard_normal(3 * RATE).astype(np.float32)
    embedder = SP4SCEmbedder(path, sampling_rate=RATE, output="framewise_embedding")
    frames = embedder.fit_transform([wave])[0]
    assert frames.shape == ((1 + 3 * RATE // 1024) // 16, 4)
    with torch.inference_mode():
        pooled = torch.from_numpy(frames.max(axis=0) + frames.mean(axis=0))
        expected = model.eval().fc1(pooled).relu().numpy()
    embedding = clone(embedder).set_params(output="embedding").fit_transform([wave])
    np.testing.assert_allclose(embedding[0], expected, rtol=1e-4, atol=1e-6)
    # Frame t is centred at sample 1024 t.
    times = (7.5 + 16 * np.arange(len(frames))) * 1024 / RATE
    np.testing.assert_allclose(embedder.frame_times(len(frames)), times)


def test_long_clips_are_cut_in_windows(small):
    path, _ = small
    wave = np.random.default_rng(0).standard_normal(5 * RATE // 2).astype(np.float32)
    embedder = SP4SCEmbedder(path, sampling_rate=RATE, window=1.0, output="frames")
    rows = embedder.fit_transform([wave])[0]
    parts = [wave[:RATE], wave[RATE : 2 * RATE], wave[-RATE:]]
    single = clone(embedder).set_params(output="embedding").fit(parts)
    np.testing.assert_array_equal(rows, single.transform(parts))
    np.testing.assert_allclose(
        single.transform([wave])[0], rows.mean(axis=0), rtol=1e-6
    )


def test_weights_for_other_bands_are_refused(waves, tmp_path):
    import torch

    path = tmp_path / "narrow.pth"
    torch.save(SP4SC(3, n_mels=64, channels=(2, 2, 2, 2)).state_dict(), path)
    with pytest.raises(CheckpointError, match=r"bn0\.weight: \(64,\) in the file"):
        SP4SCEmbedder(path, sampling_rate=RATE).fit(waves)


def test_other_models_are_refused(small_tagger, waves):
    path = small_tagger / "efficientat.pt"
    with pytest.raises(CheckpointError, match="not the weights of an SP4SC"):
        SP4SCEmbedder(path, sampling_rate=RATE).fit(waves)


def test_a_window_shorter_than_the_network_needs_is_refused(waves):
    with pytest.raises(ValueError, match=r"window=0\.3 s.*needs 15360"):
        SP4SCEmbedder(None, sampling_rate=RATE, window=0.3).fit(waves)
