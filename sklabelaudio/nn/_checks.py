"""Checks that many encoders make: of the log-mel given, of weights and of sizes."""


def check_log_mel(model, log_mel, n_mels, *, shortest=1, longest=None, window=None):
    """Refuse what is no log-mel of a model, or of too few or too many frames.

    Parameters
    ----------
    model : torch.nn.Module
        The model, whose class the message names.
    log_mel : Tensor
        What it was given.
    n_mels : int or None
        Number of mel bands that it takes; None if it takes any, but for none.
    shortest : int, default=1
        Fewest frames that it takes.
    longest : int, default=None
        Most frames that it takes; None if it takes any.
    window : int, default=None
        Frames of the windows that longer clips are best cut in; None for `longest`.

    Raises
    ------
    ValueError
        If `log_mel` has not the shape ``(n_clips, n_frames, n_mels)``, or another
        number of frames.
    """
    name = type(model).__name__
    shape = tuple(log_mel.shape)
    if n_mels is None:
        bands, fits = "n_mels >= 1", all(shape[2:])
    else:
        bands, fits = n_mels, shape[2:] == (n_mels,)
    if len(shape) != 3 or not fits:
        raise ValueError(
            f"log_mel has the shape {shape}; this {name} takes (n_clips, n_frames, "
            f"{bands})"
        )
    n_frames = shape[1]
    if n_frames < shortest:
        mend = "put silence behind shorter clips"
    elif longest is not None and n_frames > longest:
        mend = f"cut longer clips in windows of {window or longest} frames"
    else:
        return
    if longest is None:
        taken = f"{shortest} or more"
    elif longest == shortest:
        taken = f"{shortest}"
    else:
        taken = f"{shortest} to {longest}"
    raise ValueError(
        f"log_mel has {n_frames} frames; this {name} takes {taken}: {mend}"
    )


def get_weight(state, name, model_name, *, n_axes=None):
    """Return one of a model's weights, from which sizes can be read.

    Parameters
    ----------
    state : dict of str to Tensor
        Weights.
    name : str
        Name of the one.
    model_name : str
        What the model is called in the message, with its article.
    n_axes : int, default=None
        Number of axes that the weight has; None if it doesn't matter.

    Returns
    -------
    Tensor
        The weight.

    Raises
    ------
    ValueError
        If there is none of that name, or it has another number of axes.
    """
    if name not in state:
        problem = f"there is no weight {name!r}"
    elif n_axes not in (None, state[name].ndim):
        problem = f"the weight {name!r} has the shape {tuple(state[name].shape)}"
    else:
        return state[name]
    raise ValueError(f"{problem}, so these are not the weights of {model_name}")


def scale_channels(channels, width):
    """Return the channels of a network that is wider or narrower.

    Parameters
    ----------
    channels : sequence of int
        Channels of the published size.
    width : float
        What they are multiplied by.

    Returns
    -------
    tuple of int
        The products, rounded.

    Raises
    ------
    ValueError
        If one of them is no channel.
    """
    scaled = tuple(round(n_channels * width) for n_channels in channels)
    if min(scaled) < 1:
        raise ValueError(
            f"width={width:g} leaves {min(scaled)} of {min(channels)} channels: pass a "
            "greater one"
        )
    return scaled
