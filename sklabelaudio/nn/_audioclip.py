"""AudioCLIP's files: the parts that one is made of, and the part that reads texts."""

import math

from ..exceptions import CheckpointError
from ._checkpoint import load_state, read_checkpoint
from ._clip_text import ClipTextTransformer, convert_clip_text

_AUDIO = "audio."
_VISUAL = "visual."
_TEXT = ("transformer.", "token_embedding.", "ln_final.")
_TEXT_NAMES = {"positional_embedding", "text_projection"}
# Of the weights of texts those that sizes are read off.
_MEASURED = (
    "text_projection",
    "token_embedding.weight",
    "positional_embedding",
    "transformer.resblocks.0.mlp.c_fc.bias",
)
# Logarithms of what cosines are multiplied by: image and text, audio and image, audio
# and text.
_SCALES = {"logit_scale", "logit_scale_ai", "logit_scale_at"}
_LARGEST_SCALE = 100.0


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
    for name in _MEASURED:
        if name not in text:
            raise CheckpointError(
                path,
                f"it has no weight {name!r}, so not the text part of an AudioCLIP: "
                "pass AudioCLIP-Full-Training.pt or AudioCLIP-Partial-Training.pt",
            )
    model = ClipTextTransformer(**ClipTextTransformer.config_of(text)).encoder
    load_state(model, convert_clip_text(text), path)
    return model.eval()
