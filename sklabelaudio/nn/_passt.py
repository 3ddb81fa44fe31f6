"""PaSST: a vision transformer that leaves out patches in training."""

import torch
from torch import nn

from ._checks import check_log_mel, get_weight
from ._vit import (
    N_MELS,
    PATCH,
    STRIDES,
    PatchTransformer,
    convert_names,
    count_patches,
    draw_embeddings,
    measure,
)

_EMBEDDINGS = "encoder.embeddings."


class PaSST(PatchTransformer):
    """Patchout transformer, a tagger of AudioSet's classes.

    The transformer of :class:`AST`, with positions over frequency and over time that
    are learnt apart, so that clips may be short, and with patches left out in training,
    which makes it cheaper and better. The defaults are the published PaSST-S, without
    patchout. The transformer itself is that of the transformers library.

    Parameters
    ----------
    n_classes : int, default=527
        Number of classes.
    n_frames : int, default=1000
        Frames of the longest clips; 1000 are 10 s.
    frequency_stride, time_stride : int, default=10
        Mel bands and frames from one patch to the next.
    patchout_frequency, patchout_time : int, default=0
        Rows and columns of patches that are left out, in training. The authors' model
        was trained with 4 and 40.
    patchout : int, default=0
        Patches that are left out anywhere of those that remain, in training.
    embed_dim : int, default=768
        Width of the layers.
    depth : int, default=12
        Number of layers.
    num_heads : int, default=12
        Number of attention heads in every layer.

    Attributes
    ----------
    n_components : int
        Length of the embedding, 768 by default.
    n_classes : int
        Number of classes.
    max_frames : int
        The most frames that a clip may have: `n_frames`, and a few more that make no
        further patch.

    Raises
    ------
    ImportError
        If transformers is not installed.
    ValueError
        If `n_frames` or a stride leaves no patch, no patches would be left in training,
        or `num_heads` does not divide `embed_dim`.

    Notes
    -----
    In training what is left out is drawn from torch's global generator, anew for each
    batch and alike for all of its clips, and a clip that is shorter than the table of
    positions over time is put anywhere on it; in evaluation it is put at its start.
    Up to 9 frames behind the last whole patch are not read.

    The published 86,153,758 parameters include a classifier that is never used
    (405,263) and is left out here: the model has 85,748,495.

    The same weights serve a log-mel of 320 samples from one frame to the next; files
    with ``stfthop`` in their name were trained on another, and give nonsense with
    this one.

    Building a model leaves torch's global generator as it was.

    References
    ----------
    K. Koutini, J. Schlüter, H. Eghbal-zadeh and G. Widmer, "Efficient training of audio
    transformers with patchout", Interspeech 2022.

    Examples
    --------
    >>> import torch
    >>> from sklabelaudio.nn import PaSST
    >>> model = PaSST(3, embed_dim=16, depth=2, num_heads=2).eval()
    >>> with torch.inference_mode():
    ...     output = model(torch.zeros(2, 500, 128))
    >>> output.embedding.shape, output.logits.shape
    (torch.Size([2, 16]), torch.Size([2, 3]))
    """

    def __init__(
        self,
        n_classes=527,
        n_frames=1000,
        frequency_stride=10,
        time_stride=10,
        patchout_frequency=0,
        patchout_time=0,
        patchout=0,
        *,
        embed_dim=768,
        depth=12,
        num_heads=12,
    ):
        with torch.random.fork_rng(devices=[]):
            super().__init__(
                n_classes,
                n_frames=n_frames,
                frequency_stride=frequency_stride,
                time_stride=time_stride,
                embed_dim=embed_dim,
                depth=depth,
                num_heads=num_heads,
            )
            self.encoder.embeddings = _Embeddings(
                self.encoder.embeddings,
                count_patches(N_MELS, frequency_stride),
                count_patches(n_frames, time_stride),
                patchout_frequency,
                patchout_time,
                patchout,
            )
        # One frame before a further patch would fit.
        self.max_frames = n_frames + time_stride - 1 - (n_frames - PATCH) % time_stride

    def forward(self, log_mel):
        """Embed and tag clips.

        Parameters
        ----------
        log_mel : Tensor of shape (n_clips, n_frames, 128)
            Normalised log-mel, as the front end ``"passt"`` gives it: 100 frames a
            second, from 16 up to `max_frames`.

        Returns
        -------
        EncoderOutput
            `embedding` ``(n_clips, n_components)`` and `logits`
            ``(n_clips, n_classes)``.

        Raises
        ------
        ValueError
            If `log_mel` has another shape, too few or too many frames, or, in training,
            so few that none would be left.
        """
        return self._classify(self._embed(log_mel))

    def forward_features(self, log_mel):
        """Compute what becomes of the patches, which :meth:`forward` does not read.

        Parameters
        ----------
        log_mel : Tensor of shape (n_clips, n_frames, 128)
            As for :meth:`forward`.

        Returns
        -------
        Tensor of shape (n_clips, n_components, n_rows, n_columns)
            The map of the patches: row ``i`` is of the 16 mel bands from
            ``i * frequency_stride`` on, and column ``j`` of the 16 frames from
            ``j * time_stride`` on. With the strides of the published model there are 12
            rows, and ``(n_frames - 16) // 10 + 1`` columns: 99 of 1000 frames.

        Raises
        ------
        ValueError
            As :meth:`forward`; and in training, if patches are to be left out, which
            would leave holes in the map.
        """
        if self.training and self.encoder.embeddings.leaves_out:
            raise ValueError(
                "patches are left out in training, so that they make no whole map: "
                "build PaSST with patchout_frequency=0, patchout_time=0 and patchout=0"
            )
        return self._make_map(self._embed(log_mel))

    def _embed(self, log_mel):
        check_log_mel(self, log_mel, N_MELS, shortest=PATCH, longest=self.max_frames)
        return self.encoder.embeddings(log_mel)

    @staticmethod
    def convert_checkpoint(state):
        """Rename the authors' weights.

        Parameters
        ----------
        state : dict of str to Tensor
            Weights by the names in the authors' files.

        Returns
        -------
        dict of str to Tensor
            Weights by this module's names, without those that are not used.
        """
        return convert_names(
            {
                name: tensor
                for name, tensor in state.items()
                if not name.startswith("head_dist.")
            }
        )

    @classmethod
    def config_of(cls, state):
        """Read a model's sizes off its weights.

        Parameters
        ----------
        state : dict of str to Tensor
            Weights as for :meth:`convert_checkpoint`.

        Returns
        -------
        dict
            Parameters of the model that they fit, but for the patchout, of which
            weights tell nothing.

        Raises
        ------
        ValueError
            If they are not the weights of a PaSST, or have a number of rows of patches
            that none of the published strides (10, 12, 14 or 16 over both axes) gives.

        Notes
        -----
        The number of frames is the greatest with as many columns of patches. Heads are
        taken to have 64 values each.
        """
        state = cls.convert_checkpoint(state)
        sizes = measure(state, "a PaSST")
        n_rows, n_columns = (
            get_weight(
                state, f"{_EMBEDDINGS}{name}_new_pos_embed", "a PaSST", n_axes=4
            ).shape[axis]
            for name, axis in (("freq", 2), ("time", 3))
        )
        for stride in STRIDES:
            if count_patches(N_MELS, stride) == n_rows:
                return {
                    **sizes,
                    "n_frames": PATCH + n_columns * stride - 1,
                    "frequency_stride": stride,
                    "time_stride": stride,
                }
        raise ValueError(
            f"no PaSST with a stride of {STRIDES} over both axes has {n_rows} rows of "
            "patches"
        )


