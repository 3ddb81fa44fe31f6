"""The weighted ranking loss of the bilinear model."""

import numpy as np


def rank_penalties(n_classes):
    """Return the penalty of the class whose loss has rank r, for every rank.

    Parameters
    ----------
    n_classes : int
        Number of classes, C.

    Returns
    -------
    ndarray of shape (n_classes,)
        ``beta[(C - 1) // r]`` for r = 1..C, with ``beta[k]`` the k-th harmonic
        number: equation 3 of the paper, as line 8 of its algorithm 1 takes it.
    """
    ranks = np.arange(1, n_classes + 1)
    return harmonic_numbers(n_classes)[(n_classes - 1) // ranks]


def harmonic_numbers(n):
    """Return the harmonic numbers 0 to n, the paper's beta (equation 3)."""
    return np.concatenate([[0.0], np.cumsum(1 / np.arange(1, n + 1))])


def ranking_losses(scores, targets):
    """Compute the weighted ranking loss of every clip.

    Parameters
    ----------
    scores : ndarray of shape (n_clips, n_classes)
        Compatibilities.
    targets : ndarray of shape (n_clips,)
        Index of each clip's class.

    Returns
    -------
    ndarray of shape (n_clips,)
        The summands of the paper's empirical risk (equation 4): the margin losses
        (equation 5) summed over the classes, times ``beta[r] / r``, where r is the
        number of classes that score no less than the right one; 0 where r is 0.
    """
    rows = np.arange(len(scores))
    margins = scores - scores[rows, targets][:, np.newaxis]
    margins[rows, targets] = -np.inf
    ranks = np.count_nonzero(margins >= 0, axis=1)
    margins += 1
    np.maximum(margins, 0, out=margins)
    weights = harmonic_numbers(scores.shape[1])[ranks] / np.maximum(ranks, 1)
    return weights * margins.sum(axis=1)
