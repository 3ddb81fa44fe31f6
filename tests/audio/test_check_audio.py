import re
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import soundfile
import soxr

from sklabelaudio import check_audio
from sklabelaudio.audio import AudioClips
from sklabelaudio.exceptions import AudioReadError

RATE = 8000


def noise(n_samples, seed=0):
    return np.random.default_rng(seed).uniform(-0.5, 0.5, n_samples)


def ragged(*clips):
    made = np.empty(len(clips), dtype=object)
    made[:] = clips
    return made


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    names = [str(folder / f"{i}.wav") for i in range(3)]
    for i, name in enumerate(names):
        soundfile.write(name, noise(500 + i, seed=i), RATE, subtype="FLOAT")
    return names


# What is taken


@pytest.mark.parametrize(
    "kind",
    [
        list,
        tuple,
        np.array,
        lambda paths: np.array(paths, dtype=object),
        lambda paths: [Path(path) for path in paths],
        lambda paths: np.array([Path(path) for path in paths]),
        lambda paths: [Path(paths[0]), *paths[1:]],
        lambda paths: pd.Series(paths, index=[7, 3, 5]),
        lambda paths: pd.Series([Path(path) for path in paths]),
        lambda paths: pd.DataFrame({"path": paths})["path"],
        lambda paths: pd.Index(paths),
    ],
)
def test_kinds_of_paths(paths, kind):
    clips = check_audio(kind(paths))
    assert isinstance(clips, AudioClips)
    assert clips.is_files
    assert len(clips) == 3
    assert [clips.name(i) for i in range(3)] == paths
    for i, clip in enumerate(clips):
        np.testing.assert_array_equal(clip, noise(500 + i, seed=i).astype("f4"))


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", "longdouble"])
@pytest.mark.parametrize(
    "kind",
    [
        np.array,
        list,
        tuple,
        lambda X: X.tolist(),
        lambda X: [row.tolist() for row in X],
        lambda X: ragged(*X),
        lambda X: X.astype(object),
        lambda X: pd.Series(list(X)),
        pd.DataFrame,
        np.asfortranarray,
        lambda X: X[:, ::-1][:, ::-1],
    ],
)
def test_kinds_of_arrays(kind, dtype):
    X = np.stack([noise(50, seed=i) for i in range(3)]).astype(dtype)
    if kind is pd.DataFrame and dtype in (">f4", "longdouble"):
        pytest.skip("pandas does not take this")
    clips = check_audio(kind(X), sampling_rate=RATE)
    assert not clips.is_files
    assert len(clips) == 3
    for clip, expected in zip(clips, X, strict=True):
        assert clip.dtype == np.float32
        assert clip.dtype.isnative
        assert clip.flags.c_contiguous
        np.testing.assert_array_equal(clip, expected.astype("f4"))


@pytest.mark.parametrize("kind", [list, lambda clips: ragged(*clips), pd.Series])
def test_clips_of_several_lengths(kind):
    waves = [noise(50), noise(7), noise(123)]
    clips = check_audio(kind(waves), sampling_rate=RATE)
    for clip, wave in zip(clips, waves, strict=True):
        np.testing.assert_array_equal(clip, wave.astype("f4"))


def test_torch_tensors():
    torch = pytest.importorskip("torch")
    X = noise((2, 50)).astype("f4")
    for given in (torch.from_numpy(X), list(torch.from_numpy(X))):
        clips = check_audio(given, sampling_rate=RATE)
        np.testing.assert_array_equal(clips[1], X[1])


def test_small_integers_are_numbers():
    """So that scikit-learn's checks and toy arrays pass."""
    X = np.arange(12).reshape(2, 6)
    clips = check_audio(X, sampling_rate=RATE)
    np.testing.assert_array_equal(clips[1], X[1])


@pytest.mark.parametrize("index", [0, 1, -1, np.int64(2)])
def test_indexing(paths, index):
    clips = check_audio(paths)
    np.testing.assert_array_equal(clips[index], list(clips)[index])


@pytest.mark.parametrize("kind", ["files", "matrix"])
def test_slices_are_refused(paths, kind):
    X = paths if kind == "files" else noise((3, 40))
    clips = check_audio(X, sampling_rate=RATE, target_sampling_rate=16000)
    with pytest.raises(TypeError, match=r"slice|integer"):
        clips[:2]
    with pytest.raises(IndexError):
        clips[3]


# Rates


