"""OmAP for cross-validation and searches."""

import numpy as np
from sklearn.metrics import make_scorer
from sklearn.utils._param_validation import StrOptions, validate_params
from sklearn.utils.metadata_routing import get_routing_for_object

from .._distances import check_distances
from ._checks import check_labels, check_names, is_indicator
from ._omap import OMAP_CONSTRAINTS, check_levels, omap_score

SCORING_METHODS = ("predict_proba", "decision_function")
_DEFAULTS = {
    "labels": None,
    "weighting": "distance",
    "levels": None,
    "average": "macro",
    "zero_division": "warn",
    "unlabelled": "warn",
}


class _OmAPScorer:
    def __init__(self, distances, methods, params):
        self._distances = distances
        self._methods = methods
        self._params = params
        # It knows how scikit-learn asks for sample weights; the scores need the names
        # of the columns too, which it doesn't tell.
        self._requests = make_scorer(omap_score)

    def __call__(self, estimator, X, y, sample_weight=None):
        y_score = score_classes(
            estimator,
            X,
            y,
            methods=self._methods,
            labels=self._params["labels"],
            n_classes=len(self._distances),
        )
        return omap_score(
            y,
            y_score,
            distances=self._distances,
            sample_weight=sample_weight,
            **self._params,
        )

    def __repr__(self):
        n_classes = len(self._distances)
        changed = [
            f", {name}={value!r}"
            for name, value in self._params.items()
            if name != "labels" and not np.array_equal(value, _DEFAULTS[name])
        ]
        return f"make_omap_scorer(<{n_classes} x {n_classes}>{''.join(changed)})"

    def set_score_request(self, **requests):
        """Ask for metadata, such as ``sample_weight=True``."""
        self._requests.set_score_request(**requests)
        return self

    def get_metadata_routing(self):
        """Give the requests of the scorer."""
        return get_routing_for_object(self._requests)

    def _accept_sample_weight(self):
        # scikit-learn asks this of each scorer of a multi-metric dict.
        return True


def check_scoring(distances, labels, response_method):
    """Return what a scorer is told, checked.

    Parameters
    ----------
    distances : array-like of shape (n_classes, n_classes)
        Distance between every two classes.
    labels : array-like of shape (n_classes,) or None
        Their labels.
    response_method : str or sequence of str
        The method that gives scores, or several.

    Returns
    -------
    distances : ndarray of shape (n_classes, n_classes)
        The distances.
    labels : list of length n_classes, or None
        The labels.
    methods : list of str
        The methods.

    Raises
    ------
    TypeError
        If labels are none, or have no order.
    ValueError
        If distances are none, labels are of other classes, or a method has no name.
    """
    methods = response_method
    methods = [methods] if isinstance(methods, str) else list(methods)
    if not methods or not all(isinstance(name, str) for name in methods):
        raise ValueError(
            f"response_method={response_method!r} must be the name of a method, or a "
            "list of names"
        )
    matrix = check_distances(distances)
    labels = check_labels(labels, len(matrix), "distances")
    check_names(labels, {"distances": distances})
    return matrix, labels, methods


def score_classes(estimator, X, y, *, methods, labels, n_classes):
    """Return the scores that a classifier gives, in the order of the distances.

    Parameters
    ----------
    estimator : classifier
        The fitted classifier.
    X : array-like
        The clips.
    y : array-like
        What they are: the columns of an indicator matrix must have the order of the
        classifier's.
    methods : list of str
        Methods that give scores, of which the first is called that there is.
    labels : list of length n_classes, or None
        The labels of the columns wanted. None takes the columns as they are.
    n_classes : int
        How many columns are wanted.

    Returns
    -------
    ndarray of shape (n_clips, n_classes)
        The scores.

    Raises
    ------
    TypeError
        If there is no such method.
    ValueError
        If it gives no score of each class, or of other classes.
    """
    y_score = _call_first(estimator, methods, X)
    y_score = _stack_columns(y_score, estimator, n_classes)
    return _order_columns(y_score, estimator, is_indicator(y, n_classes), labels)


def _call_first(estimator, methods, X):
    for name in methods:
        method = getattr(estimator, name, None)
        if method is not None:
            return method(X)
    raise TypeError(
        f"{type(estimator).__name__} has no {' or '.join(methods)}: OmAP ranks clips "
        "by scores of each class"
    )


def _stack_columns(y_score, estimator, n_classes):
    """Return the scores as a matrix, whatever scikit-learn's classifiers give."""
    if isinstance(y_score, list):
        for classes in estimator.classes_:
            if not set(classes) <= {0, 1}:
                raise ValueError(
                    f"an output of {type(estimator).__name__} has the classes "
                    f"{list(classes)}: with several outputs each must say yes or no, "
                    "1 or 0"
                )
        # Of each class the column of 1, or where training had 0 or 1 alone the only
        # one, which is the same for each clip and so tells nothing.
        return np.stack([values[:, -1] for values in y_score], axis=1)
    y_score = np.asarray(y_score)
    n_classes = len(getattr(estimator, "classes_", range(n_classes)))
    if y_score.ndim == 1 and n_classes == 2 and y_score.dtype.kind in "biuf":
        return np.stack([-y_score, y_score], axis=1)  # it was the second's
    if y_score.shape[1:] != (n_classes,):
        raise ValueError(
            f"{type(estimator).__name__} gives scores of shape {y_score.shape} for "
            f"{n_classes} classes: OmAP needs a column for each class, as "
            "predict_proba gives, or decision_function with one against the rest"
        )
    return y_score


