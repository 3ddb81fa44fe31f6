"""SP4SCEmbedder: clips to the vectors and scene scores of a very small network."""

from numbers import Real

from sklearn.utils._param_validation import Interval, StrOptions

from ._base import OUTPUTS, AudioEmbedder
from ._docs import describe_shared
from ._windows import plan_segments

_FRAMEWISE = ("framewise_embedding",)
# Those of the front end.
_N_MELS = 256


@describe_shared(hop="`window`: windows that don't overlap", framewise=_FRAMEWISE)
class SP4SCEmbedder(AudioEmbedder):
    """Embed clips with SP4SC, which knows ten urban scenes by 62,474 numbers.

    Vectors of 128 values, and scores of ten acoustic scenes such as park, tram and
    airport [1]_. A clip is of one scene, so its probabilities are the softmax of the
    logits and sum to one. It is taken whole up to the length of a window and 2 %
    more, and longer ones in windows, of which the last ends with the clip.

    Parameters
    ----------
    weights : str, path-like or None, default="sp4asc_ce"
        Name of a checkpoint, see `list_checkpoints`; path of a file of the authors,
        with its batch norms or merged; or ``None`` for random weights.
    {parameters}
    window : float, default=10.0
        Length of a window, in seconds; it was trained on 10.

    Attributes
    ----------
    {attributes}

    See Also
    --------
    EfficientATEmbedder : Knows the sounds of AudioSet instead.

    Notes
    -----
    The batch norms are merged into the filters with their eps. The authors' own merge
    leaves eps out, so that the probabilities of ``sp4asc_ce`` differ from those that
    they evaluated, by up to 0.06 on noise and tones.

    References
    ----------
    .. [1] G. Puy, H. Jain and A. Bursuc, "Separable Convolutions and Test-Time
       Augmentations for Low-Complexity and Calibrated Acoustic Scene Classification",
       DCASE 2021.

    Examples
    --------
    >>> import numpy as np
    >>> from sklabelaudio import SP4SCEmbedder
    >>> clips = [np.zeros(44100), np.zeros(66150)]
    >>> embedder = SP4SCEmbedder(weights=None, sampling_rate=44100)
    >>> embedder.fit_transform(clips).shape
    (2, 128)
    """

    _parameter_constraints = {
        **AudioEmbedder._parameter_constraints,
        "output": [StrOptions(OUTPUTS | set(_FRAMEWISE))],
        "window": [Interval(Real, 0, None, closed="neither")],
    }
    _encoder = "sp4sc"
    _fingerprint_params = (*AudioEmbedder._fingerprint_params, "window")

    def __init__(
        self,
        weights="sp4asc_ce",
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
        from ..nn import SP4SC

        if state is None:
            return SP4SC()
        # Weights for other bands are refused for their shapes.
        return SP4SC(**SP4SC.config_of(state) | {"n_mels": _N_MELS})

    def _plan(self, front_end):
        return plan_segments(front_end, window=self.window, hop=self.hop)
