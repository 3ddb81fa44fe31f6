"""Files of checkpoints: fetched by name, checked against their digests."""

import os
import re
import warnings

from .._download import download, expect, hash_file, locate_data_home, make_folder
from .._optional import import_optional_dependency

# What transformers calls the weights of a model, the newer name first.
HUB_WEIGHTS = ("model.safetensors", "pytorch_model.bin")


def fetch_checkpoint(checkpoint, *, data_home=None, progressbar=False):
    """Return the paths of a checkpoint's files, and download those that are missing.

    Files that are there are checked and never replaced: they may have been put there
    by hand. The list of classes is fetched along with the weights.

    Parameters
    ----------
    checkpoint : Checkpoint
        What to fetch.
    data_home : str or path-like, default=None
        As in :func:`~sklabelaudio.datasets.get_data_home`.
    progressbar : bool, default=False
        Show the progress of downloads on standard error.

    Returns
    -------
    paths : tuple of str
        The files, the encoder's weights first.

    Raises
    ------
    OSError
        If a file can't be downloaded, or is not the one expected.
    """
    if checkpoint.hub_id is not None:
        (path,) = fetch_from_hub(
            checkpoint.hub_id, checkpoint.revision, checkpoint.files
        )
        _check(path, checkpoint.sources[0])
        return (path,)
    folder = make_folder(locate_checkpoints(data_home))
    paths, fetched = [], False
    for source in checkpoint.sources:
        path = os.path.join(folder, source.name)
        paths.append(path)
        if os.path.exists(path):
            _check(path, source)
        else:
            _fetch(source, path, progressbar)
            fetched = True
    if fetched and checkpoint.labels is not None:
        _fetch_labels(checkpoint, folder)
    return tuple(paths)


def locate_checkpoints(data_home):
    """Return the folder of the checkpoints, which need not exist."""
    return os.path.join(locate_data_home(data_home), "checkpoints")


def is_hub_id(weights):
    """Tell whether `weights` looks like a Hugging Face id rather than a path."""
    weights = os.fspath(weights)
    is_file = weights.endswith((".bin", ".ckpt", ".pt", ".pth", ".safetensors"))
    return not is_file and re.fullmatch(r"[\w.-]+/[\w.-]+", weights) is not None


def fetch_from_hub(hub_id, revision, names):
    """Fetch a model of the Hugging Face hub into that library's cache.

    Parameters
    ----------
    hub_id : str
        The repository.
    revision : str or None
        Its commit; None for the newest.
    names : sequence of str
        Names that its file of weights may have; the first that it has is fetched.

    Returns
    -------
    paths : tuple of one str
        The file of weights. The folder that it is in has the model's settings and
        tokenizer too, so that transformers can load it.

    Raises
    ------
    OSError
        If there is no such repository or file, or no connection.
    """
    hub = import_optional_dependency("huggingface_hub", "text")
    for name in names:
        try:
            path = hub.hf_hub_download(hub_id, name, revision=revision)
            _fetch_settings(hub, hub_id, revision, os.path.dirname(path))
        except (OSError, ValueError) as caught:  # the hub's errors are both
            error = caught
        else:
            return (path,)
    reason = str(error).strip().partition("\n")[0]
    raise OSError(
        f"weights={hub_id!r} can't be loaded from the Hugging Face hub ({reason}): "
        "check the spelling; without a network, or with HF_HUB_OFFLINE=1, only what "
        f"was loaded before is there. Or download its files ({' or '.join(names)}, "
        "config.json and the others) yourself and pass the folder they are in"
    ) from error


def _fetch_settings(hub, hub_id, revision, folder):
    """Fetch the small files of a model; without a network, those there must do."""
    try:
        hub.snapshot_download(
            hub_id, revision=revision, allow_patterns=["*.json", "*.txt"]
        )
    except (OSError, ValueError):
        if not os.path.isfile(os.path.join(folder, "config.json")):
            raise


def _fetch(source, path, progressbar):
    if not source.fetchable:
        raise OSError(
            f"{source.name} is in a folder that only a browser can open: download it "
            f"yourself from {source.url} and put it at {path}, or pass the path of "
            "the file as weights"
        )
    download(source.url, path, sha256=source.sha256, progressbar=progressbar)


def _fetch_labels(checkpoint, folder):
    path = os.path.join(folder, checkpoint.labels.name)
    if os.path.exists(path):
        return
    try:
        _fetch(checkpoint.labels, path, progressbar=False)
    except OSError as error:
        # The weights are what was asked for; they work without names of classes.
        warnings.warn(
            f"the classes of {checkpoint.name!r} will have no names: {error}",
            stacklevel=2,
        )


def _check(path, source):
    if source.sha256 is None:
        return
    digest = hash_file(path)
    if not digest.startswith(source.sha256):
        raise OSError(
            f"{path} is there, but is not the file expected: its SHA-256 is {digest} "
            f"instead of {expect(source.sha256)}. Move it away to have the right one "
            "downloaded, or pass its path as weights to use it as it is"
        )
