import math

import numpy as np
import pytest
import torch

from sklabelaudio.exceptions import CheckpointError
from sklabelaudio.nn._audioclip import (
    load_audioclip_text,
    read_similarity_scale,
    split_audioclip,
)
from sklabelaudio.nn._checkpoint import read_checkpoint

WIDTH = 128
N_TOKENS = 40


@pytest.fixture(scope="module")
def reference(parity):
    return parity("audioclip")


@pytest.fixture(scope="module")
def official_file(reference, tmp_path_factory):
    """The whole model as the authors save it; what is no text is zero."""
    state = {}
    for key, entry in reference.manifest["keys"].items():
        kept = reference.manifest["kept_values"].get(key)
        if isinstance(kept, float):
            state[key] = torch.tensor(kept)
        elif key.startswith(("audio.", "visual.")):
            state[key] = torch.zeros(()).expand(entry["shape"])
        else:
            state[key] = torch.from_numpy(
                reference._det_weights.det_tensor(key, entry["shape"], entry["kind"])
            )
    path = tmp_path_factory.mktemp("audioclip") / "AudioCLIP-Full-Training.pt"
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def trained(official_file):
    return load_audioclip_text(official_file)


def make_state(n_layers=2):
    """Make the text part of a small model, by the authors' names."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return 0.1 * torch.randn(shape, generator=generator)

    state = {
        "positional_embedding": draw(12, WIDTH),
        "text_projection": draw(WIDTH, 6),
        "token_embedding.weight": draw(N_TOKENS, WIDTH),
        "ln_final.weight": 1 + draw(WIDTH),
        "ln_final.bias": draw(WIDTH),
        "logit_scale": torch.tensor(1.0),
        "logit_scale_ai": torch.tensor(2.0),
        "logit_scale_at": torch.tensor(3.0),
        "visual.conv1.weight": draw(2, 2),
        "audio.fc.bias": draw(6),
    }
    for index in range(n_layers):
        layer = f"transformer.resblocks.{index}."
        state |= {
            layer + "attn.in_proj_weight": draw(3 * WIDTH, WIDTH),
            layer + "attn.in_proj_bias": draw(3 * WIDTH),
            layer + "attn.out_proj.weight": draw(WIDTH, WIDTH),
            layer + "attn.out_proj.bias": draw(WIDTH),
            layer + "ln_1.weight": 1 + draw(WIDTH),
            layer + "ln_1.bias": draw(WIDTH),
            layer + "mlp.c_fc.weight": draw(20, WIDTH),
            layer + "mlp.c_fc.bias": draw(20),
            layer + "mlp.c_proj.weight": draw(WIDTH, 20),
            layer + "mlp.c_proj.bias": draw(WIDTH),
            layer + "ln_2.weight": 1 + draw(WIDTH),
            layer + "ln_2.bias": draw(WIDTH),
        }
    return state


@pytest.fixture
def file(tmp_path):
    torch.save(make_state(), tmp_path / "AudioCLIP.pt")
    return tmp_path / "AudioCLIP.pt"


def embed(model, tokens):
    with torch.inference_mode():
        return model(input_ids=tokens).text_embeds


def embed_plainly(state, tokens):
    """Embed texts by the formulas of CLIP."""
    n_texts, length = tokens.shape
    x = state["token_embedding.weight"][tokens] + state["positional_embedding"][:length]
    later = torch.full((length, length), -math.inf).triu(1)
    normalize, linear = torch.nn.functional.layer_norm, torch.nn.functional.linear
    for index in range(2):
        part = {
            name.removeprefix(f"transformer.resblocks.{index}."): value
            for name, value in state.items()
        }
        h = normalize(x, (WIDTH,), part["ln_1.weight"], part["ln_1.bias"])
        h = linear(h, part["attn.in_proj_weight"], part["attn.in_proj_bias"])
        # Two heads of 64.
        q, k, v = h.view(n_texts, length, 3, 2, 64).permute(2, 0, 3, 1, 4)
        attention = (q @ k.mT / 8 + later).softmax(dim=-1)
        h = (attention @ v).transpose(1, 2).flatten(2)
        x = x + linear(h, part["attn.out_proj.weight"], part["attn.out_proj.bias"])
        h = normalize(x, (WIDTH,), part["ln_2.weight"], part["ln_2.bias"])
        h = linear(h, part["mlp.c_fc.weight"], part["mlp.c_fc.bias"])
        h = h * torch.sigmoid(1.702 * h)
        x = x + linear(h, part["mlp.c_proj.weight"], part["mlp.c_proj.bias"])
    x = normalize(x, (WIDTH,), state["ln_final.weight"], state["ln_final.bias"])
    ends = x[torch.arange(n_texts), tokens.argmax(dim=1)]
    return ends @ state["text_projection"]


def test_texts_are_where_the_authors_put_them(reference, trained):
    tokens = torch.from_numpy(reference.expected["tokens"]).long()
    expected = reference.expected["text_features"]
    actual = embed(trained, tokens).numpy()
    assert np.abs(actual - expected).max() < 5e-6 * np.abs(expected).max()
    # What stands behind the end of a text is of no effect.
    short = embed(trained, tokens[:1, :3]).numpy()
    assert np.abs(short - expected[:1]).max() < 5e-6 * np.abs(expected).max()


def test_the_parameters_are_the_published_ones(reference, official_file, trained):
    published = reference.manifest["parameter_counts"]
    assert sum(p.numel() for p in trained.parameters()) == published["by_part"]["text"]
    parts = split_audioclip(read_checkpoint(official_file))
    assert parts["other"] == {}
    # Beside the weights the audio part has a window, and both others the numbers of
    # batch norms.
    statistics = ("running_mean", "running_var", "num_batches_tracked", "window")
    counts = {
        part: sum(
            tensor.numel()
            for name, tensor in state.items()
            if not name.endswith(statistics)
        )
        for part, state in parts.items()
    }
    assert counts["text"] == 63_690_240
    assert counts["audio"] == 32_104_771
    assert counts["visual"] == 38_316_896
    assert counts["scales"] == published["by_part"]["logit_scales"] == 3
    assert sum(counts.values()) == published["parameters"] == 134_111_910


def test_the_scale_of_sounds_and_texts_is_kept(official_file):
    assert read_similarity_scale(read_checkpoint(official_file)) == pytest.approx(100)
    assert read_similarity_scale(make_state()) == pytest.approx(math.exp(3))
    for logarithm, scale in ((-1.0, 1.0), (7.0, 100.0)):
        state = {"logit_scale_at": torch.tensor(logarithm)}
        assert read_similarity_scale(state) == scale
    assert read_similarity_scale({"fc.weight": torch.zeros(2)}) is None


def test_the_network_is_clips(file):
    """Beside CLIP's formulas, for a file of other sizes."""
    state = make_state()
    tokens = torch.tensor([[38, 5, 7, 39, 0], [38, 5, 9, 11, 39], [38, 39, 0, 0, 0]])
    model = load_audioclip_text(file)
    torch.testing.assert_close(
        embed(model, tokens), embed_plainly(state, tokens), rtol=1e-4, atol=1e-5
    )


