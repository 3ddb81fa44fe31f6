"""How large a network is, and how much it computes."""

import torch
from torch.utils.flop_counter import FlopCounterMode


def count_values(module):
    """Count the values that a network is saved with.

    Parameters
    ----------
    module : torch.nn.Module
        The network.

    Returns
    -------
    int
        Number of its parameters and of its batch norms' statistics and counters.
    """
    return sum(values.numel() for values in module.state_dict().values())


def count_multiply_adds(module, clip_shape):
    """Count the multiplications with an addition that one clip takes.

    Parameters
    ----------
    module : torch.nn.Module
        The network, which is run once on zeros, in evaluation mode.
    clip_shape : sequence of int
        Shape of the clip, such as ``(431, 256)``.

    Returns
    -------
    int
        Those of convolutions and matrix products, as the network computes them. What
        works on each value alone, such as batch norms, is not counted.
    """
    # By the operations and not by hooks of layers, for networks also call functions.
    with FlopCounterMode(display=False) as counter:
        run_silence(module, clip_shape)
    return counter.get_total_flops() // 2


def run_silence(module, clip_shape):
    """Run a network once on a clip of zeros, in evaluation mode.

    Parameters
    ----------
    module : torch.nn.Module
        The network, whose mode stays as it was.
    clip_shape : sequence of int
        Shape of the clip.

    Returns
    -------
    object
        What it gives for a batch of that clip.
    """
    weight = next(module.parameters(), torch.zeros(0))
    clips = torch.zeros(1, *clip_shape, dtype=weight.dtype, device=weight.device)
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        with torch.inference_mode():
            return module(clips)
    finally:
        # Not by train(), which would reach parts that were frozen in evaluation mode.
        for part in training:
            part.training = True
