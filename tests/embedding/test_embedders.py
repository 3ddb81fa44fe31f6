"""What all embedders do alike: bits, windows, cache, faults."""

import os
import pickle
import signal
import subprocess
import sys
import time
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pytest
import soundfile
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import PredefinedSplit, cross_val_score
from sklearn.pipeline import make_pipeline

from sklabelaudio import (
    EfficientATEmbedder,
    EmbeddingCache,
    HTSATEmbedder,
    LabelTextEmbedder,
    TaggerZeroShotClassifier,
    VGGishEmbedder,
    YAMNetEmbedder,
    load_audio,
    load_esc50,
)
from sklabelaudio.embedding._engine import Engine, exact_kernels
from sklabelaudio.exceptions import (
    AudioReadError,
    AudioReadWarning,
    CheckpointError,
    EmbeddingCacheWarning,
)
from sklabelaudio.feature_extraction._front_ends import get_front_end

RATE = 16000


@pytest.fixture(scope="module")
def waves():
    """Clips of many lengths, from one sample to longer than a window."""
    rng = np.random.default_rng(0)
    lengths = [1, 700, 15600, 16000, 40000, 99999, 170000, 16000]
    return [0.1 * rng.standard_normal(n).astype(np.float32) for n in lengths]


EMBEDDERS = [
    YAMNetEmbedder(None, sampling_rate=RATE),
    YAMNetEmbedder(None, sampling_rate=RATE, output="probabilities", pooling="max"),
    EfficientATEmbedder(None, sampling_rate=RATE),
    EfficientATEmbedder(None, sampling_rate=RATE, output="logits", window=2, hop=0.5),
]
EVERY = pytest.mark.parametrize(
    "embedder", EMBEDDERS, ids=lambda e: f"{type(e).__name__}-{e.output}"
)


@pytest.fixture(scope="module")
def tagger(tmp_path_factory):
    """The path of a narrow EfficientAT."""
    import torch

    from sklabelaudio.nn import EfficientAT

    path = tmp_path_factory.mktemp("weights") / "tagger.pt"
    torch.save(EfficientAT(0.1).state_dict(), path)
    return path


@pytest.fixture
def runs(monkeypatch):
    """The shapes of all that encoders are run on."""
    shapes = []
    run = Engine.run

    def count(self, log_mel, output):
        shapes.append(log_mel.shape)
        return run(self, log_mel, output)

    monkeypatch.setattr(Engine, "run", count)
    return shapes


@EVERY
def test_a_clip_has_the_same_bits_in_any_company(embedder, waves):
    fitted = clone(embedder).fit(waves)
    together = fitted.transform(waves)
    assert together.dtype == np.float32
    assert together.shape == (len(waves), fitted.n_components_)
    alone = np.concatenate([fitted.transform([wave]) for wave in waves])
    np.testing.assert_array_equal(alone, together)
    order = np.random.default_rng(1).permutation(len(waves))
    shuffled = fitted.transform([waves[i] for i in order])
    np.testing.assert_array_equal(shuffled, together[order])
    seven = fitted.transform(waves[1:8])
    np.testing.assert_array_equal(seven, together[1:8])
    one_job = clone(embedder).set_params(n_jobs=1).fit(waves)
    np.testing.assert_array_equal(one_job.transform(waves), together)


def test_gives_the_same_bits_in_other_processes(waves, tagger, tmp_path):
    embedders = [*EMBEDDERS, EfficientATEmbedder(tagger, sampling_rate=RATE)]
    waves = waves[1:5]
    fitted = [clone(embedder).fit(waves) for embedder in embedders]
    joblib.dump((fitted, waves), tmp_path / "fitted")
    # After a fork torch has none of its threads, and waits for them if it may.
    code = (
        "import os, sys, joblib, numpy as np, torch\n"
        "fitted, waves = joblib.load(sys.argv[1])\n"
        "torch.rand(10**7).exp()\n"
        "child = os.fork()\n"
        "status = os.wait()[1] if child else 0\n"
        "rows = [embedder.transform(waves) for embedder in fitted]\n"
        "np.savez(sys.argv[2] + ('/parent' if child else '/child'), *rows)\n"
        "sys.exit(status != 0)"
    )
    args = [sys.executable, "-c", code, str(tmp_path / "fitted"), str(tmp_path)]
    # Another number of threads, as another machine would have.
    env = {**os.environ, "OMP_NUM_THREADS": "3"}
    process = subprocess.Popen(args, env=env, start_new_session=True)
    try:
        assert process.wait(timeout=100) == 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    expected = [embedder.transform(waves) for embedder in fitted]
    for name in ("parent.npz", "child.npz"):
        with np.load(tmp_path / name) as found:
            for key, rows in zip(found, expected, strict=True):
                np.testing.assert_array_equal(found[key], rows)


