"""Random weights that are the same each time."""

from contextlib import contextmanager

import torch


@contextmanager
def fixed_random_weights():
    """Have modules that are built within draw the same weights each time.

    Yields
    ------
    None
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield
