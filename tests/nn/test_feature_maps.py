import pytest
import torch
from torch import nn

from sklabelaudio.nn import CSCM, EfficientAT, EncoderOutput
from sklabelaudio.nn._feature_maps import measure_features, take_features


class Encoder(nn.Module):
    """Gives whatever it is told to make of its input."""

    def __init__(self, compute):
        super().__init__()
        self.norm = nn.BatchNorm1d(6)
        self.compute = compute

    def forward(self, log_mel):
        return self.compute(self.norm(log_mel.mT).mT)


class EncoderWithFeatures(Encoder):
    def forward_features(self, log_mel):
        return log_mel.mT.unsqueeze(2)


def test_features_are_taken_before_pooling():
    clips = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0))
    encoder = EncoderWithFeatures(lambda x: EncoderOutput(x.mean(dim=1)))
    assert torch.equal(take_features(encoder, clips), clips.mT.unsqueeze(2))
    tokens = Encoder(lambda x: x).eval()
    assert torch.equal(take_features(tokens, clips), tokens(clips))


@pytest.mark.parametrize(
    ("compute", "told"),
    [
        (lambda x: x.mean(dim=1), r"gives a tensor of the shape \(2, 6\) where a map"),
        (lambda x: EncoderOutput(x.mean(dim=1)), "gives EncoderOutput where a map"),
        (lambda x: (x, x), "gives tuple where .* a method forward_features"),
    ],
)
def test_what_has_no_features_is_refused(compute, told):
    with pytest.raises(TypeError, match=told):
        take_features(Encoder(compute), torch.zeros(2, 4, 6))


def test_sizes_fit_a_head():
    encoder = EfficientAT(0.1)
    size = measure_features(encoder, (70, 128))
    assert size == (encoder.n_components, 4, 3)
    head = CSCM(*size, n_components=5)
    assert head(take_features(encoder, torch.zeros(2, 70, 128))).shape == (2, 5)


def test_tokens_are_a_row():
    assert measure_features(Encoder(lambda x: x), (4, 6)) == (6, 1, 4)


@pytest.mark.parametrize("fails", [False, True])
def test_measuring_leaves_the_encoder_as_it_was(fails):
    encoder = nn.Sequential(
        Encoder(lambda x: x), nn.Dropout(0.5), nn.BatchNorm1d(4)
    ).train()
    encoder[2].eval()  # as a frozen part
    before = {name: values.clone() for name, values in encoder.state_dict().items()}
    state = torch.get_rng_state()
    shape = (5, 6) if fails else (4, 6)
    if fails:
        with pytest.raises(RuntimeError):
            measure_features(encoder, shape)
    else:
        assert measure_features(encoder, shape) == (6, 1, 4)
    assert torch.equal(torch.get_rng_state(), state)
    modes = [module.training for module in encoder.modules()]
    assert modes == [True, True, True, True, False]
    for name, values in encoder.state_dict().items():
        assert torch.equal(values, before[name])


def test_measuring_keeps_to_the_encoders_precision():
    assert measure_features(EfficientAT(0.1).double(), (70, 128))[1:] == (4, 3)
    assert measure_features(nn.Unflatten(1, (2, 2)), (4, 6)) == (2, 2, 6)
