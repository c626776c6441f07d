"""The plan that a solution of the branched problem stands for, and how sure it is."""

from dataclasses import dataclass

import numpy as np

from pepper.placement.branched import BranchedProblem, evaluate_branched, whole_on
from pepper.placement.chain import Solution
from pepper.placement.decision import Spread, error_factors
from pepper.placement.evaluate import Stages
from pepper.placement.objectives import Objective
from pepper.placement.plan import Origin, Plan
from pepper.placement.problem import Floats

MOST_SAMPLES = 500
"""Samples of the predictions' error: each plays a request through all parts."""


@dataclass(frozen=True)
class Chances:
    """How sure a plan is under the predictions' error.

    Attributes:
        probability: That it is truly better than not splitting; 1 where it does not split, or nothing else can.
        low: The 5th percentile of its value.
        high: The 95th.
    """

    probability: float
    low: float
    high: float


def chances(
    problem: BranchedProblem, stages: Stages, objective: Objective, spread: Spread, samples: int, seed: int
) -> Chances:
    """Score a plan and the best one that does not split on the same samples of the predictions' error."""
    count = min(samples, MOST_SAMPLES)
    factor = error_factors(problem.chain, spread, count, seed)

    def values(plan: Stages) -> Floats:
        cost = evaluate_branched(problem, plan)
        times = np.stack([ms * factor(stage) for ms, stage in zip(cost.stage_ms, plan, strict=True)], axis=1)
        return np.array([objective.value(evaluate_branched(problem, plan, row)) for row in times.tolist()])

    mine = values(stages)
    unsplit = [whole_on(problem, device) for device in problem.able]
    costs = {plan: evaluate_branched(problem, plan) for plan in unsplit}
    kept = [plan for plan, cost in costs.items() if not cost.violations]
    probability = 1.0
    if kept and len(stages) > 1:
        single = min(kept, key=lambda plan: objective.value(costs[plan]))
        probability = float(np.mean(mine < values(single)))
    low, high = np.quantile(mine, [0.05, 0.95]).tolist()
    return Chances(probability, low, high)


def branched_plan(problem: BranchedProblem, solution: Solution, objective: Objective, origin: Origin) -> Plan:
    """Write down a solution; see `Plan.of`."""
    cost = evaluate_branched(problem, solution.stages)
    received = [
        (sum(message.time_ms for message in messages), sum(message.sent_bytes for message in messages))
        for messages in (
            [message for message in cost.handovers if message.receiver == number]
            for number in range(len(solution.stages) + 1)
        )
    ]
    return Plan.costed(problem.chain, solution, objective, origin, cost, received, cost.begin_ms)
