"""Exact throughput of the DAG problem, by dynamic programming over chains of ideals with bounds.

The state is what has been given out (an ideal) to how many devices of each kind. Three things keep it small:

1. Blocks that some best placement keeps together are contracted first.
2. A target T below the best known bottleneck bounds what any device can take of the work on *any* kind (a
   fractional knapsack), so that after some devices only ideals in a narrow band of work remain.
3. Chains through a few topological orders give a good T at once, and rising targets from the lower bound find
the
   optimum in a pass that is no wider than it must be. A pass that finds nothing proves T as a bound.
"""

import itertools
import math
import time
from contextlib import suppress
from random import Random

import numpy as np
from numpy.typing import NDArray

from pepper.errors import PlacementError
from pepper.placement.dag.contraction import contract, knapsack, together
from pepper.placement.dag.ideals import (
    Bits,
    Blocks,
    Ideals,
    all_ideals,
    members,
    near_order,
    orders,
    prefixes,
    sums,
)
from pepper.placement.dag.problem import DagProblem, DagSolution, GaveUpError, Kind, Place, evaluate_dag
from pepper.placement.dag.shortage import explain
from pepper.placement.evaluate import TOLERANCE
from pepper.placement.problem import Floats

MOST_BYTES = 1 << 28
"""Most memory of all ideals; a pass needs a few times as much."""

MOST_CELLS = 200_000_000
"""Most numbers that a pass may hold: its ideals, times the states and blocks."""

PAIRS = 1 << 21
"""Pairs of ideals costed in one array operation."""

TARGETS = (0.02, 0.06, 0.15, 0.3, 0.6, 1.0)
"""Where between the bound and the best known value the passes set their targets."""

NEAR_ORDERS = 4
"""Random orders searched together where all ideals are many or too many."""

MANY_IDEALS = 300_000
"""Beyond these, a good value found by random orders first saves more than it costs."""

EXPLORE_SHARE = 0.1
"""Share of the time for that."""

Share = tuple[int, frozenset[int]]
"""The index of a kind, and the blocks that one of its devices gets."""


def capacities(blocks: Blocks, target_ms: float) -> Floats:
    """Return (K, K): the most work, in times of kind i, that a device of kind j takes within `target_ms`."""
    n_kinds = len(blocks.block_ms)
    most = np.zeros((n_kinds, n_kinds))
    for measure, kind in itertools.product(range(n_kinds), repeat=2):
        able = ~blocks.unable[kind]
        most[measure, kind] = knapsack(blocks.block_ms[measure, able], blocks.block_ms[kind, able], target_ms)
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


class Family:
    """Some ideals of a contracted problem, and their work."""

    def __init__(self, blocks: Blocks, bits: Bits) -> None:
        self.blocks = blocks
        self.bits = bits
        self.work_ms = sums(bits, blocks.block_ms)


