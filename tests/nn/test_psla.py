import numpy as np
import pytest
import torch

from sklabelaudio.exceptions import CheckpointError
from sklabelaudio.feature_extraction._front_ends import get_front_end
from sklabelaudio.nn import PSLA, EfficientAT, load_checkpoint
from sklabelaudio.nn._fold import fold_batch_norm
from sklabelaudio.nn._pointwise import replace_pointwise

SMALL = {"n_classes": 5, "width": 0.25, "depth": 0.2}
# Frames of the authors' AudioSet clips.
N_FRAMES = 1056


@pytest.fixture(scope="module")
def reference(parity):
    return parity("psla")


@pytest.fixture(scope="module")
def state(reference):
    return reference.state()


@pytest.fixture(scope="module")
def log_mels(reference):
    front_end = get_front_end("psla")
    return {
        name: torch.from_numpy(front_end(item.waveform)[:N_FRAMES])[None]
        for name, item in reference.inputs.items()
    }


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return PSLA(**SMALL).eval()


def load(state, **params):
    model = PSLA(**params)
    model.load_state_dict(model.convert_checkpoint(state))
    return model.eval()


def run(model, log_mel, **params):
    with torch.inference_mode():
        return model(log_mel, **params)


def assert_is(values, expected, rtol):
    """Compare relative to the greatest value expected."""
    atol = rtol * np.abs(expected).max()
    np.testing.assert_allclose(values.numpy(), expected, rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("stem", "padding"), [("psla", "symmetric"), ("psla_effnet071", "tensorflow")]
)
def test_is_the_reference(parity, state, log_mels, stem, padding):
    expected = parity(stem).expected
    model = load(state, padding=padding)
    for fold in (False, True):
        if fold:
            replace_pointwise(fold_batch_norm(model))
            n_norms = sum(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules())
            assert n_norms == 0
            model.to(memory_format=torch.channels_last)
        for name, log_mel in log_mels.items():
            output = run(model, log_mel, min_frames=N_FRAMES)
            assert_is(output.embedding, expected[f"{name}.embedding"], 5e-6)
            assert_is(output.logits.sigmoid(), expected[f"{name}.clipwise"], 5e-6)
            # Float32 in the reference is as far from float64.
            features = expected[f"{name}.features"].T[: output.frames.shape[1]]
            assert_is(output.frames[0, :, ::8], features, 8e-6)


def test_the_other_padding_is_another_model(parity, state, log_mels):
    """Probabilities differ by as much as those of the two references."""
    expected = [
        parity(stem).expected["burst.clipwise"] for stem in ("psla", "psla_effnet071")
    ]
    wanted = np.abs(expected[0] - expected[1]).max()
    assert wanted == pytest.approx(0.113, abs=0.001)
    logits = [
        run(load(state, padding=padding), log_mels["burst"], min_frames=N_FRAMES).logits
        for padding in ("symmetric", "tensorflow")
    ]
    difference = (logits[0].sigmoid() - logits[1].sigmoid()).abs().max()
    assert difference == pytest.approx(wanted, abs=1e-5)


def test_published_size(reference):
    with torch.device("meta"):
        model = PSLA()
    counts = reference.manifest["parameter_counts"]
    n_parameters = sum(p.numel() for p in model.parameters())
    assert n_parameters == counts["parameters"] == 13_640_766
    n_values = sum(values.numel() for values in model.state_dict().values())
    assert n_values == counts["state_dict_numel"]
    assert (model.n_components, model.n_classes) == (1408, 527)


def test_authors_files(state, tmp_path):
    assert PSLA.config_of(state) == {
        "n_classes": 527,
        "n_heads": 4,
        "width": 1.1,
        "depth": 1.2,
    }
    path = tmp_path / "as_mdl_0.pth"
    expected = load(state).state_dict()
    for prefix, dtype in [("module.", None), ("module.module.", torch.float16)]:
        file = {
            prefix + name: values.to(dtype) if values.is_floating_point() else values
            for name, values in state.items()
        }
        torch.save(file, path)
        loaded = load_checkpoint(PSLA(), path).state_dict()
        assert list(loaded) == list(expected)
        for name, values in loaded.items():
            rounded = expected[name].to(dtype).to(expected[name].dtype)
            assert torch.equal(values, rounded), name


