"""PromptZeroShotClassifier: audio vectors compared with vectors of prompts."""

from numbers import Real

from scipy.special import expit, softmax
from sklearn.base import _fit_context
from sklearn.utils._param_validation import Interval

from ._frozen_zero_shot import FrozenZeroShotClassifier, to_unit_rows


class PromptZeroShotClassifier(FrozenZeroShotClassifier):
    """Name sounds by the texts nearest to them, in a space that both share.

    For encoders that were trained to put sounds next to their descriptions, such as
    CLAP: X holds the vectors of its audio encoder, and `label_embedder` is its text
    encoder. The label whose vector has the greatest cosine similarity with the
    clip's wins. Nothing is trained and no clip is needed: `fit` embeds the labels.

    Parameters
    ----------
    label_embedder : transformer, mapping or None, default=None
        Labels to vectors of the space that X is in: the text side of the audio
        encoder, such as ``CLAPEmbedder().text_embedder()``, any other transformer of
        strings, or a mapping from labels to vectors. Prompts are its own parameter,
        which a search finds as ``label_embedder__prompt``; a list of them is an
        ensemble. ``None`` is ``LabelTextEmbedder()``, for audio vectors that were
        made to fit its sentence vectors.
    candidate_labels : array-like of shape (n_candidates,), default=None
        Labels to choose among; ``None`` is the labels of `fit`. May be set at any
        time.
    logit_scale : float, default=1/0.07
        What cosine similarities are multiplied by before they become probabilities.
        The default is where the training of CLIP and CLAP begins, 14.3; their
        checkpoints hold a trained value up to 100, as a logarithm. Without
        `multi_label` it does not change what `predict` says.
    multi_label : bool, default=False
        Whether a clip may have any number of labels instead of one.
    logit_bias : float, default=0.0
        With `multi_label`, what is added to the scaled similarities. Texts are rarely
        opposite to sounds, so that 0 gives most labels more than half: minus
        `logit_scale` times c makes a similarity of c a half.
    reject_threshold : float, default=None
        Greatest cosine similarity, from -1 to 1, below which `predict` gives
        `reject_label` instead of a label. A similarity says how well a clip fits to
        a label, whatever the other labels are and however many; `predict_proba` only
        tells how they compare with one another. ``None`` never rejects.
    reject_label : str, number or None, default="none of these"
        What `predict` calls clips that fit no label. It is not in `classes_`.
    threshold : float, default=0.5
        With `multi_label`, the probability from which a clip has a label.

    Attributes
    ----------
    label_embedder_ : transformer
        The fitted label embedder.
    seen_classes_ : ndarray of shape (n_seen_classes,)
        The labels of `fit`; none if it got no y.
    classes_ : ndarray of shape (n_classes,)
        The active labels: `candidate_labels` or else `seen_classes_`. They are
        sorted, but with `multi_label` in the order of `candidate_labels` or of the
        columns of y.
    n_features_in_ : int
        Length of the vectors of the space.

    See Also
    --------
    TaggerZeroShotClassifier : For encoders without a text encoder.
    BilinearZeroShotClassifier : Learns from clips of some labels.

    Notes
    -----
    `decision_function` gives the cosine similarities. `predict_proba` is their
    softmax, ``softmax(logit_scale * cosine)``, as in [1]_, and with `multi_label`
    ``sigmoid(logit_scale * cosine + logit_bias)``, as in [2]_. A clip whose vector is
    zero has the similarity 0 with every label.

    References
    ----------
    .. [1] A. Radford et al., "Learning Transferable Visual Models From Natural
       Language Supervision", ICML 2021.
    .. [2] X. Zhai, B. Mustafa, A. Kolesnikov and L. Beyer, "Sigmoid Loss for
       Language Image Pre-Training", ICCV 2023.

    Examples
    --------
    >>> from sklabelaudio import PromptZeroShotClassifier
    >>> vectors = {"dog": [1.0, 0.0], "rain": [0.0, 1.0]}
    >>> classifier = PromptZeroShotClassifier(vectors, reject_threshold=0.2)
    >>> _ = classifier.fit(y=["dog", "rain"])
    >>> classifier.predict([[2.0, 0.1], [0.3, 0.4], [-1.0, -1.0]])
    array(['dog', 'rain', 'none of these'], dtype='<U13')
    >>> classifier.set_params(candidate_labels=["dog"], reject_threshold=0.7)
    PromptZeroShotClassifier(...)
    >>> classifier.predict([[2.0, 0.1], [0.3, 0.4]])
    array(['dog', 'none of these'], dtype='<U13')
    """

    _parameter_constraints = {
        **FrozenZeroShotClassifier._parameter_constraints,
        "logit_scale": [Interval(Real, 0, None, closed="neither")],
        "logit_bias": [Interval(Real, None, None, closed="neither")],
    }

    def __init__(
        self,
        label_embedder=None,
        *,
        candidate_labels=None,
        logit_scale=1 / 0.07,
        multi_label=False,
        logit_bias=0.0,
        reject_threshold=None,
        reject_label="none of these",
        threshold=0.5,
    ):
        self.label_embedder = label_embedder
        self.candidate_labels = candidate_labels
        self.logit_scale = logit_scale
        self.multi_label = multi_label
        self.logit_bias = logit_bias
        self.reject_threshold = reject_threshold
        self.reject_label = reject_label
        self.threshold = threshold

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X=None, y=None):
        """Embed the labels.

        Parameters
        ----------
        X : array-like of shape (n_clips, n_features), default=None
            Audio vectors. They are checked and not learned from.
        y : array-like of shape (n_labels,), default=None
            Labels, of the clips of X or any if there is no X. May be left out where
            `candidate_labels` is set. With `multi_label` also the labels of each
            clip, or an indicator matrix for `candidate_labels`.

        Returns
        -------
        self : PromptZeroShotClassifier
            The classifier with its labels.

        Raises
        ------
        ValueError
            If there are no labels, X is not in the space of the label vectors, or
            parameters contradict each other.
        UnknownLabelError
            If a label has no vector.
        """
        self._fit_labels(X, y)
        self._fit_label_embedder(self.classes_.tolist())
        n_components = self._embed_active_labels().shape[1]
        if X is not None and n_components != self.n_features_in_:
            raise ValueError(
                f"X has {self.n_features_in_} columns and the vectors of "
                f"label_embedder have {n_components}: both must be of one space, such "
                "as those of CLAPEmbedder() and of its text_embedder()"
            )
        self.n_features_in_ = n_components
        return self

    def _score(self, X, vectors):
        return to_unit_rows(X) @ vectors.T

    def _to_probabilities(self, scores):
        logits = self.logit_scale * scores
        if self.multi_label:
            return expit(logits + self.logit_bias)
        return softmax(logits, axis=1)
