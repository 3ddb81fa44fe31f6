"""ESResNeXt-fbsp: an image network that hears, by learned filters; AudioCLIP's ear."""

import math
import re
from collections import OrderedDict
from contextlib import nullcontext

import torch
from torch import nn

from ._audioclip import split_audioclip
from ._checks import get_weight
from ._output import EncoderOutput

# The image has the three colours of the photographs it was first trained on.
_N_BANDS = 3
_STAGE_STRIDES = (1, 2, 2, 2)
# What the attention behind each stage, and behind all of them, looks along: frequency
# and time.
_KERNELS = ((3, 1), (1, 5), (3, 1), (1, 5), (3, 5))
_EXPANSION = 4
_BLACKMAN_HARRIS = (0.35875, -0.48829, 0.14128, -0.01168)
# A power of zero has no logarithm; this one is -180 dB.
_SILENCE = 1e-18


class ESResNeXtFbsp(nn.Module):
    """ResNeXt-50 with attention over a learned spectrogram, for sounds at 44.1 kHz.

    It takes waveforms, **in the range of 16-bit integers, -32768 to 32767, not -1 to
    1**. Nothing fails with samples from -1 to 1, but all of it is 90 dB too low then,
    and what is below 0.001 is rounded to silence: quiet clips get the very same vector.

    Filters of complex frequency B-spline wavelets, whose frequencies, bandwidths and
    orders are learned, give the power of each frame; the lower, the middle and the
    upper third of the frequencies, in dB, are the colours of an image for the network
    [1]_. AudioCLIP has it as its audio part, projected to the space of CLIP's images
    and texts [2]_.

    Parameters
    ----------
    n_classes : int or None, default=527
        Number of classes; ``None`` for an encoder without.
    projection_dim : int or None, default=None
        Length of the vectors that the network's are projected to, 1024 for
        AudioCLIP, which has no classes. ``None`` leaves them as they are.
    n_fft : int, default=2048
        Length of the filters, in samples; there are ``1 + n_fft // 2``.
    win_length : int, default=1654
        Samples of a frame.
    hop_length : int, default=561
        Samples from one frame to the next.
    n_channels : int, default=64
        Channels of the first layer; the last have 32 times as many.
    depths : sequence of 4 int, default=(3, 4, 6, 3)
        Number of blocks of each stage.
    n_groups : int, default=32
        Groups of the blocks' convolutions; they divide ``2 * n_channels``.

    Attributes
    ----------
    n_components : int
        Length of the embedding: 2048, or `projection_dim`.
    n_classes : int or None
        Number of classes.
    frame_stride : int
        Frames from one of the vectors over time to the next, 32, which is 0.41 s.
    step_offset : int
        Frame in the middle of the first of them, 0.

    Raises
    ------
    ValueError
        If there is both a projection and classes, or sizes do not go together.

    Notes
    -----
    Of the authors' files ``ESRNXFBSP.pt`` is the network with AudioSet's classes, and
    the audio part of ``AudioCLIP-Full-Training.pt`` the one with a projection. Whole
    models load as well: texts and images are left out. The window and an empty bias of
    the filters, which the files have too, are constants and no weights here.

    A new network begins with the filters of a Fourier transform (order 0). When they
    are trained, the authors divide the gradients of the filters' three parameters by
    their greatest value, and keep the filters' energy near one by a loss; both are
    left to the training.

    References
    ----------
    .. [1] A. Guzhov, F. Raue, J. Hees and A. Dengel, "ESResNe(X)t-fbsp: Learning
       Robust Time-Frequency Transformation of Audio", IJCNN 2021.
    .. [2] A. Guzhov, F. Raue, J. Hees and A. Dengel, "AudioCLIP: Extending CLIP to
       Image, Text and Audio", ICASSP 2022.

    Examples
    --------
    >>> import torch
    >>> from sklabelaudio.nn import ESResNeXtFbsp
    >>> model = ESResNeXtFbsp(10, n_channels=8, depths=(1, 1, 1, 1), n_groups=4).eval()
    >>> waveform = torch.sin(torch.arange(44100) / 16).expand(2, -1)
    >>> with torch.inference_mode():
    ...     output = model(32768 * waveform)
    >>> output.embedding.shape, output.logits.shape
    (torch.Size([2, 256]), torch.Size([2, 10]))
    """

    frame_stride = 32
    step_offset = 0

    def __init__(
        self,
        n_classes=527,
        *,
        projection_dim=None,
        n_fft=2048,
        win_length=1654,
        hop_length=561,
        n_channels=64,
        depths=(3, 4, 6, 3),
        n_groups=32,
    ):
        if None not in (n_classes, projection_dim):
            raise ValueError(
                f"n_classes={n_classes} with projection_dim={projection_dim}: what is "
                "projected has no classes, so pass n_classes=None"
            )
        if not 0 < win_length <= n_fft:
            raise ValueError(
                f"win_length={win_length} must be from 1 to n_fft={n_fft}: filters "
                "are as long as a frame or longer"
            )
        if len(depths) != len(_STAGE_STRIDES) or min(depths) < 1:
            raise ValueError(
                f"depths={depths}: pass 4 numbers of blocks, each 1 or more"
            )
        if n_groups < 1 or 2 * n_channels % n_groups:
            raise ValueError(
                f"n_groups={n_groups} must divide 2 * n_channels = {2 * n_channels}"
            )
        super().__init__()
        self.fbsp = _FilterBank(n_fft, win_length, hop_length)
        self.stem = nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(_N_BANDS, n_channels, 7, 2, 3, bias=False),
                bn1=nn.BatchNorm2d(n_channels),
                relu=nn.ReLU(inplace=True),
                maxpool=nn.MaxPool2d(3, 2, 1),
            )
        )
        widths = [n_channels * 2**stage for stage in range(len(depths))]
        n_outs = [_EXPANSION * width for width in widths]
        n_ins = [n_channels, *n_outs]
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            _make_stage(n_in, 2 * width, n_out, depth, stride, n_groups)
            for n_in, width, n_out, depth, stride in zip(
                n_ins[:-1], widths, n_outs, depths, _STAGE_STRIDES, strict=True
            )
        )
        self.att1, self.att2, self.att3, self.att4, self.att5 = (
            _make_attention(n_in, n_out, kernel)
            for n_in, n_out, kernel in zip(
                n_ins, [*n_outs, n_outs[-1]], _KERNELS, strict=True
            )
        )
        n_components = n_outs[-1]
        if n_classes is not None:
            self.fc = nn.Linear(n_components, n_classes)
        if projection_dim is not None:
            self.projection = nn.Linear(n_components, projection_dim)
            n_components = projection_dim
        self.n_components = n_components
        self.n_classes = n_classes
        self._initialize()

    def forward(self, waveform):
        """Embed and tag clips.

        Parameters
        ----------
        waveform : Tensor of shape (n_clips, n_samples)
            Samples at 44.1 kHz **in the range of 16-bit integers**: those of a file
            read as floats, from -1 to 1, times 32768. It was trained on 5 s; clips
            may have any length, and one shorter than a frame gets zeros around it.

        Returns
        -------
        EncoderOutput
            `embedding` ``(n_clips, n_components)``, as the authors' network gives it,
            not of length one; `logits` ``(n_clips, n_classes)``, unless there are no
            classes; and `frames` ``(n_clips, n_steps, n_components)``, whose mean is
            the embedding.

        Raises
        ------
        ValueError
            If `waveform` has another shape, or no samples.
        """
        features, gate = self._encode(waveform)
        frames = (features.mean(dim=2) * gate.flatten(2)).mT
        embedding = frames.mean(dim=1)
        if self.n_classes is not None:
            return EncoderOutput(embedding, self.fc(embedding), frames=frames)
        if hasattr(self, "projection"):
            # A projection's mean is the mean's projection.
            embedding, frames = self.projection(embedding), self.projection(frames)
        return EncoderOutput(embedding, frames=frames)

    def forward_features(self, waveform):
        """Compute the last map, before a projection.

        Parameters
        ----------
        waveform : Tensor of shape (n_clips, n_samples)
            As for :meth:`forward`.

        Returns
        -------
        Tensor of shape (n_clips, n_channels, n_rows, n_steps)
            The map, of 2048 channels and 11 rows in the published networks, lowest
            frequencies first. Of :meth:`make_image`'s frames 32 are a column, where a
            part of them counts as a whole: 5 s give 13 columns.

        Raises
        ------
        ValueError
            As :meth:`forward`.
        """
        features, gate = self._encode(waveform)
        return features * gate

    def _encode(self, waveform):
        """Return the last map, and what its channels are multiplied by."""
        image = self.make_image(waveform)
        stages = (
            (self.layer1, self.att1),
            (self.layer2, self.att2),
            (self.layer3, self.att3),
            (self.layer4, self.att4),
        )
        features = self.stem(image.to(self.stem.conv1.weight.dtype))
        for layer, attention in stages:
            before, features = features, layer(features)
            size = features.shape[-2:]
            if before.shape[-2:] != size:
                before = nn.functional.adaptive_max_pool2d(before, size)
            features = features * attention(before)
        return features, self.att5(features.amax(dim=(2, 3), keepdim=True))

    def make_image(self, waveform):
        """Return what the network sees of clips.

        Parameters
        ----------
        waveform : Tensor of shape (n_clips, n_samples)
            As for :meth:`forward`.

        Returns
        -------
        Tensor of shape (n_clips, 3, n_filters, n_frames)
            Power in dB, of the lower, middle and upper third of the filters.

        Raises
        ------
        ValueError
            If `waveform` has another shape, or no samples.
        """
        if waveform.ndim != 2 or waveform.shape[1] == 0:
            raise ValueError(
                f"waveform has shape {tuple(waveform.shape)}, but ESResNeXtFbsp takes "
                "(n_clips, n_samples), with a sample or more"
            )
        with _single_precision(waveform.device.type):
            power = self.fbsp(waveform)
            decibels = 10 * torch.where(power > 0, power, _SILENCE).log10()
        return decibels.unflatten(2, (_N_BANDS, -1)).permute(0, 2, 3, 1)

    @staticmethod
    def convert_checkpoint(state):
        """Rename the authors' weights; of a whole AudioCLIP, those of its audio part.

        Parameters
        ----------
        state : dict of str to Tensor
            Weights by the authors' names, or by this module's.

        Returns
        -------
        dict of str to Tensor
            Weights by this module's names.
        """
        parts = split_audioclip(state)
        converted = {}
        for name, tensor in (parts["audio"] | parts["other"]).items():
            if name == "window" or (name == "fbsp.bias" and tensor.numel() == 0):
                continue
            # In the joint model the last layer leads to no classes.
            if parts["audio"]:
                name = re.sub(r"^fc\.", "projection.", name)
            name = re.sub(r"^(conv1|bn1)\.", r"stem.\1.", name)
            name = re.sub(r"^(layer\d\.\d+)\.(conv\d|bn\d)\.", r"\1.body.\2.", name)
            converted[name] = tensor
        return converted

    @classmethod
    def config_of(cls, state):
        """Read a network's sizes off its weights.

        Parameters
        ----------
        state : dict of str to Tensor
            Weights as for :meth:`convert_checkpoint`.

        Returns
        -------
        dict
            The parameters that they fit. `hop_length` is not among them, which no
            weight tells.

        Raises
        ------
        ValueError
            If they are not the weights of an ESResNeXt-fbsp.
        """
        weights = cls.convert_checkpoint(state)

        def shape_of(name, n_axes=None):
            model_name = "an ESResNeXt-fbsp or of a whole AudioCLIP"
            return get_weight(weights, name, model_name, n_axes=n_axes).shape

        n_filters = shape_of("fbsp.m").numel()
        n_out, n_in_of_group = shape_of("layer1.0.body.conv2.weight", 4)[:2]
        config = {
            "n_classes": None,
            "n_fft": 2 * (n_filters - 1),
            "n_channels": shape_of("stem.conv1.weight", 4)[0],
            "depths": tuple(
                len({name.split(".")[1] for name in weights if name.startswith(stage)})
                for stage in ("layer1.", "layer2.", "layer3.", "layer4.")
            ),
            "n_groups": n_out // n_in_of_group,
        }
        if "projection.bias" in weights:
            config["projection_dim"] = shape_of("projection.bias").numel()
        else:
            config["n_classes"] = shape_of("fc.bias").numel()
        for name in ("audio.window", "window"):
            if name in state:
                config["win_length"] = state[name].numel()
        return config

    def _initialize(self):
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(
                    module.weight, mode="fan_out", nonlinearity="relu"
                )


