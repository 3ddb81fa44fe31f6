"""VGGish: the network behind AudioSet's own embeddings."""

import torch
from torch import nn

from ._checks import check_log_mel
from ._output import EncoderOutput

_N_FRAMES = 96
_N_MELS = 64
_N_COMPONENTS = 128
# Output channels of the convolutions; None is a pooling.
_FEATURES = [64, None, 128, None, 256, 256, None, 512, 512, None]
_HIDDEN = 4096
_STAGES = ("linear", "relu", "pca", "quantized")
_PCA_NAMES = ("pca_eigen_vectors", "pca_means")
_LIMIT = 2.0  # of the values that are quantised, on both sides of 0


class VGGish(nn.Module):
    """VGG-like network that turns each 0.96 s of sound into 128 values.

    Parameters
    ----------
    output_stage : {"linear", "relu", "pca", "quantized"}, default="relu"
        Which values are the embedding; ports of VGGish differ in it. ``"linear"`` is
        the last layer, ``"relu"`` its positive part, ``"pca"`` that rotated and
        scaled by AudioSet's principal components, ``"quantized"`` that clipped to
        [-2, 2] and rounded to whole numbers from 0 to 255, as AudioSet's released
        embeddings are.

    Attributes
    ----------
    n_components : int
        128, the length of the embedding.
    n_classes : None
        There is no classifier.

    Raises
    ------
    ValueError
        If there is no such stage.

    Notes
    -----
    Names and shapes of the weights are those of torchvggish, whose file loads as it
    is. The principal components are in a file of their own and are needed for
    ``"pca"`` and ``"quantized"`` alone: there, put its two arrays beside the network's
    weights before loading.

    References
    ----------
    .. [1] S. Hershey et al., "CNN architectures for large-scale audio
       classification", ICASSP 2017.

    Examples
    --------
    >>> import torch
    >>> from sklabelaudio.nn import VGGish
    >>> with torch.device("meta"):  # shapes without weights
    ...     output = VGGish()(torch.zeros(3, 96, 64))
    >>> output.embedding.shape
    torch.Size([3, 128])
    """

    n_components = _N_COMPONENTS
    n_classes = None

    def __init__(self, output_stage="relu"):
        if output_stage not in _STAGES:
            raise ValueError(f"output_stage={output_stage!r} is none of {_STAGES}")
        super().__init__()
        self.output_stage = output_stage
        layers, n_in = [], 1
        for n_out in _FEATURES:
            if n_out is None:
                layers.append(nn.MaxPool2d(2))
            else:
                layers += [nn.Conv2d(n_in, n_out, 3, padding=1), nn.ReLU(inplace=True)]
                n_in = n_out
        self.features = nn.Sequential(*layers)
        n_pooled = n_in * (_N_FRAMES // 16) * (_N_MELS // 16)
        self.embeddings = nn.Sequential(
            nn.Linear(n_pooled, _HIDDEN),
            nn.ReLU(inplace=True),
            nn.Linear(_HIDDEN, _HIDDEN),
            nn.ReLU(inplace=True),
            nn.Linear(_HIDDEN, _N_COMPONENTS),
            nn.Identity() if output_stage == "linear" else nn.ReLU(inplace=True),
        )
        if self._has_pca:
            self.pproc = _PrincipalComponents()

    @property
    def _has_pca(self):
        return self.output_stage in ("pca", "quantized")

    def forward(self, log_mel):
        """Embed examples of 0.96 s.

        Parameters
        ----------
        log_mel : Tensor of shape (n_examples, 96, 64)
            Log-mel, 100 frames a second.

        Returns
        -------
        EncoderOutput
            `embedding` ``(n_examples, 128)``; there are no logits.

        Raises
        ------
        ValueError
            If `log_mel` has not that shape.
        """
        # The weights were trained with time first and the channels last.
        maps = self.forward_features(log_mel).permute(0, 3, 2, 1)
        embedding = self.embeddings(maps.flatten(1))
        if self._has_pca:
            embedding = self.pproc(embedding)
        if self.output_stage == "quantized":
            steps = 255 / (2 * _LIMIT)
            embedding = embedding.clamp(-_LIMIT, _LIMIT).add(_LIMIT).mul(steps).round()
        return EncoderOutput(embedding)

    def forward_features(self, log_mel):
        """Compute the last map of the convolutions.

        Parameters
        ----------
        log_mel : Tensor of shape (n_examples, 96, 64)
            As for :meth:`forward`.

        Returns
        -------
        Tensor of shape (n_examples, 512, 4, 6)
            The map: rows are of 16 mel bands, lowest first, and columns of 16 frames.

        Raises
        ------
        ValueError
            If `log_mel` has not that shape.
        """
        check_log_mel(self, log_mel, _N_MELS, shortest=_N_FRAMES, longest=_N_FRAMES)
        return self.features(log_mel.unsqueeze(1)).mT

    def convert_checkpoint(self, state):
        """Convert the weights of torchvggish's files.

        Parameters
        ----------
        state : dict of str to Tensor
            The network's weights, and, where the output stage needs them, the
            principal components beside them.

        Returns
        -------
        dict of str to Tensor
            The same by this module's names.

        Raises
        ------
        ValueError
            If the principal components are needed and not there.
        """
        state = dict(state)
        components = {
            name: state.pop(key)
            for name in _PCA_NAMES
            for key in (name, f"pproc.{name}")
            if key in state
        }
        if not self._has_pca:
            return state
        if len(components) < len(_PCA_NAMES):
            raise ValueError(
                f"output_stage={self.output_stage!r} needs "
                f"{' and '.join(_PCA_NAMES)}, which torchvggish keeps in a file of "
                "their own (vggish_pca_params-970ea276.pth): put them beside the "
                "network's weights, or choose output_stage='relu'"
            )
        if components["pca_means"].ndim == 1:
            components["pca_means"] = components["pca_means"].unsqueeze(1)
        return state | {f"pproc.{name}": components[name] for name in components}


class _PrincipalComponents(nn.Module):
    def __init__(self):
        super().__init__()
        vectors, means = torch.eye(_N_COMPONENTS), torch.zeros(_N_COMPONENTS, 1)
        for name, value in zip(_PCA_NAMES, (vectors, means), strict=True):
            self.register_buffer(name, value)

    def forward(self, embedding):
        return nn.functional.linear(
            embedding - self.pca_means[:, 0], self.pca_eigen_vectors
        )
