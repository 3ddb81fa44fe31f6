import sys

import h5py
import numpy as np
import pytest
import torch

from sklabelaudio.exceptions import CheckpointError
from sklabelaudio.nn._keras_file import read_keras_file

RNG = np.random.default_rng(0)
KERNEL = RNG.standard_normal((3, 3, 1, 2)).astype(np.float32)
BETA = RNG.standard_normal(2).astype(np.float32)


def write_layers(group, layers):
    """Write as ``save_weights`` of Keras 2 does: layers -> weight names -> arrays."""
    group.attrs["layer_names"] = np.array([name.encode() for name in layers])
    for layer, weights in layers.items():
        subgroup = group.create_group(layer)
        subgroup.attrs["weight_names"] = np.array([name.encode() for name in weights])
        for name, value in weights.items():
            subgroup.create_dataset(name, data=value)


LAYERS = {
    "input_1": {},
    "layer1/conv": {"layer1/conv/kernel:0": KERNEL},
    "layer1/conv/bn": {"layer1/conv/bn/beta:0": BETA},
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.h5"


def assert_is_the_model(state):
    assert list(state) == ["layer1/conv/kernel", "layer1/conv/bn/beta"]
    assert all(tensor.dtype == torch.float32 for tensor in state.values())
    np.testing.assert_array_equal(state["layer1/conv/kernel"], KERNEL)
    np.testing.assert_array_equal(state["layer1/conv/bn/beta"], BETA)


def test_weights_have_their_names_in_keras(path):
    with h5py.File(path, "w") as file:
        write_layers(file, LAYERS)
    assert_is_the_model(read_keras_file(path))
    assert_is_the_model(read_keras_file(str(path)))


def test_a_whole_model_gives_its_weights_alone(path):
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = "{}"
        write_layers(file.create_group("model_weights"), LAYERS)
        write_layers(file.create_group("optimizer_weights"), {"Adam": {"m:0": BETA}})
    assert_is_the_model(read_keras_file(path))


def test_names_as_text_and_in_pieces(path):
    with h5py.File(path, "w") as file:
        write_layers(file, LAYERS)
        # HDF5 limits an attribute, so Keras cuts a long list of layers.
        del file.attrs["layer_names"]
        file.attrs["layer_names0"] = ["input_1", "layer1/conv"]
        file.attrs["layer_names1"] = ["layer1/conv/bn"]
    assert_is_the_model(read_keras_file(path))


def test_keras_3_weights_are_named_by_their_place(tmp_path):
    path = tmp_path / "model.weights.h5"
    with h5py.File(path, "w") as file:
        file.create_group("layers/input_layer/vars")
        file["layers/conv2d/vars/0"] = KERNEL
        file["layers/conv2d/vars/1"] = BETA
    state = read_keras_file(path)
    assert list(state) == ["layers/conv2d/vars/0", "layers/conv2d/vars/1"]
    np.testing.assert_array_equal(state["layers/conv2d/vars/0"], KERNEL)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("<f2", torch.float32),
        (">f4", torch.float32),
        ("<f8", torch.float32),
        (">i8", torch.int64),
        ("u1", torch.uint8),
    ],
)
@pytest.mark.parametrize("shape", [(), (5,)])
def test_any_kind_of_number_becomes_a_tensor(path, dtype, expected, shape):
    values = np.full(shape, 3, dtype)
    with h5py.File(path, "w") as file:
        write_layers(file, {"a": {"a/x:0": values}})
    tensor = read_keras_file(path)["a/x"]
    assert tensor.dtype == expected
    assert tensor.shape == shape
    assert (tensor == 3).all()


def test_compressed_and_chunked_datasets_are_read(path):
    values = RNG.standard_normal((200, 300)).astype(np.float32)
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=values, compression="gzip", chunks=(50, 50))
    np.testing.assert_array_equal(read_keras_file(path)["x"], values)


def test_two_weights_of_a_name_are_an_error(path):
    with h5py.File(path, "w") as file:
        write_layers(file, {"a": {"kernel:0": KERNEL}, "b": {"kernel:0": KERNEL}})
    with pytest.raises(CheckpointError, match="two of its weights are named 'kernel'"):
        read_keras_file(path)


def test_texts_are_an_error(path):
    with h5py.File(path, "w") as file:
        file["config"] = "a text"
    with pytest.raises(CheckpointError, match="'config' holds object"):
        read_keras_file(path)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.99])
def test_a_cut_file_is_an_error(path, share):
    with h5py.File(path, "w") as file:
        write_layers(file, LAYERS)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match="damaged or cut short") as caught:
        read_keras_file(path)
    assert caught.value.path == str(path)


def test_damaged_files_never_end_otherwise_than_in_checkpoint_error(path):
    with h5py.File(path, "w") as file:
        write_layers(file, LAYERS)
    content = path.read_bytes()
    n_errors = 0
    for position in range(0, len(content), max(1, len(content) // 300)):
        path.write_bytes(content[:position] + b"\xff" + content[position + 1 :])
        try:
            read_keras_file(path)
        except CheckpointError:
            n_errors += 1
    assert n_errors > 10


def test_other_kinds_of_files_are_errors(path, tmp_path):
    path.write_text("epoch,loss\n1,0.5\n")
    with pytest.raises(CheckpointError, match="not an HDF5 file"):
        read_keras_file(path)
    with pytest.raises(CheckpointError, match="No such file"):
        read_keras_file(tmp_path / "missing.h5")


def test_without_h5py_the_error_names_the_extra(monkeypatch, path):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r"h5py .*sklabelaudio\[checkpoints\]"):
        read_keras_file(path)
