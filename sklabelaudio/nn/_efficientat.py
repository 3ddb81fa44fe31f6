"""EfficientAT: MobileNetV3 that was taught AudioSet by a transformer."""

from torch import nn

from ._checks import check_log_mel, get_weight
from ._output import EncoderOutput

_N_MELS = 128
_STEM = 16
_HIDDEN = 1280
# Channels of the blocks at width 1: expanded, out; then kernel, stride, whether there
# is squeeze and excitation, and the activation.
_BLOCKS = [
    (16, 16, 3, 1, False, nn.ReLU),
    (64, 24, 3, 2, False, nn.ReLU),
    (72, 24, 3, 1, False, nn.ReLU),
    (72, 40, 5, 2, True, nn.ReLU),
    (120, 40, 5, 1, True, nn.ReLU),
    (120, 40, 5, 1, True, nn.ReLU),
    (240, 80, 3, 2, False, nn.Hardswish),
    (200, 80, 3, 1, False, nn.Hardswish),
    (184, 80, 3, 1, False, nn.Hardswish),
    (184, 80, 3, 1, False, nn.Hardswish),
    (480, 112, 3, 1, True, nn.Hardswish),
    (672, 112, 3, 1, True, nn.Hardswish),
    (672, 160, 5, 2, True, nn.Hardswish),
    (960, 160, 5, 1, True, nn.Hardswish),
    (960, 160, 5, 1, True, nn.Hardswish),
]


class EfficientAT(nn.Module):
    """MobileNetV3 for audio tagging, of any width.

    The published models mn04 to mn40 (widths 0.4 to 4) were trained on AudioSet with
    an ensemble of transformers as their teacher. mn04 has a million weights and tags
    as well as PANNs' Cnn14, which has eighty.

    Parameters
    ----------
    width : float, default=1.0
        Factor on all channels; 0.4 is mn04, 1 is mn10, 4 is mn40.
    n_classes : int, default=527
        Number of classes.
    dropout : float, default=0.2
        Probability of dropout before the last layer, in training.
    batch_norm_momentum : float, default=0.01
        Share of a batch in the running statistics of the batch norms, which evaluation
        goes by. The default is the authors', who train for hundreds of thousands of
        batches. Take 0.1 to train from scratch for some hundreds.

    Attributes
    ----------
    n_components : int
        Length of the embedding, 960 times the width (rounded).
    n_classes : int
        Number of classes.
    frame_stride : int
        Log-mel frames from one of the vectors over time to the next, 32.
    step_offset : int
        Log-mel frame in the middle of the first of them, 0.

    Raises
    ------
    ValueError
        If `width` is not positive.

    Notes
    -----
    Names and shapes of the weights are those of the authors' files, which load as they
    are. Files whose name has ``hop_`` or ``mels_`` have the same shapes but were
    trained on another log-mel, and give nonsense with this one.

    The pooling is over the whole clip, so zeros behind a clip change its result: batch
    clips of equal length only.

    References
    ----------
    .. [1] F. Schmid, K. Koutini, G. Widmer, "Efficient large-scale audio tagging via
       transformer-to-CNN knowledge distillation", ICASSP 2023.

    Examples
    --------
    >>> import torch
    >>> from sklabelaudio.nn import EfficientAT
    >>> model = EfficientAT(width=0.4).eval()
    >>> with torch.inference_mode():
    ...     output = model(torch.zeros(2, 500, 128))
    >>> output.embedding.shape, output.logits.shape
    (torch.Size([2, 384]), torch.Size([2, 527]))
    """

    frame_stride = 32
    step_offset = 0

    def __init__(self, width=1.0, n_classes=527, dropout=0.2, batch_norm_momentum=0.01):
        if not width > 0:
            raise ValueError(f"width={width} must be positive")
        super().__init__()
        stem, blocks, n_components, hidden = _channels(width)
        layers = [_convolution(1, stem, 3, stride=2, activation=nn.Hardswish)]
        n_in = stem
        for (expanded, n_out), settings in zip(blocks, _BLOCKS, strict=True):
            layers.append(_InvertedResidual(n_in, expanded, n_out, *settings[2:]))
            n_in = n_out
        layers.append(_convolution(n_in, n_components, 1, activation=nn.Hardswish))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(n_components, hidden),
            nn.Hardswish(),
            nn.Dropout(dropout),
            nn.Linear(hidden, n_classes),
        )
        self.n_components = n_components
        self.n_classes = n_classes
        self._initialize(batch_norm_momentum)

    def forward(self, log_mel):
        """Embed and tag clips.

        Parameters
        ----------
        log_mel : Tensor of shape (n_clips, n_frames, 128)
            Normalised log-mel, 100 frames a second.

        Returns
        -------
        EncoderOutput
            `embedding` ``(n_clips, n_components)``, `logits` ``(n_clips,
            n_classes)``, and `frames` ``(n_clips, n_steps, n_components)``, whose
            mean is the embedding.

        Raises
        ------
        ValueError
            If `log_mel` has not that shape.
        """
        features = self.forward_features(log_mel)
        pool, flatten, *head = self.classifier
        embedding = flatten(pool(features))
        logits = embedding
        for layer in head:
            logits = layer(logits)
        return EncoderOutput(embedding, logits, frames=features.mean(dim=2).mT)

    def forward_features(self, log_mel):
        """Compute the last map, of which the embedding is the mean.

        Parameters
        ----------
        log_mel : Tensor of shape (n_clips, n_frames, 128)
            As for :meth:`forward`.

        Returns
        -------
        Tensor of shape (n_clips, n_components, 4, n_steps)
            The map: rows are of 32 mel bands, lowest first, and columns of 32 frames,
            where a part of them counts as a whole: 998 frames give 32 columns.

        Raises
        ------
        ValueError
            If `log_mel` has not that shape.
        """
        check_log_mel(self, log_mel, _N_MELS)
        return self.features(log_mel.transpose(1, 2).unsqueeze(1))

    @staticmethod
    def width_of(state):
        """Tell the width of a model from its weights.

        Parameters
        ----------
        state : dict of str to Tensor
            The weights, by the authors' names.

        Returns
        -------
        float
            The roundest number that gives the layers so many channels.

        Raises
        ------
        ValueError
            If they are not the weights of an EfficientAT.

        Examples
        --------
        >>> from sklabelaudio.nn import EfficientAT
        >>> EfficientAT.width_of(EfficientAT(width=0.4).state_dict())
        0.4
        """

        def shape_of(name, n_axes=4):
            model_name = "an EfficientAT with its fully connected classifier"
            return get_weight(state, name, model_name, n_axes=n_axes).shape

        stem = shape_of("features.0.0.weight")[0]
        blocks = []
        for i in range(1, len(_BLOCKS) + 1):
            # A block ends with the projection of its expanded channels.
            names = [f"features.{i}.block.{j}.0.weight" for j in (3, 2, 1)]
            name = next((name for name in names if name in state), names[0])
            n_out, expanded = shape_of(name)[:2]
            blocks.append((expanded, n_out))
        n_components = shape_of(f"features.{len(_BLOCKS) + 1}.0.weight")[0]
        hidden = shape_of("classifier.2.weight", n_axes=2)[0]
        found = stem, blocks, n_components, hidden
        for n_decimals in range(1, 5):
            unit = 10**n_decimals
            low, high = ((hidden + n) * unit // _HIDDEN for n in (-8, 8))
            for k in range(max(low, 1), high + 1):
                if _channels(k / unit) == found:
                    return k / unit
        raise ValueError(
            f"no width gives an EfficientAT so many channels: {stem} in features.0, "
            f"{blocks[-1][1]} in features.{len(_BLOCKS)}, {n_components} in "
            f"features.{len(_BLOCKS) + 1}, {hidden} in classifier.2"
        )

    def _initialize(self, momentum):
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                # By what comes in: what goes out says nothing of depthwise layers.
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.BatchNorm2d):
                module.momentum = momentum


