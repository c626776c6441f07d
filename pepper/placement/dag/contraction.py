"""Contracting the DAG problem: what must or may as well stay together becomes one block."""

import numpy as np
from numpy.typing import NDArray

from pepper.placement.dag.ideals import Blocks
from pepper.placement.dag.problem import DagProblem, condense
from pepper.placement.problem import Floats


def contract(problem: DagProblem, block: NDArray[np.int64]) -> Blocks:
    """Sum the items of each block and keep the nets between blocks."""
    n = int(block.max()) + 1
    before: list[set[int]] = [set() for _ in range(n)]
    for a, b in problem.precedence:
        if block[a] != block[b]:
            before[block[b]].add(int(block[a]))
    net_ms: dict[frozenset[int], float] = {}
    for output in problem.outputs:
        net = frozenset(int(block[i]) for i in (output.writer, *output.readers))
        if len(net) > 1 and output.cost_ms > 0:
            net_ms[net] = net_ms.get(net, 0.0) + output.cost_ms
    block_ms = np.zeros((len(problem.kinds), n))
    unable = np.zeros((len(problem.kinds), n), dtype=bool)
    for k, kind in enumerate(problem.kinds):
        np.logical_or.at(unable[k], block, np.isinf(kind.item_ms))
        np.add.at(block_ms[k], block, np.where(np.isinf(kind.item_ms), 0.0, kind.item_ms))
    block_ms[unable] = 0.0
    size = np.zeros(n)
    np.add.at(size, block, problem.item_bytes)
    return Blocks(
        tuple(tuple(sorted(b)) for b in before),
        block_ms,
        unable,
        size,
        tuple(net_ms),
        np.array(list(net_ms.values())),
    )


def knapsack(value: Floats, weight: Floats, capacity: float) -> float:
    """Return the most value of a fractional choice within the capacity (Dantzig's bound)."""
    free = weight == 0
    total = float(value[free].sum())
    value, weight = value[~free], weight[~free]
    order = np.argsort(-value / weight)
    filled = np.cumsum(weight[order])
    whole = int(np.searchsorted(filled, capacity, side="right"))
    total += float(value[order[:whole]].sum())
    if whole < len(order):
        room = capacity - (float(filled[whole - 1]) if whole else 0.0)
        total += room * float(value[order[whole]] / weight[order[whole]])
    return total


def together(problem: DagProblem, block: NDArray[np.int64], target_ms: float) -> NDArray[np.int64]:
    """Merge blocks that some placement under `target_ms` keeps together, if there is one at all.

    A block that takes no time can join its companion, unless memory could run short. An output
    that costs the target or more must not leave its device; with at most one host device none is free of it.
    """
    hosts = sum(kind.count for kind in problem.kinds if kind.host)
    while True:
        blocks = contract(problem, block)
        neighbours: list[set[int]] = [set() for _ in range(blocks.n)]
        for net in blocks.nets:
            for member in net:
                neighbours[member] |= net - {member}
        for after, needs in enumerate(blocks.before):
            for before in needs:
                neighbours[after].add(before)
                neighbours[before].add(after)
        roomy = all(
            knapsack(blocks.size[~unable], block_ms[~unable], target_ms) <= kind.memory_bytes
            for kind, unable, block_ms in zip(problem.kinds, blocks.unable, blocks.block_ms, strict=True)
        )
        link = [
            (member, joined)
            for member, near in enumerate(neighbours)
            if not blocks.block_ms[:, member].any() and (roomy or blocks.size[member] == 0)
            if (joined := _companion(blocks, member, near)) is not None
            and not (blocks.unable[:, member] & ~blocks.unable[:, joined]).any()
        ]
        if hosts <= 1:
            for net, cost_ms in zip(blocks.nets, blocks.net_ms, strict=True):
                if cost_ms >= target_ms:
                    first, *rest = net
                    link += [(first, other) for other in rest]
        if not link:
            return block
        # Joined blocks precede one another in a circle, and so become one.
        circles = [(a, b) for pair in link for a, b in (pair, pair[::-1])]
        edges = [(b, a) for a, needs in enumerate(blocks.before) for b in needs]
        block = condense(np.arange(blocks.n), [*edges, *circles])[block]


def _companion(blocks: Blocks, member: int, neighbours: set[int]) -> int | None:
    """Return the block beside which another, of no time, costs nothing; None if there is no such block.

    That is its only neighbour; or, where nothing comes after it, what alone comes before it, if that has to do with all
    outputs that the member has to do with: these touch one device fewer then, and no order is broken.
    """
    if len(neighbours) == 1:
        return next(iter(neighbours))
    if blocks.after[member] or len(blocks.before[member]) != 1:
        return None
    (writer,) = blocks.before[member]
    return writer if all(writer in net for net in blocks.nets if member in net) else None
