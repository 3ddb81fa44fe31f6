"""What AST and PaSST share: a vision transformer over patches of the log-mel."""

import re
from collections import OrderedDict

from torch import nn

from .._optional import import_optional_dependency
from ._checks import get_weight
from ._output import EncoderOutput

N_MELS = 128
# Height and width of a patch, in mel bands and frames.
PATCH = 16
# The strides of the published models, the same over frequency and time.
STRIDES = (10, 12, 14, 16)
# Two tokens before those of the patches: the class, and what the teacher says of it.
N_SPECIAL = 2
# Values of one attention head in all published models.
_HEAD = 64
# Names in files, and here: whole ones, then beginnings, then parts of the layers'.
_WHOLE = {
    "cls_token": "encoder.embeddings.cls_token",
    "dist_token": "encoder.embeddings.distillation_token",
    "pos_embed": "encoder.embeddings.position_embeddings",
    "new_pos_embed": "encoder.embeddings.new_pos_embed",
    "freq_new_pos_embed": "encoder.embeddings.freq_new_pos_embed",
    "time_new_pos_embed": "encoder.embeddings.time_new_pos_embed",
}
_PREFIXES = {
    "patch_embed.proj.": "encoder.embeddings.patch_embeddings.projection.",
    "blocks.": "encoder.layers.",
    "norm.": "encoder.layernorm.",
    "mlp_head.0.": "classifier.layernorm.",
    "mlp_head.1.": "classifier.dense.",
    "head.0.": "classifier.layernorm.",
    "head.1.": "classifier.dense.",
    # Files of transformers: of older versions, and of this one's classes.
    "audio_spectrogram_transformer.encoder.layer.": "encoder.layers.",
    "audio_spectrogram_transformer.": "encoder.",
}
_PARTS = {
    ".norm1.": ".layernorm_before.",
    ".norm2.": ".layernorm_after.",
    ".attn.proj.": ".attention.o_proj.",
    ".attention.attention.query.": ".attention.q_proj.",
    ".attention.attention.key.": ".attention.k_proj.",
    ".attention.attention.value.": ".attention.v_proj.",
    ".attention.output.dense.": ".attention.o_proj.",
    ".intermediate.dense.": ".mlp.fc1.",
    ".output.dense.": ".mlp.fc2.",
}
_FUSED = ".attn.qkv."
_LAYER = re.compile(r"encoder\.layers\.(\d+)\.")


class PatchTransformer(nn.Module):
    """A vision transformer of the transformers library, with AST's classifier.

    Parameters
    ----------
    n_classes : int
        Number of classes.
    n_frames : int
        Frames that the table of positions is for.
    frequency_stride, time_stride : int
        Mel bands and frames from one patch to the next.
    embed_dim, depth, num_heads : int
        Width and number of the layers, and heads in each.

    Attributes
    ----------
    n_components : int
        Length of the embedding.
    n_classes : int
        Number of classes.
    """

    def __init__(
        self,
        n_classes,
        *,
        n_frames,
        frequency_stride,
        time_stride,
        embed_dim,
        depth,
        num_heads,
    ):
        for name, stride, length in (
            ("frequency_stride", frequency_stride, N_MELS),
            ("time_stride", time_stride, n_frames),
        ):
            if stride < 1 or count_patches(length, stride) < 1:
                raise ValueError(
                    f"{name}={stride} with n_frames={n_frames}: strides start at 1, "
                    f"and there must be at least the {PATCH} frames of a patch"
                )
        for name, value in (
            ("n_classes", n_classes),
            ("embed_dim", embed_dim),
            ("depth", depth),
            ("num_heads", num_heads),
        ):
            if value < 1:
                raise ValueError(f"{name}={value} must be at least 1")
        if embed_dim % num_heads:
            raise ValueError(
                f"num_heads={num_heads} must divide embed_dim={embed_dim} evenly"
            )
        super().__init__()
        transformers = import_optional_dependency("transformers", "text")
        config = transformers.ASTConfig(
            hidden_size=embed_dim,
            num_hidden_layers=depth,
            num_attention_heads=num_heads,
            intermediate_size=4 * embed_dim,
            layer_norm_eps=1e-6,
            frequency_stride=frequency_stride,
            time_stride=time_stride,
            max_length=n_frames,
            num_mel_bins=N_MELS,
            attn_implementation="sdpa",
        )
        self.encoder = transformers.ASTModel(config)
        self.classifier = make_classifier(embed_dim, n_classes)
        self.n_components = embed_dim
        self.n_classes = n_classes

    def _classify(self, tokens):
        """Return the output of a sequence that begins with the special tokens."""
        embedding = run_layers(self.encoder, tokens).mean(dim=1)
        return EncoderOutput(embedding, self.classifier(embedding))

    def _make_map(self, tokens):
        """Return what becomes of the patches, as a map of rows of them."""
        for layer in self.encoder.layers:
            tokens = layer(tokens, None)
        patches = self.encoder.layernorm(tokens)[:, N_SPECIAL:]
        n_rows = count_patches(N_MELS, self.encoder.config.frequency_stride)
        return patches.mT.unflatten(2, (n_rows, -1))


