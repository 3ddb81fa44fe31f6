import threading
import time
import tracemalloc

import numpy as np
import pytest
import soundfile
import torch
from torch import nn

from sklabelaudio.classification._batches import (
    BatchLoader,
    encode_clips,
    map_ahead,
    split_batches,
)
from sklabelaudio.classification._training import (
    Augmentation,
    balance,
    draw_seed,
    make_order,
    own_generators,
    split_validation,
)
from sklabelaudio.classification._training_set import (
    ArraySet,
    ClipSet,
    check_log_mel,
    make_clip_set,
)
from sklabelaudio.exceptions import AudioReadError

CPU = torch.device("cpu")


class Samples:
    """A front end that gives the samples themselves, one to a frame."""

    sampling_rate = 100
    n_mels = 1
    fmax = 50.0

    def __call__(self, waveform):
        return waveform[:, None].astype(np.float32)


def make_clips(*lengths, duration=None):
    clips = [np.arange(n) + 100.0 * i for i, n in enumerate(lengths)]
    return make_clip_set(
        clips,
        Samples(),
        sampling_rate=100,
        duration=duration,
        channel="mean",
        estimator=None,
        reset=True,
        training=False,
    )


def make_loader(source, **options):
    n_clips = len(source)
    target = np.arange(n_clips)[:, None] == np.arange(3)
    settings = {
        "sample_weight": None,
        "draw_order": lambda rng: np.arange(n_clips),
        "n_clips": n_clips,
        "batch_size": 2,
        "device": CPU,
        "n_jobs": 1,
    }
    return BatchLoader(source, target, **{**settings, **options})


# Batches


@pytest.mark.parametrize(
    ("n_clips", "sizes"),
    [(1, [1]), (2, [2]), (4, [4]), (5, [5]), (6, [4, 2]), (9, [4, 5]), (12, [4] * 3)],
)
def test_no_batch_is_of_one_clip_if_it_can_be_helped(n_clips, sizes):
    order = np.random.default_rng(0).permutation(n_clips)
    batches = split_batches(order, 4)
    assert [len(batch) for batch in batches] == sizes
    assert np.array_equal(np.concatenate(batches), order)
    assert make_loader(ArraySet(order), n_clips=n_clips, batch_size=4).n_batches == len(
        sizes
    )


def test_batches_of_one_stay_so():
    assert [len(batch) for batch in split_batches(np.arange(3), 1)] == [1, 1, 1]


def test_loader_gives_rows_labels_and_weights():
    X = np.random.default_rng(0).normal(size=(5, 4))
    order, weights = np.array([3, 1, 4, 0]), np.arange(5, dtype=np.float32)
    loader = make_loader(
        ArraySet(X), draw_order=lambda rng: order, n_clips=4, sample_weight=weights
    )
    batches = list(loader)
    assert len(loader) == 4
    assert [len(inputs) for inputs, _ in batches] == [2, 2]
    inputs = torch.cat([inputs for inputs, _ in batches])
    target = torch.cat([target for _, (target, _) in batches])
    given = torch.cat([weights for _, (_, weights) in batches])
    assert inputs.dtype == target.dtype == given.dtype == torch.float32
    np.testing.assert_array_equal(inputs, X[order].astype(np.float32))
    np.testing.assert_array_equal(target, loader.target[order])
    np.testing.assert_array_equal(given, weights[order])


def test_each_epoch_has_an_order_of_its_own():
    def make(**options):
        return make_loader(
            ArraySet(np.arange(6)), draw_order=make_order(np.arange(6)), **options
        )

    loader = make(seed=0)
    epochs = [torch.cat([x for x, _ in loader]).tolist() for _ in range(3)]
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert all(sorted(epoch) == list(range(6)) for epoch in epochs)
    # Which depends on nothing but the seed and how many were before.
    later = make(seed=0, n_epochs=2)
    assert torch.cat([x for x, _ in later]).tolist() == epochs[2]
    other = make(seed=1)
    assert torch.cat([x for x, _ in other]).tolist() != epochs[0]


