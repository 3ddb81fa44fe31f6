"""CLAPEmbedder: clips to vectors in one space with texts."""

import os

import numpy as np
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_is_fitted

from .._checkpoints import HUB_WEIGHTS
from ..text import LabelTextEmbedder
from ._base import AudioEmbedder
from ._docs import describe_shared
from ._windows import plan_segments

_SECONDS = 10.0


@describe_shared(hop="10: windows that don't overlap", classes=False)
class CLAPEmbedder(AudioEmbedder):
    """Embed clips with CLAP, an audio encoder trained together with a text encoder.

    Vectors of clips and of texts that describe them are near each other, so labels
    need no training: give the vectors to `PromptZeroShotClassifier` [1]_. A clip
    shorter than 10 s is repeated as often as it fits and followed by zeros, as in
    training; one longer than 10.2 s is taken in windows, of which the last ends with
    the clip. It needs the package transformers.

    Parameters
    ----------
    weights : str, path-like or None, default="laion/clap-htsat-unfused"
        Name of a checkpoint, see `list_checkpoints`; a Hugging Face id, or a folder
        that ``ClapModel.save_pretrained`` wrote; path of one of LAION's own files;
        or ``None`` for random weights. Models with feature fusion are refused.
    {parameters}

    Attributes
    ----------
    {attributes}

    See Also
    --------
    PromptZeroShotClassifier : Names clips by their vectors and labels of your own.

    References
    ----------
    .. [1] Y. Wu, K. Chen, T. Zhang, Y. Hui, T. Berg-Kirkpatrick and S. Dubnov,
       "Large-Scale Contrastive Language-Audio Pretraining with Feature Fusion and
       Keyword-to-Caption Augmentation", ICASSP 2023.

    Examples
    --------
    >>> import numpy as np
    >>> from sklabelaudio import CLAPEmbedder
    >>> embedder = CLAPEmbedder(weights=None, sampling_rate=48000)
    >>> embedder.fit_transform([np.zeros(48000)]).shape
    (1, 512)
    """

    _parameter_constraints = {
        **AudioEmbedder._parameter_constraints,
        "output": [StrOptions({"embedding", "frames"})],
    }
    _encoder = "clap"

    def __init__(
        self,
        weights="laion/clap-htsat-unfused",
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

    def text_embedder(self, *, prompt="This is a sound of {label}.", **params):
        """Make the embedder of label texts that goes with this one.

        Parameters
        ----------
        prompt : str or list of str, default="This is a sound of {label}."
            Template of the texts, or several.
        **params
            Further parameters of `LabelTextEmbedder`.

        Returns
        -------
        LabelTextEmbedder
            The embedder, not fitted. Its vectors are in the space of the clips'.

        Raises
        ------
        ValueError
            If `weights` has no text side: one of LAION's own files, which have no
            tokenizer, or random weights.
        """
        check_is_fitted(self)
        folder = _folder_of_model(self.checkpoint_.path)
        if folder is None:
            raise ValueError(
                f"weights={self.weights!r} comes without a tokenizer for texts: pass "
                "a model of transformers, such as 'laion/clap-htsat-unfused' or the "
                "folder of a local copy"
            )
        return LabelTextEmbedder(folder, prompt=prompt, **params)

    def _make_module(self, state):
        from ..nn._clap import ClapAudioTower

        sizes = {} if state is None else ClapAudioTower.config_of(state)
        return ClapAudioTower(**sizes)

    def _load_module(self, checkpoint):
        from ..nn._clap import ClapAudioTower

        folder = _folder_of_model(checkpoint.path)
        if folder is None:
            return super()._load_module(checkpoint)
        return ClapAudioTower.from_pretrained(folder)

    def _plan(self, front_end):
        return plan_segments(front_end, window=_SECONDS, hop=self.hop)

    def _to_windows(self, front_end, plan, samples, n_windows):
        if len(samples) < plan.length:
            whole = np.tile(samples, plan.length // len(samples))
            samples = np.pad(whole, (0, plan.length - len(whole)))
        return super()._to_windows(front_end, plan, samples, n_windows)


def _folder_of_model(path):
    """Return the folder of a model of transformers, from the path of its weights.

    None if the weights are no such model's, or not those that transformers loads.
    """
    if path is None:
        return None
    folder, name = os.path.split(path)
    there = (n for n in HUB_WEIGHTS if os.path.isfile(os.path.join(folder, n)))
    has_config = os.path.isfile(os.path.join(folder, "config.json"))
    return folder if has_config and name == next(there, None) else None
