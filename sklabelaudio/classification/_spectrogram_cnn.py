"""SpectrogramCNNClassifier: convolutional networks over the log-mel."""

import os
from collections.abc import Mapping
from numbers import Integral, Real

from sklearn.base import BaseEstimator, ClassifierMixin, _fit_context
from sklearn.utils._param_validation import Interval, Options, StrOptions

from ..audio._read import CHANNEL_CONSTRAINT, SAMPLING_RATE_CONSTRAINT
from ._architectures import tell_architecture
from ._cnn_training import CNNTraining


class SpectrogramCNNClassifier(CNNTraining, ClassifierMixin, BaseEstimator):
    """Name sounds by a convolutional network that reads the log-mel as an image.

    Networks of three sizes for acoustic scenes and other sounds, as a study of DCASE's
    low-complexity task compares them [1]_: ResNet-34, the plain CNNs of PANNs [2]_, and
    SP4SC [3]_, whose separable convolutions and merged batch norms leave 62,474
    parameters. They train from scratch, or from published weights.

    Parameters
    ----------
    architecture : str or torch.nn.Module class, default="cnn6"
        The network:

        - ``"cnn6"``, ``"cnn10"``, ``"cnn14"``, ``"cnn14_16k"``, ``"resnet34"`` or
          ``"sp4sc"``;
        - a class of torch modules that takes log-mel ``(n_clips, n_frames, n_mels)``,
          or vectors ``(n_clips, n_features)``, and returns scores ``(n_clips,
          n_classes)``. Parameters `n_classes`, `n_mels` and `dropout` are given to it
          if it has them; of vectors `n_mels` is their length.
    architecture_params : mapping or None, default=None
        Parameters of its class in `sklabelaudio.nn`, such as ``{"width": 0.5}`` for a
        CNN of half as many channels.
    weights : str, path-like or None, default=None
        Weights that the network begins with: the name of a published checkpoint, see
        `list_checkpoints`, or the path of its file. The last layer is new. ``None``
        trains from scratch.
    front_end : str or None, default=None
        Name of the front end that makes log-mel of clips. ``None`` is that of the
        architecture: ``"panns_32k"`` of the CNNs, ``"sp4sc"`` of the others, none of a
        class. Published weights have their own.
    trainable : "all", "head" or list of str, default="all"
        What is trained: all, the linear layers at the end, or weights whose names begin
        so, such as ``["conv1", "fc"]`` for the first and the last layer of ResNet-34.
    loss : {"cross_entropy", "focal"}, default="cross_entropy"
        What is minimised.
    focal_gamma : float, default=2.0
        How much less clips count in the focal loss that are told already.
    label_smoothing : float, default=0.0
        Share of each label that is spread evenly over all classes.
    dropout : float or None, default=None
        Probability of dropout in training; ``None`` is the network's own, 0.2, of
        ResNet-34 0.
    max_epochs : int, default=50
        How often to go through the clips.
    lr : float, default=0.001
        Learning rate.
    lr_decay : float or None, default=0.95
        Factor of the learning rate after each epoch. ``None`` leaves it to `callbacks`.
    batch_size : int, default=16
        Clips in a batch. A last batch of one joins that before.
    optimizer : str or callable, default="AdamW"
        Name of a class in `torch.optim`, or a class.
    momentum : float, default=0.9
        Momentum of the optimizer, if it has one.
    weight_decay : float, default=1e-4
        Weight decay of the optimizer, if it has one.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes in the loss; ``"balanced"`` are inverse to their numbers
        of clips.
    augmentations : list of callable or None, default=None
        What is done to clips in training as they are read, such as
        ``[RandomNoise(), RandomShift()]`` from `sklabelaudio.audio`. Each is called
        with ``(samples, sampling_rate)``, of log-mel in X with ``(log_mel, None)``, and
        with ``rng=`` a `numpy.random.Generator` if it has such a parameter, and returns
        as many samples.
    mixup_alpha : float, default=0.0
        Both parameters of the beta distribution of the shares by which clips are mixed
        in training, such as 0.2. 0 mixes none.
    spec_augment : bool or (int, int), default=False
        The widest stripes of mel bands and of frames, two of each, that are blanked in
        every clip in training. ``True`` is an eighth and a sixteenth of what there is.
    time_roll : bool, default=False
        Whether the log-mel of a clip is rolled over time in training.
    n_tta : int, default=1
        Test-time augmentation: predictions are the mean over the clip and so many less
        one of its copies, rolled over time by equal steps.
    gradient_clip : float or None, default=None
        Greatest norm of the gradient of a batch.
    amp : False or {"bfloat16", "float16"}, default=False
        Half precision for what allows it in training, for speed on a GPU.
    early_stopping : bool, default=False
        Whether to set clips apart and to stop once the accuracy for these does not
        improve. The best epoch is kept.
    patience : int, default=10
        Epochs without an improvement after which to stop.
    validation_fraction : float, default=0.1
        Share of the clips that are set apart.
    checkpoint : str, path-like or None, default=None
        Folder for the state after each epoch. A `fit` with the same parameters and
        clips goes on from there, also after a kill, and ends with the same as if
        unbroken.
    sampling_rate : float, default=None
        Rate of clips that are arrays, in Hz.
    duration : float, default=None
        Length of what the network hears, in seconds. In training longer clips are cut
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
    classes_ : ndarray of shape (n_classes,)
        The labels, sorted.
    n_parameters_ : int
        Values that the network is saved with, as the study counts: its parameters, and
        its batch norms' statistics and counters, as long as these are not merged.
    n_multiply_adds_ : int
        Multiplications with an addition in convolutions and matrix products for a clip
        or piece as in `fit` (10 s without a fit), `n_tta` times.
    model_size_ : dict
        Bytes of `n_parameters_` values in ``"float32"`` and ``"float16"``.
    checkpoint_ : ResolvedCheckpoint
        Where the first weights are from.
    history_ : list of dict
        Of each epoch the losses, the accuracy of the validation, the learning rate and
        the seconds.
    n_iter_ : int
        Number of epochs.
    n_features_in_ : int
        Length of the vectors or clips in X, if it is an array of these.

    See Also
    --------
    SemanticContrastiveClassifier : Learns the texts of the labels, too.
    SP4SCEmbedder : Vectors and scores of the published SP4SC.

    Notes
    -----
    **Log-mel** in X may be of any kind and number of mel bands, such as from
    `LogMelExtractor`, unless weights are given. The CNNs and SP4SC halve it four times
    (``"cnn14"`` five), so that it takes 16 (32) frames and bands or more.

    **The study's settings**: ResNet-34 with ``trainable=["conv1", "fc"]`` from the
    weights of ImageNet; all on the log-mel of ``"sp4sc"``. It counts 4,574,287 values
    of Cnn6, as it is with ten classes and 64 bands, and of SP4SC 64,335, or 62,474 for
    inference. SP4SC was trained [3]_ with ``batch_size=32, weight_decay=1e-5,
    spec_augment=(128, 32)``, for 200 epochs of a cosine schedule from 1e-3 to 1e-5, and
    with ``mixup_alpha=0.2`` or ``loss="focal"``.

    **What is not trained** keeps its weights. Batch norms go on following the clips, or
    random weights would stay without a scale; unless there are `weights` and only the
    head is trained, which then reads what was published. The statistics of the first
    batches are averaged evenly, so that a short training is of use, too.

    **For inference** `merge_batch_norm` and then `half` give copies that are smaller,
    and `check_budget` says whether they keep a limit.

    **The checkpoint folder** is as that of `SemanticContrastiveClassifier`: a fit that
    was finished is read back, and schedules in `callbacks` go on from where they stood.

    `partial_fit` leaves the learning rate at its beginning.

    Pickles hold what training has changed, and of other weights from a file its path
    and SHA-256; copies for inference hold all.

    References
    ----------
    .. [1] V. Barberteguy, "Deep Learning project: Audio Scene Classification", 2023.
    .. [2] Q. Kong, Y. Cao, T. Iqbal, Y. Wang, W. Wang and M. D. Plumbley, "PANNs:
       Large-scale pretrained audio neural networks for audio pattern recognition",
       IEEE/ACM TASLP 28, 2020.
    .. [3] G. Puy, H. Jain and A. Bursuc, "Separable convolutions and test-time
       augmentations for low-complexity and calibrated acoustic scene classification",
       DCASE 2021.

    Examples
    --------
    >>> import numpy as np
    >>> from sklabelaudio import SpectrogramCNNClassifier
    >>> y = ["low", "high"] * 10
    >>> X = np.random.default_rng(0).normal(size=(20, 16, 16))
    >>> X[::2, :, :8] += 3
    >>> X[1::2, :, 8:] += 3
    >>> classifier = SpectrogramCNNClassifier(
    ...     "sp4sc", architecture_params={"width": 0.25}, random_state=0
    ... ).fit(X, y)
    >>> classifier.predict(X[:2])
    array(['low', 'high'], dtype='<U4')
    >>> small = classifier.merge_batch_norm().half()
    >>> small.n_parameters_, small.model_size_["float16"]
    (4514, 9028)
    >>> small.check_budget()
    SpectrogramCNNClassifier(...)
    """

    _parameter_constraints = {
        "architecture": [str, callable],
        "architecture_params": [Mapping, None],
        "weights": [str, os.PathLike, None],
        "front_end": [str, None],
        "trainable": [StrOptions({"all", "head"}), list, tuple],
        "loss": [StrOptions({"cross_entropy", "focal"})],
        "focal_gamma": [Interval(Real, 0, None, closed="left")],
        "label_smoothing": [Interval(Real, 0, 1, closed="left")],
        "dropout": [Interval(Real, 0, 1, closed="left"), None],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "lr_decay": [Interval(Real, 0, 1, closed="right"), None],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "optimizer": [str, callable],
        "momentum": [Interval(Real, 0, 1, closed="left")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "class_weight": [dict, StrOptions({"balanced"}), None],
        "augmentations": [list, tuple, None],
        "mixup_alpha": [Interval(Real, 0, None, closed="left")],
        "spec_augment": ["boolean", tuple, list],
        "time_roll": ["boolean"],
        "n_tta": [Interval(Integral, 1, None, closed="left")],
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
        architecture="cnn6",
        *,
        architecture_params=None,
        weights=None,
        front_end=None,
        trainable="all",
        loss="cross_entropy",
        focal_gamma=2.0,
        label_smoothing=0.0,
        dropout=None,
        max_epochs=50,
        lr=0.001,
        lr_decay=0.95,
        batch_size=16,
        optimizer="AdamW",
        momentum=0.9,
        weight_decay=1e-4,
        class_weight=None,
        augmentations=None,
        mixup_alpha=0.0,
        spec_augment=False,
        time_roll=False,
        n_tta=1,
        gradient_clip=None,
        amp=False,
        early_stopping=False,
        patience=10,
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
        self.architecture = architecture
        self.architecture_params = architecture_params
        self.weights = weights
        self.front_end = front_end
        self.trainable = trainable
        self.loss = loss
        self.focal_gamma = focal_gamma
        self.label_smoothing = label_smoothing
        self.dropout = dropout
        self.max_epochs = max_epochs
        self.lr = lr
        self.lr_decay = lr_decay
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.class_weight = class_weight
        self.augmentations = augmentations
        self.mixup_alpha = mixup_alpha
        self.spec_augment = spec_augment
        self.time_roll = time_roll
        self.n_tta = n_tta
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

    @classmethod
    def from_checkpoint(cls, weights, classes=None, *, architecture=None, **params):
        """Make a fitted classifier of weights that are trained.

        Parameters
        ----------
        weights : str or path-like
            Name of a published checkpoint, such as ``"sp4asc_ce"``, or path of a file,
            with batch norms or merged.
        classes : array-like of shape (n_classes,), default=None
            The labels, in the order of the scores; ``None`` is those of the published
            checkpoint.
        architecture : str, default=None
            The network; ``None`` has the weights tell.
        **params : object
            Further parameters of the classifier.

        Returns
        -------
        SpectrogramCNNClassifier
            The classifier. `fit` trains a new last layer; `partial_fit`, and `fit` with
            `warm_start`, go on from here.

        Raises
        ------
        ValueError
            If the classes are not known or not as many as the scores, or clips have
            several of them.
        CheckpointError
            If the file can't be read, or is another network's.
        OSError
            If the weights are neither here nor to be fetched.
        """
        if architecture is None:
            architecture = tell_architecture(weights)
        made = cls(architecture, weights=weights, **params)
        made._validate_params()
        return made._restore(classes)

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None):
        """Train.

        Parameters
        ----------
        X : array-like of shape (n_clips, n_frames, n_mels), or clips
            Log-mel; or clips: paths, ``(n_clips, n_samples)`` or a sequence of
            ``(n_samples,)``. A class of your own without a front end may take vectors
            ``(n_clips, n_features)``.
        y : array-like of shape (n_clips,)
            The label of each clip.
        sample_weight : array-like of shape (n_clips,), default=None
            How often each clip counts in the loss; those with 0 are left out.

        Returns
        -------
        self : SpectrogramCNNClassifier
            The trained classifier.

        Raises
        ------
        ValueError
            If X, y and the parameters don't go together, the loss gets infinite, the
            checkpoint is of another configuration, or this is a copy for inference.
        TypeError
            If the network gives no scores.
        AudioReadError
            If a clip can't be read.
        CheckpointError
            If the file of weights is not one of the network, or the checkpoint is
            damaged.
        OSError
            If weights can't be found, or no checkpoint be written.
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
        self : SpectrogramCNNClassifier
            The classifier.
        """
        go_on = hasattr(self, "n_iter_")
        return self._fit(
            X, y, sample_weight, go_on=go_on, in_part=True, classes=classes
        )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        named = isinstance(self.architecture, str) or self.front_end is not None
        tags.input_tags.string = named
        tags.input_tags.three_d_array = True
        return tags
