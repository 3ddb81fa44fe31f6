import sys

import numpy as np
import pytest
import torch

from sklabelaudio.exceptions import CheckpointError
from sklabelaudio.feature_extraction._front_ends import get_front_end
from sklabelaudio.nn import HTSAT, load_checkpoint
from sklabelaudio.nn._checkpoint import load_state, read_checkpoint

SMALL = {"depths": (2, 1, 1, 1), "num_heads": (1, 1, 2, 2)}


def make_small():
    model = HTSAT(8, 3, **SMALL).eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
        # As those of AudioSet in dB.
        model.encoder.batch_norm.running_mean.fill_(-20)
        model.encoder.batch_norm.running_var.fill_(100)
    return model


def make_log_mel(*shape):
    generator = torch.Generator().manual_seed(1)
    return 10 * torch.randn(*shape, generator=generator) - 20


@pytest.fixture(scope="module")
def small():
    return make_small()


def fill_constants(state, manifest):
    """Add the keys that the deterministic weights leave out, as the authors have them.

    The constants of the front end, which are not used, are zeros here.
    """
    row, column = np.divmod(np.arange(64), 8)
    index = (row[:, None] - row + 7) * 15 + (column[:, None] - column + 7)
    for key, entry in manifest["keys"].items():
        if key.endswith("relative_position_index"):
            state[key] = torch.from_numpy(index)
        elif key not in state:
            state[key] = torch.zeros(entry["shape"])
    return state


@pytest.fixture(scope="module")
def reference(parity):
    return parity("htsat")


@pytest.fixture(scope="module")
def official_file(reference, tmp_path_factory):
    """Weights as the authors' trainer saves them."""
    state = fill_constants(reference.state(), reference.manifest)
    path = tmp_path_factory.mktemp("htsat") / "HTSAT_AudioSet_Saved_1.ckpt"
    lightning = {
        "epoch": 9,
        "pytorch-lightning_version": "1.5.9",
        "state_dict": {f"sed_model.{key}": value for key, value in state.items()},
        "optimizer_states": [{"state": {}, "param_groups": []}],
    }
    torch.save(lightning, path)
    return path


@pytest.fixture(scope="module")
def trained(official_file):
    model = HTSAT(**HTSAT.config_of(read_checkpoint(official_file)))
    return load_checkpoint(model, official_file).eval()


def encode(model, waveform, **options):
    log_mel = torch.from_numpy(get_front_end("htsat")(waveform)[np.newaxis])
    grids = []
    hook = model.tscam_conv.register_forward_pre_hook(
        lambda module, inputs: grids.append(inputs[0])
    )
    with torch.inference_mode():
        output = model(log_mel, **options)
    hook.remove()
    return output, grids


def assert_close(actual, expected):
    assert actual.shape == expected.shape
    error = np.abs(actual.numpy() - expected).max() / np.abs(expected).max()
    assert error < 5e-6


@pytest.mark.parametrize("name", ["noise0", "noise1", "burst", "chirp"])
def test_gives_what_the_authors_give(reference, trained, name):
    output, [grid] = encode(trained, reference.inputs[name].waveform)
    expected = reference.expected
    assert_close(output.embedding, expected[f"{name}.embedding"])
    assert_close(output.logits, expected[f"{name}.logits"])
    assert_close(output.logits.sigmoid(), expected[f"{name}.clipwise"])
    assert_close(output.framewise[0, ::32, ::4], expected[f"{name}.framewise"])
    assert_close(grid[0, ::64], expected[f"{name}.token_grid"])
    assert output.framewise.shape == (1, 1024, 527)


@pytest.mark.parametrize("infer_mode", [False, True])
def test_features_are_the_tokens_in_the_image(reference, trained, infer_mode):
    log_mel = get_front_end("htsat")(reference.inputs["noise1"].waveform)
    log_mel = torch.from_numpy(log_mel[np.newaxis])[:, :400]
    tokens = []
    hook = trained.encoder.norm.register_forward_hook(
        lambda module, inputs, output: tokens.append(output)
    )
    with torch.inference_mode():
        features = trained.forward_features(log_mel, infer_mode=infer_mode)
        output = trained(log_mel, infer_mode=infer_mode)
    hook.remove()
    assert features.shape == (1, 768, 8, 8)
    assert torch.equal(features.flatten(2).mT, tokens[0])
    assert_close(features.mean(dim=(2, 3)), output.embedding.numpy())


