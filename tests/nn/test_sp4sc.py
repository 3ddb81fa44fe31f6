import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sklabelaudio.exceptions import CheckpointError
from sklabelaudio.feature_extraction._front_ends import get_front_end
from sklabelaudio.nn import EfficientAT, load_checkpoint
from sklabelaudio.nn._checkpoint import read_checkpoint
from sklabelaudio.nn._fold import fold_batch_norm
from sklabelaudio.nn._pointwise import replace_pointwise
from sklabelaudio.nn._sp4sc import SP4SC

REAL = ("ce", "ce_mixup", "focal")
BLOCKS = tuple(f"conv{i}" for i in range(1, 5))
SMALL = {"n_mels": 20, "channels": (4, 6, 6, 8), "dropout": 0.0}


@pytest.fixture(scope="module")
def reference(parity):
    return parity("sp4asc")


@pytest.fixture(scope="module")
def states(reference, shared):
    """Weights that are not merged: deterministic ones, and those of the authors."""
    folder = shared / "reference" / "checkpoints" / "sp4asc"
    real = {name: read_checkpoint(folder / f"{name}.pth") for name in REAL}
    return {"det": reference.state(), **real}


@pytest.fixture(scope="module")
def log_mels(reference):
    front_end = get_front_end("sp4sc")
    return {
        name: torch.from_numpy(front_end(item.waveform)[np.newaxis])
        for name, item in reference.inputs.items()
    }


def build(state):
    model = SP4SC(**SP4SC.config_of(state))
    model.load_state_dict(state)
    return model.eval()


def run(model, log_mel):
    with torch.inference_mode():
        return model(log_mel)


def merge_by_hand(state, eps):
    """The study's merge, by the authors' names.

    Its equation 4 is misprinted: the mean stands under the bar.
    """
    merged = {k: v for k, v in state.items() if k.split(".")[-2] not in ("bn0", "bn")}
    for block in ("", *(f"{name}." for name in BLOCKS)):
        norm = block + ("bn" if block else "bn0")
        deviation = (state[f"{norm}.running_var"].double() + eps).sqrt()
        factor = state[f"{norm}.weight"].double() / deviation
        bias = state[f"{norm}.bias"] - factor * state[f"{norm}.running_mean"]
        if block:
            for name in (f"{block}sp_conv1.weight", f"{block}sp_conv2.weight"):
                merged[name] = (state[name] * factor.view(-1, 1, 1, 1)).float()
            merged[f"{block}sp_conv2.bias"] = bias.float()
        else:
            merged["bn0.weight"] = factor.view(1, -1, 1, 1).float()
            merged["bn0.bias"] = bias.view(1, -1, 1, 1).float()
    return merged


def assert_close(actual, expected, tolerance=2e-6):
    assert actual.shape == expected.shape
    error = np.abs(actual.numpy() - expected).max() / np.abs(expected).max()
    assert error < tolerance


def assert_expected(output, expected, name):
    assert_close(output.embedding, expected[f"{name}.embedding"])
    assert_close(output.logits, expected[f"{name}.logits"])
    pooled = output.frames.amax(dim=1) + output.frames.mean(dim=1)
    assert_close(pooled, expected[f"{name}.pooled"])


@pytest.mark.parametrize("weights", ["det", *REAL])
def test_gives_what_the_authors_give(reference, states, log_mels, weights):
    model = build(states[weights])
    merged = model.merge_batch_norm()
    made_ready = replace_pointwise(fold_batch_norm(copy.deepcopy(model)))
    made_ready.to(memory_format=torch.channels_last)
    for name, log_mel in log_mels.items():
        for form in (model, merged, made_ready):
            output = run(form, log_mel)
            assert_expected(output, reference.expected, f"{name}.{weights}")
            assert output.framewise is None


@pytest.mark.parametrize("weights", ["det", *REAL])
def test_gives_it_from_their_log_mel_too(reference, states, weights):
    log_mel = torch.from_numpy(reference.expected["noise0.logmel"][0])
    output = run(build(states[weights]), log_mel)
    assert_expected(output, reference.expected, f"noise0.{weights}")


