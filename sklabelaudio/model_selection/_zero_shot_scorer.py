"""A scorer that makes the labels of the test fold the candidates."""

from inspect import signature

import numpy as np
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import get_scorer
from sklearn.pipeline import Pipeline
from sklearn.utils import column_or_1d
from sklearn.utils._param_validation import validate_params
from sklearn.utils.metadata_routing import get_routing_for_object
from sklearn.utils.validation import check_is_fitted

from ..metrics import harmonic_mean_score


def _find_candidate_estimator(estimator):
    """Go down through pipelines and metas to the one with `candidate_labels`."""
    path, inner = [], estimator
    while inner is not None:
        path.append(type(inner).__name__)
        # Not hasattr: wrappers that pass attribute reads through would be taken
        # for the estimator itself, and setting the parameter on them does nothing.
        if hasattr(inner, "get_params") and "candidate_labels" in inner.get_params(
            deep=False
        ):
            return inner
        if isinstance(inner, Pipeline):
            inner = inner.steps[-1][1]
        elif isinstance(inner, FrozenEstimator):
            inner = inner.estimator
        else:
            inner = getattr(
                inner, "best_estimator_", getattr(inner, "estimator_", None)
            )
    raise TypeError(
        "zero_shot_scorer found no estimator with the parameter candidate_labels in "
        f"{' > '.join(path)}: score a zero-shot classifier, alone, as the last step of "
        "a pipeline, or in a fitted search with refit"
    )


def _harmonic_mean(estimator, X, y):
    seen_labels = _find_candidate_estimator(estimator).seen_classes_
    return harmonic_mean_score(y, estimator.predict(X), seen_labels=seen_labels)


class _ZeroShotScorer:
    def __init__(self, scoring, candidate_labels, include_seen):
        self.scoring = scoring
        self.candidate_labels = candidate_labels
        self.include_seen = include_seen
        if scoring == "harmonic_mean":
            self._scorer, self.include_seen = _harmonic_mean, True
        else:
            self._scorer = get_scorer(scoring)

    def __call__(self, estimator, X, y, **score_params):
        inner = _find_candidate_estimator(estimator)
        candidates = self._candidates(inner, y)
        former = inner.candidate_labels
        try:
            inner.set_params(candidate_labels=candidates)
            return self._scorer(estimator, X, y, **score_params)
        finally:
            inner.set_params(candidate_labels=former)

    def _candidates(self, inner, y):
        labels = np.unique(column_or_1d(y))
        if self.candidate_labels is None:
            candidates = labels
        else:
            # Sorted, for scikit-learn's metrics take the columns to be in that order.
            candidates = np.unique(list(self.candidate_labels))
        if self.include_seen:
            check_is_fitted(inner, "seen_classes_")
            candidates = np.union1d(candidates, inner.seen_classes_)
        missing = np.setdiff1d(labels, candidates).tolist()
        if missing:
            raise ValueError(
                f"candidate_labels lacks labels of y, {missing}: no prediction could "
                "be right for them"
            )
        if len(candidates) == 1:
            raise ValueError(
                f"y holds the one label {candidates.item()!r}, so that any prediction "
                "would be right: test on more classes, or set candidate_labels or "
                "include_seen=True"
            )
        return candidates.tolist()

    def __repr__(self):
        if isinstance(self.scoring, str):
            arguments = [repr(self.scoring)]
        else:
            arguments = [getattr(self.scoring, "__name__", repr(self.scoring))]
        if self.candidate_labels is not None:
            arguments.append(f"candidate_labels={self.candidate_labels!r}")
        if self.include_seen:
            arguments.append("include_seen=True")
        return f"zero_shot_scorer({', '.join(arguments)})"

    def get_metadata_routing(self):
        """Give the requests of the wrapped scorer."""
        return get_routing_for_object(self._scorer)

    def _accept_sample_weight(self):
        # scikit-learn asks this of each scorer of a multi-metric dict.
        accepts = getattr(self._scorer, "_accept_sample_weight", None)
        if accepts is not None:
            return accepts()
        return "sample_weight" in signature(self._scorer).parameters


