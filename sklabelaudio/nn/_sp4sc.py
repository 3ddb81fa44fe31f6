"""SP4SC: an acoustic scene classifier of 62,474 numbers."""

import copy

import torch
import torch.nn.functional as F
from torch import nn

from ._checks import check_log_mel, get_weight, scale_channels
from ._fold import fold_batch_norm
from ._output import EncoderOutput

_N_BLOCKS = 4
_DILATION = 2
# Frames, and mel bands, of which the poolings of all blocks leave one.
_POOLED = 2**_N_BLOCKS


class SP4SC(nn.Module):
    """CNN6 made of separable convolutions, a classifier of ten acoustic scenes.

    Each of four blocks mixes the channels, filters every channel along time and along
    frequency, and adds the two up; batch norm, ReLU and a pooling of two by two follow.
    The map's mean over frequency is pooled over time by its maximum plus its mean.
    For inference the batch norms can be merged into the filters, see
    :meth:`merge_batch_norm`.

    Parameters
    ----------
    n_classes : int, default=10
        Number of classes, of which a clip has one.
    n_mels : int, default=256
        Number of mel bands, at least 16.
    channels : sequence of 4 int, default=(64, 128, 128, 128)
        Channels of the blocks.
    width : float, default=1.0
        What the channels are multiplied by.
    dropout : float, default=0.2
        Probability of dropout before each of the two last layers, in training.
    merged : bool, default=False
        Whether to build the form for inference, which has no batch norms: for weights
        that were merged before they were saved.

    Attributes
    ----------
    n_components : int
        Length of the embedding, 128 by default.
    n_classes : int
        Number of classes.
    frame_stride : int
        16, the log-mel frames from one step of `frames` to the next.
    exclusive_classes : bool
        True: a clip has one class, and the probabilities are the logits' softmax.

    Raises
    ------
    ValueError
        If `channels` are not four, `width` leaves none, `n_classes` is not positive,
        or there are too few mel bands for the poolings.

    Notes
    -----
    The state dict of the published size has 64,335 values, or 62,474 merged, names
    and shapes being the authors' in either form. 62,922 of the former are parameters,
    the others statistics of the batch norms.

    Zeros behind a clip change its result: batch clips of equal length only. The
    authors also hide stripes of the log-mel in training, which is no part of the
    model here.

    References
    ----------
    G. Puy, H. Jain and A. Bursuc, "Separable convolutions and test-time augmentations
    for low-complexity and calibrated acoustic scene classification", DCASE 2021.

    Examples
    --------
    >>> import torch
    >>> from sklabelaudio.nn import SP4SC
    >>> model = SP4SC().eval()
    >>> with torch.inference_mode():
    ...     output = model(torch.zeros(2, 431, 256))
    >>> output.embedding.shape, output.logits.shape, output.frames.shape
    (torch.Size([2, 128]), torch.Size([2, 10]), torch.Size([2, 26, 128]))
    >>> merged = model.merge_batch_norm()
    >>> sum(values.numel() for values in merged.state_dict().values())
    62474
    """

    frame_stride = _POOLED
    exclusive_classes = True

    def __init__(
        self,
        n_classes=10,
        *,
        n_mels=256,
        channels=(64, 128, 128, 128),
        width=1.0,
        dropout=0.2,
        merged=False,
    ):
        if len(channels) != _N_BLOCKS:
            raise ValueError(
                f"channels={channels!r}: pass {_N_BLOCKS} numbers of channels, one for "
                "each block"
            )
        if n_classes < 1:
            raise ValueError(f"n_classes={n_classes} must be at least 1")
        if n_mels < _POOLED:
            raise ValueError(
                f"n_mels={n_mels} is too few for {_N_BLOCKS} poolings: pass at least "
                f"{_POOLED}"
            )
        channels = scale_channels(channels, width)
        super().__init__()
        self.bn0 = _Scale(n_mels) if merged else nn.BatchNorm1d(n_mels)
        for i, (n_in, n_out) in enumerate(
            zip((1, *channels), channels, strict=False), 1
        ):
            self.add_module(f"conv{i}", _SeparableBlock(n_in, n_out, merged))
        self.dropout = nn.Dropout(dropout)
        self.fc1 = nn.Linear(channels[-1], channels[-1])
        self.fc2 = nn.Linear(channels[-1], n_classes)
        self.n_mels = n_mels
        self.n_components = channels[-1]
        self.n_classes = n_classes

    def forward(self, log_mel):
        """Embed and classify clips of one length.

        Parameters
        ----------
        log_mel : Tensor of shape (n_clips, n_frames, n_mels)
            In dB, as the front end ``"sp4sc"`` gives it: 43 frames a second, at least
            16.

        Returns
        -------
        EncoderOutput
            `embedding` ``(n_clips, n_components)``, `logits` ``(n_clips,
            n_classes)``, whose softmax are the probabilities, and `frames`
            ``(n_clips, n_frames // 16, n_components)``, the vectors over time that the
            layers of the embedding read pooled.

        Raises
        ------
        ValueError
            If `log_mel` has another shape or too few frames.
        """
        frames = self.forward_features(log_mel).mean(dim=2).mT
        pooled = frames.amax(dim=1) + frames.mean(dim=1)
        embedding = self.fc1(self.dropout(pooled)).relu()
        logits = self.fc2(self.dropout(embedding))
        return EncoderOutput(embedding, logits, frames=frames)

    def forward_features(self, log_mel):
        """Compute the last map, of which `frames` are the mean over the bands.

        Parameters
        ----------
        log_mel : Tensor of shape (n_clips, n_frames, n_mels)
            As for :meth:`forward`.

        Returns
        -------
        Tensor of shape (n_clips, n_components, n_mels // 16, n_frames // 16)
            The map: rows are of 16 mel bands, lowest first, and columns of 16 frames.
            What is left behind the last whole ones is not heard: 431 frames give 26
            columns.

        Raises
        ------
        ValueError
            As :meth:`forward`.
        """
        check_log_mel(self, log_mel, self.n_mels, shortest=_POOLED)
        image = self.bn0(log_mel.mT).mT.unsqueeze(1)
        # Pooling takes a third of the time where a map's channels lie side by side.
        x = image.to(memory_format=torch.channels_last)
        for block in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = block(x)
        return x.mT

    def merge_batch_norm(self):
        """Make a copy for inference whose batch norms are merged into its filters.

        Returns
        -------
        SP4SC
            The copy, in evaluation mode, with the authors' names for merged weights.

        Notes
        -----
        The batch norms' eps is kept, so that the copy gives what the model gives, to
        rounding. The authors' own merge leaves eps out, which moves the logits of their
        three published models by up to 3.1 (``ce``), 0.1 (``focal``) and 0.02
        (``ce_mixup``).
        """
        return fold_batch_norm(copy.deepcopy(self))

    def fold_(self):
        """Replace the batch norm of the mel bands by its scale and shift, in place.

        The blocks have such a method of their own.
        """
        if not isinstance(self.bn0, _Scale):
            self.bn0 = _Scale.of(self.bn0)

    @staticmethod
    def config_of(state):
        """Read a model's sizes off its weights.

        Parameters
        ----------
        state : dict of str to Tensor
            The weights, merged or not, by the authors' names.

        Returns
        -------
        dict
            Parameters of the model that they fit: `n_classes`, `n_mels`, `channels` and
            `merged`.

        Raises
        ------
        ValueError
            If they are not the weights of an SP4SC.
        """

        def shape_of(name, n_axes):
            return get_weight(state, name, "an SP4SC", n_axes=n_axes).shape

        merged = "conv1.sp_conv2.bias" in state
        return {
            "n_mels": shape_of("bn0.weight", 4 if merged else 1).numel(),
            "channels": tuple(
                shape_of(f"conv{i}.ch_conv1.weight", 4)[0]
                for i in range(1, _N_BLOCKS + 1)
            ),
            "n_classes": shape_of("fc2.weight", 2)[0],
            "merged": merged,
        }


