"""One dynamic program over (boundary, device): a bound for every chain problem, the optimum of most."""

import math
from dataclasses import dataclass

import numpy as np

from pepper.placement.costs import Costs
from pepper.placement.evaluate import Stage, Stages
from pepper.placement.objectives import Objective
from pepper.placement.problem import ChainProblem, Floats


@dataclass(frozen=True)
class Found:
    """What a solver has to say.

    Attributes:
        stages: Its best plan (which may break rules that the solver does not know), or None.
        bound: No plan is below this value; ``inf`` says that there is none at all.
    """

    stages: Stages | None
    bound: float


class Completion:
    """The least cost of finishing a plan, when devices may be used freely.

    With at most K parts there is a layer for each number of parts still allowed; otherwise one layer serves.
    Takes O(K n^2 D + K n D^2) time, O(K n D + K n D^2) with additive costs, and O(K n D) memory.

    Attributes:
        after: (layers, n + 1, D) cost of what follows a part that ends at a boundary on a device.
        value: Least cost of a whole plan.
    """

    def __init__(self, costs: Costs) -> None:
        n, n_devices = costs.problem.n_steps, len(costs.problem.devices)
        self._limited = costs.problem.limits.parts < n
        self.layers = int(costs.problem.limits.parts) if self._limited else 1
        shape = (self.layers, n + 1, n_devices)
        combine, layer, device = costs.combine, np.arange(self.layers)[:, None], np.arange(n_devices)
        self.after = np.full(shape, math.inf)
        self.after[:, n] = costs.exit
        # The next part's device after (layer, boundary, device); the end of a part begun at those.
        self._next = np.zeros(shape, dtype=np.int32)
        self._stop = np.zeros(shape, dtype=np.int32)
        best = np.full((self.layers, n_devices), math.inf)
        if costs.additive:
            before = np.zeros((n + 1, n_devices))
            np.cumsum(np.where(costs.blocked, 0.0, costs.problem.part_ms), axis=0, out=before[1:])
            ahead = np.full((self.layers, n_devices), math.inf)
            ahead_stop = np.zeros((self.layers, n_devices), dtype=np.int32)
        for start in range(n - 1, -1, -1):
            if costs.additive:
                # Costs from here to each stop differ by a constant: keep the running minimum.
                candidate = before[start + 1] + self.after[:, start + 1]
                ahead[:, costs.blocked[start]] = math.inf
                candidate[:, costs.blocked[start]] = math.inf
                ahead_stop = np.where(candidate <= ahead, start + 1, ahead_stop).astype(np.int32)
                ahead = np.minimum(ahead, candidate)
                best = ahead - before[start] + costs.problem.handling_ms[start] + costs.per_part
                self._stop[:, start] = ahead_stop
            else:
                total = combine(costs.parts_from(start), self.after[:, start + 1 :])
                choice = total.argmin(axis=1)
                best = total[layer, choice, device]
                self._stop[:, start] = start + 1 + choice
            if start:
                total = combine(costs.hop(start), best[:, None, :])
                choice = total.argmin(axis=2)
                into = total[layer, device, choice]
                if self._limited:
                    self.after[1:, start], self._next[1:, start] = into[:-1], choice[:-1]
                else:
                    self.after[:, start], self._next[:, start] = into, choice
        first = combine(costs.entry, best[-1])
        self._first = int(first.argmin())
        self.value = float(first[self._first])

    def after_parts(self, used: int) -> Floats:
        """Return (n + 1, D): `after` for a plan that has `used` parts already."""
        after: Floats = self.after[self.layers - used if self._limited else 0]
        return after

    def stages(self) -> Stages:
        """Return the plan of least cost."""
        layer, start, device = self.layers - 1, 0, self._first
        found = []
        n = self.after.shape[1] - 1
        while True:
            stop = int(self._stop[layer, start, device])
            found.append(Stage(start, stop, device))
            if stop == n:
                return tuple(found)
            start, device = stop, int(self._next[layer, stop, device])
            layer -= self._limited


def relaxed(problem: ChainProblem, objective: Objective, deadline: float) -> Found:
    """Solve without the rules that run over several parts of a plan.

    It keeps to pins, exclusions, links, the number of parts, and to memory and period part by part. It
    forgets how often a device is used, what its parts take together, and the limits on latency and bytes.
    """
    del deadline  # polynomial: there is nothing to stop
    costs = Costs(problem, objective)
    completion = Completion(costs)
    if math.isinf(completion.value):
        return Found(None, math.inf)
    stages = completion.stages()
    return Found(stages, lower_bound(completion.value, costs))


def lower_bound(value: float, costs: Costs) -> float:
    """Turn a least cost into a bound on what the objective itself counts."""
    if costs.objective.counts:
        return float(math.floor(value / costs.objective.per_part)) * costs.objective.per_part
    return value - costs.per_part * costs.problem.n_steps
