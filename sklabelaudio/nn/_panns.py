"""PANNs' plain networks: 6, 10 and 14 layers of convolutions over the log-mel."""

import torch
import torch.nn.functional as F
from torch import nn

from ._checks import scale_channels
from ._output import EncoderOutput
from ._panns_common import PANN, ConvBlock


class _Cnn(PANN):
    """Blocks of convolutions behind each other, ``conv_block1`` and so on."""

    _kernel = 3
    _n_convs = 2
    _n_blocks = 4
    _n_poolings = 4

    def __init__(self, n_classes, n_mels, channels, width, dropout, head_dropout):
        if len(channels) != self._n_blocks:
            raise ValueError(
                f"channels={channels!r}: {type(self).__name__} has {self._n_blocks} "
                "blocks; pass the channels of each"
            )
        channels = scale_channels(channels, width)
        super().__init__(n_classes, n_mels, channels[-1], head_dropout)
        n_in = 1
        for i, n_out in enumerate(channels, start=1):
            block = ConvBlock(n_in, n_out, kernel=self._kernel, n_convs=self._n_convs)
            self.add_module(f"conv_block{i}", block)
            n_in = n_out
        self.dropout = nn.Dropout(dropout)
        self._initialize()

    def _make_map(self, image):
        for i in range(1, self._n_blocks + 1):
            image = self.get_submodule(f"conv_block{i}")(image)
            if i <= self._n_poolings:
                image = F.avg_pool2d(image, 2)
            image = self.dropout(image)
        return image

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
            ``n_classes``, ``n_mels`` and ``channels`` of the model that they fit.

        Raises
        ------
        ValueError
            If they are the weights of some other model.
        """
        channels = []
        n_in, kernel = 1, (cls._kernel, cls._kernel)
        for i in range(1, cls._n_blocks + 1):
            for j in range(1, cls._n_convs + 1):
                name = f"conv_block{i}.conv{j}.weight"
                n_in, *_ = cls._shape_of(state, name, None, n_in, *kernel)
            channels.append(n_in)
        return {**cls._head_of(state, n_in), "channels": tuple(channels)}


class Cnn6(_Cnn):
    """PANNs' smallest tagger: four convolutions of 5 by 5.

    Parameters
    ----------
    n_classes : int, default=527
        Number of classes.
    n_mels : int, default=64
        Number of mel bands, at least 16.
    channels : sequence of 4 int, default=(64, 128, 256, 512)
        Channels of the convolutions.
    width : float, default=1.0
        What the channels are multiplied by, such as 0.5 for a network of about a
        quarter of the parameters.
    dropout, head_dropout : float, default=0.2 and 0.5
        Probabilities of dropout behind every block and before the head, in training.

    Attributes
    ----------
    n_components : int
        Length of the embedding, that of the last of `channels`.
    n_classes : int
        Number of classes.
    frame_stride : int
        Log-mel frames from one of the vectors over time to the next, 16.

    Raises
    ------
    ValueError
        If `channels` are not four, `width` leaves none, or `n_mels` are too few.

    See Also
    --------
    Cnn14 : The largest.

    Notes
    -----
    It has 4,837,455 parameters, as published. The authors' files hold 1,083,456 more
    values that are constants of the front end, which is no part of the model here.

    References
    ----------
    .. [1] Q. Kong, Y. Cao, T. Iqbal, Y. Wang, W. Wang and M. D. Plumbley, "PANNs:
       Large-scale pretrained audio neural networks for audio pattern recognition",
       IEEE/ACM TASLP 28, 2020.

    Examples
    --------
    >>> import torch
    >>> from sklabelaudio.nn import Cnn6
    >>> model = Cnn6().eval()
    >>> with torch.inference_mode():
    ...     output = model(torch.zeros(2, 101, 64))
    >>> output.embedding.shape, output.logits.shape, output.frames.shape
    (torch.Size([2, 512]), torch.Size([2, 527]), torch.Size([2, 6, 512]))
    """

    frame_stride = 16
    _kernel = 5
    _n_convs = 1

    def __init__(
        self,
        n_classes=527,
        *,
        n_mels=64,
        channels=(64, 128, 256, 512),
        width=1.0,
        dropout=0.2,
        head_dropout=0.5,
    ):
        super().__init__(n_classes, n_mels, channels, width, dropout, head_dropout)


class Cnn10(_Cnn):
    """PANNs' tagger of eight convolutions, in four blocks of two.

    Parameters
    ----------
    n_classes : int, default=527
        Number of classes.
    n_mels : int, default=64
        Number of mel bands, at least 16.
    channels : sequence of 4 int, default=(64, 128, 256, 512)
        Channels of the blocks.
    width : float, default=1.0
        What the channels are multiplied by, such as 0.5 for a network of about a
        quarter of the parameters.
    dropout, head_dropout : float, default=0.2 and 0.5
        Probabilities of dropout behind every block and before the head, in training.

    Attributes
    ----------
    n_components : int
        Length of the embedding, that of the last of `channels`.
    n_classes : int
        Number of classes.
    frame_stride : int
        Log-mel frames from one of the vectors over time to the next, 16.

    Raises
    ------
    ValueError
        If `channels` are not four, `width` leaves none, or `n_mels` are too few.

    See Also
    --------
    Cnn14 : The largest.

    Notes
    -----
    It has 5,219,279 parameters, as published. The authors' files hold 1,083,456 more
    values that are constants of the front end, which is no part of the model here.

    References
    ----------
    .. [1] Q. Kong, Y. Cao, T. Iqbal, Y. Wang, W. Wang and M. D. Plumbley, "PANNs:
       Large-scale pretrained audio neural networks for audio pattern recognition",
       IEEE/ACM TASLP 28, 2020.

    Examples
    --------
    >>> import torch
    >>> from sklabelaudio.nn import Cnn10
    >>> model = Cnn10(n_classes=10).eval()
    >>> with torch.inference_mode():
    ...     output = model(torch.zeros(2, 101, 64))
    >>> output.embedding.shape, output.logits.shape, output.frames.shape
    (torch.Size([2, 512]), torch.Size([2, 10]), torch.Size([2, 6, 512]))
    """

    frame_stride = 16

    def __init__(
        self,
        n_classes=527,
        *,
        n_mels=64,
        channels=(64, 128, 256, 512),
        width=1.0,
        dropout=0.2,
        head_dropout=0.5,
    ):
        super().__init__(n_classes, n_mels, channels, width, dropout, head_dropout)


class Cnn14(_Cnn):
    """PANNs' tagger of twelve convolutions, in six blocks of two.

    The published models are three, of the same sizes: at 32 kHz, at 16 kHz, and one
    that decides at every step and takes each class's best for the clip.

    Parameters
    ----------
    n_classes : int, default=527
        Number of classes.
    n_mels : int, default=64
        Number of mel bands, at least 32.
    channels : sequence of 6 int, default=(64, 128, 256, 512, 1024, 2048)
        Channels of the blocks.
    width : float, default=1.0
        What the channels are multiplied by, such as 0.5 for a network of about a
        quarter of the parameters.
    decision_level : "max" or None, default=None
        Where the steps of a clip become one: with ``None`` the classifier reads their
        maximum plus their mean; with ``"max"`` it reads every step, and a clip's
        score of a class is that of the step where it is highest. Weights are trained
        for the one or the other, which their names and shapes don't tell.
    dropout, head_dropout : float, default=0.2 and 0.5
        Probabilities of dropout behind every block and before the head, in training.

    Attributes
    ----------
    n_components : int
        Length of the embedding, that of the last of `channels`.
    n_classes : int
        Number of classes.
    frame_stride : int
        Log-mel frames from one of the vectors over time to the next, 32.
    framewise_stride : int or None
        Log-mel frames from one of the probabilities over time to the next: 1, or
        ``None`` where there are none, without `decision_level`.

    Raises
    ------
    ValueError
        If `channels` are not six, `width` leaves none, `n_mels` are too few, or there
        is no such `decision_level`.

    Notes
    -----
    It has 80,753,615 parameters, as published. The authors' files hold 1,083,456 more
    values (at 16 kHz 279,616) that are constants of the front end, which is no part
    of the model here.

    With ``decision_level="max"`` the classifier reads no vector of a whole clip; the
    embedding is the mean of those that it reads, which are `frames`.

    References
    ----------
    .. [1] Q. Kong, Y. Cao, T. Iqbal, Y. Wang, W. Wang and M. D. Plumbley, "PANNs:
       Large-scale pretrained audio neural networks for audio pattern recognition",
       IEEE/ACM TASLP 28, 2020.

    Examples
    --------
    >>> import torch
    >>> from sklabelaudio.nn import Cnn14
    >>> channels = (4, 8, 8, 16, 16, 32)
    >>> model = Cnn14(10, channels=channels, decision_level="max").eval()
    >>> with torch.inference_mode():
    ...     output = model(torch.zeros(2, 101, 64))
    >>> output.embedding.shape, output.logits.shape
    (torch.Size([2, 32]), torch.Size([2, 10]))
    >>> output.framewise.shape
    torch.Size([2, 101, 10])
    """

    frame_stride = 32
    _n_blocks = 6
    _n_poolings = 5

    def __init__(
        self,
        n_classes=527,
        *,
        n_mels=64,
        channels=(64, 128, 256, 512, 1024, 2048),
        width=1.0,
        decision_level=None,
        dropout=0.2,
        head_dropout=0.5,
    ):
        if decision_level not in (None, "max"):
            raise ValueError(
                f"decision_level={decision_level!r} is neither None nor 'max'"
            )
        super().__init__(n_classes, n_mels, channels, width, dropout, head_dropout)
        self.decision_level = decision_level
        if decision_level is not None:
            self.framewise_stride = 1

    def forward(self, log_mel):
        """Embed and tag clips of one length.

        Parameters
        ----------
        log_mel : Tensor of shape (n_clips, n_frames, n_mels)
            In dB, as the model's front end gives it: 100 frames a second.

        Returns
        -------
        EncoderOutput
            `embedding` ``(n_clips, n_components)``, `logits` ``(n_clips,
            n_classes)``, and `frames` ``(n_clips, n_steps, n_components)``. With
            ``decision_level="max"`` also `framewise` ``(n_clips, n_frames,
            n_classes)``, which is the same for the 32 frames of a step; what is left
            of the frames behind the last full step is not heard, and has that step's.

        Raises
        ------
        ValueError
            If `log_mel` has another shape, or frames for less than one step.
        """
        if self.decision_level is None:
            return super().forward(log_mel)
        vectors = self.forward_features(log_mel).mean(dim=2)
        around = {"kernel_size": 3, "stride": 1, "padding": 1}
        smooth = F.max_pool1d(vectors, **around) + F.avg_pool1d(vectors, **around)
        frames = self.fc1(self.head_dropout(smooth.mT)).relu()
        logits = self.fc_audioset(self.head_dropout(frames))
        framewise = logits.sigmoid().repeat_interleave(self.frame_stride, dim=1)
        rest = log_mel.shape[1] - framewise.shape[1]
        last = framewise[:, -1:].expand(-1, rest, -1)
        return EncoderOutput(
            frames.mean(dim=1),
            logits.amax(dim=1),
            torch.cat([framewise, last], dim=1),
            frames,
        )
