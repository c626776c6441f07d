"""Types of what If and Loop give: those of their bodies, inferred at what these are called with."""

from collections.abc import Callable, Mapping, Sequence
from functools import reduce

import numpy as np
import onnx

from pepper.errors import ModelError
from pepper.graph.folding import Folding, Value, single
from pepper.graph.onnx_types import in_common, stacked
from pepper.graph.topology import captured_names

Types = dict[str, onnx.TypeProto]
Solve = Callable[[onnx.ModelProto], tuple[Types, Folding]]
"""Infers the types of a model, and gives the values behind them; ModelError if its sizes contradict."""

_NUMBER = onnx.helper.make_tensor_type_proto(onnx.TensorProto.INT64, [])


def steered_outputs(
    node: onnx.NodeProto, model: onnx.ModelProto, reads: Types, folding: Folding, solve: Solve
) -> Types:
    """Infer an If or a Loop.

    Args:
        node: The node.
        model: The model that it belongs to.
        reads: Types of what it and its bodies read, by name.
        folding: Values of the model; it learns those of a branch whose condition is known.
        solve: Infers a body as a model of its own.
    """
    if not _is_whole(node):
        return {}
    try:
        return (_if_outputs if node.op_type == "If" else _loop_outputs)(node, model, reads, folding, solve)
    except ModelError:
        return {}


def _is_whole(node: onnx.NodeProto) -> bool:
    """Whether it has its bodies, and they take and give as much as it does."""
    bodies = {attribute.name: attribute.g for attribute in node.attribute if attribute.HasField("g")}
    if node.op_type == "If":
        return bool(node.input) and all(
            len(bodies[name].output) == len(node.output) if name in bodies else False
            for name in ("then_branch", "else_branch")
        )
    body = bodies.get("body")
    carried = len(node.input) - 2
    return (
        body is not None
        and carried >= 0
        and len(body.input) == 2 + carried
        and len(body.output) == 1 + len(node.output)
        and len(node.output) >= carried
    )


def _if_outputs(node: onnx.NodeProto, model: onnx.ModelProto, reads: Types, folding: Folding, solve: Solve) -> Types:
    """What the branch taken gives; if that is not known, what both have in common."""
    condition = single(folding.value(node.input[0]))
    taken = ["then_branch", "else_branch"]
    if condition is not None:
        taken = taken[:1] if condition else taken[1:]
    found = []
    for branch in (attribute.g for attribute in node.attribute if attribute.name in taken):
        inside = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, graph=branch)
        types, values = _solved(inside, node, reads, folding, solve)
        found.append([types.get(value.name) for value in branch.output])
        if condition is not None:
            for name, value in zip(node.output, branch.output, strict=False):
                folding.learn(name, values.value(value.name))
    return _named(node.output, [reduce(in_common, kinds) for kinds in zip(*found, strict=False)])


def _loop_outputs(node: onnx.NodeProto, model: onnx.ModelProto, reads: Types, folding: Folding, solve: Solve) -> Types:
    """What is carried keeps the sizes that the body leaves as they are; of what is collected there is one a trip."""
    body = next(attribute.g for attribute in node.attribute if attribute.name == "body")
    carried = [reads.get(name) for name in node.input[2:]]
    while True:
        inside = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, graph=body)
        _start(inside.graph, carried)
        types, values = _solved(inside, node, reads, folding, solve)
        results = [types.get(value.name) for value in body.output]
        kept = [in_common(kind, result) for kind, result in zip(carried, results[1:], strict=False)]
        if kept == carried:
            break
        carried = kept
    trips = _trips(node, folding, values.value(body.output[0].name))
    collected = [stacked(kind, trips) for kind in results[1 + len(carried) :]]
    return _named(node.output, [*carried, *collected])


def _start(body: onnx.GraphProto, carried: Sequence[onnx.TypeProto | None]) -> None:
    """Give a Loop's body what it starts with, in place of what the file says of sizes."""
    number, condition, *states = [value.name for value in body.input]
    del body.input[:]
    body.input.add(name=number, type=_NUMBER)
    # It runs only while its condition holds.
    body.initializer.append(onnx.numpy_helper.from_array(np.array(True), condition))
    body.input.extend(_value(name, kind) for name, kind in zip(states, carried, strict=True) if kind is not None)
    del body.value_info[:]
    for value in body.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")


def _trips(node: onnx.NodeProto, folding: Folding, goes_on: Value | None) -> int | None:
    """How often a Loop runs, if that follows from constants and its body never ends it."""
    count, condition = (single(folding.value(name)) if name else None for name in node.input[:2])
    if condition is not None and not condition:
        return 0
    endless = (condition is not None or not node.input[1]) and bool(single(goes_on))
    return max(int(count), 0) if endless and count is not None else None


def _solved(
    inside: onnx.ModelProto, node: onnx.NodeProto, reads: Mapping[str, onnx.TypeProto], folding: Folding, solve: Solve
) -> tuple[Types, Folding]:
    """Infer a body with the types and values that it reads from outside."""
    for name in captured_names(node):
        value = folding.value(name)
        if value is not None:
            inside.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
        elif name in reads:
            inside.graph.input.append(_value(name, reads[name]))
    return solve(inside)


def _value(name: str, kind: onnx.TypeProto) -> onnx.ValueInfoProto:
    return onnx.ValueInfoProto(name=name, type=kind)


def _named(names: Sequence[str], kinds: Sequence[onnx.TypeProto | None]) -> Types:
    return {name: kind for name, kind in zip(names, kinds, strict=False) if name and kind is not None}
