import importlib.util
import itertools
import json
import os
import re
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import joblib
import librosa
import numpy as np
import pytest
import soundfile
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklabelaudio import LogMelExtractor, TemporalPooling, load_audio
from sklabelaudio.exceptions import AudioReadError, AudioReadWarning

RATE = 16000


def noise(n_samples=RATE, seed=0):
    samples = 0.1 * np.random.default_rng(seed).standard_normal(n_samples)
    return samples.astype(np.float32)


def chirp():
    """A sweep with amplitude modulation over a noise floor."""
    time = np.arange(RATE) / RATE
    sweep = np.sin(2 * np.pi * (50 * time + (7900 - 50) * time**2 / 2))
    sweep *= 0.2 * (1 + 0.5 * np.sin(2 * np.pi * 3 * time))
    return (sweep + 0.03 * noise()).astype(np.float32)


SIGNALS = {"noise": noise(), "chirp": chirp(), "silence": np.zeros(RATE, np.float32)}


def mel_spectrogram(waveform, *, mel_scale="slaney", rate=RATE, **settings):
    """librosa's, computed in double precision, frames first."""
    return librosa.feature.melspectrogram(
        y=waveform.astype(np.float64), sr=rate, htk=mel_scale == "htk", **settings
    ).T


def decibels(mel, *, power=2.0, top_db=None, **settings):
    convert = librosa.power_to_db if power == 2 else librosa.amplitude_to_db
    return convert(mel, top_db=top_db, **{"amin": 1e-10, **settings})


def assert_close(result, expected):
    """Compare decibels as far as single precision carries.

    Within 1e-3 dB down to 60 dB below the clip's greatest value; below that, within
    1e-6 of the greatest amplitude.
    """
    assert result.shape == expected.shape
    assert result.dtype == np.float32
    heard = expected > expected.max() - 60
    assert np.abs(result - expected)[heard].max() < 1e-3
    error = 10 ** (result / 20.0) - 10 ** (expected / 20)
    assert np.abs(error)[~heard].max(initial=0) < 1e-6 * 10 ** (expected.max() / 20)


def extract(waveform, **settings):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"\d+ of n_mels")
        extractor = LogMelExtractor(RATE, **settings).fit([waveform])
    return extractor.transform([waveform])[0]