def count_patches(length, stride):
    """Return the number of patches along an axis of so many bands or frames."""
    return (length - PATCH) // stride + 1


def make_classifier(embed_dim, n_classes):
    """Make a classifier with weights as the authors draw them."""
    dense = nn.Linear(embed_dim, n_classes)
    nn.init.trunc_normal_(dense.weight, std=0.02)
    nn.init.zeros_(dense.bias)
    # Unlike those of the encoder, this norm has torch's own eps.
    return nn.Sequential(OrderedDict(layernorm=nn.LayerNorm(embed_dim), dense=dense))


def draw_embeddings(*parameters):
    """Draw tokens and positions as the authors do.

    transformers leaves them zero, and two special tokens that begin alike stay so.
    """
    for parameter in parameters:
        nn.init.trunc_normal_(parameter, std=0.02)


def run_layers(encoder, tokens):
    """Run a sequence through all layers.

    Parameters
    ----------
    encoder : transformers.ASTModel
        The layers.
    tokens : Tensor of shape (n_clips, n_tokens, embed_dim)
        The special tokens and those of the patches.

    Returns
    -------
    Tensor of shape (n_clips, 2, embed_dim)
        What becomes of the special tokens.
    """
    *layers, last = encoder.layers
    for layer in layers:
        tokens = layer(tokens, None)
    return encoder.layernorm(_run_last(last, tokens))


def _run_last(layer, tokens):
    """Run a layer for the special tokens alone, for the others are not read."""
    normed = layer.layernorm_before(tokens)
    attention = layer.attention
    query, key, value = (
        project(read).unflatten(2, (-1, attention.head_dim)).transpose(1, 2)
        for project, read in (
            (attention.q_proj, normed[:, :N_SPECIAL]),
            (attention.k_proj, normed),
            (attention.v_proj, normed),
        )
    )
    mixed = nn.functional.scaled_dot_product_attention(query, key, value)
    mixed = attention.o_proj(mixed.transpose(1, 2).flatten(2))
    special = tokens[:, :N_SPECIAL] + mixed
    return special + layer.mlp(layer.layernorm_after(special))


def convert_names(state):
    """Rename weights to those of `PatchTransformer`.

    Parameters
    ----------
    state : dict of str to Tensor
        Weights by the authors' names, without a prefix, or by those of transformers.

    Returns
    -------
    dict of str to Tensor
        The same; names of other models are left as they are.
    """
    converted = {}
    for name, tensor in state.items():
        if _FUSED in name:
            for part, values in zip("qkv", tensor.tensor_split(3), strict=True):
                ours = name.replace(_FUSED, f".attention.{part}_proj.")
                converted[_rename(ours)] = values
        else:
            converted[_rename(name)] = tensor
    return converted


def _rename(name):
    if name in _WHOLE:
        return _WHOLE[name]
    for theirs, ours in _PREFIXES.items():
        if name.startswith(theirs):
            name = ours + name.removeprefix(theirs)
            break
    if _LAYER.match(name):
        for theirs, ours in _PARTS.items():
            name = name.replace(theirs, ours)
    return name


def measure(state, model):
    """Read what the weights tell of a model but for its strides and frames.

    Parameters
    ----------
    state : dict of str to Tensor
        Weights by this package's names.
    model : str
        What the model is called, for the message.

    Returns
    -------
    dict
        ``n_classes``, ``embed_dim``, ``depth`` and ``num_heads``.

    Raises
    ------
    ValueError
        If these are weights of some other model.
    """
    layers = {int(match[1]) for name in state if (match := _LAYER.match(name))}
    classes = get_weight(state, "classifier.dense.weight", model, n_axes=2)
    n_classes, embed_dim = classes.shape
    if layers != set(range(len(layers))) or not layers:
        raise ValueError(
            f"the layers are {sorted(layers)}, so these are not the weights of {model}"
        )
    return {
        "n_classes": n_classes,
        "embed_dim": embed_dim,
        "depth": len(layers),
        "num_heads": max(embed_dim // _HEAD, 1),
    }
