"""ASTEmbedder: clips to AST's vectors and class scores."""

from numbers import Real

import numpy as np
from sklearn.utils._param_validation import Interval

from .._checkpoints import read_ast_record, size_ast
from ..feature_extraction._front_ends import get_front_end
from ._base import AudioEmbedder
from ._docs import describe_shared
from ._windows import plan_segments


@describe_shared(hop="`window`: windows that don't overlap")
class ASTEmbedder(AudioEmbedder):
    """Embed clips with AST, a vision transformer trained on AudioSet.

    87 million weights, vectors of 768 values, scores of the 527 classes of AudioSet
    [1]_. A clip is taken whole up to the length of a window, and longer ones in
    windows, of which the last ends with the clip. A short clip is filled up to
    10.24 s, as in training, and takes as long as one of that length. It needs the
    package transformers.

    Parameters
    ----------
    weights : str, path-like or None, \
            default="MIT/ast-finetuned-audioset-10-10-0.4593"
        Name of a checkpoint, see `list_checkpoints`; path of a file of the authors,
        whose strides are read off it; a folder that
        ``ASTForAudioClassification.save_pretrained`` wrote, with its ``config.json``;
        or ``None`` for random weights.
    {parameters}
    window : float, default=10.0
        Length of a window, in seconds. It was trained on 10, and takes up to 10.24, of
        which it hears 10.17.

    Attributes
    ----------
    {attributes}

    See Also
    --------
    PaSSTEmbedder : A transformer that is better, and quicker with short clips.
    EfficientATEmbedder : Its ``mn10_as`` scores higher on AudioSet, at a
        two-hundredth of the cost.

    References
    ----------
    .. [1] Y. Gong, Y.-A. Chung and J. Glass, "AST: Audio Spectrogram Transformer",
       Interspeech 2021.

    Examples
    --------
    >>> import numpy as np
    >>> from sklabelaudio import ASTEmbedder
    >>> embedder = ASTEmbedder(weights=None, sampling_rate=16000)
    >>> embedder.fit([np.zeros(16000)]).n_components_
    768
    """

    _parameter_constraints = {
        **AudioEmbedder._parameter_constraints,
        "window": [Interval(Real, 0, None, closed="neither")],
    }
    _encoder = "ast"
    # What config.json says beside the weights, which don't tell all of it.
    _recorded = None
    _fingerprint_params = (*AudioEmbedder._fingerprint_params, "window", "_recorded")
    # The window has to fit the weights, which is known when they are loaded.
    _engine_params = (*AudioEmbedder._engine_params, "window")

    def __init__(
        self,
        weights="MIT/ast-finetuned-audioset-10-10-0.4593",
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
        from ..nn import AST

        sizes = {} if state is None else size_ast(state, self._recorded)
        module = AST(**sizes)
        check_window(self.window, get_front_end(self._front_end_name), module.n_frames)
        return module

    def _load_module(self, checkpoint):
        before = self._recorded
        self._recorded = read_ast_record(checkpoint.path)
        try:
            return super()._load_module(checkpoint)
        except BaseException:
            self._recorded = before  # of the encoder that there still is
            raise

    def _plan(self, front_end):
        # No more: there are positions for a window.
        return plan_segments(front_end, window=self.window, hop=self.hop, slack=0)


def check_window(window, front_end, longest):
    """Check that windows are not longer than what an encoder has positions for.

    Parameters
    ----------
    window : float
        Length of a window, in seconds.
    front_end : FrontEnd
        The front end.
    longest : int
        The most frames that the encoder takes.

    Raises
    ------
    ValueError
        If they are.
    """
    rate, hop = front_end.sampling_rate, front_end.hop_length
    n_samples = round(window * rate)
    # Every hop is one frame more, and long windows of zeros would need much memory.
    n_hops = max(n_samples - front_end.min_samples, 0) // hop
    shortest = np.zeros(n_samples - n_hops * hop, dtype=np.float32)
    n_frames = n_hops + len(front_end(shortest))
    if n_frames > longest:
        raise ValueError(
            f"window={window:g} s is {n_frames} frames, and these weights have "
            f"positions for {longest}: lower window to "
            f"{longest * hop / rate:g}"
        )
