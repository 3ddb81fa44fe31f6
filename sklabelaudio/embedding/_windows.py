"""The windows of models, in which clips are cut."""

from ..audio._windows import WindowPlan

# YAMNet and VGGish: 96 frames of 400 samples every 160.
_PATCH_FRAMES = 96
_PATCHES_TOGETHER = 16


def plan_patches(front_end, *, hop, default_hop, tail):
    """Plan windows of 0.96 s, which share the frames of one spectrogram.

    Parameters
    ----------
    front_end : FrontEnd
        The front end, whose frames are not centred.
    hop : float or None
        Seconds from one window to the next, in whole frames.
    default_hop : float
        What ``None`` stands for.
    tail : {"pad", "drop"}
        As in `WindowPlan`.

    Returns
    -------
    WindowPlan
        The plan.

    Raises
    ------
    ValueError
        If `hop` is longer than a window or shorter than a frame.
    """
    frame = front_end.hop_length
    seconds = default_hop if hop is None else hop
    n_frames = round(seconds * front_end.sampling_rate / frame)
    if not 1 <= n_frames <= _PATCH_FRAMES:
        raise ValueError(
            f"hop={hop:g} s must lie between a frame's 0.01 s and the window's 0.96 s, "
            "so that every sound is heard"
        )
    return WindowPlan(
        length=front_end.min_samples,
        hop=n_frames * frame,
        tail=tail,
        n_together=_PATCHES_TOGETHER,
    )


def plan_segments(front_end, *, window, hop, slack=0.02):
    """Plan windows of samples, each with a spectrogram of its own.

    Parameters
    ----------
    front_end : FrontEnd
        The front end.
    window : float
        Length of a window, in seconds.
    hop : float or None
        Seconds from one window to the next; ``None`` is `window`.
    slack : float, default=0.02
        By how much of a window a clip may be longer to be taken whole.

    Returns
    -------
    WindowPlan
        The plan.

    Raises
    ------
    ValueError
        If `hop` is longer than `window`, or a window is too short for the front end.
    """
    rate = front_end.sampling_rate
    length = round(window * rate)
    if length < front_end.min_samples:
        raise ValueError(
            f"window={window:g} s is {length} samples at {rate} Hz, and the model "
            f"needs {front_end.min_samples}: raise window"
        )
    step = length if hop is None else round(hop * rate)
    if not 1 <= step <= length:
        raise ValueError(
            f"hop={hop:g} s must lie between one sample and the window's {window:g} s, "
            "so that every sound is heard"
        )
    return WindowPlan(
        length=length, hop=step, tail="align", slack=round(slack * length)
    )
