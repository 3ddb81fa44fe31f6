"""The options of the commands that name an encoder: what they mean."""

import difflib
import json
import os
import re

from ._checkpoints import (
    HUB_WEIGHTS,
    list_checkpoints,
    locate_checkpoints,
    recognise_file,
)
from .embedding import (
    ASTEmbedder,
    AudioCLIPEmbedder,
    CLAPEmbedder,
    EfficientATEmbedder,
    HTSATEmbedder,
    PANNsEmbedder,
    PaSSTEmbedder,
    PSLAEmbedder,
    SP4SCEmbedder,
    VGGishEmbedder,
    YAMNetEmbedder,
)
from .text import read_label_list

_EMBEDDERS = {
    embedder._encoder: embedder
    for embedder in (
        ASTEmbedder,
        AudioCLIPEmbedder,
        CLAPEmbedder,
        EfficientATEmbedder,
        HTSATEmbedder,
        PANNsEmbedder,
        PaSSTEmbedder,
        PSLAEmbedder,
        SP4SCEmbedder,
        VGGishEmbedder,
        YAMNetEmbedder,
    )
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
        Name of the encoder; ``None`` reads it off the name of the checkpoint.
    **params
        Further parameters of the embedder.

    Returns
    -------
    AudioEmbedder
        The embedder, not fitted.

    Raises
    ------
    ValueError
        If there is no such encoder or checkpoint, or the name does not tell whose it
        is. The message speaks of the options of the command.
    """
    if encoder is None:
        encoder = _guess_encoder(weights)
    if encoder not in _EMBEDDERS:
        raise ValueError(f"--encoder={encoder} is none of {', '.join(_EMBEDDERS)}")
    return _EMBEDDERS[encoder](weights, **params)


def is_joint(embedder):
    """Tell whether an embedder comes with a text encoder of its own."""
    record = _find_by_name(embedder.weights)
    # AudioCLIP's audio encoder is also published alone, with classes.
    has_classes = record is not None and record.n_classes is not None
    return hasattr(embedder, "text_embedder") and not has_classes


def is_tagger(embedder):
    """Tell whether an embedder's encoder gives scores of classes."""
    return any(record.n_classes for record in list_checkpoints(embedder._encoder))


def find_tagger_labels(embedder, path=None):
    """Find the classes that a tagger's scores are for.

    Parameters
    ----------
    embedder : AudioEmbedder
        The tagger, fitted, with its scores as output.
    path : str, default=None
        File that lists them; ``None`` takes what was found with the weights.

    Returns
    -------
    sequence of str
        The classes.

    Raises
    ------
    OSError
        If the file can't be opened.
    ValueError
        If there is no list, or it is another tagger's. The message speaks of the
        options of the command, and says where to get a list and where to put it.
    """
    checkpoint = embedder.checkpoint_
    labels = checkpoint.labels if path is None else read_label_list(path)
    n_classes = embedder.n_components_
    if labels is None:
        sources = dict.fromkeys(
            record.labels
            for record in list_checkpoints(checkpoint.encoder)
            if record.labels and record.n_classes == n_classes
        )
        folders = (os.path.dirname(checkpoint.path), locate_checkpoints(None))
        where = (
            ", or get "
            + " or ".join(f"{source.name} from {source.url}" for source in sources)
            + f" and put it into {' or '.join(dict.fromkeys(folders))}"
        )
        raise ValueError(
            f"the list of the {n_classes} classes of {checkpoint.path} was not found: "
            f"name its file with --tagger-labels{where if sources else ''}"
        )
    if len(labels) != n_classes:
        raise ValueError(
            f"--tagger-labels={path} lists {len(labels)} classes and "
            f"{checkpoint.path} has {n_classes}: it is another model's list"
        )
    return labels


def _guess_encoder(weights):
    name = os.path.basename(weights)
    path = os.path.expanduser(weights)
    records = list_checkpoints()
    record = _find_by_name(weights)
    if record is not None:
        return record.encoder
    if os.path.isdir(path):
        return _guess_encoder_of_folder(path)
    if not os.path.exists(path):
        known = {word.lower(): r.name for r in records for word in (r.name, *r.files)}
        close = difflib.get_close_matches(name.lower(), known, n=1)
        hint = f" Did you mean {known[close[0]]}?" if close else ""
        raise ValueError(
            f"--weights={weights} is neither a file nor the name of a checkpoint."
            f"{hint} The names are {', '.join(record.name for record in records)}"
        )
    if name in HUB_WEIGHTS:
        return _guess_encoder_of_folder(os.path.dirname(path))
    suffix = os.path.splitext(name)[1].lower()
    if suffix in _SUFFIXES:
        return _SUFFIXES[suffix]
    for encoder in _EMBEDDERS:
        # Not within a word: "last.pt" is no AST's.
        if re.search(rf"(?<![a-z]){encoder}(?![a-z])", name.lower()):
            return encoder
    record = recognise_file(path)
    if record is not None:
        return record.encoder
    raise ValueError(
        f"--weights={weights}: its name does not tell which encoder it is of; say it, "
        f"--encoder {' or '.join(_EMBEDDERS)}"
    )


def _find_by_name(weights):
    """Return the checkpoint of a name, or whose file is called so, or None."""
    name = os.path.basename(weights)
    for record in list_checkpoints():
        # All models that transformers saves have files of the same names.
        if weights == record.name or (name in record.files and not record.hub_id):
            return record
    return None


def _guess_encoder_of_folder(path):
    """Tell which encoder it is that transformers saved in a folder."""
    try:
        with open(os.path.join(path, "config.json"), encoding="utf-8") as file:
            kind = json.load(file)["model_type"]
    except (OSError, ValueError, KeyError, TypeError):
        kind = None
    return "ast" if kind == "audio-spectrogram-transformer" else "clap"
