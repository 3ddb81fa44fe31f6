"""One sound file to one waveform."""

import os
import re
import threading
import zlib
from numbers import Integral, Real

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions, validate_params

from ..exceptions import AudioReadError

CHANNEL_CONSTRAINT = [StrOptions({"mean"}), Interval(Integral, 0, None, closed="left")]
SAMPLING_RATE_CONSTRAINT = [Interval(Real, 0, None, closed="neither"), None]

# Why a file can't be opened, libsndfile keeps in one place for all threads.
_opening = threading.Lock()

# Where libsndfile's log says how many bytes should be there, by container.
_SIZE_IN_LOG = {
    "WAV": "data",
    "WAVEX": "data",
    "AIFF": "SSND",
    "AU": "Data Size",
    "CAF": "data",
    "W64": "riff",
    "RF64": "Riff size",
}
# Encoders that write into a pipe announce this much or more: they could not know.
_UNKNOWN_SIZE = 0x7FFFF000
# Likewise for the samples of a FLAC file; no file is that long.
_UNKNOWN_LENGTH = 2**35
# Every byte with its bits in the other order, for Ogg's checksum.
_REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
# Frames to decode at a time on the way to an offset.
_SKIP_BLOCK = 2**18

# Decoders of frame-based formats may hand out up to two frames (of 1,152 samples
# in MP3) less than the header announces; more than that is a cut file.
_DECODER_SLACK = 2 * 1152


@validate_params(
    {
        "path": [str, os.PathLike],
        "sampling_rate": SAMPLING_RATE_CONSTRAINT,
        "channel": CHANNEL_CONSTRAINT,
        "offset": [Interval(Real, 0, None, closed="left")],
        "duration": [Interval(Real, 0, None, closed="neither"), None],
    },
    prefer_skip_nested_validation=True,
)
def load_audio(path, *, sampling_rate=None, channel="mean", offset=0.0, duration=None):
    """Read a sound file as a mono waveform.

    WAV, FLAC, Ogg, MP3 and whatever else libsndfile reads. Nothing happens in
    silence: a cut or damaged file is an error, not a shorter clip.

    Parameters
    ----------
    path : str or path-like
        The file.
    sampling_rate : float, default=None
        Rate of the result in Hz; the file is resampled to it by soxr's ``"HQ"``
        recipe. ``None`` keeps the file's own rate.
    channel : "mean" or int, default="mean"
        What to take of a file with several channels: their mean, or the channel
        of this index (0 is the first).
    offset : float, default=0.0
        Where to start, in seconds.
    duration : float, default=None
        How much to read, in seconds; ``None`` reads to the end. A file that ends
        earlier gives what it has.

    Returns
    -------
    waveform : ndarray of shape (n_samples,), float32
        Samples in [-1, 1].
    sampling_rate : float or int
        Rate of `waveform` in Hz.

    Raises
    ------
    AudioReadError
        If the file is missing, empty, no sound file, truncated, holds no samples
        or samples that are not finite, or lacks the channel asked for.

    See Also
    --------
    AudioLoader : The same for a list of files, as a transformer.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np, soundfile
    >>> from sklabelaudio import load_audio
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "stereo.wav")
    ...     soundfile.write(path, np.zeros((44100, 2)), 44100)
    ...     waveform, sampling_rate = load_audio(path, sampling_rate=16000)
    >>> waveform.shape, waveform.dtype, sampling_rate
    ((16000,), dtype('float32'), 16000)
    """
    return read_waveform(
        str(os.fspath(path)),
        sampling_rate=sampling_rate,
        channel=channel,
        offset=offset,
        duration=duration,
    )


def read_waveform(path, *, sampling_rate, channel, offset=0.0, duration=None):
    """`load_audio` without the checks of its parameters."""
    blocks = _decode(path, channel=channel, offset=offset, duration=duration)
    ((waveform, rate, _),) = blocks
    if sampling_rate is None or sampling_rate == rate:
        return waveform, rate
    return resample(waveform, rate, sampling_rate), sampling_rate


