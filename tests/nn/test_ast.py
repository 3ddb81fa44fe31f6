import copy
import json
import sys

import numpy as np
import pytest
import torch
import transformers

from sklabelaudio.exceptions import CheckpointError
from sklabelaudio.feature_extraction._front_ends import get_front_end
from sklabelaudio.nn import AST, EfficientAT, load_checkpoint
from sklabelaudio.nn._checkpoint import load_state, read_checkpoint
from sklabelaudio.nn._fold import fold_batch_norm
from sklabelaudio.nn._pointwise import replace_pointwise

SMALL = {"n_frames": 64, "embed_dim": 128, "depth": 2, "num_heads": 2}
POSITIONS = "encoder.embeddings.position_embeddings"


def make_log_mel(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make_small(n_classes=3, **params):
    """Make a small model whose every weight matters to the result."""
    model = AST(n_classes, **{**SMALL, **params}).eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture(scope="module")
def small():
    return make_small()


# Beside the authors' model.


@pytest.fixture(scope="module")
def reference(parity):
    return parity("ast")


@pytest.fixture(scope="module")
def trained(reference, tmp_path_factory):
    """The published model, from a file as the authors saved it."""
    path = tmp_path_factory.mktemp("ast") / "audioset_10_10_0.4593.pth"
    state = reference.state()
    torch.save({f"module.{key}": value for key, value in state.items()}, path)
    model = AST(**AST.config_of(read_checkpoint(path)))
    load_checkpoint(model, path)
    path.unlink()
    return model.eval()


def assert_close(actual, expected, tolerance=5e-6):
    assert actual.shape == expected.shape
    error = np.abs(actual.numpy() - expected).max() / np.abs(expected).max()
    assert error < tolerance


@pytest.mark.parametrize("name", ["noise0", "noise1", "burst", "chirp"])
def test_gives_what_the_authors_give(reference, trained, name):
    log_mel = get_front_end("ast")(reference.inputs[name].waveform)
    log_mel = torch.from_numpy(log_mel[np.newaxis, :1024])  # what is over they cut off
    seen = {}
    embeddings, before_last = trained.encoder.embeddings, trained.encoder.layers[-2]
    hooks = [
        embeddings.register_forward_hook(
            lambda module, inputs, output: seen.update(image=inputs[0])
        ),
        before_last.register_forward_hook(
            lambda module, inputs, output: seen.update(tokens=output)
        ),
    ]
    with torch.inference_mode():
        output = trained(log_mel)
        # The model itself leaves out the patches here.
        tokens = trained.encoder.layers[-1](seen["tokens"], None)
        tokens = trained.encoder.layernorm(tokens)
    for hook in hooks:
        hook.remove()
    expected = reference.expected
    assert_close(output.embedding, expected[f"{name}.embedding"])
    assert_close(output.logits, expected[f"{name}.logits"])
    # A patch follows the last digits of its log-mel, whose sum the embedding is.
    assert_close(tokens[0, ::64, ::16], expected[f"{name}.tokens"], 5e-5)
    torch.testing.assert_close(tokens[:, :2].mean(1), output.embedding)
    image = seen["image"][0]
    assert image.shape == (1024, 128)
    np.testing.assert_allclose(
        image[::32, ::4].numpy(), expected[f"{name}.input"], rtol=0, atol=5e-4
    )
    assert output.framewise is None
    assert output.frames is None


@pytest.mark.parametrize("name", ["T512_L10", "T128_L35", "T1024_L527"])
def test_adapts_to_other_lengths_as_the_authors_do(
    parity, det_weights, reference, trained, name
):
    adapted = parity("ast_adapted")
    [spec] = [spec for spec in adapted_inputs(adapted) if spec["name"] == name]
    n_frames, n_classes = spec["T"], spec["L"]
    model = trained.adapt(n_classes=n_classes, n_frames=n_frames)
    positions = model.encoder.embeddings.position_embeddings.detach()
    assert np.array_equal(
        positions[0, ::7, ::64].numpy(), adapted.expected[f"{name}.pos_embed"]
    )
    for part, layer in enumerate(model.classifier):
        for weight, parameter in layer.named_parameters():
            key = f"mlp_head.{part}.{weight}"
            kind = reference.manifest["keys"][key]["kind"]
            values = det_weights.det_tensor(key, parameter.shape, kind)
            parameter.detach().copy_(torch.from_numpy(values))
    rng = np.random.default_rng(spec["seed"])
    log_mel = 0.5 * rng.standard_normal((1, n_frames, 128))
    with torch.inference_mode():
        output = model(torch.from_numpy(log_mel.astype(np.float32)))
    assert_close(output.logits, adapted.expected[f"{name}.logits"])


def adapted_inputs(adapted):
    with np.load(adapted._folder / "ast_adapted.A.npz") as archive:
        return json.loads(str(archive["inputs"]))


def test_the_parameters_are_the_published_ones(reference, trained):
    published = reference.manifest["parameter_counts"]
    unused = sum(
        int(np.prod(entry["shape"]))
        for key, entry in reference.manifest["keys"].items()
        if key.startswith(("v.head.", "v.head_dist."))
    )
    ours = sum(parameter.numel() for parameter in trained.parameters())
    assert ours + unused == published["parameters"] == 88_132_063
    assert ours == published["without_unused_imagenet_heads"] == 86_594_063
    assert (trained.n_components, trained.n_classes) == (768, 527)


@pytest.mark.parametrize(
    ("n_patches", "n_classes", "n_frames", "stride"),
    [
        (12 * 101, 527, 1024, 10),
        (10 * 85, 527, 1024, 12),
        (9 * 73, 527, 1024, 14),
        (8 * 64, 527, 1024, 16),
        (12 * 12, 35, 128, 10),  # Speech Commands
        (12 * 50, 50, 512, 10),  # the authors' recipe for ESC-50
    ],
)
def test_sizes_are_read_off_official_weights(
    reference, n_patches, n_classes, n_frames, stride
):
    state = {
        key: torch.empty(entry["shape"], device="meta")
        for key, entry in reference.manifest["keys"].items()
    }
    state["v.pos_embed"] = torch.empty(1, n_patches + 2, 768, device="meta")
    state["mlp_head.1.weight"] = torch.empty(n_classes, 768, device="meta")
    state["mlp_head.1.bias"] = torch.empty(n_classes, device="meta")
    sizes = AST.config_of(state)
    assert sizes == {
        "n_classes": n_classes,
        "n_frames": n_frames,
        "frequency_stride": stride,
        "time_stride": stride,
        "embed_dim": 768,
        "depth": 12,
        "num_heads": 12,
    }
    with torch.device("meta"):
        own = AST(**sizes).state_dict()
    converted = AST.convert_checkpoint(state)
    assert {name: value.shape for name, value in own.items()} == {
        name: value.shape for name, value in converted.items()
    }


def test_several_strides_are_not_guessed_from():
    """As of the 998 frames of 10 s, or of 1000: they could be 1856 of another."""
    model = AST(3, **SMALL | {"n_frames": 1000})
    told = "1188 patches .* 10 with 1000 frames, 14 with 1856 frames.*strides"
    with pytest.raises(ValueError, match=told):
        AST.config_of(model.state_dict())


@pytest.mark.parametrize("stride", [10, 12, 14, 16])
def test_no_stride_is_told_that_is_not_the_models(stride):
    """With as many frames as a power of two, or whatever makes the stride certain."""
    rows = {10: 12, 12: 10, 14: 9, 16: 8}
    n_told = 0
    for n_frames in (64, 128, 256, 512, 1024, 2048, *range(16, 1300, 7)):
        n_patches = rows[stride] * ((n_frames - 16) // stride + 1)
        fitting = [n for n in rows.values() if n_patches % n == 0]
        state = {
            POSITIONS: torch.empty(1, n_patches + 2, 64, device="meta"),
            "classifier.dense.weight": torch.empty(3, 64, device="meta"),
            "encoder.layers.0.layernorm_before.bias": torch.empty(64, device="meta"),
        }
        is_power = n_frames & -n_frames == n_frames
        if not is_power and len(fitting) > 1:
            continue
        sizes = AST.config_of(state)
        assert sizes["time_stride"] == sizes["frequency_stride"] == stride
        assert (sizes["n_frames"] - 16) // stride == (n_frames - 16) // stride
        n_told += 1
    assert n_told > 50


# Beside transformers.


@pytest.fixture(scope="module")
def hub_model():
    """A model of transformers, with the eps of the authors' model."""
    config = transformers.ASTConfig(
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=512,
        max_length=64,
        num_labels=3,
        layer_norm_eps=1e-6,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        model = transformers.ASTForAudioClassification(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape))
    model.classifier.layernorm.eps = 1e-5
    return model


def rename_as_before(state):
    """Name weights of today's transformers as its releases 4 did, by an own rule."""
    parts = {
        "attention.q_proj": "attention.attention.query",
        "attention.k_proj": "attention.attention.key",
        "attention.v_proj": "attention.attention.value",
        "attention.o_proj": "attention.output.dense",
        "mlp.fc1": "intermediate.dense",
        "mlp.fc2": "output.dense",
        "transformer.layers.": "transformer.encoder.layer.",
    }
    renamed = {}
    for name, value in state.items():
        for now, before in parts.items():
            name = name.replace(now, before)
        renamed[name] = value
    return renamed


@pytest.mark.parametrize("layout", ["saved", "today", "before"])
def test_files_of_transformers_give_what_it_gives(hub_model, tmp_path, layout):
    path = tmp_path / "pytorch_model.bin"
    state = hub_model.state_dict()
    if layout == "saved":
        hub_model.save_pretrained(tmp_path)
        path = tmp_path / "model.safetensors"
    else:
        torch.save(rename_as_before(state) if layout == "before" else state, path)
    model = AST(**AST.config_of(read_checkpoint(path)))
    load_checkpoint(model, path).eval()
    log_mel = make_log_mel(2, 64, 128)
    with torch.inference_mode():
        output = model(log_mel)
        logits = hub_model(log_mel).logits
        pooled = hub_model.audio_spectrogram_transformer(log_mel).pooler_output
    torch.testing.assert_close(output.logits, logits, rtol=0, atol=2e-6)
    torch.testing.assert_close(output.embedding, pooled, rtol=0, atol=2e-6)


# Files.


def authors_names(model):
    """Name a model's weights as the authors do, by an own rule."""
    own, state = model.state_dict(), {}
    parts = {
        "encoder.embeddings.cls_token": "v.cls_token",
        "encoder.embeddings.distillation_token": "v.dist_token",
        "encoder.embeddings.position_embeddings": "v.pos_embed",
        "encoder.embeddings.patch_embeddings.projection": "v.patch_embed.proj",
        "encoder.layernorm": "v.norm",
        "encoder.layers": "v.blocks",
        "layernorm_before": "norm1",
        "layernorm_after": "norm2",
        "attention.o_proj": "attn.proj",
        "classifier.layernorm": "mlp_head.0",
        "classifier.dense": "mlp_head.1",
    }
    for name, value in own.items():
        if ".k_proj." in name or ".v_proj." in name:
            continue
        theirs = name
        for ours, part in parts.items():
            theirs = theirs.replace(ours, part)
        if ".q_proj." in name:
            theirs = theirs.replace("attention.q_proj", "attn.qkv")
            value = torch.cat([own[name.replace(".q_", f".{p}_")] for p in "qkv"])
        state[theirs] = value.clone()
    for head in ("head", "head_dist"):
        state[f"v.{head}.weight"] = torch.randn(7, model.n_components)
        state[f"v.{head}.bias"] = torch.randn(7)
    return state


@pytest.mark.parametrize("prefix", ["", "module.", "module.module."])
def test_files_of_the_authors_load(small, tmp_path, prefix):
    path = tmp_path / "ast.pth"
    state = authors_names(small)
    torch.save({prefix + name: value for name, value in state.items()}, path)
    config = AST.config_of(read_checkpoint(path))
    assert config == {
        **SMALL,
        "n_classes": 3,
        "frequency_stride": 10,
        "time_stride": 10,
    }
    model = load_checkpoint(AST(**config), path).eval()
    log_mel = make_log_mel(1, 64, 128)
    torch.testing.assert_close(model(log_mel).logits, small(log_mel).logits)


def test_files_in_half_precision_load(small, tmp_path):
    path = tmp_path / "half.pth"
    torch.save({n: v.half() for n, v in authors_names(small).items()}, path)
    model = load_checkpoint(AST(3, **SMALL), path)
    for name, value in model.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, small.state_dict()[name].half().float())


def test_its_own_state_dict_loads(small, tmp_path):
    torch.save(small.state_dict(), tmp_path / "own.pt")
    config = AST.config_of(read_checkpoint(tmp_path / "own.pt"))
    model = load_checkpoint(AST(**config), tmp_path / "own.pt").eval()
    log_mel = make_log_mel(1, 64, 128)
    torch.testing.assert_close(model(log_mel).logits, small(log_mel).logits)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda state: state.pop("v.blocks.1.norm2.bias"), r"1\.layernorm_after\.bias"),
        (lambda state: state.pop("v.blocks.0.attn.qkv.bias"), "3 missing"),
        (lambda state: state.update(extra=torch.ones(2)), r"unknown.*\n.*extra"),
        (
            lambda state: state.update({"v.blocks.0.gate": torch.ones(2)}),
            r"unknown.*\n.*layers\.0\.gate",
        ),
        (
            lambda state: state.update({"v.pos_embed": torch.ones(1, 50, 128)}),
            r"shape.*\n.*position_embeddings: \(1, 50, 128\)",
        ),
    ],
)
def test_weights_that_do_not_fit_are_told(small, change, told):
    state = authors_names(small)
    change(state)
    model = AST(3, **SMALL)
    with pytest.raises(CheckpointError, match=told):
        load_state(model, model.convert_checkpoint(state), "ast.pth")


