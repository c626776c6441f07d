"""Places to cut a graph in two, and the tensors that cross there."""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from pepper.config.cutting import CutKind
from pepper.errors import ModelError, nearest
from pepper.graph.ir import Graph, Separator, Tensor
from pepper.graph.separators import flow_neighbours


@dataclass(frozen=True, slots=True)
class Cut:
    """A place to split a graph in two, so that all data flows one way.

    A tensor crosses if it is written before the cut (or is an input that is read before it) and read after
    it. Inputs that are only read after the cut enter late, outputs that are only written before it leave
    early: neither crosses.

    Attributes:
        position: How many operators lie before the cut.
        tensors: Ids of the crossing tensors, ascending.
        bytes: Their size in bytes; None if a shape is unknown.
        in_order: Whether the operators before it are the first ``position`` of ``graph.operators``. A cut
            inside a branch beside the longest chain (one tower of two, an early head) is not; `before`
            says which these are.
    """

    position: int
    tensors: tuple[int, ...]
    bytes: int | None
    in_order: bool = True


def find_cuts(graph: Graph, kind: str = CutKind.tensors, max_tensors: int = 4, bridge_dist: int = 1) -> list[Cut]:
    """Find the cuts of a graph, by position, in linear time (with a distance, each cut in a branch adds as much).

    Args:
        graph: The graph.
        kind: ``tensors``: every cut that exactly one tensor of numbers crosses. ``bridges``: those of them at which
            one edge of the operator graph crosses, its bridge in Tarjan's sense. ``frontiers``: every
            position in the order that at most ``max_tensors`` tensors cross, and the ``tensors`` cuts.
        max_tensors: The limit of ``frontiers``.
        bridge_dist: The least distance of two cuts: how many operators lie before one of them and not before the
            other. From the first cut on, each that is too close to one before it is left out.

    Raises:
        ModelError: There is no such kind.
    """
    if kind not in list(CutKind):
        raise ModelError(f"cuts.kind={kind}: no such kind; use {', '.join(CutKind)}")
    limit = max_tensors if kind == CutKind.frontiers else 1
    cuts = [
        Cut(position, tensors, _bytes(graph, tensors))
        for position, tensors in _frontiers(graph, limit)
        if kind == CutKind.frontiers or len(tensors) == 1
    ]
    separators = {separator.tensor: separator for separator in graph.separators}
    listed = {cut.tensors for cut in cuts}
    cuts += [_branch_cut(graph, s) for t, s in separators.items() if (t,) not in listed]
    if kind == CutKind.bridges:
        cuts = [cut for cut in cuts if any(len(group) == 1 for group in separators[cut.tensors[0]].far)]
    cuts = [cut for cut in cuts if all(graph.tensors[t].can_cross for t in cut.tensors)]
    return _apart(graph, sorted(cuts, key=lambda cut: (cut.position, cut.tensors)), bridge_dist)


def _apart(graph: Graph, cuts: list[Cut], distance: int) -> list[Cut]:
    """Leave out each cut that is closer than ``distance`` operators to one that stays before it."""
    if distance <= 1:
        return cuts
    kept: list[Cut] = []
    sides: dict[Cut, npt.NDArray[np.bool_]] = {}

    def side(cut: Cut) -> npt.NDArray[np.bool_]:
        if cut not in sides:
            sides[cut] = before(graph, cut)
        return sides[cut]

    def close(cut: Cut, other: Cut) -> bool:
        if cut.in_order and other.in_order:
            return cut.position - other.position < distance
        return bool(np.count_nonzero(side(cut) != side(other)) < distance)

    for cut in cuts:
        start = bisect.bisect_right(kept, cut.position - distance, key=lambda other: other.position)
        if not any(close(cut, other) for other in kept[start:]):
            kept.append(cut)
    return kept


def before(graph: Graph, cut: Cut) -> npt.NDArray[np.bool_]:
    """Tell which operators lie before the cut.

    Returns:
        One truth value an operator, shape ``(len(graph.operators),)``.
    """
    if cut.in_order:
        return np.arange(len(graph.operators)) < cut.position
    return _near_side(graph, cut.tensors[0])


def cut_at(graph: Graph, name: str, max_tensors: int = 4) -> Cut:
    """Return the cut at a tensor: where it alone crosses, else the position right behind its producer.

    Raises:
        ModelError: There is no such tensor, or no cut there with at most ``max_tensors`` tensors.
    """
    flowing = {t.name: t for t in graph.tensors if t.producer is not None and t.readers}
    if name not in flowing:
        raise ModelError(
            f"split.at={name}: the model has no such tensor between operators"
            f"{nearest(name, flowing) or '; task=cuts lists the cuts'}"
        )
    tensor = flowing[name]
    for cut in find_cuts(graph):
        if cut.tensors == (tensor.id,):
            return cut
    assert tensor.producer is not None
    cut = cut_behind(graph, tensor.producer + 1)
    if len(cut.tensors) > max_tensors:
        raise ModelError(f"split.at={name}: {why_no_cut(graph, name)}")
    return cut


