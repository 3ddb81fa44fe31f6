"""What estimators that train an encoder take as X, as batches of tensors' arrays."""

import math
from itertools import chain, islice

import numpy as np
from sklearn.utils import check_array

from ..audio import check_audio
from ..audio._read import describe_low_rate
from ..audio._windows import WindowPlan
from ..exceptions import AudioReadError
from ..feature_extraction._front_ends import find_least_rate

# Decoded at a time of a long recording, and held of it before it is asked for.
_BLOCK_SECONDS = 60


class ArraySet:
    """Clips that are rows of one array: vectors, or log-mel.

    Parameters
    ----------
    X : ndarray of shape (n_clips, ...)
        The array, which may be a memory map: only the rows asked for are copied.
    dtype : dtype, default=np.float32
        Precision to train in.
    """

    # Rows are read where they are needed: threads would gain nothing.
    is_slow = False

    def __init__(self, X, dtype=np.float32):
        self.X = X
        self.dtype = dtype

    def __len__(self):
        return len(self.X)

    def take(self, indices):
        """Return a copy of the rows of some clips."""
        return np.array(self.X[indices], dtype=self.dtype)

    def windows(self, index):
        """Return the one window of a clip."""
        return self.take([index])

    middle = windows

    def seconds(self, index):
        """Return how long what the encoder hears of a clip is; None is unknown."""
        return None


class ClipSet:
    """Clips that are read, cut and turned to log-mel one by one.

    Parameters
    ----------
    clips : AudioClips
        The clips, at the rate of the front end.
    front_end : FrontEnd
        What makes log-mel of them.
    duration : float or None
        Length of the pieces that the encoder hears, in seconds; ``None`` hears whole
        clips.
    """

    is_slow = True
    dtype = np.float32

    def __init__(self, clips, front_end, duration):
        self.clips = clips
        self.front_end = front_end
        self.n_samples = None
        if duration is not None:
            self.n_samples = max(round(duration * front_end.sampling_rate), 1)

    def __len__(self):
        return len(self.clips)

    def name(self, index):
        """Return what to call a clip in a message."""
        return self.clips.name(index)

    def piece(self, index, rng=None):
        """Return the log-mel of one piece of a clip.

        Parameters
        ----------
        index : int
            Number of the clip.
        rng : numpy.random.Generator, default=None
            Draws where the piece begins; with ``None`` it is the middle of the clip.

        Returns
        -------
        ndarray of shape (n_frames, n_mels), float32
            The log-mel.
        """
        return self.front_end(self._read_piece(index, rng))

    def windows(self, index):
        """Return the log-mel of a whole clip, cut in pieces.

        They follow each other, but the last ends with the clip.

        Parameters
        ----------
        index : int
            Number of the clip.

        Returns
        -------
        iterable of ndarray of shape (n_frames, n_mels), float32
            The log-mel of the pieces. Those of a minute are there already; the rest of
            a longer recording is read as they are taken.
        """
        windows = self._cut(index)
        n_held = 1
        if self.n_samples is not None:
            seconds = self.n_samples / self.front_end.sampling_rate
            n_held = math.ceil(_BLOCK_SECONDS / seconds)
        return chain(list(islice(windows, n_held)), windows)

    def middle(self, index):
        """Return the log-mel of the middle piece of a clip alone, as a list."""
        return [self.piece(index)]

    def seconds(self, index):
        """Return how long what the encoder hears of a clip is."""
        if self.n_samples is not None:
            return self.n_samples / self.front_end.sampling_rate
        n_there, rate = self.clips.size(index)
        return n_there / rate

    def _read_piece(self, index, rng):
        n_there, rate = self.clips.size(index)
        least_rate = find_least_rate(self.front_end)
        if rate < least_rate:
            raise AudioReadError(self.name(index), describe_low_rate(rate, least_rate))
        if self.n_samples is None:
            return self.clips[index]
        # In samples of the clip as it came, of which only these are read.
        n_wanted = math.ceil(self.n_samples * rate / self.front_end.sampling_rate)
        n_free = n_there - n_wanted
        if n_free <= 0:
            return self._repeat(self.clips[index])[: self.n_samples]
        start = n_free // 2 if rng is None else int(rng.integers(n_free + 1))
        waveform = self.clips.part(index, offset=start / rate, duration=n_wanted / rate)
        # A decoder may give a little less than the header announces.
        return self._repeat(waveform)[: self.n_samples]

    def _cut(self, index):
        """Yield the log-mel of the pieces of a clip."""
        blocks = self.clips.blocks(
            index,
            block_seconds=_BLOCK_SECONDS,
            min_rate=find_least_rate(self.front_end),
        )
        if self.n_samples is None:
            yield self.front_end(np.concatenate(list(blocks)))
            return
        plan = WindowPlan(self.n_samples, self.n_samples, tail="align")
        for samples, _ in plan.cut(blocks):
            yield self.front_end(self._repeat(samples))

    def _repeat(self, waveform):
        """Repeat a clip that is too short, up to the length of a piece."""
        if self.n_samples is None or len(waveform) >= self.n_samples:
            return waveform
        return np.resize(waveform, self.n_samples)


def check_log_mel(X):
    """Return X as an array of log-mel, or None if it holds clips instead.

    Parameters
    ----------
    X : array-like
        What the user gave.

    Returns
    -------
    ndarray of shape (n_clips, n_frames, n_mels) or None
        The array, in its own precision.

    Raises
    ------
    ValueError
        If it has values that are NaN or infinite.
    """
    if getattr(X, "ndim", None) == 1 or (isinstance(X, (list, tuple)) and len(X)):
        first = X.iloc[0] if hasattr(X, "iloc") else X[0]
        if np.ndim(first) < 2:
            return None
        if len({np.shape(item) for item in X}) > 1:
            raise ValueError(
                "X holds log-mel of several shapes: cut or fill clips to one number of "
                "frames, such as by LogMelExtractor(duration=...)"
            )
        X = np.stack(list(X))
    if getattr(X, "ndim", 0) < 3:
        return None
    return check_array(X, allow_nd=True, dtype="numeric", input_name="X")


def make_clip_set(
    X, front_end, *, sampling_rate, duration, channel, estimator, reset, training
):
    """Check clips, and make a set of them.

    Parameters
    ----------
    X : sequence of paths, array-like of shape (n_clips, n_samples) or sequence of \
            array-like of shape (n_samples,)
        The clips.
    front_end : FrontEnd
        The front end of the encoder.
    sampling_rate : float or None
        Rate of arrays, in Hz.
    duration : float or None
        As in `ClipSet`.
    channel : "mean" or int
        What to take of files with several channels.
    estimator : estimator
        Whose X it is.
    reset : bool
        Whether it is fitted.
    training : bool
        Whether all clips have to be of one length.

    Returns
    -------
    ClipSet
        The set.

    Raises
    ------
    ValueError
        If X holds no clips, or arrays of several lengths without `duration`.
    """
    clips = check_audio(
        X,
        sampling_rate=sampling_rate,
        target_sampling_rate=front_end.sampling_rate,
        channel=channel,
        estimator=estimator,
        reset=reset,
    )
    if training and duration is None and not clips.is_files:
        lengths = {len(clips.items[index]) for index in range(len(clips))}
        if len(lengths) > 1:
            raise ValueError(
                f"X holds clips of {min(lengths)} to {max(lengths)} samples, and a "
                "batch needs one length: set duration, in seconds, to which longer "
                "ones are cut at random and shorter ones repeated"
            )
    return ClipSet(clips, front_end, duration)