def test_a_file_of_another_model_is_refused(tmp_path):
    path = tmp_path / "mn01.pt"
    torch.save(EfficientAT(0.1).state_dict(), path)
    with pytest.raises(CheckpointError, match="Is this the file of another model"):
        load_checkpoint(AST(3, **SMALL), path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda state: state.clear(), "no weight 'classifier.dense.weight'.*an AST"),
        (lambda state: state.pop("v.pos_embed"), "no weight 'encoder.embeddings.pos"),
        (
            lambda state: state.update({"v.pos_embed": torch.ones(62, 128)}),
            r"position_embeddings' has the shape \(62, 128\)",
        ),
        (
            lambda state: state.update({"v.pos_embed": torch.ones(1, 13, 128)}),
            "no AST with a stride of .* has 11 patches",
        ),
        (
            lambda state: [
                state.pop(name) for name in list(state) if ".blocks.0." in name
            ],
            r"the layers are \[1\]",
        ),
    ],
)
def test_sizes_of_other_weights_are_refused(small, change, told):
    state = authors_names(small)
    change(state)
    with pytest.raises(ValueError, match=told):
        AST.config_of(state)


# What it is given.


@pytest.mark.parametrize("n_frames", [1, 15, 40, 55])
def test_short_clips_are_padded_with_zeros_before_they_are_normalised(n_frames):
    model = make_small(mean=-5.0, std=2.0)
    log_mel = make_log_mel(2, 64, 128)
    log_mel[:, n_frames:] = (0 - -5.0) / (2 * 2.0)
    with torch.inference_mode():
        padded, short = model(log_mel), model(log_mel[:, :n_frames])
    assert torch.equal(padded.logits, short.logits)
    silence = log_mel.clone()
    silence[:, n_frames:] = -1.2
    assert not torch.allclose(model(silence).logits, short.logits)