class _InvertedResidual(nn.Module):
    def __init__(self, n_in, expanded, n_out, kernel, stride, excite, activation):
        super().__init__()
        layers = []
        if expanded != n_in:
            layers.append(_convolution(n_in, expanded, 1, activation=activation))
        layers.append(
            _convolution(
                expanded,
                expanded,
                kernel,
                stride=stride,
                groups=expanded,
                activation=activation,
            )
        )
        if excite:
            layers.append(_Excitation(expanded))
        layers.append(_convolution(expanded, n_out, 1))
        self.block = nn.Sequential(*layers)
        self.is_residual = stride == 1 and n_in == n_out

    def forward(self, image):
        result = self.block(image)
        return image + result if self.is_residual else result


class _Excitation(nn.Module):
    """Squeeze and excitation of the channels.

    The authors tried other axes too and keep a list of them, hence the names.
    """

    def __init__(self, n_channels):
        super().__init__()
        self.conc_se_layers = nn.ModuleList([_Gate(n_channels)])

    def forward(self, image):
        (gate,) = self.conc_se_layers
        return image * gate(image.mean((2, 3)))[:, :, None, None]


class _Gate(nn.Module):
    def __init__(self, n_channels):
        super().__init__()
        n_squeezed = _make_divisible(n_channels // 4)
        self.fc1 = nn.Linear(n_channels, n_squeezed)
        self.fc2 = nn.Linear(n_squeezed, n_channels)

    def forward(self, squeezed):
        return self.fc2(self.fc1(squeezed).relu()).sigmoid()


def _convolution(n_in, n_out, kernel, *, stride=1, groups=1, activation=None):
    layers = [
        nn.Conv2d(n_in, n_out, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(n_out, eps=0.001),
    ]
    if activation is not None:
        layers.append(activation(inplace=True))
    return nn.Sequential(*layers)


def _channels(width):
    """Return channels of the stem, the blocks, the last convolution and the head."""
    blocks = [
        (_make_divisible(width * expanded), _make_divisible(width * n_out))
        for expanded, n_out, *_ in _BLOCKS
    ]
    return (
        _make_divisible(width * _STEM),
        blocks,
        6 * blocks[-1][1],
        _make_divisible(width * _HIDDEN),
    )


def _make_divisible(n_channels):
    """Round to a multiple of 8, but not down by more than a tenth."""
    rounded = max(8, int(n_channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * n_channels else rounded