def test_rows_of_a_memory_map_are_copied(tmp_path):
    X = np.memmap(tmp_path / "X", dtype=np.float32, mode="w+", shape=(4, 2))
    ((inputs, _), _) = make_loader(ArraySet(X))
    inputs += 1
    assert not X.any()


@pytest.mark.parametrize("n_jobs", [1, 3])
def test_pieces_of_clips_do_not_depend_on_threads(n_jobs):
    source = make_clips(9, 30, 4, 11, duration=0.08)
    order = make_order(np.arange(4))
    loader = make_loader(source, n_jobs=n_jobs, seed=7, draw_order=order)
    epochs = [torch.cat([x for x, _ in loader])[:, :, 0] for _ in range(20)]
    starts = {i: set() for i in range(4)}
    for epoch in epochs:
        for piece in epoch.numpy():
            clip, start = divmod(int(piece[0]), 100)
            starts[clip].add(start)
            if clip == 2:  # too short, and so repeated
                assert piece.tolist() == [*range(200, 204)] * 2
            else:
                assert np.array_equal(piece, 100 * clip + start + np.arange(8))
    assert starts[0] == {0, 1}
    assert starts[2] == {0}
    assert starts[3] == {0, 1, 2, 3}
    assert len(starts[1]) > 5
    again = make_loader(source, n_jobs=2, seed=7, draw_order=order)
    assert torch.equal(torch.cat([x for x, _ in again])[:, :, 0], epochs[0])


def test_validation_hears_the_middle():
    piece = make_clips(11, duration=0.05).piece(0)
    assert piece[:, 0].tolist() == [3, 4, 5, 6, 7]