def test_file_of_another_dataset(state, tmp_path):
    """FSD50K's classes are told from the file."""
    fsd50k = {
        name: values[:200] if name.startswith(("attention.att", "attention.cla"))
        else values
        for name, values in state.items()
    }  # fmt: skip
    path = tmp_path / "fsd_mdl_wa.pth"
    torch.save(fsd50k, path)
    config = PSLA.config_of(fsd50k)
    assert config["n_classes"] == 200
    assert load_checkpoint(PSLA(**config), path).n_classes == 200
    with pytest.raises(CheckpointError, match="another shape"):
        load_checkpoint(PSLA(), path)


def test_heads_stay_apart(state):
    """Each head's scores have the weights that the authors name so."""
    model = load(state)
    for head in range(4):
        for part, authors in [("classifier", "cla"), ("attention", "att")]:
            layer = getattr(model, part)
            rows = slice(527 * head, 527 * (head + 1))
            weight = state[f"attention.{authors}.{head}.weight"].flatten(1)
            assert torch.equal(layer.weight[rows], weight)
            bias = state[f"attention.{authors}.{head}.bias"]
            assert torch.equal(layer.bias[rows], bias)


def test_file_of_another_model_is_an_error(tmp_path):
    torch.save(EfficientAT(0.1).state_dict(), tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match="unknown to the model"):
        load_checkpoint(PSLA(**SMALL), tmp_path / "weights.pt")


@pytest.mark.parametrize("missing", ["trunk.stem.0.weight", "head_weight"])
def test_incomplete_file_is_an_error(small, tmp_path, missing):
    file = {k: v for k, v in small.state_dict().items() if k != missing}
    torch.save(file, tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match=f"1 missing .*\n *{missing}"):
        load_checkpoint(PSLA(**SMALL), tmp_path / "weights.pt")


def test_own_files(small, tmp_path):
    torch.save(small.state_dict(), tmp_path / "weights.pt")
    config = PSLA.config_of(small.state_dict())
    model = load_checkpoint(PSLA(**config), tmp_path / "weights.pt").eval()
    log_mel = torch.randn(2, 50, 128)
    assert torch.equal(run(model, log_mel).logits, run(small, log_mel).logits)


@pytest.mark.parametrize(
    ("width", "depth"),
    [(0.1, 0.1), (0.25, 1.0), (1.0, 0.45), (1.1, 1.2), (1.33, 0.1), (2.0, 1.4)],
)
def test_sizes_are_told_from_weights(width, depth):
    params = {"n_classes": 3, "n_heads": 2, "width": width, "depth": depth}
    with torch.device("meta"):
        state = PSLA(**params).state_dict()
        told = PSLA.config_of(state)
        rebuilt = PSLA(**told).state_dict()
    assert (told["width"], told["n_classes"], told["n_heads"]) == (width, 3, 2)
    assert {k: v.shape for k, v in state.items()} == {
        k: v.shape for k, v in rebuilt.items()
    }


def test_sizes_of_other_weights_are_an_error(small):
    state = small.state_dict()
    with pytest.raises(ValueError, match=r"no 'attention\.head_weight'"):
        PSLA.config_of(EfficientAT(0.1).state_dict())
    flat = state | {"trunk.stem.0.weight": torch.tensor(1.0)}
    with pytest.raises(ValueError, match="not the weights of an EfficientNet"):
        PSLA.config_of(flat)
    without = {k: v for k, v in state.items() if not k.startswith("trunk.blocks")}
    with pytest.raises(ValueError, match=r"no weight 'trunk\.blocks\.0\.project"):
        PSLA.config_of(without)
    other = state | {"trunk.head.0.weight": torch.zeros(100, 80, 1, 1)}
    with pytest.raises(ValueError, match=r"no width and depth .* 100 in the last"):
        PSLA.config_of(other)
    one_block = {k: v for k, v in state.items() if "blocks.1" not in k}
    with pytest.raises(ValueError, match="no width and depth"):
        PSLA.config_of(one_block)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"width": 0}, "width=0 must be positive"),
        ({"depth": float("nan")}, "depth=nan must be positive"),
        ({"padding": "same"}, r"padding='same' is none of \('symmetric'"),
        ({"drop_connect": 1.0}, r"drop_connect=1\.0 must be in"),
        ({"drop_connect": -0.1}, r"drop_connect=-0\.1 must be in"),
        ({"n_classes": 0}, "n_classes=0 must be at least 1"),
        ({"n_heads": 0}, "n_heads=0 must be at least 1"),
    ],
)
def test_bad_parameters(params, message):
    with pytest.raises(ValueError, match=message):
        PSLA(**params)


