"""What no plan for the branched problem can be below."""

import math
import time
from functools import cached_property

import numpy as np

from pepper.errors import PlacementError
from pepper.placement.branched import BranchedProblem
from pepper.placement.chain import solve
from pepper.placement.objectives import THROUGHPUT, Objective
from pepper.placement.problem import Floats, Links

MOST_STEPS = 120
"""Steps up to which each has a bound of its own; of more, only the first ones have."""

CHAIN_S = 2.0
"""Most time for the bound of a stream."""


class Bounds:
    """Lower bounds on whole plans, and on what is left of a request from any step on.

    Attributes:
        ahead_ms: (n,) least time from the start of the part that holds a step until all is done: along one path from
            that step, cut into the parts that take least. 0 where it was not computed.
        work_ms: (n + 1,) least work of all devices together on the steps from a border on.
        latency_ms: Of a request.
        period_ms: Of a stream; only as good as `work_ms` until `sharpen`.
    """

    def __init__(self, problem: BranchedProblem) -> None:
        self._problem = problem
        n = problem.n_steps
        able = list(problem.able)
        self._part_ms = self._least(able, np.ones(len(able)))
        self.work_ms = self._summed(self._part_ms)
        self.ahead_ms = np.zeros(n)
        self._follow(n <= MOST_STEPS)
        first_wait = min((float(problem.chain.wait_ms[k]) for k in able), default=0.0)
        self.latency_ms = float(self.ahead_ms.max()) + first_wait
        self.period_ms = float(self.work_ms[0]) / max(1, len(able))

    def of(self, objective: Objective) -> float:
        """Return the least value of any plan."""
        if objective.bottleneck:
            return self.period_ms
        joules = objective.per_joule * float(self.work_j[0]) if objective.per_joule else 0.0
        return objective.per_ms * self.latency_ms + objective.per_part + joules

    @cached_property
    def work_j(self) -> Floats:
        """(n + 1,) least energy of all devices together on the steps from a border on."""
        power_w = self._problem.chain.power_w
        known = [device for device in self._problem.able if math.isfinite(power_w[device])]
        return self._summed(self._least(known, power_w[known] / 1000))

    def _least(self, devices: list[int], weight: Floats) -> Floats:
        """Return (n + 1, n + 1): the least weighted time of each part on these; infinite where none can be."""
        n, borders = self._problem.n_steps, np.array(self._problem.allowed)
        found = np.full((n + 1, n + 1), math.inf)
        times, message_ms = self._problem.chain.part_ms, self._problem.message_ms[devices]
        if not devices:
            return found
        with np.errstate(invalid="ignore"):  # infinite times of no weight
            if times.ndim == 2:
                sums = np.concatenate([np.zeros((1, times.shape[1])), np.cumsum(times, axis=0)])
                for start in borders[:-1]:
                    ends = borders[borders > start]
                    row = ((sums[ends] - sums[start])[:, devices] + message_ms) * weight
                    found[start, ends] = np.nan_to_num(row, nan=math.inf, posinf=math.inf).min(axis=1)
            else:
                rows, columns = np.ix_(borders, borders)
                least = np.nan_to_num((times[..., devices] + message_ms) * weight, nan=math.inf, posinf=math.inf)
                later = np.triu(np.ones((len(borders), len(borders)), dtype=bool), 1)
                found[rows, columns] = np.where(later, least.min(axis=2)[rows, columns], math.inf)
        return found

    def _summed(self, parts: Floats) -> Floats:
        """Return (n + 1,): the least sum over parts from each border to the end."""
        found: Floats = np.zeros(self._problem.n_steps + 1)
        for border in self._problem.allowed[-2::-1]:
            found[border] = (parts[border, border + 1 :] + found[border + 1 :]).min()
        return found

    def sharpen(self, deadline: float) -> None:
        """Bound the stream by the best plan of a chain whose links take no time and whose devices hold any parts."""
        chain = self._problem.chain
        count = len(chain.devices)
        free = Links(np.zeros((count, count)), np.zeros((count, count)), np.zeros((count, count)))
        bare = type(chain).of(
            chain.devices,
            chain.part_ms,
            np.where(np.isfinite(chain.boundary_bytes), 0.0, math.inf),
            free,
            handling_ms=np.broadcast_to(self._problem.message_ms, chain.handling_ms.shape),
            excluded=chain.excluded,
            reuse=True,
        )
        seconds = min(CHAIN_S, deadline - time.monotonic())
        if seconds > 0:
            try:
                self.period_ms = max(self.period_ms, solve(bare, THROUGHPUT, seconds).bound)
            except PlacementError:
                return  # none in time

    def _follow(self, everywhere: bool) -> None:
        n = self._problem.n_steps
        after: list[set[int]] = [set() for _ in range(n)]
        for flow in self._problem.flows:
            if flow.writer >= 0:
                after[flow.writer].update(reader for reader in flow.readers if reader < n)
        rough = np.zeros(n)  # which way to go: the longest, by steps alone
        way: list[int | None] = [None] * n
        weight = np.array([self._weight(step) for step in range(n)])
        for step in range(n - 1, -1, -1):
            way[step] = max(after[step], key=lambda k: rough[k], default=None)
            rough[step] = weight[step] + (0.0 if way[step] is None else rough[way[step]])
        starts = range(n) if everywhere else [int(rough.argmax())]
        for step in starts:
            path = [step]
            while (following := way[path[-1]]) is not None:
                path.append(following)
            self.ahead_ms[step] = self._along(path)

    def _weight(self, step: int) -> float:
        """A rough time of one step."""
        times = self._problem.chain.part_ms
        if times.ndim == 2:
            return float(times[step].min())
        return float(times[step, step + 1].min())

    def _along(self, path: list[int]) -> float:
        """Return the least time of a path: its steps in parts, each of which may hold other steps between them."""
        count = len(path)
        least: Floats = np.zeros(count + 1)
        ends = np.array(path) + 1
        for i in range(count - 1, -1, -1):
            first = path[i - 1] + 1 if i else 0
            rows = self._part_ms[first : path[i] + 1].min(axis=0)
            parts = np.minimum.reduceat(rows, ends[i:])
            least[i] = (parts + least[i + 1 :]).min()
        return float(least[0])
