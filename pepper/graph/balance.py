"""Which cuts to take for parts of equal work."""

from collections import deque
from collections.abc import Sequence
from itertools import accumulate

from pepper.errors import ModelError
from pepper.graph.cuts import Cut, how_to_cut
from pepper.graph.fusion import FOLLOWERS, PRODUCTS
from pepper.graph.ir import Graph

_LEAST_SHARE = 0.005  # of all work; what is less is said to be 0 %
_LEAST_OF_EQUAL = 0.1  # of an equal share, where there are many parts


def breaks_fusion(graph: Graph, cut: Cut) -> bool:
    """Tell whether the cut separates operators that runtimes fuse into one.

    These are an element-wise operator on one tensor behind anything (Conv + BatchNormalization + Relu,
    the steps of a decomposed Gelu or LayerNormalization), a residual sum behind a convolution or a matrix
    product, a quantised operator and the DequantizeLinear before it, and a product of integers and its Cast.
    """
    for tensor in (graph.tensors[t] for t in cut.tensors):
        producer = None if tensor.producer is None else graph.operators[tensor.producer].kind
        for reader in (graph.operators[r] for r in tensor.readers if r >= cut.position or not cut.in_order):
            if producer == "DequantizeLinear" or (producer == "MatMulInteger" and reader.kind == "Cast"):
                return True
            flowing = [t for t in reader.reads if not graph.tensors[t].is_weight]
            if reader.kind in FOLLOWERS and (len(flowing) == 1 or producer in PRODUCTS):
                return True
    return False


def balanced_cuts(
    graph: Graph, cuts: Sequence[Cut], parts: int, cost: Sequence[float], slack: float = 0.05
) -> list[Cut]:
    """Choose cuts that make ``parts`` parts of nearly equal cost, in time linear in cuts and parts.

    The costliest part comes within ``1 + slack`` of the least possible. Among such choices the one with
    the fewest broken fusions is taken, then the one with the fewest crossing bytes. No part costs nothing, as far as
    there are cuts enough for that; nor next to nothing, if the costliest can stay within its limit then.

    Args:
        graph: The graph.
        cuts: Cuts to choose from; only those that lie in the order take part, one a position.
        parts: How many parts to make, at least 1.
        cost: What each operator costs, such as its MACs; where all are zero, operators count alike.
        slack: How much imbalance a better border may cost.

    Raises:
        ModelError: There are too few cuts.
    """
    if parts < 1:
        raise ModelError(f"split.parts={parts}: must be at least 1")
    by_position = {cut.position: cut for cut in cuts if cut.in_order}
    choices = [by_position[position] for position in sorted(by_position)]
    if len(choices) < parts - 1:
        raise ModelError(
            f"split.parts={parts}: the model has {len(choices)} cuts of this kind, enough for"
            f" {len(choices) + 1} parts; {how_to_cut(graph, parts)}"
        )
    if parts == 1:
        return []
    work = cost if any(cost) else [1.0] * len(graph.operators)
    total = list(accumulate(work, initial=0.0))
    penalties = {cut.position: (int(breaks_fusion(graph, cut)), cut.bytes or 0) for cut in choices}
    best: dict[float, Cut] = {}  # by the work before it: cuts with none between them are alike but for their penalty
    for cut in sorted(choices, key=lambda cut: penalties[cut.position]):
        if 0 < total[cut.position] < total[-1]:
            best.setdefault(total[cut.position], cut)
    if len(best) >= parts - 1:
        choices = [best[end] for end in sorted(best)]
    ends = [total[cut.position] for cut in choices]
    penalty = [penalties[cut.position] for cut in choices]
    limit = _least_bottleneck(ends, total[-1], parts) * (1 + slack)
    least = total[-1] * min(_LEAST_SHARE, _LEAST_OF_EQUAL / parts)
    chosen = _cheapest(ends, total[-1], parts, limit, penalty, least) or _cheapest(
        ends, total[-1], parts, limit, penalty
    )
    return [choices[index] for index in chosen]


def _least_bottleneck(ends: Sequence[float], total: float, parts: int) -> float:
    """Least possible cost of the costliest part, to one part in a million."""
    low, high = total / parts, total
    while high - low > 1e-6 * total:
        middle = (low + high) / 2
        if _parts_needed(ends, total, middle) <= parts:
            high = middle
        else:
            low = middle
    return high


def _parts_needed(ends: Sequence[float], total: float, limit: float) -> float:
    """Fewest parts of at most ``limit`` each."""
    needed, start, previous = 1, 0.0, 0.0
    for end in (*ends, total):
        if end - start > limit:
            needed, start = needed + 1, previous
            if end - start > limit:
                return float("inf")
        previous = end
    return needed


def _cheapest(
    ends: Sequence[float],
    total: float,
    parts: int,
    limit: float,
    penalty: Sequence[tuple[int, int]],
    least: float = 0.0,
) -> list[int]:
    """Indices of ``parts - 1`` cuts with the least summed penalty, every part from ``least`` to ``limit``; none if
    there are no such cuts.

    Dynamic programming over cuts, with a sliding window minimum: the cut before ends[i] must lie within
    ``limit`` of it, and ``least`` before it.
    """
    worst = (len(ends) + 1, 0)
    best: list[tuple[int, int]] = [penalty[i] if least <= end <= limit else worst for i, end in enumerate(ends)]
    came: list[list[int]] = []
    for _ in range(parts - 2):
        window: deque[int] = deque()
        following, source = [], []
        entering = 0
        for i, end in enumerate(ends):
            while entering < i and ends[entering] <= end - least:
                if best[entering] < worst:
                    while window and best[window[-1]] >= best[entering]:
                        window.pop()
                    window.append(entering)
                entering += 1
            while window and end - ends[window[0]] > limit:
                window.popleft()
            source.append(window[0] if window else -1)
            broken, crossing = best[window[0]] if window else worst
            following.append((broken + penalty[i][0], crossing + penalty[i][1]) if window else worst)
        best = following
        came.append(source)
    last = min((i for i, end in enumerate(ends) if least <= total - end <= limit), key=best.__getitem__, default=None)
    if last is None or best[last] >= worst:
        return []
    chosen = [last]
    for source in reversed(came):
        chosen.append(source[chosen[-1]])
    return chosen[::-1]
