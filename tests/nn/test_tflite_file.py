import csv
import io
import math
import sys
import zipfile
from typing import NamedTuple

import flatbuffers
import numpy as np
import pytest
import tflite
import torch

from sklabelaudio.exceptions import CheckpointError
from sklabelaudio.nn._tflite_file import read_tflite_file, read_tflite_labels

RNG = np.random.default_rng(0)
TYPES = {
    "float16": tflite.TensorType.FLOAT16,
    "float32": tflite.TensorType.FLOAT32,
    "float64": tflite.TensorType.FLOAT64,
    "int8": tflite.TensorType.INT8,
    "uint8": tflite.TensorType.UINT8,
    "int16": tflite.TensorType.INT16,
    "int32": tflite.TensorType.INT32,
    "int64": tflite.TensorType.INT64,
    "complex64": tflite.TensorType.COMPLEX64,
}


class Constant(NamedTuple):
    values: np.ndarray
    scale: list | None = None
    zero_point: list | None = None
    axis: int = 0


class Operator(NamedTuple):
    kind: str
    inputs: list  # of Constant, or None for what is computed
    activation: str = "NONE"
    old_code: bool = False


OPTIONS = {
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
}


class Writer:
    """Writes models of a chain of operators, as TensorFlow Lite's schema has them."""

    def __init__(self):
        self.builder = flatbuffers.Builder(1024)
        self.tensors = []
        self.buffers = [self.table("Buffer")]  # the first is empty, by the schema

    def table(self, name, **fields):
        getattr(tflite, f"{name}Start")(self.builder)
        for field, value in fields.items():
            if value is not None:
                getattr(tflite, f"{name}Add{field}")(self.builder, value)
        return getattr(tflite, f"{name}End")(self.builder)

    def offsets(self, items):
        self.builder.StartVector(4, len(items), 4)
        for item in reversed(items):
            self.builder.PrependUOffsetTRelative(item)
        return self.builder.EndVector()

    def numbers(self, values, dtype):
        return self.builder.CreateNumpyVector(np.asarray(values, dtype))

    def tensor(self, constant):
        buffer, kind, shape, quantization = 0, TYPES["float32"], [1], None
        if constant is not None:
            raw = np.frombuffer(constant.values.tobytes(), np.uint8)
            data = self.numbers(raw, np.uint8) if raw.size else None
            buffer = len(self.buffers)
            self.buffers.append(self.table("Buffer", Data=data))
            kind, shape = TYPES[constant.values.dtype.name], constant.values.shape
            if constant.scale is not None:
                scale = self.numbers(constant.scale, np.float32)
                zero_point = constant.zero_point
                if zero_point is not None:
                    zero_point = self.numbers(zero_point, np.int64)
                quantization = self.table(
                    "QuantizationParameters",
                    Scale=scale,
                    ZeroPoint=zero_point,
                    QuantizedDimension=constant.axis,
                )
        name = self.builder.CreateString("what;the;converter;made")
        self.tensors.append(
            self.table(
                "Tensor",
                Shape=self.numbers(shape, np.int32),
                Type=kind,
                Buffer=buffer,
                Name=name,
                Quantization=quantization,
            )
        )
        return len(self.tensors) - 1

    def write(self, path, operators, *, n_graphs=1, files=None):
        codes, written = [], []
        for i, operator in enumerate(operators):
            number = getattr(tflite.BuiltinOperator, operator.kind)
            # The older field has one byte; files from before the newer lack that.
            fields = {"DeprecatedBuiltinCode": min(number, 127)}
            if not operator.old_code:
                fields["BuiltinCode"] = number
            codes.append(self.table("OperatorCode", **fields))
            inputs = self.numbers([self.tensor(c) for c in operator.inputs], np.int32)
            outputs = self.numbers([self.tensor(None)], np.int32)
            options, options_type = None, None
            if operator.kind in OPTIONS:
                name = OPTIONS[operator.kind]
                activation = getattr(tflite.ActivationFunctionType, operator.activation)
                options = self.table(name, FusedActivationFunction=activation)
                options_type = getattr(tflite.BuiltinOptions, name)
            written.append(
                self.table(
                    "Operator",
                    OpcodeIndex=i,
                    Inputs=inputs,
                    Outputs=outputs,
                    BuiltinOptionsType=options_type,
                    BuiltinOptions=options,
                )
            )
        graph = self.table(
            "SubGraph",
            Tensors=self.offsets(self.tensors),
            Operators=self.offsets(written),
        )
        model = self.table(
            "Model",
            Version=3,
            OperatorCodes=self.offsets(codes),
            Subgraphs=self.offsets([graph] * n_graphs),
            Buffers=self.offsets(self.buffers),
        )
        self.builder.Finish(model, b"TFL3")
        path.write_bytes(bytes(self.builder.Output()))
        if files is not None:
            with zipfile.ZipFile(path, "a") as archive:
                for name, text in files.items():
                    archive.writestr(name, text)