class _Embeddings(nn.Module):
    """The log-mel as a sequence of tokens that know where they are.

    It takes the place of the embeddings of transformers, with those of the names of its
    parameters that the authors' model does not have others for.
    """

    def __init__(
        self,
        embeddings,
        n_rows,
        n_columns,
        patchout_frequency,
        patchout_time,
        patchout,
    ):
        super().__init__()
        for name, n_dropped, n_there in (
            ("patchout_frequency", patchout_frequency, n_rows),
            ("patchout_time", patchout_time, n_columns),
        ):
            if not 0 <= n_dropped < n_there:
                raise ValueError(
                    f"{name}={n_dropped} must lie between 0 and {n_there - 1}, for "
                    f"there are {n_there} and one at least is to be left"
                )
        n_left = (n_rows - patchout_frequency) * (n_columns - patchout_time)
        if not 0 <= patchout < n_left:
            raise ValueError(
                f"patchout={patchout} must lie between 0 and {n_left - 1}, for there "
                f"are {n_left} patches and one at least is to be left"
            )
        self.patch_embeddings = embeddings.patch_embeddings
        self.cls_token = embeddings.cls_token
        self.distillation_token = embeddings.distillation_token
        width = self.cls_token.shape[-1]
        self.new_pos_embed = nn.Parameter(torch.empty(1, 2, width))
        self.freq_new_pos_embed = nn.Parameter(torch.empty(1, width, n_rows, 1))
        self.time_new_pos_embed = nn.Parameter(torch.empty(1, width, 1, n_columns))
        self._patchout_frequency = patchout_frequency
        self._patchout_time = patchout_time
        self._patchout = patchout
        draw_embeddings(
            self.cls_token,
            self.distillation_token,
            self.new_pos_embed,
            self.freq_new_pos_embed,
            self.time_new_pos_embed,
        )

    @property
    def leaves_out(self):
        """Whether patches are left out in training."""
        return bool(self._patchout_frequency or self._patchout_time or self._patchout)

    def forward(self, log_mel):
        """Return ``(n_clips, n_tokens, embed_dim)``."""
        image = log_mel.transpose(1, 2).unsqueeze(1)
        grid = self.patch_embeddings.projection(image)
        n_columns = grid.shape[3]
        n_free = self.time_new_pos_embed.shape[3] - n_columns
        start = torch.randint(n_free + 1, ()).item() if self.training else 0
        grid = grid + self.time_new_pos_embed.narrow(3, start, n_columns)
        grid = grid + self.freq_new_pos_embed
        if self.training:
            grid = _drop(grid, 3, self._patchout_time, "patchout_time")
            grid = _drop(grid, 2, self._patchout_frequency, "patchout_frequency")
        patches = grid.flatten(2).transpose(1, 2)
        if self.training:
            patches = _drop(patches, 1, self._patchout, "patchout")
        special = torch.cat([self.cls_token, self.distillation_token], dim=1)
        special = (special + self.new_pos_embed).expand(len(patches), -1, -1)
        return torch.cat([special, patches], dim=1)


def _drop(tokens, axis, n_dropped, name):
    """Leave out so many along an axis, and keep the order of the others."""
    if not n_dropped:
        return tokens
    n_there = tokens.shape[axis]
    if n_dropped >= n_there:
        raise ValueError(
            f"log_mel gives {n_there} patches along an axis and {name}={n_dropped} "
            "would leave none: lower it, or train with longer clips"
        )
    kept = torch.randperm(n_there)[n_dropped:].sort().values
    return tokens.index_select(axis, kept.to(tokens.device))
