import os
import pickle
import warnings

import numpy as np
import pytest
import soundfile
import soxr
from sklearn.base import clone

from sklabelaudio import AudioLoader, LogMelExtractor
from sklabelaudio.exceptions import AudioReadError, AudioReadWarning

RATE = 16000


def noise(n_samples, seed=0):
    samples = np.random.default_rng(seed).uniform(-0.5, 0.5, n_samples)
    return samples.astype(np.float32)


def write(path, samples, rate=RATE):
    soundfile.write(path, samples, rate, subtype="FLOAT")
    return str(path)


@pytest.fixture
def paths(tmp_path):
    return [write(tmp_path / f"{i}.wav", noise(2000, seed=i)) for i in range(6)]


@pytest.fixture
def uneven(tmp_path):
    """Paths of clips of several lengths."""
    lengths = [4000, 4000, 1500, 6000, 4000, 3000]
    return [
        write(tmp_path / f"uneven{i}.wav", noise(n, seed=i))
        for i, n in enumerate(lengths)
    ]


@pytest.fixture
def bad(tmp_path):
    """Four files that can't be read, and what is wrong with them."""
    cut, text, empty = (tmp_path / name for name in ("cut.ogg", "no.wav", "0b.wav"))
    soundfile.write(cut, noise(RATE), RATE)
    cut.write_bytes(cut.read_bytes()[:-100])
    text.write_text("not a sound\n" * 100)
    empty.touch()
    return {
        str(tmp_path / "missing.wav"): "No such file",
        str(cut): "truncated",
        str(text): "Format not recognised",
        str(empty): "empty file",
    }


def assert_equal_rows(rows, expected):
    assert len(rows) == len(expected)
    for row, other in zip(rows, expected, strict=True):
        np.testing.assert_array_equal(row, other)


# Rates


def test_files_are_read_as_they_are(paths):
    loader = AudioLoader()
    X = loader.fit_transform(paths)
    assert (X.shape, X.dtype) == ((6, 2000), np.float32)
    assert loader.sampling_rate_ == RATE
    assert_equal_rows(X, [noise(2000, seed=i) for i in range(6)])


def test_the_common_rate_is_learned_and_kept(tmp_path, paths):
    other = write(tmp_path / "other.wav", noise(44100), 44100)
    loader = AudioLoader().fit(paths)
    assert loader.sampling_rate_ == RATE
    expected = soxr.resample(noise(44100), 44100, RATE, quality="HQ")
    assert_equal_rows(loader.transform([other]), [expected])
    assert loader.fit([other]).sampling_rate_ == 44100


def test_files_of_several_rates(tmp_path, paths):
    other = write(tmp_path / "other.wav", noise(44100), 44100)
    with pytest.raises(ValueError, match=r"^sampling_rate=None needs files") as caught:
        AudioLoader().fit([other, *paths])
    message = str(caught.value)
    assert f"16000 Hz (6 files, such as {paths[0]})" in message
    assert f"44100 Hz (1 files, such as {other})" in message
    assert "set sampling_rate to the rate to work at" in message
    X = AudioLoader(RATE, duration=0.1).fit_transform([other, *paths])
    assert X.shape == (7, 1600)


def test_rate_is_learned_from_files_that_can_be_read(paths, bad):
    X = [*bad, *paths]
    assert AudioLoader(on_error="skip").fit(X).sampling_rate_ == RATE
    headless = [path for path, cause in bad.items() if cause != "truncated"]
    with pytest.raises(AudioReadError, match=r"missing\.wav"):
        AudioLoader(on_error="skip").fit(headless)


@pytest.mark.parametrize("as_list", [True, False])
def test_array_sampling_rate(as_list):
    X = np.stack([noise(4410, seed=i) for i in range(3)])
    expected = [soxr.resample(x, 44100, RATE, quality="HQ") for x in X]
    X = list(X) if as_list else X
    loader = AudioLoader(RATE, array_sampling_rate=44100)
    assert_equal_rows(loader.fit_transform(X), expected)
    assert_equal_rows(AudioLoader(RATE).fit_transform(X), X)
    loader = AudioLoader(array_sampling_rate=44100)
    assert_equal_rows(loader.fit_transform(X), X)
    assert loader.sampling_rate_ == 44100


def test_arrays_without_a_rate():
    with pytest.raises(ValueError, match="such as sampling_rate=44100"):
        AudioLoader().fit(np.zeros((2, 100)))


