"""AST: a vision transformer that reads the log-mel as an image."""

import torch
from torch import nn

from ._checks import check_log_mel, get_weight
from ._vit import (
    N_MELS,
    N_SPECIAL,
    PATCH,
    STRIDES,
    PatchTransformer,
    convert_names,
    count_patches,
    draw_embeddings,
    make_classifier,
    measure,
)

_POSITIONS = "encoder.embeddings.position_embeddings"
# The classifiers of the image model that AST began as, which are never used.
_UNUSED = ("v.head.", "v.head_dist.")


class AST(PatchTransformer):
    """Audio Spectrogram Transformer, a tagger of AudioSet's classes.

    Patches of 16 mel bands by 16 frames, which overlap, are the tokens of a vision
    transformer; the embedding is the mean of its two special tokens. The defaults are
    the published model. The transformer itself is that of the transformers library.

    Parameters
    ----------
    n_classes : int, default=527
        Number of classes.
    n_frames : int, default=1024
        Frames that the model reads; shorter clips are padded to them.
    frequency_stride, time_stride : int, default=10
        Mel bands and frames from one patch to the next.
    embed_dim : int, default=768
        Width of the layers.
    depth : int, default=12
        Number of layers.
    num_heads : int, default=12
        Number of attention heads in every layer.
    mean, std : float, default=-4.2677393 and 4.5689974
        What the front end subtracts from the log-mel, and of what it divides it by
        twice. They decide what clips are padded with.

    Attributes
    ----------
    n_components : int
        Length of the embedding, 768 by default.
    n_classes : int
        Number of classes.
    n_frames : int
        The most frames that a clip may have.

    Raises
    ------
    ImportError
        If transformers is not installed.
    ValueError
        If `n_frames` or a stride leaves no patch, `std` is not positive, or `num_heads`
        does not divide `embed_dim`.

    Notes
    -----
    A clip of fewer than `n_frames` frames is followed by frames whose log-mel is zero
    before it is normalised, and ``-mean / (2 * std)`` after. That is not silence, whose
    log-mel is lower by far, but it is what the published models were trained with:
    the 10 s of AudioSet's clips are 998 frames, and the other 26 are such padding. The
    whole length is computed however short the clip. What is behind the last whole patch
    is not read, which are the last 8 of 1024 frames.

    The published 88,132,063 parameters include two classifiers of ImageNet's classes
    (1,538,000), which are never used and are left out here: the model has 86,594,063.
    The norm before the classifier has the eps 1e-5 and the others 1e-6, as the
    authors' have; the same weights in transformers have 1e-12 in all of them, which
    moves logits by 2e-5.

    The authors' model for Speech Commands was trained with ``mean=-6.845978,
    std=5.5654526``.

    Building a model leaves torch's global generator as it was.

    References
    ----------
    Y. Gong, Y.-A. Chung and J. Glass, "AST: Audio Spectrogram Transformer", Interspeech
    2021.

    Examples
    --------
    >>> import torch
    >>> from sklabelaudio.nn import AST
    >>> model = AST(3, 128, embed_dim=16, depth=2, num_heads=2).eval()
    >>> with torch.inference_mode():
    ...     output = model(torch.zeros(2, 98, 128))
    >>> output.embedding.shape, output.logits.shape
    (torch.Size([2, 16]), torch.Size([2, 3]))
    """

    def __init__(
        self,
        n_classes=527,
        n_frames=1024,
        frequency_stride=10,
        time_stride=10,
        *,
        embed_dim=768,
        depth=12,
        num_heads=12,
        mean=-4.2677393,
        std=4.5689974,
    ):
        if not std > 0:
            raise ValueError(f"std={std} must be positive")
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
            embeddings = self.encoder.embeddings
            draw_embeddings(
                embeddings.cls_token,
                embeddings.distillation_token,
                embeddings.position_embeddings,
            )
        self.n_frames = n_frames
        self._padding = -mean / (2 * std)

    def forward(self, log_mel):
        """Embed and tag clips.

        Parameters
        ----------
        log_mel : Tensor of shape (n_clips, n_frames, 128)
            Normalised log-mel, as the front end ``"ast"`` gives it: 100 frames a
            second, from one up to the model's `n_frames`.

        Returns
        -------
        EncoderOutput
            `embedding` ``(n_clips, n_components)`` and `logits`
            ``(n_clips, n_classes)``.

        Raises
        ------
        ValueError
            If `log_mel` has another shape, no frames or too many.
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
            The map of the patches, 12 by 101 in the published model whatever the clip's
            length: row ``i`` is of the 16 mel bands from ``i * frequency_stride`` on,
            column ``j`` of the 16 frames from ``j * time_stride`` on, and those behind
            the clip's end are of padding.

        Raises
        ------
        ValueError
            As :meth:`forward`.
        """
        return self._make_map(self._embed(log_mel))

    def _embed(self, log_mel):
        check_log_mel(self, log_mel, N_MELS, longest=self.n_frames)
        n_missing = self.n_frames - log_mel.shape[1]
        padded = nn.functional.pad(log_mel, (0, 0, 0, n_missing), value=self._padding)
        return self.encoder.embeddings(padded)

    def adapt(
        self, *, n_classes=None, n_frames=None, frequency_stride=None, time_stride=None
    ):
        """Make a model for other clips or classes that begins with these weights.

        Parameters
        ----------
        n_classes : int, default=None
            Number of classes of a new, untrained classifier; ``None`` keeps the
            present one.
        n_frames, frequency_stride, time_stride : int, default=None
            As of the constructor; ``None`` keeps the present value. Along an axis with
            fewer patches than now the middle of the table of positions is kept, and
            with more it is interpolated.

        Returns
        -------
        AST
            The new model; this one is left as it is.

        Raises
        ------
        ValueError
            If `n_frames` or a stride leaves no patch.

        Examples
        --------
        >>> from sklabelaudio.nn import AST
        >>> model = AST(527, 1024, embed_dim=16, depth=2, num_heads=2)
        >>> short = model.adapt(n_classes=50, n_frames=512)
        >>> short.n_classes, short.n_frames
        (50, 512)
        """
        config = self.encoder.config

        def choose(value, present):
            return present if value is None else value

        with torch.device("meta"):  # for all weights are replaced
            new = type(self)(
                choose(n_classes, self.n_classes),
                choose(n_frames, self.n_frames),
                choose(frequency_stride, config.frequency_stride),
                choose(time_stride, config.time_stride),
                embed_dim=config.hidden_size,
                depth=config.num_hidden_layers,
                num_heads=config.num_attention_heads,
            )
        new._padding = self._padding
        state = {name: value.clone() for name, value in self.state_dict().items()}
        positions = state[_POSITIONS]
        state[_POSITIONS] = _resize_positions(
            positions, self._count_patches(), new._count_patches()
        )
        if n_classes is not None:
            with torch.random.fork_rng(devices=[]):
                classifier = make_classifier(config.hidden_size, n_classes)
            state |= classifier.to(positions).state_dict(prefix="classifier.")
        new.load_state_dict(state, assign=True)
        return new.train(self.training)

    def _count_patches(self):
        config = self.encoder.config
        return (
            count_patches(N_MELS, config.frequency_stride),
            count_patches(self.n_frames, config.time_stride),
        )

    @staticmethod
    def convert_checkpoint(state):
        """Rename the authors' weights, or those of transformers.

        Parameters
        ----------
        state : dict of str to Tensor
            Weights by the names in the authors' files, or in those that
            ``ASTForAudioClassification.save_pretrained`` of any version of
            transformers writes.

        Returns
        -------
        dict of str to Tensor
            Weights by this module's names, without those that are not used.
        """
        return convert_names(
            {
                name.removeprefix("v."): tensor
                for name, tensor in state.items()
                if not name.startswith(_UNUSED)
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
            Parameters of the model that they fit, but for `mean` and `std`, which
            weights don't tell.

        Raises
        ------
        ValueError
            If they are not the weights of an AST, or have a number of positions
            that none of the published strides (10, 12, 14 or 16 over both axes) gives,
            or several of them.

        Notes
        -----
        Every number of positions goes with several numbers of frames: what is told is
        the one that can be halved most often, as 1024 and 128 of the published models,
        and the model is the same with any of them. Some go with several strides, which
        are not the same: then the one is told that has a power of two frames, if but
        one has. Heads are taken to have 64 values each.
        """
        state = cls.convert_checkpoint(state)
        sizes = measure(state, "an AST")
        positions = get_weight(state, _POSITIONS, "an AST", n_axes=3)
        n_patches = positions.shape[1] - N_SPECIAL
        fitting = {}
        for stride in STRIDES:
            n_columns, rest = divmod(n_patches, count_patches(N_MELS, stride))
            if n_columns > 0 and not rest:
                shortest = PATCH + (n_columns - 1) * stride
                n_frames = range(shortest, shortest + stride)
                # What a number has in common with its negative is its powers of two.
                fitting[stride] = max(n_frames, key=lambda n: (n & -n, n))
        if not fitting:
            raise ValueError(
                f"no AST with a stride of {STRIDES} over both axes has {n_patches} "
                "patches"
            )
        even = [stride for stride, n in fitting.items() if n & -n == n]
        stride, *others = fitting if len(fitting) == 1 else even or fitting
        if others:
            options = ", ".join(f"{s} with {n} frames" for s, n in fitting.items())
            raise ValueError(
                f"an AST of {n_patches} patches may have a stride of {options} or so, "
                "which its weights don't tell: build sklabelaudio.nn.AST with the "
                "strides that it was trained with, and load them with load_checkpoint"
            )
        strides = {"frequency_stride": stride, "time_stride": stride}
        return {**sizes, "n_frames": fitting[stride], **strides}


def _resize_positions(table, old, new):
    """Return a table of positions for other numbers of patches over the two axes."""
    special, grid = table[:, :N_SPECIAL], table[:, N_SPECIAL:]
    grid = grid.unflatten(1, old).permute(0, 3, 1, 2)
    for axis in (2, 3):
        n_old, n_new = grid.shape[axis], new[axis - 2]
        if n_new < n_old:
            grid = grid.narrow(axis, n_old // 2 - n_new // 2, n_new)
        elif n_new > n_old:
            size = list(grid.shape[2:])
            size[axis - 2] = n_new
            grid = nn.functional.interpolate(grid, size=size, mode="bilinear")
    return torch.cat([special, grid.flatten(2).transpose(1, 2)], dim=1)