class _SeparableBlock(nn.Module):
    """A 1x1 convolution, the sum of two depthwise ones, batch norm, ReLU, pooling."""

    def __init__(self, n_in, n_out, merged):
        super().__init__()
        self.ch_conv1 = nn.Conv2d(n_in, n_out, 1, bias=False)
        settings = {"padding": "same", "dilation": _DILATION, "groups": n_out}
        self.sp_conv1 = nn.Conv2d(n_out, n_out, (3, 1), bias=False, **settings)
        self.sp_conv2 = nn.Conv2d(n_out, n_out, (1, 3), bias=merged, **settings)
        self.bn = nn.Identity() if merged else nn.BatchNorm2d(n_out)

    def forward(self, x):
        """Return the maps at half the height and width."""
        # Two filters and their sum read and write large maps six times, one cross
        # of both does so twice.
        cross = F.pad(self.sp_conv1.weight, (1, 1)) + F.pad(
            self.sp_conv2.weight, (0, 0, 1, 1)
        )
        mix, n_groups = self.ch_conv1.weight, len(cross)
        if x.shape[1] == 1:
            # To mix one channel is to scale it, which the filters can do.
            cross, n_groups = cross * mix.reshape(-1, 1, 1, 1), 1
        else:
            x = self.ch_conv1(x)
        x = F.conv2d(
            x,
            cross,
            self.sp_conv2.bias,
            padding=_DILATION,
            dilation=_DILATION,
            groups=n_groups,
        )
        return F.avg_pool2d(self.bn(x).relu_(), 2)

    def fold_(self):
        """Merge the batch norm into the two filters, in place."""
        if isinstance(self.bn, nn.Identity):
            return
        scale = _Scale.of(self.bn)
        with torch.no_grad():
            for conv in (self.sp_conv1, self.sp_conv2):
                conv.weight *= scale.weight.view(-1, 1, 1, 1)
        self.sp_conv2.bias = nn.Parameter(
            scale.bias.detach().flatten(), scale.bias.requires_grad
        )
        self.bn = nn.Identity().eval()


class _Scale(nn.Module):
    """A scale and a shift of each mel band, shaped as the authors save them."""

    def __init__(self, n_channels):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, n_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(1, n_channels, 1, 1))

    @classmethod
    def of(cls, norm):
        """Return what a batch norm does in evaluation mode."""
        scale = norm.weight.detach() * (norm.running_var + norm.eps).rsqrt()
        shift = norm.bias.detach() - scale * norm.running_mean
        made = cls(0).eval()
        made.weight = nn.Parameter(scale.view(1, -1, 1, 1))
        made.bias = nn.Parameter(shift.view(1, -1, 1, 1))
        return made.requires_grad_(norm.weight.requires_grad)

    def forward(self, x):
        """Scale and shift ``(n_clips, n_channels, n_frames)``."""
        return x * self.weight[..., 0] + self.bias[..., 0]