@pytest.mark.parametrize("weights", REAL)
def test_merging_changes_nothing_but_the_last_digits(states, log_mels, weights):
    """Although one of the channels of `ce` has a variance of 9e-11."""
    model = build(states[weights])
    merged = model.merge_batch_norm()
    for log_mel in log_mels.values():
        before, after = (run(form, log_mel).logits for form in (model, merged))
        assert (after - before).abs().max() < 2.3e-5


@pytest.mark.parametrize("weights", ["det", *REAL])
def test_the_authors_merge_forgets_eps(reference, states, log_mels, weights, tmp_path):
    """Their merged weights load, and give what theirs give, which is another thing."""
    state = merge_by_hand(states[weights], eps=0)
    shapes = {name: list(value.shape) for name, value in state.items()}
    expected_keys = reference.manifest["merged_keys"]
    assert shapes == {name: entry["shape"] for name, entry in expected_keys.items()}
    torch.save({"net": state}, tmp_path / "merged.pth")
    sizes = SP4SC.config_of(state)
    assert sizes["merged"]
    theirs = load_checkpoint(SP4SC(**sizes), tmp_path / "merged.pth").eval()
    ours, greatest = build(states[weights]), 0.0
    for name, log_mel in log_mels.items():
        output = run(theirs, log_mel)
        assert_expected(output, reference.expected, f"{name}.{weights}_merged")
        difference = (output.logits - run(ours, log_mel).logits).abs().max().item()
        greatest = max(greatest, difference)
    # The published figures are of these inputs and of others that are not kept.
    published = reference.manifest["merged_vs_unmerged_max_abs"][weights]["logits"]
    assert 0.3 * published < greatest < 1.02 * published


@pytest.mark.parametrize("weights", REAL)
def test_weights_in_half_precision(reference, states, log_mels, weights, tmp_path):
    state = merge_by_hand(states[weights], eps=0)
    state = {name: value.half() for name, value in state.items()}
    torch.save({"net": state}, tmp_path / "half.pth")
    model = load_checkpoint(SP4SC(merged=True), tmp_path / "half.pth").eval()
    for name, log_mel in log_mels.items():
        output = run(model, log_mel)
        assert_expected(output, reference.expected, f"{name}.{weights}_half")


@pytest.mark.parametrize("weights", REAL)
def test_computes_in_half_precision(states, log_mels, weights):
    model = build(states[weights])
    half = model.merge_batch_norm().half()
    for name in ("noise0", "noise1"):  # a CPU takes its time
        expected = run(model, log_mels[name]).logits
        logits = run(half, log_mels[name].half()).logits
        assert logits.dtype == torch.float16
        assert_close(logits.float(), expected.numpy(), tolerance=5e-3)


def test_merge_is_the_published_equations(states):
    for weights in ("det", *REAL):
        expected = merge_by_hand(states[weights], eps=1e-5)
        state = build(states[weights]).merge_batch_norm().state_dict()
        assert set(state) == set(expected)
        for name, value in state.items():
            torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-6)


def count_values(model):
    return sum(value.numel() for value in model.state_dict().values())


def test_sizes_are_the_published_ones(reference):
    model = SP4SC()
    counts = reference.manifest["parameter_counts"]
    n_parameters = sum(p.numel() for p in model.parameters())
    assert set(model.state_dict()) == set(reference.manifest["keys"])
    assert count_values(model) == counts["training_form_state_dict_numel"] == 64_335
    assert n_parameters == counts["training_form_parameters"] == 62_922
    for merged in (SP4SC(merged=True), model.merge_batch_norm()):
        assert count_values(merged) == counts["merged_state_dict_numel"] == 62_474
        assert set(merged.state_dict()) == set(reference.manifest["merged_keys"])
    assert (model.n_components, model.n_classes, model.frame_stride) == (128, 10, 16)


def on_disk(state, kind):
    if kind == "half":
        state = {
            name: value.half() if value.is_floating_point() else value
            for name, value in state.items()
        }
    if kind == "distributed twice":
        state = {f"module.module.{name}": value for name, value in state.items()}
    return {
        "epoch": 200,
        "net": state,
        "optim": {"state": {}, "param_groups": []},
        "scheduler": {"last_epoch": 200},
        "config": {"net": "Cnn6_60k", "mixup_alpha": None},
    }


