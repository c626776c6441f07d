"""Latency of the DAG problem: labels over ideals, exact where the ideals are few.

Every placement is a chain of ideals in which a step adds one share to an accelerator or one block to the
host. After a step only the finish times of what is still to be read matter. Of two labels at one ideal, the
one that has used no more devices and finished nothing later dominates.
"""

import math
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from random import Random

import numpy as np
from numpy.typing import NDArray

from pepper.errors import PlacementError
from pepper.placement.dag.contraction import contract, together
from pepper.placement.dag.ideals import Bits, Ideals, all_ideals, members, near_order, orders, prefixes
from pepper.placement.dag.paths import path_bound
from pepper.placement.dag.problem import DagProblem, DagSolution, GaveUpError, Place, condense, evaluate_dag
from pepper.placement.dag.shortage import explain
from pepper.placement.problem import Floats

MOST_BYTES = 200_000
"""Most memory of all ideals for which all placements are searched: 6,000 of them for 250 blocks."""

WIDTHS = (4, 32, 256, math.inf)
"""Labels kept at an ideal in each pass over all ideals: quick answers first, the proof last."""

EXACT_SHARE = 0.6
"""Share of the time for those passes; what is left without a proof goes to neighbourhood search."""

NEIGHBOURHOODS = 200
"""Most rounds of that search, each along two random orders near the best chain."""


@dataclass(frozen=True)
class _Step:
    """How a label came to be: the ideal reached, on which kind, and the step before."""

    ideal: int
    kind: int
    before: "_Step | None"


def solve_latency(problem: DagProblem, time_limit_s: float = 60.0, seed: int = 0) -> DagSolution:
    """Minimise the time of one request.

    Args:
        problem: The items and devices; at most one kind works in the host's memory.
        time_limit_s: When to stop with the best found and its bound.
        seed: Of the neighbourhood search.

    Raises:
        PlacementError: If no placement was found.
    """
    if sum(kind.host for kind in problem.kinds) > 1:
        raise PlacementError("dag: more than one kind of host device; merge them for the latency of one request")
    return _Latency(problem, time.monotonic() + time_limit_s).solve(Random(seed))


