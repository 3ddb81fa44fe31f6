"""TaggerZeroShotClassifier: any tagger's probabilities, labels of the user's own."""

import os
from numbers import Integral, Real

import numpy as np
from scipy.special import softmax
from sklearn.base import _fit_context
from sklearn.utils._param_validation import Interval, StrOptions, validate_params
from sklearn.utils.validation import check_is_fitted

from ..text._label_lists import read_label_list
from ._explanations import ClassContribution, LabelExplanation
from ._frozen_zero_shot import FrozenZeroShotClassifier, to_unit_rows

# Classes of the tagger that speak for a clip in ConSE, as many as in its paper.
_CONSE_TOP_K = 10


class TaggerZeroShotClassifier(FrozenZeroShotClassifier):
    """Name sounds by labels of your own, through the classes of a trained tagger.

    Takes the class probabilities of any tagger, such as an embedder's with
    ``output="probabilities"``, and compares the names of its classes with your
    labels by their text vectors. Nothing is trained and no clip is needed: `fit`
    embeds the labels. `explain` shows which of the tagger's classes spoke for a
    label.

    Parameters
    ----------
    label_embedder : transformer, mapping or None, default=None
        Labels to vectors: a `LabelTextEmbedder`, or any other transformer of
        strings, or a mapping from labels to vectors, which must know both your
        labels and the tagger's classes. ``None`` is ``LabelTextEmbedder()``.
    tagger_labels : sequence of str, str or path-like, default=None
        Names of the tagger's classes in the order of X's columns, or the file that
        lists them, such as AudioSet's ``class_labels_indices.csv``. ``None`` takes
        the names of the columns of a DataFrame.
    method : {"bridge", "conse"}, default="bridge"
        How probabilities of the tagger's classes become scores of your labels:

        - ``"bridge"``: each label spreads a weight of one over the tagger's classes,
          by the softmax of its cosine similarities with them over `temperature`; its
          score is the mean of their probabilities by this weight, and between 0 and
          1 like these.
        - ``"conse"``: convex combination of semantic embeddings [1]_. A clip's vector
          is the mean of the text vectors of its most probable classes, weighted by
          probability, and a label's score is its cosine similarity with that.
    temperature : float, default=0.02
        The lower, the more a label goes by the one class nearest to it. For
        ``"conse"`` it makes `predict_proba` only: the softmax of the scores over
        `temperature`.
    top_k : int, default=None
        How many of the tagger's classes count: of a label's nearest for ``"bridge"``,
        of a clip's most probable for ``"conse"``. Those equal to the last count too.
        ``None`` is all for ``"bridge"`` and 10 for ``"conse"``.
    multi_label : bool, default=False
        Whether a clip may have any number of labels instead of one. Needs
        ``"bridge"``, whose scores are probabilities.
    threshold : float, default=0.5
        With `multi_label`, the probability from which a clip has a label. Taggers of
        AudioSet give low ones, on ESC-10 0.05 was far better than 0.5: choose it on
        clips whose labels are known.
    reject_threshold : float, default=None
        Best score below which `predict` gives `reject_label` instead of a label.
        Scores are compared since `predict_proba`, which only tells how the labels
        compare with one another, is high for some label of any clip. ``None`` never
        rejects.
    reject_label : str, number or None, default="none of these"
        What `predict` calls clips that fit no label. It is not in `classes_`.
    candidate_labels : array-like of shape (n_candidates,), default=None
        Labels to choose among; ``None`` is the labels of `fit`. May be set at any
        time.

    Attributes
    ----------
    tagger_labels_ : ndarray of shape (n_features,)
        Names of the tagger's classes.
    tagger_vectors_ : ndarray of shape (n_features, n_text_features)
        Their text vectors, of length one.
    label_embedder_ : transformer
        The fitted label embedder.
    seen_classes_ : ndarray of shape (n_seen_classes,)
        The labels of `fit`; none if it got no y.
    classes_ : ndarray of shape (n_classes,)
        The active labels: `candidate_labels` or else `seen_classes_`. They are
        sorted, but with `multi_label` in the order of `candidate_labels` or of the
        columns of y.
    n_features_in_ : int
        Number of the tagger's classes.

    See Also
    --------
    PromptZeroShotClassifier : For encoders with a text encoder of their own.
    BilinearZeroShotClassifier : Learns from clips of some labels.

    Notes
    -----
    With ``"bridge"``, `predict_proba` divides the scores by their sum over the labels
    (a clip without any probability is undecided), and with `multi_label` it is the
    scores. So of two labels the probability goes by the ratio of their scores, and
    `decision_function` by the difference: they may rank clips differently.

    A prompt of the label embedder goes to labels and tagger's classes alike. Names
    such as "Chicken, rooster" are embedded whole: on ESC-10, embedding the synonyms
    one by one named no more clips.

    Each label is embedded once a fit. Pass a mapping made beforehand where a large
    search fits often.

    References
    ----------
    .. [1] M. Norouzi, T. Mikolov, S. Bengio, Y. Singer, J. Shlens, A. Frome,
       G. S. Corrado and J. Dean, "Zero-Shot Learning by Convex Combination of
       Semantic Embeddings", ICLR 2014.

    Examples
    --------
    >>> from sklabelaudio import TaggerZeroShotClassifier
    >>> vectors = {
    ...     "Bark": [1.0, 0.0, 0.1], "Rain": [0.0, 1.0, 0.1], "Engine": [0.1, 0.0, 1.0],
    ...     "dog": [0.9, 0.0, 0.0], "storm": [0.0, 0.9, 0.3], "car": [0.2, 0.0, 0.9],
    ... }
    >>> classifier = TaggerZeroShotClassifier(
    ...     vectors,
    ...     tagger_labels=["Bark", "Rain", "Engine"],
    ...     candidate_labels=["dog", "storm", "car"],
    ... ).fit()
    >>> X = [[0.9, 0.0, 0.2], [0.1, 0.6, 0.1]]
    >>> classifier.predict(X)
    array(['dog', 'storm'], dtype='<U5')
    >>> classifier.explain(X, n_classes=2)[0]
    'dog' scores 0.9000
      contribution = probability x weight
            0.9000        0.9000   1.0000  Bark
            0.0000        0.2000   0.0000  Engine
    """

    _parameter_constraints = {
        **FrozenZeroShotClassifier._parameter_constraints,
        "tagger_labels": ["array-like", str, os.PathLike, None],
        "method": [StrOptions({"bridge", "conse"})],
        "temperature": [Interval(Real, 0, None, closed="neither")],
        "top_k": [Interval(Integral, 1, None, closed="left"), None],
    }

    def __init__(
        self,
        label_embedder=None,
        *,
        tagger_labels=None,
        method="bridge",
        temperature=0.02,
        top_k=None,
        multi_label=False,
        threshold=0.5,
        reject_threshold=None,
        reject_label="none of these",
        candidate_labels=None,
    ):
        self.label_embedder = label_embedder
        self.tagger_labels = tagger_labels
        self.method = method
        self.temperature = temperature
        self.top_k = top_k
        self.multi_label = multi_label
        self.threshold = threshold
        self.reject_threshold = reject_threshold
        self.reject_label = reject_label
        self.candidate_labels = candidate_labels

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X=None, y=None):
        """Embed the tagger's classes and the labels.

        Parameters
        ----------
        X : array-like of shape (n_clips, n_tagger_classes), default=None
            Probabilities of the tagger's classes. They are checked and not learned
            from.
        y : array-like of shape (n_labels,), default=None
            Labels, of the clips of X or any if there is no X. May be left out where
            `candidate_labels` is set. With `multi_label` also the labels of each
            clip, or an indicator matrix for `candidate_labels`.

        Returns
        -------
        self : TaggerZeroShotClassifier
            The classifier with its labels.

        Raises
        ------
        ValueError
            If there are no labels, X is not what `tagger_labels` names, or
            parameters contradict each other.
        UnknownLabelError
            If a label has no vector.
        """
        self._fit_labels(X, y)
        self.tagger_labels_ = self._find_tagger_labels(X)
        self.n_features_in_ = len(self.tagger_labels_)
        if X is not None:
            self._check_column_names(X)
        labels = self.tagger_labels_.tolist()
        self._fit_label_embedder(labels)
        self.tagger_vectors_ = self._embed_labels(labels)
        self._vectors.clear()  # so that pickles hold them once
        self._embed_active_labels()
        return self

    @validate_params(
        {"n_classes": [Interval(Integral, 1, None, closed="left"), None]},
        prefer_skip_nested_validation=True,
    )
    def explain(self, X, labels=None, n_classes=5):
        """Tell through which of the tagger's classes clips came to their labels.

        Parameters
        ----------
        X : array-like of shape (n_clips, n_tagger_classes)
            Probabilities of the tagger's classes.
        labels : str or array-like of shape (n_clips,), default=None
            Label to explain, for all clips or for each; it needn't be a candidate.
            ``None`` explains the active label that scores best, also where it is
            rejected.
        n_classes : int, default=5
            How many of the tagger's classes to tell, those that contribute most.
            ``None`` tells all.

        Returns
        -------
        list of LabelExplanation, of length n_clips
            Named tuples ``(label, score, classes)``, where `classes` is a list of
            named tuples ``(label, probability, weight, contribution)``. A
            contribution is probability times weight, and those of all classes sum to
            the score. ``pandas.DataFrame(explanation.classes)`` makes a table.

        Raises
        ------
        ValueError
            If there are not as many labels as clips.
        UnknownLabelError
            If a label has no vector.
        """
        check_is_fitted(self, "label_embedder_")
        X = self._check_clips(X)
        labels = self._choose_explained(X, labels)
        names = self.tagger_labels_.tolist()
        explanations = []
        for clip, label in zip(X, labels, strict=True):
            weights = self._weigh_classes(clip, self._embed_labels([label]))
            contributions = clip * weights
            most = np.argsort(-contributions, kind="stable")[:n_classes]
            classes = [
                ClassContribution(names[k], *map(float, values))
                for k, *values in zip(
                    most, clip[most], weights[most], contributions[most], strict=True
                )
            ]
            explanations.append(
                LabelExplanation(label, float(contributions.sum()), classes)
            )
        return explanations

    def _choose_explained(self, X, labels):
        if labels is None:
            best = self._score(X, self._embed_active_labels()).argmax(axis=1)
            return self.classes_[best].tolist()
        if np.ndim(labels) == 0:
            return [labels] * len(X)
        labels = np.asarray(labels).tolist()
        if len(labels) != len(X):
            raise ValueError(
                f"labels has {len(labels)} labels and X {len(X)} clips: give one for "
                "each clip, or one for all"
            )
        return labels

    def _score(self, X, vectors):
        if self.method == "bridge":
            return X @ self._spread(vectors).T
        return self._combine(X) @ vectors.T

    def _spread(self, vectors):
        """Return how labels spread over the tagger's classes, a weight of one each."""
        cosines = vectors @ self.tagger_vectors_.T
        counts = _is_among_top(cosines, self.top_k)
        return softmax(np.where(counts, cosines / self.temperature, -np.inf), axis=1)

    def _combine(self, X):
        """Return the vectors of clips, of length one."""
        counts = _is_among_top(X, self.top_k or _CONSE_TOP_K)
        return to_unit_rows(np.where(counts, X, 0) @ self.tagger_vectors_)

    def _weigh_classes(self, clip, vectors):
        """Return the weights of the tagger's classes in one clip's score of a label."""
        if self.method == "bridge":
            return self._spread(vectors)[0]
        counts = _is_among_top(clip[np.newaxis], self.top_k or _CONSE_TOP_K)[0]
        length = np.linalg.norm(np.where(counts, clip, 0) @ self.tagger_vectors_)
        weights = np.where(counts, self.tagger_vectors_ @ vectors[0], 0)
        return weights / (length or 1)

    def _to_probabilities(self, scores):
        if self.method == "conse":
            return softmax(scores / self.temperature, axis=1)
        if self.multi_label:
            return np.minimum(scores, 1)  # a mean of ones may round to more
        totals = scores.sum(axis=1, keepdims=True)
        equal = 1 / scores.shape[1]
        return np.where(totals == 0, equal, scores / np.where(totals == 0, 1, totals))

    def _fit_labels(self, X, y):
        if self.multi_label and self.method == "conse":
            raise ValueError(
                "method='conse' with multi_label=True: its scores are cosines and no "
                "probabilities; use method='bridge'"
            )
        super()._fit_labels(X, y)

    def _find_tagger_labels(self, X):
        """Return the names of the tagger's classes, one for each column of X."""
        labels = self.tagger_labels
        if labels is None:
            labels = getattr(self, "feature_names_in_", None)
            if labels is None or _are_numbered(labels):
                found = "there are none" if labels is None else f"{labels[0]} is none"
                raise ValueError(
                    f"tagger_labels=None takes the names of X's columns, and {found}: "
                    "name the tagger's classes, or make X a DataFrame that does "
                    "(set_output(transform='pandas') of an embedder that knows them)"
                )
        elif isinstance(labels, (str, os.PathLike)):
            labels = read_label_list(labels)
        labels = np.asarray(labels)
        names, counts = np.unique(labels, return_counts=True)
        if labels.size > names.size:
            raise ValueError(
                f"tagger_labels holds {names[counts > 1].tolist()} more than once: "
                "each column of X is a class of its own"
            )
        if X is not None and len(labels) != self.n_features_in_:
            raise ValueError(
                f"X has {self.n_features_in_} columns and tagger_labels {len(labels)} "
                "labels: name each class of the tagger that gave X"
            )
        return labels

    def _check_clips(self, X, y=None, *, reset=False):
        if not reset:
            self._check_column_names(X)
        checked = super()._check_clips(X, y, reset=reset)
        probabilities = checked if y is None else checked[0]
        if (probabilities < 0).any():
            raise ValueError(
                f"Negative values in data passed to {type(self).__name__}, such as "
                f"{probabilities.min():g}: these look like logits, use "
                "output='probabilities' of the embedder"
            )
        if self.multi_label and (probabilities > 1).any():
            raise ValueError(
                f"X has values above 1, such as {probabilities.max():g}: with "
                "multi_label=True the tagger's classes need probabilities"
            )
        return checked

    def _check_column_names(self, X):
        """Raise where a table has the tagger's classes in another order."""
        names = list(getattr(X, "columns", ()))
        labels = self.tagger_labels_.tolist()
        if names != labels and set(names) == set(labels):
            raise ValueError(
                "the columns of X are the classes of tagger_labels in another order: "
                "give both in one order"
            )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = True
        return tags


def _are_numbered(names):
    """Whether names are those that transformers give columns they know nothing of."""
    prefix = names[0].removesuffix("0")
    return prefix.isalpha() and all(
        name == f"{prefix}{k}" for k, name in enumerate(names)
    )


def _is_among_top(values, k):
    """Tell which values are among the k greatest of their row, or equal to the last."""
    if k is None or k >= values.shape[1]:
        return np.ones(values.shape, dtype=bool)
    return values >= np.partition(values, -k, axis=1)[:, [-k]]