@pytest.mark.parametrize("files", [True, False])
def test_resampled_to_the_target(paths, files):
    waves = [noise(500 + i, seed=i).astype("f4") for i in range(3)]
    if files:
        clips = check_audio(paths, target_sampling_rate=44100)
    else:
        clips = check_audio(waves, sampling_rate=RATE, target_sampling_rate=44100)
    assert clips.common_sampling_rate() == 44100
    for clip, wave in zip(clips, waves, strict=True):
        expected = soxr.resample(wave, RATE, 44100, quality="HQ")
        np.testing.assert_array_equal(clip, expected)


def test_files_keep_their_own_rate(paths):
    clips = check_audio(paths, sampling_rate=44100)  # is about arrays
    assert clips.common_sampling_rate() == RATE
    assert clips[0].size == 500


@pytest.mark.parametrize("parameter", ["sampling_rate", "target_sampling_rate"])
@pytest.mark.parametrize(
    "rate",
    [0, -44100, np.nan, np.inf, True, "44100", [44100], np.array([44100.0]), 1j],
    ids=repr,
)
def test_rates_that_are_none(parameter, rate):
    parameters = {"sampling_rate": RATE, parameter: rate}
    message = re.escape(f"{parameter}={rate!r} is no sampling rate: give it in Hz")
    with pytest.raises(ValueError, match=rf"^{message}"):
        check_audio([noise(50)], **parameters)


@pytest.mark.parametrize(
    "X", [noise((2, 50)), [noise(50), noise(40)], ragged(noise(50), noise(40))]
)
def test_arrays_need_a_rate(X):
    with pytest.raises(ValueError, match=r"such as sampling_rate=44100, or pass the p"):
        check_audio(X)


@pytest.mark.parametrize("channel", [-1, "left", None, 0.5])
def test_bad_channel(paths, channel):
    with pytest.raises(ValueError, match=rf"channel.*{channel!r}"):
        check_audio(paths, channel=channel)


# What is no list of clips


@pytest.mark.parametrize("kind", [str, Path, np.str_])
def test_one_path(kind):
    with pytest.raises(TypeError, match=r"^X='a.wav' is one path.* \['a.wav'\]$"):
        check_audio(kind("a.wav"))


@pytest.mark.parametrize(
    "X", [[], (), np.array([]), np.array([], dtype=object), pd.Series([], dtype=object)]
)
def test_empty(X):
    with pytest.raises(ValueError, match="X is empty: it needs at least one clip"):
        check_audio(X, sampling_rate=RATE)


@pytest.mark.parametrize(
    "X",
    [
        None,
        5.0,
        np.float64(5),
        np.array(5.0),
        {"a.wav": "dog"},
        {0: noise(50)},
        {"a.wav", "b.wav"},
        (path for path in ["a.wav"]),
        b"a.wav",
    ],
    ids=lambda X: type(X).__name__,
)
def test_no_sequence(X):
    message = "pass a list of paths or an array of clips"
    with pytest.raises(TypeError, match=message) as caught:
        check_audio(X, sampling_rate=RATE)
    assert type(X).__name__ in str(caught.value)


@pytest.mark.parametrize("X", [[b"a.wav"], [None], [{"array": noise(50)}]])
def test_items_that_are_neither_paths_nor_arrays(X):
    with pytest.raises((TypeError, ValueError), match=r"X\[0\] (is a|has dtype)"):
        check_audio(X, sampling_rate=RATE)


@pytest.mark.parametrize(
    "X",
    [
        pd.DataFrame({"path": ["a.wav", "b.wav"]}),
        np.array([["a.wav"], ["b.wav"]]),
        np.array([["a.wav"], ["b.wav"]], dtype=object),
    ],
    ids=["frame", "str", "object"],
)
def test_paths_in_a_table(X):
    """A column is asked for, as ``frame["path"]`` is one."""
    with pytest.raises((TypeError, ValueError), match="paths"):
        check_audio(X)


@pytest.mark.parametrize(
    ("X", "kinds"),
    [
        (["a.wav", noise(50)], ("str", 1, "ndarray")),
        ([noise(50), noise(50), "a.wav"], ("ndarray", 2, "str")),
        (["a.wav", "b.wav", np.nan], ("str", 2, "float")),
        (pd.Series(["a.wav", None], dtype=object), ("str", 1, "NoneType")),
    ],
)
def test_mixed(X, kinds):
    first, index, other = kinds
    message = rf"X mixes paths and arrays: X\[0\] is a {first}, X\[{index}\] is a "
    with pytest.raises(TypeError, match=f"{message}{other}; pass one kind"):
        check_audio(X, sampling_rate=RATE)


