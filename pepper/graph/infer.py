"""Types and shapes of every tensor at given input shapes, without touching large weights."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx

from pepper.errors import ModelError
from pepper.graph import contrib
from pepper.graph.external import read_external
from pepper.graph.weights import DTYPES

TensorType = tuple[str | None, tuple[int, ...] | None]
"""The element type in lower case and the shape; None where unknown."""

_SMALL_BYTES = 1024  # integer weights up to this size may hold shapes, whose values inference needs
_LOOSE = {"If", "Loop", "Scan"}  # ONNX lets what they carry change shape
_SHAPE_TYPES = (onnx.TensorProto.INT64, onnx.TensorProto.INT32)


def infer_types(
    proto: onnx.ModelProto, file: Path, shapes: Mapping[str, Sequence[int]] | None
) -> dict[str, onnx.TypeProto]:
    """Infer the type of every tensor of the main graph that ONNX's rules (and pepper's for
    com.microsoft) reach, shape values propagated.

    Args:
        proto: The model; large weights are neither read nor copied.
        file: The model's file, beside which small external integer weights are read.
        shapes: Shapes by tensor name, put in place of those in the file: inputs, and tensors written by
            operators that no rule covers. None keeps the file's own, dynamic dimensions included.

    Raises:
        ModelError: The shapes contradict the model.
    """
    skeleton = _skeleton(proto, file, shapes)
    with contrib.registered():
        try:
            inferred = onnx.shape_inference.infer_shapes(skeleton, data_prop=True).graph
        except Exception as error:  # onnx raises InferenceError, RuntimeError and ValidationError alike
            reason = " ".join(str(error).split())[:300]
            raise ModelError(f"shapes cannot be inferred at {_listed(shapes)}: {reason}") from error
    return {
        value.name: value.type for group in (inferred.input, inferred.value_info, inferred.output) for value in group
    }


def tensor_type(kind: onnx.TypeProto | None) -> TensorType:
    """Reduce an ONNX type to element type and fixed shape."""
    if kind is None or kind.WhichOneof("value") != "tensor_type":
        return None, None
    tensor = kind.tensor_type
    shape = None
    if tensor.HasField("shape"):
        dims = tensor.shape.dim
        sizes = tuple(dim.dim_value for dim in dims)
        if all(sizes) or all(dim.HasField("dim_value") for dim in dims):
            shape = sizes
    return DTYPES.get(tensor.elem_type), shape


def weight_type(tensor: onnx.TensorProto) -> TensorType:
    """Element type and shape of an initializer."""
    return DTYPES.get(tensor.data_type), tuple(tensor.dims)


def _skeleton(proto: onnx.ModelProto, file: Path, shapes: Mapping[str, Sequence[int]] | None) -> onnx.ModelProto:
    """Copy the model with its large weights reduced to typed inputs."""
    graph = proto.graph
    result = onnx.ModelProto(ir_version=max(proto.ir_version, 4))  # from 4 on, weights need not be inputs
    result.opset_import.extend(proto.opset_import)
    result.functions.extend(proto.functions)
    result.graph.name = graph.name or "graph"
    result.graph.node.extend(graph.node)
    weights = set()
    for tensor in graph.initializer:
        weights.add(tensor.name)
        if tensor.ByteSize() <= _SMALL_BYTES and tensor.data_location != onnx.TensorProto.EXTERNAL:
            result.graph.initializer.add().CopyFrom(tensor)
        elif (small := _small_external(tensor, file)) is not None:
            result.graph.initializer.add().CopyFrom(small)
        else:
            result.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    for sparse in graph.sparse_initializer:
        weights.add(sparse.values.name)
        result.graph.input.append(
            onnx.helper.make_tensor_value_info(sparse.values.name, sparse.values.data_type, sparse.dims)
        )
    shapes = shapes or {}
    functions = {(function.domain, function.name) for function in proto.functions}
    for value in graph.input:
        if value.name not in weights:
            _set_shape(result.graph.input.add(), value, shapes.get(value.name))
    # The file's own shapes of inner tensors may belong to other input shapes: keep those that no rule gives.
    written = {name: node for node in graph.node for name in node.output}
    opaque = {name for name, node in written.items() if not _has_rule(node, functions)}
    stated = {value.name: value for value in graph.value_info if value.name in opaque or value.name in shapes}
    for name in stated.keys() | (written.keys() & shapes.keys()):
        value = stated.get(name) or onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        _set_shape(result.graph.value_info.add(), value, shapes.get(name))
    for value in graph.output:
        if value.name in written:
            output = result.graph.output.add()
            output.CopyFrom(value)
            if value.name not in opaque and value.type.HasField("tensor_type"):
                output.type.tensor_type.ClearField("shape")
    return result


def _set_shape(target: onnx.ValueInfoProto, value: onnx.ValueInfoProto, shape: Sequence[int] | None) -> None:
    target.CopyFrom(value)
    if shape is not None:
        target.type.tensor_type.ClearField("shape")
        target.type.tensor_type.shape.dim.extend(onnx.TensorShapeProto.Dimension(dim_value=size) for size in shape)


def _has_rule(node: onnx.NodeProto, functions: set[tuple[str, str]]) -> bool:
    """Whether inference is sure to give the node's output shapes."""
    if node.domain in ("", "ai.onnx"):
        return node.op_type not in _LOOSE
    if node.domain == contrib.DOMAIN:
        return node.op_type in contrib.RULES
    return (node.domain, node.op_type) in functions or onnx.defs.has(node.op_type, node.domain)


def _small_external(tensor: onnx.TensorProto, file: Path) -> onnx.TensorProto | None:
    if tensor.data_location != onnx.TensorProto.EXTERNAL or tensor.data_type not in _SHAPE_TYPES:
        return None
    elements = 1
    for dim in tensor.dims:
        elements *= dim
    if elements * 8 > _SMALL_BYTES:
        return None
    return read_external(tensor, file)


def _listed(shapes: Mapping[str, Sequence[int]] | None) -> str:
    return ", ".join(f"{name}={list(shape)}" for name, shape in (shapes or {}).items()) or "the file's shapes"
