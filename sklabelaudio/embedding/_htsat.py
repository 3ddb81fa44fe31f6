"""HTSATEmbedder: clips to HTS-AT's vectors and class scores."""

from sklearn.utils._param_validation import StrOptions

from ._base import OUTPUTS, AudioEmbedder
from ._docs import describe_shared
from ._windows import plan_segments

_SECONDS = 10.0

_FRAMEWISE = ("framewise_embedding", "framewise_probabilities")


@describe_shared(hop="10: windows that don't overlap", framewise=_FRAMEWISE)
class HTSATEmbedder(AudioEmbedder):
    """Embed clips with HTS-AT, a hierarchical transformer trained on AudioSet.

    31 million weights, vectors of 768 values, scores of the 527 classes of AudioSet
    [1]_. Longer clips than 10.2 s are taken in windows, of which the last ends with
    the clip. It needs the package transformers.

    Parameters
    ----------
    weights : str, path-like or None, default="htsat_audioset"
        Name of a checkpoint, see `list_checkpoints`; path of a file of the authors;
        or ``None`` for random weights.
    {parameters}
    short_clips : {"stretch", "repeat"}, default="stretch"
        What becomes of a clip that is shorter than 10 s: its spectrogram is
        stretched to that length, or repeated as often as it fits and stretched by
        what is left, which is the authors' "infer mode".

    Attributes
    ----------
    {attributes}

    See Also
    --------
    CLAPEmbedder : The same network, trained together with texts.

    References
    ----------
    .. [1] K. Chen, X. Du, B. Zhu, Z. Ma, T. Berg-Kirkpatrick and S. Dubnov, "HTS-AT:
       A Hierarchical Token-Semantic Audio Transformer for Sound Classification and
       Detection", ICASSP 2022.

    Examples
    --------
    >>> import numpy as np
    >>> from sklabelaudio import HTSATEmbedder
    >>> clips = [np.zeros(32000)]
    >>> embedder = HTSATEmbedder(weights=None, sampling_rate=32000)
    >>> embedder.fit_transform(clips).shape
    (1, 768)
    """

    _parameter_constraints = {
        **AudioEmbedder._parameter_constraints,
        "output": [StrOptions(OUTPUTS | set(_FRAMEWISE))],
        "short_clips": [StrOptions({"stretch", "repeat"})],
    }
    _encoder = "htsat"
    _fingerprint_params = (*AudioEmbedder._fingerprint_params, "short_clips")
    _engine_params = (*AudioEmbedder._engine_params, "short_clips")

    def __init__(
        self,
        weights="htsat_audioset",
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
        short_clips="stretch",
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
        self.short_clips = short_clips

    def _make_module(self, state):
        from ..nn import HTSAT

        return HTSAT() if state is None else HTSAT(**HTSAT.config_of(state))

    def _forward_params(self):
        return {"infer_mode": self.short_clips == "repeat"}

    def _plan(self, front_end):
        if self.short_clips == "repeat" and self.output in _FRAMEWISE:
            raise ValueError(
                f"output={self.output!r} with short_clips='repeat': the steps of a "
                "repeated clip are of no one time in it; use short_clips='stretch'"
            )
        return plan_segments(front_end, window=_SECONDS, hop=self.hop)
