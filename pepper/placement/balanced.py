"""Throughput over many devices of several kinds: prices for devices that are short."""

import math
import time

import numpy as np
from numpy.typing import NDArray

from pepper.placement.costs import Costs
from pepper.placement.evaluate import Stage, Stages, evaluate
from pepper.placement.objectives import THROUGHPUT, Objective
from pepper.placement.problem import ChainProblem, Floats
from pepper.placement.relaxed import Found, relaxed

ROUNDS = 40
"""Price adjustments for one target period."""

STEP = 1.0
"""How strongly a price follows the demand at first; the strength falls with the root of the round."""

BEAM = 30
"""Plans grown side by side when a plan within the numbers of devices is sought."""

BISECTIONS = 40
"""Target periods tried."""

MOST_PARTS = 1 << 27
"""Most (start, stop, kind) that fit in memory, a byte each."""


def balanced(problem: ChainProblem, objective: Objective, deadline: float) -> Found:
    """Bound and find the least period when kinds have few devices, whatever the number of kinds.

    Bisects the period. For one target, each part within it is a step of a path from the first boundary to the
    last that takes one device of its kind. Every kind has a price: a cheapest path that takes no more devices
    than there are is a plan, and if even the cheapest path costs more than all devices together, no plan
    meets the target (Lagrangian duality). Prices rise with demand by multiplicative weights (Arora, Hazan and
    Kale, "The Multiplicative Weights Update Method", Theory of Computing 2012). A path takes
    O(n^2 D + n D^2).

    Says nothing with `reuse`, or for other objectives.
    """
    loose = Found(None, 0.0)
    n, n_devices = problem.n_steps, len(problem.devices)
    if not objective.bottleneck or problem.reuse or n * n * n_devices > MOST_PARTS:
        return loose
    low = relaxed(problem, objective, deadline).bound
    if math.isinf(low):
        return Found(None, math.inf)
    pricing = _Pricing(problem)
    best: Stages | None = None
    high = math.inf
    tried = low  # below it there is no plan, or none was found
    target = low * (1 + 1e-9)
    for _ in range(BISECTIONS):
        stages, impossible = pricing.meet(target, deadline)
        if stages is not None:
            best, high = stages, min(high, evaluate(problem, stages).period_ms)
        else:
            tried = target
            low = max(low, target) if impossible else low
        if time.monotonic() > deadline or (math.isfinite(high) and high - tried <= 1e-6 * high):
            break
        if math.isfinite(high):
            target = (tried + high) / 2
        elif tried > pricing.longest_ms:
            break
        else:
            target = max(1.5 * tried, 1e-9)
    # No part or hop takes a time between the bound and the next that occurs.
    return Found(best, min(high, pricing.next_value(low)))


