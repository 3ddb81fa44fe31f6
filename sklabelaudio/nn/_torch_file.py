"""Files that torch.save wrote, read without running anything they hold."""

import os
import pickle
import pickletools
import re
import threading
import zipfile

import numpy as np
import torch

from ..exceptions import CheckpointError

# What torch.save's older layout begins with, after the pickle's own two bytes.
_MAGIC_NUMBER = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."

# How torch says that it will not give, call or fill something.
_REFUSALS = (
    r"GLOBAL (\S+) was not an allowed",
    r"GLOBAL (\S+) whose module",
    r"reduce for unrecognized function (.+)",
    r"allowlisted via `add_safe_globals`,? but got (.+)",
)

# torch keeps its list of allowed names for the whole process.
_lock = threading.Lock()


def read_torch_file(path):
    """Read what torch.save wrote: tensors and plain containers, nothing else.

    Parameters
    ----------
    path : str
        A file in the zip layout (torch 1.6 and later) or the older one.

    Returns
    -------
    object
        What was saved. Tensors are on the CPU; those of a zip file are mapped from
        it, not read until they are used. NumPy arrays are returned as arrays.

    Raises
    ------
    CheckpointError
        If the file holds more than tensors, numbers, texts and containers of these,
        is damaged, or was written by something else.
    """
    path = os.fspath(path)
    with open(path, "rb") as file:
        start = file.read(32)
    zipped = start.startswith(b"PK")
    if zipped:
        _check_zip(path)
    elif start[2 : 2 + len(_MAGIC_NUMBER)] != _MAGIC_NUMBER:
        raise CheckpointError(
            path,
            "it is a pickle, but not one that torch.save wrote. Pickles can run code "
            "and are not opened here; save its tensors as a state dict with torch.save",
        )
    try:
        return _finish(_load(path, mmap=zipped))
    except MemoryError:
        raise
    # A damaged pickle makes its reader stumble in any way there is.
    except Exception as error:
        name = _name_refused(error)
        if name is not None and (zipped or _has_whole_pickles(path)):
            raise CheckpointError(path, _refusal(path, name)) from error
        reason = _shorten(error) if name is None else "it ends within a name"
        raise CheckpointError(
            path, f"it is damaged or cut short ({reason}). Download it again"
        ) from error


def _check_zip(path):
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.rpartition("/")[2] for name in archive.namelist()]
    except zipfile.BadZipFile as error:
        raise CheckpointError(
            path, f"it is damaged or cut short ({error}). Download it again"
        ) from error
    if "constants.pkl" in names:
        raise CheckpointError(
            path,
            "it is a TorchScript program, not a state dict. Where you trust it: "
            "torch.save(torch.jit.load(path).state_dict(), new_path)",
        )
    if "data.pkl" not in names:
        raise CheckpointError(
            path,
            "it is a zip archive, but not one that torch.save wrote; if the weights "
            "are a file in it, unpack that file and pass its path",
        )


def _has_whole_pickles(path):
    """Tell whether a file of the older layout was cut in the middle of a name."""
    try:
        with open(path, "rb") as file:
            for _ in range(4):  # magic number, version, sizes of numbers, content
                for _ in pickletools.genops(file):
                    pass
    except ValueError:
        return False
    return True


def _load(path, mmap):
    def load():
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)

    with _lock:
        try:
            return load()
        except pickle.UnpicklingError as error:
            if _name_refused(error) not in _STAND_INS:
                raise
        allowed = [(stand_in, name) for name, stand_in in _STAND_INS.items()]
        with torch.serialization.safe_globals(allowed):
            return load()


def _name_refused(error):
    """Return what the file asked for and does not get, or None for other errors."""
    if isinstance(error, _RefusedError):
        return str(error)
    for pattern in _REFUSALS:
        if match := re.search(pattern, str(error)):
            return match[1]
    return None


def _refusal(path, name):
    new_path = os.path.splitext(path)[0] + "_state.pt"
    return (
        f"it asks for {name}. A file that holds more than tensors can run code of its "
        "writer's, so it is not opened. Where you trust its source, save the weights "
        "alone once, with the packages it needs installed:\n"
        f'    checkpoint = torch.load({path!r}, map_location="cpu", '
        "weights_only=False)\n"
        f'    torch.save(checkpoint["state_dict"], {new_path!r})\n'
        "(or checkpoint.state_dict(), if it is a whole model) and pass the new file"
    )


def _shorten(error):
    # torch wraps the cause in advice, part of which is to load it unsafely.
    lines = str(error).partition("\n\nCheck the documentation")[0].strip().splitlines()
    return lines[-1].strip().rstrip(".") if lines else type(error).__name__


# What stands in for NumPy's own functions while a file with arrays is read: they
# take plain numbers only, where NumPy's would rebuild any dtype from a file's word.


class _RefusedError(Exception):
    pass


class _DType:
    def __init__(self, name, align=False, copy=False):
        self.name = name
        self.order = "="

    def __setstate__(self, state):
        self.order = state[1]


class _Array:
    def __setstate__(self, state):
        _, shape, dtype, is_fortran, content = state
        if not re.fullmatch("[fiu][1248]|b1", dtype.name):
            raise _RefusedError(f"a NumPy array of dtype {dtype.name}")
        order = dtype.order if dtype.order in "<>" else "="
        flat = np.frombuffer(content, dtype=np.dtype(order + dtype.name))
        flat = flat.astype(dtype.name)  # torch takes native, writable arrays
        self.array = flat.reshape(shape, order="F" if is_fortran else "C")


def _reconstruct(cls, shape, typecode):
    return _Array()


def _scalar(dtype, content=None):
    # Scores and epochs noted beside the weights; nothing needs them.
    return None


def _empty():
    return b""  # what an array without elements holds


_STAND_INS = {
    "numpy.ndarray": _Array,
    "numpy.dtype": _DType,
    "builtins.bytes": _empty,
} | {
    f"{module}.{name}": stand_in
    for module in ("numpy.core.multiarray", "numpy._core.multiarray")
    for name, stand_in in (("_reconstruct", _reconstruct), ("scalar", _scalar))
}


def _finish(content):
    if isinstance(content, _Array):
        return content.array
    if isinstance(content, dict):
        return {key: _finish(value) for key, value in content.items()}
    return content
