"""Sets of clips whose pieces are changed as they are read for training."""

import inspect

import numpy as np

from ._training_set import ArraySet, ClipSet


class AugmentedClips(ClipSet):
    """Clips whose waveforms are changed before they are turned to log-mel.

    Parameters
    ----------
    source : ClipSet
        The clips.
    change : callable
        ``change(samples, sampling_rate, rng)`` gives a waveform changed.
    """

    def __init__(self, source, change):
        vars(self).update(vars(source))
        self.change = change

    def piece(self, index, rng=None):
        """Return the log-mel of one piece of a clip, changed if there is an rng."""
        waveform = self._read_piece(index, rng)
        if rng is not None:
            # Of arrays it may be the user's own, which is not to be changed.
            waveform = np.array(waveform)
            waveform = self.change(waveform, self.front_end.sampling_rate, rng)
        return self.front_end(waveform)


class AugmentedArrays(ArraySet):
    """Rows of an array that are changed, such as log-mel.

    Parameters
    ----------
    source : ArraySet
        The rows.
    change : callable
        ``change(row, None, rng)`` gives a row changed.
    """

    # In the threads that would read clips.
    is_slow = True

    def __init__(self, source, change):
        super().__init__(source.X, source.dtype)
        self.change = change

    def name(self, index):
        """Return what to call a clip in a message."""
        return f"X[{index}]"

    def piece(self, index, rng=None):
        """Return a row, changed if there is an rng."""
        (row,) = self.take([index])
        return row if rng is None else self.change(row, None, rng)


def augment_set(source, augmentations):
    """Have what is read for training be changed.

    Parameters
    ----------
    source : ArraySet or ClipSet
        The clips.
    augmentations : sequence of callable or None
        Each is called with the samples of a clip, or its row in X, and the sampling
        rate, ``None`` for rows; and with ``rng=`` a `numpy.random.Generator` if it has
        a parameter of that name.

    Returns
    -------
    ArraySet or ClipSet
        The same, or one whose pieces are changed.

    Raises
    ------
    TypeError
        If one of them can't be called. What changes the shape of a clip is a
        `ValueError` as it is read.
    """
    if not augmentations:
        return source
    steps = [(step, _takes_rng(step)) for step in augmentations]

    def change(samples, sampling_rate, rng):
        shape, dtype = samples.shape, samples.dtype
        for step, takes_rng in steps:
            options = {"rng": rng} if takes_rng else {}
            samples = step(samples, sampling_rate, **options)
            if np.shape(samples) != shape:
                raise ValueError(
                    f"augmentations has {step!r}, which makes of a clip of the shape "
                    f"{shape} one of {np.shape(samples)}: it has to give an array of "
                    "the same shape"
                )
        return np.asarray(samples, dtype=dtype)

    kind = AugmentedClips if isinstance(source, ClipSet) else AugmentedArrays
    return kind(source, change)


def _takes_rng(step):
    if not callable(step):
        raise TypeError(
            f"augmentations has {step!r}, which can't be called: give what is called "
            "with a clip's samples and their rate, such as RandomGain()"
        )
    try:
        return "rng" in inspect.signature(step).parameters
    except ValueError:  # of what is written in C
        return False
