"""How many operators a model has once its local functions are expanded: known before anything is."""

from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter

import onnx

from pepper.errors import ModelError
from pepper.graph.topology import bodies

MOST_OPERATORS = 100_000
"""More are refused: functions that call functions can double at each level, in a file of a few kilobytes."""

_Key = tuple[str, str]


def check_expansion(proto: onnx.ModelProto) -> None:
    """Make sure that local functions end, and expand to at most `MOST_OPERATORS` operators.

    Raises:
        ModelError: They do not.
    """
    functions = {(function.domain, function.name): function for function in proto.functions}
    if not functions:
        return
    calls = {key: set(_kinds(function.node)) & functions.keys() for key, function in functions.items()}
    try:
        order = list(TopologicalSorter(calls).static_order())
    except CycleError as error:
        raise ModelError(
            f"local function {error.args[1][0][1]!r} calls itself, directly or through others; export the model again"
        ) from error
    sizes: dict[_Key, int] = {}
    for key in order:
        sizes[key] = _expanded(functions[key].node, sizes)
    total = _expanded(proto.graph.node, sizes)
    if total > MOST_OPERATORS:
        count = f"{total:,}" if total < 10**15 else "over 10^15"
        raise ModelError(
            f"its local functions expand to {count} operators, more than the {MOST_OPERATORS:,} that pepper reads;"
            " export it with fewer functions inside functions"
        )


def _expanded(nodes: Iterable[onnx.NodeProto], sizes: Mapping[_Key, int]) -> int:
    return sum(sizes.get(kind, 1) for kind in _kinds(nodes))


def _kinds(nodes: Iterable[onnx.NodeProto]) -> Iterator[_Key]:
    """Domain and kind of each operator, those in bodies too."""
    for node in nodes:
        yield node.domain, node.op_type
        for body in bodies(node):
            yield from _kinds(body.node)