def iter_waveform(path, *, sampling_rate, channel, block_seconds, min_rate=0):
    """Read a file as `read_waveform` does, to the bit, in bounded memory.

    Parameters
    ----------
    path : str
        The file.
    sampling_rate : float
        Rate of the blocks, in Hz.
    channel : "mean" or int
        What to take of several channels.
    block_seconds : float
        How much to decode at a time.
    min_rate : float, default=0
        Files of a lower rate than this are refused, in Hz.

    Yields
    ------
    ndarray of shape (n_samples,), float32
        The next samples.
    """
    stream = None
    blocks = _decode(path, channel=channel, block_seconds=block_seconds)
    for block, rate, last in blocks:
        if rate < min_rate:
            raise AudioReadError(path, describe_low_rate(rate, min_rate))
        if stream is None:
            if last:
                yield resample(block, rate, sampling_rate)
                return
            stream = _open_resampler(rate, sampling_rate)
        yield stream(block, last)


def describe_low_rate(rate, min_rate):
    """Say that a rate is too low, without a subject."""
    return (
        f"it has {rate:g} Hz, and most of what the model listens to lies above "
        f"{rate / 2:g} Hz: record at {min_rate:g} Hz or more"
    )


def _decode(path, *, channel, offset=0.0, duration=None, block_seconds=None):
    """Yield blocks of one channel, the file's own rate, and whether it is the last."""
    import soundfile

    _check_is_sound_file(path)
    try:
        with _opening:
            file = soundfile.SoundFile(_to_system_name(path))
        with file:
            rate = file.samplerate
            start = round(offset * rate)
            stop = file.frames
            if duration is not None:
                stop = min(stop, start + max(round(duration * rate), 1))
            _check_complete(path, file)
            if start >= stop:
                seconds = file.frames / rate
                raise AudioReadError(
                    path,
                    f"it holds {seconds:g} s and offset={offset:g} s starts behind it"
                    if file.frames
                    else "it holds no samples",
                )
            _skip(path, file, start)
            block = stop - start if block_seconds is None else int(block_seconds * rate)
            for first in range(start, stop, block):
                wanted = min(block, stop - first)
                samples = file.read(wanted, dtype="float32", always_2d=True)
                if len(samples) < wanted - _DECODER_SLACK:
                    raise AudioReadError(
                        path,
                        f"it is truncated: {stop - start} samples announced, "
                        f"{first - start + len(samples)} there",
                    )
                waveform = _take_channel(path, samples, channel)
                _check_finite(path, waveform, first)
                yield waveform, rate, first + block >= stop
    except soundfile.LibsndfileError as error:
        raise AudioReadError(path, error.error_string.rstrip(".")) from error
    except TypeError as error:  # soundfile takes the suffix .raw for a format
        raise AudioReadError(path, f"no sound file: {error}") from error


def _check_finite(path, waveform, start):
    finite = np.isfinite(waveform)
    if not finite.all():
        first = start + int(np.argmin(finite))
        raise AudioReadError(path, f"sample {first} is NaN or infinite")


def read_sampling_rate(path):
    """Return the rate of a file in Hz, from its header."""
    return read_size(path)[1]


def read_size(path):
    """Return the number of samples of a file, as its header has it, and its rate."""
    import soundfile

    _check_is_sound_file(path)
    try:
        with _opening:
            info = soundfile.info(_to_system_name(path))
        return info.frames, info.samplerate
    except soundfile.LibsndfileError as error:
        raise AudioReadError(path, error.error_string.rstrip(".")) from error
    except TypeError as error:  # soundfile takes the suffix .raw for a format
        raise AudioReadError(path, f"no sound file: {error}") from error


def _to_system_name(path):
    # soundfile would refuse the names that are no text, which Linux allows.
    return path if os.name == "nt" else os.fsencode(path)


def resample(waveform, orig_rate, target_rate):
    """Resample a float32 waveform by soxr's HQ recipe; equal rates are free."""
    if orig_rate == target_rate:
        return waveform
    import soxr

    resampled = soxr.resample(waveform, orig_rate, target_rate, quality="HQ")
    # A handful of samples can round to none at a much lower rate.
    return resampled if resampled.size else waveform[:1]


