import copy

import pytest
import torch
from torch import nn

from sklabelaudio.nn._pointwise import PointwiseConv2d, replace_pointwise


def make_maps(*shape):
    maps = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    return maps.to(memory_format=torch.channels_last)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("n_clips", [1, 5, 20])
def test_is_the_convolution(bias, n_clips):
    conv = nn.Conv2d(6, 9, 1, bias=bias).to(memory_format=torch.channels_last)
    maps = make_maps(n_clips, 6, 4, 7)
    torch.testing.assert_close(PointwiseConv2d(conv)(maps), conv(maps))


def test_replaces_what_is_a_product_and_nothing_else():
    module = nn.Sequential(
        nn.Conv2d(3, 8, 1),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.Sequential(nn.Conv2d(8, 8, 1, groups=2), nn.Conv2d(8, 4, 1, bias=False)),
        nn.Conv2d(4, 4, 1, stride=2),
        nn.Conv2d(4, 2, 1, padding=1),
    ).to(memory_format=torch.channels_last)
    replaced = replace_pointwise(copy.deepcopy(module))
    kinds = [type(layer) for layer in replaced.modules()]
    assert kinds.count(PointwiseConv2d) == 2
    assert kinds.count(nn.Conv2d) == 4
    maps = make_maps(2, 3, 8, 8)
    torch.testing.assert_close(replaced(maps), module(maps))
