"""The gate through which every audio step passes its X."""

import os
from collections.abc import Mapping, Set
from numbers import Integral, Real

import numpy as np
from scipy.sparse import issparse
from sklearn.utils.validation import check_array, validate_data

from ._clips import AudioClips, find_fault

# Integers up to here are taken as numbers, beyond as the codes of a recording.
_LARGEST_INTEGER = 128


def check_audio(
    X,
    *,
    sampling_rate=None,
    target_sampling_rate=None,
    channel="mean",
    on_error="raise",
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
    on_error : {"raise", "skip"}, default="raise"
        Whether samples that can't be used (none at all, NaN, infinite) raise here,
        or when that clip is read.
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
    _check_rate("sampling_rate", sampling_rate)
    _check_rate("target_sampling_rate", target_sampling_rate)
    _check_channel(channel)
    items = _to_items(X, estimator, reset, check_samples=on_error == "raise")
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
        check_samples=on_error == "skip",
    )


def _check_rate(name, rate):
    number = isinstance(rate, Real) and not isinstance(rate, bool)
    if rate is not None and not (number and 0 < rate < np.inf):
        raise ValueError(
            f"{name}={rate!r} is no sampling rate: give it in Hz, such as 44100"
        )


def _check_channel(channel):
    index = isinstance(channel, Integral) and channel >= 0
    if not (index or (isinstance(channel, str) and channel == "mean")):
        raise ValueError(
            f"channel={channel!r} must be 'mean' or the index of a channel, 0 or more"
        )


def _to_items(X, estimator, reset, check_samples):
    """Return a list of paths, or a sequence of 1-D float arrays."""
    if isinstance(X, (str, os.PathLike)):
        path = str(os.fspath(X))
        raise TypeError(f"X={path!r} is one path: pass a list of paths, [{path!r}]")
    kind = type(X).__name__
    if hasattr(X, "__array__") and not hasattr(X, "__len__"):
        X = np.asarray(X)
    if issparse(X):
        return _to_matrix(X, estimator, reset, check_samples)
    if (
        isinstance(X, (bytes, Mapping, Set))
        or not hasattr(X, "__len__")
        or getattr(X, "ndim", 1) == 0
    ):
        raise TypeError(f"X is a {kind}: pass a list of paths or an array of clips")
    if getattr(X, "ndim", None) == 1 and not isinstance(X, np.ndarray):
        X = list(X)  # a Series
    if getattr(X, "ndim", 1) > 1:
        return _to_matrix(X, estimator, reset, check_samples)
    if len(X) == 0:
        raise ValueError("X is empty: it needs at least one clip")
    if isinstance(X[0], Real):  # one waveform, which scikit-learn has words for
        return _to_matrix(X, estimator, reset, check_samples)
    kinds = [isinstance(item, (str, os.PathLike)) for item in X]
    if all(kinds):
        return [str(os.fspath(item)) for item in X]  # numpy's str prints oddly
    if any(kinds):
        odd = kinds.index(not kinds[0])
        raise TypeError(
            f"X mixes paths and arrays: X[0] is a {type(X[0]).__name__}, "
            f"X[{odd}] is a {type(X[odd]).__name__}; pass one kind"
        )
    return [_check_waveform(item, f"X[{i}]", check_samples) for i, item in enumerate(X)]


def _to_matrix(X, estimator, reset, check_samples):
    if getattr(X, "ndim", 2) > 2:
        axis = 1 + int(np.argmin(X.shape[1:]))
        raise ValueError(
            f"X has shape {X.shape}, clips are (n_clips, n_samples): take one channel "
            f"or average them, for example X.mean(axis={axis})"
        )
    if not issparse(X) and _holds_text(X):
        raise TypeError(
            "X is a table of texts: pass a list of paths, or one column such as "
            "frame['path']"
        )
    check = {"dtype": "numeric", "ensure_all_finite": check_samples}
    # Clips may be of any length, so a later X may have other columns than the first.
    if estimator is not None and reset:
        X = validate_data(estimator, X, **check)
    else:
        X = check_array(X, estimator=estimator, input_name="X", **check)
    _check_dtype(X, "X")
    if check_samples and X.dtype == np.float64:
        for index, wave in enumerate(X):
            fault = find_fault(wave)
            if fault is not None:
                raise ValueError(f"X[{index}] {fault}")
    return X


def _holds_text(X):
    row = np.asarray(X.iloc[:1] if hasattr(X, "iloc") else X[:1])
    return row.dtype.kind in "US" or (
        row.dtype == object
        and any(isinstance(item, (str, os.PathLike)) for item in row.flat)
    )


def _check_waveform(item, name, check_samples):
    wave = np.asarray(item)
    if wave.ndim == 0:
        raise TypeError(
            f"{name} is a {type(item).__name__}: pass paths, or waveforms as arrays"
        )
    if wave.ndim > 1:
        raise ValueError(
            f"{name} has shape {wave.shape}, a clip is (n_samples,): take one channel "
            f"or average them, for example {name}.mean(axis={np.argmin(wave.shape)})"
        )
    _check_dtype(wave, name)
    fault = find_fault(wave) if check_samples else None
    if fault is not None:
        raise ValueError(f"{name} {fault}")
    return wave


def _check_dtype(wave, name):
    """Refuse what is no floating-point audio, such as a sound card's integers."""
    kind = wave.dtype.kind
    if kind not in "fiu":
        raise ValueError(
            f"{name} has dtype {wave.dtype}: clips are floating point in [-1, 1], "
            "not complex or others"
        )
    if kind == "f" or wave.size == 0:
        return
    bits = 8 * wave.dtype.itemsize
    if bits <= 16 or max(int(wave.max()), -int(wave.min())) > _LARGEST_INTEGER:
        scale = 2 ** (min(bits, 32) - 1)
        codes = f"{name}.astype('float32')"
        if kind == "u":
            codes = f"({codes} - {scale})"
        raise ValueError(
            f"{name} has dtype {wave.dtype}, the integer codes of a recording: divide "
            f"them by their full scale, for example {codes} / {scale}"
        )
