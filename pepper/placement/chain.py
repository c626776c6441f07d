"""Solvers for the chain problem, from the quickest to the most general.

`relaxed` lets every device be used freely and forgets the limits that run over several parts: one vectorised
dynamic program whose value is a lower bound, and whose plan is optimal whenever it breaks no rule. `distinct`
adds which devices are taken, and `balanced` does so for the throughput of many devices; `labels` adds
everything. `solve` asks them in turn until one has the proof.

A solver takes ``(problem, objective, deadline)`` and returns a `Found`: stages that it holds for good or None, and a
bound that no plan is below. It may give up at the deadline (of `time.monotonic`), or where the problem is none of its
kind: then with None and a bound of 0. The contract tests run over `SOLVERS`; installed packages add more.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from pepper import additions
from pepper.errors import ConfigError
from pepper.placement.balanced import balanced
from pepper.placement.distinct import distinct
from pepper.placement.evaluate import Stages, evaluate
from pepper.placement.labels import labels
from pepper.placement.objectives import ENERGY, FEWEST_PARTS, LATENCY, Objective
from pepper.placement.problem import ChainProblem
from pepper.placement.relaxed import Found, relaxed
from pepper.placement.shortage import TimeLimitError, explain

PROOF = 1e-7
"""A relative gap up to which an answer counts as proven optimal."""

Solver = Callable[[ChainProblem, Objective, float], Found]

EXPLAIN_S = 5.0
"""Most time for finding out why there is no plan."""

SOLVERS: dict[str, Solver] = {
    "relaxed": relaxed,
    "distinct": distinct,
    "balanced": balanced,
    "labels": labels,
}


def solvers() -> dict[str, Solver]:
    """Return the solvers in the order in which they are asked: first those that installed packages add.

    Raises:
        ConfigError: One of these cannot be imported, or is no function.
    """
    added: dict[str, Solver] = {}
    for name in additions.names(additions.SOLVERS):
        solver: Any = additions.load(additions.SOLVERS, name)
        if not callable(solver):
            raise ConfigError(f"{name!r} of {additions.SOLVERS}: is no function; see {__name__}.Solver")
        added[name] = solver
    return added | SOLVERS


@dataclass(frozen=True)
class Solution:
    """An answer and how far from optimal it can be.

    Attributes:
        stages: The parts and their devices.
        value: What was minimised, in the objective's unit.
        bound: No plan is below this.
        solver: Which solver found the stages.
    """

    stages: Stages
    value: float
    bound: float
    solver: str

    @property
    def gap(self) -> float:
        """Relative distance from the bound to the value; 0 when proven."""
        return gap(self.value, self.bound)

    @property
    def proven(self) -> bool:
        """Whether no plan is better."""
        return self.gap == 0.0


def gap(value: float, bound: float) -> float:
    """Return (value - bound) / value, and 0 where the two agree up to rounding."""
    distance = value - bound
    return 0.0 if distance <= PROOF * max(abs(value), 1e-12) else distance / value


def solve(problem: ChainProblem, objective: Objective = LATENCY, time_limit_s: float = 60.0) -> Solution:
    """Return the best plan, with fewer parts where two are equal.

    Args:
        problem: The chain, the devices and the limits.
        objective: What is minimised.
        time_limit_s: When to stop with the best found; the bound then says how good it is.

    Raises:
        PlacementError: If no plan keeps to the rules (saying what is short), or none was found in time.
    """
    deadline = time.monotonic() + time_limit_s
    best = _cascade(problem, objective, deadline)
    if objective == ENERGY or (objective.bottleneck and len(best.stages) > 1):
        best = _fewest_parts(problem, objective, best, deadline)
    return best


def pareto(problem: ChainProblem, time_limit_s: float = 60.0) -> tuple[Solution, ...]:
    """Return the plans of least latency for every period, from the lowest latency to the lowest period.

    Walks along the front: each plan must have a smaller period than the one before. When the time is up, the
    last solution carries what is missing: its gap is that of the walk's last step.

    Raises:
        PlacementError: If there is no plan at all.
    """
    deadline = time.monotonic() + time_limit_s
    front = [_cascade(problem, LATENCY, deadline)]
    while time.monotonic() < deadline:
        period_ms = evaluate(problem, front[-1].stages).period_ms
        if period_ms == 0.0:
            break
        tighter = problem.with_limits(period_ms=period_ms * (1 - 1e-6))
        step, _ = _ask_all(tighter, LATENCY, deadline)
        if step is None:
            break
        if gap(step.value, front[-1].value) == 0.0:  # as quick, with a smaller period
            front.pop()
        front.append(step)
    return tuple(front)


def soonest(problem: ChainProblem, deadline: float) -> Solution | None:
    """Return the plan of least latency; None where no plan keeps to the limits, or none was found in time."""
    return soonest_bounded(problem, deadline)[0]


def soonest_bounded(problem: ChainProblem, deadline: float) -> tuple[Solution | None, float]:
    """Return the same, and what no plan is below: ``inf`` where there is none."""
    return _ask_all(problem, LATENCY, deadline)


def _cascade(problem: ChainProblem, objective: Objective, deadline: float) -> Solution:
    best, bound = _ask_all(problem, objective, deadline)
    if best is not None:
        return best
    if math.isfinite(bound):
        raise TimeLimitError("time_limit_s: no plan found in time, and none ruled out; give it more")
    grace = time.monotonic() + EXPLAIN_S

    def find(changed: ChainProblem, wanted: Objective) -> Stages | None:
        found, _ = _ask_all(changed, wanted, grace)
        return found.stages if found is not None else None

    raise explain(_judged(problem, objective), find)


def _ask_all(problem: ChainProblem, objective: Objective, deadline: float) -> tuple[Solution | None, float]:
    """Ask each solver until one has the proof; return the best plan and bound (``inf``: there is no plan)."""
    best: Solution | None = None
    bound = 0.0
    for name, solver in solvers().items():
        found = solver(problem, objective, deadline)
        bound = max(bound, found.bound)
        if found.stages is not None:
            cost = evaluate(problem, found.stages)
            value = objective.value(cost)
            if not cost.violations and (best is None or value < best.value):
                best = Solution(found.stages, value, bound, name)
        if best is not None:
            best = replace(best, bound=min(bound, best.value))
        if math.isinf(bound) or (best is not None and best.proven):
            break
    return best, bound


def _fewest_parts(problem: ChainProblem, objective: Objective, best: Solution, deadline: float) -> Solution:
    """Among plans of the same period or energy take the one of fewest parts, and of least latency among those."""
    limit = "period_ms" if objective.bottleneck else "energy_j"
    tied = problem.with_limits(**{limit: best.value * (1 + PROOF / 10), "parts": len(best.stages)})
    fewer, _ = _ask_all(tied, FEWEST_PARTS, deadline)
    if fewer is None:  # none within the time
        return best
    return replace(best, stages=fewer.stages, value=objective.value(evaluate(problem, fewer.stages)))


def _judged(problem: ChainProblem, objective: Objective) -> ChainProblem:
    """Return the problem without the devices that no plan can have parts on, as their energy is not known."""
    if not objective.per_joule and math.isinf(problem.limits.energy_j):
        return problem
    unmeasured = {device.name for device in problem.devices if math.isinf(device.power_w)}
    return replace(problem, excluded=problem.excluded | unmeasured)
