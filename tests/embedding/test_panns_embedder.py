"""PANNsEmbedder: which network a checkpoint is of, and what it gives of clips."""

import hashlib
import pickle
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from sklabelaudio import PANNsEmbedder, list_checkpoints
from sklabelaudio._checkpoints import _registry
from sklabelaudio.exceptions import CheckpointError
from sklabelaudio.feature_extraction._front_ends import get_front_end
from sklabelaudio.nn import Cnn6, Cnn10, Cnn14, ResNet38, WavegramLogmelCnn14

RATE = 32000
OVER_TIME = "cnn14_decision_level_max"
SIX = {"channels": (4, 4, 8, 8, 16, 16)}
# The official name of the file, a small network, and its front end.
ARCHITECTURES = {
    "cnn6": ("Cnn6_mAP=0.343.pth", Cnn6, {"channels": (4, 8, 8, 16)}, "32k"),
    "cnn10": ("Cnn10_mAP=0.380.pth", Cnn10, {"channels": (4, 8, 8, 16)}, "32k"),
    "cnn14": ("Cnn14_mAP=0.431.pth", Cnn14, SIX, "32k"),
    "cnn14_16k": ("Cnn14_16k_mAP=0.438.pth", Cnn14, SIX, "16k"),
    OVER_TIME: (
        "Cnn14_DecisionLevelMax_mAP=0.385.pth",
        Cnn14,
        {**SIX, "decision_level": "max"},
        "32k",
    ),
    "resnet38": (
        "ResNet38_mAP=0.434.pth",
        ResNet38,
        {"n_blocks": (1, 1, 1, 1), "channels": (4, 8, 8, 16), "n_components": 24},
        "32k",
    ),
    "wavegram_logmel_cnn14": (
        "Wavegram_Logmel_Cnn14_mAP=0.439.pth",
        WavegramLogmelCnn14,
        {**SIX, "wave_channels": (4, 8, 32)},
        "wavegram",
    ),
}
EVERY = pytest.mark.parametrize("architecture", ARCHITECTURES)


@pytest.fixture(scope="module")
def waves():
    """Clips from one sample to longer than a window."""
    rng = np.random.default_rng(0)
    lengths = [1, 9919, 10241, 32000, 99999, 400000]
    return [0.1 * rng.standard_normal(n).astype(np.float32) for n in lengths]


