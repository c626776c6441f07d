"""Solves for the plans of several models on one fleet.

From several starts each model in turn is placed anew beside the plans of the others, exactly, until none gains by it
(coordinate descent). What time is left goes to branch and bound: plans of a first model in the order of what they cost,
under each those of a second one, and so on; the last one's is solved for. Each model's best plan beside those that are
there already is a bound on what it will add (see `pepper.placement.joint`), so that small problems are proven, and of
large ones is known how far from the optimum they are at most.
"""

import heapq
import itertools
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

from pepper.placement.chain import gap, soonest, soonest_bounded
from pepper.placement.costs import Costs
from pepper.placement.evaluate import Stage, Stages, evaluate
from pepper.placement.joint import MOST_BUSY, JointCost, JointProblem
from pepper.placement.objectives import LATENCY
from pepper.placement.problem import ChainProblem
from pepper.placement.relaxed import Completion, lower_bound

MOST_ORDERS = 12
"""Orders in which the models are placed one after the other, to start from."""
STARTS_SHARE = 0.4
"""Share of the time for these."""
LEAST_RATE = 1e-12
"""Of the rates: so little that the models do not meet."""

Plans = Mapping[int, Stages]


@dataclass(frozen=True)
class JointSolution:
    """Plans, and how far from optimal they can be.

    Attributes:
        plans: Each model's.
        cost: What they cost together.
        bound_ms: No plans have a lower mean over all requests.
        solver: What found them.
    """

    plans: tuple[Stages, ...]
    cost: JointCost
    bound_ms: float
    solver: str

    @property
    def gap(self) -> float:
        """Relative distance from the bound to the mean; 0 when proven."""
        return gap(self.cost.mean_ms, self.bound_ms)


@dataclass(frozen=True)
class Unsolved:
    """What there is in place of a solution.

    Attributes:
        proven: Whether there are no plans at all; else none were found in time.
        carried: Of the rates, what plans were found for; 0 where memory holds the models at no rate.
    """

    proven: bool
    carried: float


def solve_joint(problem: JointProblem, time_limit_s: float = 30.0, seed: int = 0) -> JointSolution | Unsolved:
    """Return plans of the least mean latency over all requests, as far as the time allows.

    Args:
        problem: The models and the fleet.
        time_limit_s: When to stop.
        seed: Of the orders that are tried.
    """
    begun = time.monotonic()
    search = _JointSearch(problem, begun + time_limit_s, begun + STARTS_SHARE * time_limit_s)
    carried = search.start(Random(seed))
    bound_ms = search.prove()
    if search.best is None:
        return Unsolved(math.isinf(bound_ms), carried)
    plans, cost = search.best
    solver = "coordinate descent" if bound_ms < cost.mean_ms and gap(cost.mean_ms, bound_ms) else "branch and bound"
    return JointSolution(plans, cost, min(bound_ms, cost.mean_ms), solver)


