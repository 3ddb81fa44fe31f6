"""1x1 convolutions as the matrix products that they are."""

from torch import nn


class PointwiseConv2d(nn.Module):
    """A 1x1 convolution over maps whose channels are last in memory.

    torch runs small batches of them, on one thread, through copies of the maps that a
    matrix product can do without. The result is the same to the bit.

    Parameters
    ----------
    conv : torch.nn.Conv2d
        The convolution, of kernel and stride 1 and one group.
    """

    def __init__(self, conv):
        super().__init__()
        self.weight = nn.Parameter(conv.weight.detach().flatten(1))
        self.bias = conv.bias

    def forward(self, x):
        """Return the maps that the convolution gives."""
        product = nn.functional.linear(x.permute(0, 2, 3, 1), self.weight, self.bias)
        return product.permute(0, 3, 1, 2)


def replace_pointwise(module):
    """Replace the 1x1 convolutions of a module, in place, for inference on a CPU.

    Parameters
    ----------
    module : torch.nn.Module
        The module.

    Returns
    -------
    module : torch.nn.Module
        The same module.
    """
    for name, child in module.named_children():
        if _is_pointwise(child):
            setattr(module, name, PointwiseConv2d(child))
        else:
            replace_pointwise(child)
    return module


def _is_pointwise(module):
    return (
        isinstance(module, nn.Conv2d)
        and module.kernel_size == module.stride == (1, 1)
        and module.groups == 1
        and module.padding in ((0, 0), "valid")
    )