def save_official(model, path, front_end):
    """Save weights as the authors do, with the constants of their front end."""
    n_fft = 512 if front_end == "16k" else 1024
    n_frequencies = 1 + n_fft // 2
    constants = {
        "spectrogram_extractor.stft.conv_real.weight": (n_frequencies, 1, n_fft),
        "spectrogram_extractor.stft.conv_imag.weight": (n_frequencies, 1, n_fft),
        "logmel_extractor.melW": (n_frequencies, 64),
    }
    state = {name: torch.zeros(shape) for name, shape in constants.items()}
    content = {"iteration": 600000, "model": state | model.state_dict()}
    torch.save(content, path)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Small networks, and files of them under the official names."""
    folder = tmp_path_factory.mktemp("panns")
    models, paths, front_ends = {}, {}, {}
    for name, (file, cls, sizes, front_end) in ARCHITECTURES.items():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = cls(7, **sizes).eval()
        model.bn0.running_mean.fill_(-20)
        model.bn0.running_var.fill_(100)
        save_official(model, folder / file, front_end)
        models[name], paths[name] = model, folder / file
        front_ends[name] = get_front_end(f"panns_{front_end}")
    return SimpleNamespace(models=models, paths=paths, front_ends=front_ends)


def encode(files, architecture, wave):
    """Run the network itself on a clip."""
    inputs = torch.from_numpy(files.front_ends[architecture](wave))[None]
    with torch.inference_mode():
        return files.models[architecture](inputs)


def resample(wave, rate):
    import soxr

    return wave if rate == RATE else soxr.resample(wave, RATE, rate, "HQ")


# What it gives.


@EVERY
def test_rows_are_the_networks(files, waves, architecture):
    """With the weights of a file by its official name, each at its own rate."""
    front_end = files.front_ends[architecture]
    rate = front_end.sampling_rate
    short = [resample(wave, rate) for wave in waves[:5]]
    embedder = PANNsEmbedder(files.paths[architecture], sampling_rate=rate)
    rows = embedder.fit_transform(short)
    assert embedder.architecture_ == architecture
    assert embedder.sampling_rate_ == rate
    assert rows.dtype == np.float32
    assert rows.shape == (5, embedder.n_components_)
    probabilities = embedder.set_params(output="probabilities").transform(short)
    assert probabilities.shape == (5, 7)
    for i, wave in enumerate(short):
        expected = encode(files, architecture, wave)
        for row, tensor in (
            (rows[i], expected.embedding),
            (probabilities[i], expected.logits.sigmoid()),
        ):
            atol = 1e-5 * tensor.abs().max()
            np.testing.assert_allclose(row, tensor[0], rtol=0, atol=atol)
    assert np.ptp(rows, axis=0).max() > 1e-2 * rows.max()
    # Alone, and from another process's copy.
    copy = pickle.loads(pickle.dumps(embedder.set_params(output="embedding")))
    assert len(pickle.dumps(embedder)) < 10_000
    for row, wave in zip(rows, short, strict=True):
        np.testing.assert_array_equal(copy.transform([wave])[0], row)


@EVERY
def test_long_clips_are_cut_in_windows(files, waves, architecture):
    front_end = files.front_ends[architecture]
    rate = front_end.sampling_rate
    wave = resample(waves[5], rate)
    windows = [wave[: 10 * rate], wave[-10 * rate :]]
    embedder = PANNsEmbedder(
        files.paths[architecture], sampling_rate=rate, output="frames"
    )
    (rows,) = embedder.fit_transform([wave])
    for row, window in zip(rows, windows, strict=True):
        expected = encode(files, architecture, window).embedding[0].numpy()
        np.testing.assert_allclose(row, expected, atol=1e-5 * np.abs(rows).max())
    (pooled,) = embedder.set_params(output="embedding").transform([wave])
    np.testing.assert_allclose(pooled, rows.mean(axis=0), rtol=1e-5, atol=1e-6)


@EVERY
def test_vectors_over_time(files, waves, architecture):
    front_end = files.front_ends[architecture]
    rate = front_end.sampling_rate
    wave = resample(waves[4], rate)
    embedder = PANNsEmbedder(
        files.paths[architecture], sampling_rate=rate, output="framewise_embedding"
    )
    (rows,) = embedder.fit_transform([wave])
    expected = encode(files, architecture, wave).frames[0].numpy()
    np.testing.assert_allclose(rows, expected, atol=1e-5 * np.abs(expected).max())
    times = embedder.frame_times(len(rows))
    step = 0.16 if architecture in ("cnn6", "cnn10") else 0.32
    assert len(rows) == int(len(wave) / rate / step)
    np.testing.assert_allclose(np.diff(times), step)
    assert times[0] == pytest.approx(step / 2 - 0.005)
    (long,) = embedder.transform([resample(waves[5], rate)])
    times = embedder.frame_times(len(long), duration=12.5)
    assert (np.diff(times) > 0).all()


def test_probabilities_over_time(files, waves):
    embedder = PANNsEmbedder(
        files.paths[OVER_TIME], sampling_rate=RATE, output="framewise_probabilities"
    )
    (rows,) = embedder.fit_transform(waves[4:5])
    expected = encode(files, OVER_TIME, waves[4]).framewise[0].numpy()
    assert rows.shape == expected.shape == (1 + len(waves[4]) // 320, 7)
    np.testing.assert_allclose(rows, expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(embedder.frame_times(3), [0, 0.01, 0.02])
    (best,) = embedder.set_params(output="probabilities").transform(waves[4:5])
    np.testing.assert_allclose(best, rows.max(axis=0), rtol=0, atol=1e-5)
    (long,) = embedder.set_params(output="framewise_probabilities").transform(waves[5:])
    times = embedder.frame_times(len(long), duration=12.5)
    np.testing.assert_allclose(np.diff(times), 0.01, atol=0.006)
    assert times[-1] == pytest.approx(12.5, abs=0.02)


@pytest.mark.parametrize("architecture", ["cnn6", "cnn10"])
def test_random_weights(architecture, waves):
    embedder = PANNsEmbedder(None, architecture=architecture, sampling_rate=RATE)
    rows = embedder.fit_transform(waves[:2])
    assert rows.shape == (2, 512)
    np.testing.assert_array_equal(clone(embedder).fit_transform(waves[:2]), rows)


def test_random_weights_are_of_cnn14_by_default(waves):
    embedder = PANNsEmbedder(None, sampling_rate=RATE).fit(waves)
    assert embedder.architecture_ == "cnn14"
    assert embedder.n_components_ == 2048
    assert embedder.checkpoint_.n_parameters == 80_753_615


# Which network it is.


@EVERY
def test_renamed_files_are_told_by_their_weights(files, waves, tmp_path, architecture):
    path = tmp_path / "weights.pt"
    shutil.copy(files.paths[architecture], path)
    embedder = PANNsEmbedder(path, sampling_rate=RATE)
    # The one's weights are the other's in name and shape.
    told = "cnn14" if architecture == OVER_TIME else architecture
    assert embedder.fit(waves).architecture_ == told
    named = PANNsEmbedder(path, architecture=architecture, sampling_rate=RATE)
    rows = named.fit_transform(waves[3:4])
    assert named.architecture_ == architecture
    expected = PANNsEmbedder(files.paths[architecture], sampling_rate=RATE)
    np.testing.assert_array_equal(rows, expected.fit_transform(waves[3:4]))


@pytest.fixture
def publish(files, monkeypatch):
    """Callable: have a small file taken for the published one."""

    def publish(architecture):
        content = files.paths[architecture].read_bytes()
        digest = hashlib.sha256(content).hexdigest()

        def claim(record):
            if record.name != architecture:
                return record
            (source,) = record.sources
            return replace(record, sources=(replace(source, sha256=digest),))

        records = tuple(claim(record) for record in _registry.CHECKPOINTS)
        monkeypatch.setattr(_registry, "CHECKPOINTS", records)

    return publish


def test_renamed_files_are_told_by_their_digest(files, waves, tmp_path, publish):
    """If it is a published one: then it is certain."""
    path = tmp_path / "weights.pt"
    shutil.copy(files.paths[OVER_TIME], path)
    publish(OVER_TIME)
    embedder = PANNsEmbedder(path, sampling_rate=RATE)
    rows = embedder.fit_transform(waves[3:4])
    assert embedder.architecture_ == embedder.checkpoint_.name == OVER_TIME
    expected = encode(files, OVER_TIME, waves[3]).embedding.numpy()
    np.testing.assert_allclose(rows, expected, rtol=0, atol=1e-5 * expected.max())


@pytest.mark.parametrize(
    ("file", "params", "taken_for"),
    [
        # A name for another rate, and a network that the weights would fit.
        ("Cnn14_16k_mAP=0.438.pth", {}, "cnn14_16k"),
        ("weights.pt", {"architecture": OVER_TIME}, OVER_TIME),
    ],
)
def test_published_files_are_not_taken_for_others(
    files, waves, tmp_path, publish, file, params, taken_for
):
    path = tmp_path / file
    shutil.copy(files.paths["cnn14"], path)
    publish("cnn14")
    embedder = PANNsEmbedder(path, sampling_rate=RATE, **params)
    told = f"published 'cnn14', and not of '{taken_for}': pass architecture='cnn14'"
    with pytest.raises(CheckpointError, match=told):
        embedder.fit(waves)
    embedder.set_params(architecture="cnn14")
    rows = embedder.fit_transform(waves[3:4])
    assert embedder.sampling_rate_ == RATE
    expected = encode(files, "cnn14", waves[3]).embedding.numpy()
    np.testing.assert_allclose(rows, expected, rtol=0, atol=1e-5 * expected.max())


def test_the_front_end_is_known_before_the_weights(files, tmp_path):
    missing = tmp_path / "missing.pth"
    for architecture, (_, _, _, front_end) in ARCHITECTURES.items():
        for params in (
            {"architecture": architecture},
            {"weights": architecture},
            {"weights": missing, "architecture": architecture},
            {"weights": files.paths[architecture]},
        ):
            assert PANNsEmbedder(**params)._front_end_name == f"panns_{front_end}"
    assert PANNsEmbedder()._front_end_name == "panns_32k"


def test_another_fit_is_of_another_network(files, waves):
    embedder = PANNsEmbedder(files.paths["cnn14_16k"], sampling_rate=RATE).fit(waves)
    before = embedder.transform(waves[3:4])
    embedder.set_params(weights=files.paths["wavegram_logmel_cnn14"])
    # A fitted one stays what it is until then, also after pickling.
    copy = pickle.loads(pickle.dumps(embedder))
    np.testing.assert_array_equal(copy.transform(waves[3:4]), before)
    after = embedder.fit_transform(waves[3:4])
    assert embedder.architecture_ == "wavegram_logmel_cnn14"
    assert embedder.sampling_rate_ == 32000
    assert not np.array_equal(before, after)


def test_the_cache_knows_the_network(files, waves, tmp_path):
    """One file, run as two networks."""
    shutil.copy(files.paths["cnn14"], tmp_path / "weights.pt")
    rows = [
        PANNsEmbedder(
            tmp_path / "weights.pt",
            architecture=architecture,
            sampling_rate=RATE,
            cache=tmp_path / "cache",
        ).fit_transform(waves[3:4])
        for architecture in ("cnn14", OVER_TIME, "cnn14")
    ]
    assert not np.allclose(rows[0], rows[1])
    np.testing.assert_array_equal(rows[0], rows[2])


def test_a_fit_that_fails_leaves_the_fitted_as_it_was(files, waves, tmp_path):
    """And none of its rows in the cache under the name of the other network."""
    path = tmp_path / "weights.pt"
    shutil.copy(files.paths["cnn14"], path)
    embedder = PANNsEmbedder(path, sampling_rate=RATE, cache=tmp_path / "cache")
    with pytest.raises(ValueError, match="device='none'"):
        embedder.set_params(device="none").fit(waves)
    with pytest.raises(NotFittedError):
        embedder.set_params(device="auto").transform(waves)
    embedder.fit(waves).set_params(architecture=OVER_TIME, device="none")
    with pytest.raises(ValueError, match="device='none'"):
        embedder.fit(waves)
    assert embedder.architecture_ == "cnn14"
    embedder.set_params(device="auto").transform(waves[3:4])
    rows = clone(embedder).fit_transform(waves[3:4])
    expected = clone(embedder).set_params(cache=None).fit_transform(waves[3:4])
    np.testing.assert_array_equal(rows, expected)


@pytest.fixture
def data_home(files, tmp_path, monkeypatch):
    """A data home with the small files, as if they had been fetched."""
    monkeypatch.setenv("SKLABELAUDIO_DATA", str(tmp_path))
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for path in files.paths.values():
        shutil.copy(path, folder)
    return tmp_path


@EVERY
def test_checkpoints_by_name(data_home, waves, architecture):
    records = {record.name: record for record in list_checkpoints("panns")}
    assert set(records) == set(ARCHITECTURES)
    record = records[architecture]
    file, cls, _, front_end = ARCHITECTURES[architecture]
    assert record.files == (file,)
    assert record.front_end == f"panns_{front_end}"
    with torch.device("meta"):
        model = cls()
    assert record.n_components == model.n_components
    assert record.n_parameters == sum(p.numel() for p in model.parameters())
    choices = [{"weights": architecture}, {"architecture": architecture}]
    for params in choices + ([{}] if architecture == "cnn14" else []):
        embedder = PANNsEmbedder(**params, sampling_rate=RATE)
        if record.sources[0].sha256 is not None:
            # The small files are not those that were published.
            with pytest.raises(OSError, match="SHA-256"):
                embedder.fit(waves)
            continue
        embedder.fit(waves)
        assert embedder.architecture_ == architecture
        assert embedder.checkpoint_.name == architecture
        pickle.loads(pickle.dumps(embedder)).transform(waves[3:4])


# Bad input.


@pytest.mark.parametrize(
    ("given", "nearest"),
    [
        ("cnn-14", "cnn14"),
        ("Cnn10", "cnn10"),
        ("resnet", "resnet38"),
        ("decision_level_max", OVER_TIME),
        ("Wavegram_Logmel_Cnn14", "wavegram_logmel_cnn14"),
    ],
)
def test_an_unknown_architecture_is_refused(given, nearest, waves):
    embedder = PANNsEmbedder(None, architecture=given, sampling_rate=RATE)
    with pytest.raises(ValueError, match=f"'{given}'.*Did you mean '{nearest}'"):
        embedder.fit(waves)


def test_a_name_and_another_architecture_are_refused(waves):
    embedder = PANNsEmbedder("cnn6", architecture="cnn10", sampling_rate=RATE)
    with pytest.raises(ValueError, match=r"weights='cnn6' and architecture='cnn10'"):
        embedder.fit(waves)


def test_no_file_and_no_name_are_refused(waves, tmp_path):
    with pytest.raises(ValueError, match=r"neither a file nor the name.*'cnn14'"):
        PANNsEmbedder("Cnn14_mAP", sampling_rate=RATE).fit(waves)
    with pytest.raises(ValueError, match="neither a file nor the name"):
        PANNsEmbedder(tmp_path / "none.pth", sampling_rate=RATE).fit(waves)


@EVERY
def test_scores_over_time_of_the_one_network_only(files, waves, architecture):
    embedder = PANNsEmbedder(
        files.paths[architecture],
        sampling_rate=RATE,
        output="framewise_probabilities",
    )
    if architecture == OVER_TIME:
        embedder.fit(waves)
        return
    with pytest.raises(ValueError, match=f"'{architecture}' has no .*'{OVER_TIME}'"):
        embedder.fit(waves)
    embedder.set_params(output="embedding").fit(waves)
    with pytest.raises(ValueError, match=OVER_TIME):
        embedder.set_params(output="framewise_probabilities").transform(waves)


@pytest.mark.parametrize(
    ("weights", "architecture", "message"),
    [
        ("cnn6", "cnn10", "'conv_block1.conv1.weight' has the shape"),
        ("cnn10", "cnn14", "no weight|has the shape"),
        ("resnet38", "cnn14", "no weight|has the shape"),
        ("cnn14", "resnet38", "no weight"),
        ("cnn14", "wavegram_logmel_cnn14", "no weight 'pre_conv0.weight'"),
        ("cnn14", "cnn14_16k", "513 frequencies.*257.*sampling rate"),
        ("cnn14_16k", "cnn14", "257 frequencies.*513.*sampling rate"),
        ("cnn14_16k", OVER_TIME, "sampling rate"),
    ],
)
def test_weights_of_another_architecture(files, waves, weights, architecture, message):
    embedder = PANNsEmbedder(
        files.paths[weights], architecture=architecture, sampling_rate=RATE
    )
    with pytest.raises(CheckpointError, match=f"(?s)pth.*({message})"):
        embedder.fit(waves)


def test_a_cnn14_that_does_not_tell_its_rate(files, waves, tmp_path):
    """Weights that this package's module saved have no constants."""
    path = tmp_path / "tuned.pt"
    torch.save(files.models["cnn14"].state_dict(), path)
    with pytest.raises(CheckpointError, match=r"tuned\.pt.*architecture='cnn14'"):
        PANNsEmbedder(path, sampling_rate=RATE).fit(waves)
    for architecture in ("cnn14", "cnn14_16k", OVER_TIME):
        embedder = PANNsEmbedder(path, architecture=architecture, sampling_rate=RATE)
        assert np.isfinite(embedder.fit_transform(waves[:4])).all()
    torch.save(files.models["cnn10"].state_dict(), path)
    embedder = PANNsEmbedder(path, sampling_rate=RATE).fit(waves)
    assert embedder.architecture_ == "cnn10"


def test_files_of_other_models(waves, tmp_path):
    path = tmp_path / "other.pt"
    torch.save(torch.nn.Linear(3, 2).state_dict(), path)
    with pytest.raises(CheckpointError, match=r"other\.pt.*none of the PANNs"):
        PANNsEmbedder(path, sampling_rate=RATE).fit(waves)
    path.write_bytes(b"nonsense")
    for architecture in (None, "cnn14"):
        with pytest.raises(CheckpointError, match=r"other\.pt"):
            PANNsEmbedder(path, architecture=architecture, sampling_rate=RATE).fit(
                waves
            )


def test_windows_too_short_for_the_network(files, waves):
    with pytest.raises(ValueError, match=r"window=0\.3 s.*needs 9920"):
        PANNsEmbedder(files.paths["cnn14"], sampling_rate=RATE, window=0.3).fit(waves)
