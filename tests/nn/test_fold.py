import copy

import pytest
import torch
from torch import nn

from sklabelaudio.nn import EfficientAT
from sklabelaudio.nn._fold import fold_batch_norm

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def with_statistics(module, seed=0):
    """Give batch norms statistics and weights as training leaves them."""
    generator = torch.Generator().manual_seed(seed)
    for norm in module.modules():
        if isinstance(norm, NORMS) and norm.running_var is not None:
            norm.running_mean.normal_(generator=generator)
            norm.running_var.uniform_(0.1, 3, generator=generator)
            if norm.affine:
                nn.init.normal_(norm.weight, 1, 0.5, generator=generator)
                nn.init.normal_(norm.bias, generator=generator)
    return module.eval()


def count_norms(module):
    return sum(isinstance(m, NORMS) for m in module.modules())


def assert_same_after_folding(module, x, n_left=0):
    module = with_statistics(module).double()
    x = x.double()
    folded = copy.deepcopy(module)
    assert fold_batch_norm(folded) is folded
    assert count_norms(folded) == n_left
    with torch.no_grad():
        expected, result = module(x), folded(x)
    assert result.dtype == torch.float64
    torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("bias", [False, True])
def test_layers_and_batch_norms(bias):
    assert_same_after_folding(
        nn.Sequential(
            nn.Conv2d(4, 6, (3, 5), stride=2, padding=1, groups=2, bias=bias),
            nn.BatchNorm2d(6),
            nn.ReLU(),
        ),
        torch.randn(2, 4, 20, 20),
    )
    assert_same_after_folding(
        nn.Sequential(nn.Conv1d(4, 6, 3, bias=bias), nn.BatchNorm1d(6), nn.ReLU()),
        torch.randn(2, 4, 20),
    )
    assert_same_after_folding(
        nn.Sequential(nn.Linear(4, 6, bias=bias), nn.BatchNorm1d(6)),
        torch.randn(5, 4),
    )


def test_everywhere_in_a_module():
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Sequential(nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3))
            self.blocks = nn.ModuleList(
                nn.Sequential(
                    nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.ReLU()),
                    nn.Conv2d(3, 3, 1),
                    nn.BatchNorm2d(3),
                )
                for _ in range(2)
            )

        def forward(self, x):
            x = self.first(x)
            for block in self.blocks:
                x = block(x)
            return x

    assert_same_after_folding(Network(), torch.randn(2, 1, 9, 9))


def test_leaves_what_can_not_be_folded():
    x = torch.randn(2, 3, 9, 9)
    before = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1))
    assert_same_after_folding(before, x, n_left=1)
    behind_activation = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.BatchNorm2d(3))
    assert_same_after_folding(behind_activation, x, n_left=1)
    without_statistics = nn.Sequential(
        nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False)
    )
    assert_same_after_folding(without_statistics, x, n_left=1)
    without_weights = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6, affine=False))
    assert_same_after_folding(without_weights, torch.randn(2, 4), n_left=1)


def test_a_part_of_the_module_may_fold_its_own():
    """As where a batch norm is behind the sum of two convolutions."""

    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.convs = nn.ModuleList(nn.Conv2d(3, 3, 1) for _ in range(2))
            self.norm = nn.BatchNorm2d(3, eps=0.0)

        def forward(self, x):
            first, second = self.convs
            return self.norm(first(x) + second(x))

        def fold_(self):
            assert not self.training
            norm, self.norm = self.norm, nn.Identity()
            with torch.no_grad():
                scale = norm.weight / norm.running_var.sqrt()
                for conv in self.convs:
                    conv.weight *= scale[:, None, None, None]
                    conv.bias *= scale
                self.convs[0].bias += norm.bias - scale * norm.running_mean

    x = torch.randn(2, 3, 4, 4)
    assert_same_after_folding(Sum().train(), x)
    inside = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), Sum())
    assert_same_after_folding(inside, x)


def test_second_of_two_batch_norms_stays():
    module = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3))
    assert_same_after_folding(module, torch.randn(2, 3, 4, 4), n_left=1)


def test_keeps_eps():
    """Channels that never fired have a variance of next to nothing."""
    module = nn.Sequential(
        nn.Conv2d(2, 2, 1, bias=False), nn.BatchNorm2d(2, eps=0.001)
    ).eval()
    module[1].running_var[:] = torch.tensor([7e-44, 9e-11])
    module[1].running_mean[:] = torch.tensor([1e-3, 0.0])
    x = torch.full((1, 2, 1, 1), 1e-3)
    weight = module[0].weight.detach().double()
    convolved = weight[:, :, 0, 0] @ x[0, :, 0, 0].double()
    expected = (convolved - torch.tensor([1e-3, 0.0])) / 0.001**0.5
    with torch.no_grad():
        result = fold_batch_norm(module)(x)[0, :, 0, 0]
    torch.testing.assert_close(result.double(), expected, rtol=1e-5, atol=1e-6)


def test_puts_in_evaluation_mode():
    module = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Dropout())
    assert not any(m.training for m in fold_batch_norm(module.train()).modules())


def test_names_of_the_other_weights_stay():
    model = EfficientAT(width=0.1)
    kept = {
        name: value.shape
        for name, value in model.state_dict().items()
        if name.startswith("classifier.") or ".conc_se_layers." in name
    }
    weights = [
        name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)
    ]
    fold_batch_norm(model)
    assert count_norms(model) == 0
    state = {name: value.shape for name, value in model.state_dict().items()}
    assert kept.items() <= state.items()
    assert set(state) - set(kept) == {
        f"{name}.{part}" for name in weights for part in ("weight", "bias")
    }
