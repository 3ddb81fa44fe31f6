"""From the parameter `weights` to files: names, paths, digests, lists of classes."""

import difflib
import hashlib
import os
import zipfile

from .._download import hash_file
from ..exceptions import CheckpointError
from ..text._label_lists import read_label_list
from ._fetch import (
    HUB_WEIGHTS,
    fetch_checkpoint,
    fetch_from_hub,
    is_hub_id,
    locate_checkpoints,
)
from ._published import CHECKPOINTS
from ._resolved import ResolvedCheckpoint

# Encoders whose weights may be any repository's that transformers saved.
_OF_THE_HUB = ("ast", "clap")


def list_checkpoints(encoder=None):
    """List the published checkpoints that are known by name.

    Parameters
    ----------
    encoder : str, default=None
        Only those of one encoder: ``"ast"``, ``"audioclip"``, ``"clap"``,
        ``"efficientat"``, ``"htsat"``, ``"panns"``, ``"passt"``, ``"psla"``,
        ``"sp4sc"``, ``"vggish"`` or ``"yamnet"``.

    Returns
    -------
    checkpoints : tuple of Checkpoint
        For each its name, files and their addresses and digests, licence, length of
        the embedding, size, training data, and what its authors report.

    Raises
    ------
    ValueError
        If there is no such encoder.

    Notes
    -----
    A checkpoint is fetched the first time that an embedder, or an estimator that trains
    an encoder, is fitted with its name, into the folder ``checkpoints`` of the data
    home (see
    :func:`~sklabelaudio.datasets.get_data_home`), where it can be put by hand as well;
    those of the Hugging Face hub go to that library's own cache.

    Examples
    --------
    >>> from sklabelaudio.embedding import list_checkpoints
    >>> for checkpoint in list_checkpoints("efficientat")[:3]:
    ...     print(checkpoint.name, checkpoint.n_components, checkpoint.score)
    mn04_as 384 AudioSet evaluation mAP 0.432
    mn05_as 480 AudioSet evaluation mAP 0.443
    mn10_as 960 AudioSet evaluation mAP 0.471
    """
    if encoder is None:
        return CHECKPOINTS
    chosen = _records_of(encoder)
    if not chosen:
        encoders = sorted({record.encoder for record in CHECKPOINTS})
        raise ValueError(
            f"encoder={encoder!r} is none of {', '.join(map(repr, encoders))}"
        )
    return chosen


def _records_of(encoder):
    """Return an encoder's checkpoints; none for an encoder that is not published."""
    return tuple(record for record in CHECKPOINTS if record.encoder == encoder)


def get_checkpoint(name, encoder):
    """Return a checkpoint by its name.

    Parameters
    ----------
    name : str
        The name.
    encoder : str
        The encoder that it is to be of.

    Returns
    -------
    Checkpoint
        What is known of it.

    Raises
    ------
    ValueError
        If the encoder has no checkpoint of this name.
    """
    records = _records_of(encoder)
    for record in CHECKPOINTS:
        if record.name == name:
            return _check_encoder(name, record, encoder)
    # Official names of files are not a bad guess either.
    known = {word.lower(): r.name for r in records for word in (r.name, *r.files)}
    close = difflib.get_close_matches(os.path.basename(name).lower(), known, n=1)
    hint = f" Did you mean {known[close[0]]!r}?" if close else ""
    names = ", ".join(repr(record.name) for record in records) or "none"
    raise ValueError(
        f"weights={name!r} is neither a file nor the name of a checkpoint.{hint} The "
        f"names for {encoder!r} are {names}"
    )


def resolve_weights(weights, encoder, *, data_home=None, progressbar=False):
    """Find the files that the parameter `weights` means, and fetch them if needed.

    Parameters
    ----------
    weights : str, path-like or None
        Name of a checkpoint; path of a file; for ``"ast"`` and ``"clap"`` also a
        folder or a Hugging Face id; or None for random weights.
    encoder : str
        The encoder, such as ``"yamnet"``.
    data_home : str or path-like, default=None
        As in :func:`~sklabelaudio.datasets.get_data_home`.
    progressbar : bool, default=False
        Show the progress of downloads on standard error.

    Returns
    -------
    ResolvedCheckpoint
        The files, their digest and their classes.

    Raises
    ------
    ValueError
        If `weights` is neither a file nor a name, or is a checkpoint of another
        encoder, or the list of its classes has another length.
    OSError
        If files can't be fetched, or are not those that the name stands for.
    """
    if weights is None:
        return ResolvedCheckpoint(encoder)
    path = os.path.abspath(os.path.expanduser(weights))
    named = _is_name(weights)
    if not named and os.path.exists(path):
        path = _find_in_folder(path)
        record, paths = None, (path, *_find_companions(path, encoder, data_home))
    elif not named and _is_of_the_hub(weights, encoder):
        record, paths = None, fetch_from_hub(weights, None, HUB_WEIGHTS)
    else:
        record = get_checkpoint(os.fspath(weights), encoder)
        paths = fetch_checkpoint(record, data_home=data_home, progressbar=progressbar)
    others = _names_of_texts(encoder)
    digests = [hash_file(p) for p in paths if os.path.basename(p) not in others]
    if record is None:
        record = recognise(digests[0])
        if record is not None:
            _check_encoder(weights, record, encoder)
    return ResolvedCheckpoint(
        encoder=encoder,
        record=record,
        paths=paths,
        sha256=_join(digests),
        labels=_read_labels(paths[0], encoder, record, data_home),
    )


