"""What holds for every encoder, each in a small size."""

import copy
import importlib
import pickle
import random
from typing import NamedTuple
from unittest import mock

import numpy as np
import pytest
import torch

from sklabelaudio.exceptions import CheckpointError
from sklabelaudio.nn import EncoderOutput, load_checkpoint
from sklabelaudio.nn._feature_maps import measure_features
from sklabelaudio.nn._fold import fold_batch_norm
from sklabelaudio.nn._pointwise import replace_pointwise
from sklabelaudio.nn._random import fixed_random_weights

SWIN = {"depths": (2, 1, 1, 1), "num_heads": (1, 1, 2, 2)}
VIT = {"n_frames": 64, "embed_dim": 16, "depth": 2, "num_heads": 1}
FOUR = {"channels": (4, 6, 8, 10)}
SIX = {"channels": (4, 4, 6, 6, 8, 10)}
WAVES = {"channels": SIX["channels"], "wave_channels": (4, 4, 32)}
FBSP = {"n_channels": 4, "depths": (1, 1, 1, 2), "n_groups": 2}


class Case(NamedTuple):
    """An encoder in a small size, and the clips that it takes."""

    module: str
    name: str
    clip: tuple  # a clip's shape
    args: tuple = (5,)
    kwargs: dict = {}
    # Numbers of frames, or samples, that are too few and too many.
    short: int = 0
    long: int | None = None
    scale: float = 1.0  # of the input
    features: tuple | None = None  # the shape of a clip's map

    def make(self, seed=None):
        """Build it, from a seed if there is one."""
        cls = getattr(
            importlib.import_module(f"sklabelaudio.nn.{self.module}"), self.name
        )
        with torch.random.fork_rng(devices=[], enabled=seed is not None):
            if seed is not None:
                torch.default_generator.manual_seed(seed)
            if self.name != "VGGish":
                return cls(*self.args, **self.kwargs)
            # It comes in one size, of 72 million weights.
            with mock.patch("sklabelaudio.nn._vggish._HIDDEN", 16):
                return cls()

    def make_trained(self, seed=0):
        """Build it with no weights of zero or one, and statistics of its input."""
        model = self.make(seed)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
        norms = [m for m in model.modules() if hasattr(m, "running_var")]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = 1.0
        if norms:
            with torch.random.fork_rng(devices=[]), torch.no_grad():
                torch.default_generator.manual_seed(seed)
                model.train()(self.make_clips(4))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        return model.eval()

    def make_clips(self, n_clips):
        """Make noises, each louder than the one before."""
        generator = torch.Generator().manual_seed(0)
        levels = self.scale * torch.arange(1.0, n_clips + 1)
        noises = torch.randn(n_clips, *self.clip, generator=generator)
        return levels.view(-1, *[1] * len(self.clip)) * noises

    @property
    def input(self):
        return "log_mel" if len(self.clip) == 2 else "waveform"


CASES = [
    Case("_yamnet", "YAMNet", (96, 64), short=95, long=97, features=(1024, 2, 3)),
    Case("_vggish", "VGGish", (96, 64), short=95, long=97, features=(512, 4, 6)),
    Case("_efficientat", "EfficientAT", (70, 128), (0.1, 5), features=(96, 4, 3)),
    Case("_htsat", "HTSAT", (101, 64), (8, 5), SWIN, long=2051, features=(64, 8, 8)),
    Case("_clap", "ClapAudioTower", (101, 64), (8, 6), SWIN, long=1025),
    Case("_panns", "Cnn6", (70, 64), kwargs=FOUR, short=15, features=(10, 4, 4)),
    Case("_panns", "Cnn10", (70, 64), kwargs=FOUR, short=15, features=(10, 4, 4)),
    Case("_panns", "Cnn14", (70, 64), kwargs=SIX, short=31, features=(10, 2, 2)),
    Case(
        "_panns",
        "Cnn14",
        (70, 64),
        kwargs={**SIX, "decision_level": "max"},
        short=31,
        features=(10, 2, 2),
    ),
    Case(
        "_panns_resnet",
        "ResNet38",
        (70, 64),
        kwargs={**FOUR, "n_blocks": (1, 2, 1, 1), "n_components": 12},
        short=31,
        features=(12, 2, 2),
    ),
    Case(
        "_panns_wavegram",
        "WavegramLogmelCnn14",
        (16000,),
        kwargs=WAVES,
        short=10235,
        scale=0.1,
        features=(10, 2, 1),
    ),
    Case("_sp4sc", "SP4SC", (70, 256), kwargs=FOUR, short=15, features=(10, 16, 4)),
    Case(
        "_esresnext",
        "ESResNeXtFbsp",
        (8000,),
        kwargs=FBSP,
        scale=3000.0,
        features=(128, 11, 1),
    ),
    Case("_ast", "AST", (50, 128), kwargs=VIT, long=65, features=(16, 12, 5)),
    Case(
        "_passt",
        "PaSST",
        (50, 128),
        kwargs=VIT,
        short=15,
        long=66,
        features=(16, 12, 4),
    ),
    Case(
        "_psla",
        "PSLA",
        (70, 128),
        kwargs={"width": 0.1, "depth": 0.2},
        features=(128, 4, 3),
    ),
    Case("_resnet34", "ResNet34", (70, 64), kwargs={"width": 4}, features=(32, 2, 3)),
]


