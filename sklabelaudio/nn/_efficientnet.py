"""EfficientNet, the convolutions of PSLA."""

import math
import re

from torch import nn

from ._checks import get_weight

# Of B0: channels, number of blocks, expansion of the channels within them, kernel,
# stride of the first block, and whether that needs an odd number of zeros around an
# image of 260 by 260 pixels, for which B2 was made.
_STAGES = [
    (16, 1, 1, 3, 1, False),
    (24, 2, 6, 3, 2, True),
    (40, 2, 6, 5, 2, False),
    (80, 3, 6, 3, 2, False),
    (112, 3, 6, 5, 1, False),
    (192, 4, 6, 5, 2, False),
    (320, 1, 6, 3, 1, False),
]
_STEM = 32
_HEAD = 1280
_B2 = {"width": 1.1, "depth": 1.2}
_PADDINGS = ("symmetric", "tensorflow")

# The names of efficientnet_pytorch, and those here.
_OUTER_NAME = re.compile(r"(_conv_stem|_bn0|_conv_head|_bn1)\.(\w+)")
_OUTER_PARTS = {
    "_conv_stem": "stem.0",
    "_bn0": "stem.1",
    "_conv_head": "head.0",
    "_bn1": "head.1",
}
_BLOCK_NAME = re.compile(r"_blocks\.(\d+)\.(\w+)\.(\w+)")
_BLOCK_PARTS = {
    "_expand_conv": "expand.0",
    "_bn0": "expand.1",
    "_depthwise_conv": "depthwise.0",
    "_bn1": "depthwise.1",
    "_se_reduce": "excite.reduce",
    "_se_expand": "excite.expand",
    "_project_conv": "project.0",
    "_bn2": "project.1",
}


class EfficientNet(nn.Module):
    """EfficientNet's convolutions over images of one channel.

    Parameters
    ----------
    width, depth : float
        Factors on B0's channels and blocks.
    padding : {"symmetric", "tensorflow"}
        Where the stem and the second stage, which halve an image, put their zeros:
        one on each side, or one behind, as for B2's own images.
    drop_connect : float
        Probability that the last block adds nothing to what it reads, in training;
        those of the others rise to it.

    Attributes
    ----------
    n_components : int
        Number of channels of the result.

    Raises
    ------
    ValueError
        If `width` or `depth` is not positive, there is no such padding, or
        `drop_connect` is no probability below 1.
    """

    def __init__(self, *, width, depth, padding, drop_connect):
        for name, value in (("width", width), ("depth", depth)):
            if not value > 0:
                raise ValueError(f"{name}={value} must be positive")
        if padding not in _PADDINGS:
            raise ValueError(f"padding={padding!r} is none of {_PADDINGS}")
        if not 0 <= drop_connect < 1:
            raise ValueError(f"drop_connect={drop_connect} must be in [0, 1)")
        super().__init__()
        halving = nn.Conv2d if padding == "symmetric" else _PaddedBehind
        n_in, n_outs, self.n_components = _channels(width, depth)
        self.stem = _convolution(1, n_in, 3, stride=2, cls=halving)
        kinds = (
            (expansion, kernel, *((stride, is_odd) if first else (1, False)))
            for (_, _, expansion, kernel, stride, is_odd), n in _stages(depth)
            for first in (True, *[False] * (n - 1))
        )
        blocks = []
        for n_out, (expansion, kernel, stride, is_odd) in zip(
            n_outs, kinds, strict=True
        ):
            block = _Block(
                n_in,
                n_out,
                expansion,
                kernel,
                stride,
                cls=halving if is_odd else nn.Conv2d,
                drop_connect=drop_connect * len(blocks) / len(n_outs),
            )
            blocks.append(block)
            n_in = n_out
        self.blocks = nn.Sequential(*blocks)
        self.head = _convolution(n_in, self.n_components, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                # By what comes in: what goes out says nothing of depthwise layers.
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, image):
        """Return the last map.

        Parameters
        ----------
        image : Tensor of shape (n_images, 1, height, width)
            The images.

        Returns
        -------
        Tensor of shape (n_images, n_components, height / 32, width / 32)
            The map; incomplete steps are kept, but for the ``"tensorflow"`` padding,
            which needs 4 pixels for any.
        """
        return self.head(self.blocks(self.stem(image)))


