"""The state of a training in a folder, from which it goes on after a kill."""

import hashlib
import json
import os
import re
import uuid
import zipfile
from collections.abc import Mapping
from contextlib import suppress

import numpy as np

from ..exceptions import CheckpointError

_FILE = "training.pt"
# What says whose the folder is as long as a training goes on.
_OWNER = "training.owner"
_PART = ".part"
# What differs from fold to fold.
_CLIPS = {"X", "y", "sample_weight"}
# Of objects without words of their own, which is another in each process.
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


class TrainingFolder:
    """A folder with the state of one training.

    Parameters
    ----------
    path : str or path-like
        The folder, which is made if there is none.
    configuration : dict of str to str
        All that the training depends on, in words.
    device : torch.device
        Where tensors are read to.
    """

    def __init__(self, path, configuration, device):
        self.folder = os.path.expanduser(os.fspath(path))
        self.path = os.path.join(self.folder, _FILE)
        self.configuration = configuration
        self.device = device
        self._part = None

    def read(self):
        """Return the state, or None where there is none yet.

        Returns
        -------
        dict or None
            The state that was saved last.

        Raises
        ------
        CheckpointError
            If it can't be read.
        ValueError
            If it is of another configuration; the message names what differs.
        """
        import torch

        if not os.path.isfile(self.path):
            return None
        try:
            _check_sums(self.path)  # at which torch does not look
            held = torch.load(self.path, map_location=self.device, weights_only=True)
            former, state = dict(held["configuration"]), held["state"]
        except Exception as error:  # torch raises of many kinds over damaged files
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise CheckpointError(
                self.path,
                f"it is damaged, or no state of a training ({reason}): delete it to "
                "train from the beginning",
            ) from error
        names = [*self.configuration, *(set(former) - set(self.configuration))]
        differing = [n for n in names if former.get(n) != self.configuration.get(n)]
        if differing:
            told = "; ".join(
                f"{name} was {former.get(name)} and is {self.configuration.get(name)}"
                for name in differing
            )
            mend = "Set it back to go on, or name another folder"
            if _CLIPS.intersection(differing):
                mend += (
                    ". In cross-validation and searches, where each fit has other "
                    "clips, leave checkpoint=None; files are told by their paths"
                )
            raise ValueError(
                f"checkpoint={self.folder!r} holds the training of another "
                f"configuration: {told}. {mend}"
            )
        return state

    def claim(self):
        """Make the folder this training's own, whoever has it.

        Raises
        ------
        OSError
            If nothing can be written there.
        """
        try:
            os.makedirs(self.folder, exist_ok=True)
            self._part = f"{self.path}.{uuid.uuid4().hex}{_PART}"
            with open(self._owner_path, "w") as stream:
                stream.write(self._part)
            # Of what a kill has left, and of one that has lost the folder.
            for name in os.listdir(self.folder):
                if name.startswith(_FILE) and name.endswith(_PART):
                    os.remove(os.path.join(self.folder, name))
        except OSError as error:
            raise OSError(
                error.errno,
                f"checkpoint={self.folder!r}: no state of the training can be written "
                f"there ({error.strerror}); name a folder of your own",
            ) from error

    def release(self):
        """Leave nothing but the state behind."""
        if self._part is not None and self._is_own():
            with suppress(OSError):
                os.remove(self._owner_path)

    def save(self, state):
        """Put a state in the place of the former, or nothing if it can't be written.

        Parameters
        ----------
        state : dict
            The state.

        Raises
        ------
        RuntimeError
            If another training has begun in the folder.
        """
        import torch

        os.makedirs(self.folder, exist_ok=True)
        # A kill at any moment leaves the former state or this one.
        try:
            with open(self._part, "wb") as stream:
                torch.save(
                    {"configuration": self.configuration, "state": state}, stream
                )
                stream.flush()
                os.fsync(stream.fileno())
            if self._is_own():
                os.replace(self._part, self.path)
        finally:
            with suppress(FileNotFoundError):
                os.remove(self._part)
        if not self._is_own():
            raise RuntimeError(
                f"checkpoint={self.folder!r}: another fit has begun there, and this "
                "one stops: give each a folder of its own, and leave checkpoint=None "
                "in cross-validation and searches"
            )

    @property
    def _owner_path(self):
        return os.path.join(self.folder, _OWNER)

    def _is_own(self):
        try:
            with open(self._owner_path) as stream:
                return stream.read() == self._part
        except FileNotFoundError:  # which no one claims
            return True


def describe_params(params):
    """Put parameters in words that are the same in another process.

    Parameters
    ----------
    params : dict
        The parameters by their names.

    Returns
    -------
    dict of str to str
        Their values.
    """
    return {name: _describe(value) for name, value in params.items()}


def describe_clips(source, targets, sample_weight):
    """Return digests of what is trained with.

    Parameters
    ----------
    source : ArraySet or ClipSet
        The clips. Files stand for themselves by their paths, whatever is in them.
    targets : Targets
        Their labels.
    sample_weight : ndarray or None
        Their weights.

    Returns
    -------
    dict of str to str
        How much there is of each, and the digests.
    """
    clips, kind = getattr(source, "clips", None), "clips"
    if clips is None:
        X = digest(source.X)
    elif clips.is_files:
        X = digest(np.array([os.fspath(item) for item in clips.items]))
        kind = "files"
    else:
        X = digest(*(np.asarray(clips.items[index]) for index in range(len(clips))))
    labels = json.dumps([str(label) for label in targets.labels])
    y = digest(targets.indicator, labels)
    weights = "None"
    if sample_weight is not None:
        weights = f"weights of {len(sample_weight)} clips ({digest(sample_weight)})"
    return {
        "X": f"{len(source)} {kind} ({X})",
        "y": f"labels of {len(targets.labels)} classes ({y})",
        "sample_weight": weights,
    }


def digest(*parts):
    """Return the beginning of the SHA-256 of arrays and texts.

    Parameters
    ----------
    *parts : ndarray or str
        The parts.

    Returns
    -------
    str
        Sixteen digits.
    """
    total = hashlib.sha256()
    for part in parts:
        array = (
            np.frombuffer(part.encode(), np.uint8) if isinstance(part, str) else part
        )
        total.update(f"{array.shape}{array.dtype.str}".encode())
        if array.dtype == object:
            array = np.array([str(item) for item in array.ravel()])
        # Row by row, for it may be a memory map.
        for row in array if array.ndim > 1 else (array,):
            total.update(np.ascontiguousarray(row).data)
    return total.hexdigest()[:16]


def _check_sums(path):
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"{damaged} is not what was written")


def _describe(value):
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_describe, value))}]"
    if isinstance(value, Mapping):
        items = sorted(value.items())
        return f"{{{', '.join(f'{key}: {_describe(item)}' for key, item in items)}}}"
    if isinstance(value, np.ndarray):
        return f"array {digest(value)}"
    if isinstance(value, np.generic):  # as searches over ranges give it
        return repr(value.item())
    if isinstance(value, os.PathLike):
        return repr(os.fspath(value))
    text = repr(value)
    if _ADDRESS.search(text) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    return _ADDRESS.sub("", text)
