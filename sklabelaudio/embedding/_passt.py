"""PaSSTEmbedder: clips to PaSST's vectors and class scores."""

from numbers import Real

from sklearn.utils._param_validation import Interval

from ..feature_extraction._front_ends import get_front_end
from ._ast import check_window
from ._base import AudioEmbedder
from ._docs import describe_shared
from ._windows import plan_segments


@describe_shared(hop="`window`: windows that don't overlap")
class PaSSTEmbedder(AudioEmbedder):
    """Embed clips with PaSST, a vision transformer trained on AudioSet.

    86 million weights, vectors of 768 values, scores of the 527 classes of AudioSet
    [1]_. A clip is taken whole up to the length of a window, and longer ones in
    windows, of which the last ends with the clip. A clip shorter than 0.15 s is
    filled up with zeros. It needs the package transformers.

    Parameters
    ----------
    weights : str, path-like or None, default="passt_s_swa_p16_128_ap476"
        Name of a checkpoint, see `list_checkpoints`; path of a file of the authors,
        whose strides are read off it; or ``None`` for random weights. Files with
        ``stfthop`` in their name take another log-mel and can't be told from others:
        don't pass them.
    {parameters}
    window : float, default=10.0
        Length of a window, in seconds. It was trained on 10, of which it hears 9.96,
        and takes up to 10.05; models for 20 or 30 s take up to these.

    Attributes
    ----------
    {attributes}

    See Also
    --------
    EfficientATEmbedder : Networks that learnt from this one; ``mn10_as`` is nearly as
        good, at a two-hundredth of the cost.

    References
    ----------
    .. [1] K. Koutini, J. Schlüter, H. Eghbal-zadeh and G. Widmer, "Efficient Training
       of Audio Transformers with Patchout", Interspeech 2022.

    Examples
    --------
    >>> import numpy as np
    >>> from sklabelaudio import PaSSTEmbedder
    >>> embedder = PaSSTEmbedder(weights=None, sampling_rate=32000)
    >>> embedder.fit_transform([np.zeros(32000)]).shape
    (1, 768)
    """

    _parameter_constraints = {
        **AudioEmbedder._parameter_constraints,
        "window": [Interval(Real, 0, None, closed="neither")],
    }
    _encoder = "passt"
    _fingerprint_params = (*AudioEmbedder._fingerprint_params, "window")
    # The window has to fit the weights, which is known when they are loaded.
    _engine_params = (*AudioEmbedder._engine_params, "window")

    def __init__(
        self,
        weights="passt_s_swa_p16_128_ap476",
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
        from ..nn import PaSST

        module = PaSST(**({} if state is None else PaSST.config_of(state)))
        front_end = get_front_end(self._front_end_name)
        check_window(self.window, front_end, module.max_frames)
        return module

    def _plan(self, front_end):
        # No more: there are positions for a window.
        return plan_segments(front_end, window=self.window, hop=self.hop, slack=0)