@pytest.mark.parametrize(
    "shape", [(100, 128), (2, 100, 64), (2, 0, 128), (2, 1, 100, 128)]
)
def test_bad_log_mel(small, shape):
    with pytest.raises(ValueError, match=r"log_mel .*(n_frames, 128\)|1 or more)"):
        small(torch.zeros(shape))


def test_too_few_frames():
    model = PSLA(**SMALL, padding="tensorflow").eval()
    with pytest.raises(ValueError, match=r"log_mel has 3 frames.* min_frames=4"):
        model(torch.zeros(1, 3, 128))
    assert run(model, torch.zeros(1, 1, 128), min_frames=4).frames.shape[1] == 1


@pytest.mark.parametrize(("padding", "least"), [("symmetric", 1), ("tensorflow", 4)])
def test_any_number_of_frames(padding, least):
    model = PSLA(**SMALL, padding=padding).eval()
    for n_frames in (least, 31, 32, 33, 100):
        output = run(model, torch.randn(2, n_frames, 128))
        # With zeros behind alone, a step that is not begun with 4 frames is left out.
        n_steps = -(-(n_frames - least + 1) // 32)
        assert output.embedding.shape == (2, model.n_components)
        assert output.logits.shape == (2, 5)
        assert output.framewise.shape == (2, n_steps, 5)
        assert output.frames.shape == (2, n_steps, model.n_components)
        assert all(torch.isfinite(values).all() for values in output)


def test_short_clips_are_followed_by_the_spectrograms_zeros(small):
    spectrogram = torch.randn(2, 100, 128) - 4
    filled = torch.cat([spectrogram, torch.zeros(2, 60, 128)], dim=1)
    normalized, filled = ((x + 4.6476) / 4.5699 for x in (spectrogram, filled))
    output = run(small, normalized, min_frames=160)
    expected = run(small, filled)
    torch.testing.assert_close(output.embedding, expected.embedding)
    torch.testing.assert_close(output.logits, expected.logits)
    # Steps that begin within the clip are those that are told of.
    torch.testing.assert_close(output.frames, expected.frames[:, :4])
    torch.testing.assert_close(output.framewise, expected.framewise[:, :4])
    # Those behind it are not kept in memory.
    for values in (output.frames, output.framewise):
        assert values.untyped_storage().nbytes() == values.nbytes
    longer = run(small, filled, min_frames=100)
    assert torch.equal(longer.logits, expected.logits)


@pytest.mark.parametrize("padding", ["symmetric", "tensorflow"])
def test_steps_are_where_their_frames_are(padding):
    torch.manual_seed(1)
    model = PSLA(**SMALL, padding=padding).eval()
    silence = torch.zeros(1, 640, 128)
    before = run(model, silence).frames
    for step in (6, 9, 12):  # far enough from the ends to see as much on both sides
        sound = silence.clone()
        stride = model.frame_stride
        sound[:, stride * step : stride * (step + 1)] = torch.randn(1, 32, 128)
        change = (run(model, sound).frames - before).abs().sum(dim=2)[0]
        centre = (change * torch.arange(20)).sum() / change.sum()
        assert centre == pytest.approx(step, abs=0.7)


@pytest.mark.parametrize("padding", ["symmetric", "tensorflow"])
def test_the_middle_of_a_step_is_where_it_is_told_to_be(padding):
    """With filters that hear alike on both sides, to the frame."""
    model = PSLA(**SMALL, padding=padding).eval()
    with torch.no_grad():
        for name, weight in model.trunk.named_parameters():
            if "excite" in name:  # which hears the whole clip
                weight.zero_()
            elif weight.ndim == 4:
                weight.fill_(1 / weight[0].numel())
    log_mel = torch.zeros(1, 640, 128, dtype=torch.float64, requires_grad=True)
    model.double()(log_mel).frames[0, 10].sum().backward()
    heard = log_mel.grad[0].sum(dim=1)
    middle = (heard * torch.arange(640)).sum() / heard.sum()
    told = model.step_offset + 10 * model.frame_stride
    assert middle.item() == pytest.approx(told, abs=1e-6)


def test_a_clip_of_one_step_is_what_the_step_is(small):
    output = run(small, torch.randn(3, 32, 128))
    torch.testing.assert_close(output.framewise[:, 0], output.logits.sigmoid())
    torch.testing.assert_close(output.frames[:, 0], output.embedding)


def test_attention_averages_over_time():
    """A clip's probability is among its steps', and that of the step attended to."""
    torch.manual_seed(0)
    model = PSLA(**SMALL, n_heads=1).eval()
    log_mel = 3 * torch.randn(2, 160, 128)
    output = run(model, log_mel)
    probability, framewise = output.logits.sigmoid(), output.framewise
    assert (probability <= framewise.amax(dim=1) + 1e-6).all()
    assert (probability >= framewise.amin(dim=1) - 1e-6).all()
    torch.testing.assert_close(output.embedding, output.frames.mean(dim=1))
    with torch.no_grad():  # the first class attends to where its first vector is most
        model.attention.weight.zero_()[0, 0] = 1e4
        model.attention.bias[0] = -1e4 * output.frames[0, :, 0].topk(2).values.mean()
    step = output.frames[0, :, 0].argmax()
    attended = run(model, log_mel).logits.sigmoid()
    torch.testing.assert_close(attended[0, 0], framewise[0, step, 0])
    torch.testing.assert_close(attended[0, 1:], framewise[0, :, 1:].mean(dim=0))


def test_certain_scores_stay_finite():
    model = PSLA(**SMALL).eval()
    with torch.no_grad():
        model.classifier.bias.view(4, 5)[:] = torch.tensor([1e4, -1e4, 0, 1e4, -1e4])
        model.attention.bias.fill_(-1e4)
        model.head_weight += 0.1  # which training does not keep at a sum of 1
    for half in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            output = run(model, torch.randn(1, 64, 128))
        assert torch.isfinite(output.logits).all()
        assert output.logits[0, [0, 3]].min() > 15
        assert output.logits[0, [1, 4]].max() < -15
        assert (output.framewise >= 0).all()
        assert (output.framewise <= 1).all()


def test_clips_do_not_touch_each_other(small):
    log_mel = torch.randn(3, 70, 128)
    together = run(small, log_mel)
    for i in range(3):
        alone = run(small, log_mel[i : i + 1])
        torch.testing.assert_close(together.logits[i], alone.logits[0])


def test_training():
    """Gradients reach all weights; blocks are left out at random."""
    torch.manual_seed(0)
    model = PSLA(**SMALL | {"depth": 0.6}, drop_connect=0.4)
    log_mel = torch.randn(6, 64, 128)
    first, second = model(log_mel), model(log_mel)
    assert not torch.allclose(first.embedding, second.embedding)
    model = PSLA(**SMALL | {"depth": 0.6}, drop_connect=0.0)
    output = model(log_mel)
    torch.testing.assert_close(output.embedding, model(log_mel).embedding)
    output.logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name


def test_left_out_blocks_keep_the_mean():
    torch.manual_seed(0)
    model = PSLA(**SMALL | {"depth": 1.0}, drop_connect=0.6)
    block = model.trunk.blocks[-2]
    assert block.is_residual
    assert block.drop_connect == pytest.approx(0.6 * 14 / 16)
    for norm in block.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.eval()
    image = torch.randn(1, block.project[0].out_channels, 4, 4).expand(4000, -1, 4, 4)
    with torch.inference_mode():
        added = block(image) - image
        expected = block.eval()(image[:1]) - image[:1]
    kept = added.flatten(1).any(dim=1)
    assert kept.float().mean() == pytest.approx(1 - block.drop_connect, abs=0.04)
    torch.testing.assert_close(added[kept][:1] * (1 - block.drop_connect), expected)


def test_batch_norms_follow_slowly():
    model = PSLA(**SMALL)
    convolution, norm = model.trunk.stem[:2]
    log_mel = torch.randn(4, 64, 128)
    model(log_mel)
    with torch.no_grad():
        mean = convolution(log_mel.transpose(1, 2)[:, None]).mean((0, 2, 3))
    torch.testing.assert_close(norm.running_mean, 0.01 * mean)
    assert norm.eps == 0.001


def test_untrained_model_passes_its_input_on():
    """Random weights keep the signal's order of magnitude through all layers."""
    torch.manual_seed(0)
    embedding = run(PSLA().eval(), torch.randn(4, 100, 128)).embedding
    assert 1e-4 < embedding.std() < 1000
    assert embedding.std(dim=0).max() > 0.01 * embedding.std()