@pytest.mark.parametrize("kind", ["official", "half", "distributed twice"])
def test_files_in_the_authors_layout(reference, log_mels, kind, tmp_path):
    torch.save(on_disk(reference.state(), kind), tmp_path / "ckpt.pth")
    sizes = SP4SC.config_of(read_checkpoint(tmp_path / "ckpt.pth"))
    assert sizes == {
        "n_classes": 10,
        "n_mels": 256,
        "channels": (64, 128, 128, 128),
        "merged": False,
    }
    model = load_checkpoint(SP4SC(**sizes), tmp_path / "ckpt.pth").eval()
    logits = run(model, log_mels["noise0"]).logits
    tolerance = 1e-2 if kind == "half" else 2e-6
    assert_close(logits, reference.expected["noise0.det.logits"], tolerance)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(EfficientAT(0.1).state_dict(), path)
    with pytest.raises(CheckpointError, match=r"does not fit SP4SC"):
        load_checkpoint(SP4SC(), path)
    with pytest.raises(ValueError, match=r"no weight 'bn0\.weight', so these are not"):
        SP4SC.config_of(read_checkpoint(path))
    torch.save(SP4SC(merged=True).state_dict(), path)
    with pytest.raises(CheckpointError, match=r"conv1\.sp_conv2\.bias"):
        load_checkpoint(SP4SC(), path)


@pytest.mark.parametrize("merged", [False, True])
def test_sizes_are_read_off_the_weights(merged):
    sizes = {"n_classes": 3, "n_mels": 20, "channels": (1, 2, 3, 4), "merged": merged}
    assert SP4SC.config_of(SP4SC(**sizes).state_dict()) == sizes
    state = SP4SC().state_dict()
    state["bn0.weight"] = torch.tensor(1.0)
    with pytest.raises(ValueError, match=r"'bn0\.weight' has the shape \(\)"):
        SP4SC.config_of(state)


