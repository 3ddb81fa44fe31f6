"""OmAP: mean average precision that forgives confusing classes that are alike."""

import warnings
from numbers import Real

import numpy as np
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.utils import check_array
from sklearn.utils._param_validation import Options, StrOptions, validate_params

from .._distances import check_distances
from ._by_class import average_classes, average_precisions
from ._checks import check_tagging

# A level whose masked matrix has a mean below this is not normalised, for all but
# nothing of it is left.
_LEAST_NORM = 1e-9
_MOST_LEVELS = 10_000
OMAP_CONSTRAINTS = {
    "y_true": ["array-like", "sparse matrix"],
    "y_score": ["array-like"],
    "distances": ["array-like"],
    "weighting": [StrOptions({"distance", "binary"})],
    "levels": ["array-like", None],
    "average": [StrOptions({"macro", "weighted"}), None],
    "sample_weight": ["array-like", None],
    "labels": ["array-like", None],
    "zero_division": [Options(Real, {0.0, 1.0}), "nan", StrOptions({"warn"})],
    "unlabelled": [StrOptions({"warn", "farthest", "ignore"})],
}


@validate_params(OMAP_CONSTRAINTS, prefer_skip_nested_validation=True)
def omap_score(
    y_true,
    y_score,
    *,
    distances,
    weighting="distance",
    levels=None,
    average="macro",
    sample_weight=None,
    labels=None,
    zero_division="warn",
    unlabelled="warn",
):
    """Ontology-aware mean average precision (OmAP).

    Use it beside :func:`mean_average_precision` for taggers of classes that are not
    equally far from one another: taking laughter for a giggle costs less than taking
    it for a car. Each false positive weighs by the distance from the class to the
    nearest true class of the clip, and at level L those within a distance of L cost
    nothing. OmAP is the mean over the levels; :func:`omap_levels` gives them one by
    one.

    Parameters
    ----------
    y_true : array-like or sparse matrix of shape (n_clips, n_classes), sequence of \
            sequences of labels, or array-like of shape (n_clips,)
        An indicator matrix of zeros and ones; or, with `labels`, the labels of each
        clip, or the one label of each.
    y_score : array-like of shape (n_clips, n_classes)
        Scores of any scale, the higher the more probable. They must be finite.
    distances : array-like of shape (n_classes, n_classes)
        Distance between every two classes, in the order of the columns: not negative,
        symmetric, 0 from a class to itself. For AudioSet the numbers of edges between
        them in the ontology, see `AudioSetOntology.distances`.
    weighting : {"distance", "binary"}, default="distance"
        What a false positive at a distance d beyond the level weighs:

        - ``"distance"``: d, divided by the mean of the distances between different
          classes, those within the level taken as 0. This is the published measure.
        - ``"binary"``: 1, so that level 0 is the plain mean average precision where no
          two classes are at distance 0.
    levels : array-like of shape (n_levels,), default=None
        The distances up to which false positives cost nothing. ``None`` is every whole
        number from 0 to the greatest distance: 0 to 21 for AudioSet.
    average : {"macro", "weighted"} or None, default="macro"
        ``"macro"`` is the mean over classes, ``"weighted"`` that weighted by their
        numbers of clips, ``None`` gives each class.
    sample_weight : array-like of shape (n_clips,), default=None
        Weights of the clips. Those of weight 0 are left out.
    labels : array-like of shape (n_classes,), default=None
        The labels of the columns in their order, needed where `y_true` holds labels.
    zero_division : {"warn", 0.0, 1.0, np.nan}, default="warn"
        The score of a class that no clip is of, which has no recall: ``"warn"`` is 0
        with a warning. NaN leaves such classes out of the mean, and is what to take
        for a few clips of many classes.
    unlabelled : {"warn", "farthest", "ignore"}, default="warn"
        Clips without a label: ``"farthest"`` takes all classes to be at the greatest
        distance from them, and ``"warn"`` does so with a warning; ``"ignore"`` leaves
        these clips out.

    Returns
    -------
    float, or ndarray of shape (n_classes,) if ``average=None``
        The score, between 0 and 1, higher is better.

    Raises
    ------
    ValueError
        If shapes or labels don't fit together, scores are not finite, or `distances`
        are none.

    See Also
    --------
    omap_levels : The scores at each level.
    make_omap_scorer : The same for cross-validation and searches.
    mean_average_precision : All false positives weigh the same.

    Notes
    -----
    Equal scores form one threshold, so scores in half precision, with more ties, give
    another value. With ``weighting="distance"`` level 0 is not the plain mean average
    precision, and the levels need not increase. At the greatest distance the score of
    every class is 1.

    Distances are stored by rank and whole numbers summed exactly: all 22 levels of
    AudioSet take less time than scikit-learn's plain average precision.

    References
    ----------
    .. [1] H. Liu, Q. Kong, X. Liu, X. Mei, W. Wang and M. D. Plumbley,
       "Ontology-aware Learning and Evaluation for Audio Tagging", INTERSPEECH 2023.
    .. [2] W. Liu and Y. Ren, "Semantic Proximity Alignment: Towards Human
       Perception-consistent Audio Tagging by Aligning with Label Text Description",
       ICASSP 2024.

    Examples
    --------
    Two models mistake a clip. One takes the giggle for laughter, its neighbour, the
    other for a car:

    >>> from sklabelaudio.metrics import mean_average_precision, omap_score
    >>> labels = ["car", "giggle", "laughter"]
    >>> distances = [[0, 4, 3], [4, 0, 1], [3, 1, 0]]
    >>> y_true = [["car"], ["giggle"], ["laughter"]]
    >>> near = [[0.9, 0.1, 0.1], [0.1, 0.6, 0.7], [0.1, 0.2, 0.5]]
    >>> far = [[0.5, 0.1, 0.1], [0.7, 0.6, 0.1], [0.1, 0.2, 0.5]]
    >>> for y_score in (near, far):
    ...     plain = mean_average_precision(y_true, y_score, labels=labels)
    ...     omap = omap_score(y_true, y_score, labels=labels, distances=distances)
    ...     print(f"{plain:.3f} {omap:.3f}")
    0.833 0.982
    0.833 0.826
    """
    return _average_levels(
        omap_levels(
            y_true,
            y_score,
            distances=distances,
            weighting=weighting,
            levels=levels,
            average=average,
            sample_weight=sample_weight,
            labels=labels,
            zero_division=zero_division,
            unlabelled=unlabelled,
        )
    )


