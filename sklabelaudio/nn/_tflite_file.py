"""Weights and labels of TensorFlow Lite models."""

import io
import math
import os
import zipfile

import numpy as np
import torch

from .._optional import import_optional_dependency
from ..exceptions import CheckpointError

_FLOATS = {"FLOAT16": "<f2", "FLOAT32": "<f4", "FLOAT64": "<f8"}
_INTEGERS = {
    "INT8": "i1",
    "UINT8": "u1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
}


def read_tflite_file(path):
    """Read the constants of a TensorFlow Lite model, dequantised.

    Parameters
    ----------
    path : str or path-like
        A ``.tflite`` file with one graph, quantised or not.

    Returns
    -------
    state : dict of str to Tensor
        What the operators read from the file, in the operators' order, float32 and
        in TensorFlow Lite's layout. The names in such a file are those of the
        converter's passes, so a constant is named by its place instead:
        ``"<position>.<operator>.<input>"``, such as ``"16.conv_2d.1"`` for the
        kernel and ``"16.conv_2d.2"`` for the bias of the convolution that is the
        graph's operator 16, counted from 0. Quantised integers become
        scale·(q - zero point), with one scale for all or one a channel. Other
        integers, which are shapes and indices, are left out.
        ``"16.conv_2d.activation_max"`` is where a ReLU fused with the operator
        ends: infinity, or 6.

    Raises
    ------
    CheckpointError
        If the file is missing, damaged, not of TensorFlow Lite, has several graphs,
        or numbers of a kind not read here, such as four-bit integers.
    """
    tflite = import_optional_dependency("tflite", "checkpoints")
    path, content = _read_content(path)
    try:
        return _Graph(path, content, tflite).read_constants()
    except (CheckpointError, MemoryError):
        raise
    # Damaged offsets make the reader stumble in any way there is.
    except Exception as error:
        raise _damaged(path, error) from error


def read_tflite_labels(path):
    """Read the list of class labels that a TensorFlow Lite model may carry.

    Parameters
    ----------
    path : str or path-like
        A ``.tflite`` file. Its labels are a text, one a line, among the files that
        are appended to the model as a zip archive.

    Returns
    -------
    labels : tuple of str or None
        A label for each output, in order; ``None`` if there is no list, or several.

    Raises
    ------
    CheckpointError
        If the file is missing, not of TensorFlow Lite, or its archive is damaged.
    """
    path, content = _read_content(path)
    # The archive is found from its end, whatever stands before it.
    if not zipfile.is_zipfile(io.BytesIO(content)):
        return None
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = [
                name
                for name in archive.namelist()
                if "label" in name.lower() and name.endswith(".txt")
            ]
            if len(names) != 1:
                return None
            text = archive.read(names[0]).decode()
    except MemoryError:
        raise
    # So does a damaged archive.
    except Exception as error:
        raise _damaged(path, error) from error
    return tuple(line.strip() for line in text.rstrip().split("\n"))


def _read_content(path):
    path = os.fspath(path)
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise CheckpointError(path, error.strerror or str(error)) from error
    if content[4:8] != b"TFL3":
        raise CheckpointError(path, "it is not a TensorFlow Lite file")
    return path, content


def _damaged(path, error):
    return CheckpointError(
        path, f"it is damaged or cut short ({error}). Download it again"
    )


class _Graph:
    """The one graph of a model."""

    def __init__(self, path, content, tflite):
        self.path = path
        self.tflite = tflite
        self.model = tflite.Model.GetRootAs(content, 0)
        if self.model.SubgraphsLength() != 1:
            raise CheckpointError(
                path,
                f"it has {self.model.SubgraphsLength()} graphs, where one is expected",
            )
        self.graph = self.model.Subgraphs(0)
        self.type_names = _invert(tflite.TensorType)
        self.operator_names = _invert(tflite.BuiltinOperator)

    def read_constants(self):
        state = {}
        for position in range(self.graph.OperatorsLength()):
            operator = self.graph.Operators(position)
            prefix = f"{position}.{self._name(operator)}"
            found = {}
            for i in range(operator.InputsLength()):
                constant = self._read_constant(operator.Inputs(i))
                if constant is not None:
                    found[f"{prefix}.{i}"] = constant
            maximum = self._read_activation_max(operator)
            if found and maximum is not None:
                found[f"{prefix}.activation_max"] = torch.tensor(maximum)
            state |= found
        return state

    def _name(self, operator):
        code = self.model.OperatorCodes(operator.OpcodeIndex())
        return self.operator_names[code.BuiltinCode()].lower()

    def _read_constant(self, index):
        """Return the tensor, or None if it is computed, or holds no weights."""
        if index < 0:  # an optional input that is not there
            return None
        tensor = self.graph.Tensors(index)
        buffer = self.model.Buffers(tensor.Buffer())
        if not buffer.DataLength():
            return None
        kind = self.type_names[tensor.Type()]
        quantization = tensor.Quantization()
        quantized = quantization is not None and quantization.ScaleLength() > 0
        if not quantized and kind not in _FLOATS:
            return None
        if kind not in _FLOATS | _INTEGERS:
            raise CheckpointError(
                self.path,
                f"its tensor {tensor.Name().decode()!r} is {kind}; of quantised files, "
                f"those of {', '.join(_INTEGERS)} are read",
            )
        values = torch.tensor(
            buffer.DataAsNumpy().view((_FLOATS | _INTEGERS)[kind]).astype("f8")
        )
        values = values.reshape([tensor.Shape(i) for i in range(tensor.ShapeLength())])
        if quantized:
            values = _dequantize(values, quantization)
        return values.float()

    def _read_activation_max(self, operator):
        """Return where a fused ReLU ends, or None where no ReLU is fused."""
        tflite = self.tflite
        options = {
            tflite.BuiltinOptions.Conv2DOptions: tflite.Conv2DOptions,
            tflite.BuiltinOptions.DepthwiseConv2DOptions: tflite.DepthwiseConv2DOptions,
            tflite.BuiltinOptions.FullyConnectedOptions: tflite.FullyConnectedOptions,
        }.get(operator.BuiltinOptionsType())
        if options is None:
            return None
        options = options()
        table = operator.BuiltinOptions()
        options.Init(table.Bytes, table.Pos)
        kinds = tflite.ActivationFunctionType
        return {kinds.RELU: math.inf, kinds.RELU6: 6.0}.get(
            options.FusedActivationFunction()
        )


def _dequantize(values, quantization):
    # Without zero points the reader gives the number 0.
    zero_point = np.atleast_1d(quantization.ZeroPointAsNumpy())
    scale, zero_point = (
        torch.tensor(array.astype("f8"))
        for array in (quantization.ScaleAsNumpy(), zero_point)
    )
    shape = [1] * values.ndim
    if len(scale) > 1:
        shape[quantization.QuantizedDimension()] = -1
    return scale.reshape(shape) * (values - zero_point.reshape(shape))


def _invert(enumeration):
    return {
        number: name for name, number in vars(enumeration).items() if name[0] != "_"
    }
