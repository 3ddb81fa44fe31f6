"""The embedder that some weights are for."""

import os

from ._clap import CLAPEmbedder
from ._efficientat import EfficientATEmbedder
from ._htsat import HTSATEmbedder
from ._registry import list_checkpoints
from ._vggish import VGGishEmbedder
from ._yamnet import YAMNetEmbedder

_EMBEDDERS = {
    "clap": CLAPEmbedder,
    "efficientat": EfficientATEmbedder,
    "htsat": HTSATEmbedder,
    "vggish": VGGishEmbedder,
    "yamnet": YAMNetEmbedder,
}
# Kinds of files that only one model has.
_SUFFIXES = {".h5": "yamnet", ".tflite": "yamnet"}


def make_embedder(weights, *, encoder=None, **params):
    """Make the embedder that a checkpoint is for.

    Parameters
    ----------
    weights : str
        Name of a checkpoint, path of a file, or a folder of a CLAP model.
    encoder : str, default=None
        Name of the encoder; ``None`` reads it off the name of the file.
    **params
        Further parameters of the embedder.

    Returns
    -------
    AudioEmbedder
        The embedder, not fitted.

    Raises
    ------
    ValueError
        If there is no such encoder, or the name does not tell it.
    """
    if encoder is None:
        encoder = _guess_encoder(weights)
    if encoder not in _EMBEDDERS:
        raise ValueError(
            f"encoder={encoder!r} is none of {', '.join(map(repr, _EMBEDDERS))}"
        )
    return _EMBEDDERS[encoder](weights, **params)


def _guess_encoder(weights):
    name = os.path.basename(weights)
    for checkpoint in list_checkpoints():
        if checkpoint.name == weights or name in checkpoint.files:
            return checkpoint.encoder
    if os.path.isdir(weights):
        return "clap"
    suffix = os.path.splitext(name)[1]
    if suffix not in _SUFFIXES:
        raise ValueError(
            f"weights={weights!r} is no registered name, and its name does not tell "
            "which encoder it is of: say it, encoder=" + " or ".join(_EMBEDDERS)
        )
    return _SUFFIXES[suffix]
