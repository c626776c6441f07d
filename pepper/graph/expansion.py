"""How many operators a model has once its local functions are expanded, and in bodies: known before anything is."""

from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import NamedTuple

import onnx

from pepper.errors import ModelError
from pepper.graph.topology import bodies

MOST_OPERATORS = 100_000
"""More are refused: functions that call functions can double at each level, in a file of a few kilobytes."""

MOST_INNER = 50_000
"""In bodies of If, Loop and Scan, each counted at every level that it is in: a body is inferred with all bodies in it,
and they can double at each level, too."""

_Key = tuple[str, str]


class _Size(NamedTuple):
    operators: int
    inner: int


_ONE = _Size(1, 0)


def check_expansion(proto: onnx.ModelProto) -> None:
    """Make sure that local functions end, and expand to at most `MOST_OPERATORS` operators, `MOST_INNER` in bodies.

    Raises:
        ModelError: They do not.
    """
    functions = {(function.domain, function.name): function for function in proto.functions}
    calls = {key: set(kinds_of(function.node)) & functions.keys() for key, function in functions.items()}
    try:
        order = list(TopologicalSorter(calls).static_order())
    except CycleError as error:
        raise ModelError(
            f"local function {error.args[1][0][1]!r} calls itself, directly or through others; export the model again"
        ) from error
    sizes: dict[_Key, _Size] = {}
    for key in order:
        sizes[key] = _expanded(functions[key].node, sizes)
    total = _expanded(proto.graph.node, sizes)
    if total.inner > MOST_INNER:
        raise ModelError(
            f"its If, Loop and Scan hold {_count(total.inner)} operators, each counted at every level that it is in,"
            f" more than the {MOST_INNER:,} that pepper reads; export it with fewer branches and loops in one another"
        )
    if functions and total.operators > MOST_OPERATORS:
        raise ModelError(
            f"its local functions expand to {_count(total.operators)} operators, more than the {MOST_OPERATORS:,} that"
            " pepper reads; export it with fewer functions inside functions"
        )


def _count(number: int) -> str:
    return f"{number:,}" if number < 10**15 else "over 10^15"


def _expanded(nodes: Iterable[onnx.NodeProto], sizes: Mapping[_Key, _Size]) -> _Size:
    operators = inner = 0
    for node in nodes:
        called = sizes.get((node.domain, node.op_type), _ONE)
        within = [_expanded(body.node, sizes) for body in bodies(node)]
        operators += called.operators + sum(size.operators for size in within)
        inner += called.inner + sum(size.operators + size.inner for size in within)
    return _Size(operators, inner)


def kinds_of(nodes: Iterable[onnx.NodeProto]) -> Iterator[_Key]:
    """Domain and kind of each operator, those in bodies too."""
    for node in nodes:
        yield node.domain, node.op_type
        for body in bodies(node):
            yield from kinds_of(body.node)
