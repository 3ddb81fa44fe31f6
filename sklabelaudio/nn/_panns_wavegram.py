"""PANNs' network over the log-mel and a learned picture of the waveform."""

import math
from collections import OrderedDict
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ._panns_common import PANN, ConvBlock

_SAMPLING_RATE = 32000
_N_FFT = 1024
_HOP = 320
_FMIN, _FMAX = 50.0, 14000.0
_LEAST_POWER = 1e-10
# Slaney's mel scale: linear up to 1 kHz, 15 mel, then 27 mel for a factor of 6.4.
_KNEE_HZ, _KNEE_MEL = 1000.0, 15.0
_MEL_PER_LOG = 27 / math.log(6.4)
_STRIDE = 5  # of the first convolution over the waveform
_POOLING = 4  # of the three blocks over the waveform, so that 320 samples are a step
_N_BLOCKS, _N_WAVE_BLOCKS = 6, 3


class WavegramLogmelCnn14(PANN):
    """PANNs' tagger that hears the waveform itself beside its log-mel.

    Convolutions over the waveform make a map of as many steps and half as many bands
    as the log-mel has, the wavegram. From the second block on it is Cnn14.

    Parameters
    ----------
    n_classes : int, default=527
        Number of classes.
    n_mels : int, default=64
        Number of mel bands, at least 32.
    channels : sequence of 6 int, default=(64, 128, 256, 512, 1024, 2048)
        Channels of the blocks; so many as the first has, the wavegram has too.
    wave_channels : sequence of 3 int, default=(64, 128, 128)
        Channels of the blocks over the waveform. The last are shared out to half as
        many bands as `n_mels`, so they must be a multiple of that.
    dropout, head_dropout : float, default=0.2 and 0.5
        Probabilities of dropout behind every block and before the head, in training.

    Attributes
    ----------
    n_components : int
        Length of the embedding, that of the last of `channels`.
    n_classes : int
        Number of classes.
    frame_stride : int
        Log-mel frames, of 320 samples, from one of the vectors over time to the next,
        32.
    min_samples : int
        Length of the shortest clip, 10236 samples.

    Raises
    ------
    ValueError
        If `channels` or `wave_channels` are not so many, the latter can't be shared
        out, or `n_mels` are too few.

    Notes
    -----
    It has 81,065,487 parameters, as published. The authors' files hold 1,083,456 more
    values, constants of the log-mel, which are computed here.

    The wavegram and the log-mel may differ by one step in length; the longer is cut
    where the authors' model stops with an error.

    References
    ----------
    .. [1] Q. Kong, Y. Cao, T. Iqbal, Y. Wang, W. Wang and M. D. Plumbley, "PANNs:
       Large-scale pretrained audio neural networks for audio pattern recognition",
       IEEE/ACM TASLP 28, 2020.

    Examples
    --------
    >>> import torch
    >>> from sklabelaudio.nn import WavegramLogmelCnn14
    >>> sizes = {"channels": (4, 8, 8, 16, 16, 32), "wave_channels": (4, 8, 32)}
    >>> model = WavegramLogmelCnn14(10, **sizes).eval()
    >>> with torch.inference_mode():
    ...     output = model(torch.zeros(2, 32000))
    >>> output.embedding.shape, output.logits.shape, output.frames.shape
    (torch.Size([2, 32]), torch.Size([2, 10]), torch.Size([2, 3, 32]))
    """

    frame_stride = 32
    # One step takes 32 times 64 of the first convolution's, which are 5 samples apart.
    min_samples = (frame_stride * _POOLING**3 - 1) * _STRIDE + 1

    def __init__(
        self,
        n_classes=527,
        *,
        n_mels=64,
        channels=(64, 128, 256, 512, 1024, 2048),
        wave_channels=(64, 128, 128),
        dropout=0.2,
        head_dropout=0.5,
    ):
        if len(channels) != _N_BLOCKS or len(wave_channels) != _N_WAVE_BLOCKS:
            raise ValueError(
                f"channels={channels!r} and wave_channels={wave_channels!r}: pass "
                f"{_N_BLOCKS} and {_N_WAVE_BLOCKS}, one for every block"
            )
        super().__init__(n_classes, n_mels, channels[-1], head_dropout)
        self.n_bands = n_mels // 2
        if wave_channels[-1] % self.n_bands:
            raise ValueError(
                f"wave_channels={wave_channels!r}: the last must be a multiple of "
                f"{self.n_bands}, half of n_mels={n_mels}"
            )
        n_in = wave_channels[0]
        self.pre_conv0 = nn.Conv1d(
            1, n_in, 11, stride=_STRIDE, padding=_STRIDE, bias=False
        )
        self.pre_bn0 = nn.BatchNorm1d(n_in)
        for i, n_out in enumerate(wave_channels, start=1):
            self.add_module(f"pre_block{i}", _WaveBlock(n_in, n_out))
            n_in = n_out
        self.pre_block4 = ConvBlock(n_in // self.n_bands, channels[0])
        self.conv_block1 = ConvBlock(1, channels[0])
        n_in = 2 * channels[0]
        for i, n_out in enumerate(channels[1:], start=2):
            self.add_module(f"conv_block{i}", ConvBlock(n_in, n_out))
            n_in = n_out
        self.dropout = nn.Dropout(dropout)
        self._initialize()
        window = torch.hann_window(_N_FFT, dtype=torch.float32)
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("mel_bank", _make_mel_bank(n_mels), persistent=False)

    def forward(self, waveform):
        """Embed and tag clips of one length.

        Parameters
        ----------
        waveform : Tensor of shape (n_clips, n_samples)
            Waveforms at 32 kHz, from -1 to 1.

        Returns
        -------
        EncoderOutput
            `embedding` ``(n_clips, n_components)``, `logits` ``(n_clips,
            n_classes)``, and `frames` ``(n_clips, n_steps, n_components)``, the last
            map's mean over the bands. What is left of the waveform behind the last
            full step is not heard.

        Raises
        ------
        ValueError
            If `waveform` has another shape, or is too short for one step.
        """
        return self._head(self.forward_features(waveform).mean(dim=2))

    def forward_features(self, waveform):
        """Compute the last map, of which `frames` are the mean over the bands.

        Parameters
        ----------
        waveform : Tensor of shape (n_clips, n_samples)
            As for :meth:`forward`.

        Returns
        -------
        Tensor of shape (n_clips, n_components, n_mels // 32, n_steps)
            The map: rows are of 32 mel bands, lowest first, and columns of 32 frames
            of 320 samples. What is left behind the last whole ones is not heard: 10 s
            give 31 columns.

        Raises
        ------
        ValueError
            As :meth:`forward`.
        """
        name = type(self).__name__
        if waveform.ndim != 2:
            raise ValueError(
                f"waveform has the shape {tuple(waveform.shape)}; {name} takes "
                "(n_clips, n_samples)"
            )
        if waveform.shape[1] < self.min_samples:
            raise ValueError(
                f"waveform has {waveform.shape[1]} samples; {name} takes "
                f"{self.min_samples} or more: follow a shorter clip by silence"
            )
        return self._make_map(waveform).mT

    def _make_map(self, waveform):
        image = self._normalize(self._make_log_mel(waveform))
        image = F.avg_pool2d(self.conv_block1(image), 2)
        wavegram = self._make_wavegram(waveform)
        n_steps = min(image.shape[2], wavegram.shape[2])
        image = torch.cat([image[:, :, :n_steps], wavegram[:, :, :n_steps]], dim=1)
        image = self.dropout(image)
        for i in range(2, _N_BLOCKS + 1):
            image = self.get_submodule(f"conv_block{i}")(image)
            if i < _N_BLOCKS:
                image = F.avg_pool2d(image, 2)
            image = self.dropout(image)
        return image

    def _make_wavegram(self, waveform):
        """Return a map of half as many bands as the log-mel and half the steps."""
        wave = self.pre_bn0(self.pre_conv0(waveform.unsqueeze(1))).relu_()
        for block in (self.pre_block1, self.pre_block2, self.pre_block3):
            wave = block(wave)
        image = wave.unflatten(1, (-1, self.n_bands)).transpose(2, 3)
        return F.avg_pool2d(self.pre_block4(image), (2, 1))

    def _make_log_mel(self, waveform):
        # Half precision, which a GPU may be told to use, ends below the power of a
        # full-scale tone.
        device = waveform.device.type
        with (
            torch.autocast(device, enabled=False)
            if torch.amp.is_autocast_available(device)
            else nullcontext()
        ):
            spectrum = torch.stft(
                waveform.to(self.window.dtype),
                _N_FFT,
                _HOP,
                window=self.window,
                pad_mode="reflect",
                return_complex=True,
            )
            power = spectrum.real.square() + spectrum.imag.square()
            mel = self.mel_bank @ power
            return 10 * mel.clamp(min=_LEAST_POWER).log10().mT

    def fold_(self):
        """Fold the batch norm that is in no sequence, in place."""
        if isinstance(self.pre_bn0, nn.BatchNorm1d):
            self.pre_conv0 = fuse_conv_bn_eval(self.pre_conv0, self.pre_bn0)
            self.pre_bn0 = nn.Identity().eval()

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
            ``n_classes``, ``n_mels``, ``channels`` and ``wave_channels`` of the model
            that they fit.

        Raises
        ------
        ValueError
            If they are the weights of some other model.
        """
        n_in, *_ = cls._shape_of(state, "pre_conv0.weight", None, 1, 11)
        wave_channels, channels = [], []
        for i in range(1, _N_WAVE_BLOCKS + 1):
            name = f"pre_block{i}.conv1.weight"
            n_in, *_ = cls._shape_of(state, name, None, n_in, 3)
            wave_channels.append(n_in)
        n_in = 1
        for i in range(1, _N_BLOCKS + 1):
            name = f"conv_block{i}.conv1.weight"
            n_out, *_ = cls._shape_of(state, name, None, n_in, 3, 3)
            n_in = 2 * n_out if i == 1 else n_out
            channels.append(n_out)
        return {
            **cls._head_of(state, channels[-1]),
            "channels": tuple(channels),
            "wave_channels": tuple(wave_channels),
        }


class _WaveBlock(nn.Sequential):
    """Two convolutions over time and a pooling, by the authors' names."""

    def __init__(self, n_in, n_out):
        super().__init__(
            OrderedDict(
                conv1=nn.Conv1d(n_in, n_out, 3, padding=1, bias=False),
                bn1=nn.BatchNorm1d(n_out),
                relu1=nn.ReLU(inplace=True),
                conv2=nn.Conv1d(n_out, n_out, 3, padding=2, dilation=2, bias=False),
                bn2=nn.BatchNorm1d(n_out),
                # The maximum first, which leaves a quarter to do for the ReLU.
                pool=nn.MaxPool1d(_POOLING),
                relu2=nn.ReLU(inplace=True),
            )
        )


def _make_mel_bank(n_mels):
    """Return triangles of equal area over Slaney's mel scale, ``(n_mels, n_bins)``."""
    low, high = (
        min(frequency, _KNEE_HZ) / _KNEE_HZ * _KNEE_MEL
        + max(math.log(frequency / _KNEE_HZ), 0) * _MEL_PER_LOG
        for frequency in (_FMIN, _FMAX)
    )
    mels = torch.linspace(low, high, n_mels + 2, dtype=torch.float64).unsqueeze(1)
    corners = (
        mels.clamp(max=_KNEE_MEL)
        / _KNEE_MEL
        * _KNEE_HZ
        * ((mels - _KNEE_MEL).clamp(min=0) / _MEL_PER_LOG).exp()
    )
    low, middle, high = corners[:-2], corners[1:-1], corners[2:]
    n_bins = 1 + _N_FFT // 2
    bins = torch.linspace(0, _SAMPLING_RATE / 2, n_bins, dtype=torch.float64)
    rising = (bins - low) / (middle - low)
    falling = (high - bins) / (high - middle)
    triangles = torch.minimum(rising, falling).clamp(min=0)
    return (triangles * 2 / (high - low)).float()