def _order_columns(y_score, estimator, y_has_columns, labels):
    """Put the columns in the order of `labels`, where the estimator names them."""
    classes = getattr(estimator, "classes_", None)
    if labels is None or classes is None or isinstance(classes, list):
        return y_score
    classes = np.asarray(classes).tolist()
    if y_has_columns:
        if isinstance(classes[0], str) and classes != labels:
            raise ValueError(
                "the classes of the estimator and the columns of y, which labels "
                "names, have different orders: give both in one order"
            )
        return y_score
    unknown = [label for label in classes if label not in labels]
    if unknown:
        raise ValueError(
            f"the estimator has classes that are not in labels: {unknown}. Add them, "
            "and their distances"
        )
    # A class that the estimator never saw gets the same score for each clip, whatever
    # it is, for classes are ranked one by one.
    ordered = np.zeros((len(y_score), len(labels)), dtype=y_score.dtype)
    ordered[:, [labels.index(label) for label in classes]] = y_score
    return ordered


@validate_params(
    {
        name: constraint
        for name, constraint in OMAP_CONSTRAINTS.items()
        if name in {"distances", *_DEFAULTS}
    }
    | {
        "average": [StrOptions({"macro", "weighted"})],
        "response_method": [str, "array-like"],
    },
    prefer_skip_nested_validation=True,
)
def make_omap_scorer(
    distances,
    *,
    labels=None,
    weighting="distance",
    levels=None,
    average="macro",
    zero_division="warn",
    unlabelled="warn",
    response_method=SCORING_METHODS,
):
    """Make a scorer of ontology-aware mean average precision.

    Use it wherever scikit-learn takes ``scoring``: in cross-validation and searches,
    with any classifier that has class scores. y may be an indicator matrix, one label
    for each clip, or the labels of each clip; for these ``cv`` must be a splitter such
    as ``KFold``, since scikit-learn makes none for them.

    Parameters
    ----------
    distances : array-like of shape (n_classes, n_classes)
        Distance between every two classes: not negative, symmetric, 0 from a class to
        itself.
    labels : array-like of shape (n_classes,), default=None
        The labels of the rows of `distances`, needed unless y is an indicator matrix.
        By them the columns of the classifier's scores, in the order of its
        ``classes_``, come in the order of `distances`. A class that it never saw
        scores the same for each clip. ``None`` takes columns as they are.
    weighting : {"distance", "binary"}, default="distance"
        What a false positive weighs, as for :func:`omap_score`.
    levels : array-like of shape (n_levels,), default=None
        The distances up to which false positives cost nothing. ``None`` is every whole
        number from 0 to the greatest distance.
    average : {"macro", "weighted"}, default="macro"
        The mean over classes, or that weighted by their numbers of clips.
    zero_division : {"warn", 0.0, 1.0, np.nan}, default="warn"
        The score of a class that no clip of the fold is of: ``"warn"`` is 0 with a
        warning, and NaN leaves it out of the mean.
    unlabelled : {"warn", "farthest", "ignore"}, default="warn"
        What becomes of clips without a label, as for :func:`omap_score`.
    response_method : str or sequence of str, \
            default=("predict_proba", "decision_function")
        The method that gives scores; of several the first that the classifier has.

    Returns
    -------
    callable
        ``scorer(estimator, X, y, sample_weight=None)``. Calling it raises TypeError for
        an estimator without such a method, and what :func:`omap_score` raises.

    Raises
    ------
    TypeError
        If `labels` have no order.
    ValueError
        If `distances` or `levels` are none, `labels` are of other classes, or
        `response_method` is no name.

    See Also
    --------
    omap_score : The score.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.model_selection import cross_val_score
    >>> from sklabelaudio.metrics import make_omap_scorer
    >>> labels = ["car", "giggle", "laughter"]
    >>> distances = [[0, 4, 3], [4, 0, 1], [3, 1, 0]]
    >>> scoring = make_omap_scorer(distances, labels=labels)
    >>> scoring
    make_omap_scorer(<3 x 3>)
    >>> y = np.tile(labels, 10)
    >>> centres = {"car": 0.0, "giggle": 3.0, "laughter": 4.0}
    >>> noise = np.random.default_rng(0).normal(size=30)
    >>> X = (noise + [centres[label] for label in y]).reshape(-1, 1)
    >>> cross_val_score(LogisticRegression(), X, y, cv=3, scoring=scoring).round(2)
    array([0.96, 0.98, 1.  ])
    """
    checked, labels, methods = check_scoring(distances, labels, response_method)
    check_levels(levels, checked.max())
    params = {
        "labels": labels,
        "weighting": weighting,
        "levels": levels,
        "average": average,
        "zero_division": zero_division,
        "unlabelled": unlabelled,
    }
    return _OmAPScorer(checked, methods, params)