def identify(case):
    return "-".join([case.name, *[v for v in case.kwargs.values() if v == "max"]])


EVERY = pytest.mark.parametrize("case", CASES, ids=identify)


def stages_of(output):
    return {stage: x for stage, x in output._asdict().items() if x is not None}


def assert_same(actual, expected, tolerance=0.0):
    """Compare all stages, to a part of each stage's greatest value."""
    assert stages_of(actual).keys() == stages_of(expected).keys()
    for stage, values in stages_of(expected).items():
        found = getattr(actual, stage)
        assert found.shape == values.shape, stage
        noise = tolerance * values.abs().max()
        assert (found - values).abs().max() <= noise, stage


def run(model, clips):
    with torch.inference_mode():
        return model(clips)


@EVERY
def test_shapes(case):
    model = case.make_trained()
    n_frames = case.clip[0]
    output = run(model, case.make_clips(2))
    assert type(output) is EncoderOutput
    assert output.embedding.shape == (2, model.n_components)
    assert (output.logits is None) == (model.n_classes is None)
    if output.logits is not None:
        assert output.logits.shape == (2, model.n_classes)
    for stage, stride, n_steps, n_values in (
        ("frames", "frame_stride", "n_frame_steps", model.n_components),
        ("framewise", "framewise_stride", "n_framewise_steps", model.n_classes),
    ):
        values = getattr(output, stage)
        stride = getattr(model, stride, None)
        n_steps = getattr(model, n_steps, None)
        if values is None:
            assert stride is None
            assert n_steps is None
            continue
        # Steps are of so many frames each, or there are so many whatever the clip.
        if stride is None:
            assert values.shape == (2, n_steps, n_values)
            continue
        if case.input == "waveform":
            hop = 320 if case.name == "WavegramLogmelCnn14" else model.fbsp.hop_length
            n_frames = 1 + case.clip[0] // hop
        assert values.shape[::2] == (2, n_values)
        assert n_frames // stride <= values.shape[1] <= -(-n_frames // stride)
    if output.framewise is not None:
        assert 0 <= output.framewise.min() <= output.framewise.max() <= 1
    for stage, values in stages_of(output).items():
        assert values.dtype == torch.float32, stage
        assert torch.isfinite(values).all(), stage


# CLAP's tower is HTS-AT, whose own class reads the same files.
MAPPED = pytest.mark.parametrize(
    "case", [case for case in CASES if case.name != "ClapAudioTower"], ids=identify
)


@MAPPED
def test_features_are_what_is_pooled(case):
    model = case.make_trained()
    clips = case.make_clips(2)
    output = run(model, clips)
    with torch.inference_mode():
        features = model.forward_features(clips)
    assert features.shape == (2, *case.features)
    assert measure_features(model, case.clip) == case.features
    # Columns are time. HTS-AT's 8 by 8 are four pieces of two bands on each other.
    if case.name == "HTSAT":
        over_time = features.unflatten(2, (4, 2)).mean(dim=3).flatten(2)
    else:
        over_time = features.mean(dim=2)
    if case.name in ("YAMNet", "EfficientAT", "HTSAT", "PSLA", "ResNet34"):
        torch.testing.assert_close(over_time.mean(dim=2), output.embedding)
    elif case.name == "ESResNeXtFbsp":
        logits = model.fc(over_time.mean(dim=2))
        torch.testing.assert_close(logits, output.logits, rtol=1e-4, atol=1e-6)
    # What is smoothed before it is framewise differs from its frames.
    if output.frames is not None and "decision_level" not in case.kwargs:
        torch.testing.assert_close(over_time.mT, output.frames)


