"""What taggers predict: scores, probabilities and labels of clips."""

import numpy as np
from scipy.special import expit, softmax
from sklearn.metrics import accuracy_score
from sklearn.utils.validation import check_is_fitted

from ._candidates import check_candidate_labels
from ._proximity_scores import choose_thresholds
from ._targets import read_targets


class TaggerMixin:
    """Predictions of a tagger, which give each label a logit.

    Expects the parameters `candidate_labels` and `threshold`, the attribute
    `seen_classes_`, and of `fit` further `_exclusive`, whether clips had one label
    each, `_tuned`, a dict of thresholds by label, and the method `_score`, which gives
    the logits of `classes_`.
    """

    @property
    def classes_(self):
        """Labels that are scored: `candidate_labels`, or else those of `fit`."""
        if self.candidate_labels is None:
            return self.seen_classes_
        exclusive = self._exclusive
        return check_candidate_labels(
            self.candidate_labels, n_least=2 if exclusive else 1, sort=exclusive
        )

    @property
    def thresholds_(self):
        """The threshold of each of `classes_`: tuned, or else `threshold`."""
        classes = self.classes_.tolist()
        if np.ndim(self.threshold) == 0:
            thresholds = np.full(len(classes), float(self.threshold))
        else:
            thresholds = np.asarray(self.threshold, dtype=np.float64)
            if thresholds.shape != (len(classes),):
                raise ValueError(
                    f"threshold has the shape {thresholds.shape} and there are "
                    f"{len(classes)} labels: give one for all, or one for each"
                )
            if not ((thresholds >= 0) & (thresholds <= 1)).all():
                raise ValueError(
                    f"threshold has values from {thresholds.min():g} to "
                    f"{thresholds.max():g}: give probabilities, from 0 to 1"
                )
        tuned = zip(classes, thresholds.tolist(), strict=True)
        return np.array([self._tuned.get(label, value) for label, value in tuned])

    def tune_thresholds(self, X, y):
        """Choose the threshold of each label for the best F1 score on some clips.

        Best on clips that were not trained with. `fit` forgets them.

        Parameters
        ----------
        X : array-like
            Clips, as in `fit`.
        y : array-like
            Their labels, as in `fit` but for one label for each clip. A label that no
            clip has, or all, keeps its threshold.

        Returns
        -------
        self : SPATagger
            The tagger, with new `thresholds_`.

        Raises
        ------
        ValueError
            If it was fitted with one label for each clip, of which it gives the most
            probable whatever the threshold.
        """
        check_is_fitted(self, "n_iter_")
        if self._exclusive:
            raise ValueError(
                "fit had one label for each clip, so that predict gives the most "
                "probable one and no threshold is looked at: fit with lists of labels"
            )
        proba = self.predict_proba(X)
        target = read_targets(y, self.classes_).indicator
        tuned = choose_thresholds(target, proba, self.thresholds_)
        self._tuned = dict(zip(self.classes_.tolist(), tuned.tolist(), strict=True))
        return self

    def decision_function(self, X):
        """Score the active labels by their logits.

        Parameters
        ----------
        X : array-like
            Clips, as in `fit`.

        Returns
        -------
        ndarray of shape (n_clips, n_classes) or (n_clips,)
            Scores of `classes_`. With two of which one is to be chosen, how much
            higher that of the second is.

        Raises
        ------
        ValueError
            If a label was not trained, and with ``alpha=0`` no proximity either.
        UnknownLabelError
            If a label that was not trained has no vector.
        """
        scores = self._score(X)
        if self._exclusive and scores.shape[1] == 2:
            return scores[:, 1] - scores[:, 0]
        return scores

    def predict_proba(self, X):
        """Compute probabilities of the active labels.

        Parameters
        ----------
        X : array-like
            Clips, as in `fit`.

        Returns
        -------
        ndarray of shape (n_clips, n_classes)
            Probabilities of `classes_`. They sum to one where y in `fit` had one label
            for each clip.

        Raises
        ------
        ValueError, UnknownLabelError
            As `decision_function`.
        """
        scores = self._score(X)
        return softmax(scores, axis=1) if self._exclusive else expit(scores)

    def predict(self, X):
        """Name the labels of clips.

        Parameters
        ----------
        X : array-like
            Clips, as in `fit`.

        Returns
        -------
        ndarray of shape (n_clips, n_classes) or (n_clips,)
            An indicator matrix of `classes_`, of the labels whose probability reaches
            their threshold; or the most probable label of each clip, where y in `fit`
            had one for each.

        Raises
        ------
        ValueError, UnknownLabelError
            As `decision_function`.
        """
        scores = self._score(X)
        if self._exclusive:
            return self.classes_[scores.argmax(axis=1)]
        return (expit(scores) >= self.thresholds_).astype(int)

    def score(self, X, y, sample_weight=None):
        """Return the share of clips whose labels are all right.

        For other scores, such as OmAP, see `make_omap_scorer`.

        Parameters
        ----------
        X : array-like
            Clips, as in `fit`.
        y : array-like
            Their labels, as in `fit`.
        sample_weight : array-like of shape (n_clips,), default=None
            Weights of the clips.

        Returns
        -------
        float
            The accuracy.
        """
        predicted = self.predict(X)
        if not self._exclusive:
            y = read_targets(y, self.classes_).indicator.astype(int)
        return accuracy_score(y, predicted, sample_weight=sample_weight)
