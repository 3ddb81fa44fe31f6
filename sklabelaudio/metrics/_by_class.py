"""How well scores rank the clips of each class."""

import warnings

import numpy as np
from sklearn.exceptions import UndefinedMetricWarning

_BLOCK = 64  # classes whose columns are copied at a time, a cache line of bytes each


def iterate_classes(*matrices):
    """Yield the columns of matrices side by side, each contiguous.

    Parameters
    ----------
    *matrices : ndarrays of shape (n_clips, n_classes)
        The matrices.

    Yields
    ------
    tuple of ndarrays of shape (n_clips,)
        One column of each.
    """
    for start in range(0, matrices[0].shape[1], _BLOCK):
        block = slice(start, start + _BLOCK)
        yield from zip(
            *(np.ascontiguousarray(matrix[:, block].T) for matrix in matrices),
            strict=True,
        )


def average_precisions(
    target, y_score, sample_weight, kinds, *, n_levels_of_kind, penalties, norms
):
    """Return average precisions in which false positives weigh by their kind.

    Parameters
    ----------
    target : ndarray of shape (n_clips, n_classes), dtype=bool
        Which clips are of which classes.
    y_score : ndarray of shape (n_clips, n_classes)
        Scores.
    sample_weight : ndarray of shape (n_clips,) or None
        Weights of the clips, all positive.
    kinds : ndarray of shape (n_clips, n_classes), dtype=unsigned int
        Of which kind a false positive is.
    n_levels_of_kind : ndarray of shape (n_kinds,), dtype=int
        In how many of the levels, from the first on, a kind counts.
    penalties : ndarray of shape (n_kinds,)
        Weight of a false positive of each kind.
    norms : ndarray of shape (n_levels,)
        What these weights are divided by at each level.

    Returns
    -------
    ndarray of shape (n_levels, n_classes)
        Average precisions, NaN for a class without a clip.
    """
    n_bins = len(norms) + 1
    scores_by_level = np.full((len(norms), target.shape[1]), np.nan)
    columns = iterate_classes(target, y_score, kinds)
    for index, (is_positive, scores, kind) in enumerate(columns):
        if not is_positive.any():
            continue
        thresholds, at = np.unique(scores[is_positive], return_inverse=True)
        steps = np.bincount(
            at, None if sample_weight is None else sample_weight[is_positive]
        )
        # Those below the lowest positive are no false positives at any threshold.
        reached = np.flatnonzero((scores >= thresholds[0]) & ~is_positive)
        at = np.searchsorted(thresholds, scores[reached], side="right") - 1
        kind = kind[reached]
        weights = penalties[kind]
        if sample_weight is not None:
            weights *= sample_weight[reached]
        cells = at * n_bins + n_levels_of_kind[kind]
        false = np.bincount(cells, weights, minlength=len(steps) * n_bins)
        # Summed from the end: a score reaches all lower thresholds, and a kind counts
        # in all levels below the number of its levels.
        false = false.reshape(-1, n_bins)[::-1, :0:-1].cumsum(axis=0).cumsum(axis=1)
        true = steps[::-1].cumsum()
        precisions = true[:, None] / (true[:, None] + false / norms[::-1])
        scores_by_level[::-1, index] = steps[::-1] / true[-1] @ precisions
    return scores_by_level


def plain_average_precisions(target, y_score, sample_weight):
    """Return the average precision of each class, NaN for one without a clip.

    The parameters are those of `average_precisions`.
    """
    one = np.ones(1)
    return average_precisions(
        target,
        y_score,
        sample_weight,
        np.broadcast_to(np.uint8(0), target.shape),
        n_levels_of_kind=np.ones(1, dtype=int),
        penalties=one,
        norms=one,
    )[0]


def areas_under_roc(target, y_score, sample_weight):
    """Return the area under each class's ROC curve.

    The parameters are those of `average_precisions`.

    Returns
    -------
    ndarray of shape (n_classes,)
        Areas, NaN for a class without a clip and for one that every clip is of.
    """
    areas = np.full(target.shape[1], np.nan)
    columns = iterate_classes(target, y_score)
    for index, (is_positive, scores) in enumerate(columns):
        if is_positive.all() or not is_positive.any():
            continue
        thresholds, at = np.unique(scores[is_positive], return_inverse=True)
        steps, negative_weights = np.bincount(at), None
        if sample_weight is not None:
            steps = np.bincount(at, sample_weight[is_positive])
            negative_weights = sample_weight[~is_positive]
        # Of each negative: the positives above it, and half of those equal to it.
        above = np.concatenate([steps[::-1].cumsum()[::-1], [0]])
        negatives = scores[~is_positive]
        won = above[np.searchsorted(thresholds, negatives, side="left")]
        won = won + above[np.searchsorted(thresholds, negatives, side="right")]
        areas[index] = np.average(won, weights=negative_weights) / 2 / above[0]
    return areas


def average_classes(scores, target, sample_weight, average, undefined, labels=None):
    """Average the scores of classes.

    Parameters
    ----------
    scores : ndarray of shape (..., n_classes)
        Scores.
    target : ndarray of shape (n_clips, n_classes), dtype=bool
        Which clips are of which classes.
    sample_weight : ndarray of shape (n_clips,) or None
        Weights of the clips, all positive.
    average : {"macro", "weighted"} or None
        The mean over classes, that weighted by the clips of each, or none.
    undefined : float or "warn"
        The score of a class without a clip; NaN leaves it out, and "warn" is 0 with a
        warning.
    labels : sequence of length n_classes, default=None
        Labels of the classes, for the warning.

    Returns
    -------
    ndarray of shape (...) or (..., n_classes)
        The averages.
    """
    clips, columns = np.nonzero(target)
    support = np.bincount(
        columns,
        None if sample_weight is None else sample_weight[clips],
        minlength=target.shape[1],
    )
    absent = support == 0
    if undefined == "warn":
        undefined = 0.0
        if absent.any() and (average != "weighted" or absent.all()):
            warn_of_classes(
                "{} of {} classes have no clip, the first {}: they count as 0. Set "
                "zero_division=0.0 to have that without a warning, or np.nan to leave "
                "them out of the mean",
                absent,
                labels,
            )
    scores = np.where(absent, undefined, scores)
    if average is None:
        return scores
    if average == "weighted" or np.isnan(undefined):
        scores, support = scores[..., ~absent], support[~absent]
    if not support.size:
        return np.full(scores.shape[:-1], undefined)
    weights = support if average == "weighted" else None
    return np.average(scores, axis=-1, weights=weights)


def warn_of_classes(message, concerned, labels):
    """Warn that some classes have no score.

    Parameters
    ----------
    message : str
        With places for how many they are, of how many, and the first of them.
    concerned : ndarray of shape (n_classes,), dtype=bool
        Which classes they are.
    labels : sequence of length n_classes or None
        Labels of the classes.
    """
    first = int(np.argmax(concerned))
    named = f"column {first}" if labels is None else repr(list(labels)[first])
    message = message.format(int(concerned.sum()), len(concerned), named)
    warnings.warn(message, UndefinedMetricWarning, stacklevel=4)
