"""Batch norms folded into the layers before them, for inference."""

from itertools import pairwise

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

_FUSE = [
    (nn.Conv1d, nn.BatchNorm1d, fuse_conv_bn_eval),
    (nn.Conv2d, nn.BatchNorm2d, fuse_conv_bn_eval),
    (nn.Linear, nn.BatchNorm1d, fuse_linear_bn_eval),
]


def fold_batch_norm(module):
    """Fold every batch norm into the convolution or linear layer before it.

    A layer and a batch norm are taken to follow each other where they are neighbours
    in a `torch.nn.Sequential`. A part of the module that can fold more than that has a
    method ``fold_()``, which does so in place. The batch norm's place is kept by an
    identity, so that the names of the other weights stay; its own are gone, and with
    them the module's use for training.

    Parameters
    ----------
    module : torch.nn.Module
        The module, which is changed in place and put in evaluation mode. A linear
        layer in it takes ``(n_clips, n_features)`` if a batch norm follows it.

    Returns
    -------
    module : torch.nn.Module
        The same module.
    """
    module.eval()
    for part in list(module.modules()):
        if hasattr(part, "fold_"):
            part.fold_()
    for sequence in module.modules():
        if not isinstance(sequence, nn.Sequential):
            continue
        for (name, layer), (next_name, norm) in pairwise(sequence.named_children()):
            fuse = _find_fuse(layer, norm)
            # Without running statistics a batch norm is no fixed map, and torch folds
            # linear layers with weights of the batch norm's own only.
            if fuse is not None and norm.track_running_stats and norm.affine:
                setattr(sequence, name, fuse(layer, norm))
                setattr(sequence, next_name, nn.Identity().eval())
    return module


def _find_fuse(layer, norm):
    """Return the function that folds this kind of layer, or None."""
    for layer_type, norm_type, fuse in _FUSE:
        if isinstance(layer, layer_type) and isinstance(norm, norm_type):
            return fuse
    return None