def cut_behind(graph: Graph, position: int) -> Cut:
    """Return the cut behind the first ``position`` operators, however many tensors cross there.

    Raises:
        ModelError: No operator would lie before or after it.
    """
    count = len(graph.operators)
    if count < 2:
        raise ModelError(f"split.at={position}: the model has {count} operators, too few for two parts; drop split.at")
    if not 0 < position < count:
        raise ModelError(f"split.at={position}: the model has positions 1 to {count - 1}; choose one of them")
    tensors = _crossing(graph, position)
    for tensor in (graph.tensors[t] for t in tensors):
        if not tensor.can_cross:
            raise ModelError(f"split.at={position}: {_no_crossing(tensor)}; cut elsewhere")
    return Cut(position, tensors, _bytes(graph, tensors))


def why_no_cut(graph: Graph, name: str) -> str:
    """Say in one sentence why no single tensor crosses at this tensor: what crosses beside it.

    Raises:
        ModelError: There is no such tensor.
    """
    tensor = graph.tensor(name)
    if tensor.is_weight:
        return f"{name!r} is a weight, which goes to each part that reads it"
    span = _span(graph, tensor.id)
    if tensor.producer is None or span is None:
        border = "an input" if tensor.producer is None else "an output"
        return f"{name!r} is only {border}: nothing lies on its other side"
    if not tensor.can_cross:
        return _no_crossing(tensor)
    if any(cut.tensors == (tensor.id,) for cut in find_cuts(graph)):
        return f"{name!r} is a cut"
    crossing = _crossing(graph, span[0])
    beside = [graph.tensors[t] for t in crossing if t != tensor.id]
    named = ", ".join(f"{t.name!r} (read by {graph.operators[t.readers[-1]].name!r})" for t in beside[:3])
    more = f" and {len(beside) - 3} more" if len(beside) > 3 else ""
    return (
        f"{len(crossing)} tensors cross behind {name!r}, beside it {named}{more};"
        f" allow it with cuts=frontiers cuts.max_tensors={len(crossing)}"
    )


def how_to_cut(graph: Graph, parts: int = 2) -> str:
    """Say what to give to get so many parts: the least number of crossing tensors that allows them, or fewer parts."""
    count = len(graph.operators)
    widths = sorted(len(cut.tensors) for cut in find_cuts(graph, CutKind.frontiers, len(graph.tensors)) if cut.in_order)
    most = min(parts, len(widths) + 1)
    allow = f"cuts=frontiers cuts.max_tensors={max(widths[most - 2], 1)}" if most > 1 else ""
    if most == parts:
        return f"allow more crossing tensors with {allow}"
    fewer = f"give split.parts={most} {allow}".rstrip()
    if count < parts:
        has = "no operators" if not count else "a single operator" if count == 1 else f"{count} operators"
        return f"it has {has}; {fewer}"
    stuck = next(tensor for tensor in graph.tensors if not tensor.can_cross and _span(graph, tensor.id))
    return f"{_no_crossing(stuck)}; {fewer}"


def _crossing(graph: Graph, position: int) -> tuple[int, ...]:
    return tuple(t.id for t in graph.tensors if (s := _span(graph, t.id)) and s[0] <= position <= s[1])


def _no_crossing(tensor: Tensor) -> str:
    return f"{tensor.name!r} is of type {tensor.dtype}, which no part can hand to another"


def _span(graph: Graph, tensor: int) -> tuple[int, int] | None:
    """First and last position in the order that the tensor crosses; None if it crosses none."""
    value = graph.tensors[tensor]
    if value.is_weight or not value.readers:
        return None
    first = (value.readers[0] if value.producer is None else value.producer) + 1
    return (first, value.readers[-1]) if first <= value.readers[-1] else None


def _frontiers(graph: Graph, limit: int) -> list[tuple[int, tuple[int, ...]]]:
    """Positions that at most ``limit`` tensors cross, with these tensors."""
    count = len(graph.operators)
    change = [0] * (count + 2)
    opening: list[list[int]] = [[] for _ in range(count + 2)]
    closing: list[list[int]] = [[] for _ in range(count + 2)]
    for tensor in graph.tensors:
        span = _span(graph, tensor.id)
        if span:
            change[span[0]] += 1
            change[span[1] + 1] -= 1
            opening[span[0]].append(tensor.id)
            closing[span[1] + 1].append(tensor.id)
    width = list(accumulate(change))
    crossing: set[int] = set()
    result = []
    for position in range(1, count):
        crossing.difference_update(closing[position])
        crossing.update(opening[position])
        if width[position] <= limit:
            result.append((position, tuple(sorted(crossing))))
    return result


def _branch_cut(graph: Graph, separator: Separator) -> Cut:
    tensors = (separator.tensor,)
    return Cut(separator.near, tensors, _bytes(graph, tensors), in_order=False)


def _near_side(graph: Graph, tensor: int) -> npt.NDArray[np.bool_]:
    """Operators that stay connected to the tensor's producer without the tensor."""
    count = len(graph.operators)
    neighbours = flow_neighbours(graph)
    start = next(separator.home for separator in graph.separators if separator.tensor == tensor)
    seen = np.zeros(len(neighbours), bool)
    seen[[start, count + tensor]] = True
    pending = [start]
    while pending:
        for other in neighbours[pending.pop()]:
            if not seen[other]:
                seen[other] = True
                pending.append(other)
    return seen[:count]


def _bytes(graph: Graph, tensors: Sequence[int]) -> int | None:
    sizes = [graph.tensors[t].bytes for t in tensors]
    return None if None in sizes else sum(size for size in sizes if size is not None)
