"""From an ONNX file to a `Graph`: check, infer, tell weights from operators, drop what is dead, order."""

import contextlib
import gc
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from pepper.errors import ModelError
from pepper.graph import infer, source
from pepper.graph.external import external_files
from pepper.graph.given import check_names, given_shapes
from pepper.graph.ir import Graph, Operator, Tensor, size_bytes
from pepper.graph.order import arrange

_KNOWN_DOMAINS = {
    "",
    "ai.onnx",
    "ai.onnx.ml",
    "ai.onnx.preview",
    "ai.onnx.preview.training",
    "ai.onnx.training",
    "com.microsoft",
    "com.microsoft.experimental",
    "com.microsoft.nchwc",
    "com.ms.internal.nhwc",
}
_RANDOM = {
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
    "Multinomial",
    "Bernoulli",
}
_SHAPE_READERS = {"Shape", "Size"}


def load_graph(
    file: Path | str,
    shapes: Mapping[str, Sequence[int]] | None = None,
    dims: Mapping[str, int] | None = None,
    batch: int | None = None,
    inputs: Mapping[str, Any] | None = None,
) -> Graph:
    """Load a model as a graph. External weights are never read.

    Time and memory grow linearly with the number of operators.

    Args:
        file: The ``.onnx`` file, or a ``pkg://`` address.
        shapes: Whole shapes by tensor name: of inputs, and of inner tensors that no rule can infer.
        dims: Sizes of symbolic dimensions.
        batch: Size of a dynamic first dimension; None means 1.
        inputs: Values by input name, see `pepper.graph.inputs.input_spec`; others are drawn where the model is run.

    Raises:
        ModelError: The file is no valid model, a dynamic dimension has no value, or a value does not fit its input.
    """
    with _no_collection():
        return _load(source.resolve_path(str(file)), shapes or {}, dims or {}, batch, inputs or {})


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Hold the garbage collector back: it would search the growing graph, which holds no cycles, in vain."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _load(
    path: Path,
    shapes: Mapping[str, Sequence[int]],
    dims: Mapping[str, int],
    batch: int | None,
    given: Mapping[str, Any],
) -> Graph:
    proto = source.read_proto(path)
    external_files(proto, path)
    nodes = _sorted_nodes(proto, path)
    _check_domains(proto, path)

    inputs = source.real_inputs(proto.graph)
    written = {name for node, _ in nodes for name in node.output}
    inner = {name: shape for name, shape in shapes.items() if name in written}
    outer = {name: shape for name, shape in shapes.items() if name not in written}
    outer = {**given_shapes(inputs, given), **outer}
    concrete = source.concrete_shapes(inputs, outer, dims, batch)
    check_names(inputs, given)
    try:
        types = infer.infer_types(proto, path, {**concrete, **inner})
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    fixed = all(
        isinstance(dim, int) or spec.name in outer or dim in dims or (axis == 0 and batch is not None)
        for spec in inputs
        for axis, dim in enumerate(spec.shape or ())
    )
    graph = arrange(_build(path, proto, nodes, types, [spec.name for spec in inputs], fixed))
    return replace(graph, given=given)


_Nodes = Sequence[tuple[onnx.NodeProto, list[str]]]
"""Nodes in topological order, each with the names that its bodies read from outside."""


def _build(
    path: Path,
    proto: onnx.ModelProto,
    nodes: _Nodes,
    types: Mapping[str, onnx.TypeProto],
    inputs: Sequence[str],
    fixed: bool,
) -> Graph:
    weights = {tensor.name: infer.weight_type(tensor) for tensor in proto.graph.initializer}
    for sparse in proto.graph.sparse_initializer:
        weights[sparse.values.name] = (infer.weight_type(sparse.values)[0], tuple(sparse.dims))
    random = _random_functions(proto)
    makers: dict[str, onnx.NodeProto] = {}
    standing: list[tuple[onnx.NodeProto, list[str]]] = []
    constants = set(weights)
    values: dict[str, npt.NDArray[Any]] = {}
    for node, captures in nodes:
        if all(name in constants for name in (*node.input, *captures) if name) and not _is_random(node, random):
            constants.update(node.output)
            makers.update((name, node) for name in node.output)
        elif fixed and (value := shape_value(node, types)) is not None:
            constants.add(node.output[0])
            makers[node.output[0]] = node
            values[node.output[0]] = value
        else:
            standing.append((node, captures))
    outputs = [value.name for value in proto.graph.output]
    return _index(path, proto, _live(standing, outputs), types, weights, makers, values, inputs, outputs, fixed)


