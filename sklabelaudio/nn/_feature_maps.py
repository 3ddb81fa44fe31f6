"""What encoders give before they pool, and what all heads over it have in common."""

import torch
from torch import nn


class FeatureSizeError(ValueError):
    """Features are of another size than those that a head was made for."""


class FeatureHead(nn.Module):
    """A head that makes one vector of an encoder's features.

    Parameters
    ----------
    n_channels, height, width : int
        Size of the map that it reads, as ``forward_features`` of an encoder gives it.
    n_components : int
        Length of the vector.

    Raises
    ------
    ValueError
        If one of them is not positive.
    """

    def __init__(self, n_channels, height, width, n_components):
        for name, value in (
            ("n_channels", n_channels),
            ("height", height),
            ("width", width),
            ("n_components", n_components),
        ):
            if value < 1:
                raise ValueError(f"{name}={value} must be at least 1")
        super().__init__()
        self.n_channels = n_channels
        self.height = height
        self.width = width
        self.n_components = n_components

    def read_map(self, features):
        """Return features as a map, ``(n_clips, n_channels, height, width)``."""
        self._check(features)
        if features.ndim == 4:
            return features
        return features.mT.unflatten(2, (self.height, self.width))

    def read_tokens(self, features):
        """Return features as tokens, ``(n_clips, height * width, n_channels)``."""
        self._check(features)
        return features.flatten(2).mT if features.ndim == 4 else features

    def _check(self, features):
        channels, height, width = self.n_channels, self.height, self.width
        fitting = {4: (channels, height, width), 3: (height * width, channels)}
        shape = tuple(features.shape)
        if shape[1:] == fitting.get(len(shape)):
            return
        name = type(self).__name__
        problem = (
            f"features has the shape {shape}; this {name} takes a map of (n_clips, "
            f"{channels}, {height}, {width}), or tokens of (n_clips, "
            f"{height * width}, {channels})"
        )
        if len(shape) == 4 and all(shape[1:]):
            mend = "give it clips of the length that it was made for, or make it with "
            sizes = zip(("n_channels", "height", "width"), shape[1:], strict=True)
            mend += ", ".join(f"{size}={value}" for size, value in sizes)
        elif len(shape) == 3 and all(shape[1:]):
            mend = (
                f"give it clips of the length that it was made for, or make it with "
                f"n_channels={shape[2]} and a height and width whose product is "
                f"{shape[1]}"
            )
        else:
            mend = "give it what an encoder computes before it pools"
        raise FeatureSizeError(f"{problem}: {mend}")


def take_features(encoder, inputs):
    """Compute the features of clips before they are pooled.

    Parameters
    ----------
    encoder : torch.nn.Module
        An encoder of this package, or any module with a method ``forward_features``;
        of another, what it returns is taken.
    inputs : Tensor of shape (n_clips, ...)
        What it takes.

    Returns
    -------
    Tensor of shape (n_clips, n_channels, height, width) or \
            (n_clips, n_tokens, n_channels)
        A map, or tokens.

    Raises
    ------
    TypeError
        If it gives neither.
    """
    features = getattr(encoder, "forward_features", encoder)(inputs)
    given = type(features).__name__
    if isinstance(features, torch.Tensor):
        if features.ndim in (3, 4) and features.is_floating_point():
            return features
        given = f"a tensor of the shape {tuple(features.shape)}"
        if not features.is_floating_point():
            given += f" and of {features.dtype}"
    raise TypeError(
        f"{type(encoder).__name__} gives {given} where a map of (n_clips, n_channels, "
        "height, width) or tokens of (n_clips, n_tokens, n_channels) are needed: give "
        "it a method forward_features that returns what it computes before it pools"
    )


def measure_features(encoder, clip_shape):
    """Tell the size of the map that an encoder makes of clips.

    It is what ``CSCM(*measure_features(encoder, shape))`` needs. The encoder is run
    once, on silence.

    Parameters
    ----------
    encoder : torch.nn.Module
        As for :func:`take_features`.
    clip_shape : sequence of int
        Shape of one clip, such as ``(998, 64)``.

    Returns
    -------
    n_channels, height, width : int
        The size. Tokens, of which no height and width are known, have the height 1.
    """
    weight = next(encoder.parameters(), torch.zeros(0))
    clips = torch.zeros(1, *clip_shape, dtype=weight.dtype, device=weight.device)
    training = [module for module in encoder.modules() if module.training]
    encoder.eval()
    try:
        with torch.inference_mode():
            features = take_features(encoder, clips)
    finally:
        # Not by train(), which would reach parts that were frozen in evaluation mode.
        for module in training:
            module.training = True
    if features.ndim == 4:
        return tuple(features.shape[1:])
    _, n_tokens, n_channels = features.shape
    return n_channels, 1, n_tokens