def test_features_are_the_patches_where_they_lie(small):
    log_mel = make_log_mel(2, 64, 128)
    with torch.inference_mode():
        features = small.forward_features(log_mel)
        tokens = small.encoder(input_values=log_mel).last_hidden_state[:, 2:]
    assert features.shape == (2, 128, 12, 5)
    assert_close(features.flatten(2).mT, tokens.numpy())
    # Patches of a stride of their own over each axis.
    model = AST(3, **{**SMALL, "frequency_stride": 16, "time_stride": 12}).eval()
    with torch.inference_mode():
        assert model.forward_features(log_mel).shape == (2, 128, 8, 5)


def test_the_padding_is_that_of_the_front_end():
    model = AST(3, **SMALL).eval()
    seen = []
    model.encoder.embeddings.register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0])
    )
    model(torch.zeros(1, 10, 128))
    [padded] = seen
    assert not padded[:, :10].any()
    expected = get_front_end("ast").padding
    assert padded[:, 10:].unique().tolist() == [pytest.approx(expected, rel=1e-6)]


def test_a_clip_does_not_depend_on_the_others(small):
    log_mel = make_log_mel(3, 50, 128)
    with torch.inference_mode():
        among = small(log_mel)
        among_others = small(log_mel[[2, 0, 2]])
    for stage in ("embedding", "logits"):
        first, second = getattr(among, stage), getattr(among_others, stage)
        # With several threads torch's kernels add up in other orders.
        torch.testing.assert_close(first[[2, 0]], second[:2], rtol=0, atol=1e-5)
        assert not torch.allclose(first[0], first[2], rtol=0, atol=1e-3)