def _average_levels(scores):
    means = scores.mean(axis=0)
    return float(means) if means.ndim == 0 else means


@validate_params(OMAP_CONSTRAINTS, prefer_skip_nested_validation=True)
def omap_levels(
    y_true,
    y_score,
    *,
    distances,
    weighting="distance",
    levels=None,
    average="macro",
    sample_weight=None,
    labels=None,
    zero_division="warn",
    unlabelled="warn",
):
    """Ontology-aware mean average precision at each level.

    Use it to see how coarse the confusions of a tagger are: at level L, taking a class
    for another within a distance of L costs nothing.

    Parameters
    ----------
    y_true : array-like or sparse matrix of shape (n_clips, n_classes), sequence of \
            sequences of labels, or array-like of shape (n_clips,)
        An indicator matrix of zeros and ones; or, with `labels`, the labels of each
        clip, or the one label of each.
    y_score : array-like of shape (n_clips, n_classes)
        Scores of any scale, the higher the more probable. They must be finite.
    distances : array-like of shape (n_classes, n_classes)
        Distance between every two classes, as for :func:`omap_score`.
    weighting : {"distance", "binary"}, default="distance"
        What a false positive weighs, as for :func:`omap_score`.
    levels : array-like of shape (n_levels,), default=None
        The distances up to which false positives cost nothing. ``None`` is every whole
        number from 0 to the greatest distance.
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
    unlabelled : {"warn", "farthest", "ignore"}, default="warn"
        What becomes of clips without a label, as for :func:`omap_score`.

    Returns
    -------
    ndarray of shape (n_levels,), or (n_levels, n_classes) if ``average=None``
        The scores, in the order of `levels`.

    Raises
    ------
    ValueError
        If shapes or labels don't fit together, scores are not finite, or `distances`
        or `levels` are none.

    See Also
    --------
    omap_score : Their mean.

    Examples
    --------
    >>> from sklabelaudio.metrics import omap_levels
    >>> distances = [[0, 4, 3], [4, 0, 1], [3, 1, 0]]
    >>> y_true = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    >>> y_score = [[0.9, 0.1, 0.1], [0.1, 0.6, 0.7], [0.1, 0.2, 0.5]]
    >>> omap_levels(y_true, y_score, distances=distances).round(3)
    array([0.909, 1.   , 1.   , 1.   , 1.   ])
    """
    target, y_score, sample_weight = check_tagging(
        y_true,
        y_score,
        labels=labels,
        sample_weight=sample_weight,
        distances=distances,
    )
    distances = check_distances(distances, target.shape[1])
    levels = check_levels(levels, distances.max())
    labelled = target.any(axis=1)
    if unlabelled == "ignore" and not labelled.all():
        target, y_score = target[labelled], y_score[labelled]
        if sample_weight is not None:
            sample_weight = sample_weight[labelled]
    elif unlabelled == "warn" and not labelled.all():
        warnings.warn(
            f"y_true has no label for {np.sum(~labelled)} of {len(labelled)} clips, "
            f"the first in row {np.argmin(labelled)}: they are taken to be farthest "
            "from all classes. Set unlabelled='farthest' to have that without a "
            "warning, or 'ignore' to leave such clips out",
            UndefinedMetricWarning,
            stacklevel=3,
        )
    values, ranks = np.unique(distances, return_inverse=True)
    kinds = _rank_nearest(target, ranks.astype(np.min_scalar_type(len(values) - 1)))
    order = np.argsort(levels)
    if weighting == "distance":
        penalties, norms = values, _level_norms(distances, levels[order])
    else:
        penalties, norms = np.ones(len(values)), np.ones(len(levels))
    scores = np.empty((len(levels), target.shape[1]))
    scores[order] = average_precisions(
        target,
        y_score,
        sample_weight,
        kinds,
        n_levels_of_kind=np.searchsorted(levels[order], values, side="left"),
        penalties=penalties,
        norms=norms,
    )
    return average_classes(
        scores, target, sample_weight, average, zero_division, labels
    )