def find_again(known, weights):
    """Find weights that were resolved before, perhaps on another machine.

    Parameters
    ----------
    known : ResolvedCheckpoint
        What they were.
    weights : str, path-like or None
        The parameter as it is now. It is looked at if they have left their place.

    Returns
    -------
    ResolvedCheckpoint
        The same weights, in the place that they were in, else in that of `weights`, or
        else by the name of their checkpoint.

    Raises
    ------
    CheckpointError
        If they can't be found, or are others.
    OSError
        If they can't be fetched.
    """
    if known.path is None:
        return known
    # From another folder a relative path leads elsewhere.
    for place in (known.path, weights, known.name):
        if place is not None and _leads_somewhere(place, known.encoder):
            break
    else:
        raise CheckpointError(
            known.path,
            "it is not there any more: put it back, set weights to where it is now, or "
            "fit again",
        )
    found = resolve_weights(place, known.encoder, progressbar=True)
    if found.sha256 != known.sha256:
        raise CheckpointError(
            found.path,
            f"it is another file than in fit: its SHA-256 is {found.sha256} and was "
            f"{known.sha256}; put that file back, or fit again",
        )
    return found


def _leads_somewhere(weights, encoder):
    return (
        _is_name(weights)
        or os.path.exists(os.path.expanduser(weights))
        or _is_of_the_hub(weights, encoder)
    )


def _is_name(weights):
    return any(weights == record.name for record in CHECKPOINTS)


def _is_of_the_hub(weights, encoder):
    return encoder in _OF_THE_HUB and is_hub_id(weights)


def find_labels(path, encoder, *, data_home=None):
    """Find the list of classes that belongs to a file of weights.

    Parameters
    ----------
    path : str
        The file of weights.
    encoder : str
        The encoder that it is for.
    data_home : str or path-like, default=None
        As in :func:`~sklabelaudio.datasets.get_data_home`.

    Returns
    -------
    path : str or None
        The list beside the weights; or else the weights themselves, if they are a
        TensorFlow Lite file with the list packed in; or else that in the data home.
    """
    records = _records_of(encoder)
    names = dict.fromkeys(record.labels.name for record in records if record.labels)
    packed = [path] if path.endswith(".tflite") and zipfile.is_zipfile(path) else []
    for candidate in (
        *(os.path.join(os.path.dirname(path), name) for name in names),
        *packed,
        *(os.path.join(locate_checkpoints(data_home), name) for name in names),
    ):
        if os.path.isfile(candidate):
            return candidate
    return None


def _check_encoder(weights, record, encoder):
    if record.encoder != encoder:
        raise ValueError(
            f"weights={weights!r} is the checkpoint {record.name!r} of the encoder "
            f"{record.encoder!r}, not of {encoder!r}: use that encoder, or weights of "
            "this one"
        )
    return record


def _find_in_folder(path):
    """Return the weights in a folder that transformers saved; a file as it is."""
    if not os.path.isdir(path):
        return path
    for name in HUB_WEIGHTS:
        if os.path.isfile(os.path.join(path, name)):
            return os.path.join(path, name)
    raise ValueError(
        f"weights={path!r} is a folder without {' or '.join(HUB_WEIGHTS)}; pass the "
        "file of weights in it"
    )


def recognise(digest):
    """Return the published checkpoint whose weights have a digest, or None."""
    for record in CHECKPOINTS:
        expected = record.sources[0].sha256
        if expected is not None and digest.startswith(expected):
            return record
    return None


def recognise_file(path):
    """Return the published checkpoint that a file is, or None."""
    return recognise(hash_file(path))


def _find_companions(path, encoder, data_home):
    """Return the files that go with a file of weights, where they are there."""
    folders = os.path.dirname(path), locate_checkpoints(data_home)
    found = []
    for name in dict.fromkeys(
        name for record in _records_of(encoder) for name in record.files[1:]
    ):
        candidates = [os.path.join(folder, name) for folder in folders]
        found += [c for c in candidates if os.path.isfile(c)][:1]
    return found


def _names_of_texts(encoder):
    """Return the names of files that an encoder's texts need, and its clips don't."""
    return {
        source.name
        for record in _records_of(encoder)
        for source in record.sources
        if not source.decides
    }


def _join(digests):
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _read_labels(path, encoder, record, data_home):
    if record is not None and record.labels is None:
        return record.class_names  # a list that is there is another checkpoint's
    found = find_labels(path, encoder, data_home=data_home)
    if found is None:
        return None
    if found == path:
        from ..nn._tflite_file import read_tflite_labels

        labels = read_tflite_labels(path)
    else:
        labels = tuple(read_label_list(found))
    if None not in (record, labels) and len(labels) != record.n_classes:
        raise ValueError(
            f"{found} lists {len(labels)} classes, and {record.name!r} has "
            f"{record.n_classes}: it is another model's list. Replace it by the one "
            f"from {record.labels.url}, or move it away"
        )
    return labels