def with_statistics(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():
        if name.endswith(("running_mean", "bn0.bias", "bn.bias")):
            value.normal_(generator=generator)
        elif name.endswith(("running_var", "bn0.weight", "bn.weight")):
            value.uniform_(0.1, 3, generator=generator)
    return model.eval()


def compute_plainly(model, log_mel):
    """Layer by layer, as the study describes it."""
    state = model.state_dict()

    def norm(name, x):
        values = [state[f"{name}.{part}"] for part in ("running_mean", "running_var")]
        return F.batch_norm(x, *values, state[f"{name}.weight"], state[f"{name}.bias"])

    x = norm("bn0", log_mel.transpose(1, 2)).transpose(1, 2).unsqueeze(1)
    for block in BLOCKS:
        mix, high, wide = (
            state[f"{block}.{part}.weight"]
            for part in ("ch_conv1", "sp_conv1", "sp_conv2")
        )
        x = F.conv2d(x, mix)
        x = F.conv2d(
            x, high, padding=(2, 0), dilation=(2, 1), groups=len(high)
        ) + F.conv2d(x, wide, padding=(0, 2), dilation=(1, 2), groups=len(wide))
        x = F.avg_pool2d(norm(f"{block}.bn", x).relu(), 2)
    return x.mean(3).transpose(1, 2)


@pytest.mark.parametrize("channels", [(4, 6, 6, 8), (1, 3, 1, 2)])
@pytest.mark.parametrize(("n_frames", "n_mels"), [(16, 16), (17, 31), (50, 47)])
def test_is_the_sum_of_two_filters_in_every_block(channels, n_frames, n_mels):
    torch.manual_seed(0)
    model = with_statistics(SP4SC(3, n_mels=n_mels, channels=channels)).double()
    log_mel = 10 * torch.randn(2, n_frames, n_mels).double() - 20
    expected = compute_plainly(model, log_mel)
    assert expected.shape == (2, n_frames // 16, channels[-1])
    for form in (model, model.merge_batch_norm()):
        frames = run(form, log_mel).frames
        torch.testing.assert_close(frames, expected, rtol=1e-10, atol=1e-10)


def test_a_step_of_the_frames_stands_for_16_frames():
    """A burst moves the steps that cover it most."""
    torch.manual_seed(0)
    model = with_statistics(SP4SC(3, **SMALL))
    silence = torch.full((1, 200, 20), -50.0)
    burst = silence.clone()
    burst[:, 96:112] = 0.0
    moved = (run(model, burst).frames - run(model, silence).frames).abs().sum(2)[0]
    assert moved.argmax() == 96 // model.frame_stride


def test_merging_leaves_the_model_alone():
    torch.manual_seed(0)
    model = with_statistics(SP4SC(3, **SMALL)).train()
    before = copy.deepcopy(model.state_dict())
    merged = model.merge_batch_norm()
    assert not any(module.training for module in merged.modules())
    assert all(module.training for module in model.modules())
    assert list(model.state_dict()) == list(before)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    again = merged.merge_batch_norm()
    for name, value in merged.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)


@pytest.mark.parametrize("frozen", [False, True])
def test_merged_weights_are_trainable_if_the_others_were(frozen):
    model = SP4SC(3, **SMALL).requires_grad_(not frozen)
    wanted = {
        parameter.requires_grad for parameter in model.merge_batch_norm().parameters()
    }
    assert wanted == {not frozen}


@pytest.mark.parametrize("merged", [False, True])
def test_gradients_reach_all_weights(merged):
    torch.manual_seed(0)
    model = SP4SC(3, **SMALL, merged=merged)
    output = model(torch.randn(4, 40, 20))
    output.logits.logsumexp(dim=1).sum().backward()
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name


def test_dropout_is_before_both_layers():
    torch.manual_seed(0)
    model = SP4SC(3, **{**SMALL, "dropout": 0.5})
    log_mel = torch.randn(4, 40, 20)
    first, second = model(log_mel), model(log_mel)
    torch.testing.assert_close(first.frames, second.frames)
    assert not torch.equal(first.embedding, second.embedding)
    torch.manual_seed(1)
    kept = model(log_mel)
    head = model.fc2(kept.embedding)
    assert not torch.allclose(head, kept.logits)


def test_learns():
    """Tones that rise from those that fall, in a few steps."""
    torch.manual_seed(0)
    model = SP4SC(2, n_mels=32, channels=(8, 8, 8, 8), dropout=0.0)
    frame = torch.arange(64)
    band = (frame[:, None] + torch.arange(16)) % 32
    rising = torch.full((16, 64, 32), -60.0)
    rising[torch.arange(16)[:, None], frame, band.T] = -10.0
    log_mel = torch.cat([rising, rising.flip(2)])
    log_mel += 5 * torch.randn(log_mel.shape)
    target = torch.arange(2).repeat_interleave(16)
    train = torch.arange(32) % 2 == 0
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(40):
        loss = F.cross_entropy(model(log_mel[train]).logits, target[train])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    predicted = run(model.eval(), log_mel[~train]).logits.argmax(1)
    assert (predicted == target[~train]).float().mean() > 0.9


@pytest.mark.parametrize("shape", [(40, 20), (2, 40, 64), (2, 1, 40, 20)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"log_mel has the shape.*n_frames, 20\)"):
        SP4SC(3, **SMALL)(torch.zeros(shape))


@pytest.mark.parametrize("n_frames", [0, 15])
def test_too_few_frames_are_refused(n_frames):
    with pytest.raises(ValueError, match=f"log_mel has {n_frames} frames.*takes 16"):
        SP4SC(3, **SMALL)(torch.zeros(2, n_frames, 20))


@pytest.mark.parametrize("channels", [(), (4, 4, 4), (4, 4, 4, 4, 4)])
def test_other_numbers_of_blocks_are_refused(channels):
    with pytest.raises(ValueError, match=r"channels=\(.*pass 4 numbers"):
        SP4SC(channels=channels)


def test_no_classes_are_refused():
    with pytest.raises(ValueError, match="n_classes=0 must be at least 1"):
        SP4SC(0)


def test_too_few_mel_bands_are_refused():
    with pytest.raises(ValueError, match=r"n_mels=15 is too few.*at least 16"):
        SP4SC(n_mels=15)
