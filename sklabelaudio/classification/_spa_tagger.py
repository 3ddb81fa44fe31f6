"""SPATagger: a tagger that is trained to be near to the descriptions of its labels."""

import os
from collections.abc import Mapping
from numbers import Integral, Real

from sklearn.base import BaseEstimator, ClassifierMixin, _fit_context
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions

from ..audio._read import CHANNEL_CONSTRAINT, SAMPLING_RATE_CONSTRAINT
from ._proximity_training import ProximityTraining
from ._tagger import TaggerMixin


class SPATagger(TaggerMixin, ProximityTraining, ClassifierMixin, BaseEstimator):
    """Tag sounds by a network that knows from texts which labels are alike.

    Semantic proximity alignment [1]_: an encoder's vectors of clips, and a text
    model's vectors of the labels' descriptions, are projected into one space by a
    linear layer each. Training brings clips near to their labels there, while a linear
    classifier learns to tag what comes out of the audio side. Mistakes become those
    that a listener would make too, which OmAP measures. Labels that have no clip in
    training are scored by their proximity.

    Parameters
    ----------
    encoder : str, torch.nn.Module class or None, default=None
        What turns clips to vectors:

        - ``None``: X holds vectors, and only the projectors and the classifier train;
        - ``"ast"``, ``"efficientat"``, ``"htsat"``, ``"panns"`` (or one of them, from
          ``"cnn6"`` to ``"cnn14_16k"``), ``"passt"``, ``"psla"`` or ``"sp4sc"``;
        - a class of torch modules, which returns vectors ``(n_clips, n)`` or an
          `EncoderOutput`.
    weights : str, path-like or None, default=None
        What the encoder begins with: name of a checkpoint of its, such as
        ``"mn04_as"``, see `list_checkpoints`, which is fetched if it is not there; or
        path of a file as the authors publish it, for ``"ast"`` of a folder that
        transformers saved too. Sizes are read off it, and of ``"panns"`` which one it
        is. A class takes the path of a file alone. ``None`` trains from scratch.
    encoder_params : mapping or None, default=None
        Parameters of the encoder's class, such as ``{"width": 0.4}``.
    front_end : str or None, default=None
        Name of the front end of an encoder that is a class, such as ``"panns_32k"``.
        ``None`` gives the class X as it is.
    freeze_encoder : bool, default=False
        Whether the encoder stays as it is, and its weights out of pickles. May change
        from one fit to the next with `warm_start`: a tagger first, then the whole.
    label_embedder : transformer, mapping or None, default=None
        Labels to vectors, a `LabelTextEmbedder` for example, whose parameters a search
        finds as ``label_embedder__description`` and so on. ``None`` is BERT as the
        paper has it, ``LabelTextEmbedder("bert-base-uncased")``. The texts are encoded
        once in `fit`. With ``alpha=0`` it is not used.
    ontology : LabelGraph, AudioSetOntology, array-like of shape \
            (n_classes, n_classes) or None, default=None
        Distances between labels, for `obce` and to stop early by OmAP. A matrix is in
        the order of `seen_classes_`.
    labels : array-like of shape (n_classes,), default=None
        All labels, in the order wanted: of the columns of an indicator matrix, or of
        others than those that occur in y.
    candidate_labels : array-like of shape (n_candidates,), default=None
        Labels to score instead of those of `fit`, which may be among them. May be set
        at any time, `fit` does not look at it.
    alpha : float, default=1.0
        Weight of the distance between clips and their labels in the loss. 0 is a
        tagger without texts.
    obce : bool, default=True
        Whether half of the tagger's loss is weighed by distances in the `ontology`.
    n_components : int, default=256
        Dimensions of the joint space, D in [1]_.
    threshold : float or array-like of shape (n_classes,), default=0.5
        Probability from which `predict` gives a label, or that of each label; see
        `tune_thresholds`.
    max_epochs : int, default=10
        How often to go through the clips.
    lr : float, default=0.001
        Learning rate.
    encoder_lr : float or None, default=None
        Learning rate of the encoder, which should be lower if it begins with trained
        weights; ``None`` is `lr`.
    batch_size : int, default=32
        Clips in a batch.
    optimizer : str or callable, default="AdamW"
        Name of a class in `torch.optim`, or a class.
    mixup_alpha : float, default=0.0
        Both parameters of the beta distribution of the shares by which clips are mixed
        in training, such as 0.3. 0 mixes none.
    spec_augment : bool or (int, int), default=False
        The widest stripes of mel bands and of frames, two of each, that are blanked in
        every clip in training. ``True`` is an eighth and a sixteenth of what there is.
    time_roll : bool, default=False
        Whether the log-mel of a clip is rolled over time in training.
    patchout : (int, int) or None, default=None
        Rows and columns of patches that ``"passt"`` leaves out in training, such as
        its authors' (4, 40).
    balanced_sampling : bool, default=False
        Whether clips are drawn so that all labels come up alike, with replacement,
        instead of each once in an epoch.
    early_stopping : bool or {"omap", "map"}, default=False
        Whether to set clips apart and to stop once their OmAP (``True``), or plain mean
        average precision, does not improve. The best epoch of a fit is kept.
        `partial_fit` sets none apart.
    patience : int, default=5
        Epochs without an improvement after which to stop.
    validation_fraction : float, default=0.1
        Share of the clips that are set apart.
    sampling_rate : float, default=None
        Rate of clips that are arrays, in Hz.
    duration : float, default=None
        Length of what the encoder hears, in seconds. In training longer clips are cut
        anew in each epoch and shorter ones repeated; see Notes for the prediction.
        ``None`` takes clips whole, which have to be of one length.
    channel : "mean" or int, default="mean"
        What to take of files with several channels.
    callbacks : list of skorch callbacks, default=None
        Called in training, after copying, such as a schedule of learning rates.
    warm_start : bool, default=False
        Whether `fit` goes on from the last solution, as if there had been no break:
        with the same clips set apart, and the state of the optimizer, which pickles
        don't hold. Encoder, labels, texts and `n_components` stay; losses, rates and
        what is done to clips may change.
    device : str, default="auto"
        Where to compute: ``"cpu"``, ``"cuda"``, or ``"auto"``, a GPU if there is one.
    n_jobs : int, default=None
        Threads that read clips, in joblib's sense.
    verbose : bool, default=False
        Whether to show a progress bar, and a line for each epoch.
    random_state : int, RandomState instance or None, default=None
        Makes training repeatable; global generators stay as they were. Drawn from once,
        in a fit that begins anew.

    Attributes
    ----------
    seen_classes_ : ndarray of shape (n_seen_classes,)
        The labels of `fit`, sorted, or in the order of `labels` or of the columns of y.
    classes_ : ndarray of shape (n_classes,)
        What scores are of: `candidate_labels`, which are sorted where clips have one
        label each, or else `seen_classes_`.
    checkpoint_ : ResolvedCheckpoint or None
        Where the weights that the encoder began with are from: name, file and digest.
        Printed, it is the model's card. ``None`` without an encoder.
    label_embedder_ : transformer or None
        The fitted label embedder; ``None`` with ``alpha=0``.
    history_ : list of dict
        Of each epoch the losses, the score of the validation, the seconds, and what
        callbacks recorded.
    n_iter_ : int
        Number of epochs, of all fits that went on from each other.
    thresholds_ : ndarray of shape (n_classes,)
        The thresholds of `predict`.
    n_features_in_ : int
        Columns of X in `fit`, if it was a matrix.

    See Also
    --------
    BilinearZeroShotClassifier : Learns from vectors to name labels never heard.
    sklabelaudio.metrics.make_omap_scorer : What it is for, for searches.

    Notes
    -----
    The loss of a batch is equation 5 of [1]_,
    ``(BCE + OBCE) / 2 + alpha * SPA``, and ``BCE + alpha * SPA`` with ``obce=False``.
    With several labels a clip has the mean of their distances; one without labels has
    no SPA, and all classes count in full in its OBCE.

    **Longer clips** than `duration` are predicted from pieces that follow each other,
    the last of which ends with the clip; a clip's vector is the mean of the pieces'.
    The validation hears the middle of clips. A last batch of one clip joins the one
    before it. Of a recording no more is read than the piece that is heard, and a
    prediction holds about a minute of it.

    **Labels that were not trained** have the score ``scale * cosine + bias``, where the
    cosine is that of clip and label in the joint space. Scale and bias are those that
    best tell the labels of clips from the others (Platt's scaling), measured in the
    middle of 512 clips at most: those set apart, or else of training.

    **Long training draws all texts to one point** of the joint space, for SPA rewards
    that labels are near to clips, and nothing that they are far from others; labels
    that were not trained are then told apart ever worse. Train briefly for these, or
    with an `alpha` of 0.1 or less, which slows it down: weight decay of the usual
    strength does not prevent it.

    **Ctrl-C in fit** raises `KeyboardInterrupt` as anywhere else, so that it ends
    searches too. Once an epoch is over the tagger keeps what it has learnt: it
    predicts, and with `warm_start` the next `fit` goes on. The same holds for errors,
    such as of a clip that can't be read. Only if the loss gets infinite, it is what it
    was before: not fitted, or as the fit found it that went on from another.

    **One label for each clip** in y gives one in `predict`, the most probable, and
    probabilities that sum to one: those of the tagger given that exactly one label is
    right, which is the softmax of its logits. Otherwise a label has its probability
    whatever the others are, and `predict` gives an indicator matrix.

    Pickles hold what was trained, batch norms' statistics included. Of a frozen encoder
    they hold the path of its file and its SHA-256.

    References
    ----------
    .. [1] W. Liu and Y. Ren, "Semantic Proximity Alignment: Towards Human
       Perception-consistent Audio Tagging by Aligning with Label Text Description",
       ICASSP 2024.

    Examples
    --------
    >>> import numpy as np
    >>> from sklabelaudio.classification import SPATagger
    >>> from sklabelaudio.ontology import LabelGraph
    >>> texts = {"dog": [1, 0, 0], "wolf": [1, 0, 1], "rain": [0, 1, 0]}
    >>> y = [["dog"], ["rain"], ["dog", "rain"], []] * 25
    >>> rng = np.random.default_rng(0)
    >>> X = np.array([["dog" in row, "rain" in row] for row in y], dtype=float)
    >>> X += rng.normal(0, 0.1, X.shape)
    >>> ontology = LabelGraph([("sound", "dog"), ("sound", "rain")])
    >>> tagger = SPATagger(
    ...     label_embedder=texts, ontology=ontology, lr=0.01, random_state=0
    ... ).fit(X, y)
    >>> tagger.classes_
    array(['dog', 'rain'], dtype='<U4')
    >>> tagger.predict([[1, 0], [1, 1], [0, 0]])
    array([[1, 0],
           [1, 1],
           [0, 0]])
    >>> tagger.set_params(candidate_labels=["wolf", "rain"])
    SPATagger(...)
    >>> best = tagger.predict_proba([[1, 0], [0, 1]]).argmax(axis=1)
    >>> tagger.classes_[best].tolist()
    ['wolf', 'rain']
    """

    _parameter_constraints = {
        "encoder": [str, callable, None],
        "weights": [str, os.PathLike, None],
        "encoder_params": [Mapping, None],
        "front_end": [str, None],
        "freeze_encoder": ["boolean"],
        "label_embedder": [HasMethods(["fit", "transform"]), Mapping, None],
        "ontology": [HasMethods(["distances"]), "array-like", None],
        "labels": ["array-like", None],
        "candidate_labels": ["array-like", None],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "obce": ["boolean"],
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "threshold": [Interval(Real, 0, 1, closed="both"), "array-like"],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "encoder_lr": [Interval(Real, 0, None, closed="neither"), None],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "optimizer": [str, callable],
        "mixup_alpha": [Interval(Real, 0, None, closed="left")],
        "spec_augment": ["boolean", tuple, list],
        "time_roll": ["boolean"],
        "patchout": [tuple, list, None],
        "balanced_sampling": ["boolean"],
        "early_stopping": ["boolean", StrOptions({"omap", "map"})],
        "patience": [Interval(Integral, 1, None, closed="left")],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "sampling_rate": SAMPLING_RATE_CONSTRAINT,
        "duration": [Interval(Real, 0, None, closed="neither"), None],
        "channel": CHANNEL_CONSTRAINT,
        "callbacks": [list, None],
        "warm_start": ["boolean"],
        "device": "no_validation",
        "n_jobs": [Integral, None],
        "verbose": ["verbose"],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        encoder=None,
        *,
        weights=None,
        encoder_params=None,
        front_end=None,
        freeze_encoder=False,
        label_embedder=None,
        ontology=None,
        labels=None,
        candidate_labels=None,
        alpha=1.0,
        obce=True,
        n_components=256,
        threshold=0.5,
        max_epochs=10,
        lr=0.001,
        encoder_lr=None,
        batch_size=32,
        optimizer="AdamW",
        mixup_alpha=0.0,
        spec_augment=False,
        time_roll=False,
        patchout=None,
        balanced_sampling=False,
        early_stopping=False,
        patience=5,
        validation_fraction=0.1,
        sampling_rate=None,
        duration=None,
        channel="mean",
        callbacks=None,
        warm_start=False,
        device="auto",
        n_jobs=None,
        verbose=False,
        random_state=None,
    ):
        self.encoder = encoder
        self.weights = weights
        self.encoder_params = encoder_params
        self.front_end = front_end
        self.freeze_encoder = freeze_encoder
        self.label_embedder = label_embedder
        self.ontology = ontology
        self.labels = labels
        self.candidate_labels = candidate_labels
        self.alpha = alpha
        self.obce = obce
        self.n_components = n_components
        self.threshold = threshold
        self.max_epochs = max_epochs
        self.lr = lr
        self.encoder_lr = encoder_lr
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.mixup_alpha = mixup_alpha
        self.spec_augment = spec_augment
        self.time_roll = time_roll
        self.patchout = patchout
        self.balanced_sampling = balanced_sampling
        self.early_stopping = early_stopping
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.sampling_rate = sampling_rate
        self.duration = duration
        self.channel = channel
        self.callbacks = callbacks
        self.warm_start = warm_start
        self.device = device
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None):
        """Train.

        Parameters
        ----------
        X : array-like of shape (n_clips, n_features) or (n_clips, n_frames, n_mels), \
                or clips
            Without an encoder vectors, with one log-mel as its front end gives it; or
            clips: paths, ``(n_clips, n_samples)`` or a sequence of ``(n_samples,)``.
        y : array-like or sparse matrix of shape (n_clips, n_classes), sequence of \
                sequences of labels, or array-like of shape (n_clips,)
            An indicator matrix, whose columns `labels` or a DataFrame names; the labels
            of each clip, none or several, of which one listed twice counts once; or
            the one label of each clip.
        sample_weight : array-like of shape (n_clips,), default=None
            How often each clip counts in the loss; those with 0 are left out.

        Returns
        -------
        self : SPATagger
            The trained tagger.

        Raises
        ------
        ValueError
            If X, y and the parameters don't go together, or the loss gets infinite.
        UnknownLabelError
            If a label has no vector, or is not in the ontology.
        AudioReadError
            If a clip can't be read, or its rate is too low for the encoder.
        CheckpointError
            If the file of weights is not one of the encoder.
        OSError
            If the weights are neither here nor to be fetched.
        """
        go_on = self.warm_start and hasattr(self, "n_iter_")
        return self._fit(X, y, sample_weight, go_on=go_on)

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y, classes=None, sample_weight=None):
        """Go on from the last solution by one epoch over these clips.

        It keeps the state of the optimizer, which takes the room of two encoders.

        Parameters
        ----------
        X, y : array-like
            As in `fit`.
        classes : array-like of shape (n_classes,), default=None
            All labels there will be, in the first call; ``None`` is `labels`, or those
            of y. Later ones may leave it out.
        sample_weight : array-like of shape (n_clips,), default=None
            As in `fit`.

        Returns
        -------
        self : SPATagger
            The tagger.
        """
        go_on = hasattr(self, "n_iter_")
        return self._fit(
            X, y, sample_weight, go_on=go_on, in_part=True, classes=classes
        )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        tags.input_tags.string = self.encoder is not None
        tags.input_tags.three_d_array = self.encoder is not None
        return tags
