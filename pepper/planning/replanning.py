"""From a lost device to the next plan."""

from collections.abc import Callable
from dataclasses import replace

from pepper.errors import DeviceError, LatencyError, PlacementError
from pepper.execution.layout import Layout
from pepper.graph.borders import Borders
from pepper.placement.chain import Solution, solve
from pepper.placement.objectives import Objective
from pepper.placement.plan import Origin, Plan
from pepper.placement.problem import ChainProblem
from pepper.planning.planned import Planned
from pepper.planning.splitting import Splitter


def replanner(planned: Planned, splitter: Splitter) -> Callable[[frozenset[str]], Layout | None]:
    """Return what solves a plan's problem again without the devices that were lost.

    The champion predicts; where there is none, a host that must be asked is lost, or no plan keeps to the rules
    (operators pinned to a lost device are pinned still), there is no other plan.
    """

    def replan(lost: frozenset[str]) -> Layout | None:
        objective = planned.plan.minimised
        try:
            problem = replace(planned.problem, excluded=planned.problem.excluded | lost)
            solution = solve(problem, objective, planned.config.place.time_limit_seconds)
        except (DeviceError, LatencyError, PlacementError):
            return None
        return next_layout(splitter, planned.forecast.borders, problem, solution, objective)

    return replan


def next_layout(
    splitter: Splitter, borders: Borders, problem: ChainProblem, solution: Solution, objective: Objective
) -> Layout:
    """Write the parts of a solution, and return its layout."""
    origin = Origin(positions=borders.positions, tensors=borders.tensors)
    return splitter.planned(Plan.of(problem, solution, objective, origin), "the next plan")