class _Block(nn.Module):
    """Channels expanded, filtered one by one, weighed by the whole image, mixed."""

    def __init__(self, n_in, n_out, expansion, kernel, stride, *, cls, drop_connect):
        super().__init__()
        expanded = expansion * n_in
        self.expand = (
            nn.Identity() if expansion == 1 else _convolution(n_in, expanded, 1)
        )
        self.depthwise = _convolution(
            expanded, expanded, kernel, stride=stride, groups=expanded, cls=cls
        )
        self.excite = _Excitation(expanded, max(1, n_in // 4))
        self.project = _convolution(expanded, n_out, 1)[:2]
        self.is_residual = stride == 1 and n_in == n_out
        self.drop_connect = drop_connect

    def forward(self, image):
        result = self.project(self.excite(self.depthwise(self.expand(image))))
        if not self.is_residual:
            return result
        if self.training and self.drop_connect:
            kept = result.new_ones(len(result), 1, 1, 1)
            result = result * nn.functional.dropout(kept, self.drop_connect)
        return image + result


class _Excitation(nn.Module):
    def __init__(self, n_channels, n_squeezed):
        super().__init__()
        self.reduce = nn.Linear(n_channels, n_squeezed)
        self.expand = nn.Linear(n_squeezed, n_channels)

    def forward(self, image):
        squeezed = nn.functional.silu(self.reduce(image.mean((2, 3))))
        return image * self.expand(squeezed).sigmoid()[:, :, None, None]


class _PaddedBehind(nn.Conv2d):
    """A strided convolution of kernel 3, with a zero below and one on the right."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs | {"padding": 0})

    def forward(self, image):
        return super().forward(nn.functional.pad(image, (0, 1, 0, 1)))


def _convolution(n_in, n_out, kernel, *, stride=1, groups=1, cls=nn.Conv2d):
    convolution = cls(
        n_in,
        n_out,
        kernel,
        stride=stride,
        padding=kernel // 2,
        groups=groups,
        bias=False,
    )
    norm = nn.BatchNorm2d(n_out, eps=0.001, momentum=0.01)
    return nn.Sequential(convolution, norm, nn.SiLU(inplace=True))


def convert_efficientnet(state, prefix, new_prefix):
    """Rename weights from efficientnet_pytorch's layout.

    Parameters
    ----------
    state : dict of str to Tensor
        Weights, among them EfficientNet's.
    prefix, new_prefix : str
        What is before the names of EfficientNet's, such as ``"effnet."``, and what is
        to be.

    Returns
    -------
    dict of str to Tensor
        The same, with the names of `EfficientNet`; other names as they are.
    """
    converted = {}
    for name, tensor in state.items():
        inner = name.removeprefix(prefix) if name.startswith(prefix) else ""
        if match := _OUTER_NAME.fullmatch(inner):
            name = f"{new_prefix}{_OUTER_PARTS[match[1]]}.{match[2]}"
        elif (match := _BLOCK_NAME.fullmatch(inner)) and match[2] in _BLOCK_PARTS:
            part = _BLOCK_PARTS[match[2]]
            name = f"{new_prefix}blocks.{match[1]}.{part}.{match[3]}"
            if match[2].startswith("_se_") and match[3] == "weight":
                tensor = tensor.flatten(1)  # from a convolution of one pixel
        converted[name] = tensor
    return converted


def measure_efficientnet(state, prefix):
    """Tell an EfficientNet's sizes from its weights.

    Parameters
    ----------
    state : dict of str to Tensor
        Weights by this module's names.
    prefix : str
        What is before them.

    Returns
    -------
    dict
        ``width`` and ``depth``: B2's if they give these weights, or else the roundest.

    Raises
    ------
    ValueError
        If they are not the weights of an EfficientNet.
    """

    def n_out(name):
        model_name = "an EfficientNet in efficientnet_pytorch's layout"
        return len(get_weight(state, f"{prefix}{name}.0.weight", model_name, n_axes=4))

    n_blocks = 1
    while f"{prefix}blocks.{n_blocks}.project.0.weight" in state:
        n_blocks += 1
    found = (
        n_out("stem"),
        [n_out(f"blocks.{i}.project") for i in range(n_blocks)],
        n_out("head"),
    )
    # Channels are rounded to multiples of 8, of which the head has most.
    low, high = ((found[2] + n) / _HEAD for n in (-8, 8))
    n_of_one = sum(n for _, n, *_ in _STAGES)
    for depth in _candidates("depth", 0, n_blocks / n_of_one + 1):
        if sum(n for _, n in _stages(depth)) != n_blocks:
            continue
        for width in _candidates("width", low, high):
            if _channels(width, depth) == found:
                return {"width": width, "depth": depth}
        break
    raise ValueError(
        f"no width and depth give an EfficientNet so many channels: {found[0]} in the "
        f"stem, {found[1]} in its blocks, {found[2]} in the last layer"
    )


def _candidates(name, low, high):
    """Yield B2's number, then others, those with few decimals first."""
    yield _B2[name]
    for unit in (10, 100, 1000, 10000):
        for k in range(max(int(low * unit), 1), int(high * unit) + 2):
            yield k / unit


def _stages(depth):
    """Return each stage with its number of blocks."""
    return [(stage, math.ceil(depth * stage[1])) for stage in _STAGES]


def _channels(width, depth):
    """Return the channels of the stem, of all blocks, and of the last layer."""
    blocks = [
        channels
        for stage, n in _stages(depth)
        for channels in [_round_channels(width * stage[0])] * n
    ]
    return (
        _round_channels(width * _STEM),
        blocks,
        _round_channels(width * _HEAD),
    )


def _round_channels(n_channels):
    """Round to a multiple of 8, but not down by more than a tenth."""
    rounded = max(8, int(n_channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * n_channels else rounded