def test_features_are_where_they_are_said_to_be(reference, trained):
    log_mel = get_front_end("htsat")(reference.inputs["noise0"].waveform)
    with torch.inference_mode():
        features = trained.forward_features(torch.from_numpy(log_mel[np.newaxis]))[0]
    grid = torch.stack(
        [
            torch.stack(
                [features[:, 2 * (s // 8) + b, s % 8] for s in range(32)], dim=1
            )
            for b in range(2)
        ],
        dim=1,
    )
    assert_close(grid[::64], reference.expected["noise0.token_grid"])


@pytest.mark.parametrize("name", ["noise0", "noise1"])
def test_infer_mode_gives_what_the_authors_give(reference, trained, name):
    output, _ = encode(trained, reference.inputs[name].waveform, infer_mode=True)
    expected = reference.expected
    assert_close(output.embedding, expected[f"{name}.infer.embedding"])
    assert_close(output.logits.sigmoid(), expected[f"{name}.infer.clipwise"])


def test_a_clip_of_12_s_gives_what_the_authors_give(reference, trained):
    output, _ = encode(trained, reference.inputs["long"].waveform)
    expected = reference.expected
    assert_close(output.logits.sigmoid(), expected["long.clipwise"])
    assert_close(output.framewise[0, ::32, ::4], expected["long.framewise"])


def test_the_parameters_are_the_published_ones(reference, trained):
    published = reference.manifest["parameter_counts"]
    left_out = {"front end": 0, "unused classifier": 0}
    for key, entry in reference.manifest["keys"].items():
        if key.startswith(("spectrogram_extractor.", "logmel_extractor.")):
            left_out["front end"] += int(np.prod(entry["shape"]))
        elif key.startswith("head."):
            left_out["unused classifier"] += int(np.prod(entry["shape"]))
    ours = sum(parameter.numel() for parameter in trained.parameters())
    assert ours + left_out["unused classifier"] == published["trainable_parameters"]
    assert ours + sum(left_out.values()) == published["parameters"]
    assert (ours, trained.n_components, trained.n_classes) == (29_963_431, 768, 527)


@pytest.mark.parametrize(
    ("stem", "sizes"),
    [
        ("htsat", {"embed_dim": 96, "depths": (2, 2, 6, 2)}),
        ("clap_htsat_base", {"embed_dim": 128, "depths": (2, 2, 12, 2)}),
    ],
)
@pytest.mark.parametrize("prefix", ["", "audio_branch."])
def test_sizes_are_read_off_the_weights(parity, stem, sizes, prefix):
    state = {
        prefix + key: torch.empty(entry["shape"], device="meta")
        for key, entry in parity(stem).manifest["keys"].items()
    }
    expected = {**sizes, "num_heads": (4, 8, 16, 32), "n_classes": 527}
    assert HTSAT.config_of(state) == expected


def test_the_audio_branch_of_a_clap_file_is_taken(small):
    state = {name: value.clone() for name, value in authors_names(small).items()}
    clap = {f"audio_branch.{name}": value for name, value in state.items()}
    for name in ("audio_projection.0.weight", "text_branch.pooler.dense.bias"):
        clap[name] = torch.zeros(2)
    clap["logit_scale_a"] = torch.tensor(1.0)
    model = HTSAT(**HTSAT.config_of(clap)).eval()
    load_state(model, model.convert_checkpoint(clap), "630k.pt")
    log_mel = make_log_mel(1, 300, 64)
    torch.testing.assert_close(model(log_mel).logits, small(log_mel).logits)


def authors_names(model):
    """Name a small model's weights as the authors do, by an own rule."""
    own, state = model.state_dict(), {}
    for name, value in own.items():
        name = name.removeprefix("encoder.").replace("batch_norm", "bn0")
        name = name.replace("layernorm_before", "norm1")
        name = name.replace("layernorm_after", "norm2")
        name = name.replace("attention.output.dense", "attn.proj")
        name = name.replace("intermediate.dense", "mlp.fc1")
        name = name.replace("output.dense", "mlp.fc2")
        name = name.replace("attention.self.relative", "attn.relative")
        if ".attention.self.key." in name or ".attention.self.value." in name:
            continue
        if ".attention.self.query." in name:
            parts = [
                own[f"encoder.{name.replace('query', part)}"]
                for part in ("query", "key", "value")
            ]
            name, value = name.replace("attention.self.query", "attn.qkv"), parts
            value = torch.cat(value)
        state[name] = value
    return state


def test_its_own_state_dict_loads(small, tmp_path):
    torch.save(small.state_dict(), tmp_path / "own.pt")
    config = HTSAT.config_of(read_checkpoint(tmp_path / "own.pt"))
    model = load_checkpoint(HTSAT(**config), tmp_path / "own.pt").eval()
    log_mel = make_log_mel(1, 300, 64)
    assert torch.equal(model(log_mel).logits, small(log_mel).logits)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda state: state.pop("layers.1.blocks.0.norm2.bias"), "layernorm_after"),
        (lambda state: state.pop("tscam_conv.weight"), r"missing.*\n.*tscam_conv"),
        (lambda state: state.update(extra=torch.ones(2)), r"unknown.*\n.*extra"),
        (
            lambda state: state.update({"layers.0.blocks.0.gate": torch.ones(2)}),
            r"unknown.*\n.*layers\.0\.blocks\.0\.gate",
        ),
        (
            lambda state: state.update({"bn0.weight": torch.ones(128)}),
            r"shape.*\n.*batch_norm\.weight",
        ),
    ],
)
def test_weights_that_do_not_fit_are_told(small, change, told):
    state = authors_names(small)
    change(state)
    model = make_small()
    with pytest.raises(CheckpointError, match=told):
        load_state(model, model.convert_checkpoint(state), "htsat.ckpt")


