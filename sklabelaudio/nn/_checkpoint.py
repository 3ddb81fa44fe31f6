"""Weights from files: the authors' own layouts, read safely and loaded strictly."""

import os
from collections.abc import Mapping

import numpy as np
import torch

from ..exceptions import CheckpointError
from ._torch_file import read_torch_file

# Under which authors keep the weights, beside optimiser states and the like.
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
# What DataParallel and the authors' training classes put before every name.
_PREFIXES = ("module.", "sed_model.", "model.", "net.")
_N_LISTED = 10


def load_checkpoint(model, path):
    """Load a file of weights, in its authors' own layout, into a model.

    The names, shapes and kinds of numbers must be the model's own, all of them: a
    file of another model is an error that says what differs, and leaves the model
    as it was.

    Parameters
    ----------
    model : torch.nn.Module
        The model; its weights are replaced. If it has a method `convert_checkpoint`,
        that turns the authors' names and layouts into the model's own.
    path : str or path-like
        A file that ``torch.save`` wrote (its tensors may stand under a key such as
        ``"state_dict"`` and have a common prefix such as ``"module."``), a
        safetensors file, or, for models published so, Keras's HDF5 or TensorFlow
        Lite's. The kind is told by the content.

    Returns
    -------
    model : torch.nn.Module
        The same model.

    Raises
    ------
    CheckpointError
        If there is no such file, it is damaged, it holds more than tensors and could
        run code, or it is not a file of this model. It is a :class:`ValueError`.

    Notes
    -----
    Half and double precision are converted to the model's own. The one thing that may
    be missing is batch norm's ``num_batches_tracked``, which files of old versions of
    torch lack; the model's own counts stay then.

    Examples
    --------
    >>> import os, tempfile
    >>> import torch
    >>> from sklabelaudio.nn import load_checkpoint
    >>> trained, model = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "linear.pt")
    ...     torch.save({"epoch": 8, "state_dict": trained.state_dict()}, path)
    ...     model = load_checkpoint(model, path)
    >>> torch.equal(model.weight, trained.weight)
    True
    """
    state = _strip_prefixes(_read(path), model.state_dict())
    if hasattr(model, "convert_checkpoint"):
        state = model.convert_checkpoint(state)
    load_state(model, state, path)
    return model


def read_checkpoint(path):
    """Read a file of weights of any kind into tensors by name.

    Parameters
    ----------
    path : str or path-like
        As in :func:`load_checkpoint`.

    Returns
    -------
    state : dict of str to Tensor
        The tensors, on the CPU, without wrappers and common prefixes. Those of a
        zip file of torch's are mapped from it: copy what is to outlive the file.

    Raises
    ------
    CheckpointError
        If there is no such file, it is damaged, or it holds more than tensors.
    """
    return _strip_prefixes(_read(path))


def load_state(model, state, path):
    """Copy tensors into a model, or say all that keeps them from fitting.

    Parameters
    ----------
    model : torch.nn.Module
        Its weights are replaced if, and only if, all of `state` fits.
    state : dict of str to Tensor
        The model's own names; only ``num_batches_tracked`` may be missing.
    path : str or path-like
        Where they came from, for the message.

    Raises
    ------
    CheckpointError
        If names are missing or unknown, shapes or kinds of numbers differ, or values
        are NaN or infinite (in the model's precision).
    """
    own = model.state_dict()
    missing = [
        name
        for name in own
        if name not in state and name.rpartition(".")[2] != "num_batches_tracked"
    ]
    unknown = [name for name in state if name not in own]
    shapes, kinds, values = [], [], []
    converted = {}
    for name, target in own.items():
        if name not in state:
            continue
        source = state[name]
        if source.shape != target.shape:
            shapes.append(
                f"{name}: {tuple(source.shape)} in the file, "
                f"{tuple(target.shape)} in the model"
            )
        elif _kind(source) != _kind(target):
            kinds.append(
                f"{name}: {_name_dtype(source)} in the file, "
                f"{_name_dtype(target)} in the model"
            )
        else:
            converted[name] = source.to(target.dtype)
            if not torch.isfinite(converted[name]).all():
                values.append(name)

    report = [
        _list_faults("missing from the file", missing),
        _list_faults("unknown to the model", unknown),
        _list_faults("of another shape", shapes),
        _list_faults("of another kind of number", kinds),
        _list_faults("NaN or infinite", values),
    ]
    report = [line for line in report if line]
    if report:
        hint = (
            "Is this the file of another model?"
            if missing or unknown or shapes or kinds
            else "The file is damaged, or its training had diverged."
        )
        raise CheckpointError(
            os.fspath(path),
            f"it does not fit {type(model).__name__}.\n" + "\n".join([*report, hint]),
        )
    model.load_state_dict(converted, strict=False)


