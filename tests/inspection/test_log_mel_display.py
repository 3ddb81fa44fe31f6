from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from sklabelaudio.inspection import LogMelDisplay

RATE, HOP = 16000, 160


class StandIn:
    """The three members of a log-mel transformer that the display reads."""

    def __init__(self, n_mels=64, f_max=8000.0):
        mel = np.linspace(0, 2595 * np.log10(1 + f_max / 700), n_mels + 2)[1:-1]
        self.mel_frequencies_ = 700 * (10 ** (mel / 2595) - 1)

    def transform(self, clips):
        (clip,) = clips  # one clip, not its samples
        n_frames = 100 if isinstance(clip, str | Path) else len(clip) // HOP
        frames = np.arange(n_frames)[:, None] + np.arange(len(self.mel_frequencies_))
        return frames[None].astype(np.float32)

    def frame_times(self, n_frames):
        return 0.5 + np.arange(n_frames) * HOP / RATE


@pytest.fixture
def parts():
    stand_in = StandIn()
    return {
        "log_mel": stand_in.transform(["a.wav"])[0],
        "times": stand_in.frame_times(100),
        "frequencies": stand_in.mel_frequencies_,
    }


def hertz(display):
    names = [tick.get_text() for tick in display.ax_.get_yticklabels()]
    return [float(name.replace("k", "e3")) for name in names]


def test_from_estimator_is_from_log_mel(parts):
    display = LogMelDisplay.from_estimator(StandIn(), np.zeros(100 * HOP))
    other = LogMelDisplay.from_log_mel(**parts)
    for shown in (display, other):
        assert isinstance(shown, LogMelDisplay)
        np.testing.assert_array_equal(shown.log_mel, parts["log_mel"])
        np.testing.assert_array_equal(shown.im_.get_array(), parts["log_mel"].T)
        np.testing.assert_allclose(shown.times, parts["times"])
        np.testing.assert_allclose(shown.frequencies, parts["frequencies"])
        assert shown.ax_.get_title() == ""


def test_low_frequencies_are_below_and_early_frames_left():
    log_mel = np.arange(12.0).reshape(4, 3)
    times = [0.0, 0.1, 0.2, 0.3]
    display = LogMelDisplay.from_log_mel(
        log_mel, times=times, frequencies=[500, 1000, 2000]
    )
    to_pixel = display.ax_.transData.transform
    for (frame, band), value in np.ndenumerate(log_mel):
        x, y = to_pixel((times[frame], band))
        assert display.im_.get_cursor_data(SimpleNamespace(x=x, y=y)) == value
    first, last = to_pixel([(0.0, 0), (0.3, 2)])
    assert (first < last).all()


def test_time_axis_is_in_seconds(parts):
    display = LogMelDisplay.from_log_mel(**parts)
    # Each frame is drawn around its time, from half a step before it to half after.
    assert display.ax_.get_xlim() == pytest.approx((0.495, 1.495))
    assert display.ax_.get_xlabel() == "Time (s)"


@pytest.mark.parametrize(
    ("n_mels", "f_max", "expected"),
    [
        (64, 8000, [125, 250, 500, 1000, 2000, 4000]),
        (128, 17000, [250, 500, 1000, 2000, 4000, 8000, 16000]),
        (16, 3000, [125, 250, 500, 1000, 2000]),
    ],
)
def test_frequency_ticks_are_octaves(n_mels, f_max, expected):
    stand_in = StandIn(n_mels, f_max)
    display = LogMelDisplay.from_estimator(stand_in, "a.wav")
    assert hertz(display) == expected
    rows = display.ax_.get_yticks()
    at_rows = np.interp(rows, np.arange(n_mels), stand_in.mel_frequencies_)
    np.testing.assert_allclose(at_rows, expected, rtol=1e-6)
    assert np.diff(rows).min() > 0.05 * n_mels
    assert display.ax_.get_ylabel() == "Frequency (Hz)"


@pytest.mark.parametrize(
    ("frequencies", "expected"),
    [([1100.0, 1300.0, 1800.0], [1100, 1800]), ([440.0], [440])],
)
def test_a_narrow_range_shows_its_ends(frequencies, expected):
    display = LogMelDisplay.from_log_mel(
        np.zeros((5, len(frequencies))), times=np.arange(5.0), frequencies=frequencies
    )
    assert hertz(display) == expected


def test_one_frame(parts):
    display = LogMelDisplay.from_log_mel(
        parts["log_mel"][:1], times=[2.0], frequencies=parts["frequencies"]
    )
    assert display.ax_.get_xlim() == (1.5, 2.5)


def test_colour_bar_has_the_unit(parts):
    assert LogMelDisplay.from_log_mel(**parts).colorbar_.ax.get_ylabel() == "dB"
    display = LogMelDisplay.from_estimator(StandIn(), "a.wav", unit="ln power")
    assert display.colorbar_.ax.get_ylabel() == "ln power"


@pytest.mark.parametrize("kind", [str, Path])
def test_title_is_the_file(kind):
    clip = kind("folder/1-100032-A-0.ogg")
    display = LogMelDisplay.from_estimator(StandIn(), clip)
    assert display.ax_.get_title() == "1-100032-A-0.ogg"
    display = LogMelDisplay.from_estimator(StandIn(), clip, name="a dog")
    assert display.ax_.get_title() == "a dog"


def test_given_axes_and_image_keywords(plt, parts):
    figure, (left, right) = plt.subplots(1, 2)
    display = LogMelDisplay.from_log_mel(**parts, ax=right, cmap="magma", vmin=-80)
    assert display.ax_ is right
    assert display.figure_ is figure
    assert not left.images
    assert display.im_.get_cmap().name == "magma"
    assert display.im_.get_clim()[0] == -80
    assert display.plot(ax=left) is display
    assert display.ax_ is left
    assert len(plt.get_fignums()) == 1


def test_clip_that_could_not_be_read(parts):
    parts["log_mel"] = np.full((100, 64), np.nan)
    LogMelDisplay.from_log_mel(**parts).figure_.canvas.draw()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"log_mel": np.zeros((1, 100, 64))}, r"of one clip, got \(1, 100, 64\)"),
        ({"log_mel": np.zeros((0, 64))}, r"of one clip, got \(0, 64\)"),
        ({"log_mel": np.zeros((64, 100))}, r"64 frames and times has the shape \(100,"),
        ({"frequencies": [1, 2]}, r"64 mel bands and frequencies has the shape \(2,"),
        ({"times": np.geomspace(1, 2, 100)}, "times must increase evenly"),
        ({"times": -np.arange(100.0)}, "times must increase evenly"),
        ({"frequencies": -np.arange(64.0)}, "frequencies must increase"),
    ],
)
def test_bad_input(parts, changed, message):
    with pytest.raises(ValueError, match=message):
        LogMelDisplay.from_log_mel(**parts | changed)
