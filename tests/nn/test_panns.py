"""PANNs beside what the authors' models give, and by what must hold of them."""

import inspect
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sklabelaudio.exceptions import CheckpointError
from sklabelaudio.feature_extraction._front_ends import get_front_end
from sklabelaudio.nn import (
    Cnn6,
    Cnn10,
    Cnn14,
    ResNet38,
    WavegramLogmelCnn14,
    load_checkpoint,
)
from sklabelaudio.nn._checkpoint import read_checkpoint
from sklabelaudio.nn._fold import fold_batch_norm
from sklabelaudio.nn._pointwise import replace_pointwise

PUBLISHED = {
    "panns_cnn6": (Cnn6, {}),
    "panns_cnn10": (Cnn10, {}),
    "panns_cnn14": (Cnn14, {}),
    "panns_cnn14_16k": (Cnn14, {}),
    "panns_cnn14_decisionlevelmax": (Cnn14, {"decision_level": "max"}),
    "panns_resnet38": (ResNet38, {}),
    "panns_wavegram_logmel_cnn14": (WavegramLogmelCnn14, {}),
}
SIX = {"channels": (4, 4, 8, 8, 16, 16)}
SMALL = {
    Cnn6: {"channels": (4, 8, 8, 16)},
    Cnn10: {"channels": (4, 8, 8, 16)},
    Cnn14: SIX,
    ResNet38: {"n_blocks": (2, 1, 1, 2), "channels": (4, 8, 8, 16), "n_components": 24},
    WavegramLogmelCnn14: {**SIX, "wave_channels": (4, 8, 32)},
}
EVERY = pytest.mark.parametrize("cls", SMALL, ids=lambda cls: cls.__name__)
CONSTANTS = {
    "spectrogram_extractor.stft.conv_real.weight": (513, 1, 1024),
    "spectrogram_extractor.stft.conv_imag.weight": (513, 1, 1024),
    "logmel_extractor.melW": (513, 64),
}


def make_small(cls, n_classes=5, **params):
    """Build a small model whose every weight and statistic matters."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(1)
        model = cls(n_classes, **{**SMALL[cls], **params}).eval()
        for name, tensor in model.state_dict().items():
            noise = torch.rand(tensor.shape, generator=generator)
            if name.endswith("running_mean"):
                tensor.copy_(noise - 0.5)
            elif name.endswith("running_var"):
                tensor.copy_(noise + 0.5)
            elif tensor.ndim == 1:
                tensor.add_(noise)
    model.bn0.running_mean.fill_(-20)
    model.bn0.running_var.fill_(100)
    return model


def make_input(cls, n_clips, n_frames):
    """Make log-mel of so many frames, or waveforms of so many hops."""
    generator = torch.Generator().manual_seed(n_frames)
    if cls is WavegramLogmelCnn14:
        return 0.1 * torch.randn(n_clips, 320 * n_frames, generator=generator)
    return 10 * torch.randn(n_clips, n_frames, 64, generator=generator) - 20


def run(model, inputs):
    with torch.inference_mode():
        return model(inputs)


def save_official(state, path, prefix=""):
    """Save weights as the authors' training does, with all that they have beside."""
    state = {name: torch.zeros(shape) for name, shape in CONSTANTS.items()} | state
    content = {
        "iteration": 600000,
        "model": {prefix + name: tensor for name, tensor in state.items()},
        "sampler": {"indexes": np.arange(5), "pointer": 3},
    }
    torch.save(content, path)


def measure_error(actual, expected):
    assert actual.shape == expected.shape
    return np.abs(actual.numpy() - expected).max() / np.abs(expected).max()


# What the authors' models give.


@pytest.fixture(scope="module")
def draw_state():
    """Callable: the weights of a reference, which the three Cnn14 share."""
    last = {}

    def draw(reference):
        names = tuple(
            (name, *entry["shape"])
            for name, entry in reference.manifest["keys"].items()
            if entry["kind"] != "kept"
        )
        if names not in last:
            last.clear()
            last[names] = reference.state()
        return last[names]

    return draw