@pytest.mark.parametrize("embedder", EMBEDDERS[::2], ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_the_number_of_torch_threads_is_of_no_effect(embedder, n_jobs, waves):
    import torch

    fitted = clone(embedder).set_params(n_jobs=n_jobs).fit(waves)
    before = torch.get_num_threads()
    rows = []
    try:
        for n_threads in (1, 2, 5):
            torch.set_num_threads(n_threads)
            rows.append(fitted.transform(waves[3:7]))
            assert torch.get_num_threads() == n_threads
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(rows[1], rows[0])
    np.testing.assert_array_equal(rows[2], rows[0])


def test_autocast_of_the_caller_is_of_no_effect(waves):
    import torch

    fitted = YAMNetEmbedder(None, sampling_rate=RATE, n_jobs=1).fit(waves)
    expected = fitted.transform(waves[3:4])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rows = fitted.transform(waves[3:4])
    np.testing.assert_array_equal(rows, expected)


@pytest.mark.parametrize("embedder", EMBEDDERS[::2], ids=lambda e: type(e).__name__)
def test_batches_of_one_size_give_the_rows_of_single_clips(embedder, waves):
    fitted = clone(embedder).set_params(batch_size=4).fit(waves)
    expected = fitted.transform(waves)
    fitted._engine.in_batches = True  # as on a GPU
    together = fitted.transform(waves)
    np.testing.assert_allclose(together, expected, rtol=2e-4, atol=1e-5)
    order = np.random.default_rng(1).permutation(len(waves))
    shuffled = fitted.transform([waves[i] for i in order])
    np.testing.assert_array_equal(shuffled, together[order])
    alone = np.concatenate([fitted.transform([wave]) for wave in waves])
    np.testing.assert_array_equal(alone, together)


def test_a_gpu_keeps_its_fast_kernels_and_single_precision():
    from torch.backends import cudnn

    before = cudnn.enabled, cudnn.deterministic, cudnn.allow_tf32
    with exact_kernels():
        assert (cudnn.enabled, cudnn.deterministic) == (True, True)
        assert not cudnn.allow_tf32
        assert not cudnn.benchmark
    assert (cudnn.enabled, cudnn.deterministic, cudnn.allow_tf32) == before


def test_batches_hold_one_length_and_are_filled_up(waves, runs):
    fitted = EfficientATEmbedder(None, sampling_rate=RATE, batch_size=3).fit(waves)
    fitted.transform([*waves, *waves])
    windows = Counter(n_frames for _, n_frames, _ in runs)  # one at a time on a CPU
    assert max(windows.values()) > 3
    runs.clear()
    fitted._engine.in_batches = True
    fitted.transform([*waves, *waves])
    assert {n_windows for n_windows, _, _ in runs} == {3}
    batches = Counter(n_frames for _, n_frames, _ in runs)
    assert batches == {length: -(-n // 3) for length, n in windows.items()}


def test_skipped_clips_keep_their_rows_in_batches(waves, tmp_path):
    files = write_files(waves[3:6], tmp_path)
    files.insert(1, str(tmp_path / "none.wav"))
    fitted = YAMNetEmbedder(None, on_error="skip", batch_size=4).fit(files)
    with pytest.warns(AudioReadWarning, match=r"none\.wav"):
        expected = fitted.transform(files)
    fitted._engine.in_batches = True
    with pytest.warns(AudioReadWarning, match=r"none\.wav"):
        rows = fitted.transform(files)
    assert np.isnan(rows[1]).all()
    np.testing.assert_allclose(rows, expected, rtol=2e-4, atol=1e-5)


def write_files(waves, folder, rate=RATE):
    paths = [str(folder / f"{i}.wav") for i in range(len(waves))]
    for path, wave in zip(paths, waves, strict=True):
        soundfile.write(path, wave, rate, subtype="FLOAT")
    return paths


@EVERY
def test_files_and_arrays_give_the_same_bits(embedder, waves, tmp_path):
    files = write_files(waves, tmp_path)
    from_files = clone(embedder).set_params(sampling_rate=None).fit(files)
    np.testing.assert_array_equal(
        from_files.transform(files), clone(embedder).fit_transform(waves)
    )


def test_a_long_file_is_read_in_blocks_with_the_same_bits(monkeypatch, tmp_path):
    rng = np.random.default_rng(3)
    wave = 0.1 * rng.standard_normal(RATE * 45).astype(np.float32)
    (path,) = write_files([wave], tmp_path, rate=22050)
    for embedder in (EfficientATEmbedder(None), YAMNetEmbedder(None)):
        whole = embedder.fit([path]).transform([path])
        monkeypatch.setattr("sklabelaudio.embedding._base._BLOCK_SECONDS", 1.7)
        np.testing.assert_array_equal(embedder.transform([path]), whole)
        monkeypatch.undo()


def test_windows_of_a_patch_model(waves):
    """Each window is what a clip of just its samples gives."""
    wave = waves[5]
    frames = YAMNetEmbedder(None, sampling_rate=RATE, output="frames").fit([wave])
    (rows,) = frames.transform([wave])
    assert len(rows) == 1 + -(-(len(wave) - 15600) // 7680)
    single = clone(frames).set_params(output="embedding").fit([wave])
    padded = np.pad(wave, (0, 15600))
    for i, row in enumerate(rows):
        alone = single.transform([padded[i * 7680 :][:15600]])[0]
        np.testing.assert_allclose(row, alone, rtol=1e-4, atol=1e-6)
    expected = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    np.testing.assert_array_equal(single.transform([wave])[0], expected)
    np.testing.assert_allclose(frames.frame_times(3), [0.4875, 0.9675, 1.4475])


def test_windows_of_a_whole_clip_model():
    rng = np.random.default_rng(8)
    wave = 0.1 * rng.standard_normal(333_333).astype(np.float32)
    embedder = EfficientATEmbedder(None, sampling_rate=RATE, window=5.0, hop=3.0)
    (rows,) = clone(embedder).set_params(output="frames").fit_transform([wave])
    starts = [0, 3, 6, 9, 12, 15]  # of 20.8 s
    assert len(rows) == len(starts) + 1  # and one that ends with the clip
    # At the model's own rate a window is a clip of its own, to the bit.
    at_rate = EfficientATEmbedder(None, sampling_rate=32000, window=5.0, hop=3.0)
    (rows,) = clone(at_rate).set_params(output="frames").fit_transform([wave])
    wanted = [wave[: 5 * 32000], wave[3 * 32000 : 8 * 32000], wave[-5 * 32000 :]]
    np.testing.assert_array_equal(rows, clone(at_rate).fit_transform(wanted))
    for pooling, pool in [("mean", np.mean), ("max", np.max)]:
        pooled = clone(at_rate).set_params(pooling=pooling).fit_transform([wave])
        np.testing.assert_allclose(pooled[0], pool(rows, axis=0), rtol=1e-6)


def test_clips_up_to_a_window_are_taken_whole(waves, runs):
    EfficientATEmbedder(None, sampling_rate=RATE).fit_transform(waves[3:6])
    assert sorted(shape[1] for shape in runs) == [100, 250, 625]


def test_frames_of_equal_clips_make_an_array(waves):
    embedder = YAMNetEmbedder(None, sampling_rate=RATE, output="frames")
    assert embedder.fit_transform([waves[3], waves[7]]).shape == (2, 2, 1024)
    ragged = embedder.transform(waves[3:5])
    assert ragged.dtype == object
    assert [row.shape for row in ragged] == [(2, 1024), (5, 1024)]
    assert not hasattr(embedder, "get_feature_names_out")


def test_framewise_vectors_of_a_clip(tmp_path):
    """Their mean is the embedding; a long clip's are those of its windows."""
    rate, seconds = 32000, 10.625
    rng = np.random.default_rng(6)
    wave = 0.1 * rng.standard_normal(int(rate * seconds)).astype(np.float32)
    framewise = EfficientATEmbedder(
        None, sampling_rate=rate, output="framewise_embedding", cache=tmp_path
    )
    whole = clone(framewise).set_params(window=11.0)
    (rows,) = whole.fit_transform([wave])
    assert rows.shape == (34, 384)  # of 32 frames, and the rest
    embedding = clone(whole).set_params(output="embedding").fit_transform([wave])[0]
    np.testing.assert_allclose(rows.mean(axis=0), embedding, atol=1e-6)
    times = whole.frame_times(34)
    np.testing.assert_allclose(times, 0.32 * np.arange(34))
    np.testing.assert_array_equal(whole.frame_times(34, duration=seconds), times)

    halves = clone(framewise).set_params(window=6.0, hop=4.0)
    (joined,) = halves.fit_transform([wave])
    for _ in range(2):  # computed, then from the cache
        np.testing.assert_array_equal(halves.transform([wave])[0], joined)
    times = halves.frame_times(len(joined), duration=seconds)
    assert (np.diff(times) > 0).all()
    # There are windows from 0 to 6 s, 4 to 10, and the last 6 s.
    first, last = halves.transform([wave[: 6 * rate], wave[-6 * rate :]])
    early, late = times < 5, times >= (10 + seconds - 6) / 2
    np.testing.assert_array_equal(joined[early], first[: early.sum()])
    np.testing.assert_array_equal(joined[late], last[-late.sum() :])
    assert not early[late].any()
    assert early.sum() + late.sum() < len(times)
    with pytest.raises(ValueError, match="duration=None"):
        halves.frame_times(len(joined))
    assert not hasattr(halves, "get_feature_names_out")


def test_framewise_probabilities_of_a_clip():
    """HTS-AT stretches short clips, and so are their steps."""
    rng = np.random.default_rng(4)
    waves = [0.1 * rng.standard_normal(32000 * n).astype(np.float32) for n in (4, 13)]
    embedder = HTSATEmbedder(
        None, sampling_rate=32000, output="framewise_probabilities"
    )
    short, long = embedder.fit_transform(waves)
    assert embedder.n_components_ == 527
    assert short.shape == (1024, 527)
    clip = clone(embedder).set_params(output="logits").fit_transform(waves[:1])[0]
    logits = np.log(short / (1 - short))
    np.testing.assert_allclose(logits.mean(axis=0), clip, atol=1e-4)
    np.testing.assert_allclose(
        embedder.frame_times(1024, duration=4), (np.arange(1024) + 0.5) * 4 / 1024
    )
    times = embedder.frame_times(len(long), duration=13)
    step = 10 / 1024
    assert times[0] == pytest.approx(step / 2)
    assert times[-1] == pytest.approx(13 - step / 2)
    # The second window is the last ten seconds, and speaks from 6.5 s on.
    windows = embedder.transform([waves[1][:320_000], waves[1][-320_000:]])
    np.testing.assert_array_equal(long[times < 6.5], windows[0][: (times < 6.5).sum()])
    np.testing.assert_array_equal(long[times > 6.5], windows[1][-(times > 6.5).sum() :])
    with pytest.raises(ValueError, match="duration=None"):
        embedder.frame_times(1024)
    with pytest.raises(ValueError, match=r"short_clips='repeat'.*use short_clips='str"):
        clone(embedder).set_params(short_clips="repeat").fit(waves)
    vectors = clone(embedder).set_params(output="framewise_embedding")
    rows = vectors.fit_transform(waves[:1])
    assert rows.shape == (1, 32, 768)
    embedding = clone(embedder).set_params(output="embedding").fit_transform(waves[:1])
    np.testing.assert_allclose(rows.mean(axis=1), embedding, atol=1e-5)


def test_times_of_windows_that_end_with_the_clip(waves):
    embedder = EfficientATEmbedder(
        None, sampling_rate=RATE, output="frames", window=4.0, hop=3.0
    ).fit(waves)
    np.testing.assert_allclose(embedder.frame_times(3), [2, 5, 8])
    np.testing.assert_allclose(embedder.frame_times(3, duration=9), [2, 5, 7])
    np.testing.assert_allclose(embedder.frame_times(1, duration=3), [1.5])
    with pytest.raises(ValueError, match=r"n_frames=2: .* duration=9 s has 3 windows"):
        embedder.frame_times(2, duration=9)


def test_outputs_that_an_encoder_lacks(waves):
    for embedder in (
        EfficientATEmbedder(None, output="framewise_probabilities"),
        YAMNetEmbedder(None, output="framewise_embedding"),
    ):
        with pytest.raises(ValueError, match="'output' parameter"):
            embedder.fit(waves)


def test_probabilities_are_those_of_the_logits(waves):
    clip = [waves[2]]
    embedder = EfficientATEmbedder(None, sampling_rate=RATE)
    logits = clone(embedder).set_params(output="logits").fit_transform(clip)
    probabilities = clone(embedder).set_params(output="probabilities").fit(clip)
    np.testing.assert_allclose(
        probabilities.transform(clip), 1 / (1 + np.exp(-logits)), rtol=1e-5
    )
    assert probabilities.n_components_ == 527


def test_amp_is_for_gpus_alone(waves):
    plain, amp = (
        YAMNetEmbedder(None, sampling_rate=RATE, amp=amp).fit_transform(waves[2:4])
        for amp in (False, True)
    )
    np.testing.assert_array_equal(plain, amp)


def test_random_weights_are_the_same_each_time(waves):
    def embed(_):
        return YAMNetEmbedder(None, sampling_rate=RATE).fit_transform(waves[2:3])

    expected = embed(0)
    with ThreadPoolExecutor(4) as pool:  # which share torch's generator
        for rows in pool.map(embed, range(4)):
            np.testing.assert_array_equal(rows, expected)


def test_leaves_the_global_settings_alone(waves, tagger):
    import torch

    def look():
        cudnn = torch.backends.cudnn
        return (
            torch.get_rng_state().tolist(),
            np.random.get_state()[1].tolist(),  # noqa: NPY002
            torch.get_num_threads(),
            torch.is_grad_enabled(),
            (cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32),
        )

    before = look()
    for weights in (None, tagger):
        embedder = EfficientATEmbedder(weights, sampling_rate=RATE)
        pickle.loads(pickle.dumps(embedder.fit(waves))).transform(waves[2:4])
        assert look() == before


def test_doubles_by_default_do_not_matter(waves, tagger):
    import torch

    embedder = EfficientATEmbedder(tagger, sampling_rate=RATE)
    expected = clone(embedder).fit_transform(waves[2:4])
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        rows = embedder.fit_transform(waves[2:4])
    finally:
        torch.set_default_dtype(before)
    np.testing.assert_array_equal(rows, expected)


def test_several_threads_may_use_one_embedder(waves, tagger):
    fitted = EfficientATEmbedder(tagger, sampling_rate=RATE).fit(waves)
    expected = fitted.transform(waves)
    for embedder in (fitted, pickle.loads(pickle.dumps(fitted))):
        with ThreadPoolExecutor(4) as pool:
            for rows in pool.map(embedder.transform, [waves] * 4):
                np.testing.assert_array_equal(rows, expected)


def test_weights_are_found_again_from_another_folder(waves, tagger, monkeypatch):
    monkeypatch.chdir(tagger.parent)
    fitted = EfficientATEmbedder(tagger.name, sampling_rate=RATE).fit(waves)
    data = pickle.dumps(fitted)
    monkeypatch.chdir("/")
    np.testing.assert_array_equal(
        pickle.loads(data).transform(waves[:2]), fitted.transform(waves[:2])
    )


def test_moved_weights_are_found_where_the_parameter_says(waves, tagger, tmp_path):
    old, new = tmp_path / "old.pt", tmp_path / "new.pt"
    old.write_bytes(tagger.read_bytes())
    fitted = EfficientATEmbedder(old, sampling_rate=RATE).fit(waves)
    data = pickle.dumps(fitted)
    old.rename(new)
    moved = pickle.loads(data).set_params(weights=new)
    np.testing.assert_array_equal(
        moved.transform(waves[:2]), fitted.transform(waves[:2])
    )


def test_columns_follow_the_output(waves, tagger):
    pytest.importorskip("pandas")
    embedder = EfficientATEmbedder(tagger, sampling_rate=RATE)
    assert not hasattr(embedder, "n_components_")
    embedder.set_output(transform="pandas").fit(waves)
    n_values = embedder.transform(waves[:2]).shape[1]
    embedder.set_params(output="probabilities")
    assert embedder.transform(waves[:2]).shape == (2, 527)
    assert embedder.n_components_ == 527 != n_values


def test_pickles_hold_no_weights(waves, tmp_path):
    import torch

    from sklabelaudio.nn import YAMNet

    path = tmp_path / "yamnet.pt"
    torch.save(YAMNet().state_dict(), path)
    fitted = YAMNetEmbedder(path, sampling_rate=RATE).fit(waves)
    data = pickle.dumps(fitted)
    assert len(data) < 20_000
    loaded = pickle.loads(data)
    np.testing.assert_array_equal(
        loaded.transform(waves[:3]), fitted.transform(waves[:3])
    )
    loaded = pickle.loads(data)
    torch.save(YAMNet().state_dict(), path)
    with pytest.raises(ValueError, match="is another file than in fit"):
        loaded.transform(waves[:3])


def test_columns_are_named_by_the_labels_beside_the_weights(waves, tagger, tmp_path):
    pytest.importorskip("pandas")
    (tmp_path / "tagger.pt").write_bytes(tagger.read_bytes())
    names = [f"class {i}" for i in range(527)]
    lines = ["index,mid,display_name"]
    lines += [f'{i},/m/{i},"{name}"' for i, name in enumerate(names)]
    (tmp_path / "class_labels_indices.csv").write_text("\n".join(lines) + "\n")
    embedder = EfficientATEmbedder(tmp_path / "tagger.pt", sampling_rate=RATE)
    embedder.set_params(output="probabilities").set_output(transform="pandas")
    frame = embedder.fit_transform(waves[2:4])
    assert frame.columns.tolist() == names
    embedder.set_params(output="embedding")
    names = embedder.fit(waves).get_feature_names_out()
    assert names[0] == "efficientatembedder0"


def test_a_long_file_takes_no_more_memory_than_a_short_one(tmp_path):
    """A quarter of an hour at the encoder's rate would be 115 MB."""
    import torch

    from sklabelaudio.nn import EfficientAT

    torch.save(EfficientAT(0.1).state_dict(), tmp_path / "tagger.pt")
    second = 0.1 * np.random.default_rng(0).standard_normal(8000)
    code = (
        "import resource, sys\n"
        "from sklabelaudio import EfficientATEmbedder\n"
        "weights, path = sys.argv[1:]\n"
        "EfficientATEmbedder(weights, n_jobs=1).fit([path]).transform([path])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    peaks = []
    for minutes in (1, 15):
        path = tmp_path / f"{minutes}.wav"
        with soundfile.SoundFile(path, "w", samplerate=8000, channels=1) as file:
            for _ in range(60 * minutes):
                file.write(second)
        run = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "tagger.pt"), str(path)],
            check=True,
            capture_output=True,
        )
        peaks.append(int(run.stdout) / 1024)
    assert peaks[1] < peaks[0] + 80


# The cache.


def test_a_second_run_computes_nothing(waves, tmp_path, runs):
    embedder = YAMNetEmbedder(None, sampling_rate=RATE, cache=tmp_path / "cache")
    first = clone(embedder).fit_transform(waves)
    assert runs
    runs.clear()
    again = clone(embedder).fit(waves)
    order = np.random.default_rng(1).permutation(len(waves))
    np.testing.assert_array_equal(again.transform(waves), first)
    np.testing.assert_array_equal(
        again.transform([waves[i] for i in order]), first[order]
    )
    assert not runs


def test_two_processes_compute_nothing_the_second_time(waves, tmp_path, runs):
    files = write_files(waves, tmp_path)
    cache = EmbeddingCache(tmp_path / "cache")
    embedder = YAMNetEmbedder(None, cache=cache).fit(files)
    expected = embedder.transform(files)
    joblib.dump((embedder, files[::-1]), tmp_path / "fitted")
    code = (
        "import sys, joblib, numpy as np\n"
        "from sklabelaudio.embedding._engine import Engine\n"
        "def run(*args): raise AssertionError('the encoder runs')\n"
        "Engine.run = run\n"
        "embedder, files = joblib.load(sys.argv[1])\n"
        "np.save(sys.argv[2], embedder.transform(files))"
    )
    out = str(tmp_path / "rows.npy")
    args = [sys.executable, "-c", code, str(tmp_path / "fitted"), out]
    runs.clear()
    with subprocess.Popen(args) as process:
        while process.poll() is None:
            np.testing.assert_array_equal(embedder.transform(files), expected)
            time.sleep(0.05)
    assert process.returncode == 0
    assert not runs
    np.testing.assert_array_equal(np.load(out), expected[::-1])


def test_what_is_changed_after_fit_is_not_kept_for_something_else(waves, tmp_path):
    import torch

    from sklabelaudio.nn import HTSAT

    sizes = {"depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)}
    torch.save(HTSAT(8, 3, **sizes).state_dict(), tmp_path / "htsat.pt")
    embedder = HTSATEmbedder(
        tmp_path / "htsat.pt", sampling_rate=32000, cache=tmp_path / "cache"
    )
    clip = [waves[5]]
    stretched = embedder.fit_transform(clip)
    repeated = embedder.set_params(short_clips="repeat").transform(clip)
    without = clone(embedder).set_params(cache=None).fit_transform(clip)
    np.testing.assert_array_equal(repeated, without)
    assert np.abs(repeated - stretched).max() > 1e-4
    np.testing.assert_array_equal(clone(embedder).fit_transform(clip), without)


def test_what_was_done_before_an_interrupt_is_kept(waves, tmp_path, monkeypatch):
    run = Engine.run
    n_runs = []

    def stop(self, *args):
        n_runs.append(1)
        if len(n_runs) == 3:
            raise KeyboardInterrupt
        return run(self, *args)

    embedder = YAMNetEmbedder(None, sampling_rate=RATE, cache=tmp_path / "cache")
    embedder.set_params(n_jobs=1).fit(waves)
    monkeypatch.setattr(Engine, "run", stop)
    with pytest.raises(KeyboardInterrupt):
        embedder.transform(waves[:5])
    embedder.transform(waves[:5])
    assert len(n_runs) == 6  # the third was stopped and is run again


@pytest.mark.parametrize(
    "change",
    [
        {"output": "logits"},
        {"output": "frames"},
        {"pooling": "max"},
        {"hop": 0.96},
        {"sampling_rate": 8000},
    ],
    ids=str,
)
def test_what_changes_a_row_is_not_found_in_the_cache(change, waves, tmp_path, runs):
    embedder = YAMNetEmbedder(None, sampling_rate=RATE, cache=tmp_path / "cache")
    embedder.fit_transform(waves[4:5])
    runs.clear()
    changed = clone(embedder).set_params(**change)
    rows = changed.fit_transform(waves[4:5])
    assert runs
    without = clone(changed).set_params(cache=None).fit_transform(waves[4:5])
    np.testing.assert_array_equal(rows, without)


def test_what_changes_nothing_is_found_in_the_cache(waves, tmp_path, runs):
    embedder = YAMNetEmbedder(None, sampling_rate=RATE, cache=tmp_path / "cache")
    embedder.fit_transform(waves[3:6])
    runs.clear()
    other = {"batch_size": 2, "n_jobs": 1, "on_error": "skip", "device": "cpu"}
    clone(embedder).set_params(**other).fit_transform(waves[3:6])
    assert not runs


def test_other_weights_are_not_found_in_the_cache(waves, tmp_path, runs):
    import torch

    from sklabelaudio.nn import YAMNet

    for name in "ab":
        torch.save(YAMNet().state_dict(), tmp_path / f"{name}.pt")
    rows = [
        YAMNetEmbedder(
            tmp_path / f"{name}.pt", sampling_rate=RATE, cache=tmp_path / "cache"
        ).fit_transform(waves[2:3])
        for name in "ab"
    ]
    assert len(runs) == 2
    assert not np.array_equal(*rows)


def test_what_was_done_before_a_fault_is_kept(waves, tmp_path, runs):
    files = write_files(waves[3:6], tmp_path)
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"RIFF")
    embedder = YAMNetEmbedder(None, cache=tmp_path / "cache", n_jobs=1).fit(files)
    with pytest.raises(AudioReadError, match=r"bad\.wav"):
        embedder.transform([*files, str(bad)])
    runs.clear()
    embedder.transform(files)
    assert not runs


def test_skipped_clips_are_not_kept(waves, tmp_path):
    files = write_files(waves[3:5], tmp_path)
    files.append(str(tmp_path / "later.wav"))
    embedder = YAMNetEmbedder(None, cache=tmp_path / "cache", on_error="skip")
    with pytest.warns(AudioReadWarning, match=r"later\.wav"):
        rows = embedder.fit_transform(files)
    assert np.isnan(rows[2]).all()
    soundfile.write(files[2], waves[5], RATE, subtype="FLOAT")
    np.testing.assert_array_equal(np.isnan(embedder.transform(files)).any(axis=1), 0)


def test_a_file_that_changes_meanwhile_is_not_kept(waves, tmp_path, monkeypatch):
    (path,) = write_files(waves[3:4], tmp_path)
    embedder = YAMNetEmbedder(None, cache=tmp_path / "cache").fit([path])
    expected = embedder.transform([path])
    for file in (tmp_path / "cache").iterdir():
        file.unlink()
    run = Engine.run

    def rewrite(self, log_mel, output):
        write_files(waves[4:5], tmp_path)  # between the look-up and the row
        return run(self, log_mel, output)

    monkeypatch.setattr(Engine, "run", rewrite)
    embedder.transform([path])
    monkeypatch.undo()
    write_files(waves[3:4], tmp_path)
    np.testing.assert_array_equal(embedder.transform([path]), expected)
    write_files(waves[4:5], tmp_path)
    assert not np.array_equal(embedder.transform([path]), expected)


def test_a_useless_cache_costs_one_warning(waves, tmp_path):
    (tmp_path / "file").write_text("no folder")
    embedder = YAMNetEmbedder(
        None, sampling_rate=RATE, cache=EmbeddingCache(tmp_path / "file" / "cache")
    )
    expected = clone(embedder).set_params(cache=None).fit_transform(waves)
    with pytest.warns(EmbeddingCacheWarning, match="cache"):
        rows = embedder.fit_transform(waves)
    embedder.transform(waves)  # a second warning would be an error
    np.testing.assert_array_equal(rows, expected)


# Bad input.


def test_wrong_file_for_the_model_is_refused(waves, tmp_path):
    import torch

    from sklabelaudio.nn import EfficientAT, YAMNet

    torch.save(YAMNet().state_dict(), tmp_path / "yamnet.pt")
    torch.save(EfficientAT(0.1).state_dict(), tmp_path / "mn01.pt")
    embedders = [
        YAMNetEmbedder(tmp_path / "mn01.pt"),
        EfficientATEmbedder(tmp_path / "yamnet.pt"),
        VGGishEmbedder(tmp_path / "mn01.pt"),
        HTSATEmbedder(tmp_path / "mn01.pt"),
    ]
    for embedder in embedders:
        with pytest.raises(CheckpointError, match=r"(yamnet|mn01)\.pt"):
            embedder.set_params(sampling_rate=RATE).fit(waves)


def test_truncated_weights_are_refused(waves, tmp_path):
    import torch

    from sklabelaudio.nn import YAMNet

    path = tmp_path / "yamnet.pt"
    torch.save(YAMNet().state_dict(), path)
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(CheckpointError, match=r"yamnet\.pt"):
        YAMNetEmbedder(path, sampling_rate=RATE).fit(waves)


def test_unknown_name_is_refused(waves):
    with pytest.raises(ValueError, match="mn04_as"):
        EfficientATEmbedder("mn04as", sampling_rate=RATE).fit(waves)


def test_arrays_without_a_rate_are_refused(waves):
    with pytest.raises(ValueError, match="sampling_rate"):
        YAMNetEmbedder(None).fit(waves)


@pytest.mark.parametrize("rate", [0, -16000, np.nan, "16000"])
def test_a_rate_that_is_none_is_refused(rate, waves):
    with pytest.raises(ValueError, match="sampling_rate"):
        YAMNetEmbedder(None, sampling_rate=rate).fit(waves)


def test_a_rate_without_the_models_frequencies_is_refused(waves, tmp_path):
    embedder = EfficientATEmbedder(None, sampling_rate=3000).fit(waves)
    with pytest.raises(AudioReadError, match=r"X\[0\].*3000 Hz"):
        embedder.transform(waves)
    files = write_files(waves[3:5], tmp_path, rate=3000)
    files[1:1] = write_files(waves[6:7], tmp_path / "..", rate=8000)
    skipping = EfficientATEmbedder(None, on_error="skip").fit(files)
    with pytest.warns(AudioReadWarning, match="3000 Hz"):
        rows = skipping.transform(files)
    assert np.isnan(rows).any(axis=1).tolist() == [True, False, True]


def test_no_clips_are_refused():
    with pytest.raises(ValueError, match="X is empty"):
        YAMNetEmbedder(None, sampling_rate=RATE).fit([])


@EVERY
@pytest.mark.parametrize("n_samples", [1, 2, 399, 16000])
def test_one_sample_and_silence_give_numbers(embedder, n_samples):
    clip = np.zeros(n_samples)
    clip[0] = 1.0 if n_samples == 1 else 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = clone(embedder).fit_transform([clip])
    assert np.isfinite(rows).all()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"hop": 1.5}, r"hop=1\.5 s"),
        ({"hop": 0.001}, r"hop=0\.001 s"),
    ],
)
def test_windows_that_miss_sounds_are_refused(params, message, waves):
    with pytest.raises(ValueError, match=message):
        YAMNetEmbedder(None, sampling_rate=RATE, **params).fit(waves)


