import os
import struct
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from sklabelaudio import check_audio, load_audio
from sklabelaudio.exceptions import AudioReadError

RATE = 16000


def noise(n_samples=RATE, n_channels=None):
    shape = n_samples if n_channels is None else (n_samples, n_channels)
    return np.random.default_rng(0).uniform(-0.5, 0.5, shape).astype(np.float32)


def tone(frequency, rate, seconds=1.0):
    return 0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)


def write(path, samples, rate=RATE, **kwargs):
    soundfile.write(path, samples, rate, **kwargs)
    return path


def rewrite(path, change):
    """Pass a file's bytes through a function."""
    path.write_bytes(bytes(change(bytearray(path.read_bytes()))))
    return path


# Formats


@pytest.mark.parametrize(
    ("name", "subtype", "bits"),
    [
        ("a.wav", "PCM_16", 16),
        ("a.wav", "PCM_24", 24),
        ("a.wav", "PCM_32", 32),
        ("a.flac", "PCM_16", 16),
        ("a.flac", "PCM_24", 24),
        ("a.aiff", "PCM_16", 16),
    ],
)
def test_integer_codes_are_divided_by_full_scale(tmp_path, name, subtype, bits):
    largest = 2 ** (bits - 1)
    codes = np.random.default_rng(0).integers(-largest, largest, 5000)
    codes[:2] = -largest, largest - 1
    dtype = np.int16 if bits == 16 else np.int32
    left_aligned = (codes << (8 * dtype().itemsize - bits)).astype(dtype)
    path = write(tmp_path / name, left_aligned, subtype=subtype)

    waveform, rate = load_audio(path)

    assert rate == RATE
    assert waveform.dtype == np.float32
    np.testing.assert_array_equal(waveform, (codes / largest).astype(np.float32))


def test_float_wav_is_read_as_it_is(tmp_path):
    samples = 3 * noise()  # beyond full scale, which a float file may be
    path = write(tmp_path / "a.wav", samples, subtype="FLOAT")
    np.testing.assert_array_equal(load_audio(path)[0], samples)


@pytest.mark.parametrize("name", ["a.ogg", "a.mp3"])
def test_lossy_formats(tmp_path, name):
    path = write(tmp_path / name, tone(1000, RATE))
    waveform, rate = load_audio(path)
    assert (waveform.shape, waveform.dtype, rate) == ((RATE,), np.float32, RATE)
    assert np.corrcoef(waveform, tone(1000, RATE))[0, 1] > 0.99


def test_str_path_and_name_beyond_ascii(tmp_path):
    path = write(tmp_path / "Käuzchen ♫.wav", noise())
    assert load_audio(str(path))[0].size == RATE


# Channels


@pytest.mark.parametrize("n_channels", [1, 2, 3])
def test_channels(tmp_path, n_channels):
    samples = noise(1000, n_channels)
    path = write(tmp_path / "a.wav", samples, subtype="FLOAT")
    np.testing.assert_allclose(load_audio(path)[0], samples.mean(axis=1), atol=1e-7)
    for channel in range(n_channels):
        waveform, _ = load_audio(path, channel=channel)
        np.testing.assert_array_equal(waveform, samples[:, channel])
        assert waveform.flags.c_contiguous


@pytest.mark.parametrize("n_channels", [1, 2])
def test_channel_that_is_not_there(tmp_path, n_channels):
    path = write(tmp_path / "a.wav", noise(1000, n_channels))
    with pytest.raises(AudioReadError, match=f"channel=2 .* has {n_channels} channel"):
        load_audio(path, channel=2)


# Resampling


@pytest.mark.parametrize("target", [16000, 32000, 44100.0])
@pytest.mark.parametrize("rate", [8000, 22050, 192000])
def test_a_tone_keeps_frequency_level_and_length(tmp_path, rate, target):
    path = write(tmp_path / "a.wav", tone(1000, rate, 0.5), rate, subtype="FLOAT")
    waveform, new_rate = load_audio(path, sampling_rate=target)
    assert new_rate == target
    assert waveform.dtype == np.float32
    assert waveform.size == round(0.5 * target)
    expected = tone(1000, target, 0.5)
    middle = slice(500, -500)
    np.testing.assert_allclose(waveform[middle], expected[middle], atol=1e-4)


