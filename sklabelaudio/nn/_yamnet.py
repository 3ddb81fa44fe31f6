"""YAMNet: MobileNet over patches of log-mel."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from ._checks import check_log_mel
from ._output import EncoderOutput

_N_FRAMES = 96
_N_MELS = 64
_EPS = 1e-4

# Channels and stride of the first convolution and of the 13 separable layers.
_FIRST = (32, 2)
_SEPARABLE = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *((512, 1),) * 5,
    (1024, 2),
    (1024, 1),
)


class YAMNet(nn.Module):
    """YAMNet, a MobileNet v1 that tags 0.96 s of sound with AudioSet's classes.

    A convolution and 13 depthwise-separable ones, each followed by batch norm and
    ReLU, the mean over the map, and a linear classifier.

    Parameters
    ----------
    n_classes : int, default=521
        Number of classes.

    Attributes
    ----------
    n_components : int
        Length of the embedding, 1024.
    n_classes : int
        Number of classes.
    relu6 : Tensor of shape (), bool
        Whether every ReLU ends at 6. It is part of the weights and comes with them:
        the quantised model that was published has such, the Keras one plain ReLUs.
        Without its end the quantised one's probabilities move by up to 0.6.

    See Also
    --------
    load_checkpoint : Load the published weights, Keras's or TensorFlow Lite's.

    Notes
    -----
    It has 3,729,481 parameters: kernels, the shifts of batch norm and the classifier.
    Batch norm has no scale here; its running means and variances are 21,888 more
    values. Strided convolutions pad at the end only, as TensorFlow does ("same").
    The input is ln(mel + 0.001) of 64 HTK mel bands from 125 to 7,500 Hz, at 16 kHz,
    of magnitudes in 25 ms Hann frames every 10 ms.

    References
    ----------
    Howard et al. 2017, "MobileNets: Efficient Convolutional Neural Networks for
    Mobile Vision Applications", arXiv:1704.04861.

    Hershey et al. 2017, "CNN Architectures for Large-Scale Audio Classification",
    ICASSP, https://doi.org/10.1109/ICASSP.2017.7952132.

    Examples
    --------
    >>> import torch
    >>> from sklabelaudio.nn import YAMNet
    >>> model = YAMNet().eval()
    >>> embedding, logits, *_ = model(torch.zeros(2, 96, 64))
    >>> embedding.shape, logits.shape
    (torch.Size([2, 1024]), torch.Size([2, 521]))
    """

    n_components = 1024

    def __init__(self, n_classes=521):
        super().__init__()
        self.n_classes = n_classes
        n_channels, stride = _FIRST
        blocks = [_ConvBlock(1, n_channels, kernel_size=3, stride=stride)]
        for n_out, stride in _SEPARABLE:
            blocks += [
                _ConvBlock(
                    n_channels,
                    n_channels,
                    kernel_size=3,
                    stride=stride,
                    groups=n_channels,
                ),
                _ConvBlock(n_channels, n_out, kernel_size=1),
            ]
            n_channels = n_out
        self.blocks = nn.ModuleList(blocks)
        self.classifier = nn.Linear(self.n_components, n_classes)
        self.register_buffer("relu6", torch.tensor(False))

    def forward(self, log_mel):
        """Embed and tag patches.

        Parameters
        ----------
        log_mel : Tensor of shape (n_clips, 96, 64)
            Patches of the model's own log-mel: 96 frames of 64 bands, float32.

        Returns
        -------
        output : EncoderOutput
            The embedding (n_clips, 1024) and the logits (n_clips, n_classes).

        Raises
        ------
        ValueError
            If `log_mel` has another shape.
        """
        embedding = self.forward_features(log_mel).mean(dim=(2, 3))
        return EncoderOutput(embedding, self.classifier(embedding))

    def forward_features(self, log_mel):
        """Compute the last map, of which the embedding is the mean.

        Parameters
        ----------
        log_mel : Tensor of shape (n_clips, 96, 64)
            As for :meth:`forward`.

        Returns
        -------
        Tensor of shape (n_clips, 1024, 2, 3)
            The map: rows are of 32 mel bands, lowest first, and columns of 32 frames.

        Raises
        ------
        ValueError
            If `log_mel` has another shape.
        """
        check_log_mel(self, log_mel, _N_MELS, shortest=_N_FRAMES, longest=_N_FRAMES)
        activate = F.relu6 if self.relu6 else F.relu
        x = log_mel.unsqueeze(1)
        for block in self.blocks:
            x = activate(block(x), inplace=True)
        return x.mT

    def convert_checkpoint(self, state):
        """Give the published weights this module's names and layouts.

        Parameters
        ----------
        state : dict of str to Tensor
            The weights by the names of the Keras file (``"layer1/conv/kernel"``), by
            their place in the TensorFlow Lite graph (``"16.conv_2d.1"``), or by this
            module's own names. TensorFlow Lite's have batch norm folded in, so that
            here it becomes the identity.

        Returns
        -------
        state : dict of str to Tensor
            The weights by this module's names. What is of neither layout is left as
            it is; of a TensorFlow Lite graph, the operators before the first
            convolution, which compute the log-mel, are left out.
        """
        if "layer1/conv/kernel" in state:
            return _convert_keras(state)
        return _convert_tflite(state)


class _ConvBlock(nn.Sequential):
    """A convolution, padded as TensorFlow does, and batch norm."""

    def __init__(self, n_in, n_out, *, kernel_size, stride=1, groups=1):
        super().__init__()
        # Maps of even size and stride 2 lack one row and column, which TensorFlow
        # adds at the end where torch would add one on either side.
        strided = stride == 2
        self.pad = nn.ZeroPad2d((0, 1, 0, 1)) if strided else nn.Identity()
        self.conv = nn.Conv2d(
            n_in,
            n_out,
            kernel_size,
            stride=stride,
            padding=0 if strided else kernel_size // 2,
            groups=groups,
            bias=False,
        )
        self.norm = _ShiftBatchNorm(n_out)


class _ShiftBatchNorm(nn.BatchNorm2d):
    """Batch norm that learns a shift and no scale."""

    def __init__(self, n_channels):
        super().__init__(n_channels, eps=_EPS)
        # A scale of ones stays for what folds batch norm into convolutions.
        del self.weight
        self.register_buffer("weight", torch.ones(n_channels), persistent=False)


# The official file says "logits"; the authors' code leaves the name to Keras.
_KERAS_DENSE = ("logits", "dense")
_TFLITE_OPERATORS = [
    "conv_2d",
    *["depthwise_conv_2d", "conv_2d"] * len(_SEPARABLE),
    "fully_connected",
]
# From the axes of the files' kernels to (out, in, height, width) or (out, in).
_KERAS_CONV, _KERAS_DEPTHWISE, _KERAS_LINEAR = (3, 2, 0, 1), (2, 3, 0, 1), (1, 0)
_TFLITE_AXES = {"conv_2d": (0, 3, 1, 2), "depthwise_conv_2d": (3, 0, 1, 2)}


def _convert_keras(state):
    table = {}
    names = ["layer1/conv"] + [
        f"layer{2 + i}/{kind}_conv"
        for i in range(len(_SEPARABLE))
        for kind in ("depthwise", "pointwise")
    ]
    for i, name in enumerate(names):
        conv, norm = f"blocks.{i}.conv", f"blocks.{i}.norm"
        if name.endswith("depthwise_conv"):
            table[f"{name}/depthwise_kernel"] = f"{conv}.weight", _KERAS_DEPTHWISE
        else:
            table[f"{name}/kernel"] = f"{conv}.weight", _KERAS_CONV
        table[f"{name}/bn/beta"] = f"{norm}.bias", None
        table[f"{name}/bn/moving_mean"] = f"{norm}.running_mean", None
        table[f"{name}/bn/moving_variance"] = f"{norm}.running_var", None
    for name in _KERAS_DENSE:
        if f"{name}/kernel" in state:
            table[f"{name}/kernel"] = "classifier.weight", _KERAS_LINEAR
            table[f"{name}/bias"] = "classifier.bias", None
            break

    return {"relu6": torch.tensor(False)} | _rename(state, table)


def _convert_tflite(state):
    operators = list(dict.fromkeys(name.rpartition(".")[0] for name in state))
    kinds = [operator.partition(".")[2] for operator in operators]
    start = kinds.index("conv_2d") if "conv_2d" in kinds else 0
    end = start + len(_TFLITE_OPERATORS)
    if kinds[start:end] != _TFLITE_OPERATORS:
        return dict(state)
    *convs, linear = operators[start:end]
    ends = {float(state.get(f"{conv}.activation_max", math.nan)) for conv in convs}
    if ends not in ({6.0}, {math.inf}):
        return dict(state)

    table = {f"{linear}.1": ("classifier.weight", None)}
    table[f"{linear}.2"] = "classifier.bias", None
    norms = {}
    for i, conv in enumerate(convs):
        axes = _TFLITE_AXES[conv.partition(".")[2]]
        table[f"{conv}.1"] = f"blocks.{i}.conv.weight", axes
        table[f"{conv}.2"] = f"blocks.{i}.norm.bias", None
        # Batch norm is folded in. Its identity: a variance that eps completes to 1.
        bias = state.get(f"{conv}.2", torch.zeros(0))
        norms[f"blocks.{i}.norm.running_mean"] = torch.zeros_like(bias)
        norms[f"blocks.{i}.norm.running_var"] = torch.full_like(bias, 1 - _EPS)
    front_end = set(operators[:start])
    left = {
        name: tensor
        for name, tensor in state.items()
        if name.rpartition(".")[0] not in front_end
        and not name.endswith(".activation_max")
    }
    return {"relu6": torch.tensor(ends == {6.0})} | norms | _rename(left, table)


def _rename(state, table):
    """Give tensors the names and the order of axes in `table`, if they are in it."""
    renamed = {}
    for name, tensor in state.items():
        target, axes = table.get(name, (name, None))
        # One with another number of axes is left for loading to report.
        fits = axes is not None and tensor.ndim == len(axes)
        renamed[target] = tensor.permute(axes) if fits else tensor
    return renamed
