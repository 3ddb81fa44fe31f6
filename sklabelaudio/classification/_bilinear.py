"""BilinearZeroShotClassifier: audio vectors and label vectors made compatible."""

from collections.abc import Mapping
from functools import partial
from numbers import Integral, Real

import numpy as np
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin, _fit_context, clone
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from ..text import LabelTextEmbedder
from ._bilinear_minibatch import fit_minibatch
from ._bilinear_sgd import fit_sgd
from ._candidates import CandidateLabelsMixin
from ._ranking import ranking_losses

SIDES = StrOptions({"audio", "text", "both"})
# Scores are computed for so many clips at a time where all are not needed at once.
_CHUNK = 4096


class BilinearZeroShotClassifier(CandidateLabelsMixin, ClassifierMixin, BaseEstimator):
    """Name sounds by the vectors of their labels, also labels never heard.

    A matrix W says how compatible an audio vector x is with a label vector phi:
    ``F(x, y) = x @ W @ phi(y)`` (equation 1 of [1]_), and the label with the
    greatest compatibility wins (equation 2). As labels enter by their vectors
    alone, candidates need no clips. It is at home where few classes have clips;
    with clips of all classes it is an ordinary linear classifier.

    Parameters
    ----------
    label_embedder : transformer, mapping or None, default=None
        Labels to vectors: a `LabelTextEmbedder`, or any other transformer of
        strings (a `FeatureUnion` of two, say), or a mapping from labels to vectors,
        such as attributes. ``None`` gives each class of `fit` an axis of its own,
        which makes an ordinary classifier without unseen labels.
    candidate_labels : array-like of shape (n_candidates,), default=None
        Labels to choose among; ``None`` is the labels of `fit`. May be set at any
        time, `fit` does not look at it.
    solver : {"sgd", "minibatch"}, default="sgd"
        ``"sgd"`` is algorithm 1 of [1]_, exactly: one clip after another, in
        float64. ``"minibatch"`` averages the updates of `batch_size` clips, on
        `device` and in float32, for millions of clips.
    learning_rate : float, default=0.01
        Step of the updates, eta in [1]_. What suits depends on the vectors'
        lengths: try a few, or `scale`.
    max_epochs : int, default=10
        How often to go through the clips.
    shuffle : bool, default=True
        Whether every epoch goes in an order of its own.
    center : {"audio", "text", "both"} or None, default=None
        Vectors to subtract the mean from: of the clips of `fit`, of its labels.
    scale : {"audio", "text", "both"} or None, default=None
        Vectors to divide by their Euclidean length, after centring.
    batch_size : int, default=256
        Clips a batch, with ``solver="minibatch"``.
    device : str, default="cpu"
        Where ``"minibatch"`` computes: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, or
        ``"auto"``, which takes a GPU if there is one.
    warm_start : bool, default=False
        Whether `fit` goes on from the last solution.
    verbose : bool, default=False
        Whether to show a progress bar.
    random_state : int, RandomState instance or None, default=None
        Makes `shuffle` repeatable.

    Attributes
    ----------
    coef_ : ndarray of shape (n_features, n_text_features)
        The matrix W.
    loss_curve_ : list of float
        The empirical risk (equation 4 of [1]_) after each epoch.
    n_iter_ : int
        Number of epochs.
    seen_classes_ : ndarray of shape (n_seen_classes,)
        The labels of `fit`.
    classes_ : ndarray of shape (n_classes,)
        The active labels, sorted: `candidate_labels` or else `seen_classes_`.
    label_embedder_ : transformer or None
        The fitted label embedder.
    audio_mean_ : ndarray of shape (n_features,)
        What is subtracted from audio vectors.
    text_mean_ : ndarray of shape (n_text_features,)
        What is subtracted from label vectors.
    n_features_in_ : int
        Number of features of the audio vectors.

    See Also
    --------
    zero_shot_scorer : Cross-validation with the test fold's labels as candidates.
    UnseenClassKFold : Folds of classes.

    Notes
    -----
    The order of algorithm 1 is kept: the losses of all classes at the current W
    (equation 5), sorted in descending order, equal ones in the order of the
    classes; then ``W -= eta * beta[(C - 1) // r] * outer(x, phi(y) - phi(y_n))`` for
    the r-th loss while it is positive. As W changes by outer products, it is kept
    as ``A @ Phi`` with one column of A a class, and a clip costs of the order of
    ``d * C + C**2`` however long the label vectors are.

    In the risk, the rank of the right class is the number of other classes that
    score no less.

    References
    ----------
    .. [1] H. Xie and T. Virtanen, "Zero-shot audio classification based on class
       label embeddings", WASPAA 2019.

    Examples
    --------
    >>> import numpy as np
    >>> from sklabelaudio import BilinearZeroShotClassifier
    >>> attributes = {  # pitched, loud
    ...     "engine": [0, 1], "rain": [0, 0], "whistle": [1, 0], "siren": [1, 1]
    ... }
    >>> y = np.repeat(list(attributes), 20)
    >>> X = np.array([attributes[label] for label in y], dtype=float)
    >>> X += np.random.default_rng(0).normal(0, 0.1, X.shape)
    >>> classifier = BilinearZeroShotClassifier(attributes, center="both")
    >>> heard = y != "siren"
    >>> _ = classifier.fit(X[heard], y[heard])
    >>> classifier.set_params(candidate_labels=["siren", "rain", "engine"])
    BilinearZeroShotClassifier(...)
    >>> classifier.score(X[~heard], y[~heard])
    1.0
    """

    _parameter_constraints = {
        "label_embedder": [HasMethods(["fit", "transform"]), Mapping, None],
        "candidate_labels": ["array-like", None],
        "solver": [StrOptions({"sgd", "minibatch"})],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "shuffle": ["boolean"],
        "center": [SIDES, None],
        "scale": [SIDES, None],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "device": [str],
        "warm_start": ["boolean"],
        "verbose": ["verbose"],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        label_embedder=None,
        *,
        candidate_labels=None,
        solver="sgd",
        learning_rate=0.01,
        max_epochs=10,
        shuffle=True,
        center=None,
        scale=None,
        batch_size=256,
        device="cpu",
        warm_start=False,
        verbose=False,
        random_state=None,
    ):
        self.label_embedder = label_embedder
        self.candidate_labels = candidate_labels
        self.solver = solver
        self.learning_rate = learning_rate
        self.max_epochs = max_epochs
        self.shuffle = shuffle
        self.center = center
        self.scale = scale
        self.batch_size = batch_size
        self.device = device
        self.warm_start = warm_start
        self.verbose = verbose
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y):
        """Learn W.

        Parameters
        ----------
        X : array-like of shape (n_clips, n_features)
            Audio vectors.
        y : array-like of shape (n_clips,)
            Labels.

        Returns
        -------
        self : BilinearZeroShotClassifier
            The fitted classifier.

        Raises
        ------
        ValueError
            If y holds one class only, or the updates overflow.
        UnknownLabelError
            If a label has no vector.
        """
        go_on = self.warm_start and hasattr(self, "coef_")
        return self._fit(X, y, None, self.max_epochs, go_on)

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y, classes=None):
        """Go on from the last solution by one epoch over these clips.

        Parameters
        ----------
        X : array-like of shape (n_clips, n_features)
            Audio vectors.
        y : array-like of shape (n_clips,)
            Labels.
        classes : array-like of shape (n_classes,), default=None
            All labels to learn to tell apart; those of y and of former calls are
            included anyway. Without a label embedder the first call needs them all.

        Returns
        -------
        self : BilinearZeroShotClassifier
            The classifier.
        """
        return self._fit(X, y, classes, 1, go_on=hasattr(self, "coef_"))

    def _fit(self, X, y, classes, n_epochs, go_on):
        X, y = validate_data(
            self, X, y, dtype=[np.float64, np.float32], reset=not go_on
        )
        check_classification_targets(y)
        labels, targets = np.unique(y, return_inverse=True)
        known = [labels, *([] if classes is None else [np.unique(classes)])]
        if go_on:
            known.append(self.seen_classes_)
        seen_classes = np.unique(np.concatenate(known))
        targets = np.searchsorted(seen_classes, labels)[targets]
        if len(seen_classes) < 2:
            only = seen_classes.tolist()[0]
            raise ValueError(
                f"y holds one class, {only!r}: there must be at least 2 classes to "
                "learn to tell apart"
            )
        if not go_on:
            self._fit_label_embedder(seen_classes)
        Phi = self._embed_labels(seen_classes)
        if not go_on:
            self.audio_mean_ = self._mean(X, "audio")
            self.text_mean_ = self._mean(Phi, "text")
            self.coef_ = np.zeros((X.shape[1], Phi.shape[1]))
            self.loss_curve_ = []
        self.seen_classes_ = seen_classes
        X = self._prepare(X, "audio")
        Phi = self._prepare(Phi, "text")
        self._learn(X, targets, Phi, n_epochs)
        self.n_iter_ = len(self.loss_curve_)
        return self

    def _learn(self, X, targets, Phi, n_epochs):
        rng = check_random_state(self.random_state)
        epochs = range(n_epochs)
        if self.verbose:
            from tqdm import tqdm

            epochs = tqdm(epochs, unit="epoch")
        if self.solver == "sgd":
            solve = fit_sgd
        else:
            from ..nn._device import choose_device

            solve = partial(
                fit_minibatch,
                batch_size=self.batch_size,
                device=choose_device(self.device),
            )
        solutions = solve(
            X,
            targets,
            Phi,
            self.coef_,
            learning_rate=self.learning_rate,
            epochs=epochs,
            epoch_order=partial(rng.permutation if self.shuffle else np.arange, len(X)),
        )
        for W in solutions:
            with np.errstate(over="ignore", invalid="ignore"):
                risk = _empirical_risk(X, targets, W @ Phi.T)
            if not np.isfinite(risk):
                raise ValueError(
                    f"learning_rate={self.learning_rate:g} is too high for these "
                    "vectors, the updates overflow: lower it, or set scale='both'"
                )
            self.coef_ = W
            self.loss_curve_.append(risk)

    def decision_function(self, X):
        """Compute how compatible clips are with the active labels.

        Parameters
        ----------
        X : array-like of shape (n_clips, n_features)
            Audio vectors.

        Returns
        -------
        ndarray of shape (n_clips, n_classes) or (n_clips,)
            Compatibilities with `classes_`. With two classes, how much more
            compatible a clip is with the second.

        Raises
        ------
        UnknownLabelError, ValueError
            If a candidate has no vector, is there twice, or is the only one.
        """
        scores = self._scores(X)
        return scores[:, 1] - scores[:, 0] if scores.shape[1] == 2 else scores

    def predict_proba(self, X):
        """Compute the softmax of the compatibilities.

        They are good for ranking; for probabilities that can be relied on, use
        scikit-learn's ``CalibratedClassifierCV``.

        Parameters
        ----------
        X : array-like of shape (n_clips, n_features)
            Audio vectors.

        Returns
        -------
        ndarray of shape (n_clips, n_classes)
            Probabilities of `classes_`.

        Raises
        ------
        UnknownLabelError, ValueError
            If a candidate has no vector, is there twice, or is the only one.
        """
        return softmax(self._scores(X), axis=1)

    def predict(self, X):
        """Name clips by the most compatible of the active labels.

        Parameters
        ----------
        X : array-like of shape (n_clips, n_features)
            Audio vectors.

        Returns
        -------
        ndarray of shape (n_clips,)
            Labels.

        Raises
        ------
        UnknownLabelError, ValueError
            If a candidate has no vector, is there twice, or is the only one.
        """
        best = self._scores(X).argmax(axis=1)
        return self.classes_[best]

    def _scores(self, X):
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        Phi = self._prepare(self._embed_labels(self.classes_), "text")
        return self._prepare(X, "audio") @ (self.coef_ @ Phi.T)

    def _fit_label_embedder(self, labels):
        embedder = self.label_embedder
        if isinstance(embedder, Mapping):
            embedder = LabelTextEmbedder(embedder)
        if embedder is not None:
            embedder = clone(embedder).fit(labels.tolist())
        else:
            self._axes = {label: i for i, label in enumerate(labels.tolist())}
        self.label_embedder_ = embedder

    def _embed_labels(self, labels):
        """Return the vectors of labels, ``(n_labels, n_text_features)``, float64."""
        if self.label_embedder_ is not None:
            vectors = self.label_embedder_.transform(labels.tolist())
            return np.asarray(vectors, dtype=np.float64)
        unknown = [label for label in labels.tolist() if label not in self._axes]
        if unknown:
            raise ValueError(
                f"labels {unknown} were not there in the first fit, and "
                "label_embedder=None knows no others: give a label_embedder, or list "
                "them in classes at the first partial_fit"
            )
        return np.eye(len(self._axes))[[self._axes[label] for label in labels.tolist()]]

    def _mean(self, vectors, side):
        if self.center in (side, "both"):
            return vectors.mean(axis=0, dtype=np.float64)
        return np.zeros(vectors.shape[1])

    def _prepare(self, vectors, side):
        """Centre and scale vectors of one side as the parameters say."""
        if self.center in (side, "both"):
            vectors = vectors - (
                self.audio_mean_ if side == "audio" else self.text_mean_
            )
        if self.scale in (side, "both"):
            lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
            vectors = vectors / np.where(lengths == 0, 1, lengths)
        return vectors

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = True
        return tags


def _empirical_risk(X, targets, weights):
    """Average the ranking loss over clips, ``weights`` being ``(d, n_classes)``."""
    total = 0.0
    for first in range(0, len(X), _CHUNK):
        chunk = slice(first, first + _CHUNK)
        total += ranking_losses(X[chunk] @ weights, targets[chunk]).sum()
    return float(total / len(X))