def write(path, operators, **settings):
    Writer().write(path, operators, **settings)


def integers(shape, dtype=np.int8):
    bounds = np.iinfo(dtype)
    return RNG.integers(bounds.min, bounds.max, shape, dtype, endpoint=True)


KERNEL = Constant(integers((4, 3, 3, 2)), [0.5, 0.25, 2.0, 1.0], [0, 0, 0, 0], 0)
BIAS = Constant(np.array([-70000, 3, 0, 9], np.int32), [0.125], [0])
DEPTHWISE = Constant(integers((1, 3, 3, 2)), [0.1, 0.3], [3, -4], 3)
MATRIX = Constant(RNG.standard_normal((5, 2)).astype(np.float32))
SHAPE = Constant(np.array([1, 96, 64], np.int32))

OPERATORS = [
    Operator("RESHAPE", [None, SHAPE]),
    Operator("MUL", [None, MATRIX]),
    Operator("CONV_2D", [None, KERNEL, BIAS], "RELU6"),
    Operator("DEPTHWISE_CONV_2D", [None, DEPTHWISE], "RELU"),
    Operator("FULLY_CONNECTED", [None, MATRIX]),
]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.tflite"


def test_constants_are_named_by_their_place_and_dequantised(path):
    write(path, OPERATORS)
    state = read_tflite_file(path)
    assert list(state) == [
        "1.mul.1",
        "2.conv_2d.1",
        "2.conv_2d.2",
        "2.conv_2d.activation_max",
        "3.depthwise_conv_2d.1",
        "3.depthwise_conv_2d.activation_max",
        "4.fully_connected.1",
    ]
    assert all(tensor.dtype == torch.float32 for tensor in state.values())
    assert state["2.conv_2d.activation_max"] == 6
    assert state["3.depthwise_conv_2d.activation_max"] == math.inf
    for name in ("1.mul.1", "4.fully_connected.1"):
        np.testing.assert_array_equal(state[name], MATRIX.values)

    # Channel by channel, from the rule that the format states.
    for i, scale in enumerate(KERNEL.scale):
        expected = scale * KERNEL.values[i]
        np.testing.assert_array_equal(state["2.conv_2d.1"][i], expected)
    np.testing.assert_array_equal(state["2.conv_2d.2"], 0.125 * BIAS.values)
    for i in range(2):
        q = DEPTHWISE.values[..., i].astype(float)
        expected = np.float32(DEPTHWISE.scale[i]) * (q - DEPTHWISE.zero_point[i])
        result = state["3.depthwise_conv_2d.1"][..., i]
        np.testing.assert_allclose(result, expected, rtol=1e-7)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "int64"])
@pytest.mark.parametrize("zero_point", [5, None])
def test_every_width_of_integers_is_dequantised(path, dtype, zero_point):
    values = np.array([0, 1, 5, 100], dtype)
    constant = Constant(values, [0.5], None if zero_point is None else [zero_point])
    write(path, [Operator("ADD", [None, constant])])
    expected = 0.5 * (np.array([0, 1, 5, 100]) - (zero_point or 0))
    np.testing.assert_array_equal(read_tflite_file(path)["0.add.1"], expected)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_every_width_of_floats_is_read(path, dtype):
    values = np.array([[0.5, -3.0]], dtype)
    write(path, [Operator("ADD", [None, Constant(values)])])
    np.testing.assert_array_equal(read_tflite_file(path)["0.add.1"], values)


def test_operators_of_old_files_have_their_names(path):
    write(path, [Operator("CONV_2D", [None, KERNEL], old_code=True)])
    assert list(read_tflite_file(path)) == ["0.conv_2d.1"]


def test_operators_with_numbers_beyond_a_byte_have_their_names(path):
    write(path, [Operator("GELU", [None, MATRIX])])
    assert list(read_tflite_file(path)) == ["0.gelu.1"]


def test_kinds_of_numbers_that_cannot_be_read_are_an_error(path):
    constant = Constant(np.ones(2, np.complex64), [1.0], [0])
    write(path, [Operator("ADD", [None, constant])])
    with pytest.raises(CheckpointError, match="is COMPLEX64; of quantised files"):
        read_tflite_file(path)


def test_several_graphs_are_an_error(path):
    write(path, OPERATORS, n_graphs=2)
    with pytest.raises(CheckpointError, match="has 2 graphs, where one is expected"):
        read_tflite_file(path)


def test_a_shape_that_does_not_match_its_data_is_an_error(path):
    writer = Writer()
    data = writer.numbers(np.zeros(7, np.uint8), np.uint8)
    writer.buffers.append(writer.table("Buffer", Data=data))
    fields = {"Shape": writer.numbers([2], np.int32), "Buffer": 1}
    tensor = writer.table("Tensor", Type=TYPES["float32"], **fields)
    writer.tensor = lambda constant: len(writer.tensors) - 1
    writer.tensors.append(tensor)
    writer.write(path, [Operator("ADD", [None])])
    with pytest.raises(CheckpointError, match="damaged"):
        read_tflite_file(path)