def test_one_waveform():
    for X in (noise(50), noise(50).tolist()):
        with pytest.raises(ValueError, match=r"Expected 2D array, got 1D array"):
            check_audio(X, sampling_rate=RATE)


@pytest.mark.parametrize("kind", [scipy.sparse.csr_array, scipy.sparse.coo_matrix])
def test_sparse(kind):
    with pytest.raises(TypeError, match=r"Sparse data was passed for X.*toarray"):
        check_audio(kind(noise((2, 50))), sampling_rate=RATE)


def test_complex():
    for X in (noise((2, 50)) + 0j, [noise(50) + 0j]):
        with pytest.raises(ValueError, match=r"[Cc]omplex"):
            check_audio(X, sampling_rate=RATE)


@pytest.mark.parametrize("X", [np.zeros((2, 50), bool), [np.zeros(50, bool)]])
def test_bool(X):
    with pytest.raises(ValueError, match=r"X(\[0\])? has dtype bool"):
        check_audio(X, sampling_rate=RATE)


# The message says what to do, and it is right


def mended(X, error):
    """Follow the advice at the end of a message."""
    (advice,) = re.findall(r"for example (.+)$", str(error))
    return eval(advice, {"X": X, "np": np})


@pytest.mark.parametrize("shape", [(2, 800), (800, 2), (1, 800), (800, 1)])
def test_stereo_clip_in_a_list(shape):
    X = [noise(shape)]
    with pytest.raises(ValueError, match=r"^X\[0\] has shape \(\d+, \d+\)") as caught:
        check_audio(X, sampling_rate=RATE)
    assert mended(X, caught.value).shape == (800,)


@pytest.mark.parametrize("shape", [(3, 2, 800), (3, 800, 2)])
def test_three_dimensions(shape):
    X = noise(shape)
    with pytest.raises(ValueError, match=r"^X has shape \(3, \d+, \d+\)") as caught:
        check_audio(X, sampling_rate=RATE)
    assert mended(X, caught.value).shape == (3, 800)


@pytest.mark.parametrize("as_list", [True, False])
@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "i4"])
def test_integer_codes(dtype, as_list):
    limits = np.iinfo(dtype)
    silence = 128 if dtype == "u1" else 0  # 8-bit recordings are offset binary
    X = np.array([[limits.min, silence, limits.max]], dtype=dtype)
    X = list(X) if as_list else X
    name = r"X\[0\]" if as_list else "X"
    message = rf"^{name} has dtype {np.dtype(dtype)}, the integer codes of a recording"
    with pytest.raises(ValueError, match=message) as caught:
        check_audio(X, sampling_rate=RATE)
    np.testing.assert_allclose(np.ravel(mended(X, caught.value)), [-1, 0, 1], atol=0.01)


@pytest.mark.parametrize("code", [-(2**31), -70000, 129, 2**31 - 1])
def test_large_integers_are_codes(code):
    with pytest.raises(ValueError, match="has dtype int32, the integer codes"):
        check_audio([np.array([0, code], dtype=np.int32)], sampling_rate=RATE)


# Samples


def test_clip_without_samples():
    with pytest.raises(ValueError, match=r"^X\[1\] has no samples: drop the clip"):
        check_audio([noise(50), noise(0)], sampling_rate=RATE)
    with pytest.raises(ValueError, match=r"0 feature\(s\) \(shape=\(2, 0\)\)"):
        check_audio(np.zeros((2, 0)), sampling_rate=RATE)
    with pytest.raises(ValueError, match=r"0 sample\(s\) \(shape=\(0, 50\)\)"):
        check_audio(np.zeros((0, 50)), sampling_rate=RATE)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_finite(value):
    X = noise((2, 50))
    X[1, 7] = value
    message = r"^X\[1\] has NaN or infinite samples, the first at 7: mend or drop"
    with pytest.raises(ValueError, match=message):
        check_audio(list(X), sampling_rate=RATE)
    with pytest.raises(ValueError, match=r"Input X contains (NaN|infinity)"):
        check_audio(X, sampling_rate=RATE)


@pytest.mark.parametrize("as_list", [True, False])
def test_samples_beyond_float32(as_list):
    X = np.full((1, 50), 1e300)
    with pytest.raises(ValueError, match=r"X(\[0\])? .*(infinite|too large)"):
        check_audio(list(X) if as_list else X, sampling_rate=RATE)[0]


