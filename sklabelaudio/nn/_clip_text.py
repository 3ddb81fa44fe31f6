"""CLIP's text transformer, whose vectors lie in one space with others."""

import re

import torch
from torch import nn

from .._optional import import_optional_dependency
from ._checks import get_weight

# Of every attention head of CLIP.
_HEAD_SIZE = 64
_ACTIVATIONS = ("quick_gelu", "gelu")
_NAME = "a CLIP's text side"
_ENCODER = "encoder."
# What files hold beside: other towers, scales of similarities, sizes and constants.
_UNUSED = ("visual.", "vision_model.", "visual_projection.", "audio.", "logit_")
_UNUSED_NAMES = {
    "input_resolution",
    "context_length",
    "vocab_size",
    "attn_mask",
    "text_model.embeddings.position_ids",
}
# The authors' names, and those of transformers.
_RENAMED = {
    "token_embedding.": "embeddings.token_embedding.",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_final.": "final_layer_norm.",
    "transformer.resblocks.": "encoder.layers.",
}
_RENAMED_IN_LAYER = {
    ".ln_1.": ".layer_norm1.",
    ".ln_2.": ".layer_norm2.",
    ".attn.out_proj.": ".self_attn.out_proj.",
    ".mlp.c_fc.": ".mlp.fc1.",
    ".mlp.c_proj.": ".mlp.fc2.",
}
_FUSED = re.compile(r"(.+)\.attn\.in_proj_(weight|bias)")
_LAYER = re.compile(r"text_model\.encoder\.layers\.(\d+)\.")