def test_no_fit_needed_once_the_rate_is_given(paths):
    assert AudioLoader(RATE).transform(paths).shape == (6, 2000)
    with pytest.raises(ValueError, match="not fitted"):
        AudioLoader().transform(paths)


# Lengths


def test_clips_of_several_lengths(uneven):
    X = AudioLoader(RATE).fit_transform(uneven)
    assert (X.shape, X.dtype) == ((6,), object)
    assert [clip.size for clip in X] == [4000, 4000, 1500, 6000, 4000, 3000]
    assert_equal_rows(X, [AudioLoader(RATE).transform([path])[0] for path in uneven])


def test_duration_cuts_and_fills_up(uneven):
    whole = AudioLoader(RATE).fit_transform(uneven)
    X = AudioLoader(RATE, duration=0.25).fit_transform(uneven)
    assert (X.shape, X.dtype) == ((6, 4000), np.float32)
    for row, clip in zip(X, whole, strict=True):
        n_kept = min(clip.size, 4000)
        np.testing.assert_array_equal(row[:n_kept], clip[:n_kept])
        np.testing.assert_array_equal(row[n_kept:], 0)


def test_result_is_not_a_view_of_x():
    X = [noise(100), noise(90)]
    rows = AudioLoader(RATE).fit_transform(X)
    assert not any(np.shares_memory(row, x) for row, x in zip(rows, X, strict=True))


# Threads


@pytest.mark.parametrize("duration", [None, 0.2])
def test_n_jobs_changes_nothing(uneven, duration):
    loader = AudioLoader(44100, duration=duration)
    expected = loader.fit_transform(20 * uneven)
    for n_jobs in (1, 2, 3, -1):
        rows = clone(loader).set_params(n_jobs=n_jobs).fit_transform(20 * uneven)
        assert rows.dtype == expected.dtype
        assert_equal_rows(rows, expected)


def test_threads_leave_the_warning_filters_alone(uneven):
    """`warnings.catch_warnings` in threads would restore one another's filters."""
    AudioLoader(RATE).fit_transform(uneven)
    filters, content = warnings.filters, list(warnings.filters)
    for _ in range(10):
        AudioLoader(44100, n_jobs=4).fit_transform(10 * uneven)
    assert warnings.filters is filters
    assert warnings.filters == content


# Bad clips


@pytest.mark.parametrize("n_jobs", [None, 2])
@pytest.mark.parametrize(
    "estimator",
    [
        AudioLoader(RATE, duration=0.1),
        AudioLoader(22050),
        LogMelExtractor(RATE, n_fft=512, hop_length=160),
    ],
    ids=["loader", "resampling loader", "log-mel"],
)
def test_skipped_rows_are_nan_and_the_others_whole(tmp_path, bad, estimator, n_jobs):
    names = [tmp_path / f"{i}.wav" for i in range(40)]
    good = [write(name, noise(3200, seed=i)) for i, name in enumerate(names)]
    good = (10 * good)[:396]
    X = list(good)
    where = [0, 17, 200, 399]
    for index, path in zip(where, bad, strict=True):
        X.insert(index, path)
    estimator = clone(estimator).set_params(n_jobs=n_jobs, on_error="skip").fit(X)
    expected = estimator.transform(good)
    before = sorted(os.listdir(tmp_path))

    with pytest.warns(AudioReadWarning) as caught:
        rows = estimator.transform(X)

    (warning,) = caught
    message = str(warning.message)
    assert message.startswith("4 of 400 clips can't be used, their rows are NaN")
    for index, (path, cause) in zip(where, bad.items(), strict=True):
        (line,) = [line for line in message.splitlines() if f"row {index}:" in line]
        assert path in line
        assert cause in line
    assert rows.shape == (400, *expected.shape[1:])
    assert rows.dtype == np.float32
    assert np.isnan(rows[where]).all()
    np.testing.assert_array_equal(np.delete(rows, where, axis=0), expected)
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_skipped_rows_among_several_lengths(uneven, bad, n_jobs):
    missing, *others = bad
    X = [missing, *uneven, *others]
    loader = AudioLoader(RATE, on_error="skip", n_jobs=n_jobs).fit(X)
    with pytest.warns(AudioReadWarning, match=r"^4 of 10 clips"):
        rows = loader.transform(X)
    assert (rows.shape, rows.dtype) == ((10,), object)
    assert_equal_rows(rows[1:7], loader.transform(uneven))
    for index in (0, 7, 8, 9):
        assert rows[index].ndim == 1
        assert rows[index].dtype == np.float32
        assert np.isnan(rows[index]).all()
        assert rows[index].size


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_the_first_bad_file_raises(paths, bad, n_jobs):
    X = [*paths, *bad]
    loader = AudioLoader(RATE, n_jobs=n_jobs).fit(X)
    with pytest.raises(AudioReadError, match=r"missing\.wav.*No such file"):
        loader.transform(X)


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_nothing_but_bad_files_raises(bad, n_jobs):
    loader = AudioLoader(RATE, on_error="skip", n_jobs=n_jobs).fit(list(bad))
    with pytest.raises(AudioReadError, match=r"missing\.wav.*none of the 4 clips"):
        loader.transform(list(bad))