def test_windows_of_segments_are_checked(waves):
    with pytest.raises(ValueError, match="hop=11"):
        EfficientATEmbedder(None, sampling_rate=RATE, hop=11).fit(waves)
    with pytest.raises(ValueError, match=r"window=0\.001"):
        EfficientATEmbedder(None, sampling_rate=RATE, window=0.001).fit(waves)


@pytest.mark.parametrize("weights", [None, "no checkpoint"])
def test_a_device_that_is_not_there_is_refused(weights, waves):
    """Before the weights are looked for, which may be far away."""
    with pytest.raises(ValueError, match="device='nonsense'"):
        YAMNetEmbedder(weights, sampling_rate=RATE, device="nonsense").fit(waves)


# Other encoders, whose weights are too many for all of the above.


@pytest.mark.parametrize("stage", ["linear", "relu"])
def test_vggish_drops_an_incomplete_window(stage, waves):
    embedder = VGGishEmbedder(None, sampling_rate=RATE, output="frames", stage=stage)
    rows = embedder.fit_transform([waves[1], waves[4]])
    assert [row.shape for row in rows] == [(1, 128), (2, 128)]
    assert (min(row.min() for row in rows) < 0) == (stage == "linear")


def test_vggish_stages_need_the_second_file(waves, tmp_path):
    import torch

    from sklabelaudio.nn import VGGish

    rng = np.random.default_rng(0)
    network = VGGish(output_stage="relu").eval()
    torch.save(network.state_dict(), tmp_path / "vggish-10086976.pth")
    embedder = VGGishEmbedder(
        tmp_path / "vggish-10086976.pth", sampling_rate=RATE, stage="pca"
    )
    with pytest.raises(CheckpointError, match="vggish_pca_params"):
        embedder.fit(waves)
    vectors = rng.standard_normal((128, 128)).astype(np.float32)
    means = rng.standard_normal(128).astype(np.float32)
    torch.save(
        {"pca_eigen_vectors": vectors, "pca_means": means},
        tmp_path / "vggish_pca_params-970ea276.pth",
    )
    rows = embedder.fit_transform(waves[2:3])
    log_mel = torch.from_numpy(get_front_end("vggish")(waves[2])[np.newaxis])
    with torch.inference_mode():
        before = network(log_mel).embedding[0].numpy()
    np.testing.assert_allclose(
        rows[0], vectors @ (before - means), rtol=1e-3, atol=1e-3
    )