def test_the_weights_of_another_model_tell_no_sizes():
    state = {"conv.weight": torch.ones(2, 3)}
    assert HTSAT.config_of(state) == {}
    assert HTSAT.convert_checkpoint(state) == state


def test_pieces_of_a_long_clip_are_averaged(small):
    log_mel = make_log_mel(2, 1300, 64)
    length, starts = 649, (0, 324, 648)
    pieces = [small(log_mel[:, start : start + length]) for start in starts]
    output = small(log_mel)
    probabilities = torch.stack([piece.logits.sigmoid() for piece in pieces])
    torch.testing.assert_close(output.logits.sigmoid(), probabilities.mean(0))
    for stage in ("embedding", "framewise"):
        mean = torch.stack([getattr(piece, stage) for piece in pieces]).mean(0)
        torch.testing.assert_close(getattr(output, stage), mean)


def test_certain_classes_of_a_long_clip_have_finite_logits():
    model = make_small()
    with torch.no_grad():
        model.tscam_conv.bias.copy_(torch.tensor([-200.0, 0.0, 200.0]))
    logits = model(make_log_mel(1, 1100, 64)).logits[0]
    assert logits[0] < -150
    assert logits[2] > 150
    assert torch.isfinite(logits).all()


def test_infer_mode_leaves_longer_clips_as_they_are(small):
    for n_frames in (513, 1024, 1100):
        log_mel = make_log_mel(1, n_frames, 64)
        repeated = small(log_mel, infer_mode=True)
        assert torch.equal(repeated.logits, small(log_mel).logits)


@pytest.mark.parametrize("n_frames", [1, 101, 1024, 1025, 2050])
def test_a_clip_does_not_depend_on_the_others(small, n_frames):
    log_mel = make_log_mel(3, n_frames, 64)
    with torch.inference_mode():
        among = small(log_mel)
        among_others = small(torch.stack([log_mel[2], log_mel[0], log_mel[2]]))
    for stage, other in zip(among, among_others, strict=True):
        assert torch.equal(stage[0], other[1])
        assert torch.equal(stage[2], other[0])
        assert not torch.equal(stage[0], stage[2])


def test_frames_of_a_token_are_the_same(small):
    framewise = small(make_log_mel(1, 400, 64)).framewise
    assert framewise.shape == (1, 1024, 3)
    tokens = framewise.unflatten(1, (32, 32))
    assert torch.equal(tokens, tokens[:, :, :1].expand_as(tokens))
    assert len(tokens[0, :, 0].unique(dim=0)) == 32


@pytest.mark.parametrize("n_frames", [0, 2051])
def test_too_many_frames_and_none_are_refused(small, n_frames):
    with pytest.raises(ValueError, match=f"log_mel has {n_frames} frames; this HTSAT"):
        small(torch.zeros(1, n_frames, 64))


@pytest.mark.parametrize("shape", [(100, 64), (1, 100, 128), (1, 1, 100, 64)])
def test_other_shapes_are_refused(small, shape):
    with pytest.raises(ValueError, match="log_mel has the shape"):
        small(torch.zeros(shape))


def test_building_leaves_the_generator_and_the_terminal_alone(capfd, caplog):
    state = torch.get_rng_state()
    HTSAT(8, 3, **SMALL)
    assert torch.equal(torch.get_rng_state(), state)
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def test_the_seed_decides_the_weights():
    def draw(seed):
        torch.manual_seed(seed)
        return HTSAT(8, 3, **SMALL).state_dict()

    with torch.random.fork_rng(devices=[]):
        first, same, other = draw(0), draw(0), draw(1)
    for name in ("tscam_conv.weight", "encoder.patch_embed.proj.weight"):
        assert torch.equal(first[name], same[name])
        assert not torch.equal(first[name], other[name])


@pytest.mark.parametrize(
    ("sizes", "told"),
    [
        ({"depths": (2, 2, 6)}, r"depths=\(2, 2, 6\) and num_heads=.*pass 4 of each"),
        ({"num_heads": [1]}, r"num_heads=\[1\]: pass 4 of each"),
        ({"num_heads": (5, 8, 16, 32)}, "not a multiple"),
    ],
)
def test_sizes_that_do_not_go_together_are_refused(sizes, told):
    with pytest.raises(ValueError, match=told):
        HTSAT(**sizes)


def test_it_can_be_trained():
    model = make_small().train()
    output = model(make_log_mel(2, 200, 64))
    output.logits.logsumexp(dim=1).sum().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert without == []


def test_without_transformers_the_mend_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"pip install 'sklabelaudio\[text\]'"):
        HTSAT()