class Filling:
    """One pass: the best chain of the given ideals whose every device stays below a target.

    Attributes:
        value: Its bottleneck; ``inf`` when there is none.
        shares: Its shares.
    """

    def __init__(self, family: "Family", kinds: tuple[Kind, ...], target_ms: float, deadline: float) -> None:
        self._kinds, self._target, self._deadline = kinds, target_ms, deadline
        blocks, work = family.blocks, family.work_ms
        counts = tuple(min(kind.count, blocks.n) for kind in kinds)
        self._states = list(itertools.product(*(range(count + 1) for count in counts)))
        self._capacity = capacities(blocks, target_ms)
        bands = self._bands(work, blocks.block_ms.sum(axis=1), counts)
        self.value = math.inf
        self.shares: tuple[Share, ...] = ()
        useful = np.flatnonzero(np.logical_or.reduce(list(bands.values())))
        if not len(useful):
            return
        if len(useful) * (len(self._states) + blocks.n) > MOST_CELLS:
            raise GaveUpError
        useful = useful[np.argsort(work[0, useful], kind="stable")]
        self._ideals = ideals = Ideals(blocks, family.bits[useful])
        self._slack = 1e-9 * (1.0 + float(work[0].max()))
        self._tight = [ideals.size.max() > kind.memory_bytes for kind in kinds]
        reachable = {
            state: np.flatnonzero(band[useful] & self._affords_cut(state, counts)) for state, band in bands.items()
        }
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
            targets = full if state == counts else reachable[state]
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

    def _bands(self, work: Floats, total: Floats, counts: tuple[int, ...]) -> dict[tuple[int, ...], NDArray[np.bool_]]:
        """Which ideals can be given to some devices while the others can take the rest."""
        slack = 1e-9 * (1.0 + total)
        bands = {}
        for state in self._states:
            most = self._capacity @ state + slack
            least = total - self._capacity @ np.subtract(counts, state) - slack
            within = (work <= most[:, None]) & (work >= least[:, None])
            bands[state] = np.asarray(within.all(axis=0), dtype=bool)
        return bands

    def _affords_cut(self, state: tuple[int, ...], counts: tuple[int, ...]) -> NDArray[np.bool_]:
        """Which ideals leave time for what crosses their border, where one kind alone is on a side of it."""
        ideals = self._ideals
        fits = np.ones(len(ideals), dtype=bool)
        for work, devices in (
            (ideals.work_ms, state),
            (ideals.blocks.block_ms.sum(axis=1)[:, None] - ideals.work_ms, np.subtract(counts, state)),
        ):
            used = np.flatnonzero(devices)
            if len(used) == 1 and not self._kinds[used[0]].host:
                fits &= work[used[0]] + ideals.cut_ms <= devices[used[0]] * self._target + self._slack
        return fits

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
        most = self._capacity[0, kind] + self._slack
        step = max(1, PAIRS // max(1, len(targets)))
        for at in range(0, len(sources), step):
            if time.monotonic() > self._deadline:
                raise GaveUpError
            some = sources[at : at + step]
            window = order[some[[0, -1]]] + (-self._slack, most)
            ahead = targets[slice(*np.searchsorted(order[targets], window))]
            if not len(ahead):
                continue
            load = work[ahead] - work[some][:, None]
            possible = load < self._target
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


def solve_throughput(problem: DagProblem, time_limit_s: float = 60.0, seed: int = 0) -> DagSolution:
    """Minimise the largest load of a device.

    Args:
        problem: The items and devices.
        time_limit_s: When to stop with the best found and its bound.
        seed: Of the search when there are too many ideals for the proof.

    Raises:
        PlacementError: If no placement was found, saying why where it is known.
    """
    return _Throughput(problem, time.monotonic() + time_limit_s).solve(Random(seed))


class _Throughput:
    def __init__(self, problem: DagProblem, deadline: float) -> None:
        self.problem, self.deadline = problem, deadline
        self.places: tuple[Place, ...] | None = None
        self.chain: list[Place] = []
        self.value = math.inf
        self.bound = 0.0

    def solve(self, random: Random) -> DagSolution:
        block = together(self.problem, self.problem.blocks, math.inf)
        blocks = contract(self.problem, block)
        self.bound = lower_bound(blocks, [kind.count for kind in self.problem.kinds])
        if math.isinf(self.bound):
            raise PlacementError(explain(self.problem))
        with suppress(GaveUpError):
            for family in ([order] for order in orders(blocks)):
                self._fill(block, Family(blocks, prefixes(blocks, family)), self.value)
            block = together(self.problem, block, self.value)
            blocks = contract(self.problem, block)
            self._fill(block, Family(blocks, prefixes(blocks, orders(blocks))), self.value)
            ideals = all_ideals(blocks, MOST_BYTES)
            if ideals is not None:
                if len(ideals) > MANY_IDEALS:
                    now = time.monotonic()
                    self._explore(block, random, now + EXPLORE_SHARE * (self.deadline - now))
                with suppress(GaveUpError):
                    self._prove(block, Family(blocks, ideals))
            self._explore(block, random, self.deadline)
        if self.places is None:
            raise PlacementError(explain(self.problem))
        return DagSolution(self.places, self.value, min(self.bound, self.value))

    def _prove(self, block: NDArray[np.int64], family: Family) -> None:
        """Take the best chain of all ideals."""
        start = self.bound
        for share in TARGETS if math.isfinite(self.value) else TARGETS[-1:]:
            target_ms = self.value if share == 1.0 else start + share * (self.value - start)
            found = self._fill(block, family, target_ms)
            self.bound = self.value if found else target_ms
            if found:
                return
        if self.places is None:
            raise PlacementError(explain(self.problem))

    def _explore(self, block: NDArray[np.int64], random: Random, deadline: float) -> None:
        """Take the best chains of the ideals along random orders near the best chain."""
        blocks = contract(self.problem, block)
        while self.bound < self.value and time.monotonic() < deadline:
            stage = {}
            if self.places is not None:
                position = {place: k for k, place in enumerate(self.chain)}
                stage = {b: position[p] for b, p in zip(block.tolist(), self.places, strict=True)}
            near = [near_order(blocks, stage, random) for _ in range(NEAR_ORDERS)]
            self._fill(block, Family(blocks, prefixes(blocks, near)), self.value)

    def _fill(self, block: NDArray[np.int64], family: Family, target_ms: float) -> bool:
        """Take the best chain of some ideals below a target; tell whether there is one."""
        if time.monotonic() > self.deadline:
            raise GaveUpError
        filling = Filling(family, self.problem.kinds, target_ms, self.deadline)
        if filling.shares:
            self._take(block, filling.shares)
        return bool(filling.shares)

    def _take(self, block: NDArray[np.int64], shares: tuple[Share, ...]) -> None:
        used = [0] * len(self.problem.kinds)
        place_of_block: dict[int, Place] = {}
        chain: list[Place] = []
        for kind, share in shares:
            chain.append((kind, used[kind]))
            used[kind] += 1
            place_of_block.update(dict.fromkeys(share, chain[-1]))
        places = tuple(place_of_block[b] for b in block.tolist())
        cost = evaluate_dag(self.problem, places)
        assert not cost.violations, cost.violations
        if cost.period_ms < self.value:
            self.places, self.value, self.chain = places, cost.period_ms, chain