class ClipTextTransformer(nn.Module):
    """CLIP's text encoder: token ids to one vector a text.

    A causal transformer, whose last vector at the end of a text is projected. The
    defaults are that of ViT-B/32; AudioCLIP and CLIP's RN50 have ``n_components=1024``.
    The transformer itself is that of the transformers library.

    Parameters
    ----------
    n_components : int, default=512
        Length of the vectors.
    n_tokens : int, default=49408
        Number of tokens, the last of which ends a text.
    max_length : int, default=77
        Number of tokens of the longest text, its beginning and end among them.
    width : int, default=512
        Width of the layers.
    depth : int, default=12
        Number of layers.
    num_heads : int, default=None
        Number of attention heads in every layer; ``None`` leaves 64 values to each.
    n_hidden : int, default=None
        Width within the layers' second half; ``None`` is four times `width`.
    activation : {"quick_gelu", "gelu"}, default="quick_gelu"
        What is between. OpenAI's models have the former, most that were trained since
        with open_clip the latter. Weights don't tell.

    Raises
    ------
    ImportError
        If transformers is not installed.
    ValueError
        If a size is not positive, `num_heads` does not divide `width`, or there is no
        such activation.

    Notes
    -----
    The default has 63,428,096 parameters, AudioCLIP's 63,690,240.

    CLIP's paper, and others after it, write of a vocabulary of 49,152 and of at most 76
    tokens. The published models have 49,408 and 77: beside the 256 bytes and 48,894
    merges of the vocabulary, of which 2 places are kept for the tokens that begin and
    end a text, the bytes have tokens of their own for the end of a word, 256 more; and
    the table of positions has one more place than was counted. A text of 76 tokens has
    74 of its own between the two.

    Building a model leaves torch's global generator as it was.

    References
    ----------
    A. Radford et al., "Learning Transferable Visual Models From Natural Language
    Supervision", ICML 2021.

    Examples
    --------
    >>> import torch
    >>> from sklabelaudio.nn._clip_text import ClipTextTransformer
    >>> model = ClipTextTransformer(6, n_tokens=50, width=8, depth=1).eval()
    >>> tokens = torch.tensor([[48, 3, 7, 49], [48, 5, 49, 0]])  # of two texts
    >>> with torch.inference_mode():
    ...     model(tokens).shape
    torch.Size([2, 6])
    """

    def __init__(
        self,
        n_components=512,
        n_tokens=49408,
        max_length=77,
        *,
        width=512,
        depth=12,
        num_heads=None,
        n_hidden=None,
        activation="quick_gelu",
    ):
        num_heads = max(width // _HEAD_SIZE, 1) if num_heads is None else num_heads
        n_hidden = 4 * width if n_hidden is None else n_hidden
        for name, value in (
            ("n_components", n_components),
            ("n_tokens", n_tokens),
            ("max_length", max_length),
            ("width", width),
            ("depth", depth),
            ("num_heads", num_heads),
            ("n_hidden", n_hidden),
        ):
            if value < 1:
                raise ValueError(f"{name}={value} must be at least 1")
        if width % num_heads:
            raise ValueError(f"num_heads={num_heads} must divide width={width} evenly")
        if activation not in _ACTIVATIONS:
            raise ValueError(f"activation={activation!r} is none of {_ACTIVATIONS}")
        super().__init__()
        transformers = import_optional_dependency("transformers", "text")
        config = transformers.CLIPTextConfig(
            projection_dim=n_components,
            vocab_size=n_tokens,
            max_position_embeddings=max_length,
            hidden_size=width,
            num_hidden_layers=depth,
            num_attention_heads=num_heads,
            intermediate_size=n_hidden,
            hidden_act=activation,
            # The vocabulary ends with them.
            bos_token_id=n_tokens - 2,
            eos_token_id=n_tokens - 1,
            pad_token_id=n_tokens - 1,
        )
        with torch.random.fork_rng(devices=[]):
            self.encoder = transformers.CLIPTextModelWithProjection(config).float()
        self.n_components = n_components
        self.n_tokens = n_tokens
        self.max_length = max_length

    def forward(self, tokens):
        """Encode texts.

        Parameters
        ----------
        tokens : Tensor of shape (n_texts, length)
            Indices of tokens, from the one that begins a text to the one that ends it,
            ``n_tokens - 1``. What is behind that is not read. At most `max_length`.

        Returns
        -------
        Tensor of shape (n_texts, n_components)
            The vectors, not of length one.

        Raises
        ------
        ValueError
            If `tokens` has another shape, is too long, or has a text without an end or
            tokens of another vocabulary.
        """
        shape = tuple(tokens.shape)
        if len(shape) != 2 or 0 in shape or shape[1] > self.max_length:
            raise ValueError(
                f"tokens has the shape {shape}; this text encoder takes (n_texts, "
                f"length), of 1 to {self.max_length} tokens: cut longer texts, and end "
                f"them with {self.n_tokens - 1}"
            )
        if not 0 <= tokens.min() <= tokens.max() < self.n_tokens:
            raise ValueError(
                f"tokens has indices from {tokens.min()} to {tokens.max()}, and the "
                f"vocabulary {self.n_tokens} tokens: use the tokenizer that belongs to "
                "these weights"
            )
        endless = (tokens != self.n_tokens - 1).all(dim=1)
        if endless.any():
            raise ValueError(
                f"tokens has {int(endless.sum())} texts without an end, the first of "
                f"them in row {int(endless.int().argmax())}: end every text with "
                f"{self.n_tokens - 1}"
            )
        return self.encoder(input_ids=tokens).text_embeds

    @staticmethod
    def convert_checkpoint(state):
        """Rename weights, and leave out those of images and sounds.

        Parameters
        ----------
        state : dict of str to Tensor
            Weights by the names of OpenAI's files, which open_clip and AudioCLIP have
            too, or by those of ``CLIPModel`` or ``CLIPTextModelWithProjection`` of
            transformers.

        Returns
        -------
        dict of str to Tensor
            Weights by this module's names.
        """
        return {
            _ENCODER + name: tensor for name, tensor in convert_clip_text(state).items()
        }

    @staticmethod
    def config_of(state):
        """Read a model's sizes off its weights.

        Parameters
        ----------
        state : dict of str to Tensor
            Weights as for :meth:`convert_checkpoint`.

        Returns
        -------
        dict
            Parameters of the model that they fit, but for `activation`, of which
            weights tell nothing. Heads are taken to have 64 values each.

        Raises
        ------
        ValueError
            If they are not the weights of a CLIP's text side.

        Examples
        --------
        >>> from sklabelaudio.nn._clip_text import ClipTextTransformer
        >>> model = ClipTextTransformer(6, n_tokens=50, width=64, depth=1)
        >>> ClipTextTransformer.config_of(model.state_dict())["n_components"]
        6
        """
        converted = convert_clip_text(state)

        def shape_of(name, n_axes):
            return get_weight(converted, name, _NAME, n_axes=n_axes).shape

        n_components, width = shape_of("text_projection.weight", 2)
        embeddings, layers = "text_model.embeddings.", "text_model.encoder.layers."
        return {
            "n_components": n_components,
            "n_tokens": shape_of(f"{embeddings}token_embedding.weight", 2)[0],
            "max_length": shape_of(f"{embeddings}position_embedding.weight", 2)[0],
            "width": width,
            "depth": len({m[1] for name in converted if (m := _LAYER.match(name))}),
            "num_heads": max(width // _HEAD_SIZE, 1),
            "n_hidden": shape_of(f"{layers}0.mlp.fc1.bias", 1)[0],
        }


def convert_clip_text(state):
    """Rename the weights of a CLIP's text side as transformers does.

    Parameters
    ----------
    state : dict of str to Tensor
        Weights as for `ClipTextTransformer.convert_checkpoint`.

    Returns
    -------
    dict of str to Tensor
        Weights of ``CLIPTextModelWithProjection``. Names of other models are left under
        ``text_model.``.
    """
    converted = {}
    for name, tensor in state.items():
        name = name.removeprefix(_ENCODER)
        if name.startswith(_UNUSED) or name in _UNUSED_NAMES:
            continue
        if name.startswith("text_model.") or name == "text_projection.weight":
            converted[name] = tensor
        elif name == "text_projection":
            converted["text_projection.weight"] = tensor.mT
        elif fused := _FUSED.fullmatch(name):
            layer, kind = fused.groups()
            for part, piece in zip("qkv", tensor.tensor_split(3), strict=True):
                converted[_rename(f"{layer}.self_attn.{part}_proj.{kind}")] = piece
        else:
            converted[_rename(name)] = tensor
    return converted


def _rename(name):
    for theirs, ours in _RENAMED.items():
        if name.startswith(theirs):
            name = ours + name.removeprefix(theirs)
            break
    for theirs, ours in _RENAMED_IN_LAYER.items():
        name = name.replace(theirs, ours)
    return f"text_model.{name}"
