"""The state of a training in a folder, from which it goes on after a kill."""

import hashlib
import json
import os

import numpy as np

from ..exceptions import CheckpointError

_FILE = "training.pt"


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
        self.path = os.path.join(os.path.expanduser(os.fspath(path)), _FILE)
        self.configuration = configuration
        self.device = device

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
            held = torch.load(self.path, map_location=self.device, weights_only=True)
            former, state = held["configuration"], held["state"]
        except Exception as error:  # torch raises of many kinds over damaged files
            reason = str(error).partition("\n")[0]
            raise CheckpointError(
                self.path,
                f"it is damaged, or no state of a training ({reason}): delete it to "
                "train from the beginning",
            ) from error
        names = [*self.configuration, *(set(former) - set(self.configuration))]
        differing = [
            f"{name} was {former.get(name)} and is {self.configuration.get(name)}"
            for name in names
            if former.get(name) != self.configuration.get(name)
        ]
        if differing:
            raise ValueError(
                f"checkpoint={os.path.dirname(self.path)!r} holds the training of "
                f"another configuration: {'; '.join(differing)}. Set it back to go on, "
                "or name another folder"
            )
        return state

    def save(self, state):
        """Put a state in the place of the former, or nothing if it can't be written.

        Parameters
        ----------
        state : dict
            The state.
        """
        import torch

        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        # A kill at any moment leaves the former state or this one.
        part = f"{self.path}.part"
        with open(part, "wb") as stream:
            torch.save({"configuration": self.configuration, "state": state}, stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, self.path)


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
        The clips. Files stand for themselves by their paths.
    targets : Targets
        Their labels.
    sample_weight : ndarray or None
        Their weights.

    Returns
    -------
    dict of str to str
        The digests.
    """
    clips = getattr(source, "clips", None)
    if clips is None:
        X = digest(source.X)
    elif clips.is_files:
        X = digest(np.array([os.fspath(item) for item in clips.items]))
    else:
        X = digest(*(np.asarray(clips.items[index]) for index in range(len(clips))))
    weights = "None" if sample_weight is None else digest(sample_weight)
    labels = json.dumps([str(label) for label in targets.labels])
    return {"X": X, "y": digest(targets.indicator, labels), "sample_weight": weights}


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


def _describe(value):
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_describe, value))}]"
    if isinstance(value, dict):
        items = sorted(value.items())
        return f"{{{', '.join(f'{key}: {_describe(item)}' for key, item in items)}}}"
    if isinstance(value, np.ndarray):
        return f"array {digest(value)}"
    if isinstance(value, os.PathLike):
        return repr(os.fspath(value))
    text = repr(value)
    if " at 0x" in text:  # which is another in each process
        kind = value if hasattr(value, "__qualname__") else type(value)
        return f"{kind.__module__}.{kind.__qualname__}"
    return text
