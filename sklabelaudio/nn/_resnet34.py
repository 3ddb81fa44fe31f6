"""ResNet-34, the network for images, over spectrograms."""

import re

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ._checks import check_log_mel, get_weight
from ._output import EncoderOutput

_N_BLOCKS = (3, 4, 6, 3)
_CONVOLUTION = re.compile(r"layer(\d+)\.(\d+)\.conv2\.weight")


class ResNet34(nn.Module):
    """ResNet-34 that reads a log-mel as an image.

    A plain strong network for training on spectrograms, from scratch or from the
    weights of ImageNet in torchvision's files.

    Parameters
    ----------
    n_classes : int, default=10
        Number of classes; 1000 in ImageNet's weights.
    n_channels : int, default=1
        Channels of the image, all of which are the log-mel; 3 in ImageNet's weights.
    width : int, default=64
        Channels of the first layers; the last have 8 times as many.
    dropout : float, default=0.0
        Probability of dropout before the last layer, in training.

    Attributes
    ----------
    n_components : int
        Length of the embedding, 512 by default.
    n_classes : int
        Number of classes.
    frame_stride : int
        Log-mel frames from one of the vectors over time to the next, 32.
    step_offset : int
        Log-mel frame in the middle of the first of them, 0.

    Raises
    ------
    ValueError
        If a parameter is not positive.

    Notes
    -----
    Names and shapes of the weights are those of torchvision, whose files load as they
    are, such as ``resnet34-b627a593.pth``. A file of three channels loads into a model
    of one, too: its first weights are summed over the channels, which gives what three
    channels of the same image would. Such weights have seen images of mean 0 and
    standard deviation 1; standardise the log-mel likewise.

    There are 21,283,530 parameters by default, and 21,797,672 in ImageNet's model.

    References
    ----------
    .. [1] K. He, X. Zhang, S. Ren and J. Sun, "Deep residual learning for image
       recognition", CVPR 2016.

    Examples
    --------
    >>> import torch
    >>> from sklabelaudio.nn import ResNet34
    >>> model = ResNet34(n_classes=10, width=8).eval()
    >>> with torch.inference_mode():
    ...     output = model(torch.zeros(2, 500, 64))
    >>> output.embedding.shape, output.logits.shape, output.frames.shape
    (torch.Size([2, 64]), torch.Size([2, 10]), torch.Size([2, 16, 64]))

    From ImageNet's weights, with a classifier of your own, and training the first and
    the last layer alone:

    >>> from sklabelaudio.nn import load_checkpoint
    >>> model = ResNet34(n_classes=1000)
    >>> load_checkpoint(model, "resnet34-b627a593.pth")  # doctest: +SKIP
    >>> model = model.requires_grad_(False).replace_classifier(10)
    >>> model.conv1.requires_grad_(True)
    Conv2d(1, 64, kernel_size=(7, 7), stride=(2, 2), padding=(3, 3), bias=False)
    """

    frame_stride = 32
    step_offset = 0

    def __init__(self, n_classes=10, n_channels=1, width=64, dropout=0.0):
        for name, value in (("n_channels", n_channels), ("width", width)):
            if value < 1:
                raise ValueError(f"{name}={value} must be at least 1")
        super().__init__()
        self.n_channels = n_channels
        self.conv1 = nn.Conv2d(n_channels, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        n_in = width
        for stage, n_blocks in enumerate(_N_BLOCKS):
            n_out = width * 2**stage
            stride = 1 if stage == 0 else 2
            blocks = [_Block(n_in, n_out, stride)]
            blocks += [_Block(n_out, n_out, 1) for _ in range(n_blocks - 1)]
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
            n_in = n_out
        self.n_components = n_in
        self.dropout = nn.Dropout(dropout)
        self.replace_classifier(n_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(
                    module.weight, mode="fan_out", nonlinearity="relu"
                )

    def replace_classifier(self, n_classes):
        """Put a new last layer, for other classes, in place of the one there is.

        Parameters
        ----------
        n_classes : int
            Number of the classes.

        Returns
        -------
        ResNet34
            This model.

        Raises
        ------
        ValueError
            If `n_classes` is not positive.
        """
        if n_classes < 1:
            raise ValueError(f"n_classes={n_classes} must be at least 1")
        weight = self.conv1.weight
        self.fc = nn.Linear(
            self.n_components, n_classes, device=weight.device, dtype=weight.dtype
        )
        self.n_classes = n_classes
        return self

    def forward(self, log_mel):
        """Embed and classify clips of one length.

        Parameters
        ----------
        log_mel : Tensor of shape (n_clips, n_frames, n_mels)
            Log-mel of any kind.

        Returns
        -------
        EncoderOutput
            `embedding` ``(n_clips, n_components)``, `logits` ``(n_clips, n_classes)``,
            and `frames` ``(n_clips, n_steps, n_components)``, whose mean is the
            embedding.

        Raises
        ------
        ValueError
            If `log_mel` has not three dimensions, or no frames or bands.
        """
        image = self.forward_features(log_mel)
        embedding = image.mean((2, 3))
        logits = self.fc(self.dropout(embedding))
        return EncoderOutput(embedding, logits, frames=image.mean(dim=2).mT)

    def forward_features(self, log_mel):
        """Compute the last map, of which the embedding is the mean.

        Parameters
        ----------
        log_mel : Tensor of shape (n_clips, n_frames, n_mels)
            As for :meth:`forward`.

        Returns
        -------
        Tensor of shape (n_clips, n_components, n_rows, n_steps)
            The map: rows are of 32 mel bands, lowest first, and columns of 32 frames,
            where a part of them counts as a whole: 998 frames of 64 bands give 2 rows
            and 32 columns.

        Raises
        ------
        ValueError
            As :meth:`forward`.
        """
        check_log_mel(self, log_mel, None)
        image = log_mel.mT.unsqueeze(1).expand(-1, self.n_channels, -1, -1)
        image = self.maxpool(self.relu(self.bn1(self.conv1(image))))
        for stage in range(1, len(_N_BLOCKS) + 1):
            image = getattr(self, f"layer{stage}")(image)
        return image

    def fold_(self):
        """Fold the first batch norm, in place."""
        _fold(self, "conv1", "bn1")

    def convert_checkpoint(self, state):
        """Fit torchvision's weights to the model's number of channels.

        Parameters
        ----------
        state : dict of str to Tensor
            Weights by torchvision's names.

        Returns
        -------
        dict of str to Tensor
            The same; the first layer's are summed over the channels if the model has
            but one.
        """
        first = state.get("conv1.weight")
        if self.n_channels == 1 and first is not None and first.ndim == 4:
            return state | {"conv1.weight": first.sum(dim=1, keepdim=True)}
        return state

    @staticmethod
    def config_of(state):
        """Read a model's sizes off its weights.

        Parameters
        ----------
        state : dict of str to Tensor
            Weights by torchvision's names.

        Returns
        -------
        dict
            ``n_classes``, ``n_channels`` and ``width`` of the model that they fit.

        Raises
        ------
        ValueError
            If they are not the weights of a ResNet-34.

        Examples
        --------
        >>> from sklabelaudio.nn import ResNet34
        >>> ResNet34.config_of(ResNet34(n_classes=7, width=8).state_dict())
        {'n_classes': 7, 'n_channels': 1, 'width': 8}
        """
        first, last = (
            get_weight(state, name, "a ResNet in torchvision's layout", n_axes=n_axes)
            for name, n_axes in (("conv1.weight", 4), ("fc.weight", 2))
        )
        matches = [match for name in state if (match := _CONVOLUTION.fullmatch(name))]
        counts = [
            sum(match[1] == str(stage) for match in matches) for stage in range(1, 5)
        ]
        if tuple(counts) != _N_BLOCKS or "layer1.0.conv3.weight" in state:
            raise ValueError(
                f"these are the weights of another ResNet: its stages have {counts} "
                f"blocks, and those of ResNet-34 {list(_N_BLOCKS)} of two convolutions"
            )
        width, n_channels = first.shape[:2]
        return {"n_classes": len(last), "n_channels": n_channels, "width": width}


class _Block(nn.Module):
    def __init__(self, n_in, n_out, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1:
            self.downsample = nn.Sequential(
                nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out)
            )

    def forward(self, image):
        shortcut = image if self.downsample is None else self.downsample(image)
        image = self.relu(self.bn1(self.conv1(image)))
        return self.relu(self.bn2(self.conv2(image)) + shortcut)

    def fold_(self):
        """Fold the batch norms that are in no sequence, in place."""
        _fold(self, "conv1", "bn1")
        _fold(self, "conv2", "bn2")


def _fold(module, convolution, norm):
    if isinstance(getattr(module, norm), nn.BatchNorm2d):
        folded = fuse_conv_bn_eval(getattr(module, convolution), getattr(module, norm))
        setattr(module, convolution, folded)
        setattr(module, norm, nn.Identity().eval())