def test_what_is_above_the_new_nyquist_goes(tmp_path):
    path = write(tmp_path / "a.wav", tone(30000, 192000), 192000, subtype="FLOAT")
    waveform, _ = load_audio(path, sampling_rate=16000)
    assert np.abs(waveform[500:-500]).max() < 1e-5


def test_soxr_hq_to_the_bit(tmp_path):
    path = write(tmp_path / "a.wav", noise(), subtype="FLOAT")
    expected = soxr.resample(noise(), RATE, 44100, quality="HQ")
    np.testing.assert_array_equal(load_audio(path, sampling_rate=44100)[0], expected)


def test_a_handful_of_samples_survives_resampling(tmp_path):
    path = write(tmp_path / "a.wav", noise(2), 44100)
    assert load_audio(path, sampling_rate=8000)[0].size == 1


# Offset and duration


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3", "a.ogg"])
@pytest.mark.parametrize(
    ("offset", "duration"), [(0.5, None), (0, 0.25), (0.1234, 0.5), (2.9, 5), (2.99, 1)]
)
def test_offset_and_duration_are_a_slice_of_the_whole(tmp_path, name, offset, duration):
    path = write(tmp_path / name, noise(3 * RATE))
    start = round(offset * RATE)
    stop = None if duration is None else start + round(duration * RATE)

    part, _ = load_audio(path, offset=offset, duration=duration)

    # A decoder that starts in the middle may round its first frame otherwise.
    np.testing.assert_allclose(part, load_audio(path)[0][start:stop], atol=1e-6)


def test_offset_and_duration_count_seconds_of_the_file(tmp_path):
    path = write(tmp_path / "a.wav", noise(8000), 8000)
    waveform, _ = load_audio(path, sampling_rate=16000, offset=0.25, duration=0.5)
    assert waveform.size == 8000


@pytest.mark.parametrize("offset", [0.0, 0.25])
@pytest.mark.parametrize("subtype", ["GSM610", "G721_32", "IMA_ADPCM"])
def test_codecs_without_a_seek(tmp_path, subtype, offset):
    path = write(tmp_path / "a.wav", noise(8000), 8000, subtype=subtype)
    expected, _ = soundfile.read(path, dtype="float32")
    waveform, _ = load_audio(path, offset=offset)
    np.testing.assert_array_equal(waveform, expected[round(offset * 8000) :])


@pytest.mark.parametrize("offset", [1.0, 7])
def test_offset_behind_the_end(tmp_path, offset):
    path = write(tmp_path / "a.wav", noise())
    with pytest.raises(AudioReadError, match=rf"holds 1 s and offset={offset:g} s"):
        load_audio(path, offset=offset)


# Parameters


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sampling_rate", 0),
        ("sampling_rate", -16000),
        ("sampling_rate", np.nan),
        ("sampling_rate", np.inf),
        ("sampling_rate", "16000"),
        ("channel", -1),
        ("channel", "left"),
        ("offset", -0.1),
        ("duration", 0),
    ],
)
def test_bad_parameter(tmp_path, name, value):
    path = write(tmp_path / "a.wav", noise())
    with pytest.raises(ValueError, match=rf"'{name}' parameter .* {value!r}"):
        load_audio(path, **{name: value})


@pytest.mark.parametrize("path", [b"a.wav", 3, None, ["a.wav"]])
def test_path_is_no_path(path):
    with pytest.raises(ValueError, match="'path' parameter of load_audio must be"):
        load_audio(path)


# Bad files


def assert_unreadable(path, cause):
    with pytest.raises(AudioReadError, match=cause) as caught:
        load_audio(path)
    assert caught.value.path == str(path)
    assert repr(str(path)) in str(caught.value)


def test_missing_file(tmp_path):
    assert_unreadable(tmp_path / "a.wav", "No such file")


def test_missing_file_named_by_a_numpy_string(tmp_path):
    with pytest.raises(AudioReadError, match="can't read '"):
        load_audio(np.str_(tmp_path / "a.wav"))


def test_directory(tmp_path):
    assert_unreadable(tmp_path, "is a folder; list the files in it")


@pytest.mark.parametrize("name", ["a.wav", "a.ogg", "a.mp3", "a"])
def test_empty_file(tmp_path, name):
    (tmp_path / name).touch()
    assert_unreadable(tmp_path / name, "is an empty file")


