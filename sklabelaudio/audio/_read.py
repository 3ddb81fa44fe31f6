"""One sound file to one waveform."""

import os
import re
from numbers import Integral, Real

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions, validate_params

from ..exceptions import AudioReadError

CHANNEL_CONSTRAINT = [StrOptions({"mean"}), Interval(Integral, 0, None, closed="left")]
SAMPLING_RATE_CONSTRAINT = [Interval(Real, 0, None, closed="neither"), None]

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
        os.fspath(path),
        sampling_rate=sampling_rate,
        channel=channel,
        offset=offset,
        duration=duration,
    )


def read_waveform(path, *, sampling_rate, channel, offset=0.0, duration=None):
    """`load_audio` without the checks of its parameters."""
    import soundfile

    _check_is_sound_file(path)
    try:
        with soundfile.SoundFile(path) as file:
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
            if start:
                file.seek(start)
            samples = file.read(stop - start, dtype="float32", always_2d=True)
            if len(samples) < stop - start - _DECODER_SLACK:
                raise AudioReadError(
                    path,
                    f"it is truncated: {stop - start} samples announced, "
                    f"{len(samples)} there",
                )
    except soundfile.LibsndfileError as error:
        raise AudioReadError(path, error.error_string.rstrip(".")) from error
    waveform = _take_channel(path, samples, channel)
    finite = np.isfinite(waveform)
    if not finite.all():
        first = start + int(np.argmin(finite))
        raise AudioReadError(path, f"sample {first} is NaN or infinite")
    if sampling_rate is None or sampling_rate == rate:
        return waveform, rate
    return resample(waveform, rate, sampling_rate), sampling_rate


def read_sampling_rate(path):
    """Return the rate of a file in Hz, from its header."""
    import soundfile

    _check_is_sound_file(path)
    try:
        return soundfile.info(path).samplerate
    except soundfile.LibsndfileError as error:
        raise AudioReadError(path, error.error_string.rstrip(".")) from error


def resample(waveform, orig_rate, target_rate):
    """Resample a float32 waveform by soxr's HQ recipe; equal rates are free."""
    if orig_rate == target_rate:
        return waveform
    import soxr

    resampled = soxr.resample(waveform, orig_rate, target_rate, quality="HQ")
    # A handful of samples can round to none at a much lower rate.
    return resampled if resampled.size else waveform[:1]


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


def _check_complete(path, file):
    """Refuse files that end early where libsndfile itself would not say so."""
    if file.format == "OGG":
        with open(path, "rb") as raw:
            if not _ends_with_last_ogg_page(raw):
                raise AudioReadError(
                    path, "it is truncated: its last Ogg page is missing"
                )
    elif file.format.startswith(("WAV", "RF64")):
        # libsndfile shortens the clip to what is there and notes that in its log.
        # 0xFFFFFFFF is what encoders write that could not know the length.
        log = re.search(r"^data : (\d+) \(should be (\d+)\)", file.extra_info, re.M)
        if log and int(log[2]) < int(log[1]) < 0xFFFFFFFF:
            raise AudioReadError(
                path,
                f"it is truncated: {log[1]} bytes of samples announced, "
                f"{log[2]} there",
            )


def _ends_with_last_ogg_page(raw):
    # A page is a header of 27 bytes, a table of up to 255 segment lengths, and the
    # segments; bit 4 of its sixth byte marks the last page of a stream (RFC 3533).
    largest_page = 27 + 255 + 255 * 255
    size = raw.seek(0, os.SEEK_END)
    raw.seek(max(0, size - largest_page))
    tail = raw.read()
    start = tail.rfind(b"OggS")
    if start < 0 or len(tail) - start < 27:
        return False
    page = tail[start:]
    n_segments = page[26]
    complete = 27 + n_segments + sum(page[27 : 27 + n_segments]) <= len(page)
    return complete and bool(page[5] & 4)
