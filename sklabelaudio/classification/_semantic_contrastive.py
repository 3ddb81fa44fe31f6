"""SemanticContrastiveClassifier: labels as language, trained with the audio."""

import os
from collections.abc import Mapping
from numbers import Integral, Real

from sklearn.base import (
    BaseEstimator,
    ClassifierMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    _fit_context,
)
from sklearn.utils._param_validation import (
    HasMethods,
    Interval,
    Options,
    StrOptions,
)
from sklearn.utils.validation import check_is_fitted

from ..audio._read import CHANNEL_CONSTRAINT, SAMPLING_RATE_CONSTRAINT
from ._candidates import CandidateLabelsMixin
from ._contrastive_training import ContrastiveTraining


class SemanticContrastiveClassifier(
    CandidateLabelsMixin,
    ContrastiveTraining,
    ClassNamePrefixFeaturesOutMixin,
    ClassifierMixin,
    TransformerMixin,
    BaseEstimator,
):
    """Name sounds by a network that learns what the words of the labels mean.

    SemanticAC [1]_: an encoder makes a map of a clip, a small head one vector of the
    map, and a text encoder one of the label's text. Contrastive training brings each
    clip near to the text of its label and away from the others of the batch. A clip has
    the label whose text is nearest, which may be one that had no clip in training.

    Parameters
    ----------
    encoder : str, torch.nn.Module class or None, default="htsat"
        What turns clips to maps:

        - ``"ast"``, ``"efficientat"``, ``"htsat"``, ``"panns"`` (or one of them, from
          ``"cnn6"`` to ``"cnn14_16k"``), ``"passt"``, ``"psla"`` or ``"sp4sc"``;
        - a class of torch modules whose ``forward_features``, or else what it returns,
          is a map ``(n_clips, n_channels, height, width)`` or tokens ``(n_clips,
          n_tokens, n_channels)``;
        - ``None``: X holds vectors, which takes ``similarity="linear"``.
    weights : str, path-like or None, default=None
        Weights that the encoder begins with: the name of a published checkpoint, see
        `list_checkpoints`, or the path of its file. ``None`` trains from scratch.
    encoder_params : mapping or None, default=None
        Parameters of the encoder's class, such as ``{"width": 0.4}``.
    front_end : str or None, default=None
        Name of the front end of an encoder that is a class, such as ``"panns_32k"``.
        ``None`` gives the class X as it is.
    freeze_encoder : bool, default=False
        Whether the encoder stays as it is, and its weights out of pickles.
    text_encoder : str, path-like, transformer, mapping or None, \
            default="openai/clip-vit-base-patch32"
        What turns labels to vectors:

        - the id or the folder of a CLIP, a BERT, a sentence encoder or another text
          encoder that `LabelTextEmbedder` takes, or AudioCLIP's file: trained with the
          audio;
        - the same with `freeze_text_encoder`, or a file of word vectors, which needs
          it: stays as it is;
        - a `LabelTextEmbedder` or another transformer, or a mapping of labels to
          vectors: these stay as they are, are worked out once in `fit`, and a linear
          layer leads into the joint space;
        - ``None``: no texts, but a linear classifier trained by cross-entropy.
    freeze_text_encoder : bool, default=False
        Whether a text encoder that is named stays as it is. Frozen or not, a linear
        layer leads from it into the joint space, unless it is a CLIP's with vectors of
        `n_components`.
    prompt : str, list of str or None, default="an audio clip of {label}"
        Template of the labels' texts, for a text encoder that is named; of several, the
        vectors are averaged. ``None`` takes labels as they are. A `LabelTextEmbedder`
        has a prompt of its own.
    n_components : int, default=1024
        Dimensions of the joint space, C in [1]_.
    similarity : {"cscm", "linear", "lstm", "transformer"}, default="cscm"
        Head that makes one vector of a map: `CSCM`; the mean of the map and a linear
        layer; or these behind an LSTM or a transformer of 4 layers over all places.
    positives : {"diagonal", "class"}, default="diagonal"
        What a clip of a batch is not told from: its own text alone, as in the paper; or
        all of its class, see `SymmetricContrastiveLoss`.
    logit_scale : float or "learn", default="learn"
        What cosines are multiplied by: learned, from 1 / 0.07 on and up to 100, or a
        number. 1 is the paper's equation.
    candidate_labels : array-like of shape (n_candidates,), default=None
        Labels to choose from instead of those of `fit`, which may be among them. May be
        set at any time, `fit` does not look at it.
    max_epochs : int, default=20
        How often to go through the clips.
    lr : float, default=0.01
        Learning rate of what begins with new weights.
    lr_decay : float or None, default=0.96
        Factor of all learning rates after each epoch, as of ``ExponentialLR``. ``None``
        leaves them to `callbacks`.
    encoder_lr : float, "auto" or None, default="auto"
        Learning rate of the encoder: ``"auto"`` is 8e-5 if it begins with trained
        weights, and `lr` otherwise; ``None`` is `lr`.
    text_lr : float or None, default=8e-5
        Learning rate of a text encoder that is trained; ``None`` is `lr`.
    batch_size : int, default=16
        Clips in a batch, 2 or more with texts. A last batch of one joins that before.
    optimizer : str or callable, default="SGD"
        Name of a class in `torch.optim`, or a class.
    momentum : float, default=0.9
        Momentum of the optimizer, if it has one.
    weight_decay : float, default=5e-4
        Weight decay of the optimizer, if it has one; not of the learned scale.
    augmentations : list of callable or None, default=None
        What is done to clips in training as they are read, such as
        ``[RandomNoise(), RandomShift()]`` from `sklabelaudio.audio`. Each is called
        with ``(samples, sampling_rate)``, of log-mel in X with ``(log_mel, None)``, and
        with ``rng=`` a `numpy.random.Generator` if it has such a parameter, and returns
        as many samples. What draws from elsewhere is not repeatable.
    mixup_alpha : float, default=0.0
        Both parameters of the beta distribution of the shares by which clips are mixed
        in training, such as 0.3. 0 mixes none.
    spec_augment : bool or (int, int), default=False
        The widest stripes of mel bands and of frames, two of each, that are blanked in
        every clip in training. ``True`` is an eighth and a sixteenth of what there is.
    time_roll : bool, default=False
        Whether the log-mel of a clip is rolled over time in training.
    gradient_clip : float or None, default=None
        Greatest norm of the gradient of a batch.
    amp : False or {"bfloat16", "float16"}, default=False
        Half precision for what allows it in training, for speed on a GPU. Gradients are
        scaled for ``"float16"``.
    early_stopping : bool, default=False
        Whether to set clips apart and to stop once the accuracy for these does not
        improve. The best epoch is kept.
    patience : int, default=5
        Epochs without an improvement after which to stop.
    validation_fraction : float, default=0.1
        Share of the clips that are set apart.
    checkpoint : str, path-like or None, default=None
        Folder for the state after each epoch. A `fit` with the same parameters and
        clips goes on from there, also after a kill, and ends with the same as if
        unbroken; see Notes.
    sampling_rate : float, default=None
        Rate of clips that are arrays, in Hz.
    duration : float, default=None
        Length of what the encoder hears, in seconds. In training longer clips are cut
        anew in each epoch and shorter ones repeated; predictions are the mean over
        pieces that follow each other. ``None`` takes clips whole, which have to be of
        one length.
    channel : "mean" or int, default="mean"
        What to take of files with several channels.
    callbacks : list of skorch callbacks, default=None
        Called in training, after copying, such as a schedule of learning rates.
    warm_start : bool, default=False
        Whether `fit` goes on from the last solution.
    device : str, default="auto"
        Where to compute: ``"cpu"``, ``"cuda"``, or ``"auto"``, a GPU if there is one.
    n_jobs : int, default=None
        Threads that read clips, in joblib's sense.
    verbose : bool, default=False
        Whether to show a progress bar, and a line for each epoch.
    random_state : int, RandomState instance or None, default=None
        Makes training repeatable; global generators stay as they were.

    Attributes
    ----------
    seen_classes_ : ndarray of shape (n_seen_classes,)
        The labels of `fit`.
    classes_ : ndarray of shape (n_classes,)
        What scores are of, sorted: `candidate_labels`, or else `seen_classes_`.
    label_embeddings_ : ndarray of shape (n_classes, n_components)
        The texts of `classes_` in the joint space; without texts the weights of the
        classifier.
    checkpoint_ : ResolvedCheckpoint or None
        Where the encoder's first weights are from; ``None`` without an encoder.
    history_ : list of dict
        Of each epoch the losses, the accuracy of the validation, the learning rate of
        the new layers, and the seconds.
    n_iter_ : int
        Number of epochs.
    n_features_in_ : int
        Length of the vectors in X, or of clips that are the rows of one array.

    See Also
    --------
    SPATagger : Tags with several labels, by texts too.
    PromptZeroShotClassifier : Names sounds by texts without training.
    sklabelaudio.nn.CSCM : The head.

    Notes
    -----
    The loss of a batch is equation 3 of [1]_ over its clips and the texts of their
    labels, see `SymmetricContrastiveLoss`. Scores are the cosines of a clip and the
    texts, multiplied by the scale, and probabilities their softmax.

    **The paper's settings** are SGD with a weight decay of 5e-4, batches of 16 and 8e-5
    as the learning rate of all, which falls by 0.96 after each epoch; it tells of no
    momentum and no scale. That is ``lr=8e-5, encoder_lr=None, text_lr=None,
    momentum=0, logit_scale=1.0``. With it a new head hardly moves: steps are small, and
    so are the gradients of cosines that are not scaled. So here 8e-5 is the rate of
    what begins with trained weights, new layers have their own, and momentum and scale
    are those usual elsewhere. The number of epochs is not told either.

    **Label texts** are encoded anew in each batch while the text encoder is trained,
    all labels of the batch together and with the dropout that it was made with, and
    otherwise once a fit. Texts that are longer than the encoder takes are cut, with a
    warning that names the label.

    **A label with one clip** is learned like the others; the validation leaves it to
    the training. A batch of clips of one label teaches nothing with
    ``positives="class"``.

    **The checkpoint** is one file in the folder, which is replaced as a whole. A fit
    with other parameters, clips or labels is an error that names what differs; more
    epochs in `max_epochs` go on. A fit that was finished is read back. Clips in files
    are told by their paths, and functions by their names: that they were changed
    themselves is not noticed. Without `random_state` the seed is the one in the file.
    Of `callbacks`, `LRScheduler` and `EarlyStopping` go on from where they stood, and
    others begin anew. Each fit takes a folder of its own, so there is none for
    cross-validation and searches. `partial_fit`, and `fit` that goes on with
    `warm_start`, neither read nor write it.

    `partial_fit` leaves the learning rates at their beginning.

    Pickles hold what was trained, batch norms' statistics included. Of a frozen encoder
    they hold the path of its file and its SHA-256. A text encoder that is trained is
    in them, but for its tokenizer, which is read again by the text encoder's name for
    `candidate_labels` that were not trained.

    References
    ----------
    .. [1] Y. Xiao, Y. Ma, S. Li, H. Zhou, R. Liao and X. Li, "SemanticAC:
       Semantics-Assisted Framework for Audio Classification", ICASSP 2023.

    Examples
    --------
    >>> import numpy as np
    >>> from sklabelaudio.classification import SemanticContrastiveClassifier
    >>> texts = {"dog": [1, 0, 0], "wolf": [1, 0, 1], "rain": [0, 1, 0]}
    >>> y = ["dog", "rain"] * 50
    >>> rng = np.random.default_rng(0)
    >>> X = np.array([[label == "dog", label == "rain"] for label in y], dtype=float)
    >>> X += rng.normal(0, 0.1, X.shape)
    >>> classifier = SemanticContrastiveClassifier(
    ...     encoder=None, similarity="linear", text_encoder=texts, random_state=0
    ... ).fit(X, y)
    >>> classifier.predict([[1, 0], [0, 1]])
    array(['dog', 'rain'], dtype='<U4')
    >>> classifier.set_params(candidate_labels=["rain", "wolf"])
    SemanticContrastiveClassifier(...)
    >>> classifier.predict([[1, 0], [0, 1]])
    array(['wolf', 'rain'], dtype='<U4')
    """

    _parameter_constraints = {
        "encoder": [str, callable, None],
        "weights": [str, os.PathLike, None],
        "encoder_params": [Mapping, None],
        "front_end": [str, None],
        "freeze_encoder": ["boolean"],
        "text_encoder": [
            str,
            os.PathLike,
            HasMethods(["fit", "transform"]),
            Mapping,
            None,
        ],
        "freeze_text_encoder": ["boolean"],
        "prompt": [str, list, tuple, None],
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "similarity": [StrOptions({"cscm", "linear", "lstm", "transformer"})],
        "positives": [StrOptions({"diagonal", "class"})],
        "logit_scale": [
            Interval(Real, 0, None, closed="neither"),
            StrOptions({"learn"}),
        ],
        "candidate_labels": ["array-like", None],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "lr_decay": [Interval(Real, 0, 1, closed="right"), None],
        "encoder_lr": [
            Interval(Real, 0, None, closed="neither"),
            StrOptions({"auto"}),
            None,
        ],
        "text_lr": [Interval(Real, 0, None, closed="neither"), None],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "optimizer": [str, callable],
        "momentum": [Interval(Real, 0, 1, closed="left")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "augmentations": [list, tuple, None],
        "mixup_alpha": [Interval(Real, 0, None, closed="left")],
        "spec_augment": ["boolean", tuple, list],
        "time_roll": ["boolean"],
        "gradient_clip": [Interval(Real, 0, None, closed="neither"), None],
        "amp": [StrOptions({"bfloat16", "float16"}), Options(bool, {False})],
        "early_stopping": ["boolean"],
        "patience": [Interval(Integral, 1, None, closed="left")],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "checkpoint": [str, os.PathLike, None],
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
        encoder="htsat",
        *,
        weights=None,
        encoder_params=None,
        front_end=None,
        freeze_encoder=False,
        text_encoder="openai/clip-vit-base-patch32",
        freeze_text_encoder=False,
        prompt="an audio clip of {label}",
        n_components=1024,
        similarity="cscm",
        positives="diagonal",
        logit_scale="learn",
        candidate_labels=None,
        max_epochs=20,
        lr=0.01,
        lr_decay=0.96,
        encoder_lr="auto",
        text_lr=8e-5,
        batch_size=16,
        optimizer="SGD",
        momentum=0.9,
        weight_decay=5e-4,
        augmentations=None,
        mixup_alpha=0.0,
        spec_augment=False,
        time_roll=False,
        gradient_clip=None,
        amp=False,
        early_stopping=False,
        patience=5,
        validation_fraction=0.1,
        checkpoint=None,
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
        self.text_encoder = text_encoder
        self.freeze_text_encoder = freeze_text_encoder
        self.prompt = prompt
        self.n_components = n_components
        self.similarity = similarity
        self.positives = positives
        self.logit_scale = logit_scale
        self.candidate_labels = candidate_labels
        self.max_epochs = max_epochs
        self.lr = lr
        self.lr_decay = lr_decay
        self.encoder_lr = encoder_lr
        self.text_lr = text_lr
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.augmentations = augmentations
        self.mixup_alpha = mixup_alpha
        self.spec_augment = spec_augment
        self.time_roll = time_roll
        self.gradient_clip = gradient_clip
        self.amp = amp
        self.early_stopping = early_stopping
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.checkpoint = checkpoint
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
            With an encoder log-mel as its front end gives it; or clips: paths,
            ``(n_clips, n_samples)`` or a sequence of ``(n_samples,)``. Without one
            vectors.
        y : array-like of shape (n_clips,)
            The label of each clip.
        sample_weight : array-like of shape (n_clips,), default=None
            How often each clip counts in the loss, its text among the negatives too;
            those with 0 are left out.

        Returns
        -------
        self : SemanticContrastiveClassifier
            The trained classifier.

        Raises
        ------
        ValueError
            If X, y and the parameters don't go together, the loss gets infinite, or
            the checkpoint is of another configuration.
        TypeError
            If the encoder gives neither a map nor tokens, or labels are no texts.
        UnknownLabelError
            If a label has no vector.
        AudioReadError
            If a clip can't be read.
        CheckpointError
            If the file of weights is not one of the encoder, or the checkpoint is
            damaged.
        OSError
            If weights or a text encoder can't be found, or no checkpoint be written.
        RuntimeError
            If another fit has begun in the folder of the checkpoint.
        """
        go_on = self.warm_start and hasattr(self, "n_iter_")
        return self._fit(X, y, sample_weight, go_on=go_on)

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y, classes=None, sample_weight=None):
        """Go on from the last solution by one epoch over these clips.

        Parameters
        ----------
        X, y : array-like
            As in `fit`.
        classes : array-like of shape (n_classes,), default=None
            All labels there will be, in the first call; ``None`` is those of y.
        sample_weight : array-like of shape (n_clips,), default=None
            As in `fit`.

        Returns
        -------
        self : SemanticContrastiveClassifier
            The classifier.
        """
        go_on = hasattr(self, "n_iter_")
        return self._fit(
            X, y, sample_weight, go_on=go_on, in_part=True, classes=classes
        )

    def transform(self, X):
        """Bring clips into the joint space.

        Parameters
        ----------
        X : array-like
            Clips, as in `fit`.

        Returns
        -------
        ndarray of shape (n_clips, n_components)
            Their vectors, not of length one.
        """
        check_is_fitted(self, "n_iter_")
        return self._embed_clips(X).astype(self._dtype)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.string = self.encoder is not None
        tags.input_tags.three_d_array = self.encoder is not None
        return tags
