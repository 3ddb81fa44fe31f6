"""PSLA: EfficientNet with attention over time, for audio tagging."""

import re

import torch
from torch import nn

from ._checks import check_log_mel
from ._efficientnet import EfficientNet, convert_efficientnet, measure_efficientnet
from ._output import EncoderOutput

_N_MELS = 128
_STRIDE = 32
# What the front end makes of a log-mel of zero, with which the authors fill up short
# clips before they subtract the mean and divide by the standard deviation.
_PADDING = 4.6476 / 4.5699
_EPS = 1e-7  # the authors' bound on attention, and in their loss on probabilities
_LEAST_FRAMES = {"symmetric": 1, "tensorflow": 4}
_HEAD_NAME = re.compile(r"attention\.(att|cla)\.(\d+)\.(weight|bias)")
_HEAD_PARTS = {"att": "attention", "cla": "classifier"}


class PSLA(nn.Module):
    """EfficientNet-B2 whose scores are averaged over time by attention.

    The published models have 13.6 million weights and tag AudioSet (mAP 0.444) or
    FSD50K (0.562). Each of four heads scores the classes at every step and says,
    class by class, how much the step counts.

    Parameters
    ----------
    n_classes : int, default=527
        Number of classes: 527 of AudioSet, 200 of FSD50K.
    n_heads : int, default=4
        Number of heads.
    padding : {"symmetric", "tensorflow"}, default="symmetric"
        Where two of the convolutions put their zeros: on both sides, or below and on
        the right. It is a difference between the versions 0.7.0 and 0.7.1 of the
        authors' package for EfficientNet; see Notes.
    width, depth : float, default=1.1 and 1.2
        Factors on the channels and blocks of EfficientNet-B0; the defaults are B2.
    drop_connect : float, default=0.2
        Probability in training that the last block adds nothing to what it reads;
        those of the blocks before rise to it from 0.

    Attributes
    ----------
    n_components : int
        Length of the embedding, 1408 for B2.
    n_classes : int
        Number of classes.
    frame_stride, framewise_stride : int
        Log-mel frames from one step to the next, 32.
    step_offset : int
        Log-mel frame in the middle of the first step: 0, or 3 with the padding
        ``"tensorflow"``, which moves all steps.

    Raises
    ------
    ValueError
        If a parameter is out of its range.

    Notes
    -----
    **Which padding a file needs** can't be told from its weights, and the wrong one
    moves probabilities by up to 0.11. The authors require version 0.7.0, hence the
    default; who trained a model with a version from 0.7.1 on, as pip installs it,
    needs ``"tensorflow"``. When in doubt, tag some clips whose sounds you know with
    both: the right one gives those sounds the higher probabilities.

    The embedding is the mean over time of the maps that the heads read, each averaged
    over frequency. The sigmoid of the logits is the model's probability, which is a
    weighted mean of the heads' and steps' probabilities; logits are limited to 16
    either way. The probabilities over time are what the model would say of a clip
    that is no longer than a step: they leave the attention out, so that steps which it
    ignores, as it does what short clips are filled up with, have probabilities too.

    The published models for AudioSet have 13,640,766 parameters, all of which are here.
    Running statistics of the batch norms follow slowly (momentum 0.01): after a short
    training from scratch, evaluate only once they have been recomputed.

    References
    ----------
    .. [1] Y. Gong, Y.-A. Chung and J. Glass, "PSLA: Improving audio tagging with
       pretraining, sampling, labeling, and aggregation", IEEE/ACM TASLP 29, 2021.

    Examples
    --------
    >>> import torch
    >>> from sklabelaudio.nn import PSLA
    >>> model = PSLA(n_classes=10, width=0.25, depth=0.3).eval()
    >>> with torch.inference_mode():
    ...     output = model(torch.zeros(2, 500, 128))
    >>> output.embedding.shape, output.logits.shape, output.framewise.shape
    (torch.Size([2, 320]), torch.Size([2, 10]), torch.Size([2, 16, 10]))
    """

    frame_stride = framewise_stride = _STRIDE

    def __init__(
        self,
        n_classes=527,
        n_heads=4,
        padding="symmetric",
        width=1.1,
        depth=1.2,
        drop_connect=0.2,
    ):
        for name, value in (("n_classes", n_classes), ("n_heads", n_heads)):
            if value < 1:
                raise ValueError(f"{name}={value} must be at least 1")
        super().__init__()
        self.trunk = EfficientNet(
            width=width, depth=depth, padding=padding, drop_connect=drop_connect
        )
        self.padding = padding
        # By a frame in the first convolution, and two in the next that is padded so.
        self.step_offset = 0 if padding == "symmetric" else 3
        self.n_components = self.trunk.n_components
        self.n_classes = n_classes
        self.attention = nn.Linear(self.n_components, n_heads * n_classes)
        self.classifier = nn.Linear(self.n_components, n_heads * n_classes)
        for layer in (self.attention, self.classifier):
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        self.head_weight = nn.Parameter(torch.full((n_heads,), 1 / n_heads))

    def forward(self, log_mel, *, min_frames=None):
        """Embed and tag clips of one length.

        Parameters
        ----------
        log_mel : Tensor of shape (n_clips, n_frames, 128)
            Normalised log-mel, as the front end ``"psla"`` gives it: 100 frames a
            second.
        min_frames : int, default=None
            Shorter clips are followed by frames whose log-mel is zero before it is
            normalised, up to so many. In training they were, to 1056 of AudioSet and
            3000 of FSD50K. It is no silence, whose log-mel is lower by far.

        Returns
        -------
        EncoderOutput
            `embedding` ``(n_clips, n_components)``, `logits` ``(n_clips, n_classes)``,
            and over time, without what is behind a short clip, the probabilities
            `framewise` ``(n_clips, n_steps, n_classes)`` and the vectors `frames`
            ``(n_clips, n_steps, n_components)``.

        Raises
        ------
        ValueError
            If `log_mel` has not that shape, or is too short.
        """
        maps = self.forward_features(log_mel, min_frames=min_frames)
        n_steps = -(-log_mel.shape[1] // _STRIDE)
        frames = maps.mean(dim=2).mT
        heads = (self.head_weight.numel(), self.n_classes)
        present, attention = (
            _to_single(layer(frames)).sigmoid().unflatten(2, heads)
            for layer in (self.classifier, self.attention)
        )
        attention = attention.clamp(_EPS, 1 - _EPS)
        of_heads = (attention * present).sum(dim=1) / attention.sum(dim=1)
        weight = self.head_weight[:, None]
        return EncoderOutput(
            frames.mean(dim=1),
            (weight * of_heads).sum(dim=1).logit(_EPS),
            (weight * present[:, :n_steps]).sum(dim=2).clamp(0, 1),
            # No view, which would keep the steps behind a short clip in memory.
            frames[:, :n_steps].contiguous(),
        )

    def forward_features(self, log_mel, *, min_frames=None):
        """Compute the last map, of which the embedding is the mean.

        Parameters
        ----------
        log_mel : Tensor of shape (n_clips, n_frames, 128)
            As for :meth:`forward`.
        min_frames : int, default=None
            As for :meth:`forward`.

        Returns
        -------
        Tensor of shape (n_clips, n_components, 4, n_steps)
            The map: rows are of 32 mel bands, lowest first, and columns of 32 frames,
            where a part of them counts as a whole, and what is behind a short clip
            counts too: 1056 frames give 33 columns. With ``padding="tensorflow"`` a
            last part of fewer than 4 frames has no column.

        Raises
        ------
        ValueError
            As :meth:`forward`.
        """
        self._check(log_mel, min_frames)
        if min_frames is not None and log_mel.shape[1] < min_frames:
            n_more = min_frames - log_mel.shape[1]
            log_mel = nn.functional.pad(log_mel, (0, 0, 0, n_more), value=_PADDING)
        return self.trunk(log_mel.transpose(1, 2).unsqueeze(1))

    def _check(self, log_mel, min_frames):
        check_log_mel(self, log_mel, _N_MELS)
        n_frames, needed = log_mel.shape[1], _LEAST_FRAMES[self.padding]
        if max(n_frames, min_frames or 0) < needed:
            raise ValueError(
                f"log_mel has {n_frames} frames, and PSLA with "
                f"padding={self.padding!r} needs {needed}: pass min_frames={needed}, "
                "which fills them up as in training"
            )

    @staticmethod
    def convert_checkpoint(state):
        """Rename the authors' weights, and put those of all heads together.

        Parameters
        ----------
        state : dict of str to Tensor
            Weights by the names in the authors' files.

        Returns
        -------
        dict of str to Tensor
            Weights by this module's names.
        """
        heads, converted = {}, {}
        for name, tensor in convert_efficientnet(state, "effnet.", "trunk.").items():
            if match := _HEAD_NAME.fullmatch(name):
                part = f"{_HEAD_PARTS[match[1]]}.{match[3]}"
                if match[3] == "weight":
                    tensor = tensor.flatten(1)  # from a convolution of one pixel
                heads.setdefault(part, {})[int(match[2])] = tensor
            elif name == "attention.head_weight":
                converted["head_weight"] = tensor
            else:
                converted[name] = tensor
        for part, tensors in heads.items():
            converted[part] = torch.cat([tensors[head] for head in sorted(tensors)])
        return converted

    @classmethod
    def config_of(cls, state):
        """Read a model's sizes off its weights.

        Parameters
        ----------
        state : dict of str to Tensor
            Weights by the authors' names or this module's.

        Returns
        -------
        dict
            Parameters that give a model of these sizes. The padding is not among them:
            weights don't tell it.

        Raises
        ------
        ValueError
            If they are not the weights of a PSLA.

        Examples
        --------
        >>> from sklabelaudio.nn import PSLA
        >>> PSLA.config_of(PSLA(n_classes=5, width=0.25, depth=0.3).state_dict())
        {'n_classes': 5, 'n_heads': 4, 'width': 0.25, 'depth': 0.3}
        """
        state = cls.convert_checkpoint(state)
        weight, bias = state.get("head_weight"), state.get("classifier.bias")
        if weight is None or bias is None or not weight.numel():
            raise ValueError(
                "these are not the weights of a PSLA with several heads: there is no "
                "'attention.head_weight' or 'attention.cla.0.bias'"
            )
        n_heads = weight.numel()
        return {
            "n_classes": bias.numel() // n_heads,
            "n_heads": n_heads,
            **measure_efficientnet(state, "trunk."),
        }


def _to_single(scores):
    """Return half precision as single, for that of 1 - 1e-7 is 1."""
    return scores.to(torch.promote_types(scores.dtype, torch.float32))