def test_made_ready_for_inference_it_gives_the_same(small):
    model = copy.deepcopy(small)
    replace_pointwise(fold_batch_norm(model))
    log_mel = make_log_mel(2, 64, 128)
    torch.testing.assert_close(model(log_mel).logits, small(log_mel).logits)


@pytest.mark.parametrize("shape", [(64, 128), (1, 64, 64), (1, 1, 64, 128)])
def test_other_shapes_are_refused(small, shape):
    with pytest.raises(ValueError, match=r"log_mel has the shape.*AST takes \(n_clips"):
        small(torch.zeros(shape))


@pytest.mark.parametrize(
    ("n_frames", "told"),
    [(0, "0 frames.*AST takes 1 to 64: put"), (65, "65 frames.* 1 to 64: cut")],
)
def test_too_many_frames_and_none_are_refused(small, n_frames, told):
    with pytest.raises(ValueError, match=told):
        small(torch.zeros(1, n_frames, 128))


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({"n_frames": 15}, "time_stride=10 with n_frames=15: .* the 16 frames"),
        ({"time_stride": 0}, "time_stride=0"),
        ({"frequency_stride": -1}, "frequency_stride=-1"),
        ({"num_heads": 3}, "num_heads=3 must divide embed_dim=128"),
        ({"num_heads": 0}, "num_heads=0 must be at least 1"),
        ({"depth": 0}, "depth=0 must be at least 1"),
        ({"n_classes": 0}, "n_classes=0 must be at least 1"),
        ({"std": 0.0}, "std=0.0 must be positive"),
        ({"std": float("nan")}, "std=nan must be positive"),
    ],
)
def test_bad_parameters_are_refused(params, told):
    with pytest.raises(ValueError, match=told):
        AST(**{"n_classes": 3, **SMALL, **params})