@pytest.mark.parametrize(
    "case", [case for case in CASES if (case.features or [1])[-1] > 1], ids=identify
)
def test_features_lie_where_their_sound_does(case):
    """The first place looks at earlier frames and lower bands than the last."""
    model = case.make_trained()
    n_more = 0 if case.long is not None else 250  # so that not all see all
    clips = torch.nn.functional.pad(case.make_clips(1), (0, 0, 0, n_more))
    clips += torch.randn(clips.shape, generator=torch.Generator().manual_seed(1))
    features = model.forward_features(clips.requires_grad_())[0]
    if case.name == "HTSAT":
        features = features.unflatten(1, (4, 2)).transpose(1, 2).flatten(2)
    centres = []
    for place in (0, -1):
        weight = torch.zeros(clips.shape[1:])
        for value in features[:8, place, place]:
            (gradient,) = torch.autograd.grad(value, clips, retain_graph=True)
            weight += gradient[0].square()
        frames, bands = (weight.sum(dim=axis) / weight.sum() for axis in (1, 0))
        centres.append(
            [(shares * torch.arange(len(shares))).sum() for shares in (frames, bands)]
        )
    (first_frame, first_band), (last_frame, last_band) = centres
    assert last_frame - first_frame > 0.03 * weight.shape[0]
    # Each of two rows sees all bands.
    assert case.features[1] == 2 or last_band - first_band > 0.1 * weight.shape[1]


@MAPPED
def test_gradients_of_features_reach_all_but_the_head(case):
    model = case.make_trained().train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        features = model.forward_features(case.make_clips(4))
    assert features.shape == (4, *case.features)
    generator = torch.Generator().manual_seed(0)
    (features * torch.randn(features.shape, generator=generator)).sum().backward()
    head = ("classifier.", "fc", "tscam_conv.", "embeddings.", "attention.", "head_")
    for name, parameter in model.named_parameters():
        if name.startswith(head):
            assert parameter.grad is None, name
        elif not name.endswith(("key.bias", "k_proj.bias")):
            assert parameter.grad.any(), name


@MAPPED
def test_features_of_bad_shapes_are_refused(case):
    model = case.make_trained()
    lengths = [case.short, 1025 if case.name == "HTSAT" else case.long]
    for length in lengths:
        if length is not None:
            told = rf"^{case.input} .*\b{length}\b"
            with pytest.raises(ValueError, match=told):
                model.forward_features(torch.zeros(1, length, *case.clip[1:]))
    with pytest.raises(ValueError, match=rf"^{case.input} "):
        model.forward_features(torch.zeros(case.clip))


@EVERY
def test_a_clip_does_not_depend_on_the_others_nor_on_chance(case):
    model = case.make_trained()
    clips = case.make_clips(3)
    state = torch.get_rng_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        expected = run(model, clips)
        torch.manual_seed(2)
        assert_same(run(model, clips), expected)
    assert torch.equal(torch.get_rng_state(), state)
    run(model, clips)
    assert torch.equal(torch.get_rng_state(), state)
    others = run(model, torch.stack([clips[2], clips[0], clips[2], clips[2]]))
    first = EncoderOutput(**{s: x[:1] for s, x in stages_of(expected).items()})
    again = EncoderOutput(**{s: x[1:2] for s, x in stages_of(others).items()})
    for output in (run(model, clips[:1]), again):
        assert_same(output, first, tolerance=1e-5)
    difference = expected.embedding[2] - expected.embedding[0]
    assert difference.abs().max() > 1e-3 * expected.embedding.abs().max()


@EVERY
def test_building_is_repeatable(case):
    def build(seed):
        torch.manual_seed(seed)
        return case.make().state_dict(), torch.get_rng_state()

    # The global generator is looked at to show that it is left alone.
    untouched = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        (first, after), (same, after_same), (other, _) = map(build, (3, 3, 4))
        state = torch.get_rng_state()
        with fixed_random_weights():
            case.make()
        assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(after, after_same)
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    assert untouched == (
        random.getstate(),
        np.random.get_state()[1].tolist(),  # noqa: NPY002
    )


