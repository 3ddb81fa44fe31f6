import json
import math
import re
import runpy
import threading

import numpy as np
import pytest

from sklabelaudio import LogMelExtractor
from sklabelaudio.feature_extraction._front_ends import get_front_end

PRESETS = ["clap", "htsat", "panns_16k", "panns_32k", "sp4sc"]
KALDI = ["ast", "psla"]
NAMES = [*PRESETS, *KALDI, "efficientat", "passt", "vggish", "yamnet"]
WAVEFORMS = ["audioclip", "panns_wavegram"]


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
    ("name", "stem", "hop"),
    [
        ("htsat", "htsat", 320),
        ("clap", "clap_htsat_tiny", 480),
        ("panns_32k", "panns_cnn14", 320),
        ("panns_32k", "panns_resnet38", 320),
        ("panns_32k", "panns_wavegram_logmel_cnn14", 320),
        ("panns_16k", "panns_cnn14_16k", 160),
        ("sp4sc", "sp4asc", 1024),
    ],
)
def test_decibels_are_the_reference(reference, name, stem, hop):
    front_end = get_front_end(name)
    n_inputs = 0
    for waveform, expected, step in reference(stem, "logmel"):
        log_mel = front_end(waveform)
        assert log_mel.shape == (1 + waveform.size // hop, front_end.n_mels)
        error = np.abs(log_mel[::step] - expected[0, 0])
        # A sweep's decibels go down to rounding noise of the reference's own, more so
        # in the longer frames of the 256 bands.
        assert error.max() < (4e-3 if name == "sp4sc" else 1e-3)
        assert error.mean() < 4e-5
        if waveform.std() < 0.12:  # no sweep
            assert error.max() < (5e-4 if name == "sp4sc" else 5e-5)
        n_inputs += 1
    assert n_inputs == 4


def test_passt_is_the_reference(reference):
    front_end = get_front_end("passt")
    n_inputs = 0
    for waveform, expected, step in reference("passt", "mel"):
        log_mel = front_end(waveform)
        assert log_mel.shape == (1 + (waveform.size - 1) // 320, 128)
        np.testing.assert_allclose(log_mel[::step], expected[0].T, rtol=0, atol=3e-4)
        n_inputs += 1
    assert n_inputs == 4


def test_passt_and_efficientat_are_the_same():
    clip = noise(20000)
    np.testing.assert_array_equal(
        get_front_end("passt")(clip), get_front_end("efficientat")(clip)
    )


NORMALIZATION = {"ast": (-4.2677393, 2 * 4.5689974), "psla": (-4.6476, 4.5699)}


@pytest.mark.parametrize("name", KALDI)
def test_kaldi_is_the_reference(reference, name):
    front_end = get_front_end(name)
    mean, scale = NORMALIZATION[name]
    n_inputs = 0
    for waveform, expected, step in reference(name, "fbank"):
        log_mel = front_end(waveform)
        assert log_mel.shape == (1 + (waveform.size - 400) // 160, 128)
        error = np.abs(log_mel[::step] * scale + mean - expected)
        assert error.max() < 5e-3  # isolated bands of the sweep; else below 1e-3
        assert error.mean() < 6e-5
        n_inputs += 1
    assert n_inputs == 4


@pytest.mark.parametrize(("name", "n_frames"), [("ast", 1024), ("psla", 1056)])
def test_padding_is_the_reference(reference, name, n_frames):
    """What follows the frames of short clips, in what the networks are given."""
    front_end = get_front_end(name)
    n_padded = 0
    for waveform, expected, _ in reference(name, "input"):
        log_mel = front_end(waveform)[:n_frames]
        filled = np.full((n_frames, 128), front_end.padding, np.float32)
        filled[: len(log_mel)] = log_mel
        np.testing.assert_allclose(filled[::32, ::4], expected, rtol=0, atol=1e-3)
        n_padded += len(log_mel) < n_frames - 32
    assert n_padded >= 2


def kaldi_fbank(waveform):
    """Kaldi's filter bank, frame by frame in double precision."""

    def mel(frequency):
        return 1127 * np.log(1 + frequency / 700)

    corners = np.linspace(mel(20), mel(8000), 130)
    bins = mel(np.arange(256) * 16000 / 512)
    bank = [
        np.interp(bins, corners[i : i + 3], [0, 1, 0], left=0, right=0)
        for i in range(128)
    ]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 399)
    frames = []
    for start in range(0, waveform.size - 399, 160):
        frame = waveform[start : start + 400].astype(np.float64)
        frame -= frame.mean()
        frame -= 0.97 * np.concatenate([frame[:1], frame[:-1]])
        power = np.abs(np.fft.rfft(window * frame, 512)[:256]) ** 2
        frames.append(np.log(np.maximum(bank @ power, np.finfo(np.float32).eps)))
    return np.array(frames)


@pytest.mark.parametrize("offset", [0, 0.1, -0.9])
@pytest.mark.parametrize("name", KALDI)
def test_kaldi_is_a_computation_frame_by_frame(name, offset):
    """A constant that is added changes nothing, but rounding at large ones."""
    mean, scale = NORMALIZATION[name]
    waveform = noise(70001, seed=3)
    waveform[30000:40000] = 0
    waveform += np.float32(offset)
    log_mel = get_front_end(name)(waveform)
    expected = (kaldi_fbank(waveform) - mean) / scale
    assert log_mel.shape == expected.shape
    np.testing.assert_allclose(log_mel, expected, rtol=0, atol=1e-3)
    assert np.abs(log_mel - expected).mean() < 2e-6


@pytest.mark.parametrize("name", PRESETS)
def test_presets_have_the_same_numbers(name):
    front_end = get_front_end(name)
    extractor = LogMelExtractor.from_preset(name)
    assert front_end.sampling_rate == extractor.sampling_rate
    for clip in (noise(front_end.min_samples + 2048), noise(50000)):
        (row,) = extractor.transform([clip])
        np.testing.assert_array_equal(front_end(clip), row)


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
        ("panns_16k", -100),
        ("panns_32k", -100),
        ("sp4sc", -100),
        ("passt", -1.402585),
        ("ast", (math.log(2**-23) + 4.2677393) / 9.1379948),
        ("psla", (math.log(2**-23) + 4.6476) / 4.5699),
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


@pytest.mark.parametrize(
    ("name", "n_frames"),
    [
        ("vggish", 96),
        ("yamnet", 96),
        ("panns_16k", 32),
        ("panns_32k", 32),
        ("sp4sc", 16),
        ("passt", 16),
        ("ast", 1),
        ("psla", 1),
    ],
)
def test_shortest_waveform_gives_the_frames_that_are_needed(name, n_frames):
    front_end = get_front_end(name)
    least = front_end.min_samples
    assert len(front_end(noise(least))) == n_frames
    if n_frames > 1:
        front_end.min_samples = 0
        assert len(front_end(noise(least - 1))) == n_frames - 1


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


@pytest.mark.parametrize("name", NAMES)
def test_threads_of_torch_change_nothing(name):
    import torch

    front_end = get_front_end(name)
    clip = noise(150001)
    before = torch.get_num_threads()
    results = []
    try:
        for n_threads in (1, 2, 3):
            torch.set_num_threads(n_threads)
            results.append(front_end(clip))
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


@pytest.mark.parametrize(
    ("name", "rate", "hop", "least", "scale"),
    [
        ("audioclip", 44100, 561, 1654, 32768),
        ("panns_wavegram", 32000, 320, 10240, 1),
    ],
)
def test_waveforms(name, rate, hop, least, scale):
    front_end = get_front_end(name)
    assert (front_end.name, front_end.sampling_rate) == (name, rate)
    assert (front_end.hop_length, front_end.min_samples) == (hop, least)
    assert (front_end.fmin, front_end.fmax) == (0, rate / 2)
    assert front_end.n_mels is None
    for n_samples in (0, 1, least - 1, least, least + 1, 100_000):
        clip = noise(n_samples)
        clip.flags.writeable = False
        samples = front_end(clip)
        assert samples.dtype == np.float32
        assert samples.shape == (max(least, n_samples),)
        np.testing.assert_array_equal(samples[:n_samples] / scale, clip)
        assert not samples[n_samples:].any()
        assert not np.shares_memory(samples, clip)


@pytest.mark.parametrize("name", WAVEFORMS)
def test_waveform_front_ends_have_what_others_have(name):
    others = {key for key in vars(get_front_end("ast")) if not key.startswith("_")}
    front_end = get_front_end(name)
    assert all(hasattr(front_end, key) for key in others)


def test_unknown_name():
    with pytest.raises(
        ValueError, match=r"'panns' is no front end.*'ast'.*'panns_32k'.*'yamnet'"
    ):
        get_front_end("panns")