# Mapping over clips


def test_map_makes_one_array():
    clips = check_audio([noise(50), noise(40)], sampling_rate=RATE)
    rows = clips.map(lambda clip: clip[:3])
    assert (rows.shape, rows.dtype) == ((2, 3), np.float32)


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_map_makes_rows_of_several_lengths(n_jobs):
    lengths = [5, 5, 3, 5, 9]
    clips = check_audio([noise(n, seed=n) for n in lengths], sampling_rate=RATE)
    rows = clips.map(lambda clip: clip + 1, n_jobs=n_jobs)
    assert (rows.shape, rows.dtype) == ((5,), object)
    for row, n in zip(rows, lengths, strict=True):
        np.testing.assert_array_equal(row, noise(n, seed=n).astype("f4") + 1)


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_map_raises_for_the_first_bad_clip(n_jobs):
    """And not for the one that happened to fail first."""
    second_failed = threading.Event()

    def fail(clip):
        if clip.size == 10:
            second_failed.wait(0.1 if n_jobs else 0)
            time.sleep(0.1 if n_jobs else 0)
            raise ValueError("the first")
        if clip.size == 11:
            second_failed.set()
            raise ValueError("the second")
        return clip

    clips = check_audio([noise(n) for n in (9, 10, 11, *[12] * 20)], sampling_rate=RATE)
    with pytest.raises(AudioReadError, match=r"X\[1\].*the first"):
        clips.map(fail, n_jobs=n_jobs)


def test_map_passes_programming_errors_on():
    clips = check_audio(noise((2, 50)), sampling_rate=RATE)
    with pytest.raises(ZeroDivisionError):
        clips.map(lambda clip: 1 / 0, on_error="skip")


def test_map_after_a_very_long_clip():
    """Room is not taken for a batch of the first clip's length."""
    long, short = np.zeros(2**22, dtype=np.float32), np.ones(2, dtype=np.float32)
    clips = check_audio([long] + 20_000 * [short], sampling_rate=RATE)
    rows = clips.map(lambda clip: clip)
    assert sum(row.size for row in rows) == long.size + 20_000 * short.size


def test_reading_is_left_for_later(tmp_path):
    clips = check_audio([tmp_path / "missing.wav"])
    with pytest.raises(AudioReadError, match=r"missing\.wav"):
        clips[0]
    with pytest.raises(AudioReadError, match=r"missing\.wav"):
        clips.common_sampling_rate()


# Parts


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_parts_of_files_are_parts_of_the_whole(suffix, tmp_path):
    path = tmp_path / f"noise.{suffix}"
    soundfile.write(path, np.stack([noise(30000), noise(30000, 1)], axis=1), RATE)
    clips = check_audio([path], channel=1)
    n_samples, rate = clips.size(0)
    assert (n_samples, rate) == (len(clips[0]), RATE)
    for start, length in ((0, 10), (12345, 8000), (n_samples - 1, 1)):
        part = clips.part(0, offset=start / rate, duration=length / rate)
        # Decoders of MP3 round a little otherwise after a seek.
        np.testing.assert_allclose(
            part, clips[0][start : start + length], atol=1e-6 * (suffix == "mp3")
        )


def test_parts_of_arrays_are_parts_of_the_whole():
    clips = check_audio([noise(500), noise(600)], sampling_rate=RATE)
    assert clips.size(1) == (600, RATE)
    part = clips.part(1, offset=100 / RATE, duration=50 / RATE)
    np.testing.assert_array_equal(part, clips[1][100:150])


def test_parts_are_resampled(paths, tmp_path):
    for X, rate in ((paths, None), ([noise(500), noise(501, 1)], RATE)):
        clips = check_audio(X, sampling_rate=rate, target_sampling_rate=RATE // 2)
        assert clips.size(1) == (501, RATE)
        part = clips.part(1, offset=100 / RATE, duration=200 / RATE)
        samples = noise(501, 1)[100:300].astype(np.float32)
        expected = soxr.resample(samples, RATE, RATE // 2, "HQ")
        np.testing.assert_allclose(part, expected, atol=1e-6)


def test_parts_of_what_is_not_there(paths, tmp_path):
    clips = check_audio([*paths, tmp_path / "no.wav"])
    with pytest.raises(AudioReadError, match="starts behind it"):
        clips.part(0, offset=1, duration=1)
    with pytest.raises(AudioReadError, match=r"no\.wav.*No such file"):
        clips.size(3)
