import argparse
import io
import os
import pickle
import re
import sys
import threading
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from sklabelaudio.exceptions import CheckpointError
from sklabelaudio.nn import load_checkpoint
from sklabelaudio.nn._checkpoint import load_state, read_checkpoint

LAYOUTS = pytest.mark.parametrize("layout", ["zip", "legacy"])


def save(content, path, layout="zip", **options):
    torch.save(content, path, _use_new_zipfile_serialization=layout == "zip", **options)
    return path


def make_model():
    return nn.Sequential(OrderedDict(conv=nn.Conv2d(1, 2, 3), norm=nn.BatchNorm2d(2)))


def check_equal(state, other):
    assert list(state) == list(other)
    for name in other:
        torch.testing.assert_close(state[name], other[name], rtol=0, atol=0)


def refuse(path, match):
    with pytest.raises(CheckpointError, match=match) as info:
        read_checkpoint(path)
    assert info.value.path == str(path)
    assert repr(str(path)) in str(info.value)
    return info.value.message


# Kinds of files, wrappers and prefixes.


@pytest.mark.parametrize("name", ["weights.pt", "weights.ckpt", "weights.bin", "w"])
@pytest.mark.parametrize("layout", ["zip", "legacy", "safetensors"])
def test_kinds_are_told_by_the_content(tmp_path, layout, name):
    state = make_model().state_dict()
    if layout == "safetensors":
        save_file(state, tmp_path / name)
        state = {key: state[key] for key in sorted(state)}
        found = read_checkpoint(tmp_path / name)
        check_equal({key: found[key] for key in sorted(found)}, state)
    else:
        check_equal(read_checkpoint(save(state, tmp_path / name, layout)), state)


def test_keras(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        file.attrs["layer_names"] = [b"dense"]
        file.create_group("dense").attrs["weight_names"] = [b"dense/kernel:0"]
        file["dense/dense/kernel:0"] = np.float32([[1.0, 2.0]])
    check_equal(
        read_checkpoint(tmp_path / "weights.h5"),
        {"dense/kernel": torch.tensor([[1.0, 2.0]])},
    )


def test_tensorflow_lite(shared):
    pytest.importorskip("tflite")
    state = read_checkpoint(
        shared / "reference" / "checkpoints" / "yamnet" / "yamnet.tflite"
    )
    assert any(tensor.shape[-1] == 1024 for tensor in state.values() if tensor.ndim)


def test_real_checkpoints(shared):
    folder = shared / "reference" / "checkpoints"
    # The counts are those that the manifests list.
    assert len(read_checkpoint(folder / "efficientat" / "mn04_as_mAP_432.pt")) == 312
    for name in ("ce", "ce_mixup", "focal"):  # under the key "net"
        state = read_checkpoint(folder / "sp4asc" / f"{name}.pth")
        assert len(state) == 41
        assert "bn0.weight" in state


@pytest.mark.parametrize("prefix", ["", "module.", "sed_model.", "module.model."])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"epoch": 3, "state_dict": state, "optimizer": {"lr": 0.1}},
        lambda state: {"model": state, "name": "best"},
        lambda state: {"model_state_dict": state},
        lambda state: {"net": state, "loss": np.float64(0.25)},
        lambda state: {"model": {"state_dict": state}, "args": [1, None, True]},
    ],
)
@LAYOUTS
def test_wrappers_and_prefixes(tmp_path, layout, wrap, prefix):
    state = dict(make_model().state_dict())
    prefixed = {prefix + name: tensor for name, tensor in state.items()}
    path = save(wrap(prefixed), tmp_path / "weights.pt", layout)
    check_equal(read_checkpoint(path), state)


def test_a_prefix_that_not_all_names_have_stays(tmp_path):
    state = {"module.weight": torch.ones(2), "scale": torch.ones(1)}
    check_equal(read_checkpoint(save(state, tmp_path / "weights.pt")), state)


@pytest.mark.parametrize("saved_as", ["", "module."])
def test_the_models_own_prefix_stays(tmp_path, saved_as):
    trained, model = (nn.Sequential(OrderedDict(net=nn.Linear(3, 2))) for _ in "ab")
    state = {saved_as + name: value for name, value in trained.state_dict().items()}
    load_checkpoint(model, save(state, tmp_path / "weights.pt"))
    check_equal(model.state_dict(), trained.state_dict())


