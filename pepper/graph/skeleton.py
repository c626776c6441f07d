"""A copy of a model for inference alone: its large weights are typed inputs, its local functions are inlined."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
import onnx.inliner

from pepper.errors import ModelError
from pepper.graph import contrib
from pepper.graph.external import read_external
from pepper.graph.topology import bodies

_SMALL_BYTES = 1024  # integer weights up to this size may hold shapes, whose values inference needs
_LOOSE = {"If", "Loop", "Scan"}  # ONNX lets what they carry change shape
_SHAPE_TYPES = (onnx.TensorProto.INT64, onnx.TensorProto.INT32)


def skeleton(proto: onnx.ModelProto, file: Path, shapes: Mapping[str, Sequence[int]] | None) -> onnx.ModelProto:
    """Copy the model with its large weights reduced to typed inputs.

    Args:
        proto: The model.
        file: The model's file, beside which small external integer weights are read.
        shapes: Shapes of inputs, put in place of those in the file. None keeps the file's own.

    Raises:
        ModelError: The local functions do not fit together.
    """
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
    result.graph.value_info.extend(value for value in graph.value_info if value.name in opaque)
    for value in graph.output:
        if value.name in written:
            output = result.graph.output.add()
            output.CopyFrom(value)
            if value.name not in opaque and value.type.HasField("tensor_type"):
                output.type.tensor_type.ClearField("shape")
    _forget_negative_sizes(result.graph)
    return _inlined(result)


def _inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    if not model.functions:
        return model
    try:
        return onnx.inliner.inline_local_functions(model)
    except (RuntimeError, onnx.checker.ValidationError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"its local functions cannot be inlined ({reason}); export it again") from error


def _forget_negative_sizes(graph: onnx.GraphProto) -> None:
    """Some exporters write -1 where they mean that a size is unknown."""
    for value in (*graph.input, *graph.value_info, *graph.output):
        for dim in value.type.tensor_type.shape.dim if value.type.HasField("tensor_type") else ():
            if dim.dim_value < 0:
                dim.ClearField("dim_value")
    for node in graph.node:
        for body in bodies(node):
            _forget_negative_sizes(body)


def _set_shape(target: onnx.ValueInfoProto, value: onnx.ValueInfoProto, shape: Sequence[int] | None) -> None:
    target.CopyFrom(value)
    if shape is not None and value.type.HasField("tensor_type"):
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
