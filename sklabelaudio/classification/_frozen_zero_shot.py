"""What the classifiers that need no training share."""

from abc import ABCMeta, abstractmethod
from collections.abc import Mapping
from numbers import Real

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils import check_array, check_consistent_length
from sklearn.utils._param_validation import HasMethods, Interval
from sklearn.utils.validation import check_is_fitted, validate_data

from ..text import LabelTextEmbedder
from ._candidates import check_candidate_labels
from ._held_vectors import look_up
from ._label_sets import read_label_sets, read_labels


class FrozenZeroShotClassifier(ClassifierMixin, BaseEstimator, metaclass=ABCMeta):
    """Base of classifiers that compare clips with labels by what others learned.

    `fit` looks at no clip: it embeds labels. Subclasses say how well clips fit to
    label vectors, and what probabilities that makes.
    """

    _parameter_constraints = {
        "label_embedder": [HasMethods(["fit", "transform"]), Mapping, None],
        "multi_label": ["boolean"],
        "threshold": [Interval(Real, 0, 1, closed="both")],
        "reject_threshold": [Real, None],
        "reject_label": [str, Real, None],
        "candidate_labels": ["array-like", None],
    }

    @abstractmethod
    def _score(self, X, vectors):
        """Return how well clips fit to unit vectors of labels, ``(n_clips, n)``."""

    @abstractmethod
    def _to_probabilities(self, scores):
        """Return the probabilities that scores of the active labels make."""

    @property
    def classes_(self):
        """Active labels: `candidate_labels`, or else the labels of `fit`."""
        if self.candidate_labels is None:
            return self.seen_classes_
        may_be_none = self.multi_label or self.reject_threshold is not None
        return check_candidate_labels(
            self.candidate_labels,
            n_least=1 if may_be_none else 2,
            sort=not self.multi_label,
        )

    def decision_function(self, X):
        """Compute how well clips fit to the active labels.

        Parameters
        ----------
        X : array-like of shape (n_clips, n_features)
            The clips, as in `fit`.

        Returns
        -------
        ndarray of shape (n_clips, n_classes) or (n_clips,)
            Scores of `classes_`. With two classes of which one is to be chosen, how
            much higher the score of the second is.

        Raises
        ------
        UnknownLabelError, ValueError
            If a candidate has no vector, is there twice, or is the only one.
        """
        scores = self._scores(X)
        if scores.shape[1] == 2 and not self.multi_label:
            return scores[:, 1] - scores[:, 0]
        return scores

    def predict_proba(self, X):
        """Compute probabilities of the active labels.

        They are good for ranking; for probabilities that can be relied on, use
        scikit-learn's ``CalibratedClassifierCV`` on clips whose labels are known.

        Parameters
        ----------
        X : array-like of shape (n_clips, n_features)
            The clips, as in `fit`.

        Returns
        -------
        ndarray of shape (n_clips, n_classes)
            Probabilities of `classes_`. They sum to one over the labels, unless
            `multi_label`.

        Raises
        ------
        UnknownLabelError, ValueError
            If a candidate has no vector, is there twice, or is the only one.
        """
        return self._to_probabilities(self._scores(X))

    def predict(self, X):
        """Name clips by the active label that fits best, or by all that fit.

        Parameters
        ----------
        X : array-like of shape (n_clips, n_features)
            The clips, as in `fit`.

        Returns
        -------
        ndarray of shape (n_clips,) or (n_clips, n_classes)
            Labels; those of `classes_`, and `reject_label` where the best score is
            below `reject_threshold`. With `multi_label` an indicator matrix, whose
            columns are those of `classes_`.

        Raises
        ------
        UnknownLabelError, ValueError
            If a candidate has no vector, is there twice, is the only one, or is
            `reject_label`.
        """
        scores = self._scores(X)
        if self.multi_label:
            return (self._to_probabilities(scores) >= self.threshold).astype(int)
        best = scores.argmax(axis=1)
        if self.reject_threshold is None:
            return self.classes_[best]
        names = _add_label(self.classes_, self.reject_label)
        rejected = scores.max(axis=1) < self.reject_threshold
        return names[np.where(rejected, len(names) - 1, best)]

    def _scores(self, X):
        check_is_fitted(self, "label_embedder_")
        X = self._check_clips(X)
        return self._score(X, self._embed_active_labels())

    def _fit_labels(self, X, y):
        """Check clips and targets, where there are any, and learn the labels."""
        if self.multi_label and self.reject_threshold is not None:
            raise ValueError(
                f"reject_threshold={self.reject_threshold} with multi_label=True: a "
                "clip that no label fits gets none anyway; set threshold"
            )
        if y is None and self.candidate_labels is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is "
                "None: pass labels, or set candidate_labels"
            )
        if X is None and hasattr(self, "feature_names_in_"):
            del self.feature_names_in_
        self._fitted_on_clips = X is not None
        if y is None or self.multi_label:
            if X is not None:
                X = self._check_clips(X, reset=True)
            labels = self.classes_[:0] if y is None else self._read_label_sets(X, y)
        else:
            if X is not None:
                X, y = self._check_clips(X, y, reset=True)
            labels = read_labels(y)
        self.seen_classes_ = labels

    def _read_label_sets(self, X, y):
        if X is not None:
            check_consistent_length(X, y)
        return read_label_sets(
            y, None if self.candidate_labels is None else self.classes_
        )

    def _check_clips(self, X, y=None, *, reset=False):
        """Return X, or X and y, as arrays of finite numbers."""
        if not reset and not self._fitted_on_clips and hasattr(X, "to_numpy"):
            X = X.to_numpy()  # there were no names in fit to compare those of X with
        checked = validate_data(
            self,
            X,
            "no_validation" if y is None else y,
            dtype=[np.float64, np.float32],
            ensure_all_finite=False,  # for the sake of the message
            reset=reset,
        )
        finite = np.isfinite(checked if y is None else checked[0]).all(axis=1)
        if not finite.all():
            rows = np.flatnonzero(~finite)
            raise ValueError(
                f"X contains NaN or infinity in {len(rows)} of {len(finite)} rows, "
                f"such as row {rows[0]}: an embedder gives NaN for clips that can't be "
                "read (on_error='skip'); leave these rows out"
            )
        return checked

    def _fit_label_embedder(self, labels):
        embedder = self.label_embedder
        if embedder is None:
            embedder = LabelTextEmbedder()
        elif isinstance(embedder, Mapping):
            embedder = LabelTextEmbedder(embedder)
        self.label_embedder_ = clone(embedder).fit(labels)
        self._vectors = {}

    def _embed_labels(self, labels):
        """Return unit vectors of labels, ``(n_labels, n_text_features)``, float64.

        Each label is embedded once. It goes into the pickle as well, so that the
        labels of `fit` need no text model where a classifier is used.
        """
        return look_up(labels, self._vectors, self._embed_new)

    def _embed_new(self, labels):
        vectors = check_array(
            self.label_embedder_.transform(labels),
            dtype=np.float64,
            input_name="what label_embedder gives",
        )
        zero = ~vectors.any(axis=1)
        if zero.any():
            raise ValueError(
                f"the vector of {labels[zero.argmax()]!r} is zero, which has no "
                "direction: mend it in label_embedder"
            )
        return to_unit_rows(vectors)

    def _embed_active_labels(self):
        labels = self.classes_.tolist()
        if not labels:
            raise ValueError(
                "there are no labels to choose among: fit had no y, so set "
                "candidate_labels"
            )
        return self._embed_labels(labels)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = self.candidate_labels is None
        tags.classifier_tags.multi_class = True
        tags.classifier_tags.multi_label = self.multi_label
        # Nothing is learned from clips: labels without meaning can't be told apart.
        tags.classifier_tags.poor_score = True
        return tags


def to_unit_rows(X):
    """Divide rows by their Euclidean length, in float64; zeros stay zeros."""
    X = np.asarray(X, dtype=np.float64)
    lengths = np.linalg.norm(X, axis=1, keepdims=True)
    return X / np.where(lengths == 0, 1, lengths)


def _add_label(classes, label):
    """Append a label to labels, and keep the type of both."""
    if label in classes.tolist():
        raise ValueError(
            f"reject_label={label!r} is a candidate as well: choose another"
        )
    kinds = "U" if isinstance(label, str) else "iuf"
    alike = label is not None and classes.dtype.kind in kinds
    return np.array([*classes.tolist(), label], dtype=None if alike else object)