@pytest.mark.parametrize("name", ["a.wav", "a.ogg", "a.flac", "a.raw", "a"])
def test_text_file(tmp_path, name):
    (tmp_path / name).write_text("not a sound\n" * 500)
    assert_unreadable(tmp_path / name, "Format not recognised|no sound file|RAW")


@pytest.mark.parametrize("name", ["a.wav", "a.ogg", "a.aiff"])
def test_no_samples(tmp_path, name):
    write(tmp_path / name, np.zeros(0))
    assert_unreadable(tmp_path / name, "holds no samples")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_not_finite(tmp_path, value):
    samples = noise()
    samples[77] = value
    path = write(tmp_path / "a.wav", samples, subtype="FLOAT")
    assert_unreadable(path, "sample 77 is NaN or infinite")
    with pytest.raises(AudioReadError, match="sample 77 "):
        load_audio(path, offset=0.001)  # counted from the file's start
    assert load_audio(path, offset=0.1)[0].size == 0.9 * RATE


# What every format that libsndfile reads does when it is cut; for some of them,
# libsndfile only says so in its log.
CUT = "truncated|malformed|lost sync|Format not recognised|No 'data' chunk"


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("name", ["a.ogg", "a.wav", "a.flac"])
def test_truncated(tmp_path, name, share):
    path = write(tmp_path / name, noise())
    rewrite(path, lambda data: data[: int(share * len(data))])
    assert_unreadable(path, CUT)


@pytest.mark.parametrize("n_missing", [1, 50, 500])
def test_truncated_ogg_by_a_few_bytes(tmp_path, n_missing):
    path = write(tmp_path / "a.ogg", noise())
    rewrite(path, lambda data: data[:-n_missing])
    assert_unreadable(path, "truncated: its last Ogg page is missing")


def test_ogg_truncated_between_pages(tmp_path):
    path = write(tmp_path / "a.ogg", noise(10 * RATE))
    rewrite(path, lambda data: data[: data.rindex(b"OggS")])
    assert_unreadable(path, "truncated: its last Ogg page is missing")


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT"])
def test_truncated_wav(tmp_path, subtype):
    path = write(tmp_path / "a.wav", noise(), subtype=subtype)
    rewrite(path, lambda data: data[:-100])
    assert_unreadable(path, r"truncated: \d+ bytes of samples announced, \d+ there")


def test_truncated_wav_is_refused_even_where_the_part_is_there(tmp_path):
    path = rewrite(write(tmp_path / "a.wav", noise()), lambda data: data[:-100])
    with pytest.raises(AudioReadError, match="truncated"):
        load_audio(path, duration=0.1)


@pytest.mark.parametrize("container", ["AIFF", "AU", "CAF", "W64", "RF64", "WAVEX"])
def test_truncated_in_rarer_containers(tmp_path, container):
    path = write(tmp_path / "a.snd", noise(), format=container)
    rewrite(path, lambda data: data[:-1000])
    assert_unreadable(path, CUT)


def test_truncated_mp3(tmp_path):
    path = write(tmp_path / "a.mp3", noise(3 * RATE))
    rewrite(path, lambda data: data[: len(data) // 2])
    assert_unreadable(path, "truncated: 48000 samples announced")


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("cut.mp3", lambda data: data[: len(data) // 2]),
        ("hole.ogg", lambda data: data[:90_000] + bytes(50_000) + data[140_000:]),
    ],
)
def test_offset_behind_what_can_be_decoded(tmp_path, name, spoil):
    """It is an error, and comes to an end."""
    path = rewrite(write(tmp_path / name, noise(40 * RATE)), spoil)
    causes = []

    def read():
        try:
            load_audio(path, offset=39.9)
        except AudioReadError as error:
            causes.append(error.cause)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(timeout=5)
    (cause,) = causes
    assert "truncated" in cause or "damaged" in cause


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("name", ["a.ogg", "a.flac"])
def test_damaged(tmp_path, name, share):
    """Decoders drop what fails its checksum, and play on."""

    def zero_some(data):
        start = int(share * len(data))
        data[start : start + 200] = bytes(200)
        return data

    path = rewrite(write(tmp_path / name, noise(10 * RATE)), zero_some)
    assert_unreadable(path, "damaged|truncated|lost sync")


def test_chained_ogg(tmp_path):
    """Of two streams, one behind the other, libsndfile reads the first."""
    path = write(tmp_path / "a.ogg", noise())
    other = Path(write(tmp_path / "b.ogg", noise())).read_bytes()
    rewrite(path, lambda data: data + other)
    assert_unreadable(path, "holds several Ogg streams: split it")


# Oddities that are no faults


# ffmpeg writes the first into a pipe, SoX the second.
@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFF000])
def test_streamed_wav_whose_length_is_unknown(tmp_path, size):
    def announce(data):
        start = data.index(b"data") + 4
        data[start : start + 4] = struct.pack("<I", size)
        return data

    path = write(tmp_path / "a.wav", noise(), subtype="FLOAT")
    rewrite(path, announce)
    np.testing.assert_array_equal(load_audio(path)[0], noise())