class _Pricing:
    def __init__(self, problem: ChainProblem) -> None:
        self.costs = Costs(problem, THROUGHPUT)
        self.n = problem.n_steps
        self.most = np.array([0 if d.name in problem.excluded else d.count for d in problem.devices], dtype=float)
        self.longest_ms = 0.0
        for start in range(self.n):
            times = self.costs.parts_from(start)
            self.longest_ms = max(self.longest_ms, float(times[np.isfinite(times)].max(initial=0.0)))
        self.hop = np.stack([self.costs.hop(boundary) for boundary in range(self.n + 1)])
        hops = self.hop[np.isfinite(self.hop)]
        self.longest_ms = max(self.longest_ms, float(hops.max(initial=0.0)))

    def next_value(self, low: float) -> float:
        """Return the least time of a part or hop that is not below `low`."""
        edge = low * (1 - 1e-12)
        least = math.inf
        parts = (self.costs.parts_from(start) for start in range(self.n))
        for times in (self.hop, self.costs.entry, self.costs.exit, *parts):
            above = times[times >= edge]
            least = min(least, float(above.min(initial=math.inf)))
        return least if math.isfinite(least) else low

    def meet(self, target_ms: float, deadline: float) -> tuple[Stages | None, bool]:
        """Look for a plan within a period; tell also whether there surely is none."""
        within = [self.costs.parts_from(start) <= target_ms for start in range(self.n)]
        hop = np.where(self.hop <= target_ms, 0.0, math.inf)
        ends = [np.where(end <= target_ms, 0.0, math.inf) for end in (self.costs.entry, self.costs.exit)]
        price = np.ones(len(self.most)) / self.most.sum()
        worth = price.copy()
        for turn in range(ROUNDS):
            stages, cost = self._path(within, hop, ends, price)
            if stages is None:
                return None, True
            used = np.bincount([stage.device for stage in stages], minlength=len(self.most))
            if (used <= self.most).all():
                return stages, False
            if cost > float(price @ self.most) * (1 + 1e-9):
                return None, True
            if time.monotonic() > deadline:
                break
            demand = used / np.maximum(self.most, 1e-9) - 1
            demand /= max(np.abs(demand).max(), 1e-9)
            price *= np.exp(STEP / math.sqrt(1 + turn) * demand)
            price /= price @ self.most
            worth += price
        return self._grow(within, hop, ends, worth / (worth @ self.most)), False

    def _grow(self, within: list[NDArray[np.bool_]], hop: Floats, ends: list[Floats], price: Floats) -> Stages | None:
        """Grow plans part by part within the numbers of devices; keep those that promise the least price."""
        n, n_devices = self.n, len(price)
        _, _, after = self._cheapest(within, hop, ends, price)
        longest = [
            np.where(ok.any(axis=0), start + len(ok) - ok[::-1].argmax(axis=0), start)
            for start, ok in enumerate(within)
        ]
        goes_on = (hop == 0).any(axis=2)
        goes_on[n] = ends[1] == 0
        beam: list[tuple[float, Stages]] = [(0.0, ())]
        while beam:
            grown: dict[tuple[int, int, bytes], tuple[float, float, Stages]] = {}
            for cost, stages in beam:
                start = stages[-1].stop if stages else 0
                used = np.bincount([stage.device for stage in stages], minlength=n_devices)
                enter = hop[start, stages[-1].device] if stages else ends[0]
                for device in np.flatnonzero((used < self.most) & (enter == 0)):
                    stop = int(longest[start][device])
                    while stop > start and not goes_on[stop, device]:
                        stop -= 1
                    if stop <= start or not within[start][stop - start - 1, device]:
                        continue
                    plan = (*stages, Stage(start, stop, int(device)))
                    if stop == n:
                        return plan
                    paid = cost + float(price[device])
                    key = (stop, int(device), (used + (np.arange(n_devices) == device)).tobytes())
                    score = paid + float(after[stop, device])
                    if key not in grown or score < grown[key][0]:
                        grown[key] = (score, paid, plan)
            best = sorted(grown.values(), key=lambda entry: entry[0])[:BEAM]
            beam = [(paid, plan) for _, paid, plan in best]
        return None

    def _path(
        self, within: list[NDArray[np.bool_]], hop: Floats, ends: list[Floats], price: Floats
    ) -> tuple[Stages | None, float]:
        """Return a path of least price, and the price."""
        begin, choices, _ = self._cheapest(within, hop, ends, price)
        first = ends[0] + begin
        here, at = int(first.argmin()), 0
        cost = float(first[here])
        if math.isinf(cost):
            return None, math.inf
        stop, onward = choices
        stages = []
        while True:
            end = int(stop[at, here])
            stages.append(Stage(at, end, here))
            if end == self.n:
                return tuple(stages), cost
            at, here = end, int(onward[end, here])

    def _cheapest(
        self, within: list[NDArray[np.bool_]], hop: Floats, ends: list[Floats], price: Floats
    ) -> tuple[Floats, tuple[NDArray[np.int64], NDArray[np.int64]], Floats]:
        """Return the least price of a path by first device, the choices, and the price after each part."""
        n, device = self.n, np.arange(len(price))
        after = np.full((n + 1, len(price)), math.inf)
        after[n] = ends[1]
        stop = np.zeros((n, len(price)), dtype=np.int64)
        onward = np.zeros((n + 1, len(price)), dtype=np.int64)
        begin = np.zeros(len(price))
        for start in range(n - 1, -1, -1):
            total = np.where(within[start], after[start + 1 :], math.inf)
            choice = len(total) - 1 - total[::-1].argmin(axis=0)  # the longest of equals
            begin = price + total[choice, device]
            stop[start] = start + 1 + choice
            following = hop[start] + begin
            onward[start] = following.argmin(axis=1)
            after[start] = following[device, onward[start]]
        return begin, (stop, onward), after
