"""PANNsEmbedder: clips to the vectors and class scores of PANNs."""

import difflib
import os
from dataclasses import dataclass, field
from numbers import Real

from sklearn.base import _fit_context
from sklearn.utils._param_validation import Interval, StrOptions

from ..exceptions import CheckpointError
from ._base import OUTPUTS, AudioEmbedder
from ._docs import describe_shared
from ._windows import plan_segments

_FRAMEWISE = ("framewise_embedding", "framewise_probabilities")
_DEFAULT = "cnn14"
_OVER_TIME = "cnn14_decision_level_max"
# Frequencies of the front end whose constants are in the authors' files.
_N_FREQUENCIES = {"panns_32k": 513, "panns_wavegram": 513, "panns_16k": 257}


@dataclass(frozen=True)
class _Architecture:
    """What belongs to an architecture: its network, front end and official file."""

    module: str
    file: str
    front_end: str = "panns_32k"
    params: dict = field(default_factory=dict)


# By their names in the registry, which are also those of the published checkpoints.
_ARCHITECTURES = {
    "cnn6": _Architecture("Cnn6", "Cnn6_mAP=0.343.pth"),
    "cnn10": _Architecture("Cnn10", "Cnn10_mAP=0.380.pth"),
    "cnn14": _Architecture("Cnn14", "Cnn14_mAP=0.431.pth"),
    "cnn14_16k": _Architecture("Cnn14", "Cnn14_16k_mAP=0.438.pth", "panns_16k"),
    _OVER_TIME: _Architecture(
        "Cnn14",
        "Cnn14_DecisionLevelMax_mAP=0.385.pth",
        params={"decision_level": "max"},
    ),
    "resnet38": _Architecture("ResNet38", "ResNet38_mAP=0.434.pth"),
    "wavegram_logmel_cnn14": _Architecture(
        "WavegramLogmelCnn14", "Wavegram_Logmel_Cnn14_mAP=0.439.pth", "panns_wavegram"
    ),
}
_BY_FILE = {known.file: name for name, known in _ARCHITECTURES.items()}