def with_flac_length(data, n_samples):
    """Write another number of samples (36 bits) into a FLAC file's header."""
    start = 8 + 13
    data[start] = (data[start] & 0xF0) | (n_samples >> 32)
    data[start + 1 : start + 5] = struct.pack(">I", n_samples & 0xFFFFFFFF)
    return data


def test_streamed_flac_whose_length_is_unknown(tmp_path):
    """0 stands for unknown, which encoders write into a pipe."""
    path = write(tmp_path / "a.flac", noise())
    rewrite(path, lambda data: with_flac_length(data, 0))
    try:
        n_samples = load_audio(path)[0].size
    except AudioReadError:
        pass
    else:
        assert n_samples == RATE


def test_absurd_length_in_the_header(tmp_path):
    path = write(tmp_path / "a.flac", noise())
    rewrite(path, lambda data: with_flac_length(data, 2**36 - 1))
    assert_unreadable(path, "header doesn't say how long it is")


@pytest.mark.parametrize("n_bytes", [100, 200_000])
@pytest.mark.parametrize("name", ["a.wav", "a.ogg"])
def test_bytes_behind_the_end(tmp_path, name, n_bytes):
    path = write(tmp_path / name, noise())
    rewrite(path, lambda data: data + bytes(n_bytes))
    assert load_audio(path)[0].size == RATE


# Real clips


def test_real_clips_are_all_accepted(esc10):
    paths = sorted((esc10 / "audio").iterdir())
    assert len(paths) == 400
    for path in paths:
        waveform, rate = load_audio(path)
        assert rate == 44100
        assert waveform.size == soundfile.info(path).frames


@pytest.mark.parametrize("index", range(0, 400, 67))
def test_real_clips_are_soundfile_and_soxr(esc10, index):
    path = sorted((esc10 / "audio").iterdir())[index]
    expected, rate = soundfile.read(path, dtype="float32")
    np.testing.assert_array_equal(load_audio(path)[0], expected)
    expected = soxr.resample(expected, rate, 32000, quality="HQ")
    waveform, _ = load_audio(path, sampling_rate=32000)
    np.testing.assert_array_equal(waveform, expected)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.7, 0.95, 0.9999])
def test_real_clip_truncated(esc10, tmp_path, share):
    (whole, *_) = sorted((esc10 / "audio").iterdir())
    path = tmp_path / "cut.ogg"
    path.write_bytes(whole.read_bytes())
    rewrite(path, lambda data: data[: int(share * len(data))])
    assert_unreadable(path, "truncated")


def test_files_are_closed(tmp_path):
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        pytest.skip("needs /proc")
    good = write(tmp_path / "good.ogg", noise())
    cut = tmp_path / "cut.ogg"
    cut.write_bytes(good.read_bytes()[:-10])
    before = len(os.listdir(folder))
    load_audio(good)
    for _ in range(3):
        with pytest.raises(AudioReadError):
            load_audio(cut)
    assert len(os.listdir(folder)) == before


@pytest.mark.skipif(sys.platform != "linux", reason="names are text elsewhere")
def test_a_name_that_is_no_text(tmp_path):
    path = str(tmp_path / os.fsdecode(b"\xff.wav"))
    soundfile.write(os.fsencode(path), np.full(800, 0.5), 8000, format="WAV")
    waveform, sampling_rate = load_audio(path, sampling_rate=8000)
    np.testing.assert_allclose(waveform, 0.5, atol=1e-4)
    assert sampling_rate == 8000
    clips = check_audio([path])
    assert clips.common_sampling_rate() == 8000
