"""Models of a few operators, written as ONNX's protocol buffer directly: programs on a device do without onnx."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

_ELEMS = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6}
"""onnx.TensorProto.DataType by numpy's name."""
_IR_VERSION, _OPSET = 8, 17

Node = tuple[str, Sequence[str], str]
"""A type of operator, its inputs and its output."""


def model(
    nodes: Sequence[Node],
    inputs: Mapping[str, Sequence[int]],
    outputs: Mapping[str, Sequence[int]],
    weights: "Mapping[str, np.ndarray[Any, Any]]",
    types: Mapping[str, str] = {},
) -> bytes:
    """Return a model as the content of an ONNX file.

    Field numbers are those of onnx.proto (IR version 8).

    Args:
        nodes: Its operators, of the default domain and without attributes.
        inputs: Shapes by name.
        outputs: Likewise.
        weights: Arrays by name.
        types: Of inputs and outputs that are not in single precision, by name.
    """
    graph = b"".join(
        (
            *(_field(1, _node(*node)) for node in nodes),
            _field(2, b"small"),
            *(_field(5, _tensor(name, array)) for name, array in weights.items()),
            *(_field(11, _value(name, shape, types.get(name, "float32"))) for name, shape in inputs.items()),
            *(_field(12, _value(name, shape, types.get(name, "float32"))) for name, shape in outputs.items()),
        )
    )
    return _versions(_IR_VERSION, {"": _OPSET}) + _field(7, graph)


def empty(ir_version: int = _IR_VERSION, opsets: Mapping[str, int] = {}) -> bytes:
    """Return a model without operators that says to be of other versions.

    Args:
        ir_version: Of the format.
        opsets: Of operator sets, by their domains.
    """
    return _versions(ir_version, {"": _OPSET, **opsets}) + _field(7, _field(2, b"empty"))


def _versions(ir_version: int, opsets: Mapping[str, int]) -> bytes:
    sets = (_field(1, domain.encode()) + _number(2, version) for domain, version in opsets.items())
    return _number(1, ir_version) + b"".join(_field(8, each) for each in sets)


def _node(kind: str, inputs: Sequence[str], output: str) -> bytes:
    named = b"".join(_field(1, name.encode()) for name in inputs)
    return named + _field(2, output.encode()) + _field(3, output.encode()) + _field(4, kind.encode())


def _tensor(name: str, array: "np.ndarray[Any, Any]") -> bytes:
    dims = b"".join(_number(1, size) for size in array.shape)
    kept = array.astype(array.dtype.newbyteorder("<"))
    return dims + _number(2, _ELEMS[array.dtype.name]) + _field(8, name.encode()) + _field(9, kept.tobytes())


def _value(name: str, shape: Sequence[int], kind: str) -> bytes:
    dims = b"".join(_field(1, _number(1, size)) for size in shape)
    return _field(1, name.encode()) + _field(2, _field(1, _number(1, _ELEMS[kind]) + _field(2, dims)))


def _varint(number: int) -> bytes:
    low, high = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + _varint(high) if high else bytes([low])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _field(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def products(rows: int, *widths: int) -> bytes:
    """Return a chain of matrix products, each with a matrix of its own: none can be left out, or joined with others.

    Args:
        rows: Rows of what is multiplied.
        *widths: Columns of what is multiplied: at first, and after each product.
    """
    rng = np.random.default_rng(0)
    last = len(widths) - 1
    names = ["input", *(f"h{number}" for number in range(1, last)), "output"]
    shapes = list(pairwise(widths))
    weights = {f"w{n}": rng.standard_normal(shape, np.float32) / shape[0] ** 0.5 for n, shape in enumerate(shapes)}
    nodes: list[Node] = [("MatMul", (names[n], f"w{n}"), names[n + 1]) for n in range(last)]
    return model(nodes, {"input": (rows, widths[0])}, {"output": (rows, widths[-1])}, weights)


def integer_product(size: int) -> bytes:
    """Return the product of a matrix ``input`` of bytes (``size x size``, uint8) with one of signed bytes."""
    weight = np.random.default_rng(0).integers(-9, 9, (size, size)).astype(np.int8)
    shapes = {"input": (size, size)}, {"output": (size, size)}
    node: Node = ("MatMulInteger", ("input", "weight"), "output")
    return model([node], *shapes, {"weight": weight}, {"input": "uint8", "output": "int32"})
