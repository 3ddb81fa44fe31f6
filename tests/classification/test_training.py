import threading
import time

import numpy as np
import pytest
import torch
from torch import nn

from sklabelaudio.classification._batches import (
    BatchLoader,
    encode_clips,
    map_ahead,
    split_batches,
)
from sklabelaudio.classification._encoders import plan_encoder
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
from sklabelaudio.exceptions import AudioReadError, CheckpointError
from sklabelaudio.nn import PSLA, Cnn6, Cnn14, EfficientAT, PaSST

CPU = torch.device("cpu")


class Samples:
    """A front end that gives the samples themselves, one to a frame."""

    sampling_rate = 100
    n_mels = 1

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
        "draw_order": lambda: np.arange(n_clips),
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
        ArraySet(X), draw_order=lambda: order, n_clips=4, sample_weight=weights
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
    draw = make_order(np.arange(6), np.random.default_rng(0))
    loader = make_loader(ArraySet(np.arange(6)), draw_order=draw)
    epochs = [torch.cat([x for x, _ in loader]).tolist() for _ in range(3)]
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert all(sorted(epoch) == list(range(6)) for epoch in epochs)


def test_rows_of_a_memory_map_are_copied(tmp_path):
    X = np.memmap(tmp_path / "X", dtype=np.float32, mode="w+", shape=(4, 2))
    ((inputs, _), _) = make_loader(ArraySet(X))
    inputs += 1
    assert not X.any()


@pytest.mark.parametrize("n_jobs", [1, 3])
def test_pieces_of_clips_do_not_depend_on_threads(n_jobs):
    source = make_clips(9, 30, 4, 11, duration=0.08)
    order = make_order(np.arange(4), np.random.default_rng(0))
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
    order = make_order(np.arange(4), np.random.default_rng(0))
    again = make_loader(source, n_jobs=2, seed=7, draw_order=order)
    assert torch.equal(torch.cat([x for x, _ in again])[:, :, 0], epochs[0])


def test_validation_hears_the_middle():
    piece = make_clips(11, duration=0.05).piece(0)
    assert piece[:, 0].tolist() == [3, 4, 5, 6, 7]


def test_windows_follow_each_other_and_the_last_ends_with_the_clip():
    source = make_clips(11, 8, 4, 3, duration=0.04)
    starts = [source.windows(index)[:, 0, 0] - 100 * index for index in range(4)]
    assert [list(clip) for clip in starts] == [[0, 4, 7], [0, 4], [0], [0]]
    assert source.windows(3)[0, :, 0].tolist() == [300, 301, 302, 300]
    whole = make_clips(11, 3)
    assert [whole.windows(index).shape for index in range(2)] == [(1, 11, 1), (1, 3, 1)]


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
        Mean(), source, indices=[2, 0, 1], batch_size=4, device=CPU, n_jobs=2
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
    order = make_order(np.arange(400), rng, weights=balance(indicator))
    drawn = np.concatenate([order() for _ in range(30)])
    assert indicator[drawn].mean(axis=0) == pytest.approx([1 / 3] * 3, abs=0.02)


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
    assert indicator[validation].any(axis=1).all()
    there = indicator[indices].any(axis=0)
    assert np.array_equal(indicator[training].any(axis=0), there)


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
    augment = Augmentation(0, mixup_alpha=1.0)
    _, mixed, mixed_weights = augment(inputs, target, weights)
    torch.testing.assert_close(mixed_weights, mixed @ weights)
    assert augment(inputs, target, None)[2] is None


def test_augmentation_blanks_an_eighth_of_the_bands():
    inputs = torch.randn(300, 32, 16, generator=torch.Generator().manual_seed(0))
    changed = Augmentation(0, stripes=True)(inputs, None, None)[0] != inputs
    bands = changed.all(dim=1).sum(dim=1)
    frames = changed.all(dim=2).sum(dim=1)
    assert (bands.max(), frames.max()) == (4, 4)


# Encoders


@pytest.mark.parametrize(
    ("name", "make", "front_end"),
    [
        ("efficientat", lambda: EfficientAT(0.1, n_classes=7), "efficientat"),
        ("psla", lambda: PSLA(5, width=0.25, depth=0.3), "psla"),
        ("panns", lambda: Cnn6(n_classes=3, channels=(4, 4, 8, 8)), "panns_32k"),
        (
            "cnn14_16k",
            lambda: Cnn14(n_classes=3, channels=(2, 2, 4, 4, 4, 8)),
            "panns_16k",
        ),
        ("passt", lambda: PaSST(3, 130, embed_dim=64, depth=1, num_heads=1), "passt"),
    ],
)
def test_sizes_are_read_off_the_weights(name, make, front_end, tmp_path):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        trained = make()
    torch.save({"model": trained.state_dict()}, tmp_path / "weights.pt")
    plan = plan_encoder(name, weights=tmp_path / "weights.pt")
    loaded = plan.load(plan.make())
    assert plan.front_end_name == plan.make_front_end().name == front_end
    for key, value in trained.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value)


def test_patchout_goes_to_passt():
    sizes = {"embed_dim": 64, "depth": 1, "num_heads": 1, "n_classes": 2}
    plan = plan_encoder("passt", params=sizes, patchout=(4, 40))
    assert plan.params["patchout_frequency"] == 4
    assert plan.params["patchout_time"] == 40
    log_mel = torch.zeros(2, 500, 128)
    tokens = plan.make().train().encoder.embeddings(log_mel).shape[1]
    assert tokens == 2 + (12 - 4) * (49 - 40)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"encoder": "eficientat"}, ValueError, "Did you mean 'efficientat'"),
        ({"encoder": "zzzz"}, ValueError, "'ast', .*'sp4sc'"),
        ({"encoder": EfficientAT(0.1)}, TypeError, "pass the class"),
        ({"encoder": print}, TypeError, "neither the name"),
        ({"encoder": dict}, TypeError, "neither the name"),
        ({"encoder": "ast", "weights": "no.pt"}, ValueError, "no.pt.* is no file"),
        ({"encoder": "ast", "front_end": "ast"}, ValueError, "leave it out"),
        ({"encoder": EfficientAT, "front_end": "no"}, ValueError, "no front end"),
        ({"encoder": "ast", "patchout": (4, 40)}, ValueError, "only 'passt'"),
        ({"encoder": "passt", "patchout": (4,)}, ValueError, "two numbers"),
        ({"encoder": EfficientAT, "patchout": (4, 4)}, ValueError, "encoder_params"),
    ],
)
def test_encoders_that_are_none(arguments, error, message):
    with pytest.raises(error, match=message):
        plan_encoder(**arguments)


def test_weights_of_another_encoder_are_refused(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(EfficientAT(0.1).state_dict(), path)
    for name in ("panns", "psla", "cnn10", "ast"):
        with pytest.raises(CheckpointError, match=r"weights\.pt"):
            plan_encoder(name, weights=path)
    torch.save(Cnn14(channels=(2, 2, 2, 2, 2, 2)).state_dict(), path)
    with pytest.raises(CheckpointError, match="'cnn14' or 'cnn14_16k'"):
        plan_encoder("panns", weights=path)


def test_files_that_changed_are_refused(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(EfficientAT(0.1).state_dict(), path)
    plan = plan_encoder("efficientat", weights=path)
    torch.save(EfficientAT(0.1).state_dict(), path)
    with pytest.raises(CheckpointError, match="another file than in fit"):
        plan.load(plan.make())
    path.unlink()
    with pytest.raises(CheckpointError, match="not there"):
        plan.load(plan.make())
