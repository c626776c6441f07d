"""From an ONNX file to a `Graph`: check, infer, tell weights from operators, drop what is dead, order."""

import contextlib
import gc
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from pepper.errors import ModelError
from pepper.graph import infer, source
from pepper.graph.external import external_files
from pepper.graph.folding import is_random, random_functions, shape_value
from pepper.graph.given import check_names, given_shapes
from pepper.graph.ir import Graph, Operator, Tensor, size_bytes
from pepper.graph.observed import observe
from pepper.graph.onnx_types import TensorType, is_known, tensor_type, weight_type
from pepper.graph.order import arrange
from pepper.graph.sizes import batch_is_assumed, concrete_shapes
from pepper.graph.topology import Nodes, bodies, called, sorted_nodes

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
    with collection_held():
        return _load(source.resolve_path(str(file)), shapes or {}, dims or {}, batch, inputs or {})


@contextlib.contextmanager
def collection_held() -> Iterator[None]:
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
    nodes = _in_order(proto, path)
    _check_domains(proto, path)

    inputs = source.real_inputs(proto.graph)
    written = {name for node, _ in nodes for name in node.output}
    inner = {name: shape for name, shape in shapes.items() if name in written}
    outer = {name: shape for name, shape in shapes.items() if name not in written}
    outer = {**given_shapes(inputs, given), **outer}
    concrete = concrete_shapes(inputs, outer, dims, batch)
    check_names(inputs, given)
    try:
        inferred = infer.analyse(proto, path, {**concrete, **inner})
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    fixed = not batch_is_assumed(inputs, outer, dims, batch)
    names = [spec.name for spec in inputs]
    graph = _build(path, proto, nodes, inferred, names, fixed)
    if unknown := graph.unknown_shapes():
        observed = observe(proto, path, concrete, given, [tensor.name for tensor in unknown])
        stated = _stated(proto, concrete)
        left = {tensor.name for tensor in unknown if not is_known(observed.types.get(tensor.name))}
        said = {name: stated[name] for name in left & stated.keys()}
        types = {**inferred.types, **observed.types, **said}
        inferred = replace(inferred, types=types, by_run=observed.by_run | said.keys())
        graph = _build(path, proto, nodes, inferred, names, fixed)
    return replace(arrange(graph), given=given)


def _stated(proto: onnx.ModelProto, concrete: Mapping[str, Sequence[int]]) -> dict[str, onnx.TypeProto]:
    """What the file says of its tensors, if it fixes the shapes of its inputs and these are the ones at hand."""
    fixed = {value.name: tensor_type(value.type)[1] for value in proto.graph.input}
    if any(fixed[name] != tuple(shape) for name, shape in concrete.items()):
        return {}
    said = {value.name: value.type for value in (*proto.graph.value_info, *proto.graph.output)}
    return {
        name: kind for name, kind in said.items() if is_known(kind) and min(tensor_type(kind)[1] or (), default=0) >= 0
    }


def _in_order(proto: onnx.ModelProto, path: Path) -> Nodes:
    """Sort the nodes of the main graph, in the model too, where the file does not."""
    try:
        nodes = sorted_nodes(proto.graph)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    if all(node is own for (node, _), own in zip(nodes, proto.graph.node, strict=True)):
        return nodes
    ordered = [node for node, _ in nodes]
    del proto.graph.node[:]
    proto.graph.node.extend(ordered)
    return [(node, captures) for node, (_, captures) in zip(proto.graph.node, nodes, strict=True)]


def _build(
    path: Path,
    proto: onnx.ModelProto,
    nodes: Nodes,
    inferred: infer.Inferred,
    inputs: Sequence[str],
    fixed: bool,
) -> Graph:
    types = inferred.types
    weights = {tensor.name: weight_type(tensor) for tensor in proto.graph.initializer}
    for sparse in proto.graph.sparse_initializer:
        weights[sparse.values.name] = (weight_type(sparse.values)[0], tuple(sparse.dims))
    random = random_functions(proto)
    makers: dict[str, onnx.NodeProto] = {}
    standing: list[tuple[onnx.NodeProto, list[str]]] = []
    constants = set(weights)
    values = dict(inferred.constants)
    for node, captures in nodes:
        if all(name in constants for name in (*node.input, *captures) if name) and not is_random(node, random):
            constants.update(node.output)
            makers.update((name, node) for name in node.output)
        elif fixed and inferred.by_run.isdisjoint(node.input) and (value := shape_value(node, types)) is not None:
            constants.add(node.output[0])
            makers[node.output[0]] = node
            values[node.output[0]] = value
        else:
            standing.append((node, captures))
    outputs = [value.name for value in proto.graph.output]
    known = replace(inferred, constants=values)
    return _index(path, proto, _live(standing, outputs), known, weights, makers, inputs, outputs, fixed)


def _index(
    path: Path,
    proto: onnx.ModelProto,
    nodes: Nodes,
    inferred: infer.Inferred,
    initializers: Mapping[str, TensorType],
    makers: Mapping[str, onnx.NodeProto],
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
        dtype, shape = initializers.get(name) or tensor_type(inferred.types.get(name))
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
        constants=inferred.constants,
        types=inferred.types,
        by_run=inferred.by_run,
        fixed=fixed,
    )


def _live(nodes: Nodes, outputs: Iterable[str]) -> list[tuple[onnx.NodeProto, list[str]]]:
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


def _check_domains(proto: onnx.ModelProto, path: Path) -> None:
    functions = {(function.domain, function.name) for function in proto.functions}
    pending: list[Iterable[onnx.NodeProto]] = [proto.graph.node, *(f.node for f in proto.functions)]
    while pending:
        for node in pending.pop():
            if node.domain not in _KNOWN_DOMAINS and (node.domain, node.op_type) not in functions:
                raise ModelError(
                    f"{path}: {called(node)} belongs to the unknown domain {node.domain!r};"
                    " export the model with standard operators, or with the operator as a local function"
                )
            pending.extend(body.node for body in bodies(node))