class Wide(Samples):
    """A front end whose frames are as long as blocks are read."""

    sampling_rate = 8000
    fmax = 4000.0

    def __call__(self, waveform):
        return waveform[: len(waveform) // 100 * 100].reshape(-1, 100)


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """A file of ten minutes, whose samples tell where they are."""
    path = tmp_path_factory.mktemp("recording") / "long.flac"
    ramp = np.arange(600 * 8000) % 10000 / 2**15
    soundfile.write(path, np.stack([ramp, ramp], axis=1), 8000)
    return path, ramp.astype(np.float32)


def make_long(X, duration=1.0, **options):
    settings = {"sampling_rate": None, "channel": 0, "reset": True, "training": True}
    settings |= {"estimator": None, **options}
    return make_clip_set(X, Wide(), duration=duration, **settings)


@pytest.mark.parametrize("kind", ["file", "array"])
def test_of_a_long_recording_only_the_piece_is_read(recording, kind):
    path, ramp = recording
    source = make_long([path])
    if kind == "array":
        source = make_long([ramp], sampling_rate=8000)
    source.piece(0)
    tracemalloc.start()
    piece = source.piece(0, np.random.default_rng(0))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1e6  # and the recording is of 19 MB
    start = np.random.default_rng(0).integers(599 * 8000 + 1)
    np.testing.assert_array_equal(piece.ravel(), ramp[start : start + 8000])


def test_long_recordings_are_predicted_in_bounded_memory(recording):
    path, ramp = recording
    source = make_long([path])
    list(source.windows(0))
    tracemalloc.start()
    sums = [window.sum() for window in source.windows(0)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20e6  # at once it would be 58 MB
    assert sums == pytest.approx(ramp.reshape(600, -1).sum(axis=1), rel=1e-5)

    class Mean(nn.Module):
        def forward(self, inputs):
            return inputs.mean(dim=1)

    vectors = encode_clips(
        Mean(),
        source.windows,
        [0, 0],
        in_threads=True,
        batch_size=7,
        device=CPU,
        n_jobs=2,
    )
    expected = ramp.reshape(-1, 100).astype(float).mean(axis=0)
    np.testing.assert_allclose(vectors, [expected, expected], rtol=1e-5)


def test_pieces_are_of_one_length_at_any_rate(tmp_path):
    rng = np.random.default_rng(0)
    lengths = {7350: 0.99, 11025: 2.0, 44100: 1.0001, 8000: 1.0}
    paths = [tmp_path / f"{rate}.wav" for rate in lengths]
    for path, (rate, seconds) in zip(paths, lengths.items(), strict=True):
        soundfile.write(path, rng.normal(0, 0.1, round(rate * seconds)), rate)
    for duration in (0.37, 1.0):
        source = make_long(paths, duration)
        shape = (round(duration * 8000) // 100, 100)
        for index in range(4):
            for draw in (None, rng, rng, rng):
                assert source.piece(index, draw).shape == shape
            assert {window.shape for window in source.windows(index)} == {shape}


def test_windows_follow_each_other_and_the_last_ends_with_the_clip():
    source = make_clips(11, 8, 4, 3, duration=0.04)
    windows = [list(source.windows(index)) for index in range(4)]
    starts = [[piece[0, 0] % 100 for piece in clip] for clip in windows]
    assert starts == [[0, 4, 7], [0, 4], [0], [0]]
    assert windows[3][0][:, 0].tolist() == [300, 301, 302, 300]
    whole = make_clips(11, 3)
    for index, length in enumerate([11, 3]):
        (window,) = whole.windows(index)
        assert window.shape == (length, 1)


def test_clips_are_read_ahead_in_order_and_no_further():
    started = []

    def work(item):
        started.append(item)
        time.sleep(0.01 if item == 0 else 0)
        return item

    results = map_ahead(work, range(50), n_jobs=3, n_ahead=5)
    assert next(results) == 0
    assert len(started) <= 7
    assert list(results) == list(range(1, 50))
    n_threads = threading.active_count()
    results = map_ahead(work, range(50), n_jobs=3, n_ahead=5)
    next(results)
    results.close()
    assert threading.active_count() == n_threads


def test_encodes_the_mean_of_the_windows():
    source = make_clips(11, 3, 8, 4, duration=0.04)
    batches = []

    class Mean(nn.Module):
        def forward(self, inputs):
            batches.append(len(inputs))
            return inputs.mean(dim=1)

    vectors = encode_clips(
        Mean(),
        source.windows,
        [2, 0, 1],
        in_threads=True,
        batch_size=4,
        device=CPU,
        n_jobs=2,
    )
    middles = np.array([[1.5, 5.5], [1.5, 5.5]]).mean(), np.mean([1.5, 5.5, 8.5])
    assert vectors[:, 0] == pytest.approx([200 + middles[0], middles[1], 100.75])
    assert batches == [4, 2]


def test_clips_of_several_lengths_are_refused_by_name():
    loader = make_loader(make_clips(4, 5))
    with pytest.raises(
        ValueError, match=r"X\[0\] and X\[1\] are of 4 and 5 .*duration"
    ):
        list(loader)


def test_unreadable_clips_are_named(tmp_path):
    path = tmp_path / "noise.wav"
    path.write_bytes(b"no sound")
    source = make_clip_set(
        [path, path],
        Samples(),
        sampling_rate=None,
        duration=None,
        channel="mean",
        estimator=None,
        reset=True,
        training=True,
    )
    with pytest.raises(AudioReadError, match=r"noise\.wav"):
        list(make_loader(source))
    assert isinstance(source, ClipSet)


def test_log_mel_is_told_from_clips():
    log_mel = np.zeros((2, 3, 4))
    assert check_log_mel(log_mel).shape == (2, 3, 4)
    assert check_log_mel(list(log_mel)).shape == (2, 3, 4)
    for clips in (np.zeros((2, 8)), list(np.zeros((2, 8))), ["a.wav"], np.array(["a"])):
        assert check_log_mel(clips) is None
    with pytest.raises(ValueError, match=r"several shapes.*LogMelExtractor"):
        check_log_mel([np.zeros((3, 4)), np.zeros((2, 4))])
    with pytest.raises(ValueError, match="NaN"):
        check_log_mel(np.full((2, 3, 4), np.nan))


# What is drawn


def test_balanced_labels_come_up_alike():
    rng = np.random.default_rng(0)
    indicator = np.zeros((400, 3), dtype=bool)
    indicator[:300, 0] = True
    indicator[300:396, 1] = True
    indicator[396:, 2] = True
    order = make_order(np.arange(400), weights=balance(indicator))
    drawn = np.concatenate([order(rng) for _ in range(30)])
    assert indicator[drawn].mean(axis=0) == pytest.approx([1 / 3] * 3, abs=0.02)


def test_balance_takes_little_memory():
    indicator = np.zeros((20_000, 500), dtype=bool)
    indicator[np.arange(20_000), np.arange(20_000) % 500] = True
    tracemalloc.start()
    balance(indicator)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10e6  # and the matrix is of 10 MB, or 80 in doubles


def test_clips_without_labels_are_drawn_as_the_least():
    indicator = np.array([[1, 0], [1, 1], [0, 0]], dtype=bool)
    assert balance(indicator).tolist() == [0.5, 1.5, 0.5]
    assert balance(np.zeros((2, 2), dtype=bool)).tolist() == [1, 1]


def test_validation_takes_no_label_its_last_clip():
    rng = np.random.default_rng(0)
    indicator = rng.random((60, 12)) < 0.05
    indicator[np.arange(12), np.arange(12)] = True
    indices = np.arange(5, 60)
    training, validation = split_validation(indicator, indices, 0.2, rng)
    assert len(validation) == 11
    assert np.array_equal(np.union1d(training, validation), indices)
    there = indicator[indices].any(axis=0)
    assert np.array_equal(indicator[training].any(axis=0), there)


def test_validation_holds_clips_with_and_without_labels():
    rng = np.random.default_rng(0)
    indicator = np.zeros((1000, 1), dtype=bool)
    indicator[:200] = True
    _, validation = split_validation(indicator, np.arange(1000), 0.5, rng)
    assert indicator[validation].mean() == pytest.approx(0.2, abs=0.03)
    # Without a label in it there would be no score.
    for _ in range(30):
        _, validation = split_validation(indicator[198:], np.arange(802), 0.003, rng)
        assert len(validation) == 2
        assert indicator[198:][validation].any()
    with pytest.raises(ValueError, match=r"validation_fraction=0.5 of 801 clips"):
        split_validation(indicator[199:], np.arange(801), 0.5, rng)


def test_validation_needs_clips_to_spare():
    with pytest.raises(ValueError, match=r"validation_fraction=0.5 of 3 clips .*one"):
        split_validation(
            np.eye(3, dtype=bool), np.arange(3), 0.5, np.random.default_rng()
        )


def test_seeds():
    assert draw_seed(3) == 3
    assert draw_seed(np.random.RandomState(0)) == draw_seed(np.random.RandomState(0))
    # The global generator is looked at to show that it is left alone.
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    assert draw_seed(None) != draw_seed(None)
    assert np.array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_global_generators_are_put_back():
    before = torch.random.get_rng_state()
    with own_generators(5, CPU):
        first = torch.rand(3)
    assert torch.equal(torch.random.get_rng_state(), before)
    with own_generators(5, CPU):
        assert torch.equal(torch.rand(3), first)
    with pytest.raises(RuntimeError, match="inside"), own_generators(5, CPU):
        raise RuntimeError("inside")
    assert torch.equal(torch.random.get_rng_state(), before)


def test_augmentation_mixes_weights_as_clips():
    inputs, target = torch.arange(40.0).reshape(4, 5, 2), torch.eye(4)
    weights = torch.tensor([1.0, 2, 4, 8])
    augment = Augmentation(mixup_alpha=1.0)
    generator = torch.Generator().manual_seed(0)
    _, mixed, mixed_weights = augment(inputs, target, weights, generator)
    torch.testing.assert_close(mixed_weights, mixed @ weights)
    assert augment(inputs, target, None, generator)[2] is None


def test_augmentation_blanks_an_eighth_of_the_bands():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(300, 32, 16, generator=generator)
    changed = Augmentation(stripes=True)(inputs, None, None, generator)[0] != inputs
    bands = changed.all(dim=1).sum(dim=1)
    frames = changed.all(dim=2).sum(dim=1)
    assert (bands.max(), frames.max()) == (4, 4)
