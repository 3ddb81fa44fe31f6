"""Larger gradients of a loss, for half precision's sake."""

import torch


def scale_gradient(loss, scale):
    """Return a loss as it is, whose gradient is larger.

    Parameters
    ----------
    loss : Tensor
        The loss.
    scale : float
        By what its gradient is multiplied.

    Returns
    -------
    Tensor
        The loss.
    """
    return loss if scale == 1.0 else _ScaledGradient.apply(loss, scale)


class _ScaledGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, loss, scale):
        ctx.scale = scale
        return loss.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.scale, None
