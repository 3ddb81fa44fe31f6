"""HTS-AT: a hierarchical transformer over the log-mel, with scores over time."""

import re

import torch
from torch import nn

from .._optional import import_optional_dependency
from ._checks import check_log_mel
from ._output import EncoderOutput

N_MELS = 64
# Frames of the image that the transformer reads; shorter clips are stretched to it.
N_FRAMES = 1024
# Pieces of those frames that stand on each other in it.
_N_PIECES = 4
# Each halves the height and width that it leaves to the next.
N_STAGES = 4
# Names of the authors' trunk, all else is beside it.
_TRUNK = ("bn0.", "patch_embed.", "layers.", "norm.")
# Their names of its parts, and those of transformers.
_PARTS = {
    "bn0.": "batch_norm.",
    ".norm1.": ".layernorm_before.",
    ".norm2.": ".layernorm_after.",
    ".attn.relative_position_": ".attention.self.relative_position_",
    ".attn.proj.": ".attention.output.dense.",
    ".mlp.fc1.": ".intermediate.dense.",
    ".mlp.fc2.": ".output.dense.",
}
# The front end, and a classifier that the token-semantic one took the place of.
_UNUSED = ("spectrogram_extractor.", "logmel_extractor.", "head.")
# LAION-CLAP's files hold the trunk under "audio_branch.", beside these.
_CLAP_ONLY = ("audio_projection.", "audio_transform.", "logit_scale_", "text_")
_BIAS_TABLE = re.compile(
    r"encoder\.layers\.(\d+)\.blocks\.(\d+)\.attention\.self"
    r"\.relative_position_bias_table"
)


