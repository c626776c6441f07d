"""Exact throughput of the DAG problem, by dynamic programming over chains of ideals with bounds.

The state is what has been given out (an ideal) to how many devices of each kind. Four things keep it small:

1. Blocks that some best placement keeps together are contracted first.
2. A target T below the best known bottleneck bounds what any device can take of the work on *any* kind (a
   fractional knapsack), so that after some devices only ideals in a narrow band of work remain; what crosses an
   ideal's border narrows it further.
3. What a share loads a device with does not depend on the state, and is computed once for all of them.
4. Chains through a few topological orders give a good T at once, and rising targets from the lower bound find the
   optimum in a pass that is no wider than it must be. A pass that finds nothing proves T as a bound.
"""

import itertools
import math
import time
from contextlib import suppress
from functools import cache
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

PAIRS = 1 << 14
"""Pairs of ideals costed in one array operation: so few that arrays of them stay in the processor's cache. Memory for
larger ones comes from the system anew each time, which takes ten times as long as the arithmetic."""

GRAIN = 2.0**40
"""What all work together is in whole numbers."""

TARGETS = (0.02, 0.06, 0.15, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Where between the bound and the best known value the passes set their targets: in steps, as a pass beyond the optimum
takes many times as long as one just there."""

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

    Ideals are taken in order of their work, some at a time. What the shares that begin at these cost is computed once,
    for all states alike; states go from fewer devices to more, so that one may begin where another of the same ideals
    ends.

    Attributes:
        value: Its bottleneck; ``inf`` when there is none.
        shares: Its shares.
    """

    def __init__(self, family: "Family", kinds: tuple[Kind, ...], target_ms: float, deadline: float) -> None:
        self._kinds, self._target, self._deadline = kinds, target_ms, deadline
        blocks, work = family.blocks, family.work_ms
        counts = tuple(min(kind.count, blocks.n) for kind in kinds)
        self._states = list(itertools.product(*(range(count + 1) for count in counts)))
        self._number = {state: k for k, state in enumerate(self._states)}
        self._capacity = capacities(blocks, target_ms)
        self.value = math.inf
        self.shares: tuple[Share, ...] = ()
        bands = self._bands(work, blocks.block_ms.sum(axis=1), counts)
        useful = np.flatnonzero(bands.any(axis=0))
        if len(useful) * (len(self._states) + blocks.n) > MOST_CELLS:
            raise GaveUpError
        # Whole numbers add up exactly, so that no ideal comes before one that it holds.
        longest = float(work[0].max())
        self._per_ms = GRAIN / longest if longest else 0.0
        whole = np.rint(blocks.block_ms[:1] * self._per_ms)
        order, size = sums(family.bits[useful], whole)[0], sums(family.bits[useful], np.ones((1, blocks.n)))[0]
        sequence = np.lexsort((size, order))
        useful, self._order = useful[sequence], order[sequence]
        if not len(useful) or size[sequence[0]] > 0 or size[sequence[-1]] < blocks.n:
            return  # the first is the empty one, and the last one everything
        self._ideals = Ideals(blocks, family.bits[useful])
        self._slack = 1e-9 * (1.0 + longest)
        self._tight = [self._ideals.size.max() > kind.memory_bytes for kind in kinds]
        self._reachable = bands[:, useful] & self._affords_cut(counts)
        self._reachable[-1, :-1] = False  # all devices together end with everything
        filled = np.array(self._states, dtype=bool)
        self._ends = [self._reachable[filled[:, kind]].any(axis=0) for kind in range(len(kinds))]

        # By state and ideal: the least bottleneck of giving the ideal to those devices; and where it came from.
        shape = (len(self._states), len(useful))
        self._best = np.full(shape, math.inf)
        self._best[0, 0] = 0.0
        self._source, self._device = np.zeros(shape, dtype=np.int32), np.full(shape, -1, dtype=np.int8)
        self._fill()
        if self._best[-1, -1] < target_ms:
            self.value = float(self._best[-1, -1])
            self.shares = self._trace(counts, len(useful) - 1)

    @staticmethod
    def _less(state: tuple[int, ...], kind: int) -> tuple[int, ...]:
        return (*state[:kind], state[kind] - 1, *state[kind + 1 :])

    def _bands(self, work: Floats, total: Floats, counts: tuple[int, ...]) -> NDArray[np.bool_]:
        """Return (states, N): which ideals can be given to some devices while the others can take the rest."""
        slack = 1e-9 * (1.0 + total)
        bands = np.zeros((len(self._states), work.shape[1]), dtype=bool)
        for number, state in enumerate(self._states):
            most = self._capacity @ state + slack
            least = total - self._capacity @ np.subtract(counts, state) - slack
            within = (work <= most[:, None]) & (work >= least[:, None])
            bands[number] = within.all(axis=0)
        return bands

    def _affords_cut(self, counts: tuple[int, ...]) -> NDArray[np.bool_]:
        """Return (states, N): which ideals leave time for what crosses their border.

        An output that crosses costs the devices on either side its time at least once, unless all that it touches
        there is on hosts. What hosts so relieve the others of, work included, is a fractional knapsack.
        """
        ideals, blocks = self._ideals, self._ideals.blocks
        touched_ms = np.zeros(blocks.n)
        for net, cost_ms in zip(blocks.nets, blocks.net_ms, strict=True):
            touched_ms[list(net)] += cost_ms

        @cache
        def bounds(off: tuple[int, ...]) -> tuple[Floats, Floats]:
            """Return (N,) the least work of each ideal on these kinds, and (K,) by how much a host relieves them."""
            least = np.where(blocks.unable, math.inf, blocks.block_ms)[list(off)].min(axis=0)
            least[np.isinf(least)] = 0.0
            relief = np.zeros(len(self._kinds))
            for k, kind in enumerate(self._kinds):
                able = ~blocks.unable[k]
                if kind.host:
                    relief[k] = knapsack((least + touched_ms)[able], blocks.block_ms[k, able], self._target)
            return sums(ideals.bits, least[None])[0], relief

        fits = np.ones((len(self._states), len(ideals)), dtype=bool)
        for number, state in enumerate(self._states):
            for devices, behind in ((np.array(state), False), (np.subtract(counts, state), True)):
                off = tuple(int(k) for k in np.flatnonzero(devices) if not self._kinds[k].host)
                if off:
                    work, relief = bounds(off)
                    work = work[-1] - work if behind else work
                    room = devices[list(off)].sum() * self._target + relief @ devices
                    fits[number] &= work + ideals.cut_ms <= room + self._slack
        return fits

    def _fill(self) -> None:
        """Fill the tables, from ideals of little work to ideals of more."""
        last, n_blocks = len(self._order) - 1, self._ideals.blocks.n
        reach = self._per_ms * (self._capacity[0] + self._slack) + n_blocks  # the rounding of each block
        ends = np.searchsorted(self._order, self._order[:, None] + reach, side="right")
        at = 0
        while at < last:
            if time.monotonic() > self._deadline:
                raise GaveUpError
            stop = min(last, at + max(1, PAIRS // int(ends[at].max() - at)))
            reached = np.flatnonzero((self._best[:, at:stop] < self._target).any(axis=0)) + at
            if len(reached):
                near = self._ideals.nested(reached, np.arange(at, stop)).any(axis=0)
                self._extend(np.flatnonzero(near) + at, ends[stop - 1])
            at = stop
        for number in range(len(self._states)):
            self._inherit(number, np.array([last]))

    def _extend(self, rows: NDArray[np.int64], ends: NDArray[np.int64]) -> None:
        """Give one device the share from each of these ideals to each later one, after any devices before it."""

        @cache
        def shares(kind: int) -> tuple[NDArray[np.int64], Floats]:
            return self._loads(kind, rows, int(ends[kind]))

        for number, state in enumerate(self._states):
            self._inherit(number, rows)
            value = self._best[number, rows]
            # What fewer devices do as well was extended there already.
            news = np.flatnonzero((value < self._target) & (self._device[number, rows] >= -1))
            if not len(news):
                continue
            for kind in range(len(state)):
                after = self._number.get((*state[:kind], state[kind] + 1, *state[kind + 1 :]))
                if after is None:
                    continue
                ahead, load = shares(kind)
                columns = np.flatnonzero(self._reachable[after, ahead])
                if not len(columns):
                    continue
                worst = np.maximum(load[np.ix_(news, columns)], value[news][:, None])
                choice = worst.argmin(axis=0)
                least = worst[choice, np.arange(len(columns))]
                ahead = ahead[columns]
                better = (least < self._best[after, ahead]) & (least < self._target)
                changed = ahead[better]
                self._best[after, changed] = least[better]
                self._source[after, changed], self._device[after, changed] = rows[news[choice[better]]], kind

    def _inherit(self, number: int, rows: NDArray[np.int64]) -> None:
        """Let a device stay empty where that is as good."""
        state = self._states[number]
        for kind in np.flatnonzero(state).tolist():
            fewer = self._best[self._number[self._less(state, kind)], rows]
            as_good = (fewer <= self._best[number, rows]) & (fewer < self._target)
            self._best[number, rows[as_good]] = fewer[as_good]
            self._device[number, rows[as_good]] = -2 - kind

    def _loads(self, kind: int, rows: NDArray[np.int64], end: int) -> tuple[NDArray[np.int64], Floats]:
        """Return later ideals, and the load of a device with the share from each row to each; ``inf``: impossible."""
        ideals, work = self._ideals, self._ideals.work_ms[kind]
        ahead = np.flatnonzero(self._ends[kind][rows[0] + 1 : end]) + rows[0] + 1
        load = work[ahead] - work[rows][:, None]
        possible = load < self._target
        possible &= ideals.unable[kind, ahead] == ideals.unable[kind, rows][:, None]
        if self._tight[kind]:
            limit = self._kinds[kind].memory_bytes * (1 + TOLERANCE)
            possible &= ideals.size[ahead] - ideals.size[rows][:, None] <= limit
        possible &= ideals.nested(rows, ahead)
        some = possible.any(axis=0)
        ahead, load, possible = ahead[some], load[:, some], possible[:, some]
        if not self._kinds[kind].host:
            load = load + ideals.transfer_ms(rows, ahead)
        load[~possible] = math.inf
        return ahead, load

    def _trace(self, state: tuple[int, ...], ideal: int) -> tuple[Share, ...]:
        inside = members(self._ideals.bits, self._ideals.blocks.n)
        shares: list[Share] = []
        while True:
            number = self._number[state]
            source, device = int(self._source[number, ideal]), int(self._device[number, ideal])
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
