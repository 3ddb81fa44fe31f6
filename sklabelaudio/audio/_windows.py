"""A clip that arrives in pieces, cut into the windows of a model."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class WindowPlan:
    """How a model cuts clips.

    Parameters
    ----------
    length : int
        Samples of a window.
    hop : int
        Samples from one window to the next, at most `length`.
    tail : {"pad", "drop", "align"}
        What to do with samples behind the last full window: a window more that is
        filled up with zeros; nothing; or a window more that ends with the clip and
        overlaps the one before. With ``"align"`` a clip shorter than a window is
        taken as it is, otherwise it is filled up with zeros.
    n_together : int, default=1
        Windows cut in one piece, for models whose windows share spectrogram frames.
    slack : int, default=0
        A clip that is longer than a window by so many samples at most is taken whole,
        with ``"align"``: a second window would hear the same once more.
    """

    length: int
    hop: int
    tail: str
    n_together: int = 1
    slack: int = 0

    def cut(self, blocks):
        """Cut a clip.

        Parameters
        ----------
        blocks : iterable of ndarray of shape (n_samples,)
            The clip, in pieces of any lengths.

        Yields
        ------
        samples : ndarray of shape (n_samples,)
            Samples of one or several windows that follow each other.
        n_windows : int
            How many.
        """
        piece = self.length + (self.n_together - 1) * self.hop
        step = self.n_together * self.hop
        held = np.empty(0, dtype=np.float32)  # from the next window's start on
        last = None  # what was cut before
        for block in blocks:
            held = np.concatenate([held, block]) if held.size else block
            # A clip's end is cut otherwise, so that there must be more behind it.
            while len(held) > piece + (self.slack if last is None else 0):
                last = held[:piece]
                yield last, self.n_together
                held = held[step:]
        if self.tail == "align":
            if last is None:
                yield held, 1
            elif len(held) > self.length - self.hop:
                rest = held[self.length - self.hop :]
                yield np.concatenate([last, rest])[-self.length :], 1
            return
        n_over = len(held) - self.length
        n_more = -(-n_over // self.hop) if self.tail == "pad" else n_over // self.hop
        n_windows = 1 + (max(n_more, 0) if last is None else n_more)
        if n_windows > 0:
            size = self.length + (n_windows - 1) * self.hop
            yield np.pad(held, (0, max(0, size - len(held))))[:size], n_windows

    def starts(self, n_samples):
        """Tell where the windows of a clip begin.

        Parameters
        ----------
        n_samples : int
            Length of the clip.

        Returns
        -------
        ndarray of shape (n_windows,)
            The first sample of each window.
        """
        if n_samples <= self.length + self.slack:
            return np.zeros(1, dtype=int)
        n_over = n_samples - self.length
        n_more = -(-n_over // self.hop) if self.tail != "drop" else n_over // self.hop
        starts = self.hop * np.arange(1 + n_more)
        return np.minimum(starts, n_over) if self.tail == "align" else starts