class HTSAT(nn.Module):
    """HTS-AT, a tagger of 527 AudioSet classes with probabilities over time.

    A Swin transformer reads the log-mel as an image of 256 by 256, in which four
    pieces of 256 frames stand on each other; a convolution over its 32 time steps
    scores each of them. The defaults are the published model; ``HTSAT(128,
    depths=(2, 2, 12, 2))`` is the larger one. The transformer itself is that of
    the transformers library.

    Parameters
    ----------
    embed_dim : int, default=96
        Width of the first stage; each of the next is twice as wide.
    n_classes : int, default=527
        Number of classes.
    depths : sequence of 4 int, default=(2, 2, 6, 2)
        Number of blocks of each stage.
    num_heads : sequence of 4 int, default=(4, 8, 16, 32)
        Number of attention heads in the blocks of each stage.

    Attributes
    ----------
    n_components : int
        Length of the embedding, 768 by default.
    n_classes : int
        Number of classes.
    n_frame_steps, n_framewise_steps : int
        Number of vectors and of probabilities over time, 32 and 1024, which divide
        the clip evenly, whatever its length.

    Raises
    ------
    ImportError
        If transformers is not installed.
    ValueError
        If there are not four stages, or heads that do not divide a stage's width.

    Notes
    -----
    The published counts are 31,325,143 parameters, of which 30,241,687 are trained.
    They include the constants of the front end (1,083,456), which is no part of the
    model here, and a classifier that is never used (278,256), which is left out: the
    model has 29,963,431.

    Building a model leaves torch's global generator as it was.

    References
    ----------
    K. Chen, X. Du, B. Zhu, Z. Ma, T. Berg-Kirkpatrick and S. Dubnov, "HTS-AT: A
    hierarchical token-semantic audio transformer for sound classification and
    detection", ICASSP 2022.

    Examples
    --------
    >>> import torch
    >>> from sklabelaudio.nn import HTSAT
    >>> model = HTSAT(8, 3, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2)).eval()
    >>> with torch.inference_mode():
    ...     output = model(torch.zeros(2, 101, 64))
    >>> output.embedding.shape, output.logits.shape, output.framewise.shape
    (torch.Size([2, 64]), torch.Size([2, 3]), torch.Size([2, 1024, 3]))
    """

    n_frame_steps = 32
    n_framewise_steps = N_FRAMES

    def __init__(
        self,
        embed_dim=96,
        n_classes=527,
        *,
        depths=(2, 2, 6, 2),
        num_heads=(4, 8, 16, 32),
    ):
        super().__init__()
        transformers = import_optional_dependency("transformers", "text")
        # The authors drop whole branches in training, where transformers drops values.
        config = make_config(
            embed_dim, depths, num_heads, hidden_dropout_prob=0.0, drop_path_rate=0.1
        )
        with torch.random.fork_rng(devices=[]):
            self.encoder = transformers.ClapAudioModel(config).audio_encoder
            self.tscam_conv = nn.Conv2d(
                config.hidden_size, n_classes, kernel_size=(2, 3), padding=(0, 1)
            )
        self.n_components = config.hidden_size
        self.n_classes = n_classes

    def forward(self, log_mel, *, infer_mode=False):
        """Encode clips of one length.

        Parameters
        ----------
        log_mel : Tensor of shape (n_clips, n_frames, 64)
            In dB, as the front end ``"htsat"`` gives it: 100 frames a second, at most
            1024 (10.24 s), or 2050 in pieces.
        infer_mode : bool, default=False
            Whether a clip of which two or more fit in 1024 frames is repeated as often
            as they fit, before it is stretched to them; otherwise it is stretched
            from what it has. The authors do so for clips shorter than those the
            model was trained on.

        Returns
        -------
        EncoderOutput
            The embedding ``(n_clips, n_components)``, the logits ``(n_clips,
            n_classes)``, probabilities of 1024 frames, which span the clip whatever
            its length and are the same for 32 at a time, and the 32 vectors
            ``(n_clips, 32, n_components)`` that the embedding is the mean of.

        Raises
        ------
        ValueError
            If `log_mel` has another shape, no frames or too many.

        Notes
        -----
        Of a clip of more than 1024 frames, pieces of half its length are encoded that
        begin at every quarter, and their embeddings and probabilities are averaged;
        the logits are those whose sigmoid is the average. What is after the last
        piece, which may be a quarter of the clip, is not heard. It is what the
        authors do; cut the clip yourself to hear all of it.
        """
        check_log_mel(self, log_mel, N_MELS, longest=2 * N_FRAMES + 2, window=N_FRAMES)
        if log_mel.shape[1] > N_FRAMES:
            return self._average_pieces(log_mel)
        encoded = self._encode(log_mel, infer_mode)
        tokens = self.tscam_conv(encoded.last_hidden_state).squeeze(2).mT
        return EncoderOutput(
            encoded.pooler_output,
            tokens.mean(dim=1),
            tokens.sigmoid().repeat_interleave(N_FRAMES // tokens.shape[1], dim=1),
            encoded.last_hidden_state.mean(dim=2).mT,
        )

    def forward_features(self, log_mel, *, infer_mode=False):
        """Compute the last tokens, of which the embedding is the mean.

        Parameters
        ----------
        log_mel : Tensor of shape (n_clips, n_frames, 64)
            As for :meth:`forward`, but of at most 1024 frames.
        infer_mode : bool, default=False
            As for :meth:`forward`.

        Returns
        -------
        Tensor of shape (n_clips, n_components, 8, 8)
            The tokens where they lie in the image that the transformer reads, whatever
            the clip's length. The clip is in four pieces on each other: rows ``2 * i``
            and ``2 * i + 1`` are the lower and the upper 32 mel bands of its quarter
            ``i``, and the 8 columns divide the quarter evenly. The vector of band
            ``b`` at step ``s`` of 32 is at ``[2 * (s // 8) + b, s % 8]``.

        Raises
        ------
        ValueError
            If `log_mel` has another shape, no frames or too many.
        """
        check_log_mel(self, log_mel, N_MELS, longest=N_FRAMES)
        # transformers puts the pieces behind each other: (n_components, 2, 32).
        steps = self._encode(log_mel, infer_mode).last_hidden_state
        return steps.unflatten(3, (_N_PIECES, -1)).movedim(3, 2).flatten(2, 3)

    def _encode(self, log_mel, infer_mode):
        if infer_mode:
            # The authors repeat behind the batch norm, which is the same: it treats
            # every frame alike.
            log_mel = log_mel.repeat(1, N_FRAMES // log_mel.shape[1], 1)
        return self.encoder(log_mel.unsqueeze(1))

    def _average_pieces(self, log_mel):
        length = (log_mel.shape[1] - 1) // 2
        step = (log_mel.shape[1] - 1) // 4
        starts = range(0, log_mel.shape[1] - length - 1, step)
        pieces = torch.stack([log_mel[:, t : t + length] for t in starts], dim=1)
        embedding, logits, framewise, frames = (
            stage.unflatten(0, (-1, len(starts)))
            for stage in self.forward(pieces.flatten(0, 1))
        )
        # From the logarithms, for a probability of one has no logit.
        present = nn.functional.logsigmoid(logits).logsumexp(dim=1)
        absent = nn.functional.logsigmoid(-logits).logsumexp(dim=1)
        return EncoderOutput(
            embedding.mean(dim=1),
            present - absent,
            framewise.mean(dim=1),
            frames.mean(dim=1),
        )

    @staticmethod
    def convert_checkpoint(state):
        """Rename the authors' weights.

        Parameters
        ----------
        state : dict of str to Tensor
            Weights by the names in the authors' files, or in those of LAION-CLAP,
            whose audio branch is the same model at 48 kHz.

        Returns
        -------
        dict of str to Tensor
            Weights by this module's names, without those that are not used.
        """
        return convert_trunk(take_audio_branch(state))

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
            Parameters of the model that they fit; those that the weights don't tell,
            for they are of some other model, are left out.
        """
        state = cls.convert_checkpoint(state)
        sizes = measure_trunk(state)
        if "tscam_conv.bias" in state:
            sizes["n_classes"] = state["tscam_conv.bias"].numel()
        return sizes


def make_config(embed_dim, depths, num_heads, **settings):
    """Describe a trunk in transformers' terms.

    Parameters
    ----------
    embed_dim, depths, num_heads : int, sequence of int, sequence of int
        As in `HTSAT`.
    **settings : dict
        Further settings.

    Returns
    -------
    transformers.ClapAudioConfig
        The description.

    Raises
    ------
    ValueError
        If there are not four stages.
    """
    if len(depths) != N_STAGES or len(num_heads) != N_STAGES:
        raise ValueError(
            f"depths={depths!r} and num_heads={num_heads!r}: pass {N_STAGES} of each, "
            "one for every stage"
        )
    transformers = import_optional_dependency("transformers", "text")
    return transformers.ClapAudioConfig(
        patch_embeds_hidden_size=embed_dim,
        hidden_size=embed_dim * 2 ** (N_STAGES - 1),
        depths=list(depths),
        num_attention_heads=list(num_heads),
        **settings,
    )


def take_audio_branch(state):
    """Return the trunk of a file of LAION-CLAP; other files as they are."""
    if not any(name.startswith("audio_branch.") for name in state):
        return state
    return {
        name.removeprefix("audio_branch."): tensor
        for name, tensor in state.items()
        if not name.startswith(_CLAP_ONLY)
    }


def convert_trunk(state):
    """Rename the authors' trunk to that of transformers, under ``encoder.``.

    Parameters
    ----------
    state : dict of str to Tensor
        Weights by the authors' names.

    Returns
    -------
    dict of str to Tensor
        The same without what is unused; names of other models are left as they are.
    """
    converted = {}
    for name, tensor in state.items():
        if name.startswith(_UNUSED) or name.endswith(".attn_mask"):
            continue
        if not name.startswith(_TRUNK):
            converted[name] = tensor
            continue
        for theirs, ours in _PARTS.items():
            name = name.replace(theirs, ours)
        if ".attn.qkv." in name:
            parts = tensor.tensor_split(3)
            for part, values in zip(("query", "key", "value"), parts, strict=True):
                ours = name.replace(".attn.qkv.", f".attention.self.{part}.")
                converted[f"encoder.{ours}"] = values
        else:
            converted[f"encoder.{name}"] = tensor
    return converted


def measure_trunk(state):
    """Read a trunk's sizes off its weights.

    Parameters
    ----------
    state : dict of str to Tensor
        Weights by this package's names.

    Returns
    -------
    dict
        ``embed_dim``, ``depths`` and ``num_heads``, or nothing if these are weights of
        some other model.
    """
    width = state.get("encoder.patch_embed.norm.weight")
    heads = {}
    for name, tensor in state.items():
        if match := _BIAS_TABLE.fullmatch(name):
            heads.setdefault(int(match[1]), []).append(tensor.shape[-1])
    if width is None or not heads:
        return {}
    return {
        "embed_dim": width.numel(),
        "depths": tuple(len(heads[stage]) for stage in sorted(heads)),
        "num_heads": tuple(heads[stage][0] for stage in sorted(heads)),
    }
