"""VGGishEmbedder: clips to VGGish's vectors."""

from sklearn.utils._param_validation import StrOptions

from ._base import AudioEmbedder
from ._docs import describe_shared
from ._windows import plan_patches


@describe_shared(hop="the published 0.96: windows that don't overlap", classes=False)
class VGGishEmbedder(AudioEmbedder):
    """Embed clips with VGGish, the network of AudioSet's released features.

    72 million weights, vectors of 128 values [1]_. A clip is cut in windows of
    0.96 s; what is left behind the last is dropped, as in the published model, and a
    clip shorter than one is filled up with zeros.

    Parameters
    ----------
    weights : str, path-like or None, default="vggish"
        Name of a checkpoint, see `list_checkpoints`; path of
        ``vggish-10086976.pth``, beside which the later stages need
        ``vggish_pca_params-970ea276.pth``; or ``None`` for random weights.
    {parameters}
    stage : {"linear", "relu", "pca", "quantized"}, default="relu"
        Which of the vectors that go by the name of VGGish, of which ports give one
        or another: the last layer's as they are (TensorFlow's later release), after
        a ReLU (torchvggish, from which the file is), then rotated and whitened, and
        then clipped and rounded to 0 to 255 (as AudioSet's released features are).

    Attributes
    ----------
    {attributes}

    See Also
    --------
    YAMNetEmbedder : Its successor, smaller and quicker.

    References
    ----------
    .. [1] S. Hershey et al., "CNN Architectures for Large-Scale Audio
       Classification", ICASSP 2017.

    Examples
    --------
    >>> import numpy as np
    >>> from sklabelaudio import VGGishEmbedder
    >>> embedder = VGGishEmbedder(weights=None, sampling_rate=16000)
    >>> embedder.fit_transform([np.zeros(16000)]).shape
    (1, 128)
    """

    _parameter_constraints = {
        **AudioEmbedder._parameter_constraints,
        "output": [StrOptions({"embedding", "frames"})],
        "stage": [StrOptions({"linear", "relu", "pca", "quantized"})],
    }
    _encoder = "vggish"
    _fingerprint_params = (*AudioEmbedder._fingerprint_params, "stage")
    _engine_params = (*AudioEmbedder._engine_params, "stage")

    def __init__(
        self,
        weights="vggish",
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
        stage="relu",
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
        self.stage = stage

    def _make_module(self, state):
        from ..nn import VGGish

        return VGGish(output_stage=self.stage)

    def _read_state(self, checkpoint):
        from ..nn._checkpoint import read_checkpoint

        state = {}
        for path in checkpoint.paths:  # the network, and its principal components
            state |= read_checkpoint(path)
        return state

    def _plan(self, front_end):
        return plan_patches(front_end, hop=self.hop, default_hop=0.96, tail="drop")
