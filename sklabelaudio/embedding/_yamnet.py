"""YAMNetEmbedder: clips to YAMNet's vectors and class scores."""

from ._base import AudioEmbedder
from ._docs import describe_shared
from ._windows import plan_patches


@describe_shared(hop="the published 0.48")
class YAMNetEmbedder(AudioEmbedder):
    """Embed clips with YAMNet, a MobileNet trained on AudioSet.

    Small and quick: 3.7 million weights, vectors of 1,024 values, scores of 521
    sound classes. A clip is cut in windows of 0.96 s, the last of them filled up
    with zeros, as in the published model [1]_.

    Parameters
    ----------
    weights : str, path-like or None, default="yamnet"
        Name of a checkpoint, see `list_checkpoints`; the path of the official
        ``yamnet.h5`` or of the public ``.tflite`` model, whose whole numbers are
        read as the fractions that they stand for; or ``None`` for random weights.
    {parameters}

    Attributes
    ----------
    {attributes}

    See Also
    --------
    EfficientATEmbedder : As quick, and scores classes better.
    TaggerZeroShotClassifier : Names clips by labels of your own from its
        probabilities.

    References
    ----------
    .. [1] M. Plakal and D. Ellis, "YAMNet", TensorFlow Models, 2019. Its network is
       that of A. Howard et al., "MobileNets: Efficient Convolutional Neural Networks
       for Mobile Vision Applications", 2017.

    Examples
    --------
    >>> import numpy as np
    >>> from sklabelaudio import YAMNetEmbedder
    >>> clips = [np.zeros(16000), np.zeros(48000)]
    >>> embedder = YAMNetEmbedder(weights=None, sampling_rate=16000)
    >>> embedder.fit_transform(clips).shape
    (2, 1024)
    """

    _encoder = "yamnet"

    def __init__(
        self,
        weights="yamnet",
        *,
        sampling_rate=None,
        output="embedding",
        pooling="mean",
        hop=None,
        batch_size=32,
        device="auto",
        amp=False,
        cache=None,
        channel="mean",
        n_jobs=-1,
        on_error="raise",
        verbose=False,
    ):
        self.weights = weights
        self.sampling_rate = sampling_rate
        self.output = output
        self.pooling = pooling
        self.hop = hop
        self.batch_size = batch_size
        self.device = device
        self.amp = amp
        self.cache = cache
        self.channel = channel
        self.n_jobs = n_jobs
        self.on_error = on_error
        self.verbose = verbose

    def _make_module(self, state):
        from ..nn import YAMNet

        return YAMNet()

    def _plan(self, front_end):
        return plan_patches(front_end, hop=self.hop, default_hop=0.48, tail="pad")
