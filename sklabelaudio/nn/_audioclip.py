"""AudioCLIP's files: the parts that one is made of, and the part that reads texts."""

import math
import re

import torch

from .._optional import import_optional_dependency
from ..exceptions import CheckpointError
from ._checkpoint import load_state, read_checkpoint

_AUDIO = "audio."
_VISUAL = "visual."
_TEXT = ("transformer.", "token_embedding.", "ln_final.")
_TEXT_NAMES = {"positional_embedding", "text_projection"}
# Logarithms of what cosines are multiplied by: image and text, audio and image, audio
# and text.
_SCALES = {"logit_scale", "logit_scale_ai", "logit_scale_at"}
_LARGEST_SCALE = 100.0
# Of every attention head of CLIP.
_HEAD_SIZE = 64

# The authors' names of the text part, and those of transformers.
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


def split_audioclip(state):
    """Take the weights of a whole AudioCLIP apart.

    Parameters
    ----------
    state : dict of str to Tensor
        The weights, by the authors' names.

    Returns
    -------
    dict of str to dict
        The weights of ``"audio"``, without that prefix, ``"text"`` and ``"visual"``;
        the ``"scales"`` of similarities; and ``"other"``, what is none of them. The
        weights of the audio part alone, or of another model, are all ``"other"``.
    """
    parts = {part: {} for part in ("audio", "text", "visual", "scales", "other")}
    for name, tensor in state.items():
        if name.startswith(_AUDIO):
            parts["audio"][name.removeprefix(_AUDIO)] = tensor
        elif name.startswith(_VISUAL):
            parts["visual"][name] = tensor
        elif name.startswith(_TEXT) or name in _TEXT_NAMES:
            parts["text"][name] = tensor
        elif name in _SCALES:
            parts["scales"][name] = tensor
        else:
            parts["other"][name] = tensor
    return parts


def read_similarity_scale(state):
    """Tell what AudioCLIP multiplies the cosines of sounds and texts by.

    Parameters
    ----------
    state : dict of str to Tensor
        The weights, by the authors' names.

    Returns
    -------
    float or None
        The factor, from 1 to 100; None if the weights have none.
    """
    logarithm = state.get("logit_scale_at")
    if logarithm is None:
        return None
    return min(max(math.exp(logarithm.item()), 1.0), _LARGEST_SCALE)


def load_audioclip_text(path):
    """Load the text part of an AudioCLIP, in single precision.

    Parameters
    ----------
    path : str or path-like
        A file of the authors with all of the model, such as
        ``AudioCLIP-Full-Training.pt``.

    Returns
    -------
    transformers.CLIPTextModelWithProjection
        The model, in evaluation mode. Its ``text_embeds`` are in the space of the
        vectors of sounds.

    Raises
    ------
    CheckpointError
        If the file can't be read, or has no text part or not all of it.
    ImportError
        If transformers is not installed.
    """
    text = split_audioclip(read_checkpoint(path))["text"]
    try:
        config = _measure_text(text)
    except KeyError as error:
        raise CheckpointError(
            path,
            f"it has no weight {error.args[0]!r}, so not the text part of an "
            "AudioCLIP: pass AudioCLIP-Full-Training.pt or "
            "AudioCLIP-Partial-Training.pt",
        ) from error
    transformers = import_optional_dependency("transformers", "text")
    with torch.random.fork_rng(devices=[]):
        model = transformers.CLIPTextModelWithProjection(
            transformers.CLIPTextConfig(**config)
        ).float()
    load_state(model, _convert_text(text), path)
    return model.eval()


def _measure_text(text):
    """Read the sizes of the text part off its weights."""
    width, projection_dim = text["text_projection"].shape
    vocab_size = text["token_embedding.weight"].shape[0]
    layers = {
        name.split(".")[2] for name in text if name.startswith("transformer.resblocks.")
    }
    return {
        "hidden_size": width,
        "projection_dim": projection_dim,
        "vocab_size": vocab_size,
        "max_position_embeddings": text["positional_embedding"].shape[0],
        "num_hidden_layers": len(layers),
        "num_attention_heads": max(width // _HEAD_SIZE, 1),
        "intermediate_size": text["transformer.resblocks.0.mlp.c_fc.bias"].shape[0],
        "hidden_act": "quick_gelu",
        # The vocabulary ends with them.
        "bos_token_id": vocab_size - 2,
        "eos_token_id": vocab_size - 1,
        "pad_token_id": vocab_size - 1,
    }


def _convert_text(text):
    """Rename the weights of the text part as transformers does."""
    converted = {}
    for name, tensor in text.items():
        if name == "text_projection":
            converted["text_projection.weight"] = tensor.mT
            continue
        name = "text_model." + _replace_start(name)
        fused = re.fullmatch(r"(.+)\.attn\.in_proj_(weight|bias)", name)
        if fused:
            layer, kind = fused.groups()
            for part, piece in zip("qkv", tensor.chunk(3), strict=False):
                converted[f"{layer}.self_attn.{part}_proj.{kind}"] = piece
            continue
        for theirs, ours in _RENAMED_IN_LAYER.items():
            name = name.replace(theirs, ours)
        converted[name] = tensor
    return converted


def _replace_start(name):
    for theirs, ours in _RENAMED.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name
