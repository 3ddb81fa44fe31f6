"""CSCM: a feature map to one vector, by attention and few convolutions."""

import torch
from torch import nn

from ._feature_maps import FeatureHead

_KERNEL = 7  # of the attention over places


class CSCM(FeatureHead):
    """Head that makes a vector of a feature map, in a space shared with texts.

    Attention weighs the channels of the map and then its places; a 3 x 3 and a 1 x 1
    convolution and the mean over the map make one vector of the result. It takes what
    ``forward_features`` of an encoder gives. The defaults are the paper's, for `HTSAT`.

    Parameters
    ----------
    n_channels, height, width : int, default=768, 8 and 8
        Size of the map.
    n_components : int, default=1024
        Length of the vector.
    n_hidden : int, default=None
        Channels between the convolutions; ``None`` is a quarter of `n_channels`.
    reduction : int, default=16
        Factor by which the hidden layer of the attention over channels is narrower
        than `n_channels`.

    Attributes
    ----------
    n_channels, height, width, n_components : int
        As given.

    Raises
    ------
    ValueError
        If a parameter is not positive.

    See Also
    --------
    SymmetricContrastiveLoss : What it is trained with.

    Notes
    -----
    It has 1,599,762 parameters by default. A dense layer from the 64 tokens together to
    as long a vector has 50,332,672, which is 31 times as many, and grows with the map,
    as this does not.

    The paper says that there are convolutional attention, 3 x 3 and 1 x 1
    convolutions, and a vector of 1024, and leaves the rest open. Here the attention is
    Woo et al.'s, its 7 x 7 convolution without batch norm, as their formula has it. One
    convolution of each kind follows, the first with batch norm and ReLU. The vector is
    the mean over the map and not the map laid out in a row, so that it doesn't matter
    when a sound comes: on frozen maps of the 400 clips of ESC-10 that gave an accuracy
    of 0.99, and the latter 0.90. The mean is taken before the 1 x 1 convolution, which
    gives the same, for that is linear, and costs as much as one place of the map.

    References
    ----------
    .. [1] Y. Xiao, Y. Ma, S. Li, H. Zhou, R. Liao and X. Li, "SemanticAC:
       Semantics-Assisted Framework for Audio Classification", ICASSP 2023: section 2.2.
    .. [2] S. Woo, J. Park, J.-Y. Lee and I. S. Kweon, "CBAM: Convolutional Block
       Attention Module", ECCV 2018.

    Examples
    --------
    >>> import torch
    >>> from sklabelaudio.nn import CSCM
    >>> head = CSCM(32, height=4, width=16, n_components=10).eval()
    >>> with torch.inference_mode():
    ...     from_map = head(torch.zeros(2, 32, 4, 16))
    ...     from_tokens = head(torch.zeros(2, 64, 32))  # row by row
    >>> from_map.shape, from_tokens.shape
    (torch.Size([2, 10]), torch.Size([2, 10]))
    """

    def __init__(
        self,
        n_channels=768,
        height=8,
        width=8,
        n_components=1024,
        *,
        n_hidden=None,
        reduction=16,
    ):
        super().__init__(n_channels, height, width, n_components)
        if n_hidden is None:
            n_hidden = max(n_channels // 4, 1)
        for name, value in (("n_hidden", n_hidden), ("reduction", reduction)):
            if value < 1:
                raise ValueError(f"{name}={value} must be at least 1")
        self.attention = _ConvolutionalAttention(n_channels, reduction)
        self.convolutions = nn.Sequential(
            nn.Conv2d(n_channels, n_hidden, 3, padding=1, bias=False),
            nn.BatchNorm2d(n_hidden),
            nn.ReLU(inplace=True),
        )
        self.projection = nn.Conv2d(n_hidden, n_components, 1)

    def forward(self, features):
        """Make a vector of each clip's map.

        Parameters
        ----------
        features : Tensor of shape (n_clips, n_channels, height, width) or \
                (n_clips, height * width, n_channels)
            Maps, or tokens row by row.

        Returns
        -------
        Tensor of shape (n_clips, n_components)
            The vectors, not of length one.

        Raises
        ------
        ValueError
            If `features` have another shape, or, in training, are one clip of one
            place, of which batch norm can learn nothing.
        """
        image = self.read_map(features)
        if self.training and image.numel() == self.n_channels:
            raise ValueError(
                "features are one clip of one place, of which batch norm can learn "
                "nothing: train with two clips or more at a time"
            )
        image = self.convolutions(self.attention(image))
        return self.projection(image.mean(dim=(2, 3), keepdim=True)).flatten(1)


class _ConvolutionalAttention(nn.Module):
    """What weighs a map's channels by what is in them, and then its places."""

    def __init__(self, n_channels, reduction):
        super().__init__()
        n_hidden = max(n_channels // reduction, 1)
        self.channels = nn.Sequential(
            nn.Linear(n_channels, n_hidden),
            nn.ReLU(inplace=True),
            nn.Linear(n_hidden, n_channels),
        )
        self.places = nn.Conv2d(2, 1, _KERNEL, padding=_KERNEL // 2, bias=False)

    def forward(self, image):
        scores = self.channels(image.mean(dim=(2, 3))) + self.channels(
            image.amax(dim=(2, 3))
        )
        image = image * scores.sigmoid()[:, :, None, None]
        profile = torch.stack([image.mean(dim=1), image.amax(dim=1)], dim=1)
        return image * self.places(profile).sigmoid()