def test_the_parts_are_taken_apart():
    state = make_state(1) | {"depth.conv1.weight": torch.zeros(2)}
    parts = split_audioclip(state)
    assert list(parts["audio"]) == ["fc.bias"]
    assert list(parts["visual"]) == ["visual.conv1.weight"]
    assert list(parts["other"]) == ["depth.conv1.weight"]
    assert len(parts["scales"]) == 3
    assert len(parts["text"]) == 5 + 12
    assert sum(map(len, parts.values())) == len(state)


@pytest.mark.parametrize("kind", ["parallel", "half"])
def test_its_files_load(kind, file):
    state = make_state()
    expected = embed(load_audioclip_text(file), torch.tensor([[38, 5, 39]]))
    if kind == "parallel":
        state = {f"module.module.{name}": value for name, value in state.items()}
    else:
        state = {name: value.half() for name, value in state.items()}
    torch.save(state, file)
    model = load_audioclip_text(str(file))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    actual = embed(model, torch.tensor([[38, 5, 39]]))
    tolerance = 0 if kind == "parallel" else 0.05
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"ln_final.bias": None}, r"missing.*\n.*final_layer_norm\.bias"),
        (
            {"transformer.resblocks.1.attn.in_proj_bias": None},
            r"missing.*\n.*layers\.1\.self_attn\.\w_proj\.bias",
        ),
        (
            {"transformer.resblocks.1.ln_2.bias": torch.ones(3)},
            r"another shape.*\n.*layers\.1\.layer_norm2\.bias",
        ),
        (
            {"transformer.resblocks.1.gate": torch.ones(3)},
            r"unknown.*\n.*layers\.1\.gate",
        ),
        ({"token_embedding.weight": None}, "no weight 'token_embedding.weight'"),
    ],
)
def test_weights_that_do_not_fit_are_told(change, told, file):
    state = make_state() | change
    torch.save({k: v for k, v in state.items() if v is not None}, file)
    with pytest.raises(CheckpointError, match=told):
        load_audioclip_text(file)


def test_a_file_without_texts_is_told(file):
    torch.save({"fc.weight": torch.zeros(2, 3)}, file)
    told = r"no weight 'text_projection'.*pass AudioCLIP-Full-Training\.pt"
    with pytest.raises(CheckpointError, match=told):
        load_audioclip_text(file)


def test_building_leaves_the_generator_alone(file):
    state = torch.get_rng_state()
    load_audioclip_text(file)
    assert torch.equal(torch.get_rng_state(), state)