def _single_precision(device_type):
    """Return a context without autocast, for half precision hears 80 dB less."""
    if torch.amp.is_autocast_available(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()


class _FilterBank(nn.Module):
    """The power of frames behind complex frequency B-spline wavelets.

    In single precision the order of the operations shows in the result, as the angles
    are in the thousands; it is the authors', whose networks were trained with it.
    """

    def __init__(self, n_fft, win_length, hop_length):
        super().__init__()
        n_filters = 1 + n_fft // 2
        self.m = nn.Parameter(torch.zeros(n_filters))
        self.fb = nn.Parameter(torch.ones(n_filters))
        self.fc = nn.Parameter(torch.arange(n_filters, dtype=torch.float32))
        self.n_fft = n_fft
        self.win_length = win_length
        self.hop_length = hop_length
        turn = torch.arange(win_length, dtype=torch.float64) * (
            2 * math.pi / win_length
        )
        window = sum(
            weight * (order * turn).cos()
            for order, weight in enumerate(_BLACKMAN_HARRIS)
        )
        self.register_buffer("window", window.float(), persistent=False)

    def forward(self, waveform):
        """Return the power ``(n_clips, n_frames, n_filters)``."""
        filters = self.filters if hasattr(self, "filters") else self.build()
        samples = (waveform.to(filters.dtype) + 32768) * 2 / 65535 - 1
        n_over = max(samples.shape[1] - self.win_length, 0)
        n_frames = 1 + math.ceil(n_over / self.hop_length)
        n_zeros = (n_frames - 1) * self.hop_length + self.win_length - samples.shape[1]
        samples = nn.functional.pad(samples, (n_zeros // 2, n_zeros - n_zeros // 2))
        frames = samples.unfold(1, self.win_length, self.hop_length)
        spectrum = nn.functional.linear(frames, filters)
        real, imaginary = spectrum.chunk(2, dim=2)
        return real.square() + imaginary.square()

    def build(self):
        """Return the windowed filters, real parts and then imaginary ones."""
        # Those that are left over when the rest is divided into bands are not needed.
        n_filters = len(self.m) // _N_BANDS * _N_BANDS
        dtype = torch.promote_types(self.m.dtype, torch.float32)
        order, bandwidth, frequency = (
            parameter[:n_filters, None].to(dtype)
            for parameter in (self.m, self.fb, self.fc)
        )
        # A frame stands in the middle of the filters, and zeros beside it.
        start = (self.n_fft - self.win_length) // 2
        time = torch.linspace(-1, 1, self.n_fft, dtype=dtype, device=order.device)
        time = (math.pi * time + 1e-8)[start : start + self.win_length]

        angle = bandwidth * time / (order + 1e-8)
        spline = torch.where(angle == 0, 1, angle.sin() / angle)
        # A power of a negative number, by an order that is no integer, is complex.
        turned = spline < 0
        turn_real = torch.where(turned, (math.pi * order).cos(), 1)
        turn_imaginary = torch.where(turned, (math.pi * order).sin(), 0)
        envelope = bandwidth.sqrt() * spline.abs().pow(order)
        cosine, sine = (frequency * time).cos(), (frequency * time).sin()
        real = envelope * (turn_real * cosine + turn_imaginary * sine)
        imaginary = envelope * (turn_imaginary * cosine - turn_real * sine)
        scale = self.window.to(dtype) / self.n_fft**0.5
        return torch.cat([real, imaginary]) * scale

    def fold_(self):
        """Keep the filters in place of their parameters, for inference.

        There is no batch norm in them, but this is when a network is made ready.
        """
        if not hasattr(self, "filters"):
            with torch.no_grad():
                self.register_buffer("filters", self.build())
            del self.m, self.fb, self.fc


class _Block(nn.Module):
    """A residual block: down to fewer channels, over them in groups, and up again."""

    def __init__(self, n_in, n_inner, n_out, stride, n_groups):
        super().__init__()
        self.body = nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(n_in, n_inner, 1, bias=False),
                bn1=nn.BatchNorm2d(n_inner),
                relu1=nn.ReLU(inplace=True),
                conv2=nn.Conv2d(
                    n_inner, n_inner, 3, stride, 1, groups=n_groups, bias=False
                ),
                bn2=nn.BatchNorm2d(n_inner),
                relu2=nn.ReLU(inplace=True),
                conv3=nn.Conv2d(n_inner, n_out, 1, bias=False),
                bn3=nn.BatchNorm2d(n_out),
            )
        )
        self.downsample = nn.Identity()
        if stride != 1 or n_in != n_out:
            self.downsample = nn.Sequential(
                nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out)
            )

    def forward(self, image):
        result = self.body(image)
        result += self.downsample(image)
        return result.relu_()


def _make_stage(n_in, n_inner, n_out, depth, stride, n_groups):
    blocks = [_Block(n_in, n_inner, n_out, stride, n_groups)]
    blocks += [_Block(n_out, n_inner, n_out, 1, n_groups) for _ in range(1, depth)]
    return nn.Sequential(*blocks)


def _make_attention(n_in, n_out, kernel):
    """Return what weighs a stage's channels, place by place, by what came in."""
    padding = tuple(size // 2 for size in kernel)
    return nn.Sequential(
        OrderedDict(
            conv_depth=nn.Conv2d(n_in, n_in, kernel, padding=padding, groups=n_in),
            conv_point=nn.Conv2d(n_in, n_out, 1),
            bn=nn.BatchNorm2d(n_out),
            activation=nn.Sigmoid(),
        )
    )
