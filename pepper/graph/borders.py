"""Where the parts of a plan may begin and end, with what crosses there."""

from collections.abc import Sequence
from dataclasses import dataclass

from pepper.config.cutting import CutKind
from pepper.errors import ModelError, argument, key_of
from pepper.graph.balance import balanced_cuts, breaks_fusion
from pepper.graph.cuts import Cut, find_cuts
from pepper.graph.ir import Graph, check_operators


@dataclass(frozen=True)
class Borders:
    """The model's two ends and the cuts between them, in order.

    Attributes:
        positions: Operators before each border, from 0 to all of them.
        tensors: Names of the tensors that cross each: the model's inputs first, its outputs last.
        bytes: What they take.
        left_out: How many cuts were found and not taken.
    """

    positions: tuple[int, ...]
    tensors: tuple[tuple[str, ...], ...]
    bytes: tuple[int, ...]
    left_out: int


def find_borders(
    graph: Graph, kind: str, max_tensors: int, most: int, cost: Sequence[float], bridge_dist: int = 1
) -> Borders:
    """Find the cuts of a kind that lie in the order.

    Args:
        graph: The graph.
        kind: Kind of cut, as for `find_cuts`.
        max_tensors: Most tensors that cross a frontier.
        most: Most cuts; of more, those that make parts of equal cost are taken.
        cost: What each operator costs, such as its MACs.
        bridge_dist: Least distance of two cuts, as for `find_cuts`.

    Raises:
        ModelError: The model has no operators, or the size of an input or output is unknown.
    """
    check_operators(graph)
    return _borders(graph, find_cuts(graph, kind, max_tensors, bridge_dist), most, cost)


def find_regions(graph: Graph, most: int, cost: Sequence[float]) -> Borders:
    """Find the borders between regions that runtimes fuse, however many tensors cross there.

    Args:
        graph: The graph.
        most: Most cuts, as of `find_borders`.
        cost: What each operator costs, such as its MACs.

    Raises:
        ModelError: As of `find_borders`.
    """
    check_operators(graph)
    every = find_cuts(graph, CutKind.frontiers, len(graph.tensors))
    return _borders(graph, [cut for cut in every if not breaks_fusion(graph, cut)], most, cost)


def _borders(graph: Graph, choices: Sequence[Cut], most: int, cost: Sequence[float]) -> Borders:
    known = {cut.position: cut for cut in choices if cut.in_order and cut.bytes is not None}
    cuts = [known[position] for position in sorted(known)]
    found = len(cuts)
    if found > most:
        cuts = balanced_cuts(graph, cuts, most + 1, cost)
    crossing = [tuple(graph.inputs), *(cut.tensors for cut in cuts), tuple(graph.outputs)]
    for tensor in (graph.tensors[t] for t in (*graph.inputs, *graph.outputs)):
        if not tensor.can_cross:
            raise ModelError(
                f"{graph.file}: {tensor.name!r} is of type {tensor.dtype}, which no device can hand to another; place"
                " models whose inputs and outputs are tensors of numbers"
            )
        if tensor.bytes is None:
            raise ModelError(
                f"{graph.file}: the size of {tensor.name!r} is unknown;"
                f" give {argument(key_of('model.shapes', tensor.name), '[...]')}"
            )
    return Borders(
        positions=(0, *(cut.position for cut in cuts), len(graph.operators)),
        tensors=tuple(tuple(graph.tensors[t].name for t in ids) for ids in crossing),
        bytes=tuple(sum(graph.tensors[t].bytes or 0 for t in ids) for ids in crossing),
        left_out=found - len(cuts),
    )