def _index(
    path: Path,
    proto: onnx.ModelProto,
    nodes: _Nodes,
    types: Mapping[str, onnx.TypeProto],
    initializers: Mapping[str, infer.TensorType],
    makers: Mapping[str, onnx.NodeProto],
    constants: Mapping[str, npt.NDArray[Any]],
    inputs: Sequence[str],
    outputs: Sequence[str],
    fixed: bool,
) -> Graph:
    """Number tensors and operators."""
    ids: dict[str, int] = {name: number for number, name in enumerate(inputs)}
    producers: dict[str, int] = {}
    readers: defaultdict[int | None, list[int]] = defaultdict(list)

    def numbered(names: Iterable[str]) -> tuple[int | None, ...]:
        return tuple([ids.setdefault(name, len(ids)) if name else None for name in names])

    operators = []
    for index, (node, captures) in enumerate(nodes):
        reads, captured, writes = numbered(node.input), numbered(captures), numbered(node.output)
        for number in {*reads, *captured}:
            readers[number].append(index)
        producers.update((name, index) for name in node.output)
        kind, domain = node.op_type, "" if node.domain == "ai.onnx" else node.domain
        called = node.name or f"{kind}_{index}"
        held = tuple([number for number in captured if number is not None])
        operators.append(Operator(index, called, kind, domain, node, reads, held, writes))
    output_ids = tuple(ids.setdefault(name, len(ids)) for name in outputs)
    tensors = []
    for name, number in ids.items():
        is_weight = name in initializers or name in makers
        dtype, shape = initializers.get(name) or infer.tensor_type(types.get(name))
        size = size_bytes(dtype, shape)
        tensors.append(Tensor(number, name, dtype, shape, size, is_weight, producers.get(name), tuple(readers[number])))
    return Graph(
        file=path,
        proto=proto,
        operators=tuple(operators),
        tensors=tuple(tensors),
        inputs=tuple(range(len(inputs))),
        outputs=output_ids,
        makers=makers,
        constants=constants,
        types=types,
        fixed=fixed,
    )


def _live(nodes: _Nodes, outputs: Iterable[str]) -> list[tuple[onnx.NodeProto, list[str]]]:
    """Drop the nodes whose results reach no output."""
    wanted = set(outputs)
    live = []
    for node, captures in reversed(nodes):
        if not wanted.isdisjoint(node.output):
            wanted.update(node.input)
            wanted.update(captures)
            wanted.discard("")
            live.append((node, captures))
    return live[::-1]


def shape_value(node: onnx.NodeProto, types: Mapping[str, onnx.TypeProto]) -> npt.NDArray[np.int64] | None:
    """Return what a Shape or Size gives if its input's shape is known; None for every other node."""
    if node.op_type not in _SHAPE_READERS or node.domain not in ("", "ai.onnx"):
        return None
    _, shape = infer.tensor_type(types.get(node.input[0]))
    if shape is None:
        return None
    if node.op_type == "Size":
        return np.array(math.prod(shape), np.int64)
    bounds = {a.name: a.i for a in node.attribute}
    return np.array(shape[slice(bounds.get("start", 0), bounds.get("end"))], np.int64)


def _random_functions(proto: onnx.ModelProto) -> set[tuple[str, str]]:
    """Local functions that draw random numbers, themselves or through others."""
    random: set[tuple[str, str]] = set()
    while True:
        found = {
            (function.domain, function.name)
            for function in proto.functions
            if any(_is_random(node, random) for node in function.node)
        }
        if found == random:
            return random
        random = found