def test_htsat_repeats_or_stretches_short_clips(waves):
    clip = [waves[5]]  # 3.1 s at 32 kHz, which fit three times
    stretched, repeated = (
        HTSATEmbedder(None, sampling_rate=32000, short_clips=short).fit_transform(clip)
        for short in ("stretch", "repeat")
    )
    assert stretched.shape == repeated.shape == (1, 768)
    assert np.abs(stretched - repeated).max() > 1e-4


# Real weights on real clips.


@pytest.fixture(scope="module")
def checkpoints(shared):
    return shared / "reference" / "checkpoints"


@pytest.fixture(scope="module")
def esc10_rows(esc10, checkpoints):
    """Rows of ESC-10 by YAMNet and EfficientAT mn04, from the files."""
    clips = load_esc50(esc10)
    yamnet = YAMNetEmbedder(checkpoints / "yamnet" / "yamnet.tflite")
    mn04 = EfficientATEmbedder(checkpoints / "efficientat" / "mn04_as_mAP_432.pt")
    return clips, {
        "yamnet": yamnet.fit_transform(clips.data),
        "efficientat_mn04": mn04.fit_transform(clips.data),
    }


def test_yamnet_is_the_published_model(esc10_rows, esc10):
    _, rows = esc10_rows
    expected = np.load(esc10 / "embeddings" / "yamnet.npz")["embedding"]
    X = rows["yamnet"]
    cosines = (X * expected).sum(axis=1)
    cosines /= np.linalg.norm(X, axis=1) * np.linalg.norm(expected, axis=1)
    # The reference is computed in eighths of a byte, and steps by 0.4875 s.
    assert np.median(cosines) >= 0.99
    assert cosines.min() >= 0.97