@pytest.fixture(scope="module", params=PUBLISHED)
def published(request, parity, draw_state, tmp_path_factory):
    """One of the published models, loaded from a file in its authors' layout."""
    reference = parity(request.param)
    cls, params = PUBLISHED[request.param]
    constants = {
        name: torch.zeros(entry["shape"])
        for name, entry in reference.manifest["keys"].items()
        if entry["kind"] == "kept"
    }
    name = reference.manifest["official_files"][0]
    path = tmp_path_factory.mktemp("panns") / name
    save_official(constants | draw_state(reference), path)
    sizes = cls.config_of(read_checkpoint(path))
    model = load_checkpoint(cls(**sizes, **params), path).eval()
    path.unlink()
    rate = reference.manifest["frontend"]["sample_rate"]
    front_end = "wavegram" if cls is WavegramLogmelCnn14 else f"{rate // 1000}k"
    return SimpleNamespace(
        reference=reference,
        model=model,
        sizes=sizes,
        front_end=get_front_end(f"panns_{front_end}"),
    )


def test_sizes_are_read_off_the_published_weights(published):
    parameters = inspect.signature(type(published.model)).parameters
    sizes = {name: parameters[name].default for name in published.sizes}
    assert published.sizes == sizes
    assert sizes["n_classes"] == published.model.n_classes == 527


def test_the_parameters_are_the_published_ones(published):
    manifest = published.reference.manifest
    counts = manifest["parameter_counts"]
    ours = sum(parameter.numel() for parameter in published.model.parameters())
    assert manifest["published_parameters"] in (ours, None)
    assert ours == counts["trainable_parameters"]
    front_end = sum(
        int(np.prod(entry["shape"]))
        for name, entry in manifest["keys"].items()
        if entry["kind"] == "kept"
    )
    assert ours + front_end == counts["parameters"]


def test_gives_what_the_authors_give(published):
    """From their log-mel and from the waveform; as trained and as it is run."""
    reference, model = published.reference, published.model
    expected = reference.expected
    for folded in (False, True):
        if folded:
            replace_pointwise(fold_batch_norm(model))
            model.to(memory_format=torch.channels_last)
            kinds = {type(module) for module in model.modules()}
            assert kinds.isdisjoint({torch.nn.BatchNorm2d})
            assert [
                name
                for name, module in model.named_modules()
                if isinstance(module, torch.nn.BatchNorm1d)
            ] == ["bn0"]
        for name, item in list(reference.inputs.items())[: 2 if folded else None]:
            inputs = {"wave": published.front_end(item.waveform)}
            if name == "noise0" and published.front_end.name != "panns_wavegram":
                inputs["log_mel"] = expected["noise0.logmel"][0, 0]
            for kind, values in inputs.items():
                output = run(model, torch.from_numpy(values[np.newaxis]))
                errors = {
                    stage: measure_error(tensor, expected[f"{name}.{stage}"])
                    for stage, tensor in {
                        "embedding": output.embedding,
                        "logits": output.logits,
                        "clipwise": output.logits.sigmoid(),
                    }.items()
                    if f"{name}.{stage}" in expected
                }
                if f"{name}.framewise" in expected:
                    every = output.framewise[0, ::32, ::4]
                    errors["framewise"] = measure_error(
                        every, expected[f"{name}.framewise"]
                    )
                    n_frames = 1 + len(item.waveform) // 320
                    assert output.framewise.shape == (1, n_frames, 527)
                assert len(errors) >= 2
                assert max(errors.values()) < 5e-6, (folded, name, kind, errors)


def test_the_log_mel_inside_is_the_authors(parity):
    """Within what torch's transform and a product with sines differ by."""
    reference = parity("panns_wavegram_logmel_cnn14")
    model = make_small(WavegramLogmelCnn14)
    for name, item in reference.inputs.items():
        step = {"noise0": 1, "noise1": 4}.get(name, 7)
        log_mel = model._make_log_mel(torch.from_numpy(item.waveform)[None])[0]
        expected = reference.expected[f"{name}.logmel"][0, 0]
        np.testing.assert_allclose(log_mel[::step], expected, rtol=0, atol=1e-3)


# What must hold of every one of them.