def _is_random(node: onnx.NodeProto, functions: set[tuple[str, str]]) -> bool:
    return (
        node.op_type in _RANDOM
        or (node.domain, node.op_type) in functions
        or any(_is_random(inner, functions) for graph in bodies(node) for inner in graph.node)
    )


def bodies(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """Graphs that the node runs: the branches of If, the body of Loop and Scan."""
    return [
        graph
        for attribute in node.attribute
        if attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
        for graph in ([attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else attribute.graphs)
    ]


def captured_names(node: onnx.NodeProto) -> list[str]:
    """Names that the node's bodies, nested ones too, read from outside it, in order."""
    names: dict[str, None] = {}
    for graph in bodies(node):
        local = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
        local |= {sparse.values.name for sparse in graph.sparse_initializer}
        for inner in graph.node:
            for name in (*inner.input, *captured_names(inner)):
                if name and name not in local:
                    names[name] = None
            local.update(inner.output)
        names.update((value.name, None) for value in graph.output if value.name not in local)
    return list(names)


def _sorted_nodes(proto: onnx.ModelProto, path: Path) -> _Nodes:
    """Return the nodes in topological order, the file's own where it is one.

    Raises:
        ModelError: A tensor is written twice or never, or the operators form a cycle.
    """
    graph = proto.graph
    ready = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    ready |= {sparse.values.name for sparse in graph.sparse_initializer}
    ready.add("")
    nodes = [(node, captured_names(node)) for node in graph.node]
    written: set[str] = set()
    for node, _ in nodes:
        for name in node.output:
            if name in written or (name in ready and name):
                raise ModelError(f"{path}: tensor {name!r} is written twice; export the model again")
            if name:
                written.add(name)
    for node, captures in nodes:
        for name in (*node.input, *captures):
            if name not in ready and name not in written:
                raise ModelError(
                    f"{path}: {_called(node)} reads {name!r}, which nothing writes; export the model again"
                )
    for value in graph.output:
        if value.name not in ready and value.name not in written:
            raise ModelError(f"{path}: nothing writes the output {value.name!r}; export the model again")

    result: list[tuple[onnx.NodeProto, list[str]]] = []
    waiting: dict[str, list[int]] = {}
    missing = [0] * len(nodes)
    for index, (node, captures) in enumerate(nodes):
        needs = {name for name in (*node.input, *captures) if name not in ready}
        missing[index] = len(needs)
        for name in needs:
            waiting.setdefault(name, []).append(index)
        if needs:
            continue
        pending = [index]
        while pending:
            number = pending.pop()
            result.append(nodes[number])
            for name in nodes[number][0].output:
                ready.add(name)
                for reader in waiting.pop(name, ()):
                    missing[reader] -= 1
                    if not missing[reader]:
                        pending.append(reader)
    if len(result) < len(nodes):
        stuck = next(node for index, (node, _) in enumerate(nodes) if missing[index])
        raise ModelError(f"{path}: the operators form a cycle at or before {_called(stuck)}; export it again")
    return result


def _check_domains(proto: onnx.ModelProto, path: Path) -> None:
    functions = {(function.domain, function.name) for function in proto.functions}
    pending: list[Iterable[onnx.NodeProto]] = [proto.graph.node, *(f.node for f in proto.functions)]
    while pending:
        for node in pending.pop():
            if node.domain not in _KNOWN_DOMAINS and (node.domain, node.op_type) not in functions:
                raise ModelError(
                    f"{path}: {_called(node)} belongs to the unknown domain {node.domain!r};"
                    " export the model with standard operators, or with the operator as a local function"
                )
            pending.extend(body.node for body in bodies(node))


def _called(node: onnx.NodeProto) -> str:
    return f"operator {node.name!r} ({node.op_type})" if node.name else f"an unnamed {node.op_type}"