# Training.


def test_gradients_reach_all_weights():
    model = make_small().train()
    output = model(make_log_mel(4, 60, 128))
    output.logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        if not name.endswith("k_proj.bias"):  # adds the same to all scores of a query
            assert parameter.grad.abs().max() > 1e-6, name
    positions = model.encoder.embeddings.position_embeddings.grad
    assert positions.abs().amax(dim=2).min() > 0


def test_the_special_tokens_begin_apart():
    embeddings = AST(3, **SMALL).encoder.embeddings
    assert not torch.equal(embeddings.cls_token, embeddings.distillation_token)
    for parameter in embeddings.parameters():
        if parameter.ndim > 1:
            assert 0.01 < parameter.std() < 0.03


def test_training_from_scratch_tells_two_sounds_apart():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AST(2, 32, embed_dim=32, depth=2, num_heads=2).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        target = torch.arange(16) % 2
        for _ in range(30):
            log_mel = 0.5 * torch.randn(16, 32, 128)
            log_mel[target == 1, :, :40] += 1
            loss = torch.nn.functional.cross_entropy(model(log_mel).logits, target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert loss < 0.1


def test_building_leaves_the_generator_and_the_terminal_alone(capfd, caplog):
    state = torch.get_rng_state()
    AST(3, **SMALL)
    assert torch.equal(torch.get_rng_state(), state)
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def test_the_seed_decides_the_weights():
    def draw(seed):
        torch.manual_seed(seed)
        return AST(3, **SMALL).state_dict()

    with torch.random.fork_rng(devices=[]):
        first, same, other = draw(0), draw(0), draw(1)
    for name, value in first.items():
        assert torch.equal(value, same[name])
    for name in (
        POSITIONS,
        "classifier.dense.weight",
        "encoder.layers.1.mlp.fc1.weight",
    ):
        assert not torch.equal(first[name], other[name])


def test_without_transformers_the_mend_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"pip install 'sklabelaudio\[text\]'"):
        AST()


