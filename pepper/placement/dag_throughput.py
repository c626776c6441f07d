"""Exact throughput of the DAG problem, by dynamic programming over chains of ideals with bounds.

The state is what has been given out (an ideal) to how many devices of each kind. Three things keep it small:

1. Blocks that some best placement keeps together are contracted first.
2. A target T below the best known bottleneck bounds what any device can take of the work on *any* kind (a
   fractional knapsack), so that after some devices only ideals in a narrow band of work remain.
3. Chains through a few topological orders give a good T at once, and rising targets from the lower bound find the
   optimum in a pass that is no wider than it must be. A pass that finds nothing proves T as a bound.
"""

import itertools
import math
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pepper.errors import PlacementError
from pepper.placement.dag import DagProblem, Kind, Place, condense, evaluate_dag
from pepper.placement.evaluate import TOLERANCE
from pepper.placement.ideals import Bits, Blocks, Ideals, all_ideals, members, orders, prefixes, sums
from pepper.placement.problem import Floats

MOST_IDEALS = 3_000_000
"""Ideals that a pass may hold (each takes n / 8 bytes)."""

PAIRS = 1 << 21
"""Pairs of ideals costed in one array operation."""

TARGETS = (0.02, 0.1, 0.3, 1.0)
"""Where between the bound and the best known value the passes set their targets."""

Share = tuple[int, frozenset[int]]
"""The index of a kind, and the blocks that one of its devices gets."""


class OutOfTimeError(Exception):
    """The deadline passed within a pass."""


@dataclass(frozen=True)
class DagSolution:
    """An answer and how far from optimal it can be.

    Attributes:
        places: The place of each item.
        value: What was minimised, in ms.
        bound: No placement is below this.
        gap: Relative distance from the bound to the value; 0 when proven.
    """

    places: tuple[Place, ...]
    value: float
    bound: float

    @property
    def gap(self) -> float:
        """Relative distance from the bound to the value; 0 when proven."""
        distance = self.value - self.bound
        return 0.0 if distance <= 1e-7 * self.value else distance / self.value

    @property
    def proven(self) -> bool:
        """Whether no placement is better."""
        return self.gap == 0.0


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


def capacities(blocks: Blocks, target_ms: float) -> Floats:
    """Return (K, K): the most work, in times of kind i, that a device of kind j takes within `target_ms`."""
    n_kinds = len(blocks.block_ms)
    most = np.zeros((n_kinds, n_kinds))
    for measure, kind in itertools.product(range(n_kinds), repeat=2):
        able = ~blocks.unable[kind]
        most[measure, kind] = knapsack(
            blocks.block_ms[measure, able], blocks.block_ms[kind, able], target_ms
        )
    return most


def lower_bound(blocks: Blocks, counts: list[int]) -> float:
    """Return the least target at which the devices' capacities cover the work, in times of every kind."""
    total = blocks.block_ms.sum(axis=1)
    fastest = np.where(blocks.unable, math.inf, blocks.block_ms)[[c > 0 for c in counts]].min(axis=0)
    low = float(fastest.max())
    high = max(low, float(np.where(np.isinf(fastest), 0.0, fastest).sum()))
    if math.isinf(low):
        return math.inf

    def covered(target_ms: float) -> bool:
        return bool((capacities(blocks, target_ms) @ counts >= total * (1 - 1e-12)).all())

    if covered(low):
        return low
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if covered(middle) else (middle, high)
    return low


