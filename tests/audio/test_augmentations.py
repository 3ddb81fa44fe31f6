import numpy as np
import pytest

from sklabelaudio.audio import RandomCrop, RandomGain, RandomNoise, RandomShift

EVERY = pytest.mark.parametrize(
    "augmentation", [RandomCrop(), RandomGain(), RandomNoise(), RandomShift()], ids=repr
)


def draw(augmentation, samples, n=200, seed=0):
    rng = np.random.default_rng(seed)
    return [augmentation(samples, 8000, rng) for _ in range(n)]


def make_clip(n=100):
    return np.random.default_rng(5).normal(size=n).astype(np.float32)


@EVERY
def test_draws_from_the_generator_alone(augmentation):
    clip = make_clip()
    before = clip.copy()
    first, again = (np.stack(draw(augmentation, clip, 5)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert len(np.unique(first, axis=0)) == 5
    assert (first.dtype, first.shape) == (np.float32, (5, 100))
    assert not np.array_equal(first, np.stack(draw(augmentation, clip, 5, seed=1)))
    np.testing.assert_array_equal(clip, before)


@EVERY
def test_the_shortest_clip(augmentation):
    (changed,) = draw(augmentation, np.ones(1, dtype=np.float32), 1)
    assert changed.shape == (1,)


def test_crop_keeps_a_piece_and_repeats_it():
    lengths = []
    for changed in draw(RandomCrop(0.25), np.arange(100.0)):
        start = int(changed[0])
        repeats = np.flatnonzero(changed == start)
        length = repeats[1] if len(repeats) > 1 else 100
        np.testing.assert_array_equal(changed, start + np.arange(100) % length)
        lengths.append(length)
    assert min(lengths) in range(25, 30)
    assert max(lengths) in range(95, 101)
    np.testing.assert_array_equal(draw(RandomCrop(1), np.arange(5.0), 1)[0], range(5))


def test_gains_are_even_in_decibels():
    gains = [20 * np.log10(clip[0]) for clip in draw(RandomGain(12), np.ones(2))]
    assert min(gains) == pytest.approx(-12, abs=1)
    assert max(gains) == pytest.approx(12, abs=1)
    assert np.mean(gains) == pytest.approx(0, abs=1.5)


def test_noise_is_as_far_below_the_clip_as_drawn():
    clip = np.sin(np.arange(20000)) * 3
    ratios = [
        10 * np.log10(np.mean(clip**2) / np.mean((changed - clip) ** 2))
        for changed in draw(RandomNoise(5, 20), clip, 100)
    ]
    assert min(ratios) == pytest.approx(5, abs=0.5)
    assert max(ratios) == pytest.approx(20, abs=0.5)
    silence = np.zeros(5)
    np.testing.assert_array_equal(draw(RandomNoise(), silence, 1)[0], silence)


def test_shift_rolls():
    starts = [int(clip[0]) for clip in draw(RandomShift(0.2), np.arange(10.0))]
    assert set(starts) == {8, 9, 0, 1, 2}


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: RandomCrop(0), "min_share=0 must be above 0"),
        (lambda: RandomCrop(1.5), "min_share=1.5 must be .* at most 1"),
        (lambda: RandomGain(-1), "max_gain=-1 must not be negative"),
        (lambda: RandomNoise(30, 20), "min_snr=30 must be at most max_snr=20"),
        (lambda: RandomShift(2), "max_share=2 must be from 0 to 1"),
    ],
)
def test_bad_parameters(make, told):
    with pytest.raises(ValueError, match=told):
        make()
