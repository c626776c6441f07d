"""The plan that a solution of the branched problem stands for, and how sure it is."""

from dataclasses import dataclass

import numpy as np

from pepper.config.placing import PlanGraph
from pepper.placement.branched import BranchedProblem, evaluate_branched, whole_on
from pepper.placement.chain import Solution
from pepper.placement.decision import Spread, error_factors
from pepper.placement.evaluate import Stages
from pepper.placement.objectives import OBJECTIVES, Objective
from pepper.placement.plan import Origin, Plan, PlannedPart, planned_fleet
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
    chain, cost = problem.chain, evaluate_branched(problem, solution.stages)
    count = len(solution.stages)
    received = {number: [h for h in cost.handovers if h.receiver == number] for number in range(count + 1)}
    positions = origin.positions or range(problem.n_steps + 1)
    parts = tuple(
        PlannedPart(
            start=positions[stage.start],
            stop=positions[stage.stop],
            device=chain.devices[stage.device].name,
            time_ms=cost.stage_ms[k],
            pickup_ms=cost.pickup_ms[k],
            memory_bytes=cost.stage_bytes[k],
            receive_ms=sum(message.time_ms for message in received[k]),
            receive_bytes=sum(message.sent_bytes for message in received[k]),
            inputs=origin.tensors[stage.start] if origin.tensors else (),
            outputs=origin.tensors[stage.stop] if origin.tensors else (),
            begin_ms=cost.begin_ms[k],
        )
        for k, stage in enumerate(solution.stages)
    )
    return Plan(
        model=origin.model,
        fleet=planned_fleet(chain, solution.stages, origin.fleet),
        objective=objective.name,
        parts=parts,
        return_ms=sum(message.time_ms for message in received[count]),
        latency_ms=cost.latency_ms,
        period_ms=cost.period_ms,
        sent_bytes=cost.sent_bytes,
        bound_ms=solution.bound,
        gap=solution.gap,
        solver=solution.solver,
        provenance=dict(origin.provenance),
        rules=origin.rules,
        goal=None if OBJECTIVES.get(objective.name) == objective else objective,
        graph=PlanGraph.dag,
    )
