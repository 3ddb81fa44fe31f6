"""AudioCLIPEmbedder: clips to vectors in one space with texts, and images."""

from numbers import Real

from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from ..text import LabelTextEmbedder
from ._base import OUTPUTS, AudioEmbedder
from ._docs import describe_shared
from ._windows import plan_segments

_FRAMEWISE = ("framewise_embedding",)


@describe_shared(hop="`window`: windows that don't overlap", framewise=_FRAMEWISE)
class AudioCLIPEmbedder(AudioEmbedder):
    """Embed clips with AudioCLIP, CLIP with an audio encoder trained beside it.

    Vectors of 1,024 values that are near those of texts and images which go with the
    sound, so labels need no training: give them to `PromptZeroShotClassifier` [1]_.
    They are as the network gives them, not of length one. Its audio encoder,
    ESResNeXt-fbsp, has 32 million weights, and there is one as well that was trained
    on AudioSet's classes alone: vectors of 2,048 values, scores of 527 classes.

    Parameters
    ----------
    weights : str, path-like or None, default="audioclip_full"
        Name of a checkpoint, see `list_checkpoints`; path of one of the authors'
        files, of which ``ESRNXFBSP.pt`` has class scores and the others text; or
        ``None`` for random weights of an AudioCLIP.
    {parameters}
    window : float, default=5.0
        Length of a window, in seconds; the authors' clips are of 5. A shorter clip
        is taken as it is, up to 2 % more too, and a longer one in windows, of which
        the last ends with the clip.

    Attributes
    ----------
    {attributes}
    logit_scale_ : float or None
        What the model multiplies cosines of sounds and texts by, for the parameter
        `logit_scale` of `PromptZeroShotClassifier`; ``None`` without a text side.

    See Also
    --------
    CLAPEmbedder : Trained with captions of sounds, not only names of classes.
    PromptZeroShotClassifier : Names clips by their vectors and labels of your own.

    Notes
    -----
    The network takes samples in the range of 16-bit integers and its front end sees
    to that: give clips as they are read, from -1 to 1.

    References
    ----------
    .. [1] A. Guzhov, F. Raue, J. Hees and A. Dengel, "AudioCLIP: Extending CLIP to
       Image, Text and Audio", ICASSP 2022.

    Examples
    --------
    >>> import numpy as np
    >>> from sklabelaudio import AudioCLIPEmbedder
    >>> embedder = AudioCLIPEmbedder(weights=None, sampling_rate=44100)
    >>> embedder.fit_transform([np.zeros(22050)]).shape
    (1, 1024)
    """

    _parameter_constraints = {
        **AudioEmbedder._parameter_constraints,
        "output": [StrOptions(OUTPUTS | set(_FRAMEWISE))],
        "window": [Interval(Real, 0, None, closed="neither")],
    }
    _encoder = "audioclip"
    _fingerprint_params = (*AudioEmbedder._fingerprint_params, "window")

    def __init__(
        self,
        weights="audioclip_full",
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
        window=5.0,
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

    def text_embedder(self, *, prompt="{label}", **params):
        """Make the embedder of label texts that goes with this one.

        Parameters
        ----------
        prompt : str or list of str, default="{label}"
            Template of the texts, or several. The model was trained on the names of
            classes themselves.
        **params
            Further parameters of `LabelTextEmbedder`.

        Returns
        -------
        LabelTextEmbedder
            The embedder, not fitted. Its vectors are in the space of the clips'.

        Raises
        ------
        ValueError
            If `weights` has no text side: ``ESRNXFBSP.pt``, or random weights.
        """
        check_is_fitted(self)
        if self.logit_scale_ is None:
            raise ValueError(
                f"weights={self.weights!r} has no text side: pass 'audioclip_full', "
                "'audioclip_partial', or the path of one of their files"
            )
        return LabelTextEmbedder(self.checkpoint_.path, prompt=prompt, **params)

    def _make_module(self, state):
        from ..nn._audioclip import read_similarity_scale
        from ..nn._esresnext import ESResNeXtFbsp

        if state is None:
            self.logit_scale_ = None
            return ESResNeXtFbsp(None, projection_dim=1024)
        self.logit_scale_ = read_similarity_scale(state)
        return ESResNeXtFbsp(**ESResNeXtFbsp.config_of(state))

    def _load_module(self, checkpoint):
        module = super()._load_module(checkpoint)
        self._check_output(module.n_classes)
        return module

    def _check(self, X, front_end, reset):
        if not reset:  # `output` may be another than in fit
            self._check_output(self._n_classes)
        return super()._check(X, front_end, reset)

    def _check_output(self, n_classes):
        if n_classes is None and self.output in ("logits", "probabilities"):
            raise ValueError(
                f"output={self.output!r}, and weights={self.weights!r} has no classes: "
                "pass output='embedding', or weights='esresnext_fbsp', which has"
            )

    def _plan(self, front_end):
        return plan_segments(front_end, window=self.window, hop=self.hop)