class _Latency:
    def __init__(self, problem: DagProblem, deadline: float) -> None:
        self.problem, self.deadline = problem, deadline
        self.block = together(problem, problem.blocks, math.inf)
        self.blocks = contract(problem, self.block)
        n = problem.n_items
        self.reads = np.zeros((n, n), dtype=bool)
        for output in problem.outputs:
            self.reads[output.writer, list(output.readers)] = True
        pairs = [(int(a), int(b)) for a, b in np.argwhere(self.reads)]
        position = condense(np.arange(n), pairs)
        self.items = [sorted(np.flatnonzero(self.block == b), key=position.__getitem__) for b in range(self.blocks.n)]
        self.host = next((k for k, kind in enumerate(problem.kinds) if kind.host and kind.count), None)
        # Least time to the end of all, from when an item's inputs are there, by devices still free.
        self.ahead = path_bound(problem, self.reads, np.argsort(position))
        self.off_host = np.array([not kind.host for kind in problem.kinds])
        self.places: tuple[Place, ...] | None = None
        self.value = math.inf
        self.chain: list[frozenset[int]] = []

    def solve(self, random: Random) -> DagSolution:
        bound = float(self.ahead[-1, ~self.reads.any(axis=0)].max())
        if math.isinf(bound):
            raise PlacementError(explain(self.problem))
        if self.host is not None and np.isfinite(self.problem.kinds[self.host].item_ms).all():
            self._keep([(self.host, 0)] * self.problem.n_items)
        exact = len(np.unique(self.problem.group)) == len(np.unique(self.problem.blocks))
        self._explore([[order] for order in orders(self.blocks)], self.deadline)
        ideals = all_ideals(self.blocks, MOST_BYTES)
        now = time.monotonic()
        for width in WIDTHS:
            if ideals is None or bound >= self.value * (1 - 1e-9):
                break
            try:
                dropped = self.search(ideals, width, now + EXACT_SHARE * (self.deadline - now))
            except GaveUpError:
                break
            if exact:
                bound = max(bound, min(dropped, self.value))
        if bound < self.value * (1 - 1e-9):
            self._explore((self._near_orders(random) for _ in range(NEIGHBOURHOODS)), self.deadline)
        if self.places is None:
            raise PlacementError(explain(self.problem))
        return DagSolution(self.places, self.value, min(bound, self.value))

    def _explore(self, families: Iterable[list[list[int]]], deadline: float) -> None:
        """Search the ideals along a few orders at a time."""
        try:
            for some in families:
                self.search(prefixes(self.blocks, some), WIDTHS[0], deadline)
        except GaveUpError:
            pass

    def _near_orders(self, random: Random) -> list[list[int]]:
        stage = {block: k for k, share in enumerate(self.chain) for block in share}
        return [near_order(self.blocks, stage, random) for _ in range(2)]

    def search(self, bits: Bits, width: float, deadline: float) -> float:
        """Take the best placement whose steps are among the given ideals.

        Args:
            bits: The ideals.
            width: Most labels kept at one of them.
            deadline: When to give up.

        Returns:
            A bound on what the dropped labels could have become.

        Raises:
            GaveUpError: If the deadline passed.
        """
        dropped = math.inf
        n_blocks = self.blocks.n
        bits = bits[np.argsort(members(bits, n_blocks).sum(axis=1), kind="stable")]
        ideals = Ideals(self.blocks, bits)
        row = {bits[k].tobytes(): k for k in range(len(bits))}
        inside_blocks = members(bits, n_blocks)
        inside = inside_blocks[:, self.block]
        frontier = inside & ((~inside).astype(np.float32) @ self.reads.T.astype(np.float32) > 0)
        n_kinds = len(self.problem.kinds)
        # Labels wait at their ideal as rows: devices used by kind, end of all so far, ends of the frontier.
        waiting: dict[int, list[tuple[Floats, list[_Step | None]]]] = defaultdict(list)
        waiting[0].append((np.zeros((1, n_kinds + 1)), [None]))
        for at in range(len(bits) - 1):
            if time.monotonic() > deadline:
                raise GaveUpError
            if at not in waiting:
                continue
            rows, steps, least = self._best(waiting.pop(at), inside[at], frontier[at], width)
            dropped = min(dropped, least)
            if len(rows):
                self._to_host(ideals, row, at, rows, steps, inside_blocks, frontier, waiting)
                self._to_accelerators(ideals, at, rows, steps, inside, frontier, waiting)
        last = len(bits) - 1
        if last in waiting:
            rows, steps, _ = self._best(waiting.pop(last), inside[last], frontier[last], 1)
            if len(rows):
                self._take(steps[0], inside_blocks)
        return dropped

    def _best(
        self,
        waiting: list[tuple[Floats, list[_Step | None]]],
        inside: NDArray[np.bool_],
        frontier: NDArray[np.bool_],
        width: float,
    ) -> tuple[Floats, list[_Step | None], float]:
        """Keep the labels that may win and that no other dominates, and the bound of what is too many."""
        rows = np.concatenate([some for some, _ in waiting])
        steps = [step for _, some in waiting for step in some]
        n_kinds = len(self.problem.kinds)
        unread = self.reads[frontier] & ~inside
        after = np.where(unread, self.ahead[:, None], 0.0).max(axis=2)
        least = (rows[:, n_kinds + 1 :] + after[self._free(rows)]).max(axis=1, initial=0.0)
        least = np.maximum(least, rows[:, n_kinds])
        hopeful = np.flatnonzero(least < self.value * (1 - 1e-12))
        order = hopeful[np.lexsort((rows[hopeful].sum(axis=1), least[hopeful]))]
        kept: list[int] = []
        dropped = math.inf
        pool = np.empty((len(order), rows.shape[1]))
        for k in order:
            if not (pool[: len(kept)] <= rows[k]).all(axis=1).any():
                if len(kept) >= width:
                    dropped = float(least[k])
                    break
                pool[len(kept)] = rows[k]
                kept.append(int(k))
        return rows[kept], [steps[k] for k in kept], dropped

    def _free(self, rows: Floats) -> NDArray[np.int64]:
        """Number of devices off the host that each label may still use."""
        used = rows[:, : len(self.problem.kinds)][:, self.off_host].sum(axis=1)
        free: NDArray[np.int64] = np.maximum(len(self.ahead) - 1 - used.astype(np.int64), 0)
        return free

    def _to_host(
        self,
        ideals: Ideals,
        row: dict[bytes, int],
        at: int,
        rows: Floats,
        steps: list[_Step | None],
        inside_blocks: NDArray[np.bool_],
        frontier: NDArray[np.bool_],
        waiting: dict[int, list[tuple[Floats, list[_Step | None]]]],
    ) -> None:
        """Add one block to the host, each item as soon as its inputs are there."""
        if self.host is None:
            return
        n_kinds, kind = len(self.problem.kinds), self.problem.kinds[self.host]
        edge = np.flatnonzero(frontier[at])
        for block in np.flatnonzero(~inside_blocks[at]):
            target = row.get((ideals.bits[at] | self.blocks.bits((int(block),))).tobytes())
            if (
                target is None
                or ideals.blocks.unable[self.host, block]
                or not all(inside_blocks[at, b] for b in self.blocks.before[block])
            ):
                continue
            ends = {int(item): rows[:, n_kinds + 1 + k] for k, item in enumerate(edge)}
            for item in self.items[block]:
                inputs = [ends[int(i)] for i in np.flatnonzero(self.reads[:, item])]
                ready = np.max(inputs, axis=0) if inputs else np.zeros(len(rows))
                ends[int(item)] = ready + kind.item_ms[item]
            finished = np.max([rows[:, n_kinds], *(ends[int(i)] for i in self.items[block])], axis=0)
            kept = [ends[int(item)] for item in np.flatnonzero(frontier[target])]
            table = np.stack([*rows[:, :n_kinds].T, finished, *kept], axis=1)
            waiting[target].append((table, [_Step(target, self.host, step) for step in steps]))

    def _to_accelerators(
        self,
        ideals: Ideals,
        at: int,
        rows: Floats,
        steps: list[_Step | None],
        inside: NDArray[np.bool_],
        frontier: NDArray[np.bool_],
        waiting: dict[int, list[tuple[Floats, list[_Step | None]]]],
    ) -> None:
        """Give one device each share that begins at this ideal."""
        n_kinds = len(self.problem.kinds)
        here = np.array([at])
        ahead = np.arange(at + 1, len(ideals))
        ahead = ahead[ideals.nested(here, ahead)[0]]
        edge = np.flatnonzero(frontier[at])
        share = inside[ahead] & ~inside[at]
        needs = share.astype(np.float32) @ self.reads[edge].T.astype(np.float32) > 0
        ends = rows[:, n_kinds + 1 :]
        start = np.zeros((len(rows), len(ahead)))
        for k in range(len(edge)):
            np.maximum(start, ends[:, k, None] * needs[:, k], out=start)
        unread = (share.astype(np.float32) @ self.reads.astype(np.float32) > 0) & ~inside[ahead]
        free = max(0, int(self._free(rows).max()) - 1)
        tail = np.where(unread, self.ahead[free], 0.0).max(axis=1)
        moved = ideals.transfer_ms(here, ahead)[0]
        for k, kind in enumerate(self.problem.kinds):
            if kind.host or not kind.count:
                continue
            load = ideals.work_ms[k, ahead] - ideals.work_ms[k, at] + moved
            possible = ideals.unable[k, ahead] == ideals.unable[k, at]
            possible &= ideals.size[ahead] - ideals.size[at] <= kind.memory_bytes * (1 + 1e-9)
            end = start + load
            hopeful = (end + tail < self.value) & possible & (rows[:, k] < kind.count)[:, None]
            for column in np.flatnonzero(hopeful.any(axis=0)):
                some = np.flatnonzero(hopeful[:, column])
                target = int(ahead[column])
                onward = np.flatnonzero(frontier[target])
                table = np.empty((len(some), n_kinds + 1 + len(onward)))
                table[:, :n_kinds] = rows[some, :n_kinds]
                table[:, k] += 1
                table[:, n_kinds] = np.maximum(rows[some, n_kinds], end[some, column])
                old = inside[at, onward]
                table[:, n_kinds + 1 :] = end[some, column, None]
                table[:, n_kinds + 1 + np.flatnonzero(old)] = ends[some][:, np.searchsorted(edge, onward[old])]
                waiting[target].append((table, [_Step(target, k, steps[i]) for i in some]))

    def _take(self, step: _Step | None, inside_blocks: NDArray[np.bool_]) -> None:
        place_of_block: dict[int, Place] = {}
        used: dict[int, int] = defaultdict(int)
        chain = []
        while step is not None:
            before = inside_blocks[step.before.ideal] if step.before else np.zeros(self.blocks.n, dtype=bool)
            share = frozenset(np.flatnonzero(inside_blocks[step.ideal] & ~before).tolist())
            chain.append(share)
            for block in share:
                place_of_block[block] = (step.kind, used[step.kind])
            used[step.kind] += not self.problem.kinds[step.kind].host
            step = step.before
        if self._keep([place_of_block[b] for b in self.block.tolist()]):
            self.chain = chain[::-1]

    def _keep(self, places: list[Place]) -> bool:
        """Remember a placement if it is better."""
        cost = evaluate_dag(self.problem, places)
        better = not cost.violations and cost.latency_ms < self.value
        if better:
            self.places, self.value = tuple(places), cost.latency_ms
        return better
