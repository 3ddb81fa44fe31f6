import pytest
import torch
import torch.nn.functional as F

from sklabelaudio.nn import CSCM
from sklabelaudio.nn._feature_maps import FeatureHead
from sklabelaudio.nn._label_heads import (
    HEAD_NAMES,
    LinearHead,
    LSTMHead,
    TransformerHead,
    make_head,
)

EVERY = pytest.mark.parametrize("similarity", HEAD_NAMES)


def make_tokens(n_clips=2, n_tokens=6, n_channels=8):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(
        n_clips, n_tokens, n_channels, generator=generator, dtype=torch.float64
    )


def make_small(similarity):
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return make_head(similarity, 8, 2, 3, 5).double().eval()


def project(head, tokens):
    return tokens.mean(dim=1) @ head.projection.weight.T + head.projection.bias


def test_linear_is_the_mean_and_a_layer():
    tokens, head = make_tokens(), make_small("linear")
    torch.testing.assert_close(head(tokens), project(head, tokens))


def test_lstm_is_its_equations():
    tokens, head = make_tokens(), make_small("lstm")
    lstm = head.lstm
    state = cell = torch.zeros(2, 8).double()
    steps = []
    for token in tokens.unbind(dim=1):
        gates = F.linear(token, lstm.weight_ih_l0, lstm.bias_ih_l0)
        gates = gates + F.linear(state, lstm.weight_hh_l0, lstm.bias_hh_l0)
        enter, forget, new, leave = gates.chunk(4, dim=1)
        cell = forget.sigmoid() * cell + enter.sigmoid() * new.tanh()
        state = leave.sigmoid() * cell.tanh()
        steps.append(token + state)
    torch.testing.assert_close(head(tokens), project(head, torch.stack(steps, dim=1)))


def test_transformer_is_its_equations():
    tokens = make_tokens()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        head = TransformerHead(8, 2, 3, 5, depth=2, num_heads=2).double().eval()
    x = tokens + head.positions.weight
    for layer in head.layers:
        attention = layer.self_attn
        h = F.layer_norm(x, (8,), layer.norm1.weight, layer.norm1.bias)
        h = F.linear(h, attention.in_proj_weight, attention.in_proj_bias)
        q, k, v = h.view(2, 6, 3, 2, 4).permute(2, 0, 3, 1, 4)
        h = ((q @ k.mT / 2).softmax(dim=-1) @ v).transpose(1, 2).flatten(2)
        x = x + attention.out_proj(h)
        h = F.layer_norm(x, (8,), layer.norm2.weight, layer.norm2.bias)
        x = x + layer.linear2(F.gelu(layer.linear1(h)))
    expected = project(head, tokens + x)
    torch.testing.assert_close(head(tokens), expected)
    torch.testing.assert_close(head.train()(tokens), expected)  # there is no dropout


def test_layers_of_the_transformer_begin_differently():
    first, second, *_ = make_small("transformer").layers
    assert not torch.equal(first.linear1.weight, second.linear1.weight)
    assert not torch.equal(
        first.self_attn.in_proj_weight, second.self_attn.in_proj_weight
    )


@EVERY
def test_maps_and_tokens(similarity):
    tokens, head = make_tokens(), make_small(similarity)
    assert isinstance(head, FeatureHead)
    assert isinstance(head, CSCM) == (similarity == "cscm")
    assert head(tokens).shape == (2, head.n_components) == (2, 5)
    image = torch.stack([tokens[:, :3], tokens[:, 3:]], dim=1).permute(0, 3, 1, 2)
    torch.testing.assert_close(head(image), head(tokens))


@EVERY
def test_gradients_reach_all_weights(similarity):
    head = make_small(similarity).train()
    generator = torch.Generator().manual_seed(1)
    vectors = head(make_tokens(4))
    (vectors * torch.randn(4, 5, generator=generator)).sum().backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


@pytest.mark.parametrize(
    ("similarity", "n_parameters"),
    [
        ("linear", 768 * 1024 + 1024),
        ("lstm", 8 * 768 * 768 + 8 * 768 + 768 * 1024 + 1024),
        (
            "transformer",
            4 * (12 * 768 * 768 + 13 * 768) + 64 * 768 + 768 * 1024 + 1024,
        ),
    ],
)
def test_parameters_of_the_papers_size(similarity, n_parameters):
    with torch.device("meta"):
        head = make_head(similarity, 768, 8, 8, 1024)
    assert sum(p.numel() for p in head.parameters()) == n_parameters
    assert f"{n_parameters:,}" in make_head.__doc__


def test_heads_of_attention():
    def count(n_channels, **kwargs):
        head = TransformerHead(n_channels, 1, 1, 1, depth=1, **kwargs)
        return head.layers[0].self_attn.num_heads

    assert (count(768), count(384), count(64), count(12)) == (12, 6, 1, 1)
    assert count(200) == 2  # three would not divide it
    assert count(12, num_heads=4) == 4


@EVERY
def test_features_that_do_not_fit(similarity):
    head = make_small(similarity)
    told = r"features has the shape \(2, 5, 8\); this (\w+) takes .*product is 5$"
    with pytest.raises(ValueError, match=told):
        head(torch.zeros(2, 5, 8).double())


def test_bad_parameters():
    with pytest.raises(ValueError, match=r"similarity='dot' is none of \('cscm', "):
        make_head("dot", 8, 2, 3, 5)
    for head in (LinearHead, LSTMHead, TransformerHead):
        with pytest.raises(ValueError, match="height=0 must be at least 1"):
            head(8, 0, 3, 5)
    with pytest.raises(ValueError, match="num_heads=3 must divide n_channels=8"):
        TransformerHead(8, 2, 3, 5, num_heads=3)
    with pytest.raises(ValueError, match="num_heads=0 must divide"):
        TransformerHead(8, 2, 3, 5, num_heads=0)
    with pytest.raises(ValueError, match="depth=0 must be at least 1"):
        TransformerHead(8, 2, 3, 5, depth=0)
