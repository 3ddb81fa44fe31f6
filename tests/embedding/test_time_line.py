from types import SimpleNamespace

import numpy as np
import pytest

from sklabelaudio import SP4SCEmbedder
from sklabelaudio.embedding._time_line import TimeLine
from sklabelaudio.embedding._windows import WindowPlan

RATE = 100
# Frames of 10 samples; a step is 4 of them.
HOP, STRIDE = 10, 4


def make_front_end(first_centre=0.0):
    return SimpleNamespace(
        sampling_rate=RATE, hop_length=HOP, first_centre=first_centre, min_samples=40
    )


def make_line(*, length=400, hop=400, stride=STRIDE, first_centre=0.0):
    front_end = make_front_end(first_centre)
    n_steps = 10 if stride is None else None
    return TimeLine(
        WindowPlan(length, hop, "align"), front_end, stride=stride, n_steps=n_steps
    )


def encode(line, n_samples, n_steps):
    """Return what an encoder that tells each step's time would give of windows."""
    plan = line._plan
    length = min(plan.length, n_samples)
    steps = np.arange(n_steps) + 0.5
    within = steps * length / n_steps if line._stride is None else steps * 40 - 5
    return [
        ((start + within) / RATE)[:, np.newaxis] for start in plan.starts(n_samples)
    ]


@pytest.mark.parametrize("stride", [STRIDE, None])
@pytest.mark.parametrize("hop", [400, 300, 130, 100])
@pytest.mark.parametrize("n_samples", [57, 400, 401, 650, 800, 1234, 4001])
def test_steps_and_their_times_belong_together(stride, hop, n_samples):
    line = make_line(hop=hop, stride=stride)
    n_steps = 10 if stride is None else min(n_samples, 400) // 40
    windows = encode(line, n_samples, n_steps)
    joined = line.join(windows, n_samples)
    times = line.times(len(joined), n_samples / RATE)
    np.testing.assert_allclose(joined[:, 0], times, rtol=1e-12)
    # The line goes forward, with less than two steps between any of them.
    assert (np.diff(times) > 0).all()
    assert np.diff(times, prepend=0).max() < 0.8


@pytest.mark.parametrize("stride", [STRIDE, None])
def test_times_of_a_clip_that_is_hardly_longer_than_a_window(stride):
    n_steps = 10 if stride is None else None
    plan = WindowPlan(400, 400, "align", slack=8)
    line = TimeLine(plan, make_front_end(), stride=stride, n_steps=n_steps)
    times = line.times(10, 4.08)
    step = 0.408 if stride is None else 0.4
    first = 0.204 if stride is None else 0.15
    np.testing.assert_allclose(times, first + step * np.arange(10))


def test_overlapping_windows_speak_up_to_the_middle_of_the_overlap():
    line = make_line(hop=200)
    windows = [np.full((10, 1), number) for number in range(3)]
    joined = line.join(windows, 800)[:, 0]
    times = line.times(len(joined), 8.0)
    np.testing.assert_array_equal(joined, np.digitize(times, [3.0, 5.0]))


def test_times_of_one_window_need_no_duration():
    line = make_line(first_centre=20.0)
    # The middle of frames 0 to 3, which are centred at 20, 30, 40 and 50.
    np.testing.assert_allclose(line.times(3, None), [0.35, 0.75, 1.15])


def test_steps_of_strided_convolutions_are_centred_on_frames():
    plan = WindowPlan(400, 400, "align")
    line = TimeLine(plan, make_front_end(20.0), stride=4, offset=0)
    np.testing.assert_allclose(line.times(3, None), [0.2, 0.6, 1.0])


@pytest.mark.parametrize(("stride", "n_frames"), [(STRIDE, 11), (None, 1), (None, 11)])
def test_times_that_need_the_duration(stride, n_frames):
    with pytest.raises(ValueError, match=r"duration=None: .* pass duration"):
        make_line(stride=stride).times(n_frames, None)


@pytest.mark.parametrize("n_frames", [19, 21, 31])
def test_another_clips_duration(n_frames):
    line = make_line(stride=None)  # of ten steps in each of two windows
    with pytest.raises(ValueError, match=f"n_frames={n_frames}: a clip of dur"):
        line.times(n_frames, 8.0)


@pytest.mark.parametrize(("stride", "n_frames"), [(STRIDE, 9), (None, 9), (None, 11)])
def test_another_clips_duration_within_a_window(stride, n_frames):
    match = f"n_frames={n_frames}: a clip of duration=2 s has another number"
    with pytest.raises(ValueError, match=match):
        make_line(stride=stride).times(n_frames, 2.0)


@pytest.mark.parametrize("output", ["frames", "framewise_embedding"])
@pytest.mark.parametrize("n_over", [0, 1, 2, 3])
def test_clips_that_are_about_a_window_long(output, n_over):
    # Half a sample more than the window is a sample more once resampled to 44.1 kHz,
    # and a window more.
    clip = np.zeros(88200 + n_over, dtype=np.float32)
    embedder = SP4SCEmbedder(None, sampling_rate=88200, output=output, window=1.0)
    (row,) = embedder.fit_transform([clip])
    times = embedder.frame_times(len(row), duration=len(clip) / 88200)
    assert len(times) == len(row)
    assert (np.diff(times) > 0).all()


@pytest.mark.parametrize("output", ["frames", "framewise_embedding"])
@pytest.mark.parametrize(
    ("n_frames", "duration", "match"),
    [
        (0, None, "n_frames=0 must be 1 or more"),
        (1, 0.0, r"duration=0\.0 must be the clip's length"),
        (1, float("nan"), "duration=nan must be the clip's length"),
        (1, float("inf"), "duration=inf must be the clip's length"),
    ],
)
def test_what_no_clip_has(output, n_frames, duration, match):
    embedder = SP4SCEmbedder(None, sampling_rate=44100, output=output)
    embedder.fit([np.zeros(1)])
    with pytest.raises(ValueError, match=match):
        embedder.frame_times(n_frames, duration=duration)