class _JointSearch:
    def __init__(self, problem: JointProblem, deadline: float, half: float) -> None:
        self._problem, self._deadline, self._half = problem, deadline, half
        self.best: tuple[tuple[Stages, ...], JointCost] | None = None

    def start(self, random: Random) -> float:
        """Find plans; return which part of the rates some carry, at most 1."""
        everyone = range(len(self._problem.streams))
        orders = [*itertools.islice(itertools.permutations(everyone), MOST_ORDERS)]
        if math.factorial(len(everyone)) > MOST_ORDERS:
            orders = [tuple(random.sample(everyone, len(everyone))) for _ in range(MOST_ORDERS)]
        for order in orders:
            if self.best is not None and time.monotonic() > self._half:
                break
            plans = self.in_turn(self._problem, order)
            if plans is not None:
                self._keep(self._settled(self._problem, plans))
        if self.best is not None:
            return 1.0
        return max((self._grown(order) for order in orders[: len(everyone)]), default=0.0)

    def _keep(self, plans: Plans) -> None:
        cost = self._problem.evaluate(plans)
        if not cost.violations and (self.best is None or cost.mean_ms < self.best[1].mean_ms):
            self.best = tuple(plans[who] for who in range(len(plans))), cost

    def in_turn(self, problem: JointProblem, order: Sequence[int]) -> Plans | None:
        """Place one model after the other, beside those that are placed; None where there is no room for one."""
        plans: dict[int, Stages] = {}
        for who in order:
            found = soonest(problem.beside(who, plans), self._deadline)
            if found is None:
                return None
            plans[who] = found.stages
        return plans

    def _settled(self, problem: JointProblem, plans: Plans) -> Plans:
        """Place each model anew beside the others until none gains."""
        plans, mean_ms = dict(plans), problem.evaluate(plans).mean_ms
        stale = 0
        for who in itertools.cycle([*plans]):
            if stale == len(plans) or time.monotonic() > self._deadline:
                break
            stale += 1
            others = {other: stages for other, stages in plans.items() if other != who}
            found = soonest(problem.beside(who, others), self._deadline)
            if found is not None and found.stages != plans[who]:
                changed = {**plans, who: found.stages}
                if (changed_ms := problem.evaluate(changed).mean_ms) < mean_ms * (1 - 1e-9):
                    plans, mean_ms, stale = changed, changed_ms, 1
        return plans

    def _grown(self, order: Sequence[int]) -> float:
        """Place the models at low rates and raise these as far as the plans can be made to carry them."""
        factor = LEAST_RATE
        plans = self.in_turn(self._problem.scaled(factor), order)
        if plans is None:
            return 0.0
        while time.monotonic() < self._deadline:
            busiest = max(self._problem.evaluate(plans).busy.values(), default=0.0)
            carried = MOST_BUSY / busiest if busiest else math.inf
            if carried >= 1:
                self._keep(self._settled(self._problem, plans))
                return 1.0
            if carried <= factor * (1 + 1e-6):
                break
            factor = carried
            plans = self._settled(self._problem.scaled(factor * (1 - 1e-9)), plans)
        return factor

    def prove(self) -> float:
        """Branch and bound; return what no plans are below (``inf``: there are none but those found)."""
        everyone = range(len(self._problem.streams))
        alone_ms = [soonest_bounded(self._problem.beside(who, {}), self._deadline)[1] for who in everyone]
        longest = sorted(everyone, key=lambda who: -alone_ms[who])  # it is in the way of most
        bound_ms = self._below({}, longest)
        return bound_ms if self.best is None else min(bound_ms, self.best[1].mean_ms)

    def _below(self, plans: Plans, left: Sequence[int]) -> float:
        """Look at all plans of the models left, beside those that are placed; return a bound on what they come to."""
        weights = self._problem.weights
        placed_ms = self._problem.evaluate(plans).mean_ms if plans else 0.0
        found = {who: soonest_bounded(self._problem.beside(who, plans), self._deadline) for who in left}
        least = {who: weights[who] * bound for who, (_, bound) in found.items()}
        if self._hopeless(bound_ms := placed_ms + sum(least.values())):
            return bound_ms
        first, *others = left
        if not others:
            if (best := found[first][0]) is not None:
                self._keep({**plans, first: best.stages})
            return bound_ms
        lowest = math.inf
        for value, stages in in_order(self._problem.beside(first, plans), self._deadline):
            at_least_ms = placed_ms + weights[first] * value + sum(least[who] for who in others)
            if stages is None or self._hopeless(at_least_ms):
                return min(lowest, at_least_ms)
            lowest = min(lowest, self._below({**plans, first: stages}, others))
        return lowest

    def _hopeless(self, bound_ms: float) -> bool:
        if math.isinf(bound_ms):
            return True
        return self.best is not None and not gap(self.best[1].mean_ms, bound_ms)


def in_order(problem: ChainProblem, deadline: float) -> Iterator[tuple[float, Stages | None]]:
    """Yield the latencies and plans of a chain, each device used at most once, from the lowest latency on.

    What a plan's beginning comes to at least is known exactly but for devices that would be used twice (`Completion`):
    the beginning of the least such value is always the next to be looked at (A*). At the deadline the last one comes:
    what all further plans come to at least, and None.
    """
    costs = Costs(problem, LATENCY)
    completion = Completion(costs)
    n, numbers = problem.n_steps, itertools.count()
    parts = [costs.parts_from(start) for start in range(n)]
    hops = [costs.hop(boundary) for boundary in range(n)]
    waiting: list[tuple[float, int, float, Stages]] = [(completion.value, next(numbers), 0.0, ())]
    while waiting:
        least, _, value, stages = heapq.heappop(waiting)
        if time.monotonic() > deadline:
            yield lower_bound(least, costs), None
            return
        start = stages[-1].stop if stages else 0
        if start == n:
            if not evaluate(problem, stages).violations:
                yield lower_bound(least, costs), stages
            continue
        taken = {stage.device for stage in stages}
        if len(stages) + 1 > problem.limits.parts:
            continue
        after = completion.after_parts(len(stages) + 1)
        hop = hops[start][stages[-1].device] if stages else costs.entry
        for device in range(len(problem.devices)):
            if device in taken:
                continue
            so_far = value + hop[device] + parts[start][:, device]
            for offset, total in enumerate((so_far + after[start + 1 :, device]).tolist()):
                if math.isfinite(total):
                    stage = Stage(start, start + 1 + offset, device)
                    heapq.heappush(waiting, (total, next(numbers), float(so_far[offset]), (*stages, stage)))


def memory_missing(problem: JointProblem, time_limit_s: float = 5.0) -> float:
    """Return how many bytes more on each device let it hold all models, to one part in a hundred."""
    deadline = time.monotonic() + time_limit_s
    rare = problem.scaled(LEAST_RATE)
    everyone = range(len(rare.streams))

    def enough(more: float) -> bool:
        richer = tuple(replace(device, memory_bytes=device.memory_bytes + more) for device in rare.devices)
        changed = JointProblem(tuple(replace(s, problem=replace(s.problem, devices=richer)) for s in rare.streams))
        search = _JointSearch(changed, deadline, deadline)
        return any(search.in_turn(changed, order) for order in (everyone, everyone[::-1]))

    low, high = 0.0, sum(stream.problem.part_memory_bytes(0, stream.problem.n_steps) for stream in rare.streams)
    while high - low > high / 100:
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