def check_levels(levels, greatest):
    """Return the levels of OmAP.

    Parameters
    ----------
    levels : array-like of shape (n_levels,) or None
        Levels; None for each whole number up to `greatest`.
    greatest : float
        The greatest distance.

    Returns
    -------
    ndarray of shape (n_levels,), dtype=float64
        The levels.

    Raises
    ------
    ValueError
        If they are none, or too many.
    """
    if levels is None:
        if greatest >= _MOST_LEVELS:
            raise ValueError(
                f"distances go up to {greatest:g}, and levels=None takes a level for "
                f"each whole number: that is more than {_MOST_LEVELS:,} levels, pass "
                "some of them"
            )
        return np.arange(int(greatest) + 1, dtype=np.float64)
    levels = check_array(levels, ensure_2d=False, dtype=np.float64, input_name="levels")
    if levels.ndim != 1 or levels.min() < 0:
        raise ValueError(
            f"levels={levels.tolist()} must be a list of distances, none negative"
        )
    return levels


def _level_norms(distances, levels):
    n_pairs = distances.size - len(distances)
    sums = [distances[distances > level].sum() for level in levels]
    norms = np.array(sums) / n_pairs
    return np.where(norms > _LEAST_NORM, norms, 1.0)


def _rank_nearest(target, ranks):
    """Return, of each clip and class, the rank of the nearest label's distance.

    Parameters
    ----------
    target : ndarray of shape (n_clips, n_classes), dtype=bool
        Which clips are of which classes.
    ranks : ndarray of shape (n_classes, n_classes), dtype=unsigned int
        Ranks of the distances between classes.

    Returns
    -------
    ndarray of shape (n_clips, n_classes), dtype=unsigned int
        Ranks, the greatest of all for a clip without a label.
    """
    nearest = np.full(target.shape, ranks.max(), dtype=ranks.dtype)
    columns = np.nonzero(target)[1]
    counts = target.sum(axis=1)
    firsts = counts.cumsum() - counts
    # By turns over the first label of the clips, the second, ... so that a turn is one
    # minimum of whole matrices, however the numbers of labels differ.
    for turn in range(counts.max(initial=0)):
        clips = np.flatnonzero(counts > turn)
        labels = columns[firsts[clips] + turn]
        nearest[clips] = np.minimum(nearest[clips], ranks[labels])
    return nearest
