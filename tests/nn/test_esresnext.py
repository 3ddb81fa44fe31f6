import numpy as np
import pytest
import scipy.signal
import torch

from sklabelaudio.exceptions import CheckpointError
from sklabelaudio.feature_extraction._front_ends import get_front_end
from sklabelaudio.nn import ESResNeXtFbsp, load_checkpoint
from sklabelaudio.nn._checkpoint import read_checkpoint
from sklabelaudio.nn._fold import fold_batch_norm
from sklabelaudio.nn._pointwise import replace_pointwise

SMALL = {"n_channels": 8, "depths": (1, 2, 1, 1), "n_groups": 4}
INT16 = 32768


@pytest.fixture(scope="module")
def reference(parity):
    return parity("audioclip")


@pytest.fixture(scope="module")
def audio_part(reference):
    """The audio part of the deterministic weights, by its own names."""
    state = {}
    for key, entry in reference.manifest["keys"].items():
        if key.startswith("audio."):
            value = reference._det_weights.det_tensor(
                key, entry["shape"], entry["kind"]
            )
            if value is None:
                value = scipy.signal.get_window("blackmanharris", 1654)
                value = value.astype(np.float32)
            state[key.removeprefix("audio.")] = torch.from_numpy(value)
    return state


@pytest.fixture(scope="module")
def official_file(reference, audio_part, tmp_path_factory):
    """The whole model as the authors save it; what is no audio is zero."""
    state = {
        key: torch.zeros(()).expand(entry["shape"])
        for key, entry in reference.manifest["keys"].items()
    }
    state |= {f"audio.{key}": value for key, value in audio_part.items()}
    path = tmp_path_factory.mktemp("audioclip") / "AudioCLIP-Full-Training.pt"
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def trained(official_file):
    model = ESResNeXtFbsp(**ESResNeXtFbsp.config_of(read_checkpoint(official_file)))
    return load_checkpoint(model, official_file).eval()


@pytest.fixture(scope="module")
def ready(official_file):
    """The same, as embedders run it."""
    model = ESResNeXtFbsp(**ESResNeXtFbsp.config_of(read_checkpoint(official_file)))
    model = fold_batch_norm(load_checkpoint(model, official_file))
    replace_pointwise(model)
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms == []
    assert not any(name.startswith("fbsp.") for name, _ in model.named_parameters())
    return model.to(memory_format=torch.channels_last)


