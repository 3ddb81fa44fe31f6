import numpy as np
import pytest

from sklabelaudio.embedding._windows import WindowPlan


def cut_in_windows(plan, clip, block):
    """Return the windows of a clip that comes in blocks, one by one."""
    blocks = [clip[i : i + block] for i in range(0, len(clip), block)]
    windows = []
    for samples, n_windows in plan.cut(blocks):
        for i in range(n_windows):
            windows.append(samples[i * plan.hop :][: plan.length].tolist())
    return windows


def expected_windows(plan, clip):
    """The rule, said in another way: over the whole clip at once."""
    n, length, hop = len(clip), plan.length, plan.hop
    if n <= length:
        fill = 0 if plan.tail == "align" else length - n
        return [np.pad(clip, (0, fill)).tolist()]
    starts = list(range(0, n - length + 1, hop))
    if plan.tail == "align" and starts[-1] + length < n:
        starts.append(n - length)
    if plan.tail == "pad" and starts[-1] + length < n:
        starts.append(starts[-1] + hop)
    clip = np.pad(clip, (0, length))
    return [clip[start : start + length].tolist() for start in starts]


@pytest.mark.parametrize(
    ("tail", "n_together"),
    [("align", 1), *((tail, n) for tail in ("pad", "drop") for n in (1, 2, 5))],
)
@pytest.mark.parametrize(("length", "hop"), [(7, 7), (7, 3), (7, 6), (4, 1), (1, 1)])
def test_windows_are_those_of_the_whole_clip(tail, length, hop, n_together):
    plan = WindowPlan(length, hop, tail, n_together)
    for n in range(1, 40):
        clip = np.arange(1, n + 1, dtype=np.float32)
        expected = expected_windows(plan, clip)
        assert plan.starts(n).tolist() == [window[0] - 1 for window in expected]
        for block in (1, 5, 8, 100):
            assert cut_in_windows(plan, clip, block) == expected, (n, block)


@pytest.mark.parametrize("block", [1, 3, 50])
def test_a_clip_that_is_hardly_longer_is_taken_whole(block):
    plan = WindowPlan(10, 6, "align", slack=2)
    for n in range(1, 40):
        clip = np.arange(1, n + 1, dtype=np.float32)
        without = WindowPlan(10, 6, "align")
        expected = [clip.tolist()] if n <= 12 else expected_windows(without, clip)
        blocks = [clip[i : i + block] for i in range(0, n, block)]
        windows = [samples.tolist() for samples, _ in plan.cut(blocks)]
        assert windows == expected
        assert plan.starts(n).tolist() == [window[0] - 1 for window in expected]


@pytest.mark.parametrize("tail", ["pad", "align"])
def test_no_sample_is_left_out(tail):
    for n in range(1, 60):
        clip = np.arange(1, n + 1, dtype=np.float32)
        windows = cut_in_windows(WindowPlan(8, 5, tail), clip, 9)
        assert set(clip) <= {value for window in windows for value in window}


def test_holds_no_more_than_a_window_and_a_block():
    sizes = []

    def blocks():
        for _ in range(100):
            yield np.zeros(50, np.float32)

    for samples, _ in WindowPlan(30, 10, "pad", 2).cut(blocks()):
        base = samples.base if samples.base is not None else samples
        sizes.append(base.size)
    assert max(sizes) <= 50 + 40 + 30