@pytest.mark.parametrize("kind", ["absurd length", "raw"])
def test_skip_survives_odd_files(tmp_path, paths, kind):
    path = tmp_path / ("odd.raw" if kind == "raw" else "odd.flac")
    if kind == "raw":
        path.write_bytes(bytes(1000))
    else:
        soundfile.write(path, noise(1000), RATE)
        data = bytearray(path.read_bytes())
        data[22:26] = b"\xff" * 4  # the number of samples
        data[21] |= 0x0F
        path.write_bytes(data)
    loader = AudioLoader(RATE, on_error="skip").fit(paths)
    with pytest.warns(AudioReadWarning, match=r"odd\."):
        rows = loader.transform([str(path), *paths])
    assert np.isnan(rows[0]).all()
    assert_equal_rows(rows[1:], loader.transform(paths))


@pytest.mark.parametrize("flaw", ["nan", "no samples"])
def test_skip_takes_arrays_too(flaw):
    X = [noise(100, seed=i) for i in range(3)]
    X[1] = X[1][:0] if flaw == "no samples" else np.full(100, np.nan)
    loader = AudioLoader(RATE, on_error="skip")
    with pytest.warns(AudioReadWarning, match=r"1 of 3 .*\n.*X\[1\]"):
        rows = loader.fit_transform(X)
    assert np.isnan(rows[1]).all()
    assert_equal_rows(rows[::2], X[::2])


def test_channel_that_some_files_lack(tmp_path, paths):
    stereo = write(tmp_path / "stereo.wav", np.stack([noise(2000), 0 * noise(2000)], 1))
    loader = AudioLoader(RATE, channel=1, on_error="skip")
    with pytest.warns(AudioReadWarning, match="channel=1 is asked for and it has 1"):
        rows = loader.fit_transform([stereo, *paths])
    np.testing.assert_array_equal(rows[0], 0)
    assert np.isnan(rows[1:]).all()


def test_the_error_survives_pickling():
    error = AudioReadError("a.wav", "it is truncated")
    copy = pickle.loads(pickle.dumps(error))
    assert isinstance(copy, AudioReadError)
    assert (copy.path, copy.cause) == ("a.wav", "it is truncated")
    assert str(copy) == str(error) == "can't read 'a.wav': it is truncated"


def test_the_error_comes_out_of_a_worker_process(paths, bad):
    from joblib import Parallel, delayed

    loader = AudioLoader(RATE).fit(paths)
    with pytest.raises(AudioReadError, match=r"missing\.wav") as caught:
        Parallel(n_jobs=2)(
            delayed(loader.transform)(X) for X in (paths, [*paths, *bad])
        )
    assert caught.value.cause.startswith("No such file")


def test_verbose_shows_progress(paths, capsys):
    AudioLoader(RATE, verbose=True).fit_transform(paths)
    assert "6/6" in capsys.readouterr().err
    AudioLoader(RATE).fit_transform(paths)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sampling_rate", 0),
        ("array_sampling_rate", -1),
        ("channel", "left"),
        ("duration", 0),
        ("n_jobs", 1.5),
        ("on_error", "ignore"),
    ],
)
def test_bad_parameter(paths, name, value):
    loader = AudioLoader(RATE).set_params(**{name: value})
    message = rf"'{name}' parameter of AudioLoader .* {value!r}"
    with pytest.raises(ValueError, match=message):
        loader.fit(paths)
    with pytest.raises(ValueError, match=message):
        loader.transform(paths)