def make_small(n_classes=3, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = ESResNeXtFbsp(n_classes, **SMALL, **options).eval()
        with torch.no_grad():
            # Orders that are no integers, and a first norm used to decibels.
            model.fbsp.m += 1 + 0.1 * torch.randn(model.fbsp.m.shape)
            model.fbsp.fb += 0.1 * torch.randn(model.fbsp.fb.shape)
            model.stem.bn1.running_var.fill_(1e4)
    return model


@pytest.fixture(scope="module")
def small():
    return make_small()


def make_noise(*shape):
    generator = torch.Generator().manual_seed(1)
    return 3000 * torch.randn(*shape, generator=generator)


def authors_names(model, joint=False):
    """Name a model's weights as the authors do, by an own rule."""
    state = {}
    for name, value in model.state_dict().items():
        name = name.replace("stem.", "").replace(".body.", ".")
        state[name.replace("projection.", "fc.")] = value
    state["fbsp.bias"] = torch.zeros(0)
    state["window"] = torch.zeros(model.fbsp.win_length)
    if joint:
        state = {f"audio.{name}": value for name, value in state.items()}
        state["visual.conv1.weight"] = torch.zeros(2, 3)
        state["transformer.resblocks.0.ln_1.bias"] = torch.zeros(2)
        state["text_projection"] = torch.zeros(2, 3)
        state["logit_scale_at"] = torch.tensor(4.6)
    return state


def embed(model, waveform):
    """Return the output of a waveform from -1 to 1, and what is projected for it."""
    samples = torch.from_numpy(get_front_end("audioclip")(waveform))
    pooled = []
    hook = model.projection.register_forward_pre_hook(
        lambda module, inputs: pooled.append(inputs[0])
    )
    with torch.inference_mode():
        output = model(samples[None])
    hook.remove()
    return output, pooled[0]


def relative_error(actual, expected):
    assert actual.shape == expected.shape
    return np.abs(actual.numpy() - expected).max() / np.abs(expected).max()


# Where samples are zero, only rounding is left of the high frequencies, at -200 dB,
# and that depends on the order in which a machine's matrix product adds up.
TOLERANCES = {"noise0": 5e-6, "noise1": 5e-6, "burst": 5e-4, "chirp": 5e-6}


def check_output(model, reference, name):
    output, pooled = embed(model, reference.inputs[name].waveform)
    expected = reference.expected
    tolerance = TOLERANCES[name]
    assert relative_error(output.embedding, expected[f"{name}.audio_features"]) < (
        tolerance
    )
    assert relative_error(pooled, expected[f"{name}.embedding_2048"]) < tolerance
    assert output.logits is None
    assert output.framewise is None


@pytest.mark.parametrize("name", ["noise0", "chirp"])
def test_gives_what_the_authors_give(reference, trained, name):
    check_output(trained, reference, name)


@pytest.mark.parametrize("name", TOLERANCES)
def test_gives_it_as_embedders_run_it(reference, ready, name):
    check_output(ready, reference, name)


@pytest.mark.parametrize("name", TOLERANCES)
def test_the_image_is_the_authors(reference, ready, name):
    samples = torch.from_numpy(
        get_front_end("audioclip")(reference.inputs[name].waveform)
    )
    image = ready.make_image(samples[None])[0]
    note = reference.notes[f"{name}.db_image"]
    assert note.endswith(str([1, *image.shape]))
    image = image[:, ::8, ::16].numpy()
    error = np.abs(image - reference.expected[f"{name}.db_image"])
    silent = name == "burst"
    assert error.mean() < (0.1 if silent else 1e-3)
    assert np.quantile(error, 0.5 if silent else 0.99) < 1e-3


def test_new_filters_are_the_authors_first_ones(reference, trained, audio_part):
    model = ESResNeXtFbsp(None, projection_dim=1024).eval()
    first = {
        name: value.clone()
        for name, value in model.state_dict().items()
        if name.startswith("fbsp.")
    }
    model.load_state_dict(trained.state_dict() | first)
    waveform = reference.inputs["noise0"].waveform
    output, _ = embed(model, waveform)
    expected = reference.expected
    error = relative_error(
        output.embedding, expected["noise0.audio_features_default_fbsp"]
    )
    assert error < 5e-6
    samples = torch.from_numpy(get_front_end("audioclip")(waveform))
    image = model.make_image(samples[None]).detach().numpy()[0, :, ::8, ::16]
    error = np.abs(image - expected["noise0.db_image_default_fbsp"])
    assert error.mean() < 1e-3


def test_the_file_with_classes_gives_the_vector_before_them(
    reference, audio_part, trained, tmp_path
):
    generator = torch.Generator().manual_seed(2)
    weight = torch.randn(527, 2048, generator=generator)
    state = {**audio_part, "fc.weight": weight, "fc.bias": torch.ones(527)}
    torch.save(state, tmp_path / "ESRNXFBSP.pt")
    config = ESResNeXtFbsp.config_of(read_checkpoint(tmp_path / "ESRNXFBSP.pt"))
    model = load_checkpoint(ESResNeXtFbsp(**config), tmp_path / "ESRNXFBSP.pt").eval()
    assert (model.n_components, model.n_classes) == (2048, 527)
    samples = torch.from_numpy(
        get_front_end("audioclip")(reference.inputs["noise0"].waveform)
    )
    with torch.inference_mode():
        output = model(samples[None])
    expected = reference.expected["noise0.embedding_2048"]
    assert relative_error(output.embedding, expected) < 5e-6
    assert relative_error(output.logits, expected @ weight.numpy().T + 1) < 5e-6


def test_the_parameters_are_the_published_ones(reference, trained):
    published = reference.manifest["parameter_counts"]["audio"]
    ours = sum(parameter.numel() for parameter in trained.parameters())
    assert ours == published["parameters"] == 32_104_771
    buffers = sum(
        value.numel() for value in trained.state_dict().values() if value.ndim
    )
    n_norms = sum(isinstance(m, torch.nn.BatchNorm2d) for m in trained.modules())
    constants = trained.fbsp.win_length + n_norms
    assert buffers + constants == published["state_dict_numel"]
    assert (trained.n_components, trained.n_classes) == (1024, None)
    # The file that has classes: the classifier in place of the projection.
    with torch.device("meta"):
        other = sum(parameter.numel() for parameter in ESResNeXtFbsp().parameters())
    assert ours - other == (1024 - 527) * (2048 + 1)


def test_the_window_is_scipys():
    expected = scipy.signal.get_window("blackmanharris", 1654)
    window = ESResNeXtFbsp(None, **SMALL).fbsp.window
    np.testing.assert_allclose(window, expected, rtol=0, atol=1e-7)


def test_filters_are_complex_splines():
    """Beside their formula, in complex numbers and double precision."""
    model = make_small(n_fft=64, win_length=50, hop_length=20)
    fbsp = model.fbsp
    waveform = make_noise(2, 119)
    t = np.pi * np.linspace(-1, 1, 64)
    m, fb, fc = (p.detach().double().numpy()[:33, None] for p in fbsp.parameters())
    spline = np.sinc(fb * t / m / np.pi)
    assert (spline < 0).any()
    filters = np.sqrt(fb) * (spline + 0j) ** m * np.exp(-1j * fc * t) / 8
    window = np.pad(scipy.signal.get_window("blackmanharris", 50), 7)
    samples = (waveform.numpy().astype(float) + 32768) * 2 / 65535 - 1
    samples = np.pad(samples, ((0, 0), (5, 6)))  # to 130, five frames
    frames = np.stack([samples[:, k : k + 50] for k in range(0, 81, 20)], axis=1)
    spectrum = np.pad(frames, ((0, 0), (0, 0), (7, 7))) * window @ filters.T
    expected = 20 * np.log10(np.abs(spectrum)).transpose(0, 2, 1).reshape(2, 3, 11, 5)
    image = model.make_image(waveform).detach()
    np.testing.assert_allclose(image, expected, rtol=0, atol=2e-3)
    model.fbsp.fold_()
    torch.testing.assert_close(model.make_image(waveform), image, rtol=0, atol=1e-3)


def test_samples_from_minus_one_to_one_are_silence_to_it(ready):
    """The mistake that nothing fails of: quiet clips are all one."""
    rng = np.random.default_rng(0)
    time = np.arange(44100) / 44100
    clips = np.stack(
        [
            5e-4 * np.sin(2 * np.pi * 300 * time),
            5e-4 * np.sin(2 * np.pi * (500 + 4000 * time) * time),
            1e-4 * rng.standard_normal(44100),
            np.zeros(44100),
        ]
    )
    clips = torch.from_numpy(clips.astype(np.float32))
    with torch.inference_mode():
        right = ready(INT16 * clips).embedding
        wrong = ready(clips).embedding
        right_image, wrong_image = (
            ready.make_image(INT16 * clips),
            ready.make_image(clips),
        )
    assert torch.equal(wrong, wrong[:1].expand_as(wrong))
    silence = wrong[-1]
    assert torch.equal(wrong_image[0], wrong_image[-1])
    assert relative_error(right[-1], silence.numpy()) < 1e-5
    spread = [relative_error(row, silence.numpy()) for row in right[:-1]]
    assert min(spread) > 0.05
    between = torch.pdist(right[:-1]).min() / silence.norm()
    assert between > 0.02
    # A loud clip is heard then, but 90 dB too low.
    with torch.inference_mode():
        loud = 0.5 * torch.from_numpy(rng.uniform(-1, 1, (1, 44100))).float()
        fall = ready.make_image(INT16 * loud) - ready.make_image(loud)
    assert abs(fall.median().item() - 20 * np.log10(INT16)) < 1
    assert right_image.median() > wrong_image.median() + 40


def test_integers_are_taken_as_they_are(small):
    samples = make_noise(1, 5000).to(torch.int16)
    with torch.inference_mode():
        assert torch.equal(small(samples).logits, small(samples.float()).logits)


@pytest.mark.parametrize(
    ("n_samples", "n_frames"), [(1, 1), (1654, 1), (1655, 2), (2215, 2), (2216, 3)]
)
def test_frames_begin_and_end_with_the_clip(small, n_samples, n_frames):
    with torch.inference_mode():
        image = small.make_image(make_noise(1, n_samples))
        output = small(make_noise(1, n_samples))
    assert image.shape == (1, 3, 341, n_frames)
    assert output.frames.shape == (1, 1, 256)
    assert all(torch.isfinite(stage).all() for stage in output if stage is not None)


@pytest.mark.parametrize("projection_dim", [None, 7])
def test_vectors_over_time_have_the_embedding_as_their_mean(projection_dim):
    options = {} if projection_dim is None else {"projection_dim": projection_dim}
    model = make_small(None if options else 3, **options)
    n_frames = 100
    with torch.inference_mode():
        output = model(make_noise(2, 1654 + (n_frames - 1) * 561))
    n_steps = -(-n_frames // model.frame_stride)
    assert output.frames.shape == (2, n_steps, model.n_components)
    assert model.n_components == (projection_dim or 256)
    torch.testing.assert_close(output.frames.mean(dim=1), output.embedding)
    assert (output.frames.std(dim=1) > 0).any()


def test_a_clip_does_not_depend_on_the_others(small):
    waveform = make_noise(3, 20000) * torch.tensor([[1.0], [0.1], [0.001]])
    with torch.inference_mode():
        among, alone = small(waveform), small(waveform[1:2])
    torch.testing.assert_close(among.logits[1:2], alone.logits, rtol=1e-5, atol=1e-6)
    assert torch.pdist(among.logits).min() > 1e-3


def test_half_precision_is_for_the_network_not_the_image(small):
    waveform = make_noise(1, 20000)
    with torch.inference_mode():
        image = small.make_image(waveform)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(small.make_image(waveform), image)
        assert make_small().bfloat16()(waveform).logits.dtype == torch.bfloat16


@pytest.mark.parametrize("shape", [(100,), (1, 0), (1, 1, 1654)])
def test_other_shapes_are_refused(small, shape):
    told = r"waveform has shape \(.*ESResNeXtFbsp takes \(n_clips, n_samples\)"
    with pytest.raises(ValueError, match=told):
        small(torch.zeros(shape))


@pytest.mark.parametrize(
    ("sizes", "told"),
    [
        ({"projection_dim": 8}, "n_classes=527 with projection_dim=8.*n_classes=None"),
        ({"win_length": 2049}, "win_length=2049 must be from 1 to n_fft=2048"),
        ({"depths": (3, 4, 6)}, r"depths=\(3, 4, 6\): pass 4"),
        ({"depths": (3, 0, 6, 3)}, r"depths=\(3, 0, 6, 3\): pass 4"),
        ({"n_groups": 48}, r"n_groups=48 must divide 2 \* n_channels = 128"),
    ],
)
def test_sizes_that_do_not_go_together_are_refused(sizes, told):
    with pytest.raises(ValueError, match=told):
        ESResNeXtFbsp(**sizes)


@pytest.mark.parametrize("joint", [False, True])
def test_sizes_are_read_off_the_weights(joint):
    sizes = {**SMALL, "n_fft": 512, "win_length": 300}
    last = {"n_classes": None, "projection_dim": 9} if joint else {"n_classes": 5}
    state = authors_names(ESResNeXtFbsp(**sizes, **last), joint)
    assert ESResNeXtFbsp.config_of(state) == {**sizes, **last}


def test_sizes_of_the_published_model(reference):
    state = {
        key: torch.empty(entry["shape"], device="meta")
        for key, entry in reference.manifest["keys"].items()
    }
    assert ESResNeXtFbsp.config_of(state) == {
        "n_classes": None,
        "projection_dim": 1024,
        "n_fft": 2048,
        "win_length": 1654,
        "n_channels": 64,
        "depths": (3, 4, 6, 3),
        "n_groups": 32,
    }
    with torch.device("meta"):
        ours = ESResNeXtFbsp(None, projection_dim=1024).state_dict()
    converted = ESResNeXtFbsp.convert_checkpoint(state)
    assert {name: value.shape for name, value in converted.items()} == {
        name: value.shape for name, value in ours.items()
    }


@pytest.mark.parametrize(
    "without", ["fbsp.m", "conv1.weight", "layer1.0.conv2.weight", "fc.bias"]
)
def test_the_weights_of_another_model_tell_no_sizes(small, without):
    state = authors_names(small)
    del state[without]
    with pytest.raises(ValueError, match=r"there is no weight '.*of an ESResNeXt-fbsp"):
        ESResNeXtFbsp.config_of(state)


@pytest.mark.parametrize("kind", ["own", "authors", "joint", "parallel", "half"])
def test_its_files_load(kind, tmp_path):
    joint = kind == "joint"
    model = make_small(None if joint else 3, **({"projection_dim": 7} if joint else {}))
    state = model.state_dict() if kind == "own" else authors_names(model, joint)
    if kind == "parallel":
        state = {f"module.module.{name}": value for name, value in state.items()}
    if kind == "half":
        state = {
            name: value.half() if value.is_floating_point() else value
            for name, value in state.items()
        }
    torch.save(state, tmp_path / "weights.pt")
    config = ESResNeXtFbsp.config_of(read_checkpoint(tmp_path / "weights.pt"))
    loaded = load_checkpoint(ESResNeXtFbsp(**config), tmp_path / "weights.pt").eval()
    waveform = make_noise(1, 20000)
    with torch.inference_mode():
        expected, actual = model(waveform).embedding, loaded(waveform).embedding
    if kind == "half":
        assert {p.dtype for p in loaded.parameters()} == {torch.float32}
        torch.testing.assert_close(actual, expected, rtol=0.05, atol=0.05)
    else:
        assert torch.equal(actual, expected)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"layer1.0.bn2.bias": None}, r"missing.*\n.*layer1\.0\.body\.bn2\.bias"),
        ({"att5.bn.bias": None}, r"missing.*\n.*att5\.bn\.bias"),
        ({"fbsp.fb": torch.ones(3)}, r"another shape.*\n.*fbsp\.fb"),
        ({"layer1.0.gate": torch.ones(3)}, r"unknown.*\n.*layer1\.0\.gate"),
        ({"fbsp.bias": torch.ones(1025, 2)}, r"unknown.*\n.*fbsp\.bias"),
    ],
)
def test_weights_that_do_not_fit_are_told(change, told, tmp_path):
    state = authors_names(make_small()) | change
    state = {name: value for name, value in state.items() if value is not None}
    torch.save(state, tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match=told):
        load_checkpoint(make_small(), tmp_path / "weights.pt")


def test_parts_that_no_audioclip_has_are_told(tmp_path):
    model = make_small(None, projection_dim=7)
    state = authors_names(model, joint=True) | {"depth.conv.weight": torch.ones(2)}
    torch.save(state, tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match=r"unknown.*\n.*depth\.conv\.weight"):
        load_checkpoint(model, tmp_path / "weights.pt")


@pytest.mark.parametrize("new", [True, False])
def test_it_can_be_trained(new):
    model = (ESResNeXtFbsp(3, **SMALL) if new else make_small()).train()
    output = model(make_noise(2, 20000))
    output.logits.logsumexp(dim=1).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        # What new filters are of order 0 for has no bandwidth.
        assert parameter.grad.any() or (new and name == "fbsp.fb"), name