def _list_faults(title, faults):
    if not faults:
        return None
    listed = "".join(f"\n    {fault}" for fault in faults[:_N_LISTED])
    more = len(faults) - _N_LISTED
    return f"  {len(faults)} {title}:{listed}" + (
        f"\n    and {more} more" if more > 0 else ""
    )


def _kind(tensor):
    if tensor.is_complex():
        return "complex"
    if tensor.is_floating_point():
        return "floating"
    return "boolean" if tensor.dtype == torch.bool else "integer"


def _name_dtype(tensor):
    return str(tensor.dtype).removeprefix("torch.")


def _read(path):
    path = os.fspath(path)
    try:
        with open(path, "rb") as file:
            start = file.read(512)
    except OSError as error:
        raise CheckpointError(path, _explain(path, error)) from error
    tensors = _tensors_of(_unwrap(_read_kind(path, start)))
    if not tensors:
        raise CheckpointError(path, "it holds no tensors by name, so no state dict")
    return tensors


def _explain(path, error):
    if os.path.isdir(path):
        return "it is a folder; pass the file of weights in it"
    if isinstance(error, FileNotFoundError):
        return (
            f"there is no such file (in {os.getcwd()})"
            if not os.path.isabs(path)
            else "there is no such file"
        )
    return error.strerror or str(error)


def _read_kind(path, start):
    if start.startswith((b"PK", b"\x80")):
        return read_torch_file(path)
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        from ._keras_file import read_keras_file

        return read_keras_file(path)
    if start[4:8] == b"TFL3":
        from ._tflite_file import read_tflite_file

        return read_tflite_file(path)
    if start[8:9] == b"{" or path.endswith(".safetensors"):
        return _read_safetensors(path, start)
    raise CheckpointError(path, _explain_content(start))


def _explain_content(start):
    if not start:
        return "it is empty. Download it again"
    text = start.lstrip().lower()
    if text.startswith(b"version https://git-lfs"):
        return (
            "it is a Git LFS pointer, a few lines that stand for the file. Fetch the "
            "file itself with `git lfs pull`, or from its address"
        )
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return (
            "it is a web page, perhaps the error page that came in place of the "
            "weights. Open the address in a browser and download the file itself"
        )
    if start.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf")):
        return "it is compressed; unpack it and pass the file of weights in it"
    return (
        "it is none of the kinds known: files of torch.save, safetensors, Keras's "
        "HDF5 or TensorFlow Lite"
    )


def _read_safetensors(path, start):
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if start[8:9] != b"{":
        raise CheckpointError(path, _explain_content(start))
    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError(
            path, f"it is damaged or cut short ({error}). Download it again"
        ) from error


def _unwrap(content):
    for _ in range(2):
        for name in _WRAPPERS:
            if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
                content = content[name]
                break
    return content


def _tensors_of(content):
    if not isinstance(content, Mapping):
        return {}
    return {
        name: torch.as_tensor(value)
        for name, value in content.items()
        if isinstance(name, str) and isinstance(value, torch.Tensor | np.ndarray)
    }


def _strip_prefixes(state, own=()):
    """Remove what precedes every name, unless the model's `own` names have it too."""
    while prefix := next((p for p in _PREFIXES if _all_start(state, p)), None):
        if _all_start(own, prefix):
            break
        state = {name.removeprefix(prefix): state[name] for name in state}
    return state


def _all_start(names, prefix):
    return bool(names) and all(name.startswith(prefix) for name in names)
