import json
import math
import re
import runpy
import threading

import numpy as np
import pytest

from sklabelaudio.feature_extraction._front_ends import get_front_end

NAMES = ["clap", "efficientat", "htsat", "vggish", "yamnet"]


def noise(n_samples, seed=0):
    samples = 0.1 * np.random.default_rng(seed).standard_normal(n_samples)
    return samples.astype(np.float32)


@pytest.fixture(scope="module")
def reference(shared):
    """Callable: inputs of a reference model, and the log-mel frames it kept of them."""
    folder = shared / "reference" / "parity"
    make_input = runpy.run_path(folder / "det_weights.py")["make_input"]

    def load(stem, array):
        with np.load(folder / f"{stem}.A.npz") as archive:
            notes = json.loads(str(archive["notes"]))
            for spec in json.loads(str(archive["inputs"])):
                key = f"{spec['name']}.{array}"
                if key in archive.files:
                    step = re.search(r"::(\d+)", notes.get(key, ""))
                    waveform = make_input(spec)
                    yield waveform, archive[key], int(step[1]) if step else 1

    return load


def test_vggish_is_the_reference_to_the_bit(reference):
    front_end = get_front_end("vggish")
    n_inputs = 0
    for waveform, expected, step in reference("vggish", "logmel_examples"):
        log_mel = front_end(waveform)
        assert log_mel.shape == (1 + (waveform.size - 400) // 160, 64)
        n_examples = len(expected)
        assert n_examples == len(log_mel) // 96
        examples = log_mel[: 96 * n_examples].reshape(n_examples, 1, 96, 64)
        np.testing.assert_array_equal(examples[:, :, ::step], expected)
        n_inputs += 1
    assert n_inputs == 4


@pytest.mark.parametrize(
    "stem", ["efficientat_mn04", "efficientat_mn10", "efficientat_mn04_real"]
)
def test_efficientat_is_the_reference(reference, stem):
    front_end = get_front_end("efficientat")
    n_inputs = 0
    for waveform, expected, step in reference(stem, "mel"):
        log_mel = front_end(waveform)
        assert log_mel.shape == (1 + (waveform.size - 1) // 320, 128)
        np.testing.assert_allclose(log_mel[::step], expected[0].T, rtol=0, atol=3e-4)
        n_inputs += 1
    assert n_inputs == 5


@pytest.mark.parametrize(
    ("name", "stem", "hop"), [("htsat", "htsat", 320), ("clap", "clap_htsat_tiny", 480)]
)
def test_htsat_and_clap_are_the_reference(reference, name, stem, hop):
    front_end = get_front_end(name)
    n_inputs = 0
    for waveform, expected, step in reference(stem, "logmel"):
        log_mel = front_end(waveform)
        assert log_mel.shape == (1 + waveform.size // hop, 64)
        # A sweep's decibels go down to rounding noise of the reference's own.
        np.testing.assert_allclose(log_mel[::step], expected[0, 0], rtol=0, atol=1e-3)
        assert np.abs(log_mel[::step] - expected[0, 0]).mean() < 3e-5
        n_inputs += 1
    assert n_inputs == 4


def test_yamnet_is_a_computation_frame_by_frame():
    waveform = noise(16000)
    log_mel = get_front_end("yamnet")(waveform)

    def mel(frequency):
        return 1127 * math.log(1 + frequency / 700)

    corners = np.linspace(mel(125), mel(7500), 66)
    bank = np.zeros((257, 64))
    for k in range(1, 257):
        position = mel(k * 16000 / 512)
        for band, (low, middle, high) in enumerate(
            zip(corners[:-2], corners[1:-1], corners[2:], strict=True)
        ):
            if low < position <= middle:
                bank[k, band] = (position - low) / (middle - low)
            elif middle < position < high:
                bank[k, band] = (high - position) / (high - middle)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)

    assert log_mel.shape == (98, 64)
    for t, frame in enumerate(log_mel):
        samples = waveform[160 * t : 160 * t + 400].astype(np.float64)
        magnitude = np.abs(np.fft.rfft(window * samples, 512))
        np.testing.assert_allclose(
            frame, np.log(magnitude @ bank + 0.001), rtol=0, atol=2e-5
        )


@pytest.mark.parametrize(
    ("name", "silence"),
    [
        ("clap", -100),
        ("efficientat", -1.402585),
        ("htsat", -100),
        ("vggish", math.log(0.01)),
        ("yamnet", math.log(0.001)),
    ],
)
def test_silence(name, silence):
    front_end = get_front_end(name)
    log_mel = front_end(np.zeros(2 * front_end.sampling_rate, np.float32))
    np.testing.assert_allclose(log_mel, silence, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", NAMES)
def test_says_what_it_is(name):
    front_end = get_front_end(name)
    assert front_end.name == name
    log_mel = front_end(noise(front_end.sampling_rate))
    assert log_mel.dtype == np.float32
    assert log_mel.shape[1] == front_end.n_mels
    assert 0 <= front_end.fmin < front_end.fmax <= front_end.sampling_rate / 2
    one_more = front_end(noise(front_end.sampling_rate + front_end.hop_length))
    assert len(one_more) == len(log_mel) + 1


@pytest.mark.parametrize("name", NAMES)
def test_tone_is_in_its_band(name):
    """The bands' order and limits, told by where tones come out."""
    front_end = get_front_end(name)
    time = np.arange(front_end.sampling_rate) / front_end.sampling_rate
    loudest = []
    for frequency in (300, 1000, 5000):
        tone = np.sin(2 * np.pi * frequency * time).astype(np.float32)
        loudest.append(front_end(tone)[20:60].mean(axis=0).argmax())
    assert 0 < loudest[0] < loudest[1] < loudest[2] < front_end.n_mels
    above = np.sin(2 * np.pi * (front_end.fmax + 400) * time).astype(np.float32)
    if front_end.fmax + 400 < front_end.sampling_rate / 2:
        assert front_end(above)[20:60].max() < front_end(tone)[20:60].max() - 1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n_samples", [0, 1, 399, 512, 513, 514, 515, 15599, 15600])
def test_short_waveform_is_followed_by_zeros(name, n_samples):
    front_end = get_front_end(name)
    waveform = noise(n_samples)
    n_zeros = max(0, front_end.min_samples - n_samples)
    log_mel = front_end(waveform)
    np.testing.assert_array_equal(log_mel, front_end(np.pad(waveform, (0, n_zeros))))
    assert len(log_mel) > 0
    assert np.isfinite(log_mel).all()


@pytest.mark.parametrize(
    ("name", "n_samples"), [("clap", 513), ("efficientat", 514), ("htsat", 513)]
)
def test_shortest_waveform_can_be_reflected(name, n_samples):
    """Half a frame of 1024 is reflected, which takes 513 samples."""
    assert get_front_end(name).min_samples == n_samples


@pytest.mark.parametrize("name", ["vggish", "yamnet"])
def test_shortest_waveform_fills_one_example(name):
    front_end = get_front_end(name)
    assert len(front_end(noise(front_end.min_samples))) == 96


@pytest.mark.parametrize("name", NAMES)
def test_depends_on_the_waveform_alone(name):
    front_end = get_front_end(name)
    clips = [noise(n, seed=n) for n in (20000, 70001, 1, 40000)]
    expected = [get_front_end(name)(clip) for clip in clips]
    for i in (0, 1, 2, 3, 1, 0):
        clip = clips[i].copy()
        clip.flags.writeable = False
        np.testing.assert_array_equal(front_end(clip), expected[i])
        np.testing.assert_array_equal(clip, clips[i])
    strided = np.zeros(2 * clips[0].size, np.float32)
    strided[::2] = clips[0]
    np.testing.assert_array_equal(front_end(strided[::2]), expected[0])


@pytest.mark.parametrize("name", NAMES)
def test_threads_share_an_instance(name):
    front_end = get_front_end(name)
    clips = [noise(60000 + 777 * i, seed=i) for i in range(4)]
    expected = [front_end(clip) for clip in clips]
    results = [[] for _ in clips]

    def work(i):
        for _ in range(10):
            results[i].append(front_end(clips[i]))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(clips))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, log_mels in enumerate(results):
        assert len(log_mels) == 10
        for log_mel in log_mels:
            np.testing.assert_array_equal(log_mel, expected[i])


def test_unknown_name():
    with pytest.raises(ValueError, match=r"'panns' is no front end.*'yamnet'"):
        get_front_end("panns")
