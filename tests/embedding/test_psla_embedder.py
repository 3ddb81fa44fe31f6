import numpy as np
import pytest
import torch
from sklearn.base import clone

from sklabelaudio import PSLAEmbedder
from sklabelaudio.exceptions import CheckpointError
from sklabelaudio.feature_extraction._front_ends import get_front_end
from sklabelaudio.nn import PSLA, EfficientAT

RATE = 16000
SMALL = {"n_classes": 5, "width": 0.25, "depth": 0.2}


@pytest.fixture(scope="module")
def waves():
    rng = np.random.default_rng(0)
    lengths = [1, 400, 16000, 40000, 99999, 170000, 250000]
    return [0.1 * rng.standard_normal(n).astype(np.float32) for n in lengths]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A small model, and a file of it."""
    path = tmp_path_factory.mktemp("weights") / "psla.pt"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = PSLA(**SMALL).eval()
    torch.save(model.state_dict(), path)
    return model, path


def run(model, wave, min_frames=None):
    log_mel = torch.from_numpy(get_front_end("psla")(wave))[None]
    with torch.inference_mode():
        return model(log_mel, min_frames=min_frames)


@pytest.mark.parametrize(
    ("stem", "padding"), [("psla", "symmetric"), ("psla_effnet071", "tensorflow")]
)
def test_is_the_published_model(parity, tmp_path, stem, padding):
    """From the authors' layout of files and the waveforms on."""
    reference = parity(stem)
    path = tmp_path / "as_mdl_0.pth"
    state = reference.state()
    torch.save({f"module.{key}": values for key, values in state.items()}, path)
    # The other is longer than a window, and the authors cut it off.
    clips = {
        name: item.waveform
        for name, item in reference.inputs.items()
        if name != "chirp"
    }
    waves = list(clips.values())
    embedder = PSLAEmbedder(path, sampling_rate=RATE, padding=padding).fit(waves)
    for output, stage in [("embedding", "embedding"), ("probabilities", "clipwise")]:
        rows = embedder.set_params(output=output).transform(waves)
        for name, row in zip(clips, rows, strict=True):
            wanted = reference.expected[f"{name}.{stage}"][0]
            atol = 5e-6 * np.abs(wanted).max()
            np.testing.assert_allclose(row, wanted, rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("params", "min_frames"),
    [
        ({}, 1056),
        ({"window": 30}, 3000),
        ({"short_clips": "keep"}, 4),
        ({"short_clips": "keep", "window": 30}, 4),
    ],
)
def test_short_clips_are_filled_up_as_in_training(small, waves, params, min_frames):
    model, path = small
    embedder = PSLAEmbedder(path, sampling_rate=RATE, **params)
    rows = embedder.fit_transform(waves[:5])
    assert rows.shape == (5, model.n_components)
    scale = np.abs(rows).max()
    for wave, row in zip(waves, rows, strict=False):
        expected = run(model, wave, min_frames).embedding[0].numpy()
        np.testing.assert_allclose(row, expected, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("short_clips", ["fill", "keep"])
@pytest.mark.parametrize("padding", ["symmetric", "tensorflow"])
def test_clips_of_any_length(small, waves, padding, short_clips):
    embedder = PSLAEmbedder(
        small[1], sampling_rate=RATE, padding=padding, short_clips=short_clips
    )
    together = embedder.fit_transform(waves)
    assert np.isfinite(together).all()
    for wave, row in zip(waves, together, strict=True):
        np.testing.assert_array_equal(embedder.transform([wave])[0], row)


def test_long_clips_are_cut_in_windows(small, waves):
    model, path = small
    wave = waves[6]
    windows = [wave[:160000], wave[-160000:]]
    embedder = PSLAEmbedder(path, sampling_rate=RATE, output="frames")
    (rows,) = embedder.fit_transform([wave])
    for window, row in zip(windows, rows, strict=True):
        expected = run(model, window, 1056).embedding[0].numpy()
        np.testing.assert_allclose(row, expected, rtol=0, atol=1e-5 * rows.max())


@pytest.mark.parametrize(
    ("output", "field"),
    [("framewise_probabilities", "framewise"), ("framewise_embedding", "frames")],
)
def test_time_line(small, waves, output, field):
    """What is behind a short clip is no part of it."""
    model, path = small
    embedder = PSLAEmbedder(path, sampling_rate=RATE, output=output)
    (rows,) = embedder.fit_transform([waves[3]])
    expected = getattr(run(model, waves[3], 1056), field)[0].numpy()
    assert len(rows) == 8  # of 2.5 s
    np.testing.assert_allclose(rows, expected, rtol=0, atol=1e-5 * rows.max())
    times = embedder.frame_times(8)
    np.testing.assert_allclose(np.diff(times), 0.32)
    # The middle of the first frame of 25 ms.
    assert times[0] == pytest.approx(200 / RATE)
    assert rows.flags.c_contiguous
    shifted = clone(embedder).fit(waves).set_params(padding="tensorflow")
    np.testing.assert_allclose(shifted.frame_times(8), times + 0.03)
    (long,) = embedder.transform([waves[6]])
    times = embedder.frame_times(len(long), duration=len(waves[6]) / RATE)
    assert (np.diff(times) > 0).all()
    # The last step may be half behind the clip.
    assert times[-1] < len(waves[6]) / RATE + 0.16


@pytest.mark.parametrize(
    "change", [{"padding": "tensorflow"}, {"short_clips": "keep"}, {"window": 12.0}]
)
def test_what_is_changed_after_fit_is_not_kept(small, waves, tmp_path, change):
    embedder = PSLAEmbedder(small[1], sampling_rate=RATE, cache=tmp_path)
    before = embedder.fit_transform(waves[3:4])
    rows = embedder.set_params(**change).transform(waves[3:4])
    without = clone(embedder).set_params(cache=None).fit_transform(waves[3:4])
    np.testing.assert_array_equal(rows, without)
    assert not np.allclose(rows, before, rtol=1e-3)


def test_classes_are_those_of_the_file(small, waves):
    embedder = PSLAEmbedder(small[1], sampling_rate=RATE, output="probabilities")
    assert embedder.fit_transform(waves[:2]).shape == (2, 5)


def test_random_weights(waves):
    rows = [
        PSLAEmbedder(None, sampling_rate=RATE).fit_transform(waves[2:3])
        for _ in range(2)
    ]
    assert rows[0].shape == (1, 1408)
    np.testing.assert_array_equal(*rows)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"padding": "same"}, "padding"),
        ({"short_clips": "repeat"}, "short_clips"),
        ({"window": 0}, "window"),
        ({"window": 0.02}, r"window=0\.02"),
        ({"hop": 11}, "hop=11"),
    ],
)
def test_bad_parameters(small, waves, params, message):
    with pytest.raises(ValueError, match=message):
        PSLAEmbedder(small[1], sampling_rate=RATE, **params).fit(waves)


def test_file_of_another_model_is_refused(waves, tmp_path):
    torch.save(EfficientAT(0.1).state_dict(), tmp_path / "mn01.pt")
    with pytest.raises(CheckpointError, match=r"mn01\.pt.*not the weights of a PSLA"):
        PSLAEmbedder(tmp_path / "mn01.pt", sampling_rate=RATE).fit(waves)