# Other lengths and strides.


def test_adapting_keeps_what_it_is_not_told_to_change(small):
    before = copy.deepcopy(small.state_dict())
    same = small.adapt()
    short = small.adapt(n_classes=5, n_frames=40)
    for name, value in small.state_dict().items():
        assert torch.equal(value, before[name])
        assert torch.equal(value, same.state_dict()[name])
        assert value.data_ptr() != same.state_dict()[name].data_ptr()
        if not name.startswith("classifier") and name != POSITIONS:
            assert torch.equal(value, short.state_dict()[name])
    assert (short.n_classes, short.n_frames) == (5, 40)
    assert short(torch.zeros(1, 40, 128)).logits.shape == (1, 5)
    assert not short.training
    assert all(p.requires_grad and p.is_leaf for p in short.parameters())
    assert make_small().train().adapt(n_classes=5).training


def test_adapting_keeps_precision_and_padding():
    model = make_small(mean=-5.0, std=2.0).double()
    longer = model.adapt(n_frames=100)
    log_mel = make_log_mel(1, 30, 128).double()
    padded = torch.full((1, 100, 128), 1.25, dtype=torch.float64)
    padded[:, :30] = log_mel
    assert torch.equal(longer(log_mel).logits, longer(padded).logits)
    new = model.adapt(n_classes=4)
    assert {p.dtype for p in new.parameters()} == {torch.float64}


@pytest.mark.parametrize(
    ("params", "n_rows", "n_columns"),
    [
        ({"n_frames": 104}, 12, 9),
        ({"n_frames": 34}, 12, 2),
        ({"frequency_stride": 16}, 8, 5),
        ({"frequency_stride": 14}, 9, 5),
        ({"frequency_stride": 8, "time_stride": 5}, 15, 10),
    ],
)
def test_positions_are_cut_from_the_middle_or_interpolated(
    small, params, n_rows, n_columns
):
    adapted = small.adapt(**params)
    old, new = (
        model.state_dict()[POSITIONS][0].numpy().astype(float)
        for model in (small, adapted)
    )
    assert np.array_equal(new[:2], old[:2])
    expected = old[2:].reshape(12, 5, -1)
    for axis, n_new in ((0, n_rows), (1, n_columns)):
        n_old = expected.shape[axis]
        if n_new <= n_old:
            start = n_old // 2 - n_new // 2
            kept = np.arange(start, start + n_new)
            expected = expected.take(kept, axis)
            continue
        # The middle of every new patch, in old patches.
        places = (np.arange(n_new) + 0.5) * n_old / n_new - 0.5
        expected = np.apply_along_axis(
            lambda line, places=places: np.interp(places, range(len(line)), line),
            axis,
            expected,
        )
    assert new[2:].shape == (n_rows * n_columns, 128)
    np.testing.assert_allclose(
        new[2:].reshape(n_rows, n_columns, -1), expected, rtol=0, atol=1e-6
    )
    n_frames = params.get("n_frames", 64)
    assert adapted(torch.zeros(1, n_frames, 128)).logits.shape == (1, 3)


def test_adapting_to_nothing_is_refused(small):
    with pytest.raises(ValueError, match="n_frames=10"):
        small.adapt(n_frames=10)
    with pytest.raises(ValueError, match="time_stride=0"):
        small.adapt(time_stride=0)