def _open_resampler(orig_rate, target_rate):
    """Return a function of a block and whether it is the last: the block resampled."""
    if orig_rate == target_rate:
        return lambda block, last: block
    import soxr

    # Its blocks together are what `resample` gives for the whole, bit for bit.
    stream = soxr.ResampleStream(
        orig_rate, target_rate, 1, dtype="float32", quality="HQ"
    )
    return stream.resample_chunk


def _take_channel(path, samples, channel):
    n_channels = samples.shape[1]
    if n_channels == 1 and channel in ("mean", 0):
        return samples[:, 0]
    if channel == "mean":
        return samples.mean(axis=1)
    if channel >= n_channels:
        raise AudioReadError(
            path, f"channel={channel} is asked for and it has {n_channels} channel(s)"
        )
    return np.ascontiguousarray(samples[:, channel])


def _check_is_sound_file(path):
    # libsndfile calls each of these "System error" or "Format not recognised".
    try:
        if os.path.isdir(path):
            raise AudioReadError(path, "it is a folder; list the files in it instead")
        if os.path.getsize(path) == 0:
            raise AudioReadError(path, "it is an empty file")
    except OSError as error:
        raise AudioReadError(path, error.strerror or str(error)) from error


def _skip(path, file, n_samples):
    if n_samples == 0:
        return
    if file.seekable() and file.format not in ("OGG", "MP3", "MPEG"):
        file.seek(n_samples)
        return
    # A seek in these lands a little beside the sample, so they are decoded up to it.
    while n_samples:
        block = file.read(min(n_samples, _SKIP_BLOCK), always_2d=True)
        if not len(block):
            raise AudioReadError(path, "it is truncated: it ends before the offset")
        n_samples -= len(block)


def _check_complete(path, file):
    """Refuse files that end early where libsndfile itself would not say so."""
    if file.frames > _UNKNOWN_LENGTH:
        raise AudioReadError(
            path, "its header doesn't say how long it is: encode it anew"
        )
    if file.format == "OGG":
        with open(path, "rb") as raw:
            _check_ogg_pages(path, raw.read())
    elif file.format in _SIZE_IN_LOG:
        # libsndfile shortens the clip to what is there and notes that in its log.
        label = _SIZE_IN_LOG[file.format]
        log = re.search(
            rf"^\s*{label}\s*: (\d+) \(should be (\d+)\)", file.extra_info, re.M
        )
        if log is None:
            return
        announced, there = int(log[1]), int(log[2])
        known = announced < _UNKNOWN_SIZE or file.format in ("W64", "RF64")
        if known and there < announced:
            raise AudioReadError(
                path,
                f"it is truncated: {announced} bytes of samples announced, "
                f"{there} there",
            )


def _check_ogg_pages(path, data):
    """Walk the pages of an Ogg file: the decoder drops bad ones and plays on."""
    # A page is a header of 27 bytes, a table of segment lengths, and the segments. Of
    # the header, byte 5 has a bit for a stream's first page (2) and for its last (4),
    # 14 to 17 are the stream's number, 22 to 25 the checksum (RFC 3533).
    position, kind, stream = 0, 0, data[14:18]
    while data[position : position + 4] == b"OggS" and len(data) >= position + 27:
        n_segments = data[position + 26]
        body = position + 27 + n_segments
        end = body + sum(data[position + 27 : body])
        if end > len(data):
            kind = 0
            break
        page = bytearray(data[position:end])
        checksum, page[22:26] = bytes(page[22:26]), bytes(4)
        if _ogg_checksum(page) != checksum:
            raise AudioReadError(path, f"it is damaged at byte {position}")
        kind = page[5]
        if page[14:18] != stream or (position and kind & 2):
            raise AudioReadError(
                path, "it holds several Ogg streams: split it, one stream a file"
            )
        position = end
    if not kind & 4:
        raise AudioReadError(path, "it is truncated: its last Ogg page is missing")


def _ogg_checksum(page):
    # Ogg feeds zlib's polynomial with the highest bit first, and with neither the
    # start value nor the final inversion.
    crc = zlib.crc32(page.translate(_REVERSED_BITS), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return crc.to_bytes(4, "big").translate(_REVERSED_BITS)
