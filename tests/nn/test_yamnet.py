import copy
import csv
import math
import pickle

import h5py
import numpy as np
import pytest
import torch
from torch.nn.utils.fusion import fuse_conv_bn_eval

from sklabelaudio import load_audio
from sklabelaudio.exceptions import CheckpointError
from sklabelaudio.nn import EncoderOutput, YAMNet, load_checkpoint

# Channels and strides of MobileNet v1, from its paper's table 1.
LAYERS = [(32, 2), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)]
LAYERS += [(512, 1)] * 5 + [(1024, 2), (1024, 1)]
EPS = 1e-4


@pytest.fixture(scope="module")
def log_mel():
    values = np.random.default_rng(0).standard_normal((2, 96, 64))
    return (2 * values - 3).astype(np.float32)


def convolve(x, kernel, stride=1):
    """TensorFlow's "same" convolution of (height, width, channels), in NumPy.

    A kernel (height, width, channels, 1) is depthwise where there are several
    channels.
    """
    size = kernel.shape[0]
    n_out = [math.ceil(n / stride) for n in x.shape[:2]]
    total = [
        max((m - 1) * stride + size - n, 0)
        for m, n in zip(n_out, x.shape[:2], strict=True)
    ]
    padding = [(n // 2, n - n // 2) for n in total]
    x = np.pad(x.astype(float), [*padding, (0, 0)])
    depthwise = kernel.shape[2] > 1 and kernel.shape[3] == 1
    result = 0.0
    for i in range(size):
        for j in range(size):
            part = x[i:, j:][: n_out[0] * stride : stride, : n_out[1] * stride : stride]
            if depthwise:
                result = result + part * kernel[i, j, :, 0]
            else:
                result = result + part @ kernel[i, j].astype(float)
    return result


def draw_keras_weights(seed=0, n_classes=521):
    """Random weights by the official file's names, in Keras's layout.

    Kernels fit the variances, so that activations neither vanish nor explode; some
    variances are so small that eps decides.
    """
    rng = np.random.default_rng(seed)
    layers = {}

    def add(name, kind, shape, channel_axis):
        n = shape[channel_axis]
        variance = 10 ** rng.uniform(-5, 0.5, n)
        deviation = np.sqrt(variance + EPS)
        along = [1] * 4
        along[channel_axis] = n
        fan_in = math.prod(shape) / n
        kernel = 1.6 / math.sqrt(fan_in) * rng.standard_normal(shape)
        layers[name] = {kind: kernel * deviation.reshape(along)}
        layers[f"{name}/bn"] = {
            "beta": rng.normal(0, 0.3, n),
            "moving_mean": rng.normal(0, 0.3, n) * deviation,
            "moving_variance": variance,
        }

    add("layer1/conv", "kernel", (3, 3, 1, 32), 3)
    n_in = 32
    for i, (n, _) in enumerate(LAYERS[1:], 2):
        add(f"layer{i}/depthwise_conv", "depthwise_kernel", (3, 3, n_in, 1), 2)
        add(f"layer{i}/pointwise_conv", "kernel", (1, 1, n_in, n), 3)
        n_in = n
    layers["logits"] = {
        "kernel": rng.normal(0, 0.03, (1024, n_classes)),
        "bias": rng.standard_normal(n_classes),
    }
    return {
        layer: {name: value.astype(np.float32) for name, value in weights.items()}
        for layer, weights in layers.items()
    }


def run_keras_network(patch, layers, maximum=math.inf):
    """Embedding and logits of one patch by the layers' formulas, in float64."""
    x = patch[..., None]

    def step(x, name, kernel, stride=1):
        norm = layers[f"{name}/bn"]
        x = convolve(x, layers[name][kernel], stride)
        deviation = np.sqrt(norm["moving_variance"].astype(float) + EPS)
        x = (x - norm["moving_mean"]) / deviation + norm["beta"]
        return np.clip(x, 0, maximum)

    x = step(x, "layer1/conv", "kernel", 2)
    for i, (_, stride) in enumerate(LAYERS[1:], 2):
        x = step(x, f"layer{i}/depthwise_conv", "depthwise_kernel", stride)
        x = step(x, f"layer{i}/pointwise_conv", "kernel")
    embedding = x.mean(axis=(0, 1))
    return embedding, embedding @ layers["logits"]["kernel"] + layers["logits"]["bias"]


def write_keras_file(path, layers):
    with h5py.File(path, "w") as file:
        names = ["input_1", *layers, "predictions"]
        file.attrs["layer_names"] = np.array([name.encode() for name in names])
        for layer in names:
            weights = layers.get(layer, {})
            group = file.create_group(layer)
            full_names = [f"{layer}/{name}:0" for name in weights]
            group.attrs["weight_names"] = np.array([n.encode() for n in full_names])
            for name, value in zip(full_names, weights.values(), strict=True):
                group.create_dataset(name, data=value)


@pytest.fixture(scope="module")
def layers():
    return draw_keras_weights()


def fold(layers):
    """The same weights as a TensorFlow Lite graph's: batch norm in the kernels."""
    state = {}
    position = 16
    for name, weights in layers.items():
        if f"{name}/bn" in layers:
            norm = layers[f"{name}/bn"]
            (kernel,) = weights.values()
            scale = 1 / np.sqrt(norm["moving_variance"].astype(float) + EPS)
            bias = norm["beta"] - norm["moving_mean"] * scale
            if "depthwise" in name:
                operator = f"{position}.depthwise_conv_2d"
                kernel = (kernel[..., 0] * scale)[None]
            else:
                operator = f"{position}.conv_2d"
                kernel = (kernel * scale).transpose(3, 0, 1, 2)
            state[f"{operator}.1"] = kernel
            state[f"{operator}.2"] = bias
            state[f"{operator}.activation_max"] = np.float64(6.0)
            position += 1
    state["44.fully_connected.1"] = layers["logits"]["kernel"].T
    state["44.fully_connected.2"] = layers["logits"]["bias"]
    return {name: torch.tensor(value).float() for name, value in state.items()}


@pytest.fixture(scope="module")
def tflite_state(layers):
    front_end = {
        "4.mul.1": torch.ones(400),
        "10.fully_connected.1": torch.ones(64, 257),
        "10.fully_connected.2": torch.full((64,), 1e-3),
    }
    return front_end | fold(layers)


def run(model, log_mel):
    model.eval()
    with torch.no_grad():
        return model(torch.from_numpy(log_mel))


def assert_is_the_network(output, log_mel, layers, maximum=math.inf):
    expected = [run_keras_network(patch, layers, maximum) for patch in log_mel]
    for result, values in zip(output[:2], zip(*expected, strict=True), strict=True):
        atol = 1e-5 * np.abs(values).max()
        np.testing.assert_allclose(result, values, rtol=0, atol=atol)


@pytest.mark.parametrize("size", [(8, 6), (2, 2), (10, 12)])
@pytest.mark.parametrize("index", [0, 3, 5])
def test_convolutions_are_padded_as_tensorflow_does(size, index):
    torch.manual_seed(0)
    block = YAMNet(2).blocks[index].eval()  # strided, strided depthwise, depthwise
    x = np.random.default_rng(0).standard_normal((*size, block.conv.in_channels))
    weight = block.conv.weight.detach()
    kernel = weight.permute((2, 3, 1, 0) if index == 0 else (2, 3, 0, 1)).numpy()
    expected = convolve(x, kernel, stride=1 if index == 5 else 2)
    with torch.no_grad():
        result = block(torch.tensor(x[None], dtype=torch.float32).permute(0, 3, 1, 2))
    expected /= math.sqrt(1 + EPS)  # of batch norm before any training
    np.testing.assert_allclose(result[0].permute(1, 2, 0), expected, atol=1e-6)


@pytest.mark.parametrize("dense", ["logits", "dense"])
def test_the_keras_file_gives_the_keras_network(tmp_path, log_mel, layers, dense):
    path = tmp_path / "yamnet.h5"
    named = {name: layers[name] for name in layers if name != "logits"}
    write_keras_file(path, named | {dense: layers["logits"]})
    model = YAMNet()
    model.relu6.fill_(True)  # which the file takes back
    output = run(load_checkpoint(model, path), log_mel)
    assert isinstance(output, EncoderOutput)
    assert output.framewise is None
    assert_is_the_network(output, log_mel, layers)


@pytest.mark.parametrize("maximum", [6.0, math.inf])
def test_the_tflite_graph_gives_the_keras_network(
    log_mel, layers, tflite_state, maximum
):
    state = {
        name: torch.tensor(maximum) if name.endswith("max") else tensor
        for name, tensor in tflite_state.items()
    }
    model = YAMNet()
    model.load_state_dict(model.convert_checkpoint(state))
    assert bool(model.relu6) == (maximum == 6)
    assert_is_the_network(run(model, log_mel), log_mel, layers, maximum)
    # The two differ on these weights, or the test would show nothing.
    model.relu6.logical_not_()
    with pytest.raises(AssertionError):
        assert_is_the_network(run(model, log_mel), log_mel, layers, maximum)


def test_batch_norm_of_a_folded_graph_is_the_identity_to_the_bit(tflite_state):
    model = YAMNet().eval()
    model.load_state_dict(model.convert_checkpoint(tflite_state))
    torch.manual_seed(0)
    for block in model.blocks:
        x = torch.randn(1, block.conv.in_channels, 4, 4)
        mapped = block.conv(block.pad(x))
        assert torch.equal(block(x), mapped + block.norm.bias[:, None, None])


def test_conversion_leaves_its_input_alone_and_its_own_names_as_they_are(tflite_state):
    model = YAMNet()
    before = dict(tflite_state)
    model.convert_checkpoint(tflite_state)
    assert tflite_state.keys() == before.keys()
    assert all(tflite_state[name] is before[name] for name in before)
    own = model.state_dict()
    converted = model.convert_checkpoint(own)
    assert converted.keys() == own.keys()
    assert all(torch.equal(converted[name], own[name]) for name in own)


def rename(state, old, new):
    return {name.replace(old, new): tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    ("change", "left"),
    [
        # Another operator at the end, in the midst, and in place of one.
        (lambda s: s | {"60.conv_2d.1": torch.ones(1)}, ["60.conv_2d.1"]),
        (lambda s: rename(s, "30.conv", "30.transpose_conv"), None),
        (lambda s: {n: s[n] for n in s if not n.startswith("20.")}, None),
        # A ReLU missing, and ReLUs of two kinds.
        (lambda s: {n: s[n] for n in s if n != "18.conv_2d.activation_max"}, None),
        (lambda s: s | {"18.conv_2d.activation_max": torch.tensor(math.inf)}, None),
    ],
)
def test_what_is_of_no_known_graph_is_left_for_loading_to_report(
    tflite_state, change, left
):
    state = change(dict(tflite_state))
    converted = YAMNet().convert_checkpoint(state)
    unknown = [name for name in converted if name in state]
    assert unknown == (list(state) if left is None else left)


def test_a_part_missing_from_the_graph_is_missing_after_conversion(tflite_state):
    state = {n: t for n, t in tflite_state.items() if n != "20.conv_2d.2"}
    model = YAMNet()
    missing = model.state_dict().keys() - model.convert_checkpoint(state).keys()
    missing = {name for name in missing if "num_batches" not in name}
    assert missing == {"blocks.4.norm.bias"}


def test_keras_files_of_other_models_are_reported(tmp_path, layers):
    path = tmp_path / "other.h5"
    scales = {"layer3/depthwise_conv/bn": {"gamma": np.ones(64, np.float32)}}
    changed = {name: layers[name] | scales.get(name, {}) for name in layers}
    changed["head"] = {"kernel": np.ones((2, 2), np.float32)}
    del changed["layer9/pointwise_conv"]
    write_keras_file(path, changed)
    model = YAMNet()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(model, path)
    for name in (
        "layer3/depthwise_conv/bn/gamma",
        "head/kernel",
        "blocks.16.conv.weight",
    ):
        assert name in str(caught.value)
    after = model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)

    write_keras_file(path, {"conv2d": {"kernel": np.ones((2, 2), np.float32)}})
    with pytest.raises(CheckpointError, match="conv2d/kernel"):
        load_checkpoint(model, path)


def test_another_number_of_classes_is_reported(tmp_path):
    path = tmp_path / "yamnet.h5"
    write_keras_file(path, draw_keras_weights(n_classes=10))
    with pytest.raises(CheckpointError, match=r"classifier.weight: \(10, 1024\)"):
        load_checkpoint(YAMNet(), path)
    model = load_checkpoint(YAMNet(n_classes=10), path)
    assert model.n_classes == 10
    assert run(model, np.zeros((3, 96, 64), np.float32)).logits.shape == (3, 10)


@pytest.mark.parametrize("suffix", [".h5", ".tflite"])
@pytest.mark.parametrize("content", [b"", b"epoch,loss\n1,0.5\n"])
def test_files_of_no_kind_are_reported(tmp_path, suffix, content):
    path = tmp_path / f"yamnet{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError):
        load_checkpoint(YAMNet(), path)


def test_own_files_keep_the_end_of_the_relu(tmp_path, tflite_state, log_mel):
    model = YAMNet()
    model.load_state_dict(model.convert_checkpoint(tflite_state))
    torch.save(model.state_dict(), tmp_path / "own.pt")
    again = load_checkpoint(YAMNet(), tmp_path / "own.pt")
    assert again.relu6
    for other in (again, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        for result, expected in zip(
            run(other, log_mel)[:2], run(model, log_mel)[:2], strict=True
        ):
            assert torch.equal(result, expected)


def test_it_has_the_published_number_of_parameters():
    model = YAMNet()
    assert model.n_components == 1024
    assert model.n_classes == 521
    # Kernels, shifts, classifier, as the layers' sizes give them.
    n_in, kernels, channels = 1, 0, 0
    for i, (n, _) in enumerate(LAYERS):
        kernels += 9 * n if i == 0 else 9 * n_in + n_in * n
        channels += n if i == 0 else n_in + n
        n_in = n
    classifier = 1024 * 521 + 521
    assert kernels + channels + classifier == 3_729_481
    assert sum(p.numel() for p in model.parameters()) == 3_729_481
    statistics = [v for n, v in model.state_dict().items() if "running" in n]
    assert sum(v.numel() for v in statistics) == 2 * channels == 21_888
    assert not any(name.endswith("norm.weight") for name in model.state_dict())


def test_batch_norm_can_be_folded_by_torch(tmp_path, layers, log_mel):
    path = tmp_path / "yamnet.h5"
    write_keras_file(path, layers)
    model = load_checkpoint(YAMNet(), path).eval()
    for block in model.blocks:
        block.conv = fuse_conv_bn_eval(block.conv, block.norm)
        block.norm = torch.nn.Identity()
    assert_is_the_network(run(model, log_mel), log_mel, layers)


@pytest.mark.parametrize("relu6", [False, True])
def test_training_reaches_all_parameters(relu6, log_mel):
    torch.manual_seed(0)
    model = YAMNet(n_classes=3).train()
    model.relu6.fill_(relu6)
    x = torch.from_numpy(log_mel)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    target = torch.tensor([0, 2])
    losses = []
    for _ in range(4):
        loss = torch.nn.functional.cross_entropy(model(x).logits, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(p.grad.abs().sum() > 0 for p in model.parameters())
    assert all((block.norm.weight == 1).all() for block in model.blocks)
    assert all(block.norm.running_mean.abs().sum() > 0 for block in model.blocks)


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        ((96, 64), r"the shape \(96, 64\); this YAMNet takes .*, 64\)"),
        ((1, 1, 96, 64), r"the shape \(1, 1, 96, 64\)"),
        ((1, 64, 96), r"the shape \(1, 64, 96\)"),
        ((1, 95, 64), "95 frames; this YAMNet takes 96: put silence"),
        ((1, 192, 64), "192 frames; this YAMNet takes 96: cut .* of 96 frames"),
    ],
)
def test_another_shape_is_an_error_that_says_which(shape, told):
    with pytest.raises(ValueError, match=f"log_mel has {told}"):
        YAMNet(2)(torch.zeros(shape))


def test_no_patches_give_no_rows():
    output = run(YAMNet(7), np.zeros((0, 96, 64), np.float32))
    assert output.embedding.shape == (0, 1024)
    assert output.logits.shape == (0, 7)


# The published weights, quantised, beside what the quantised model gave.


@pytest.fixture(scope="module")
def published(shared):
    folder = shared / "reference" / "checkpoints" / "yamnet"
    return load_checkpoint(YAMNet(), folder / "yamnet.tflite").eval()


def compute_log_mel(waveform):
    """The front end of the model, by its definition, in double precision."""
    frames = np.lib.stride_tricks.sliding_window_view(waveform.astype(float), 400)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    magnitude = np.abs(np.fft.rfft(frames[::160] * window, 512))

    def mel(hertz):
        return 1127 * np.log1p(hertz / 700)

    edges = np.linspace(mel(125), mel(7500), 66)
    below, centre, above = (edges[i : i + 64] for i in range(3))
    position = mel(np.arange(257) * 16000 / 512)[:, None]
    up = (position - below) / (centre - below)
    down = (above - position) / (above - centre)
    bank = np.maximum(0, np.minimum(up, down))
    return np.log(magnitude @ bank + 1e-3)


def cut_patches(waveform):
    waveform = np.pad(waveform, (0, max(0, 15600 - waveform.size)))
    starts = range(0, waveform.size - 15600 + 1, 7800)
    patches = [compute_log_mel(waveform[i : i + 15600]) for i in starts]
    return np.stack(patches).astype(np.float32)


def cosine(a, b):
    return float(np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b))