@pytest.mark.parametrize("content", [b"", b"TFL3", b"epoch,loss\n1,0.5\n", b"\0" * 99])
@pytest.mark.parametrize("read", [read_tflite_file, read_tflite_labels])
def test_other_kinds_of_files_are_errors(path, content, read):
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="not a TensorFlow Lite file") as caught:
        read(path)
    assert caught.value.path == str(path)
    with pytest.raises(CheckpointError, match="No such file"):
        read(path.with_name("missing.tflite"))


def assert_equal(state, expected):
    assert list(state) == list(expected)
    assert all(torch.equal(state[name], expected[name]) for name in expected)


def test_a_cut_file_is_an_error_or_whole(path):
    write(path, OPERATORS)
    expected, content = read_tflite_file(path), path.read_bytes()
    n_errors = 0
    for n_bytes in range(8, len(content), 5):
        path.write_bytes(content[:n_bytes])
        try:
            assert_equal(read_tflite_file(path), expected)
        except CheckpointError:
            n_errors += 1
    assert n_errors > 0.9 * (len(content) - 8) / 5


def test_damaged_files_never_end_otherwise_than_in_checkpoint_error(path):
    write(path, OPERATORS)
    content = path.read_bytes()
    n_errors = 0
    for position in range(8, len(content), 5):
        path.write_bytes(content[:position] + b"\xff" + content[position + 1 :])
        try:
            read_tflite_file(path)
        except CheckpointError:
            n_errors += 1
    assert n_errors > 100


def test_the_published_file_cut_short_is_an_error(shared, path):
    published = shared / "reference" / "checkpoints" / "yamnet" / "yamnet.tflite"
    content = published.read_bytes()
    for share in (0.01, 0.3, 0.7, 0.99):
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(CheckpointError, match="damaged or cut short"):
            read_tflite_file(path)


def test_the_published_file_holds_its_own_mel_bank(shared):
    """HTK's triangles, linear in mel: known from outside, and stored as floats."""
    path = shared / "reference" / "checkpoints" / "yamnet" / "yamnet.tflite"
    state = read_tflite_file(path)

    def mel(hertz):
        return 1127 * np.log1p(hertz / 700)

    edges = np.linspace(mel(125), mel(7500), 66)
    below, centre, above = (edges[i : i + 64, None] for i in range(3))
    position = mel(np.arange(257) * 16000 / 512)
    up = (position - below) / (centre - below)
    down = (above - position) / (above - centre)
    bank = np.maximum(0, np.minimum(up, down))
    np.testing.assert_allclose(state["10.fully_connected.1"], bank, rtol=0, atol=1e-7)
    assert (state["10.fully_connected.2"] == np.float32(1e-3)).all()
    window = np.hanning(401)[:-1]
    np.testing.assert_allclose(state["4.mul.1"], window, rtol=0, atol=1e-6)


def test_labels_are_the_lines_of_the_list(path):
    texts = {"yamnet_label_list.txt": "Speech\r\nTap, drip\n\nÉcho\n", "notes.txt": "x"}
    write(path, OPERATORS, files=texts)
    assert read_tflite_labels(path) == ("Speech", "Tap, drip", "", "Écho")
    # The archive is no part of the model.
    assert len(read_tflite_file(path)) == 7


@pytest.mark.parametrize(
    "files", [None, {"notes.txt": "x"}, {"labels.txt": "a", "labels_de.txt": "b"}]
)
def test_without_one_list_there_are_no_labels(path, files):
    write(path, OPERATORS, files=files)
    assert read_tflite_labels(path) is None


def test_a_damaged_list_is_an_error(path):
    write(path, OPERATORS, files={"labels.txt": "Speech"})
    content = path.read_bytes()
    assert content.count(b"Speech") == 1
    path.write_bytes(content.replace(b"Speech", b"Spooch"))
    with pytest.raises(CheckpointError, match="damaged"):
        read_tflite_labels(path)


def test_the_published_labels_are_those_of_the_class_map(shared):
    folder = shared / "reference" / "checkpoints" / "yamnet"
    text = (folder / "yamnet_class_map.csv").read_text(encoding="utf-8")
    names = tuple(row["display_name"] for row in csv.DictReader(io.StringIO(text)))
    assert len(names) == 521
    assert read_tflite_labels(folder / "yamnet.tflite") == names


def test_without_tflite_the_error_names_the_extra(monkeypatch, path):
    monkeypatch.setitem(sys.modules, "tflite", None)
    with pytest.raises(ImportError, match=r"tflite .*sklabelaudio\[checkpoints\]"):
        read_tflite_file(path)
