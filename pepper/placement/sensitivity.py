"""Where the best plan changes: along bandwidth, along load, or along anything that changes the problem."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from pepper.errors import PlacementError
from pepper.placement.chain import solve
from pepper.placement.evaluate import Stages
from pepper.placement.objectives import LATENCY, Objective
from pepper.placement.problem import ChainProblem

Scaling = Callable[[ChainProblem, float], ChainProblem]


@dataclass(frozen=True)
class FlipPoint:
    """The best plan below and above a factor (None: no plan).

    Attributes:
        factor: Where it changes.
        below: The best plan just below.
        above: The best plan just above.
    """

    factor: float
    below: Stages | None
    above: Stages | None


def scale_bandwidth(problem: ChainProblem, factor: float) -> ChainProblem:
    """Multiply every link's bandwidth; its latency stays."""
    links = problem.links
    return replace(
        problem,
        links=replace(
            links,
            ms_per_byte=links.ms_per_byte / factor,
            occupied_ms_per_byte=links.occupied_ms_per_byte / factor,
        ),
    )


def scale_times(device: str) -> Scaling:
    """Return a scaling of one device's part times, as a load on it does."""

    def scale(problem: ChainProblem, factor: float) -> ChainProblem:
        times = problem.part_ms.copy()
        times[..., problem.index(device)] *= factor
        return replace(problem, part_ms=times)

    return scale


def flip_points(
    problem: ChainProblem,
    scaling: Scaling = scale_bandwidth,
    objective: Objective = LATENCY,
    low: float = 0.1,
    high: float = 10.0,
    samples: int = 9,
    tolerance: float = 1e-3,
    time_limit_s: float = 10.0,
) -> tuple[FlipPoint, ...]:
    """Return the factors at which the best plan changes.

    Solves at `samples` factors from `low` to `high`, evenly spaced in their logarithm, and bisects wherever
    two neighbours differ, so that several changes between two samples are all found if the plans differ.

    Args:
        problem: The problem at factor 1.
        scaling: What the factor does to it.
        objective: As for `solve`.
        low: Least factor, above 0.
        high: Greatest factor.
        samples: Number of factors in the first round.
        tolerance: Relative accuracy of a flip point.
        time_limit_s: For each solution.

    Raises:
        PlacementError: If the range is empty.
    """
    if not 0 < low < high:
        raise PlacementError(f"flip points: range {low} to {high}; give 0 < low < high")

    def best(factor: float) -> Stages | None:
        try:
            return solve(scaling(problem, factor), objective, time_limit_s).stages
        except PlacementError:
            return None

    def between(left: float, below: Stages | None, right: float, above: Stages | None) -> list[FlipPoint]:
        if below == above:
            return []
        middle = math.sqrt(left * right)
        if right / left < 1 + tolerance:
            return [FlipPoint(middle, below, above)]
        plan = best(middle)
        return between(left, below, middle, plan) + between(middle, plan, right, above)

    factors = np.geomspace(low, high, samples).tolist()
    plans = [best(factor) for factor in factors]
    found: list[FlipPoint] = []
    for k in range(samples - 1):
        found += between(factors[k], plans[k], factors[k + 1], plans[k + 1])
    return tuple(found)
