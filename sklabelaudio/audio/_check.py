"""The gate through which every audio step passes its X."""

import os
from numbers import Real

import numpy as np
from scipy.sparse import issparse
from sklearn.utils.validation import check_array, validate_data

from ._clips import AudioClips

# Integers up to here are taken as numbers, beyond as the codes of a recording.
_LARGEST_INTEGER = 128


def check_audio(
    X,
    *,
    sampling_rate=None,
    target_sampling_rate=None,
    channel="mean",
    estimator=None,
    reset=True,
):
    """Check clips, of whatever kind, and make them readable one by one.

    Every step that takes audio passes its X through here, so that all of them
    take the same inputs and refuse the same mistakes.

    Parameters
    ----------
    X : sequence of str or path-like, array-like of shape (n_clips, n_samples) or \
            sequence of array-like of shape (n_samples,)
        Paths of sound files, waveforms of one length, or waveforms of any
        lengths. Waveforms are mono and floating point, usually in [-1, 1].
    sampling_rate : float, default=None
        Rate of the waveforms in X, in Hz. Arrays carry no rate, so it must be
        given with them; files know their own and don't need it.
    target_sampling_rate : float, default=None
        Rate of the clips given out, in Hz: files and arrays of another rate are
        resampled (soxr, HQ) when they are read. ``None`` keeps the clips' own.
    channel : "mean" or int, default="mean"
        What to take of files with several channels: their mean, or one channel.
    estimator : estimator instance, default=None
        The estimator that X is given to; named in messages, and told the number
        of features of a 2-D array.
    reset : bool, default=True
        Whether the estimator is being fitted.

    Returns
    -------
    AudioClips
        The clips; ``clips[i]`` reads clip i.

    Raises
    ------
    TypeError
        If X is a single path, a sparse matrix, or mixes paths and arrays.
    ValueError
        If X is empty, arrays come without `sampling_rate`, have more than one
        channel, no samples, samples that are NaN or infinite, or integer codes
        instead of floating-point samples.

    Examples
    --------
    >>> import numpy as np
    >>> from sklabelaudio import check_audio
    >>> clips = check_audio([np.zeros(800), np.zeros(1600)], sampling_rate=8000,
    ...                     target_sampling_rate=16000)
    >>> len(clips), clips[0].shape, clips[1].shape
    (2, (1600,), (3200,))
    """
    for name, rate in (
        ("sampling_rate", sampling_rate),
        ("target_sampling_rate", target_sampling_rate),
    ):
        if rate is not None and not (
            isinstance(rate, Real) and not isinstance(rate, bool) and 0 < rate < np.inf
        ):
            raise ValueError(
                f"{name}={rate!r} is no sampling rate: give it in Hz, such as 44100"
            )
    items = _to_items(X, estimator, reset)
    if not isinstance(items[0], str) and sampling_rate is None:
        raise ValueError(
            "X holds arrays, which carry no sampling rate: say what it is in Hz, "
            "such as sampling_rate=44100, or pass the paths of the files instead"
        )
    return AudioClips(
        items,
        input_sampling_rate=sampling_rate,
        sampling_rate=target_sampling_rate,
        channel=channel,
    )


def _to_items(X, estimator, reset):
    """Return a list of paths, or a sequence of 1-D float arrays."""
    if isinstance(X, (str, os.PathLike)):
        raise TypeError(
            f"X={os.fspath(X)!r} is one path: pass a list of paths, [{os.fspath(X)!r}]"
        )
    if hasattr(X, "__array__") and not hasattr(X, "__len__"):
        X = np.asarray(X)
    if not (hasattr(X, "__len__") or issparse(X)):
        raise TypeError(
            f"X is a {type(X).__name__}: pass a list of paths or an array of clips"
        )
    if getattr(X, "ndim", None) == 1 and not isinstance(X, np.ndarray):
        X = list(X)  # a Series
    if issparse(X) or getattr(X, "ndim", 1) > 1 or _is_one_waveform(X):
        return _to_matrix(X, estimator, reset)
    if len(X) == 0:
        raise ValueError("X is empty: it needs at least one clip")
    kinds = [isinstance(item, (str, os.PathLike)) for item in X]
    if all(kinds):
        return [os.fspath(item) for item in X]
    if any(kinds):
        odd = kinds.index(not kinds[0])
        raise TypeError(
            f"X mixes paths and arrays: X[0] is a {type(X[0]).__name__}, "
            f"X[{odd}] is a {type(X[odd]).__name__}; pass one kind"
        )
    return [_check_waveform(np.asarray(item), f"X[{i}]") for i, item in enumerate(X)]


def _is_one_waveform(X):
    return all(isinstance(item, Real) for item in (X[:1] if len(X) else X))


def _to_matrix(X, estimator, reset):
    if getattr(X, "ndim", 2) > 2:
        raise ValueError(
            f"X has shape {X.shape}, clips are (n_clips, n_samples): take one channel "
            "or average them, for example X.mean(axis=1)"
        )
    # Clips may be of any length, so a later X may have other columns than the first.
    if estimator is not None and reset:
        X = validate_data(estimator, X, dtype="numeric")
    else:
        X = check_array(X, estimator=estimator, dtype="numeric", input_name="X")
    _check_not_codes(X, "X")
    return X


def _check_waveform(wave, name):
    if wave.ndim != 1:
        raise ValueError(
            f"{name} has shape {wave.shape}, a clip is (n_samples,): take one channel "
            f"or average them, for example {name}.mean(axis=0)"
        )
    if wave.size == 0:
        raise ValueError(f"{name} has no samples: drop the clip")
    if wave.dtype.kind not in "fiu":
        raise ValueError(
            f"{name} has dtype {wave.dtype}: clips are floating point in [-1, 1]"
        )
    _check_not_codes(wave, name)
    finite = np.isfinite(wave)
    if not finite.all():
        raise ValueError(
            f"{name} has NaN or infinite samples, the first at "
            f"{int(np.argmin(finite))}: mend or drop the clip"
        )
    return wave


def _check_not_codes(wave, name):
    """Refuse what a sound card writes: integers scaled by their width."""
    if wave.dtype.kind not in "iu":
        return
    bits = 8 * wave.dtype.itemsize
    if bits <= 16 or np.abs(wave).max() > _LARGEST_INTEGER:
        raise ValueError(
            f"{name} has dtype {wave.dtype}, the integer codes of a recording: divide "
            "them by their full scale, for example "
            f"{name}.astype('float32') / {2 ** (min(bits, 32) - 1)}"
        )
