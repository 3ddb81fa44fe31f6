"""PANNs' residual network over the log-mel."""

from collections import OrderedDict

import torch.nn.functional as F
from torch import nn

from ._panns_common import PANN, ConvBlock

_N_STAGES = 4


class ResNet38(PANN):
    """PANNs' tagger with residual blocks.

    A block of two convolutions, four stages of residual blocks of two, and a block of
    two more. Maps are halved by averaging, not by strides.

    Parameters
    ----------
    n_classes : int, default=527
        Number of classes.
    n_mels : int, default=64
        Number of mel bands, at least 32.
    n_blocks : sequence of 4 int, default=(3, 4, 6, 3)
        Residual blocks of each stage; with ``(2, 2, 2, 2)`` it is the authors'
        ResNet22.
    channels : sequence of 4 int, default=(64, 128, 256, 512)
        Channels of the stages.
    n_components : int, default=2048
        Channels of the last block, and length of the embedding.
    dropout, residual_dropout, head_dropout : float, default=0.2, 0.1 and 0.5
        Probabilities of dropout behind the first and the last block and the stages
        together, in the middle of the residual blocks, and before the head, in
        training.

    Attributes
    ----------
    n_components : int
        Length of the embedding.
    n_classes : int
        Number of classes.
    frame_stride : int
        Log-mel frames from one of the vectors over time to the next, 32.

    Raises
    ------
    ValueError
        If there are not four stages, each with a block, `n_mels` are too few, or
        `n_classes` is not positive.

    Notes
    -----
    It has 73,783,247 parameters, as published. The authors' files hold 1,083,456 more
    values that are constants of the front end, which is no part of the model here.

    A new model's residual blocks begin as the identity: the scales of their last batch
    norms are zeros.

    References
    ----------
    .. [1] Q. Kong, Y. Cao, T. Iqbal, Y. Wang, W. Wang and M. D. Plumbley, "PANNs:
       Large-scale pretrained audio neural networks for audio pattern recognition",
       IEEE/ACM TASLP 28, 2020.

    Examples
    --------
    >>> import torch
    >>> from sklabelaudio.nn import ResNet38
    >>> sizes = {"channels": (4, 8, 8, 16), "n_components": 32}
    >>> model = ResNet38(10, **sizes).eval()
    >>> with torch.inference_mode():
    ...     output = model(torch.zeros(2, 101, 64))
    >>> output.embedding.shape, output.logits.shape, output.frames.shape
    (torch.Size([2, 32]), torch.Size([2, 10]), torch.Size([2, 3, 32]))
    """

    frame_stride = 32

    def __init__(
        self,
        n_classes=527,
        *,
        n_mels=64,
        n_blocks=(3, 4, 6, 3),
        channels=(64, 128, 256, 512),
        n_components=2048,
        dropout=0.2,
        residual_dropout=0.1,
        head_dropout=0.5,
    ):
        if len(n_blocks) != _N_STAGES or len(channels) != _N_STAGES:
            raise ValueError(
                f"n_blocks={n_blocks!r} and channels={channels!r}: pass {_N_STAGES} of "
                "each, one for every stage"
            )
        if min(n_blocks) < 1:
            raise ValueError(
                f"n_blocks={n_blocks!r}: every stage needs a block, which the maps are "
                "halved with"
            )
        super().__init__(n_classes, n_mels, n_components, head_dropout)
        self.conv_block1 = ConvBlock(1, channels[0])
        stages = OrderedDict()
        n_in = channels[0]
        for i, (n, n_out) in enumerate(zip(n_blocks, channels, strict=True), start=1):
            blocks = []
            for j in range(n):
                # The first stage has the map of the block before it.
                halve = i > 1 and j == 0
                blocks.append(
                    _ResidualBlock(n_in, n_out, halve=halve, dropout=residual_dropout)
                )
                n_in = n_out
            stages[f"layer{i}"] = nn.Sequential(*blocks)
        self.resnet = nn.Sequential(stages)
        self.conv_block_after1 = ConvBlock(n_in, n_components)
        self.dropout = nn.Dropout(dropout)
        self._initialize()
        for module in self.modules():
            if isinstance(module, _ResidualBlock):
                nn.init.zeros_(module.bn2.weight)

    def _make_map(self, image):
        image = self.dropout(F.avg_pool2d(self.conv_block1(image), 2))
        image = self.dropout(F.avg_pool2d(self.resnet(image), 2))
        return self.dropout(self.conv_block_after1(image))

    @classmethod
    def config_of(cls, state):
        """Read a model's sizes off its weights.

        Parameters
        ----------
        state : dict of str to Tensor
            Weights by the authors' names.

        Returns
        -------
        dict
            ``n_classes``, ``n_mels``, ``n_blocks``, ``channels`` and
            ``n_components`` of the model that they fit.

        Raises
        ------
        ValueError
            If they are the weights of some other model.
        """
        n_in, *_ = cls._shape_of(state, "conv_block1.conv1.weight", None, 1, 3, 3)
        n_blocks, channels = [], []
        for i in range(1, _N_STAGES + 1):
            n = 0
            # At least one, so that a stage that lacks is named.
            while n == 0 or f"resnet.layer{i}.{n}.conv1.weight" in state:
                for j in (1, 2):
                    name = f"resnet.layer{i}.{n}.conv{j}.weight"
                    n_in, *_ = cls._shape_of(state, name, None, n_in, 3, 3)
                n += 1
            n_blocks.append(n)
            channels.append(n_in)
        last = cls._shape_of(state, "conv_block_after1.conv1.weight", None, n_in, 3, 3)
        return {
            **cls._head_of(state, last[0]),
            "n_blocks": tuple(n_blocks),
            "channels": tuple(channels),
            "n_components": last[0],
        }


class _ResidualBlock(nn.Sequential):
    """Two convolutions and a way around them, by the authors' names."""

    def __init__(self, n_in, n_out, *, halve, dropout):
        super().__init__(
            OrderedDict(
                conv1=nn.Conv2d(n_in, n_out, 3, padding=1, bias=False),
                bn1=nn.BatchNorm2d(n_out),
                relu=nn.ReLU(inplace=True),
                dropout=nn.Dropout(dropout),
                conv2=nn.Conv2d(n_out, n_out, 3, padding=1, bias=False),
                bn2=nn.BatchNorm2d(n_out),
            )
        )
        self.halve = halve
        if halve:
            # The authors' "0" is the average, which both ways begin with.
            self.downsample = nn.Sequential(
                OrderedDict(
                    {
                        "1": nn.Conv2d(n_in, n_out, 1, bias=False),
                        "2": nn.BatchNorm2d(n_out),
                    }
                )
            )

    def forward(self, image):
        if self.halve:
            image = F.avg_pool2d(image, 2)
        result = self.bn1(self.conv1(image))
        result = self.conv2(self.dropout(self.relu(result)))
        result = self.bn2(result)
        return self.relu(result + (self.downsample(image) if self.halve else image))
