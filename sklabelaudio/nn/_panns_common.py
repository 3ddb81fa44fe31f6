"""What PANNs have in common."""

from collections import OrderedDict

from torch import nn

from ._checks import check_log_mel, get_weight
from ._output import EncoderOutput

# Constants of the front end, which the authors keep among the weights.
_FRONT_END = ("spectrogram_extractor.", "logmel_extractor.")


class PANN(nn.Module):
    """What PANNs have in common: the norm of the bands before, the head behind.

    Subclasses give `frame_stride` and `_make_map`, which turns the normalised log-mel
    into a map of ``(n_clips, n_components, n_steps, n_bands)``.

    Parameters
    ----------
    n_classes, n_mels, n_components : int
        Number of classes, of mel bands, and of channels of the last map.
    head_dropout : float
        Probability of dropout before the head, in training.
    """

    framewise_stride = None

    def __init__(self, n_classes, n_mels, n_components, head_dropout):
        super().__init__()
        if n_classes < 1:
            raise ValueError(f"n_classes={n_classes} must be at least 1")
        if n_mels < self.frame_stride:
            raise ValueError(
                f"n_mels={n_mels}: {type(self).__name__} divides the bands by "
                f"{self.frame_stride}, so there must be as many or more"
            )
        self.n_mels = n_mels
        self.n_components = n_components
        self.n_classes = n_classes
        self.bn0 = nn.BatchNorm1d(n_mels)
        self.head_dropout = nn.Dropout(head_dropout)
        self.fc1 = nn.Linear(n_components, n_components)
        self.fc_audioset = nn.Linear(n_components, n_classes)

    def forward(self, log_mel):
        """Embed and tag clips of one length.

        Parameters
        ----------
        log_mel : Tensor of shape (n_clips, n_frames, n_mels)
            In dB, as the model's front end gives it: 100 frames a second.

        Returns
        -------
        EncoderOutput
            `embedding` ``(n_clips, n_components)``, `logits` ``(n_clips,
            n_classes)``, and `frames` ``(n_clips, n_steps, n_components)``, the last
            map's mean over the bands. What is left of the frames behind the last
            full step is not heard.

        Raises
        ------
        ValueError
            If `log_mel` has another shape, or frames for less than one step.
        """
        return self._head(self.forward_features(log_mel).mean(dim=2))

    def forward_features(self, log_mel):
        """Compute the last map, of which `frames` are the mean over the bands.

        Parameters
        ----------
        log_mel : Tensor of shape (n_clips, n_frames, n_mels)
            As for :meth:`forward`.

        Returns
        -------
        Tensor of shape (n_clips, n_components, n_mels // stride, n_frames // stride)
            The map, where the stride is the attribute `frame_stride`, 16 or 32: rows
            are of so many mel bands, lowest first, and columns of so many frames. What
            is left behind the last whole ones is not heard: 998 frames give 31 columns
            of 32.

        Raises
        ------
        ValueError
            As :meth:`forward`.
        """
        self._check(log_mel)
        return self._make_map(self._normalize(log_mel)).mT

    def _normalize(self, log_mel):
        """Normalise every band, and return an image of one channel."""
        return self.bn0(log_mel.flatten(0, 1)).view(log_mel.shape).unsqueeze(1)

    def _head(self, vectors):
        """Pool vectors over time, ``(n_clips, n_components, n_steps)``."""
        pooled = vectors.amax(dim=2) + vectors.mean(dim=2)
        embedding = self.fc1(self.head_dropout(pooled)).relu()
        return EncoderOutput(embedding, self.fc_audioset(embedding), frames=vectors.mT)

    def _check(self, log_mel):
        check_log_mel(self, log_mel, self.n_mels, shortest=self.frame_stride)

    def _initialize(self):
        for module in self.modules():
            if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    @staticmethod
    def convert_checkpoint(state):
        """Leave out the constants of the front end.

        Parameters
        ----------
        state : dict of str to Tensor
            Weights by the authors' names, which are this module's own.

        Returns
        -------
        dict of str to Tensor
            All but the Fourier and mel matrices.
        """
        return {
            name: tensor
            for name, tensor in state.items()
            if not name.startswith(_FRONT_END)
        }

    @classmethod
    def _shape_of(cls, state, name, *known):
        """Return a weight's shape, of which the sizes that are not None are known."""
        shape = tuple(get_weight(state, name, f"a {cls.__name__}").shape)
        if len(shape) != len(known) or any(
            size not in (None, found) for size, found in zip(known, shape, strict=True)
        ):
            wanted = tuple("any" if size is None else size for size in known)
            raise ValueError(
                f"the weight {name!r} has the shape {shape}, and that of "
                f"{cls.__name__} ({', '.join(map(str, wanted))})"
            )
        return shape

    @classmethod
    def _head_of(cls, state, n_components):
        """Read the sizes before and behind the convolutions off the weights."""
        cls._shape_of(state, "fc1.weight", n_components, n_components)
        head = cls._shape_of(state, "fc_audioset.weight", None, n_components)
        return {
            "n_classes": head[0],
            "n_mels": cls._shape_of(state, "bn0.weight", None)[0],
        }


class ConvBlock(nn.Sequential):
    """Convolutions, each with batch norm and ReLU, by the authors' names.

    Parameters
    ----------
    n_in, n_out : int
        Channels before and behind.
    kernel : int, default=3
        Height and width of the kernels.
    n_convs : int, default=2
        Number of convolutions.
    """

    def __init__(self, n_in, n_out, *, kernel=3, n_convs=2):
        layers = OrderedDict()
        for i in range(1, n_convs + 1):
            layers[f"conv{i}"] = nn.Conv2d(
                n_in, n_out, kernel, padding=kernel // 2, bias=False
            )
            layers[f"bn{i}"] = nn.BatchNorm2d(n_out)
            layers[f"relu{i}"] = nn.ReLU(inplace=True)
            n_in = n_out
        super().__init__(layers)
