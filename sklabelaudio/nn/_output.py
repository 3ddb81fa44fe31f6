"""What every encoder returns."""

from typing import NamedTuple

from torch import Tensor


class EncoderOutput(NamedTuple):
    """The stages of an encoder that a caller may want.

    Parameters
    ----------
    embedding : Tensor of shape (n_clips, n_components)
        The vector that the model's classifier reads.
    logits : Tensor of shape (n_clips, n_classes) or None, default=None
        Class scores before the sigmoid; ``None`` for an encoder without classes.
    framewise : Tensor of shape (n_clips, n_steps, n_classes) or None, default=None
        Probabilities over time, where the model has them.
    frames : Tensor of shape (n_clips, n_steps, n_components) or None, default=None
        Vectors over time, before the model pools them, where it has them. Their
        steps may be longer than those of `framewise`.
    """

    embedding: Tensor
    logits: Tensor | None = None
    framewise: Tensor | None = None
    frames: Tensor | None = None