def test_efficientat_is_the_published_model(esc10_rows, esc10):
    _, rows = esc10_rows
    expected = np.load(esc10 / "embeddings" / "efficientat_mn04.npz")["embedding"]
    np.testing.assert_allclose(rows["efficientat_mn04"], expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "least"), [("yamnet", 0.955), ("efficientat_mn04", 0.98)]
)
def test_linear_separation_on_official_folds(name, least, esc10_rows):
    clips, rows = esc10_rows
    scores = cross_val_score(
        LogisticRegression(max_iter=5000),
        rows[name],
        clips.target,
        cv=PredefinedSplit(clips.fold),
    )
    assert scores.mean() >= least


def test_the_same_bits_alone_and_in_a_batch_of_seven(esc10, checkpoints):
    clips = load_esc50(esc10).data[::57]
    assert len(clips) >= 7
    embedder = EfficientATEmbedder(checkpoints / "efficientat" / "mn04_as_mAP_432.pt")
    seven = embedder.fit(clips).transform(clips[:7])
    for clip, row in zip(clips, seven, strict=False):
        np.testing.assert_array_equal(embedder.transform([clip])[0], row)
        wave, _ = load_audio(clip, sampling_rate=32000)
        from_array = clone(embedder).set_params(sampling_rate=32000).fit([wave])
        np.testing.assert_array_equal(from_array.transform([wave])[0], row)


@pytest.mark.parametrize(
    ("cls", "file", "labels"),
    [
        (YAMNetEmbedder, "yamnet/yamnet.tflite", "yamnet/yamnet_class_map.csv"),
        (
            EfficientATEmbedder,
            "efficientat/mn04_as_mAP_432.pt",
            "../../data/audioset/class_labels_indices.csv",
        ),
    ],
)
def test_pipeline_names_clips_without_training(
    cls, file, labels, esc10, checkpoints, minilm
):
    clips = load_esc50(esc10)
    few = slice(None, None, 4)
    model = make_pipeline(
        cls(checkpoints / file, output="probabilities"),
        TaggerZeroShotClassifier(
            LabelTextEmbedder(minilm),
            tagger_labels=checkpoints / labels,
            candidate_labels=clips.target_names,
        ),
    )
    model.fit(clips.data[few])
    assert model.score(clips.data[few], clips.target[few]) >= 0.96
