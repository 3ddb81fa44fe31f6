"""PSLAEmbedder: clips to PSLA's vectors and class scores."""

from numbers import Real

from sklearn.utils._param_validation import Interval, StrOptions

from ._base import OUTPUTS, AudioEmbedder
from ._docs import describe_shared
from ._windows import plan_segments

_FRAMEWISE = ("framewise_embedding", "framewise_probabilities")
# Log-mel frames, 100 a second, of the clips in training: of AudioSet, and FSD50K.
_N_FRAMES = (1056, 3000)
_LEAST_FRAMES = 4  # that the network needs


@describe_shared(hop="`window`: windows that don't overlap", framewise=_FRAMEWISE)
class PSLAEmbedder(AudioEmbedder):
    """Embed clips with PSLA, an EfficientNet with attention over time.

    13.6 million weights, vectors of 1,408 values, scores of the 527 classes of
    AudioSet or the 200 of FSD50K, also over time, every 0.32 s [1]_. Clips
    longer than a window and 2 % more are taken in windows, of which the last ends with
    the clip.

    Parameters
    ----------
    weights : str, path-like or None, default="psla_audioset"
        Name of a checkpoint, see `list_checkpoints`; path of a file of the authors,
        whose number of classes is read off it; or ``None`` for random weights.
    {parameters}
    window : float, default=10.0
        Length of a window, in seconds. AudioSet's models were trained on 10, FSD50K's
        on up to 30.
    short_clips : {"fill", "keep"}, default="fill"
        What becomes of a window that is shorter than the clips in training: its
        log-mel is followed by zeros up to their length, as it was there, or taken as
        it is, which is faster and keeps the zeros out of the vector: they are no
        silence, but louder. Their length is 10.56 s, or 30 s if `window` is more than
        that.
    padding : {"symmetric", "tensorflow"}, default="symmetric"
        Which version of EfficientNet the weights are for; the files don't tell. The
        default is that of the authors; see :class:`~sklabelaudio.nn.PSLA` for how to
        find out about files of others.

    Attributes
    ----------
    {attributes}

    See Also
    --------
    EfficientATEmbedder : Better taggers of that kind, from a million weights up.
    sklabelaudio.nn.PSLA : The network.

    References
    ----------
    .. [1] Y. Gong, Y.-A. Chung and J. Glass, "PSLA: Improving Audio Tagging with
       Pretraining, Sampling, Labeling, and Aggregation", IEEE/ACM TASLP 29, 2021.

    Examples
    --------
    >>> import numpy as np
    >>> from sklabelaudio import PSLAEmbedder
    >>> clips = [np.zeros(16000)]
    >>> embedder = PSLAEmbedder(weights=None, sampling_rate=16000)
    >>> embedder.fit_transform(clips).shape
    (1, 1408)
    """

    _parameter_constraints = {
        **AudioEmbedder._parameter_constraints,
        "output": [StrOptions(OUTPUTS | set(_FRAMEWISE))],
        "window": [Interval(Real, 0, None, closed="neither")],
        "short_clips": [StrOptions({"fill", "keep"})],
        "padding": [StrOptions({"symmetric", "tensorflow"})],
    }
    _encoder = "psla"
    _own_params = ("window", "short_clips", "padding")
    _fingerprint_params = (*AudioEmbedder._fingerprint_params, *_own_params)
    _engine_params = (*AudioEmbedder._engine_params, *_own_params)

    def __init__(
        self,
        weights="psla_audioset",
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
        short_clips="fill",
        padding="symmetric",
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
        self.short_clips = short_clips
        self.padding = padding

    def _make_module(self, state):
        from ..nn import PSLA

        config = {} if state is None else PSLA.config_of(state)
        return PSLA(padding=self.padding, **config)

    def _forward_params(self):
        if self.short_clips == "keep":
            return {"min_frames": _LEAST_FRAMES}
        of_audioset, of_fsd50k = _N_FRAMES
        is_longer = 100 * self.window > of_audioset
        return {"min_frames": of_fsd50k if is_longer else of_audioset}

    def _plan(self, front_end):
        return plan_segments(front_end, window=self.window, hop=self.hop)