def together(problem: DagProblem, block: NDArray[np.int64], target_ms: float) -> NDArray[np.int64]:
    """Merge blocks that some placement under `target_ms` keeps together, if there is one at all.

    A block that takes no time and has one neighbour can join it, unless memory could run short. An output
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
            (member, next(iter(near)))
            for member, near in enumerate(neighbours)
            if len(near) == 1
            and not blocks.block_ms[:, member].any()
            and not (blocks.unable[:, member] & ~blocks.unable[:, next(iter(near))]).any()
            and (roomy or blocks.size[member] == 0)
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


class Filling:
    """One pass: the best chain of the given ideals whose every device stays below a target.

    Attributes:
        value: Its bottleneck; ``inf`` when there is none.
        shares: Its shares.
    """

    def __init__(
        self, blocks: Blocks, kinds: tuple[Kind, ...], bits: Bits, target_ms: float, deadline: float
    ) -> None:
        self._kinds, self._target, self._deadline = kinds, target_ms, deadline
        work = sums(bits, blocks.block_ms)
        counts = tuple(min(kind.count, blocks.n) for kind in kinds)
        self._states = list(itertools.product(*(range(count + 1) for count in counts)))
        bands = self._bands(work, blocks.block_ms.sum(axis=1), capacities(blocks, target_ms), counts)
        self.value, self.shares = math.inf, ()
        useful = np.flatnonzero(np.logical_or.reduce(list(bands.values())))
        if not len(useful):
            return
        useful = useful[np.argsort(work[0, useful], kind="stable")]
        self._ideals = ideals = Ideals(blocks, bits[useful])
        self._tight = [ideals.size.max() > kind.memory_bytes for kind in kinds]
        bands = {state: np.flatnonzero(band[useful]) for state, band in bands.items()}
        size = members(ideals.bits, blocks.n).sum(axis=1)
        empty, full = np.flatnonzero(size == 0), np.flatnonzero(size == blocks.n)
        if not len(empty) or not len(full):
            return

        # best[state][ideal]: least bottleneck of giving the ideal to those devices; and where it came from.
        best: dict[tuple[int, ...], Floats] = {}
        origin: dict[tuple[int, ...], tuple[NDArray[np.int32], NDArray[np.int8]]] = {}
        for state in self._states:
            value = np.full(len(ideals), math.inf)
            source, device = np.zeros(len(ideals), dtype=np.int32), np.full(len(ideals), -1, dtype=np.int8)
            fewer = [(k, self._less(state, k)) for k in range(len(kinds)) if state[k]]
            if not fewer:
                value[empty] = 0.0
            for kind, previous in fewer:  # a device may stay empty
                better = best[previous] < value
                value[better], device[better] = best[previous][better], -2 - kind
            targets = full if state == counts else bands[state]
            for kind, previous in fewer:
                # What fewer devices do as well was extended there already.
                known = [best[self._less(previous, k)] for k in range(len(kinds)) if previous[k]]
                news = best[previous] < np.minimum.reduce(known, initial=math.inf)
                news &= best[previous] < target_ms
                self._extend(kind, best[previous], np.flatnonzero(news), targets, value, source, device)
            best[state], origin[state] = value, (source, device)
        end = int(full[0])
        if best[counts][end] < target_ms:
            self.value = float(best[counts][end])
            self.shares = self._trace(origin, counts, end)

    @staticmethod
    def _less(state: tuple[int, ...], kind: int) -> tuple[int, ...]:
        return (*state[:kind], state[kind] - 1, *state[kind + 1 :])

    def _bands(
        self, work: Floats, total: Floats, capacity: Floats, counts: tuple[int, ...]
    ) -> dict[tuple[int, ...], NDArray[np.bool_]]:
        """Which ideals can be given to some devices while the others can take the rest."""
        slack = 1e-9 * (1.0 + total)
        bands = {}
        for state in self._states:
            most = capacity @ state + slack
            least = total - capacity @ np.subtract(counts, state) - slack
            bands[state] = ((work <= most[:, None]) & (work >= least[:, None])).all(axis=0)
        return bands

    def _extend(
        self,
        kind: int,
        best: Floats,
        sources: NDArray[np.int64],
        targets: NDArray[np.int64],
        value: Floats,
        source: NDArray[np.int32],
        device: NDArray[np.int8],
    ) -> None:
        """Give one device of a kind the share from each source ideal to each target ideal."""
        ideals, work = self._ideals, self._ideals.work_ms[kind]
        order = self._ideals.work_ms[0]
        step = max(1, PAIRS // max(1, len(targets)))
        for at in range(0, len(sources), step):
            if time.monotonic() > self._deadline:
                raise OutOfTimeError
            some = sources[at : at + step]
            ahead = targets[np.searchsorted(order[targets], order[some[0]]) :]
            if not len(ahead):
                continue
            load = work[ahead] - work[some][:, None]
            possible = (load >= 0) & (load < self._target)
            possible &= ideals.unable[kind, ahead] == ideals.unable[kind, some][:, None]
            if self._tight[kind]:
                limit = self._kinds[kind].memory_bytes * (1 + TOLERANCE)
                possible &= ideals.size[ahead] - ideals.size[some][:, None] <= limit
            rows, columns = possible.any(axis=1), possible.any(axis=0)
            some, ahead = some[rows], ahead[columns]
            load, possible = load[rows][:, columns], possible[rows][:, columns]
            if not len(some):
                continue
            possible &= ideals.nested(some, ahead)
            if not self._kinds[kind].host:
                load = load + ideals.transfer_ms(some, ahead)
            load = np.maximum(load, best[some][:, None])
            load[~possible] = math.inf
            choice = load.argmin(axis=0)
            least = load[choice, np.arange(len(ahead))]
            better = (least < value[ahead]) & (least < self._target)
            changed = ahead[better]
            value[changed], source[changed], device[changed] = least[better], some[choice[better]], kind

    def _trace(
        self,
        origin: dict[tuple[int, ...], tuple[NDArray[np.int32], NDArray[np.int8]]],
        state: tuple[int, ...],
        ideal: int,
    ) -> tuple[Share, ...]:
        inside = members(self._ideals.bits, self._ideals.blocks.n)
        shares: list[Share] = []
        while True:
            source, device = (int(table[ideal]) for table in origin[state])
            if device == -1:
                return tuple(reversed(shares))
            if device < -1:
                state = self._less(state, -2 - device)
                continue
            shares.append((device, frozenset(np.flatnonzero(inside[ideal] & ~inside[source]).tolist())))
            state, ideal = self._less(state, device), source


def solve_throughput(problem: DagProblem, time_limit_s: float = 60.0) -> DagSolution:
    """Minimise the largest load of a device.

    Args:
        problem: The items and devices.
        time_limit_s: When to stop with the best found and its bound.

    Raises:
        PlacementError: If no placement was found, saying why where it is known.
    """
    return _Throughput(problem, time.monotonic() + time_limit_s).solve()


class _Throughput:
    def __init__(self, problem: DagProblem, deadline: float) -> None:
        self.problem, self.deadline = problem, deadline
        self.counts = [kind.count for kind in problem.kinds]
        self.places: tuple[Place, ...] | None = None
        self.value = math.inf
        self.bound = 0.0

    def solve(self) -> DagSolution:
        block = together(self.problem, self.problem.blocks, math.inf)
        blocks = contract(self.problem, block)
        self.bound = lower_bound(blocks, self.counts)
        if math.isinf(self.bound):
            raise PlacementError("dag: an item or group can run on no device; check its times and groups")
        try:
            self._improve(block, prefixes(blocks, orders(blocks)))
            block = together(self.problem, block, self.value)
            blocks = contract(self.problem, block)
            ideals = all_ideals(blocks, MOST_IDEALS)
            if ideals is not None:
                self._prove(block, ideals)
        except OutOfTimeError:
            pass
        if self.places is None:
            raise PlacementError("dag: no placement found within time and memory; raise either")
        return DagSolution(self.places, self.value, min(self.bound, self.value))

    def _improve(self, block: NDArray[np.int64], bits: Bits) -> None:
        """Take the best chain of some ideals."""
        blocks = contract(self.problem, block)
        self._take(block, Filling(blocks, self.problem.kinds, bits, self.value, self.deadline))

    def _prove(self, block: NDArray[np.int64], bits: Bits) -> None:
        """Take the best chain of all ideals."""
        blocks = contract(self.problem, block)
        start = self.bound
        for share in TARGETS:
            target_ms = self.value if share == 1.0 else start + share * (self.value - start)
            if math.isnan(target_ms) or math.isinf(target_ms) and share < 1:
                continue
            filling = Filling(blocks, self.problem.kinds, bits, target_ms, self.deadline)
            self._take(block, filling)
            self.bound = self.value if filling.shares else target_ms
            if filling.shares:
                return
        if math.isinf(self.value):
            raise PlacementError("dag: nothing fits; memory or the number of devices is short")

    def _take(self, block: NDArray[np.int64], filling: Filling) -> None:
        if not filling.shares:
            return
        used = [0] * len(self.counts)
        place_of_block: dict[int, Place] = {}
        for kind, blocks in filling.shares:
            for member in blocks:
                place_of_block[member] = (kind, used[kind])
            used[kind] += 1
        places = tuple(place_of_block[b] for b in block.tolist())
        cost = evaluate_dag(self.problem, places)
        assert not cost.violations, cost.violations
        if cost.period_ms < self.value:
            self.places, self.value = places, cost.period_ms