@EVERY
@pytest.mark.parametrize("duplicate", ["deepcopy", "pickle"])
def test_copies(case, duplicate):
    model = case.make_trained()
    clips = case.make_clips(2)
    expected = run(model, clips)
    twin = (
        copy.deepcopy(model)
        if duplicate == "deepcopy"
        else pickle.loads(pickle.dumps(model))
    )
    assert not twin.training
    assert_same(run(twin, clips), expected)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert_same(run(model, clips), expected)


@EVERY
def test_what_is_made_ready_for_inference_gives_the_same(case):
    model = case.make_trained().double()
    clips = case.make_clips(2).double()
    expected = run(model, clips)
    ready = replace_pointwise(fold_batch_norm(copy.deepcopy(model)))
    ready.to(memory_format=torch.channels_last)
    assert_same(run(ready, clips), expected, tolerance=1e-9)
    assert_same(run(fold_batch_norm(ready), clips), expected, tolerance=1e-9)


@EVERY
def test_gradients_reach_all_weights(case):
    model = case.make_trained().train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        output = model(case.make_clips(4))
    end = output.embedding if output.logits is None else output.logits
    generator = torch.Generator().manual_seed(0)
    (end * torch.randn(end.shape, generator=generator)).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        # What is added to all keys of an attention cancels out.
        assert parameter.grad.any() or name.endswith("key.bias"), name


@EVERY
def test_bad_shapes_are_refused(case):
    model = case.make_trained()
    shapes = [case.clip, (1, 1, *case.clip), (1, 0, *case.clip[1:])]
    if case.input == "log_mel" and case.name != "ResNet34":  # which takes any bands
        shapes.append((1, case.clip[0], case.clip[1] + 1))
    for shape in shapes:
        with pytest.raises(ValueError, match=rf"^{case.input} "):
            model(torch.zeros(shape))


@EVERY
def test_clips_too_short_and_too_long_are_refused(case):
    model = case.make_trained()
    for length, change in ((case.short, 1), (case.long, -1)):
        if length is None:
            continue
        with pytest.raises(ValueError, match=rf"^{case.input} .*\b{length}\b"):
            model(torch.zeros(1, length, *case.clip[1:]))
        if length > 0:
            output = run(model, torch.zeros(1, length + change, *case.clip[1:]))
            assert torch.isfinite(output.embedding).all()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The path of each encoder's weights."""
    folder = tmp_path_factory.mktemp("weights")
    paths = {}
    for case in CASES:
        paths[identify(case)] = folder / f"{identify(case)}.pt"
        torch.save(case.make_trained().state_dict(), paths[identify(case)])
    return paths


@EVERY
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("prefix", ["", "module.module."])
def test_files(case, files, half, prefix, tmp_path):
    state = torch.load(files[identify(case)], weights_only=True)
    expected = dict(state)
    if half:
        state = {
            name: values.half() if values.is_floating_point() else values
            for name, values in state.items()
        }
    state = {prefix + name: values for name, values in state.items()}
    torch.save({"epoch": 1, "state_dict": state}, tmp_path / "weights.pt")
    model = load_checkpoint(case.make(seed=1), tmp_path / "weights.pt")
    for name, values in model.state_dict().items():
        assert values.dtype == expected[name].dtype
        wanted = expected[name].half() if half else expected[name]
        assert torch.equal(values, wanted.to(values.dtype)), name


@EVERY
def test_files_of_other_encoders_are_refused(case, files):
    model = case.make_trained(seed=1)
    before = copy.deepcopy(model.state_dict())
    for name, path in files.items():
        if name.split("-")[0] != case.name:
            with pytest.raises(CheckpointError, match=path.name):
                load_checkpoint(model, path)
    for name, values in model.state_dict().items():
        assert torch.equal(values, before[name])


# The others come in one size, and EfficientAT in one for each width.
SIZED = [c for c in CASES if c.name not in ("YAMNet", "VGGish", "EfficientAT")]


@pytest.mark.parametrize("case", SIZED, ids=identify)
def test_sizes_are_read_off_the_weights(case):
    model = case.make()
    state = model.state_dict()
    rebuilt = type(model)(**model.config_of(state)).state_dict()
    assert {name: values.shape for name, values in rebuilt.items()} == {
        name: values.shape for name, values in state.items()
    }
