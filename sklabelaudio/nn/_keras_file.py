"""Weight files that Keras wrote (HDF5)."""

import os

import numpy as np
import torch

from .._optional import import_optional_dependency
from ..exceptions import CheckpointError


def read_keras_file(path):
    """Read the weights of a Keras HDF5 file.

    Parameters
    ----------
    path : str or path-like
        A file of ``save_weights`` or of ``save``, by Keras 2 (``.h5``), or of
        ``save_weights`` by Keras 3 (``.weights.h5``).

    Returns
    -------
    state : dict of str to Tensor
        The weights in the file's order and in Keras's layout, floats in single
        precision. By Keras 2 they are named as Keras names them, less the ``":0"``,
        such as ``"layer1/conv/kernel"``; Keras 3 stores no names, so there they are
        named by their place in the file, such as ``"layers/conv2d/vars/0"``.

    Raises
    ------
    CheckpointError
        If the file is missing, damaged or not HDF5, or two of its weights have the
        same name.
    """
    h5py = import_optional_dependency("h5py", "checkpoints")
    path = os.fspath(path)
    try:
        with h5py.File(path, "r") as file:
            # A whole model has its weights in a group beside the optimiser's.
            weights = file.get("model_weights", file)
            return _to_tensors(path, _list_datasets(h5py, weights))
    except (CheckpointError, MemoryError):
        raise
    # A damaged file makes its reader stumble in any way there is.
    except Exception as error:
        raise CheckpointError(
            path,
            f"it is not an HDF5 file of Keras's, or is damaged or cut short ({error}). "
            "Download it again",
        ) from error


def _list_datasets(h5py, root):
    layers = _read_names(root, "layer_names")
    if layers is not None:
        return [
            (name.removesuffix(":0"), root[layer][name])
            for layer in layers
            for name in _read_names(root[layer], "weight_names") or ()
        ]
    found = []

    def visit(name, item):
        if isinstance(item, h5py.Dataset):
            found.append((name.removesuffix(":0"), item))

    root.visititems(visit)
    return found


def _read_names(group, attribute):
    """Return a list of names, or None; a long one is stored in numbered pieces."""
    if attribute in group.attrs:
        names = list(group.attrs[attribute])
    elif f"{attribute}0" in group.attrs:
        names, piece = [], 0
        while f"{attribute}{piece}" in group.attrs:
            names += list(group.attrs[f"{attribute}{piece}"])
            piece += 1
    else:
        return None
    return [name.decode() if isinstance(name, bytes) else name for name in names]


def _to_tensors(path, datasets):
    state = {}
    for name, dataset in datasets:
        if name in state:
            raise CheckpointError(
                path, f"two of its weights are named {name!r}, so which is meant?"
            )
        if dataset.dtype.kind not in "fiub":
            raise CheckpointError(
                path, f"{name!r} holds {dataset.dtype}, which is no kind of number"
            )
        # torch takes numbers in the machine's own byte order only.
        native = dataset.dtype.newbyteorder("=")
        dtype = np.float32 if native.kind == "f" else native
        state[name] = torch.from_numpy(np.array(dataset, dtype=dtype))
    return state
