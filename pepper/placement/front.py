"""All trade-offs of latency, period and energy: every plan that no other beats in all three.

The plans found so far leave corners of a staircase: a period and an energy that the next plan must both stay below.
Each corner has its plan of least latency; the least of these joins the front, and its corner gives way to two. So every
plan of the front is found once, from the lowest latency on, with some two solutions each (the epsilon-constraint method
over local upper bounds: Klamroth, Lacour and Vanderpooten, "On the representation of the search region in
multi-objective optimization", EJOR 2015, where one of the objectives is minimised and two are bounded).
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pepper.placement.chain import Solution, soonest
from pepper.placement.evaluate import evaluate
from pepper.placement.objectives import Costed
from pepper.placement.problem import ChainProblem

STEP = 1e-6
"""Relative: how much less than a corner a plan must have; a difference below is rounding."""

_FINITE = 1e300
"""A limit that leaves out plans whose energy is not known."""

Plan = TypeVar("Plan", bound=Costed)

Corner = tuple[float, float]
"""A period (ms) and an energy (J)."""

Least = Callable[[float, float], tuple[Solution, Costed] | None]
"""Returns the plan of least latency within a period and an energy, and its cost; None where there is none."""


@dataclass(frozen=True)
class Front:
    """Trade-offs.

    Attributes:
        plans: From the lowest latency on.
        complete: Whether these are all, up to one part in a million: no time was short, and each was proven.
    """

    plans: tuple[Solution, ...]
    complete: bool


def three_way(least: Least, time_limit_s: float) -> Front:
    """Return the plans that no other beats in latency, period and energy.

    Args:
        least: Solves.
        time_limit_s: When to stop.
    """
    deadline = time.monotonic() + time_limit_s
    first = least(math.inf, math.inf)
    if first is None:
        return Front((), complete=False)
    corners: dict[Corner, tuple[Solution, Costed]] = {(math.inf, math.inf): first}
    found: list[tuple[Solution, Costed]] = []
    complete = True
    while corners and complete:
        solution, cost = min(corners.values(), key=lambda each: (each[1].latency_ms, each[1].period_ms))
        found.append((solution, cost))
        known, corners = corners, {}
        for corner in _split(list(known), cost):
            inherited = [best for outer, best in known.items() if _within(corner, outer) and _inside(best[1], corner)]
            if not inherited and time.monotonic() > deadline:
                complete = False
                break
            best = inherited[0] if inherited else least(*(bound * (1 - STEP) for bound in corner))
            if best is not None:
                corners[corner] = best
    complete = complete and all(solution.proven for solution, _ in found)
    kept = unbeaten([cost for _, cost in found])
    return Front(tuple(solution for solution, cost in found if cost in kept), complete)


def chain_front(problem: ChainProblem, time_limit_s: float) -> Front:
    """Return a chain's trade-offs, of the plans whose energy is known."""
    deadline = time.monotonic() + time_limit_s

    def least(period_ms: float, energy_j: float) -> tuple[Solution, Costed] | None:
        found = soonest(within(problem, period_ms, energy_j), deadline)
        return None if found is None else (found, evaluate(problem, found.stages))

    return three_way(least, time_limit_s)


def within(problem: ChainProblem, period_ms: float, energy_j: float) -> ChainProblem:
    """Return the problem under these limits, too, without the plans whose energy is not known."""
    most = problem.limits
    return problem.with_limits(period_ms=min(period_ms, most.period_ms), energy_j=min(energy_j, most.energy_j, _FINITE))


def _split(corners: list[Corner], cost: Costed) -> list[Corner]:
    """Replace each corner that a plan lies below by the two beside it; leave out those that lie below others."""
    parts: dict[Corner, None] = {}
    for period_ms, energy_j in corners:
        if _inside(cost, (period_ms, energy_j)):
            parts |= dict.fromkeys([(cost.period_ms, energy_j), (period_ms, cost.energy_j)])
        else:
            parts[period_ms, energy_j] = None
    real = [corner for corner in parts if min(corner) > 0]
    return [corner for corner in real if not any(corner != other and _within(corner, other) for other in real)]


def _within(corner: Corner, other: Corner) -> bool:
    return corner[0] <= other[0] and corner[1] <= other[1]


def _inside(cost: Costed, corner: Corner) -> bool:
    return cost.period_ms <= corner[0] * (1 - STEP) and cost.energy_j <= corner[1] * (1 - STEP)


def beats(one: Costed, other: Costed) -> bool:
    """Whether a plan is nowhere worse than another, and somewhere better by more than rounding."""
    pairs = list(zip(_figures(one), _figures(other), strict=True))
    return all(a <= b * (1 + STEP) for a, b in pairs) and any(a < b * (1 - STEP) for a, b in pairs)


def unbeaten(plans: Sequence[Plan]) -> list[Plan]:
    """Return the plans that no other beats, one of each that are alike, from the lowest latency on."""
    kept: list[Plan] = []
    for plan in sorted(plans, key=_figures):
        if not any(beats(other, plan) for other in plans) and not any(_alike(other, plan) for other in kept):
            kept.append(plan)
    return kept


def _figures(cost: Costed) -> tuple[float, float, float]:
    return cost.latency_ms, cost.period_ms, cost.energy_j


def _alike(one: Costed, other: Costed) -> bool:
    return all(abs(a - b) <= STEP * abs(b) for a, b in zip(_figures(one), _figures(other), strict=True))
