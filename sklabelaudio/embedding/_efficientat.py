"""EfficientATEmbedder: clips to EfficientAT's vectors and class scores."""

from numbers import Real

from sklearn.utils._param_validation import Interval, StrOptions

from ._base import OUTPUTS, AudioEmbedder
from ._docs import describe_shared
from ._windows import plan_segments

_FRAMEWISE = ("framewise_embedding",)


@describe_shared(hop="`window`: windows that don't overlap", framewise=_FRAMEWISE)
class EfficientATEmbedder(AudioEmbedder):
    """Embed clips with EfficientAT, MobileNets that learned from a transformer.

    From 1 to 68 million weights, vectors of 384 to 3,840 values, scores of the 527
    classes of AudioSet; the smallest is as good as networks eighty times its size
    [1]_. A clip is taken whole up to the length of a window and 2 % more, and longer
    ones in windows, of which the last ends with the clip.

    Parameters
    ----------
    weights : str, path-like or None, default="mn04_as"
        Name of a checkpoint, see `list_checkpoints`; path of a file of the authors,
        whose width is read off it; or ``None`` for random weights.
    {parameters}
    window : float, default=10.0
        Length of a window, in seconds; it was trained on 10.

    Attributes
    ----------
    {attributes}

    See Also
    --------
    YAMNetEmbedder : With a finer time line.
    TaggerZeroShotClassifier : Names clips by labels of your own from its
        probabilities.

    References
    ----------
    .. [1] F. Schmid, K. Koutini and G. Widmer, "Efficient Large-Scale Audio Tagging
       via Transformer-to-CNN Knowledge Distillation", ICASSP 2023.

    Examples
    --------
    >>> import numpy as np
    >>> from sklabelaudio import EfficientATEmbedder
    >>> clips = [np.zeros(32000), np.zeros(48000)]
    >>> embedder = EfficientATEmbedder(weights=None, sampling_rate=32000)
    >>> embedder.fit_transform(clips).shape
    (2, 384)
    """

    _parameter_constraints = {
        **AudioEmbedder._parameter_constraints,
        "output": [StrOptions(OUTPUTS | set(_FRAMEWISE))],
        "window": [Interval(Real, 0, None, closed="neither")],
    }
    _encoder = "efficientat"
    _fingerprint_params = (*AudioEmbedder._fingerprint_params, "window")

    def __init__(
        self,
        weights="mn04_as",
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
        window=10.0,
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
        self.window = window

    def _make_module(self, state):
        from ..nn import EfficientAT

        return EfficientAT(width=0.4 if state is None else EfficientAT.width_of(state))

    def _plan(self, front_end):
        return plan_segments(front_end, window=self.window, hop=self.hop)