# NumPy arrays in pickles, as VGGish's PCA parameters are stored.


def to_numpy_1(path):
    """Make the file name NumPy's functions as NumPy 1 did."""

    def rename(content):
        assert b"numpy._core.multiarray\n" in content
        return content.replace(b"numpy._core.multiarray\n", b"numpy.core.multiarray\n")

    if not zipfile.is_zipfile(path):
        path.write_bytes(rename(path.read_bytes()))
        return
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in records.items():
            is_pickle = name.endswith("/data.pkl")
            archive.writestr(name, rename(content) if is_pickle else content)


@pytest.mark.parametrize("numpy_1", [False, True])
@LAYOUTS
def test_numpy_arrays(tmp_path, layout, numpy_1):
    rng = np.random.default_rng(0)
    arrays = {
        "pca_eigen_vectors": rng.standard_normal((4, 3)),
        "pca_means": rng.standard_normal(4).astype(np.float32),
        "transposed": rng.standard_normal((2, 3, 4)).T,
        "big_endian": np.arange(5, dtype=">f4"),
        "counts": np.arange(6).reshape(2, 3),
        "mask": np.array([True, False]),
        "empty": np.empty((0, 3)),
        "half": np.float16([1.5]),
        "tensor": torch.arange(3),
    }
    path = save({**arrays, "epoch": np.int64(7)}, tmp_path / "pca.pth", layout)
    if numpy_1:
        to_numpy_1(path)
    state = read_checkpoint(path)
    assert list(state) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(state[name].numpy(), array)
        if name != "big_endian":
            assert str(state[name].numpy().dtype) == str(np.asarray(array).dtype)
    state["pca_means"] += 1  # writable memory of its own


@LAYOUTS
def test_arrays_of_objects_are_refused(tmp_path, layout):
    content = {"weight": np.array([1, "a"], dtype=object)}
    path = save(content, tmp_path / "weights.pt", layout)
    assert "weights_only=False" in refuse(path, "NumPy array of dtype O")


@pytest.fixture
def hasty_threads():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def test_many_threads_read_and_leave_torch_as_it_was(tmp_path, hasty_threads):
    content = {f"weight{index}": np.ones(3) for index in range(20)}
    path = save(content, tmp_path / "weights.pt")
    before = set(torch.serialization.get_safe_globals())
    states = []
    threads = [
        threading.Thread(target=lambda: states.append(read_checkpoint(path)))
        for _ in range(40)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(states) == 40
    assert set(torch.serialization.get_safe_globals()) == before


# Files that could run code.


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch '{self.path}'",)


class Evaluated(Payload):
    def __reduce__(self):
        return eval, (f"open({str(self.path)!r}, 'w').close()",)


@pytest.mark.parametrize("payload", [Payload, Evaluated])
def test_the_payloads_below_do_run_where_pickles_are_trusted(tmp_path, payload):
    pickle.loads(pickle.dumps(payload(tmp_path / "ran")))
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("payload", [Payload, Evaluated])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda payload: payload,
        lambda payload: {"state_dict": {"weight": torch.ones(2)}, "extra": payload},
        lambda payload: {"pca_means": np.ones(3), "extra": payload},
        lambda payload: {payload: 1, "weight": torch.ones(2)},
    ],
)
@LAYOUTS
def test_a_pickle_that_runs_code_is_refused(tmp_path, layout, wrap, payload):
    path = save(wrap(payload(tmp_path / "ran")), tmp_path / "weights.pt", layout)
    message = refuse(path, r"it asks for (posix\.system|nt\.system|eval)\. ")
    assert "can run code" in message
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_of_another_writer_is_not_opened(tmp_path, protocol):
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps(Payload(tmp_path / "ran"), protocol))
    refuse(path, "a pickle, but not one that torch.save wrote")
    assert not (tmp_path / "ran").exists()