def run_python(code, *arguments, **environment):
    """Run code in a fresh process and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """Twelve clips of half a second or more: tones, and noises."""
    folder = tmp_path_factory.mktemp("clips")
    made = []
    for i in range(12):
        n_samples = 8000 + 321 * i
        samples = noise(n_samples, seed=i)
        if i % 2:
            tone = np.sin(2 * np.pi * 100 * (i + 3) * np.arange(n_samples) / RATE)
            samples = 0.1 * samples + 0.3 * tone
        made.append(str(folder / f"{i}.wav"))
        soundfile.write(made[-1], samples, RATE, subtype="FLOAT")
    return made


# The same numbers as librosa's

GRID = [
    {"n_fft": n_fft, "n_mels": n_mels, "mel_scale": mel_scale, "norm": norm}
    for n_fft, n_mels, mel_scale, norm in itertools.product(
        (400, 512, 1024, 2048), (40, 64, 128), ("slaney", "htk"), ("slaney", None)
    )
]


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("settings", GRID, ids=lambda s: "-".join(map(str, s.values())))
def test_mel_banks(settings, signal):
    settings = {**settings, "hop_length": 160, "pad_mode": "constant"}
    waveform = SIGNALS[signal]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Empty filters")
        expected = decibels(mel_spectrogram(waveform, **settings))
    assert_close(extract(waveform, **settings), expected)
    exact = extract(waveform, dtype="float64", **settings)
    assert exact.dtype == np.float32
    assert np.abs(exact - expected).max() < 1e-3


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize(
    "settings",
    [
        {"win_length": 400},
        {"win_length": 401},
        {"n_fft": 511},
        {"n_fft": 600, "win_length": 25, "window": "boxcar"},
        {"window": "hamming"},
        {"window": ("kaiser", 8.0)},
        {"window": 8.0},
        {"hop_length": 1},
        {"hop_length": 441},
        {"hop_length": 5000},
        {"center": False},
        {"center": False, "win_length": 400},
        {"center": False, "n_fft": 511},
        *({"pad_mode": mode} for mode in ("constant", "reflect", "edge", "symmetric")),
        {"pad_mode": "reflect", "n_fft": 511, "win_length": 400},
        {"pad_mode": "edge", "hop_length": 512},
        {"fmin": 50.0, "fmax": 7000.0},
        {"fmin": 3000, "fmax": 3500, "n_mels": 5},
        {"n_mels": 1},
        {"power": 1.0},
        {"power": 1.0, "n_fft": 2048, "norm": None, "mel_scale": "htk"},
    ],
    ids=str,
)
def test_spectrum_settings(settings, signal):
    waveform = SIGNALS[signal]
    if settings.get("hop_length") == 1:
        waveform = waveform[:1500]
    settings = {
        **{"n_fft": 512, "hop_length": 160, "n_mels": 40, "pad_mode": "constant"},
        **settings,
    }
    expected = mel_spectrogram(waveform, **settings)
    expected = decibels(expected, power=settings.get("power", 2))
    assert_close(extract(waveform, **settings), expected)


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("power", [1.0, 2.0])
@pytest.mark.parametrize(
    "settings",
    [
        {"ref": 0.01},
        {"ref": 20},
        {"ref": "max"},
        {"ref": 1e-14},  # below amin
        {"amin": 1e-5},
        {"amin": 1e-5, "ref": "max"},
        {"top_db": 20.0},
        {"top_db": 80.0, "ref": "max"},
    ],
    ids=str,
)
def test_decibel_settings(settings, power, signal):
    waveform = SIGNALS[signal]
    mel = mel_spectrogram(
        waveform, n_fft=512, hop_length=160, n_mels=40, power=power, pad_mode="constant"
    )
    ref = np.max if settings.get("ref") == "max" else settings.get("ref", 1.0)
    expected = decibels(mel, power=power, **{**settings, "ref": ref})
    result = extract(
        waveform, n_fft=512, hop_length=160, n_mels=40, power=power, **settings
    )
    assert_close(result, expected)


@pytest.mark.parametrize("power", [1.0, 1.7, 2.0, 3.0])
def test_without_logarithm(power):
    settings = {"n_fft": 1024, "hop_length": 320, "n_mels": 64, "power": power}
    expected = mel_spectrogram(noise(), **settings, pad_mode="constant")
    result = extract(noise(), **settings, log=None)
    np.testing.assert_allclose(result, expected, rtol=1e-5)


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize(
    ("log", "amin_mode", "by_hand"),
    [
        ("ln", "clip", lambda mel: np.log(np.maximum(mel, 1e-3))),
        ("ln", "add", lambda mel: np.log(mel + 1e-3)),
        ("db", "clip", lambda mel: 10 * np.log10(np.maximum(mel, 1e-3))),
        ("db", "add", lambda mel: 10 * np.log10(mel + 1e-3)),
    ],
)
def test_floor(log, amin_mode, by_hand, signal):
    settings = {"n_fft": 512, "hop_length": 160, "n_mels": 64}
    mel = mel_spectrogram(SIGNALS[signal], **settings, pad_mode="constant")
    result = extract(
        SIGNALS[signal], **settings, log=log, amin=1e-3, amin_mode=amin_mode
    )
    np.testing.assert_allclose(result, by_hand(mel), atol=1e-3)


def test_a_floor_below_single_precision_is_no_infinity():
    assert np.isfinite(extract(SIGNALS["silence"], amin=1e-50)).all()


@pytest.mark.parametrize("index", [2, 100, 333])
@pytest.mark.parametrize("preset", ["panns_32k", "panns_16k", "htsat", "clap", "sp4sc"])
def test_presets_on_real_clips(esc10, preset, index):
    path = sorted((esc10 / "audio").iterdir())[index]
    extractor = LogMelExtractor.from_preset(preset)
    waveform, rate = load_audio(path, sampling_rate=extractor.sampling_rate)
    names = ("n_fft", "hop_length", "n_mels", "fmin", "fmax")
    settings = {name: getattr(extractor, name) for name in names}
    mel = mel_spectrogram(waveform, rate=rate, pad_mode="reflect", **settings)
    assert_close(extractor.fit_transform([path])[0], decibels(mel))


@pytest.mark.parametrize(
    ("preset", "encoder"),
    [
        ("panns_32k", "panns_cnn14"),
        ("panns_16k", "panns_cnn14_16k"),
        ("htsat", "htsat"),
        ("clap", "clap_htsat_tiny"),
        ("sp4sc", "sp4asc"),
    ],
)
def test_presets_are_the_authors_front_ends(shared, preset, encoder):
    folder = shared / "reference" / "parity"
    location = importlib.util.spec_from_file_location("det", folder / "det_weights.py")
    det_weights = importlib.util.module_from_spec(location)
    location.loader.exec_module(det_weights)
    with np.load(folder / f"{encoder}.A.npz") as kit:
        specs = json.loads(str(kit["inputs"]))
        specs = [spec for spec in specs if f"{spec['name']}.logmel" in kit.files]
        notes = json.loads(str(kit["notes"]))
        expected = {spec["name"]: kit[f"{spec['name']}.logmel"][0, 0] for spec in specs}
    assert len({spec["n"] for spec in specs}) > 1
    extractor = LogMelExtractor.from_preset(preset)
    assert {spec["sr"] for spec in specs} == {extractor.sampling_rate}
    results = extractor.fit_transform([det_weights.make_input(spec) for spec in specs])
    for result, (name, log_mel) in zip(results, expected.items(), strict=True):
        note = notes[f"{name}.logmel"]  # the kit keeps one frame in so many
        assert str([1, 1, *result.shape]) in note
        step = int((re.findall(r"::(\d+)", note) or [1])[0])
        # Both are in single precision, whose rounding shows in 256 narrow bands.
        atol = 4e-3 if preset == "sp4sc" else 1e-3
        np.testing.assert_allclose(result[::step], log_mel, rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("preset", "published"),
    [
        ("panns_32k", (32000, 1024, 320, 64, 50, 14000)),
        ("panns_16k", (16000, 512, 160, 64, 50, 8000)),
        ("htsat", (32000, 1024, 320, 64, 50, 14000)),
        ("clap", (48000, 1024, 480, 64, 50, 14000)),
        ("sp4sc", (44100, 2048, 1024, 256, 0, 22050)),
    ],
)
def test_presets_are_the_published_settings(preset, published):
    names = ("sampling_rate", "n_fft", "hop_length", "n_mels", "fmin", "fmax")
    params = LogMelExtractor.from_preset(preset).get_params()
    assert tuple(params[name] for name in names) == published


def test_preset_parameters_can_be_changed():
    extractor = LogMelExtractor.from_preset("panns_16k", n_jobs=2, n_mels=80)
    assert (extractor.n_jobs, extractor.n_mels, extractor.n_fft) == (2, 80, 512)
    assert LogMelExtractor.from_preset("panns_16k").n_mels == 64


@pytest.mark.parametrize(
    ("name", "near"), [("pans_32k", "panns_32k"), ("PANNS_16K", "panns_16k")]
)
def test_unknown_preset(name, near):
    with pytest.raises(ValueError, match=f"name='{name}' is no preset.*'{near}'"):
        LogMelExtractor.from_preset(name)


# A clip's result is its own


def uneven(n_clips=40):
    lengths = np.random.default_rng(0).integers(1100, 40_000, n_clips)
    return [noise(n, seed=i) for i, n in enumerate(lengths)]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"n_fft": 400, "hop_length": 160},
        {"n_fft": 1000, "power": 1.0, "n_mels": 128},
        {"win_length": 600, "pad_mode": "reflect", "ref": "max", "top_db": 40.0},
    ],
    ids=str,
)
def test_result_is_the_same_to_the_bit(settings):
    X = uneven()
    extractor = LogMelExtractor(RATE, **settings).fit(X)
    alone = [extractor.transform([x])[0] for x in X]
    order = np.random.default_rng(1).permutation(len(X))
    results = {
        "batch": extractor.transform(X),
        "twice": extractor.transform(X),
        "two threads": clone(extractor).set_params(n_jobs=2).fit_transform(X),
        "all threads": clone(extractor).set_params(n_jobs=-1).fit_transform(X),
        "other order": extractor.transform([X[i] for i in order])[np.argsort(order)],
        "float64": extractor.transform([x.astype(np.float64) for x in X]),
        "not aligned": extractor.transform([np.r_[x[:1], x][1:] for x in X]),
    }
    for name, rows in results.items():
        for row, expected in zip(rows, alone, strict=True):
            np.testing.assert_array_equal(row, expected, err_msg=name)


def test_matrix_list_and_files_are_the_same_to_the_bit(tmp_path):
    X = np.stack([noise(seed=i) for i in range(5)])
    names = [tmp_path / f"{i}.wav" for i in range(5)]
    for name, x in zip(names, X, strict=True):
        soundfile.write(name, x, RATE, subtype="FLOAT")
    extractor = LogMelExtractor(RATE).fit(X)
    expected = extractor.transform(X)
    assert expected.shape == (5, 51, 64)
    for other in (list(X), names, [str(name) for name in names], X.tolist()):
        np.testing.assert_array_equal(extractor.transform(other), expected)
    np.testing.assert_array_equal(LogMelExtractor().fit_transform(names), expected)


def test_another_process_gives_the_same_to_the_bit(paths, tmp_path):
    """Whatever its number of threads, and a pipeline loaded there predicts the same."""
    y = np.arange(12) % 2
    classifier = make_pipeline(
        LogMelExtractor(RATE), TemporalPooling(), StandardScaler(), LogisticRegression()
    ).fit(paths, y)
    expected = classifier[0].transform(paths)
    np.savez(tmp_path / "X.npz", *expected, y=classifier.predict_proba(paths))
    joblib.dump(classifier, tmp_path / "classifier.joblib")
    code = """
        import sys
        import joblib
        import numpy as np

        folder, *paths = sys.argv[1:]
        classifier = joblib.load(folder + "/classifier.joblib")
        kept = np.load(folder + "/X.npz")
        for i, row in enumerate(classifier[0].transform(paths)):
            np.testing.assert_array_equal(row, kept[f"arr_{i}"])
        np.testing.assert_array_equal(classifier.predict_proba(paths), kept["y"])
        """
    threads = "1" if os.environ.get("OMP_NUM_THREADS") != "1" else "2"
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    run_python(code, str(tmp_path), *paths, **dict.fromkeys(names, threads))


def test_threads_of_the_libraries_are_given_back():
    import torch
    from threadpoolctl import threadpool_info

    def n_threads():
        return [pool["num_threads"] for pool in threadpool_info()]

    before = torch.get_num_threads(), n_threads()
    for n_jobs in (None, 2):
        extractor = LogMelExtractor(RATE, n_jobs=n_jobs)
        extractor.fit_transform([noise()] * 4)
        with pytest.raises(AudioReadError):
            extractor.fit_transform([noise(), noise(3)])
    assert (torch.get_num_threads(), n_threads()) == before


def test_x_is_left_as_it_was():
    for X in (np.stack([noise(), noise()]), [noise(), noise(5000)]):
        copies = [x.copy() for x in X]
        LogMelExtractor(RATE, pad_mode="reflect", duration=0.7).fit_transform(X)
        for x, copy in zip(X, copies, strict=True):
            np.testing.assert_array_equal(x, copy)


def test_read_only_clips():
    X = noise()
    X.flags.writeable = False
    for pad_mode, n_fft in (("constant", 1024), ("edge", 40_000)):
        LogMelExtractor(
            RATE, n_fft=n_fft, win_length=400, pad_mode=pad_mode, n_mels=20
        ).fit_transform([X])


# Lengths


def test_free_duration_of_mixed_lengths():
    X = [noise(n) for n in (5000, 5000, 1024, 16000)]
    rows = LogMelExtractor(RATE).fit_transform(X)
    assert (rows.shape, rows.dtype) == ((4,), object)
    assert [row.shape for row in rows] == [(16, 64), (16, 64), (4, 64), (51, 64)]
    for row, x in zip(rows, X, strict=True):
        assert row.dtype == np.float32
        np.testing.assert_array_equal(row, LogMelExtractor(RATE).transform([x])[0])


def test_duration_cuts_and_fills_up():
    X = [noise(n) for n in (10, 8000, 16000)]
    rows = LogMelExtractor(RATE, duration=0.5).fit_transform(X)
    assert rows.shape == (3, 26, 64)
    by_hand = [np.r_[X[0], np.zeros(7990)], X[1], X[2][:8000]]
    np.testing.assert_array_equal(rows, LogMelExtractor(RATE).fit_transform(by_hand))


@pytest.mark.parametrize(
    ("settings", "n_samples"),
    [
        ({"center": False}, 1024),
        ({"center": False, "win_length": 400}, 1024),
        ({"win_length": 400}, 400),
        ({"pad_mode": "edge", "win_length": 300, "n_fft": 2048}, 300),
        ({"pad_mode": "symmetric", "win_length": 400}, 513),
        ({"pad_mode": "symmetric", "win_length": 200, "n_fft": 2048}, 200),
        ({"pad_mode": "reflect", "win_length": 400}, 513),
        ({}, 1024),
    ],
    ids=str,
)
def test_shortest_clip(settings, n_samples):
    settings = {"n_fft": 1024, "hop_length": 320, "n_mels": 20, **settings}
    result = extract(noise(n_samples), **settings)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="n_fft=.* is too large")
        settings = {"pad_mode": "constant", **settings}
        expected = mel_spectrogram(noise(n_samples), **settings)
    assert_close(result, decibels(expected))


@pytest.mark.parametrize(
    ("settings", "n_samples", "message"),
    [
        ({}, 1023, "1023 samples at 16000 Hz, fewer than a frame's 1024: set duration"),
        ({"win_length": 400}, 399, "399 samples .* fewer than a frame's 400"),
        ({"win_length": 400, "pad_mode": "reflect"}, 512, "512 samples .* pad_mode="),
        (
            {"win_length": 400, "center": False},
            1023,
            "1023 .* n_fft=1024: set center",
        ),
        ({}, 1, "1 samples at 16000 Hz"),
    ],
    ids=str,
)
def test_clip_that_is_too_short(settings, n_samples, message):
    extractor = LogMelExtractor(RATE, **settings)
    X = [noise(), noise(n_samples)]
    with pytest.raises(AudioReadError, match=rf"X\[1\]'?: it has {message}"):
        extractor.fit_transform(X)
    with pytest.warns(AudioReadWarning, match=message):
        rows = extractor.set_params(on_error="skip").fit_transform(X)
    np.testing.assert_array_equal(rows[0], extractor.transform(X[:1])[0])
    assert np.isnan(rows[1]).all()


def test_duration_that_is_too_short():
    with pytest.raises(ValueError, match=r"duration=0\.01"):
        LogMelExtractor(RATE, duration=0.01).fit([noise()])


def test_skipped_rows_among_several_lengths():
    X = [noise(3), noise(8000), noise(9000), noise(5)]
    extractor = LogMelExtractor(RATE, on_error="skip").fit(X)
    with pytest.warns(AudioReadWarning, match="2 of 4 clips"):
        rows = extractor.transform(X)
    assert rows.dtype == object
    assert all(row.shape[1] == 64 for row in rows)
    assert [bool(np.isnan(row).all()) for row in rows] == [True, False, False, True]


# Settings that contradict each other


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"win_length": 2000},
            "win_length=2000 is longer than n_fft=1024: raise",
        ),
        ({"fmax": 9000}, "fmax=9000 is above half of sampling_rate=16000: lower it to"),
        ({"fmin": 8000}, "fmin=8000 must be below fmax=8000"),
        ({"fmin": 500, "fmax": 400.0}, "fmin=500 must be below fmax=400"),
        ({"window": "hannn"}, "hannn"),
        ({"window": ("kaiser",)}, "kaiser"),
        ({"sampling_rate": True}, "sampling_rate=True is no sampling rate"),
        ({"sampling_rate": -1}, "'sampling_rate' parameter .* Got -1"),
        ({"n_fft": 0}, "'n_fft' parameter .* Got 0"),
        ({"hop_length": 0}, "'hop_length' parameter .* Got 0"),
        ({"hop_length": 10.5}, r"'hop_length' parameter .* Got 10\.5"),
        ({"n_mels": 0}, "'n_mels' parameter .* Got 0"),
        ({"power": 0}, "'power' parameter .* Got 0"),
        ({"mel_scale": "bark"}, "'mel_scale' parameter .* Got 'bark'"),
        ({"norm": 1}, "'norm' parameter .* Got 1"),
        ({"log": "log10"}, "'log' parameter .* Got 'log10'"),
        ({"ref": "min"}, "'ref' parameter .* Got 'min'"),
        ({"amin": 0}, "'amin' parameter .* Got 0"),
        ({"top_db": -80}, "'top_db' parameter .* Got -80"),
        ({"duration": 0}, "'duration' parameter .* Got 0"),
        ({"pad_mode": "wrap"}, "'pad_mode' parameter .* Got 'wrap'"),
        ({"on_error": "ignore"}, "'on_error' parameter .* Got 'ignore'"),
    ],
    ids=str,
)
def test_bad_settings_are_told_in_fit(settings, message):
    extractor = LogMelExtractor(**{"sampling_rate": RATE, **settings})
    with pytest.raises(ValueError, match=message):
        extractor.fit([noise()])


def test_empty_mel_bands_warn_once_and_in_fit():
    settings = {"n_fft": 512, "mel_scale": "htk"}
    LogMelExtractor(RATE, n_mels=64, **settings).fit([noise()])

    with pytest.warns(UserWarning, match="Empty filters"):
        bank = librosa.filters.mel(sr=RATE, n_fft=512, n_mels=160, htk=True)
    empty = ~bank.any(axis=1)
    extractor = LogMelExtractor(RATE, n_mels=160, **settings)
    message = f"^{empty.sum()} of n_mels=160 bands .* lower n_mels or raise n_fft"
    with pytest.warns(UserWarning, match=message) as caught:
        extractor.fit([noise()])
    assert len(caught) == 1
    rows = extractor.transform([noise()])  # warns no more
    np.testing.assert_allclose(rows[0][:, empty], -100, atol=1e-3)
    assert (rows[0][:, ~empty] > -90).all()


def test_nothing_but_empty_mel_bands():
    result = extract(noise(), n_fft=32, n_mels=4, fmin=10, fmax=20)
    np.testing.assert_allclose(result, -100, atol=1e-3)


# Rates


def test_the_files_own_rate_is_learned(paths, tmp_path):
    extractor = LogMelExtractor().fit(paths)
    assert extractor.sampling_rate_ == RATE
    other = tmp_path / "other.wav"
    soundfile.write(other, noise(44100), 44100, subtype="FLOAT")
    expected = LogMelExtractor(RATE).transform([other])
    np.testing.assert_array_equal(extractor.transform([other]), expected)
    with pytest.raises(ValueError, match=r"sampling_rate=None needs files of one rate"):
        extractor.fit([*paths, other])
    with pytest.raises(ValueError, match="such as sampling_rate=44100"):
        extractor.fit([noise()])


def test_files_of_another_rate_are_resampled(tmp_path):
    path = tmp_path / "a.ogg"
    soundfile.write(path, noise(44100), 44100)
    waveform, _ = load_audio(path, sampling_rate=RATE)
    extractor = LogMelExtractor(RATE)
    np.testing.assert_array_equal(
        extractor.fit_transform([path]), extractor.fit_transform([waveform])
    )


def test_no_fit_needed_once_the_rate_is_given():
    assert LogMelExtractor(RATE).transform([noise()]).shape == (1, 51, 64)
    assert LogMelExtractor(RATE).mel_frequencies_.shape == (64,)
    for ask in (
        lambda extractor: extractor.transform([noise()]),
        lambda extractor: extractor.mel_frequencies_,
        lambda extractor: extractor.frame_times(3),
    ):
        with pytest.raises(ValueError, match="not fitted"):
            ask(LogMelExtractor())


@pytest.mark.parametrize("channel", ["mean", 0, 1])
def test_channel(tmp_path, channel):
    stereo = np.stack([noise(seed=0), noise(seed=1)], axis=1)
    soundfile.write(tmp_path / "a.wav", stereo, RATE, subtype="FLOAT")
    mono = stereo.mean(axis=1) if channel == "mean" else stereo[:, channel]
    extractor = LogMelExtractor(RATE, channel=channel)
    np.testing.assert_allclose(
        extractor.fit_transform([tmp_path / "a.wav"]),
        extractor.fit_transform([mono]),
        atol=1e-4,
    )


# Axes


@pytest.mark.parametrize("n_fft", [400, 1024])
@pytest.mark.parametrize("center", [True, False])
def test_frame_times(center, n_fft):
    extractor = LogMelExtractor(22050, n_fft=n_fft, hop_length=160, center=center)
    expected = librosa.frames_to_time(
        np.arange(7), sr=22050, hop_length=160, n_fft=None if center else n_fft
    )
    np.testing.assert_allclose(extractor.frame_times(7), expected, rtol=1e-12)


@pytest.mark.parametrize("center", [True, False])
def test_a_click_is_in_the_frame_that_its_time_tells(center):
    click = np.zeros(RATE)
    click[9000] = 1
    extractor = LogMelExtractor(RATE, n_fft=512, hop_length=100, center=center)
    frames = extractor.fit_transform([click])[0]
    times = extractor.frame_times(len(frames))
    loudest = times[frames.sum(axis=1).argmax()]
    assert loudest == pytest.approx(9000 / RATE, abs=51 / RATE)


@pytest.mark.parametrize("mel_scale", ["slaney", "htk"])
def test_mel_frequencies(mel_scale):
    settings = {"fmin": 50.0, "fmax": 7000.0, "n_mels": 40}
    extractor = LogMelExtractor(RATE, n_fft=4096, mel_scale=mel_scale, **settings)
    bank = librosa.filters.mel(sr=RATE, n_fft=4096, htk=mel_scale == "htk", **settings)
    peaks = librosa.fft_frequencies(sr=RATE, n_fft=4096)[bank.argmax(axis=1)]
    np.testing.assert_allclose(extractor.mel_frequencies_, peaks, atol=RATE / 4096)
    tone = np.sin(2 * np.pi * extractor.mel_frequencies_[17] * np.arange(RATE) / RATE)
    frames = extractor.fit_transform([tone])[0]
    assert set(frames.argmax(axis=1)) == {17}


# Memory


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="reads the peak from /proc"
)
def test_memory_is_the_results_and_a_bounded_amount(tmp_path):
    """200 clips of 5 s: 128 MB of waveforms, 26 MB of results."""
    soundfile.write(tmp_path / "a.wav", noise(5 * 44100), 44100)
    code = """
        import re
        import sys
        from sklabelaudio import LogMelExtractor

        def peak():
            status = open("/proc/self/status").read()
            return 1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1])

        paths = 200 * sys.argv[1:]
        for n_jobs in (1, 2):
            extractor = LogMelExtractor(32000, n_jobs=n_jobs).fit(paths)
            extractor.transform(paths[:50])
            before = peak()
            result = extractor.transform(paths)
            print(peak() - before - result.nbytes)
        """
    for excess in run_python(code, str(tmp_path / "a.wav")).split():
        assert int(excess) < 40e6


# In a pipeline


def test_pipeline(paths):
    y = np.array(["noise", "tone"] * 6)
    classifier = make_pipeline(
        LogMelExtractor(), TemporalPooling(), StandardScaler(), LogisticRegression()
    )
    assert cross_val_score(classifier, paths, y, cv=3).mean() > 0.9
    assert cross_val_score(classifier, np.array(paths), y, cv=3).mean() > 0.9
    copy = clone(classifier).set_params(logmelextractor__n_mels=32)
    assert copy[0].get_params()["n_mels"] == 32
    copy.fit(paths, y)
    assert copy[1].n_features_in_ == 32
    assert "LogMelExtractor" in copy._repr_html_()
    assert "LogMelExtractor" in LogMelExtractor()._repr_html_()


def test_verbose_shows_progress(capsys):
    LogMelExtractor(RATE, verbose=True).fit_transform([noise()] * 3)
    assert "3/3" in capsys.readouterr().err