@describe_shared(hop="`window`: windows that don't overlap", framewise=_FRAMEWISE)
class PANNsEmbedder(AudioEmbedder):
    """Embed clips with PANNs, convolutional networks trained on AudioSet.

    5 to 81 million weights, vectors of 512 values (Cnn6 and Cnn10) or 2,048, scores of
    the 527 classes of AudioSet [1]_. A clip is taken whole up to the length of a
    window and 2 % more, and longer ones in windows, of which the last ends with the
    clip.

    Parameters
    ----------
    weights : str, path-like or None, default="auto"
        ``"auto"`` is the published checkpoint of `architecture`. Otherwise the name of
        a checkpoint, see `list_checkpoints`; path of a file of the authors; or
        ``None`` for random weights.
    architecture : {"cnn6", "cnn10", "cnn14", "cnn14_16k", \
            "cnn14_decision_level_max", "resnet38", "wavegram_logmel_cnn14"}, \
            default=None
        The network. ``None`` is that of the checkpoint: of a file it is told by the
        authors' name for it, or by its weights. These are alike for
        ``"cnn14_decision_level_max"``, which has class probabilities over time, and
        ``"cnn14"``, which a renamed file is taken for: name the former yourself.
        Without a checkpoint ``None`` is ``"cnn14"``.
    {parameters}
    window : float, default=10.0
        Length of a window, in seconds; they were trained on 10.

    Attributes
    ----------
    {attributes}
    architecture_ : str
        The network.

    See Also
    --------
    EfficientATEmbedder : As good with an eightieth of the weights.
    sklabelaudio.nn.Cnn14 : One of the networks.

    Notes
    -----
    ``"framewise_probabilities"`` are those of ``"cnn14_decision_level_max"`` alone,
    every 0.01 s, in steps of 0.32 s. Vectors over time come every 0.32 s (Cnn6 and
    Cnn10: 0.16 s).

    References
    ----------
    .. [1] Q. Kong, Y. Cao, T. Iqbal, Y. Wang, W. Wang and M. D. Plumbley, "PANNs:
       Large-Scale Pretrained Audio Neural Networks for Audio Pattern Recognition",
       IEEE/ACM TASLP 28, 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from sklabelaudio import PANNsEmbedder
    >>> clips = [np.zeros(32000), np.zeros(48000)]
    >>> embedder = PANNsEmbedder(
    ...     weights=None, architecture="cnn6", sampling_rate=32000
    ... )
    >>> embedder.fit_transform(clips).shape
    (2, 512)
    """

    _parameter_constraints = {
        **AudioEmbedder._parameter_constraints,
        "architecture": [str, None],
        "output": [StrOptions(OUTPUTS | set(_FRAMEWISE))],
        "window": [Interval(Real, 0, None, closed="neither")],
    }
    _encoder = "panns"
    _fingerprint_params = (
        *AudioEmbedder._fingerprint_params,
        "window",
        "architecture_",
    )

    def __init__(
        self,
        weights="auto",
        *,
        architecture=None,
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
        self.architecture = architecture
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

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Load the encoder and check X; no audio is decoded.

        Parameters
        ----------
        X : sequence of paths, array-like of shape (n_clips, n_samples) or \
                sequence of array-like of shape (n_samples,)
            The clips.
        y : None
            Ignored: the encoder is trained already.

        Returns
        -------
        self : PANNsEmbedder
            The embedder with its encoder.

        Raises
        ------
        CheckpointError
            If the file of `weights` can't be read, or is another model's or that of
            another `architecture`.
        OSError
            If the weights are neither here nor to be fetched.
        ValueError
            If X can't be audio, `weights` is no name of a checkpoint or one of another
            `architecture`, there is no such `architecture` or it has no such `output`,
            or `device` can't be used.
        """
        before = self.__dict__.get("architecture_")
        self.architecture_ = self._find_architecture()
        try:
            return super().fit(X, y)
        except BaseException:
            # The encoder is still that of the fit before, if there was one, and rows
            # in the cache are told apart by its name.
            del self.architecture_
            if before is not None:
                self.architecture_ = before
            raise

    @property
    def _front_end_name(self):
        fitted = getattr(self, "architecture_", None)
        return _ARCHITECTURES[fitted or self._find_architecture()].front_end

    def _find_architecture(self):
        """Tell the architecture from the parameters, before weights are fetched."""
        architecture, weights = self.architecture, self.weights
        if architecture is not None and architecture not in _ARCHITECTURES:
            close = difflib.get_close_matches(
                architecture.lower(), _ARCHITECTURES, n=1, cutoff=0
            )
            names = ", ".join(map(repr, _ARCHITECTURES))
            raise ValueError(
                f"architecture={architecture!r} is none of {names}. Did you mean "
                f"{close[0]!r}?"
            )
        if weights is None or weights == "auto":
            return architecture or _DEFAULT
        name = os.fspath(weights)
        if name in _ARCHITECTURES:
            if architecture not in (None, name):
                raise ValueError(
                    f"weights={name!r} and architecture={architecture!r} are two: "
                    "leave out the one or the other"
                )
            return name
        if architecture is not None:
            return architecture
        path = os.path.expanduser(name)
        if os.path.isfile(path):
            return _BY_FILE.get(os.path.basename(path)) or _recognise(path)
        return _DEFAULT  # for nothing, as there are no such weights

    @property
    def _weights(self):
        return self.architecture_ if self.weights == "auto" else self.weights

    def _load_module(self, checkpoint):
        # The digest knows a renamed file better than what is in it.
        known = checkpoint.name
        if known not in (None, self.architecture_):
            front_end = _ARCHITECTURES[known].front_end
            if self.architecture is not None or front_end != self._front_end_name:
                raise CheckpointError(
                    checkpoint.path,
                    f"its SHA-256 is that of the published {known!r}, and not of "
                    f"{self.architecture_!r}: pass architecture={known!r}",
                )
            self.architecture_ = known
        return super()._load_module(checkpoint)

    def _make_module(self, state):
        from .. import nn
        from ..nn._panns_files import count_frequencies

        known = _ARCHITECTURES[self.architecture_]
        cls = getattr(nn, known.module)
        if state is None:
            return cls(**known.params)
        n_frequencies = count_frequencies(state)
        if n_frequencies not in (None, _N_FREQUENCIES[known.front_end]):
            raise ValueError(
                f"the front end in it has {n_frequencies} frequencies, and that of "
                f"architecture={self.architecture_!r} has "
                f"{_N_FREQUENCIES[known.front_end]}: they differ in sampling rate"
            )
        return cls(**cls.config_of(state), **known.params)

    def _plan(self, front_end):
        is_over_time = self.output == "framewise_probabilities"
        if is_over_time and self.architecture_ != _OVER_TIME:
            raise ValueError(
                f"output={self.output!r}: {self.architecture_!r} has no class scores "
                f"over time. Of PANNs {_OVER_TIME!r} alone has them: pass it as "
                "architecture, or another output"
            )
        return plan_segments(front_end, window=self.window, hop=self.hop)


def _recognise(path):
    """Tell an architecture from the weights in a file."""
    from ..nn._checkpoint import read_checkpoint
    from ..nn._panns_files import tell_architecture

    try:
        architecture = tell_architecture(read_checkpoint(path))
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(path, str(error)) from error
    if architecture is None:
        raise CheckpointError(
            path,
            "it is a Cnn14 without the constants of the authors' front end, which "
            "would tell its sampling rate. Pass architecture='cnn14', 'cnn14_16k' or "
            f"{_OVER_TIME!r}",
        )
    return architecture
