"""Types and shapes of every tensor at given input shapes, without touching large weights."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import onnx
from onnx import shape_inference

from pepper.errors import ModelError, key_of
from pepper.graph import contrib
from pepper.graph.expansion import kinds_of
from pepper.graph.folding import Folding, Value
from pepper.graph.onnx_types import has_rank, is_known, tensor_type
from pepper.graph.skeleton import skeleton
from pepper.graph.steered import Types, steered_outputs
from pepper.graph.topology import captured_names

_STEERED = {"If", "Loop"}  # their first input says what runs, or how often


@dataclass(frozen=True)
class Inferred:
    """What is known of a model's main graph at some input shapes.

    Attributes:
        types: ONNX types by tensor name.
        constants: Values by tensor name that inference had to compute; see `pepper.graph.folding`.
        by_run: Names of tensors whose shape only a run of the model showed, see `pepper.graph.observed`, or the file
            says.
    """

    types: Types
    constants: Mapping[str, Value]
    by_run: frozenset[str] = frozenset()


def infer_types(proto: onnx.ModelProto, file: Path, shapes: Mapping[str, Sequence[int]] | None) -> Types:
    """Return the types of `analyse` alone."""
    return analyse(proto, file, shapes).types


def analyse(proto: onnx.ModelProto, file: Path, shapes: Mapping[str, Sequence[int]] | None) -> Inferred:
    """Infer the type of every tensor of the main graph that ONNX's rules (and pepper's for
    com.microsoft) reach, through values that can be computed from constants and shapes.

    ONNX infers the whole in one go. Nodes of which it leaves something open are inferred again one by one, in
    the order of the file, with the values that their inputs have: time grows linearly with their number.

    Args:
        proto: The model; large weights are neither read nor copied.
        file: The model's file, beside which small external integer weights are read.
        shapes: Shapes by tensor name, put in place of those in the file: inputs, and tensors written by
            operators that no rule covers. None keeps the file's own, dynamic dimensions included.

    Raises:
        ModelError: The shapes contradict the model.
    """
    model = skeleton(proto, file, shapes)
    inputs = {value.name for value in proto.graph.input}
    inner = {name: shape for name, shape in (shapes or {}).items() if name not in inputs}
    try:
        with contrib.registered() if _needs_rules(model) else contextlib.nullcontext():
            types, folding = _solved(model, inner)
    except ModelError as error:
        raise ModelError(f"shapes cannot be inferred at {_listed(shapes)}: {error}") from error
    return Inferred(types, folding.values)


def _needs_rules(model: onnx.ModelProto) -> bool:
    """Whether an operator, also one in a body, is of the domain of pepper's rules: to register them takes time."""
    return any(domain == contrib.DOMAIN for domain, _ in kinds_of(model.graph.node))


def _solved(model: onnx.ModelProto, given: Mapping[str, Sequence[int]]) -> tuple[Types, Folding]:
    try:
        # Without data propagation: it allocates a dimension for each element of every vector, however long.
        inferred = shape_inference.infer_shapes(model).graph
    except Exception as error:  # onnx raises InferenceError, RuntimeError and ValidationError alike
        raise ModelError(" ".join(str(error).split())[:300]) from error
    types = {
        value.name: value.type for group in (inferred.input, inferred.value_info, inferred.output) for value in group
    }
    for tensor in model.graph.initializer:
        types[tensor.name] = onnx.helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
    folding = Folding(model.graph.node, model.graph.initializer, types, model.opset_import)
    for node in model.graph.node:
        steered = node.op_type in _STEERED and node.input and folding.value(node.input[0]) is not None
        chosen = steered and node.op_type == "If"  # then values come out of it, too
        if chosen or not all(is_known(types.get(name)) for name in node.output if name):
            for name, kind in _inferred_again(node, model, types, folding).items():
                if is_known(kind) or not has_rank(types.get(name)):
                    types[name] = kind
        for name in given.keys() & set(node.output):
            types[name] = _as_given(name, given[name], types.get(name))
    return types, folding


def _inferred_again(node: onnx.NodeProto, model: onnx.ModelProto, types: Types, folding: Folding) -> Types:
    """Infer one node from what is known by now."""
    domain = "" if node.domain == "ai.onnx" else node.domain
    reads = {name: types[name] for name in (*node.input, *captured_names(node)) if name in types}
    if node.op_type in _STEERED and not domain:
        return steered_outputs(node, model, reads, folding, lambda inside: _solved(inside, {}))
    values = {name: value for name in node.input if name and (value := folding.value(name)) is not None}
    version = next((opset.version for opset in model.opset_import if opset.domain in (domain, node.domain)), 1)
    try:
        schema = _schema(node.op_type, version, domain)
        data = {name: onnx.numpy_helper.from_array(value, name) for name, value in values.items()}
        return shape_inference.infer_node_outputs(schema, node, reads, data, opset_imports=list(model.opset_import))
    except Exception:  # no such operator, an input of no known type, or sizes that contradict: it stays unknown
        return {}


@lru_cache(maxsize=1024)
def _schema(kind: str, version: int, domain: str) -> onnx.defs.OpSchema:
    return onnx.defs.get_schema(kind, version, domain)


def _as_given(name: str, shape: Sequence[int], inferred: onnx.TypeProto | None) -> onnx.TypeProto:
    """The type of an inner tensor whose shape the caller gives.

    Raises:
        ModelError: Inference knows another shape.
    """
    dtype, known = tensor_type(inferred)
    if known is not None and known != tuple(shape):
        raise ModelError(f"{name!r} is computed as {list(known)}; drop {key_of('model.shapes', name)}")
    number = onnx.TensorProto.FLOAT if dtype is None else inferred.tensor_type.elem_type if inferred else 0
    return onnx.helper.make_tensor_type_proto(number, shape)


def _listed(shapes: Mapping[str, Sequence[int]] | None) -> str:
    return ", ".join(f"{name}={list(shape)}" for name, shape in (shapes or {}).items()) or "the file's shapes"
