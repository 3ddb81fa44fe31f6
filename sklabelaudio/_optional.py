"""Optional dependencies, imported where they are needed."""

import importlib


def import_optional_dependency(name, extra):
    """Import a module that an extra of this package installs.

    Parameters
    ----------
    name : str
        Module to import, such as ``"transformers"``.
    extra : str
        The extra that brings it, such as ``"text"``.

    Returns
    -------
    module
        The imported module.

    Raises
    ------
    ImportError
        If it is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and not (name + ".").startswith(error.name + "."):
            raise  # the module is there, something it needs is not
        raise ImportError(
            f"{name} is needed here and is not installed: "
            f"pip install 'sklabelaudio[{extra}]'"
        ) from error