def test_published_weights_hear_what_the_quantised_model_heard(
    published, shared, esc10
):
    with np.load(shared / "data" / "ESC-10" / "embeddings" / "yamnet.npz") as archive:
        names, embeddings, scores = (
            archive[key][::10] for key in ("filename", "embedding", "score")
        )
    cosines, differences = [], []
    for name, embedding, score in zip(names, embeddings, scores, strict=True):
        waveform, _ = load_audio(esc10 / "audio" / name, sampling_rate=16000)
        output = run(published, cut_patches(waveform))
        cosines.append(cosine(output.embedding.mean(0).numpy(), embedding))
        probability = output.logits.sigmoid().mean(0).numpy()
        differences.append(np.abs(probability - score).max())
    # Over all 400 clips: 0.9994 at least, median 0.9999; at most 0.043 apart.
    assert min(cosines) > 0.999
    assert np.median(cosines) > 0.9998
    assert max(differences) < 0.05
    assert np.median(differences) < 0.02


def test_published_weights_agree_with_the_interpreter(published, shared):
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    path = shared / "reference" / "checkpoints" / "yamnet" / "yamnet.tflite"
    with pytest.warns(UserWarning, match="preserve_all_tensors"):
        interpreter = litert.Interpreter(
            str(path), num_threads=1, experimental_preserve_all_tensors=True
        )
    interpreter.allocate_tensors()
    tensors = {d["name"]: d for d in interpreter.get_tensor_details()}
    pooled = tensors["tower0/network/layer28/reduce_mean"]
    scale, zero_point = pooled["quantization"]

    rng = np.random.default_rng(0)
    time = np.arange(15600) / 16000
    sounds = {
        "noise": 0.1 * rng.standard_normal(15600),
        "clicks": np.where(np.arange(15600) % 2000 < 20, 0.5, 0.0),
        "chirp": 0.3 * np.sin(2 * np.pi * (100 * time + 3000 * time**2)),
        "chord": 0.1 * sum(np.sin(2 * np.pi * f * time) for f in (220, 277, 330, 440)),
    }
    for sound in sounds.values():
        waveform = sound.astype(np.float32)
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], waveform)
        interpreter.invoke()
        heard = interpreter.get_tensor(tensors["log_mel_spectrogram"]["index"])
        log_mel = compute_log_mel(waveform)
        np.testing.assert_allclose(log_mel, heard, rtol=0, atol=1e-3)
        output = run(published, log_mel[None].astype(np.float32))

        quantised = interpreter.get_tensor(pooled["index"]).ravel()
        embedding = scale * (quantised.astype(float) - zero_point)
        assert cosine(output.embedding[0].numpy(), embedding) > 0.999
        score = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        np.testing.assert_allclose(output.logits.sigmoid(), score, rtol=0, atol=0.06)


def test_published_weights_name_sounds(published, shared, esc10):
    folder = shared / "reference" / "checkpoints" / "yamnet"
    with open(folder / "yamnet_class_map.csv", encoding="utf-8", newline="") as file:
        labels = [row["display_name"] for row in csv.DictReader(file)]
    for name, label in {
        "1-100032-A-0.ogg": "Dog",
        "1-116765-A-41.ogg": "Chainsaw",
        "1-17150-A-12.ogg": "Fire",
        "1-17367-A-10.ogg": "Rain",
        "1-26143-A-21.ogg": "Sneeze",
        "1-26806-A-1.ogg": "Chicken, rooster",
        "1-28135-A-11.ogg": "Waves, surf",
    }.items():
        waveform, _ = load_audio(esc10 / "audio" / name, sampling_rate=16000)
        probability = run(published, cut_patches(waveform)).logits.sigmoid().mean(0)
        best = [labels[i] for i in probability.argsort(descending=True)[:5]]
        assert label in best