@LAYOUTS
def test_what_needs_more_than_tensors_says_how_to_convert_it(tmp_path, layout):
    trained, model = make_model(), make_model()
    content = {
        "state_dict": trained.state_dict(),
        "hyper_parameters": argparse.Namespace(lr=0.1),
    }
    path = save(content, tmp_path / "epoch=3.ckpt", layout)
    message = refuse(path, r"it asks for argparse\.Namespace\. ")
    # The two lines are to be copied, so they must work.
    code = "\n".join(re.findall(r"^    (.+)$", message, re.MULTILINE))
    exec("import torch\n" + code)
    load_checkpoint(model, tmp_path / "epoch=3_state.pt")
    check_equal(model.state_dict(), trained.state_dict())


@LAYOUTS
def test_a_whole_model_is_refused(tmp_path, layout):
    path = save(nn.Linear(3, 2), tmp_path / "model.pt", layout)
    assert "checkpoint.state_dict()" in refuse(path, r"asks for torch\.nn\.modules")


def test_a_torchscript_program_is_refused(tmp_path):
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", b"")
        archive.writestr("model/constants.pkl", b"")
    refuse(path, r"TorchScript program.*torch\.jit\.load")


# Files that are something else, or not whole.


@pytest.mark.parametrize("layout", ["zip", "legacy", "safetensors"])
def test_truncated_files(tmp_path, layout):
    path = tmp_path / "weights.pt"
    state = {**make_model().state_dict(), "more": torch.ones(500)}
    if layout == "safetensors":
        save_file(state, path)
    else:
        save(state, path, layout)
    content = path.read_bytes()
    lengths = np.unique(np.linspace(20, len(content) - 1, 60).astype(int))
    for length in lengths:
        path.write_bytes(content[:length])
        message = refuse(path, "damaged or cut short")
        assert "Download it again" in message
        assert "weights_only" not in message
        assert "safe_globals" not in message  # torch's own advice
    path.write_bytes(content)
    assert len(read_checkpoint(path)) == len(state)


@LAYOUTS
def test_damaged_files_are_never_another_error(tmp_path, layout):
    path = save(make_model().state_dict(), tmp_path / "weights.pt", layout)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    n_refused = 0
    for _ in range(150):
        damaged = bytearray(content)
        for position in rng.integers(40, min(len(content), 1500), size=3):
            damaged[position] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            read_checkpoint(path)
        except CheckpointError:
            n_refused += 1
    assert n_refused > 20


def zip_of(name):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, b"x")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", r"it is empty\. Download it again"),
        (b"<!DOCTYPE html><html>404", "it is a web page, perhaps the error page"),
        (b"\n <html>Sign in</html>", "it is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS pointer.*git lf"),
        (b"\x1f\x8b\x08" + bytes(40), "it is compressed; unpack it"),
        (zip_of("weights.pt"), "not one that torch.save wrote; .*unpack that file"),
        (b"epoch,loss\n1,0.5\n" * 9, "none of the kinds known: .*safetensors"),
        (bytes(100), "none of the kinds known"),
    ],
)
@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
def test_other_files(tmp_path, name, content, match):
    (tmp_path / name).write_bytes(content)
    refuse(tmp_path / name, match)


@pytest.mark.parametrize(
    "content", [[], 3, torch.ones(2), {}, {"epoch": 1}, {"a": {"b": torch.ones(2)}}]
)
def test_files_without_tensors_by_name(tmp_path, content):
    path = save(content, tmp_path / "weights.pt")
    refuse(path, "it holds no tensors by name")


def test_a_missing_file(tmp_path, monkeypatch):
    refuse(tmp_path / "weights.pt", r"there is no such file$")
    monkeypatch.chdir(tmp_path)
    refuse("weights.pt", re.escape(f"no such file (in {tmp_path})"))


def test_a_folder(tmp_path):
    refuse(tmp_path, "it is a folder; pass the file of weights in it")


def test_the_error_survives_pickling():
    error = pickle.loads(pickle.dumps(CheckpointError("a.pt", "it is empty")))
    assert (error.path, error.message) == ("a.pt", "it is empty")
    assert str(error) == "can't load 'a.pt': it is empty"
    assert isinstance(error, ValueError)


# Loading into a model.


