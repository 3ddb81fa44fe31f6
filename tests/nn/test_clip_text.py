import math

import pytest
import torch
import transformers
from safetensors.torch import save_file

from sklabelaudio.exceptions import CheckpointError
from sklabelaudio.nn import load_checkpoint
from sklabelaudio.nn._checkpoint import read_checkpoint
from sklabelaudio.nn._clip_text import ClipTextTransformer
from sklabelaudio.text._audioclip_text import read_clip_tokenizer

WIDTH, N_TOKENS, N_COMPONENTS, LENGTH = 128, 40, 6, 12
SIZES = {"width": WIDTH, "depth": 2, "n_hidden": 20}
END = N_TOKENS - 1
# Three texts, the first two of which are followed by zeros or by ends.
TOKENS = torch.tensor(
    [[38, 5, 7, 39, 0, 0], [38, 5, 39, 39, 39, 39], [38, 9, 9, 11, 30, 39]]
)


def make_model(seed=0, **params):
    """Make a small model none of whose weights is 0 or 1."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = ClipTextTransformer(
            N_COMPONENTS, N_TOKENS, LENGTH, **{**SIZES, **params}
        )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def name_as_openai(model):
    """Return the weights as OpenAI's and open_clip's files have them."""
    theirs = {}
    state = {
        name.removeprefix("encoder."): values
        for name, values in model.state_dict().items()
    }
    text = "text_model."
    theirs["positional_embedding"] = state[
        f"{text}embeddings.position_embedding.weight"
    ]
    theirs["text_projection"] = state["text_projection.weight"].T.contiguous()
    theirs["token_embedding.weight"] = state[f"{text}embeddings.token_embedding.weight"]
    for i in range(2):
        layer, block = f"{text}encoder.layers.{i}.", f"transformer.resblocks.{i}."
        for kind in ("weight", "bias"):
            theirs[f"{block}attn.in_proj_{kind}"] = torch.cat(
                [state[f"{layer}self_attn.{part}_proj.{kind}"] for part in "qkv"]
            )
            for ours, name in (
                ("self_attn.out_proj", "attn.out_proj"),
                ("layer_norm1", "ln_1"),
                ("mlp.fc1", "mlp.c_fc"),
                ("mlp.fc2", "mlp.c_proj"),
                ("layer_norm2", "ln_2"),
            ):
                theirs[f"{block}{name}.{kind}"] = state[f"{layer}{ours}.{kind}"]
    for kind in ("weight", "bias"):
        theirs[f"ln_final.{kind}"] = state[f"{text}final_layer_norm.{kind}"]
    beside = {
        "logit_scale": torch.tensor(4.6),
        "visual.conv1.weight": torch.zeros(3, 3, 2, 2),
        "visual.transformer.resblocks.0.ln_1.bias": torch.zeros(3),
    }
    return theirs | beside


def embed(model, tokens=TOKENS):
    with torch.inference_mode():
        return model(tokens)


def embed_plainly(state, tokens, *, quick=True):
    """Embed texts by the formulas of CLIP, from OpenAI's weights."""
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
        q, k, v = h.view(n_texts, length, 3, 2, 64).permute(2, 0, 3, 1, 4)
        h = ((q @ k.mT / 8 + later).softmax(dim=-1) @ v).transpose(1, 2).flatten(2)
        x = x + linear(h, part["attn.out_proj.weight"], part["attn.out_proj.bias"])
        h = normalize(x, (WIDTH,), part["ln_2.weight"], part["ln_2.bias"])
        h = linear(h, part["mlp.c_fc.weight"], part["mlp.c_fc.bias"])
        h = h * (1.702 * h).sigmoid() if quick else torch.nn.functional.gelu(h)
        x = x + linear(h, part["mlp.c_proj.weight"], part["mlp.c_proj.bias"])
    x = normalize(x, (WIDTH,), state["ln_final.weight"], state["ln_final.bias"])
    ends = [row.tolist().index(END) for row in tokens]
    return x[torch.arange(n_texts), ends] @ state["text_projection"]


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_the_network_is_clips(activation):
    model = make_model(activation=activation)
    quick = activation == "quick_gelu"
    expected = embed_plainly(name_as_openai(model), TOKENS, quick=quick)
    torch.testing.assert_close(embed(model), expected, rtol=1e-4, atol=1e-5)
    other = embed_plainly(name_as_openai(model), TOKENS, quick=not quick)
    assert not torch.allclose(embed(model), other, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def hub_model():
    """A whole CLIP of transformers, with images."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(3)
        return transformers.CLIPModel(
            transformers.CLIPConfig(
                text_config={
                    "vocab_size": N_TOKENS,
                    "hidden_size": WIDTH,
                    "intermediate_size": 20,
                    "num_hidden_layers": 2,
                    "num_attention_heads": 2,
                    "max_position_embeddings": LENGTH,
                    "bos_token_id": END - 1,
                    "eos_token_id": END,
                    "projection_dim": N_COMPONENTS,
                },
                vision_config={
                    "hidden_size": 8,
                    "intermediate_size": 8,
                    "num_hidden_layers": 1,
                    "num_attention_heads": 1,
                    "image_size": 4,
                    "patch_size": 2,
                },
                projection_dim=N_COMPONENTS,
            )
        ).eval()


@pytest.mark.parametrize("layout", ["saved", "text", "before"])
def test_files_of_transformers_give_what_it_gives(hub_model, layout, tmp_path):
    folder = tmp_path / "model"
    hub_model.save_pretrained(folder)
    theirs = transformers.CLIPTextModelWithProjection.from_pretrained(folder).eval()
    file = folder / "model.safetensors"
    if layout == "text":
        theirs.save_pretrained(folder)
    elif layout == "before":
        # Files of older versions have a constant beside the weights.
        state = read_checkpoint(file)
        state["text_model.embeddings.position_ids"] = torch.arange(LENGTH)[None]
        save_file(state, file)
    model = ClipTextTransformer(**ClipTextTransformer.config_of(read_checkpoint(file)))
    load_checkpoint(model, file).eval()
    with torch.inference_mode():
        expected = theirs(input_ids=TOKENS).text_embeds
    torch.testing.assert_close(embed(model), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["openai", "open_clip", "half", "own"])
def test_files_load(kind, tmp_path):
    model = make_model()
    state = model.state_dict() if kind == "own" else name_as_openai(model)
    if kind == "openai":  # as torch.jit.load(path).state_dict() gives it
        sizes = ("input_resolution", 224), ("context_length", 12), ("vocab_size", 40)
        state |= {name: torch.tensor(value) for name, value in sizes}
    elif kind == "open_clip":
        state = {f"module.{name}": value for name, value in state.items()}
        state = {"epoch": 32, "state_dict": state, "optimizer": {}}
    elif kind == "half":
        state = {name: value.half() for name, value in state.items()}
    torch.save(state, tmp_path / "clip.pt")
    config = ClipTextTransformer.config_of(read_checkpoint(tmp_path / "clip.pt"))
    assert config == {
        "n_components": N_COMPONENTS,
        "n_tokens": N_TOKENS,
        "max_length": LENGTH,
        "num_heads": 2,
        **SIZES,
    }
    loaded = load_checkpoint(ClipTextTransformer(**config), tmp_path / "clip.pt").eval()
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    tolerance = 0.05 if kind == "half" else 0
    torch.testing.assert_close(embed(loaded), embed(model), rtol=0, atol=tolerance)


def test_the_published_sizes():
    for n_components, n_parameters in ((512, 63_428_096), (1024, 63_690_240)):
        with torch.device("meta"):
            model = ClipTextTransformer(n_components)
        count = sum(parameter.numel() for parameter in model.parameters())
        assert count == n_parameters
        assert f"{count:,}" in ClipTextTransformer.__doc__
    assert (model.n_tokens, model.max_length) == (49408, 77)
    # What is said of the vocabulary.
    n_merges = 49_152 - 256 - 2
    assert n_merges == 48_894
    assert 2 * 256 + n_merges + 2 == model.n_tokens


def test_what_is_behind_a_text_is_not_read():
    model = make_model()
    vectors = embed(model)
    for row, length in ((0, 4), (1, 3)):
        alone = embed(model, TOKENS[row : row + 1, :length])
        torch.testing.assert_close(alone, vectors[row : row + 1])
    other = TOKENS.clone()
    other[0, 4:] = 17
    torch.testing.assert_close(embed(model, other), vectors)
    other[0, 2] = 17
    assert not torch.allclose(embed(model, other)[0], vectors[0])


def test_takes_what_the_tokenizer_gives(tmp_path):
    import gzip

    path = tmp_path / "vocabulary.txt.gz"
    merges = "# a line before\nd o\ndo g</w>\na n\n"
    with gzip.open(path, "wt", encoding="utf-8") as stream:
        stream.write(merges)
    n_tokens = 512 + 3 + 2
    tokenizer = read_clip_tokenizer(path, n_tokens=n_tokens, max_length=LENGTH)
    tokens = tokenizer(["Dog", "a dog's an owl " * 9], padding=True, truncation=True)
    model = ClipTextTransformer(N_COMPONENTS, n_tokens, LENGTH, **SIZES).eval()
    vectors = embed(model, torch.tensor(tokens["input_ids"]))
    assert vectors.shape == (2, N_COMPONENTS)
    assert len(tokens["input_ids"][1]) == LENGTH
    assert not torch.allclose(vectors[0], vectors[1])


def test_gradients_reach_all_weights():
    model = make_model().train()
    generator = torch.Generator().manual_seed(0)
    (model(TOKENS) * torch.randn(3, N_COMPONENTS, generator=generator)).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        # What is added to all keys of an attention cancels out.
        assert parameter.grad.any() or name.endswith("k_proj.bias"), name
    seen = model.encoder.text_model.embeddings.token_embedding.weight.grad.any(dim=1)
    assert seen.nonzero().flatten().tolist() == [5, 7, 9, 11, 30, 38, 39]


def test_training_draws_nothing():
    model = make_model()
    expected = embed(model)
    state = torch.get_rng_state()
    assert torch.equal(embed(model.train()), expected)
    assert torch.equal(torch.get_rng_state(), state)


def test_building_leaves_the_generator_alone():
    state = torch.get_rng_state()
    make_model()
    ClipTextTransformer(N_COMPONENTS, N_TOKENS, LENGTH, **SIZES)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("tokens", "told"),
    [
        (TOKENS[0], r"tokens has the shape \(6,\); .* \(n_texts, length\), of 1 to 12"),
        (TOKENS[:, :0], r"tokens has the shape \(3, 0\)"),
        (TOKENS[:0], r"tokens has the shape \(0, 6\)"),
        (TOKENS.repeat(1, 3), r"tokens has the shape \(3, 18\).*end them with 39$"),
        (TOKENS + 1, "indices from 1 to 40, and the vocabulary 40 tokens: use the tok"),
        (TOKENS - 1, "indices from -1 to 38, and the vocabulary 40"),
        (TOKENS[:, :5], "has 1 texts without an end, the first of them in row 2: end"),
    ],
)
def test_bad_tokens(tokens, told):
    with pytest.raises(ValueError, match=told):
        embed(make_model(), tokens)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"ln_final.bias": None}, r"missing.*\n.*final_layer_norm\.bias"),
        ({"transformer.resblocks.1.ln_2.bias": torch.ones(3)}, r"another shape.*\n.*1"),
        ({"transformer.resblocks.1.gate": torch.ones(3)}, r"unknown.*\n.*1\.gate"),
        ({"fc.weight": torch.ones(3)}, r"unknown.*\n.*fc\.weight"),
    ],
)
def test_weights_that_do_not_fit_are_told(change, told, tmp_path):
    model = make_model()
    state = name_as_openai(model) | change
    torch.save({k: v for k, v in state.items() if v is not None}, tmp_path / "clip.pt")
    with pytest.raises(CheckpointError, match=told):
        load_checkpoint(model, tmp_path / "clip.pt")


def test_sizes_of_other_weights_are_refused():
    told = "no weight 'text_projection.weight', so these are not .* a CLIP's text side"
    with pytest.raises(ValueError, match=told):
        ClipTextTransformer.config_of({"fc.weight": torch.zeros(2, 3)})
    state = name_as_openai(make_model())
    state["positional_embedding"] = torch.zeros(3)
    with pytest.raises(ValueError, match=r"position_embedding.weight' has the shape"):
        ClipTextTransformer.config_of(state)


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({"depth": 0}, "depth=0 must be at least 1"),
        ({"n_components": 0}, "n_components=0 must be at least 1"),
        ({"width": 65, "num_heads": 2}, "num_heads=2 must divide width=65 evenly"),
        (
            {"activation": "relu"},
            r"activation='relu' is none of \('quick_gelu', 'gelu'",
        ),
    ],
)
def test_bad_parameters(params, told):
    with pytest.raises(ValueError, match=told):
        ClipTextTransformer(**params)
