"""When the steps of an encoder's time line are, over the windows of a clip."""

import math

import numpy as np


def count_samples(duration, rate):
    """Return how many samples a clip is once resampled.

    Parameters
    ----------
    duration : float
        Length of the clip, in seconds.
    rate : float
        The rate that it is resampled to, in Hz.

    Returns
    -------
    int
        Its samples: halves are rounded up, as soxr does.
    """
    # A half is seldom one in binary.
    return max(math.floor(duration * rate + 0.5 + 1e-6), 1)


class TimeLine:
    """The steps over time of clips that are encoded in windows.

    Where windows overlap, each speaks up to the middle of the overlap, so that every
    step is of the window in which there is more to hear around it.

    Parameters
    ----------
    plan : WindowPlan
        How clips are cut.
    front_end : FrontEnd
        The encoder's front end.
    stride : int or None, default=None
        Log-mel frames from one step to the next.
    n_steps : int or None, default=None
        Without `stride`, the number of steps that divide a window evenly, whatever
        its length.
    offset : float or None, default=None
        Log-mel frame in the middle of the first step; ``None`` for steps that span
        frames 0 to ``stride - 1``, the next as many, and so on. Convolutions with a
        stride, and padded on both sides, have it at 0.
    """

    def __init__(self, plan, front_end, *, stride=None, n_steps=None, offset=None):
        self._plan = plan
        self._longest = plan.length + plan.slack
        self._rate = front_end.sampling_rate
        self._min_samples = front_end.min_samples
        self._first = front_end.first_centre
        self._hop = front_end.hop_length
        self._stride = stride
        self._n_steps = n_steps
        self._offset = offset

    def join(self, windows, n_samples):
        """Join the steps of a clip's windows.

        Parameters
        ----------
        windows : list of ndarray of shape (n_steps, n_values)
            What the encoder gives of each window.
        n_samples : int
            Length of the clip, at the encoder's rate.

        Returns
        -------
        ndarray of shape (n_steps, n_values)
            The steps that are kept, in order.
        """
        if len(windows) == 1:  # in whatever order torch has it
            return np.ascontiguousarray(windows[0])
        centres = self._centres_of_windows(len(windows[0]), n_samples)
        kept = self._keep(centres, n_samples)
        return np.concatenate(
            [steps[keep] for steps, keep in zip(windows, kept, strict=True)]
        )

    def times(self, n_frames, duration):
        """Tell when the steps of a clip are.

        Parameters
        ----------
        n_frames : int
            Number of steps.
        duration : float or None
            Length of the clip in seconds; ``None`` if it is not known.

        Returns
        -------
        ndarray of shape (n_frames,)
            Their middles from the clip's start, in seconds.

        Raises
        ------
        ValueError
            If they can't be told from their number alone, or a clip of that length
            does not have so many.
        """
        if duration is None:
            step = None if self._stride is None else self._stride * self._hop
            if step is None or (n_frames - 1) * step >= self._longest:
                raise ValueError(
                    f"duration=None: when {n_frames} steps are depends on how long "
                    "the clip is; pass duration, its length in seconds"
                )
            return self._centres(n_frames, None) / self._rate
        n_samples = count_samples(duration, self._rate)
        # All windows have the same number of steps: that of which so many are kept.
        for n_steps in self._possible_counts(n_samples):
            centres = self._centres_of_windows(n_steps, n_samples)
            kept = self._keep(centres, n_samples)
            n_kept = sum(map(np.count_nonzero, kept))
            if n_kept == n_frames:
                return centres[np.stack(kept)] / self._rate
        raise ValueError(
            f"n_frames={n_frames}: a clip of duration={duration:g} s has another "
            "number of steps; pass the length of the clip that they are of"
        )

    def _possible_counts(self, n_samples):
        """Return how many steps a window may have: encoders round differently."""
        if self._stride is None:
            return [self._n_steps]
        length = max(self._window_length(n_samples), self._min_samples)
        about = length // (self._stride * self._hop)
        return range(max(about - 1, 1), about + 3)

    def _centres(self, n_steps, n_samples):
        """Return the middles of a window's steps, in samples from its start."""
        steps = np.arange(n_steps)
        if self._stride is None:
            return (steps + 0.5) * n_samples / n_steps
        offset = (self._stride - 1) / 2 if self._offset is None else self._offset
        return self._first + (offset + steps * self._stride) * self._hop

    def _centres_of_windows(self, n_steps, n_samples):
        """Return the middles of the windows' steps, ``(n_windows, n_steps)``."""
        starts = self._plan.starts(n_samples)
        length = self._window_length(n_samples)
        return starts[:, np.newaxis] + self._centres(n_steps, length)

    def _window_length(self, n_samples):
        """Return how long the windows of a clip are."""
        return n_samples if n_samples <= self._longest else self._plan.length

    def _keep(self, centres, n_samples):
        """Return which steps of each window are kept."""
        starts = self._plan.starts(n_samples)
        borders = (starts[1:] + starts[:-1] + self._plan.length) / 2
        lower = np.concatenate([[-np.inf], borders])
        upper = np.concatenate([borders, [np.inf]])
        return list(
            (centres >= lower[:, np.newaxis]) & (centres < upper[:, np.newaxis])
        )