def test_load_checkpoint_returns_the_model(tmp_path):
    trained, model = make_model(), make_model()
    path = save({"state_dict": trained.state_dict()}, tmp_path / "weights.pt")
    assert load_checkpoint(model, str(path)) is model
    check_equal(model.state_dict(), trained.state_dict())
    os.remove(path)
    model(torch.zeros(1, 1, 4, 4))  # nothing is left mapped from the file


def test_load_checkpoint_converts_the_authors_names(tmp_path):
    class Linear(nn.Linear):
        def convert_checkpoint(self, state):
            return {"weight": state["kernel"].T, "bias": state["bias"]}

    kernel, bias = torch.randn(3, 2), torch.randn(2)
    path = save({"model.kernel": kernel, "model.bias": bias}, tmp_path / "weights.pt")
    model = load_checkpoint(Linear(3, 2), path)
    check_equal(model.state_dict(), {"weight": kernel.T, "bias": bias})


def fail_to_load(model, state):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError) as info:
        load_state(model, state, "weights.pt")
    check_equal(model.state_dict(), before)  # not half loaded
    return info.value.message


def test_all_that_does_not_fit_is_reported():
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8))
    state = nn.Sequential(nn.Conv2d(1, 16, 3), nn.BatchNorm2d(8)).state_dict()
    state["1.running_var"] = torch.full((8,), torch.nan)
    state["1.bias"] = torch.zeros(8, dtype=torch.int64)
    state["2.weight"] = torch.ones(3)
    del state["1.running_mean"]
    assert fail_to_load(model, state) == (
        "it does not fit Sequential.\n"
        "  1 missing from the file:\n"
        "    1.running_mean\n"
        "  1 unknown to the model:\n"
        "    2.weight\n"
        "  2 of another shape:\n"
        "    0.weight: (16, 1, 3, 3) in the file, (8, 1, 3, 3) in the model\n"
        "    0.bias: (16,) in the file, (8,) in the model\n"
        "  1 of another kind of number:\n"
        "    1.bias: int64 in the file, float32 in the model\n"
        "  1 NaN or infinite:\n"
        "    1.running_var\n"
        "Is this the file of another model?"
    )


def test_long_lists_are_cut():
    model = nn.ModuleList(nn.Linear(1, 1, bias=False) for _ in range(13))
    message = fail_to_load(model, {"other": torch.ones(1)})
    assert "13 missing from the file:" in message
    assert "    9.weight\n    and 3 more\n" in message
    assert "10.weight" not in message


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 1e300])
def test_values_that_are_no_numbers(value):
    state = nn.Linear(3, 2).double().state_dict()
    state["weight"][1, 2] = value
    message = fail_to_load(nn.Linear(3, 2), state)
    assert "1 NaN or infinite:\n    weight\nThe file is damaged" in message


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [(torch.int8, "int8"), (torch.bool, "bool"), (torch.complex64, "complex64")],
)
def test_other_kinds_of_numbers(dtype, kind):
    state = nn.Linear(3, 2).state_dict()
    state["bias"] = torch.zeros(2, dtype=dtype)
    message = fail_to_load(nn.Linear(3, 2), state)
    assert f"bias: {kind} in the file, float32 in the model" in message


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_converted(tmp_path, dtype):
    state = {name: value.to(dtype) for name, value in make_model().state_dict().items()}
    state["norm.num_batches_tracked"] = torch.tensor(5, dtype=torch.int32)
    save_file(state, tmp_path / "weights.safetensors")
    model = load_checkpoint(make_model(), tmp_path / "weights.safetensors")
    assert model.conv.weight.dtype == torch.float32
    torch.testing.assert_close(model.conv.weight.to(dtype), state["conv.weight"])
    assert model.norm.num_batches_tracked == 5


def test_old_files_lack_the_number_of_batches():
    trained, model = make_model(), make_model()
    state = trained.state_dict()
    del state["norm.num_batches_tracked"]
    load_state(model, state, "weights.pt")
    check_equal(model.state_dict(), trained.state_dict())


def test_gradients_are_left_alone():
    model = nn.Linear(3, 2)
    weight = model.weight
    load_state(model, nn.Linear(3, 2).state_dict(), "weights.pt")
    assert model.weight is weight  # optimisers hold on to it
    assert weight.requires_grad
