"""Scores of audio tagging, where a clip may be of several classes."""

import math
from numbers import Real

import numpy as np
from scipy.special import ndtri
from sklearn.utils._param_validation import Options, StrOptions, validate_params

from ._by_class import (
    areas_under_roc,
    average_classes,
    plain_average_precisions,
    warn_of_classes,
)
from ._checks import check_tagging

_CONSTRAINTS = {
    "y_true": ["array-like", "sparse matrix"],
    "y_score": ["array-like"],
    "sample_weight": ["array-like", None],
    "labels": ["array-like", None],
}
_ROWS = 1024  # rows of scores that are compared at a time


@validate_params(
    _CONSTRAINTS
    | {
        "average": [StrOptions({"macro", "weighted"}), None],
        "zero_division": [Options(Real, {0.0, 1.0}), "nan", StrOptions({"warn"})],
    },
    prefer_skip_nested_validation=True,
)
def mean_average_precision(
    y_true,
    y_score,
    *,
    average="macro",
    sample_weight=None,
    labels=None,
    zero_division="warn",
):
    """Mean over the classes of their average precisions (mAP).

    It is scikit-learn's ``average_precision_score``, several times as fast, for labels
    too, and with a rule for classes without clips.

    Parameters
    ----------
    y_true : array-like or sparse matrix of shape (n_clips, n_classes), sequence of \
            sequences of labels, or array-like of shape (n_clips,)
        An indicator matrix of zeros and ones; or, with `labels`, the labels of each
        clip, or the one label of each.
    y_score : array-like of shape (n_clips, n_classes)
        Scores of any scale, the higher the more probable. They must be finite.
    average : {"macro", "weighted"} or None, default="macro"
        ``"macro"`` is the mean over classes, ``"weighted"`` that weighted by their
        numbers of clips, ``None`` gives each class.
    sample_weight : array-like of shape (n_clips,), default=None
        Weights of the clips. Those of weight 0 are left out.
    labels : array-like of shape (n_classes,), default=None
        The labels of the columns in their order, needed where `y_true` holds labels.
    zero_division : {"warn", 0.0, 1.0, np.nan}, default="warn"
        The score of a class that no clip is of: ``"warn"`` is 0 with a warning, and
        NaN leaves it out of the mean.

    Returns
    -------
    float, or ndarray of shape (n_classes,) if ``average=None``
        The score, between 0 and 1, higher is better.

    Raises
    ------
    ValueError
        If shapes or labels don't fit together, or scores are not finite.

    See Also
    --------
    omap_score : Takes confusions of classes that are alike less seriously.

    Examples
    --------
    >>> from sklabelaudio.metrics import mean_average_precision
    >>> y_true = [["dog"], ["rain", "dog"], []]
    >>> y_score = [[0.9, 0.2], [0.4, 0.3], [0.5, 0.1]]
    >>> round(mean_average_precision(y_true, y_score, labels=["dog", "rain"]), 3)
    0.917
    """
    target, y_score, sample_weight = check_tagging(
        y_true, y_score, labels=labels, sample_weight=sample_weight
    )
    scores = plain_average_precisions(target, y_score, sample_weight)
    scores = average_classes(
        scores, target, sample_weight, average, zero_division, labels
    )
    return scores if average is None else float(scores)


@validate_params(
    _CONSTRAINTS | {"average": [StrOptions({"macro"}), None]},
    prefer_skip_nested_validation=True,
)
def d_prime_score(y_true, y_score, *, average="macro", sample_weight=None, labels=None):
    """How far apart scores of clips with and without a class are, in deviations.

    d' is the distance between the means of two normal distributions of deviation one
    whose ROC curve has the area (AUC) that the scores have: √2 times the normal
    quantile of the area. Papers on AudioSet give it beside mAP; unlike that it does
    not depend on how rare classes are.

    Parameters
    ----------
    y_true : array-like or sparse matrix of shape (n_clips, n_classes), sequence of \
            sequences of labels, or array-like of shape (n_clips,)
        An indicator matrix of zeros and ones; or, with `labels`, the labels of each
        clip, or the one label of each.
    y_score : array-like of shape (n_clips, n_classes)
        Scores of any scale, the higher the more probable. They must be finite.
    average : {"macro"} or None, default="macro"
        ``"macro"`` is d' of the mean area over classes, as papers give it, and not the
        mean of d', which one class without an error would make infinite. ``None``
        gives d' of each class.
    sample_weight : array-like of shape (n_clips,), default=None
        Weights of the clips. Those of weight 0 are left out.
    labels : array-like of shape (n_classes,), default=None
        The labels of the columns in their order, needed where `y_true` holds labels.

    Returns
    -------
    float, or ndarray of shape (n_classes,) if ``average=None``
        The score, 0 for scores that tell nothing, higher is better, infinite without
        an error. A class that no clip or every clip is of has none: it is left out of
        the mean, with a warning, and NaN with ``average=None``.

    Raises
    ------
    ValueError
        If shapes or labels don't fit together, scores are not finite, or no class has
        both clips that are of it and others.

    References
    ----------
    .. [1] S. Hershey et al., "CNN architectures for large-scale audio
       classification", ICASSP 2017.

    Examples
    --------
    >>> from sklabelaudio.metrics import d_prime_score
    >>> y_true = [["dog"], ["rain", "dog"], []]
    >>> y_score = [[0.9, 0.2], [0.4, 0.3], [0.5, 0.1]]
    >>> round(d_prime_score(y_true, y_score, labels=["dog", "rain"]), 3)
    0.954
    """
    target, y_score, sample_weight = check_tagging(
        y_true, y_score, labels=labels, sample_weight=sample_weight
    )
    areas = areas_under_roc(target, y_score, sample_weight)
    if average is None:
        return math.sqrt(2) * ndtri(areas)
    undefined = np.isnan(areas)
    if undefined.all():
        raise ValueError(
            "y_true has no class with both clips that are of it and others: d' "
            "compares the scores of the ones and the others"
        )
    if undefined.any():
        warn_of_classes(
            "d' is undefined for {} of {} classes, the first {}: no clip or every clip "
            "is of them, and they are left out of the mean",
            undefined,
            labels,
        )
    return float(math.sqrt(2) * ndtri(np.nanmean(areas)))