@validate_params(
    {
        "scoring": [str, callable],
        "candidate_labels": ["array-like", None],
        "include_seen": ["boolean"],
    },
    prefer_skip_nested_validation=True,
)
def zero_shot_scorer(scoring, *, candidate_labels=None, include_seen=False):
    """Make a scorer that offers the labels of the test fold as candidates.

    Use it wherever scikit-learn takes ``scoring``, with splits that keep the test
    classes out of training. Without it a classifier predicts among the classes it
    was fitted on, and scores 0 on clips of other classes.

    The scorer sets `candidate_labels` of the classifier, calls `scoring`, and sets
    the former value again. The classifier is found as the last step of a pipeline,
    in a fitted search, and in other meta-estimators that keep it in `estimator_`.

    Parameters
    ----------
    scoring : str or callable
        A name that scikit-learn knows, such as ``"accuracy"``, a scorer made by
        ``make_scorer``, any ``scoring(estimator, X, y)``, or ``"harmonic_mean"``:
        generalised zero-shot by :func:`~sklabelaudio.metrics.harmonic_mean_score`
        with the classes of the fit as the seen ones, which implies `include_seen`.
    candidate_labels : array-like of shape (n_candidates,), default=None
        Candidates of every fold. They must comprise the labels of the fold. None
        takes the labels that occur in the test fold.
    include_seen : bool, default=False
        Add the classes of the fit (`seen_classes_`) to the candidates: generalised
        zero-shot.

    Returns
    -------
    callable
        ``scorer(estimator, X, y)``. Calling it raises TypeError for an estimator
        without `candidate_labels`, and ValueError where a label of y is no candidate
        or where there is but one candidate.

    See Also
    --------
    UnseenClassKFold : Class-disjoint folds.

    Notes
    -----
    Metrics of probabilities, such as ``"neg_log_loss"``, expect each candidate to
    occur in y. Where one may not, give them their ``labels``:
    ``make_scorer(log_loss, greater_is_better=False,
    response_method="predict_proba", labels=labels)``.

    Examples
    --------
    >>> from sklearn.metrics import f1_score, make_scorer
    >>> from sklabelaudio.model_selection import zero_shot_scorer
    >>> zero_shot_scorer("accuracy")
    zero_shot_scorer('accuracy')
    >>> zero_shot_scorer(make_scorer(f1_score, average="macro"), include_seen=True)
    zero_shot_scorer(make_scorer(f1_score, ..., average=macro), include_seen=True)

    A classifier that goes by one number for each label:

    >>> import numpy as np
    >>> from sklearn.base import BaseEstimator, ClassifierMixin
    >>> from sklearn.model_selection import cross_val_score
    >>> from sklabelaudio.model_selection import UnseenClassKFold
    >>> PITCH = {"bass": 1, "cello": 2, "flute": 3, "viola": 4}
    >>> class NearestPitch(ClassifierMixin, BaseEstimator):
    ...     def __init__(self, candidate_labels=None):
    ...         self.candidate_labels = candidate_labels
    ...     def fit(self, X, y):
    ...         self.seen_classes_ = np.unique(y)
    ...         return self
    ...     @property
    ...     def classes_(self):
    ...         if self.candidate_labels is None:
    ...             return self.seen_classes_
    ...         return np.asarray(self.candidate_labels)
    ...     def predict(self, X):
    ...         pitches = np.array([PITCH[label] for label in self.classes_])
    ...         return self.classes_[np.abs(X - pitches).argmin(axis=1)]
    >>> X, y = np.array([[1.1], [2.2], [2.9], [4.3]]), sorted(PITCH)
    >>> cv = UnseenClassKFold(n_splits=2)
    >>> cross_val_score(NearestPitch(), X, y, cv=cv, scoring="accuracy")
    array([0., 0.])
    >>> scoring = zero_shot_scorer("accuracy")
    >>> cross_val_score(NearestPitch(), X, y, cv=cv, scoring=scoring)
    array([1., 1.])
    """
    return _ZeroShotScorer(scoring, candidate_labels, include_seen)
