"""Where to compute."""

import torch


def choose_device(device):
    """Return the device that a parameter asks for.

    Parameters
    ----------
    device : str or torch.device
        ``"auto"`` is a GPU if there is one that torch can use, else the CPU.

    Returns
    -------
    torch.device
        The device.

    Raises
    ------
    ValueError
        If it can't be used here.
    """
    if isinstance(device, str) and device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (AssertionError, NotImplementedError, RuntimeError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"device={device!r} can't be used here ({reason}): pass device='auto', or "
            "'cpu'"
        ) from error
    return chosen
