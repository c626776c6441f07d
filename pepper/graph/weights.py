"""What a file says of its weights, held against what it holds: also of those inside operators and functions."""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx

from pepper.errors import ModelError
from pepper.graph.ir import size_bytes
from pepper.graph.onnx_types import DTYPES

_MOST_BYTES = 2**62  # what a file's offsets can hold
_IN_INT32 = {"int32", "int16", "int8", "uint16", "uint8", "bool", "float16", "bfloat16"}
_FIELDS = {
    **dict.fromkeys(_IN_INT32, "int32_data"),
    "float": "float_data",
    "double": "double_data",
    "int64": "int64_data",
    "string": "string_data",
    "uint32": "uint64_data",
    "uint64": "uint64_data",
}
"""Where an element takes a place of its own, if it is not among the raw bytes."""


def all_tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield every stored tensor of a model: weights, and those in attributes, in bodies and functions too."""
    yield from _of_graph(proto.graph)
    for function in proto.functions:
        yield from _of_nodes(function.node)


def check_weights(proto: onnx.ModelProto, file: Path) -> None:
    """Make sure that each weight in the file has a type and as many bytes as its shape takes.

    Weights in other files are checked where these are looked at, see `pepper.graph.external`.

    Raises:
        ModelError: One has not.
    """
    for tensor in all_tensors(proto):
        needed = needed_bytes(tensor, file)
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            continue
        dtype = DTYPES[tensor.data_type]
        elements = math.prod(tensor.dims)
        if tensor.HasField("raw_data"):
            fits = len(tensor.raw_data) == needed
        elif dtype in _FIELDS:
            fits = len(getattr(tensor, _FIELDS[dtype])) == elements
        else:
            fits = True  # packed in ways that differ between versions: onnxruntime checks
        if not fits:
            raise ModelError(
                f"{file}: weight {tensor.name!r} is {dtype} {list(tensor.dims)}, but the file holds other than its"
                f" {elements} elements; export the model again"
            )


def needed_bytes(tensor: onnx.TensorProto, file: Path) -> int | None:
    """Return the bytes of a stored tensor; None for texts.

    Raises:
        ModelError: Its type is unknown or its shape is none.
    """
    dtype = DTYPES.get(tensor.data_type)
    if dtype is None:
        raise ModelError(
            f"{file}: weight {tensor.name!r} is of the unknown element type {tensor.data_type}; export the model again"
        )
    if any(dim < 0 for dim in tensor.dims) or math.prod(tensor.dims) > _MOST_BYTES:
        raise ModelError(f"{file}: weight {tensor.name!r} has no possible shape {list(tensor.dims)}; export it again")
    return size_bytes(dtype, tensor.dims)


def _of_graph(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _of_nodes(graph.node)


def _of_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                if sparse.HasField("values"):
                    yield from (sparse.values, sparse.indices)
            if attribute.HasField("g"):
                yield from _of_graph(attribute.g)
            for graph in attribute.graphs:
                yield from _of_graph(graph)