@pytest.mark.parametrize("n_mels", [32, 64, 100])
def test_mel_bank_is_slaneys(n_mels):
    librosa = pytest.importorskip("librosa")
    expected = librosa.filters.mel(
        sr=32000, n_fft=1024, n_mels=n_mels, fmin=50, fmax=14000, dtype=np.float64
    )
    sizes = {**SMALL[WavegramLogmelCnn14], "wave_channels": (2, 2, n_mels // 2)}
    model = WavegramLogmelCnn14(5, n_mels=n_mels, **sizes)
    np.testing.assert_allclose(model.mel_bank, expected, rtol=1e-6, atol=1e-9)


@EVERY
def test_the_classifier_reads_the_pooled_frames(cls):
    model = make_small(cls)
    output = run(model, make_input(cls, 3, 200))
    assert output.frames.shape == (3, 200 // cls.frame_stride, model.n_components)
    assert output.framewise is None
    assert model.framewise_stride is None
    frames = output.frames.numpy()
    pooled = frames.max(axis=1) + frames.mean(axis=1)
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    embedding = pooled @ weights["fc1.weight"].T + weights["fc1.bias"]
    embedding = np.maximum(embedding, 0)
    logits = embedding @ weights["fc_audioset.weight"].T + weights["fc_audioset.bias"]
    assert measure_error(output.embedding, embedding) < 1e-5
    assert measure_error(output.logits, logits) < 1e-5
    assert 0 < (embedding == 0).mean() < 1


@EVERY
def test_frames_move_with_the_sound(cls):
    """A stride later, all is a step later, but where the ends are near."""
    model = make_small(cls)
    stride, margin = cls.frame_stride, 7
    sound = make_input(cls, 1, 30 * stride)
    unit = 320 if cls is WavegramLogmelCnn14 else 1
    frames = run(model, sound).frames[:, 1:]
    moved = run(model, sound[:, stride * unit :]).frames
    assert moved.shape == frames.shape
    inside = slice(margin, -margin)
    assert measure_error(moved[:, inside], frames[:, inside].numpy()) < 1e-5
    assert measure_error(moved[:, :1], frames[:, :1].numpy()) > 1e-4


def test_decision_level_max():
    """Every step is tagged; a clip's score is its best step's."""
    model = make_small(Cnn14, decision_level="max")
    assert model.framewise_stride == 1
    log_mel = make_input(Cnn14, 2, 205)
    output = run(model, log_mel)
    assert output.frames.shape == (2, 6, 16)
    assert output.framewise.shape == (2, 205, 5)
    with torch.inference_mode():
        steps = model.fc_audioset(output.frames)
    for i, step in enumerate(steps.unbind(1)):
        stop = None if i == 5 else 32 * (i + 1)
        frames = output.framewise[:, 32 * i : stop]
        torch.testing.assert_close(
            frames, step.sigmoid()[:, None].expand_as(frames), rtol=1e-5, atol=1e-6
        )
    torch.testing.assert_close(
        output.logits.sigmoid(), output.framewise.amax(dim=1), rtol=1e-5, atol=1e-6
    )
    torch.testing.assert_close(output.embedding, output.frames.mean(dim=1))
    assert steps.std(dim=1).max() > 1e-2
    # The steps around are heard with each: three of them, as many as there are.
    plain = make_small(Cnn14)
    plain.load_state_dict(model.state_dict())
    vectors = run(plain, log_mel).frames.numpy()
    padded = np.pad(vectors, ((0, 0), (1, 1), (0, 0)))
    around = np.stack([padded[:, :-2], padded[:, 1:-1], padded[:, 2:]])
    with torch.inference_mode():
        smooth = torch.from_numpy(around.max(axis=0) + around.mean(axis=0))
        expected = model.fc1(smooth).relu()
    torch.testing.assert_close(output.frames, expected, rtol=1e-5, atol=1e-5)


@EVERY
def test_a_clip_alone_is_as_in_a_batch(cls):
    model = make_small(cls)
    inputs = make_input(cls, 3, 101)
    together = run(model, inputs)
    for i, clip in enumerate(inputs):
        alone = run(model, clip[None])
        torch.testing.assert_close(alone.logits[0], together.logits[i])


@EVERY
def test_every_value_is_heard(cls):
    model = make_small(cls).requires_grad_(False)
    inputs = make_input(cls, 1, 64).requires_grad_()
    model(inputs).logits.square().sum().backward()
    assert (inputs.grad != 0).float().mean() > 0.99


@EVERY
def test_training(cls):
    """Dropout is at work, gradients reach all weights, and the loss falls."""
    torch.manual_seed(0)
    model = make_small(cls).train()
    inputs, target = make_input(cls, 4, 64), torch.eye(5)[:4]
    first, second = model(inputs), model(inputs)
    assert not torch.equal(first.logits, second.logits)
    assert not torch.equal(first.frames, second.frames)
    torch.nn.functional.binary_cross_entropy_with_logits(
        first.logits, target
    ).backward()
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name

    model = cls(5, **SMALL[cls], dropout=0, head_dropout=0).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(inputs).logits, torch.arange(4))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.parametrize("decision_level", [None, "max"])
def test_dropout_can_be_off(decision_level):
    model = Cnn14(5, **SIX, decision_level=decision_level, dropout=0, head_dropout=0)
    log_mel = make_input(Cnn14, 2, 64)
    assert torch.equal(model(log_mel).logits, model(log_mel).logits)
    model = Cnn14(5, **SIX, decision_level=decision_level, dropout=0)
    assert not torch.equal(model(log_mel).logits, model(log_mel).logits)


def test_new_residual_blocks_are_the_identity():
    model = ResNet38(5, **SMALL[ResNet38]).eval()
    image = torch.rand(1, 4, 6, 6)
    with torch.inference_mode():
        assert torch.equal(model.resnet.layer1(image), image)


def test_resnet22_is_resnet38_with_fewer_blocks():
    with torch.device("meta"):
        state = ResNet38(n_blocks=(2, 2, 2, 2)).state_dict()
        assert ResNet38.config_of(state)["n_blocks"] == (2, 2, 2, 2)
    n_weights = sum(t.numel() for n, t in state.items() if "running" not in n)
    # Figures of the two models' paper, with the counters of their batch norms.
    assert n_weights - sum("batches" in name for name in state) == 63_675_087


@EVERY
@pytest.mark.parametrize("n_mels", [32, 64])
def test_sizes_are_read_off_the_weights(cls, n_mels):
    sizes = {**SMALL[cls], "n_mels": n_mels, "n_classes": 3}
    state = cls(**sizes).state_dict()
    assert cls.config_of(state) == sizes
    assert cls.config_of({f"logmel_extractor.{n}": t for n, t in state.items()} | state)


# Files.


@EVERY
def test_files_in_the_authors_layout(cls, tmp_path):
    model = make_small(cls)
    inputs = make_input(cls, 1, 64)
    expected = run(model, inputs).logits
    state = model.state_dict()
    for prefix in ("", "module.", "module.module."):
        save_official(state, tmp_path / "weights.pth", prefix)
        loaded = load_checkpoint(cls(5, **SMALL[cls]), tmp_path / "weights.pth")
        assert torch.equal(run(loaded.eval(), inputs).logits, expected)
    # Files of old versions of torch don't count batches; half precision rounds.
    state = {
        name: tensor.half() for name, tensor in state.items() if "batches" not in name
    }
    save_official(state, tmp_path / "half.pth")
    loaded = load_checkpoint(cls(5, **SMALL[cls]), tmp_path / "half.pth").eval()
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert measure_error(run(loaded, inputs).logits, expected.numpy()) < 0.02


@EVERY
def test_weights_of_another_model_are_refused(cls, tmp_path):
    for other, sizes in SMALL.items():
        if other is cls:
            continue
        state = other(5, **sizes).state_dict()
        with pytest.raises(ValueError, match=f"{cls.__name__}"):
            cls.config_of(state)
        save_official(state, tmp_path / "other.pth")
        with pytest.raises(CheckpointError, match=r"(?s)other\.pth.*another model"):
            load_checkpoint(cls(5, **SMALL[cls]), tmp_path / "other.pth")


@EVERY
def test_weights_that_lack_are_named(cls):
    state = make_small(cls).state_dict()
    for name in ("bn0.weight", "fc_audioset.weight", "conv_block1.conv1.weight"):
        rest = {key: tensor for key, tensor in state.items() if key != name}
        with pytest.raises(ValueError, match=f"no weight '{name}'"):
            cls.config_of(rest)
    wrong = state | {"fc1.weight": torch.zeros(3, 4)}
    with pytest.raises(ValueError, match=r"'fc1.weight' has the shape \(3, 4\)"):
        cls.config_of(wrong)


# Bad input.


@EVERY
def test_short_clips(cls):
    model = make_small(cls)
    least = {WavegramLogmelCnn14: 10236}.get(cls, cls.frame_stride)
    shape = (1, least) if cls is WavegramLogmelCnn14 else (1, least, 64)
    assert run(model, torch.zeros(shape)).frames.shape[1] == 1
    short = torch.zeros(shape)[:, 1:]
    with pytest.raises(ValueError, match=f"has {least - 1} .* {least} or more"):
        model(short)


@pytest.mark.parametrize("n_samples", [10236, 10239, 10240, 10560, 32001, 42880, 43195])
def test_wavegram_takes_any_length(n_samples):
    """The branches' lengths differ where samples make an odd number of hops."""
    output = run(make_small(WavegramLogmelCnn14), torch.ones(1, n_samples))
    assert output.frames.shape[1] in (n_samples // 10240, (n_samples + 4) // 10240)
    assert torch.isfinite(output.logits).all()


def test_wavegram_is_in_line_with_the_log_mel():
    """Lengths that both branches agree on are not cut, nor moved by the cut."""
    model = make_small(WavegramLogmelCnn14)
    wave = make_input(WavegramLogmelCnn14, 1, 404)
    even, odd = run(model, wave).frames, run(model, wave[:, : 403 * 320]).frames
    assert even.shape == odd.shape
    assert measure_error(odd[:, :5], even[:, :5].numpy()) < 1e-5


@pytest.mark.parametrize("cls", [c for c in SMALL if c is not WavegramLogmelCnn14])
@pytest.mark.parametrize("shape", [(101, 64), (1, 101, 128), (1, 1, 101, 64)])
def test_bad_log_mel(cls, shape):
    with pytest.raises(ValueError, match=r"log_mel has the shape .* n_frames, 64\)"):
        make_small(cls)(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(32000,), (1, 1, 32000), (1, 101, 64)])
def test_bad_waveform(shape):
    with pytest.raises(ValueError, match=r"waveform has the shape .* n_samples\)"):
        make_small(WavegramLogmelCnn14)(torch.zeros(shape))


@pytest.mark.parametrize(
    ("cls", "params", "message"),
    [
        (Cnn6, {"channels": (4, 8, 8)}, r"channels=\(4, 8, 8\).*4 blocks"),
        (Cnn14, {"channels": (4, 8, 8, 16)}, "6 blocks"),
        (Cnn10, {"n_mels": 15}, r"n_mels=15.*by 16"),
        (Cnn14, {"n_mels": 31}, r"n_mels=31.*by 32"),
        (Cnn14, {"decision_level": "mean"}, "decision_level='mean'"),
        (ResNet38, {"n_blocks": (2, 2)}, r"n_blocks=\(2, 2\).*4 of each"),
        (ResNet38, {"n_blocks": (3, 4, 0, 3)}, r"n_blocks=\(3, 4, 0, 3\).*a block"),
        (ResNet38, {"n_mels": 16}, "n_mels=16"),
        (Cnn6, {"n_classes": 0}, "n_classes=0 must be at least 1"),
        (WavegramLogmelCnn14, {"n_mels": 1}, "n_mels=1"),
        (WavegramLogmelCnn14, {"wave_channels": (8, 8)}, "6 and 3"),
        (WavegramLogmelCnn14, {"wave_channels": (8, 8, 48)}, "a multiple of 32"),
    ],
)
def test_bad_parameters(cls, params, message):
    with pytest.raises(ValueError, match=message):
        cls(**params)


@EVERY
def test_shapes_without_weights(cls):
    """On the device that has none."""
    with torch.device("meta"):
        model = cls(5, **SMALL[cls])
    output = model(make_input(cls, 2, 64).to("meta"))
    assert output.logits.shape == (2, 5)


def test_log_mel_keeps_its_precision_under_autocast():
    """A full-scale tone has more power than half precision can hold."""
    model = make_small(WavegramLogmelCnn14)
    tone = torch.sin(2 * torch.pi * 1000 / 32000 * torch.arange(32000.0))[None]
    expected = model._make_log_mel(tone)
    assert expected.max() > 10 * np.log10(60000 * 0.01)
    with torch.autocast("cpu", dtype=torch.float16):
        assert torch.equal(model._make_log_mel(tone), expected)


def test_doubles():
    """In double precision the result is the same to single's digits."""
    model = make_small(WavegramLogmelCnn14)
    wave = make_input(WavegramLogmelCnn14, 1, 64)
    single = run(model, wave).logits
    double = run(model.double(), wave.double()).logits
    assert double.dtype == torch.float64
    assert measure_error(single, double.numpy()) < 1e-4
