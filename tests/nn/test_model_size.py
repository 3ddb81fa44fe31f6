import pytest
import torch
from torch import nn

from sklabelaudio.nn import SP4SC, Cnn6, Cnn10, Cnn14, ResNet34
from sklabelaudio.nn._model_size import (
    count_multiply_adds,
    count_values,
    run_silence,
)


def test_the_studys_counts():
    """Of Cnn6 and SP4SC; its ResNet-34 has 2,000 more than any that is known."""
    model = SP4SC()
    assert count_values(model) == 64_335
    assert count_values(model.merge_batch_norm()) == 62_474
    assert count_values(Cnn6(10)) == 4_574_287
    assert sum(w.numel() for w in ResNet34().parameters()) == 21_283_530


def test_multiply_adds_by_hand():
    network = nn.Sequential(
        nn.Conv1d(4, 6, 3, padding=1, groups=2),
        nn.BatchNorm1d(6),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(60, 5),
    ).train()
    # Of each of 6 x 10 values 2 channels x 3 taps; and the matrix.
    assert count_multiply_adds(network, (4, 10)) == 60 * 6 + 60 * 5
    assert all(part.training for part in network.modules())


def test_multiply_adds_of_the_card():
    assert count_multiply_adds(SP4SC(), (431, 256)) == 470_545_664


def test_silence_leaves_statistics_and_modes_alone():
    network = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2)).double()
    network[1].eval()
    before = {name: values.clone() for name, values in network.state_dict().items()}
    assert run_silence(network, (3,)).dtype == torch.float64
    assert [part.training for part in network] == [True, False]
    for name, values in network.state_dict().items():
        torch.testing.assert_close(values, before[name])


@pytest.mark.parametrize("cls", [Cnn6, Cnn10, Cnn14, SP4SC])
def test_width_scales_the_channels(cls):
    published, half = cls(10), cls(10, width=0.5)
    channels = cls.config_of(published.state_dict())["channels"]
    halved = cls.config_of(half.state_dict())["channels"]
    assert halved == tuple(n // 2 for n in channels)
    assert half.n_components == published.n_components // 2
    assert {n: v.shape for n, v in cls(10, width=1.0).state_dict().items()} == {
        n: v.shape for n, v in published.state_dict().items()
    }
    with pytest.raises(ValueError, match=r"width=0.001 leaves 0 of 64 channels"):
        cls(10, width=0.001)


def test_dropout_of_resnet34_is_before_the_last_layer():
    torch.manual_seed(0)
    model = ResNet34(3, width=2, dropout=0.5)
    log_mel = torch.randn(4, 64, 32)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    first, second = model(log_mel), model(log_mel)
    torch.testing.assert_close(first.embedding, second.embedding)
    assert not torch.equal(first.logits, second.logits)
    model.eval()
    assert torch.equal(model(log_mel).logits, model(log_mel).logits)