@validate_params(
    _CONSTRAINTS | {"average": [StrOptions({"weighted"}), None]},
    prefer_skip_nested_validation=True,
)
def lwlrap_score(
    y_true, y_score, *, average="weighted", sample_weight=None, labels=None
):
    """Label-weighted label-ranking average precision (lωlrap).

    For each label of each clip: which part of the classes that score as high in that
    clip, or higher, are true. The mean over all labels is the score, so that each
    label counts the same, and not each clip. It compares the classes of a clip with
    one another, while mAP compares clips.

    Parameters
    ----------
    y_true : array-like or sparse matrix of shape (n_clips, n_classes), sequence of \
            sequences of labels, or array-like of shape (n_clips,)
        An indicator matrix of zeros and ones; or, with `labels`, the labels of each
        clip, or the one label of each. Clips without labels add nothing.
    y_score : array-like of shape (n_clips, n_classes)
        Scores, comparable between classes, the higher the more probable. They must be
        finite. Equal scores share the lowest of their ranks.
    average : {"weighted"} or None, default="weighted"
        ``"weighted"`` is the mean over labels, so of the classes weighted by their
        numbers of clips; ``None`` gives each class.
    sample_weight : array-like of shape (n_clips,), default=None
        Weights of the clips, that each of their labels has. Those of weight 0 are
        left out.
    labels : array-like of shape (n_classes,), default=None
        The labels of the columns in their order, needed where `y_true` holds labels.

    Returns
    -------
    float, or ndarray of shape (n_classes,) if ``average=None``
        The score, between 0 and 1, higher is better. With ``average=None`` NaN for a
        class that no clip is of.

    Raises
    ------
    ValueError
        If shapes or labels don't fit together, scores are not finite, or no clip has
        a label.

    References
    ----------
    .. [1] E. Fonseca, M. Plakal, F. Font, D. P. W. Ellis and X. Serra, "Audio tagging
       with noisy labels and minimal supervision", DCASE 2019.

    Examples
    --------
    >>> from sklabelaudio.metrics import lwlrap_score
    >>> y_true = [["dog"], ["rain", "dog"], []]
    >>> y_score = [[0.2, 0.9], [0.4, 0.3], [0.5, 0.1]]
    >>> round(lwlrap_score(y_true, y_score, labels=["dog", "rain"]), 3)
    0.833
    """
    target, y_score, sample_weight = check_tagging(
        y_true, y_score, labels=labels, sample_weight=sample_weight
    )
    clips, columns = np.nonzero(target)
    if not clips.size:
        raise ValueError(
            "y_true has no clip with a label: lwlrap is a mean over the labels of clips"
        )
    precisions = np.empty(len(clips))
    for start in range(0, len(clips), _ROWS):
        rows = clips[start : start + _ROWS]
        own = y_score[rows, columns[start : start + _ROWS]]
        reached = y_score[rows] >= own[:, None]
        n_true = (reached & target[rows]).sum(axis=1)
        precisions[start : start + _ROWS] = n_true / reached.sum(axis=1)
    weights = None if sample_weight is None else sample_weight[clips]
    if average == "weighted":
        return float(np.average(precisions, weights=weights))
    n_classes = target.shape[1]
    totals = np.bincount(columns, weights, minlength=n_classes)
    if weights is not None:
        precisions = precisions * weights
    sums = np.bincount(columns, precisions, minlength=n_classes)
    return np.divide(sums, totals, out=np.full(n_classes, np.nan), where=totals > 0)
