"""Why a problem has no plan, in one line, and the best that a limit leaves in reach."""

import math
from collections.abc import Callable
from dataclasses import fields, replace

import numpy as np

from pepper.errors import PlacementError
from pepper.placement.evaluate import Stages, evaluate
from pepper.placement.objectives import ENERGY, FEWEST_PARTS, LATENCY, THROUGHPUT, Objective
from pepper.placement.problem import ChainProblem, Limits, Links

Find = Callable[[ChainProblem, Objective], Stages | None]
"""Returns a problem's best plan by an objective; None if there is none."""

_LEAST_BY = {
    "latency_ms": LATENCY,
    "period_ms": THROUGHPUT,
    "energy_j": ENERGY,
    "sent_bytes": LATENCY,
    "parts": FEWEST_PARTS,
}
"""The objective that makes each limited quantity small."""


class TimeLimitError(PlacementError):
    """No plan was found in time, and none ruled out."""


class LimitError(PlacementError):
    """There are plans, but none keeps to the limits.

    Attributes:
        limits: The limits that cannot be kept together, by their names in `Limits`.
        best: What a plan can reach in place of a single limit, in its unit; None for several.
    """

    def __init__(self, message: str, limits: tuple[str, ...], best: float | None = None) -> None:
        super().__init__(message)
        self.limits = limits
        self.best = best


def explain(problem: ChainProblem, find: Find) -> PlacementError:
    """Return the error that names what is short and by how much, by lifting one restriction after the other.

    Args:
        problem: A problem without a plan.
        find: Finds plans of changed problems.
    """
    short = _memory_shortage(problem) or _step_shortage(problem)
    if short:
        return PlacementError(short)
    return _explain_limits(problem, find) or PlacementError(_explain_rules(problem, find))


def _explain_limits(problem: ChainProblem, find: Find) -> LimitError | None:
    """Say which limits cannot be kept, if it is they that leave no plan."""
    given = tuple(each.name for each in fields(Limits) if math.isfinite(getattr(problem.limits, each.name)))
    for name in given:
        stages = find(problem.with_limits(**{name: math.inf}), _LEAST_BY[name])
        if stages is not None:
            best = _least_sent(problem, stages, find) if name == "sent_bytes" else _used(problem, stages, name)
            limit = getattr(problem.limits, name)
            return LimitError(f"limits.{name}: no plan keeps to {limit:g}; {best:g} can be reached", (name,), best)
    if len(given) > 1 and find(replace(problem, limits=Limits()), LATENCY) is not None:
        return LimitError(f"limits: no plan keeps to {problem.limits}, nor with any one lifted; raise several", given)
    return None


def _used(problem: ChainProblem, stages: Stages, name: str) -> float:
    """Return how much a plan has of a limited quantity."""
    return float(len(stages) if name == "parts" else getattr(evaluate(problem, stages), name))


def _least_sent(problem: ChainProblem, stages: Stages, find: Find) -> float:
    """Return the bytes that some plan sends, at most one part in a hundred more than the least."""
    low, high = problem.limits.sent_bytes, _used(problem, stages, "sent_bytes")
    while high - low > high / 100:
        middle = (low + high) / 2
        fewer = find(problem.with_limits(sent_bytes=middle), LATENCY)
        low, high = (middle, high) if fewer is None else (low, _used(problem, fewer, "sent_bytes"))
    return high


def _explain_rules(problem: ChainProblem, find: Find) -> str:
    """Name what is short of several parts, apart from the limits."""

    def has_plan(changed: ChainProblem) -> bool:
        return find(changed, LATENCY) is not None

    names = [device.name for device in problem.devices]
    free = replace(problem, limits=Limits())
    zeros = np.zeros((len(names), len(names)))
    linked = replace(free, links=Links(zeros, zeros, zeros))
    if has_plan(linked):
        pairs = [
            f"{a}->{b}"
            for i, a in enumerate(names)
            for j, b in enumerate(names)
            if i != j and math.isinf(problem.links.latency_ms[i, j])
        ]
        return f"links: the devices needed cannot reach each other; missing links: {', '.join(pairs[:6])}"
    boundless = tuple(replace(device, memory_bytes=math.inf) for device in problem.devices)
    if has_plan(replace(linked, devices=boundless)):
        return (
            "memory: the parts fit on no choice of devices, though each step fits somewhere;"
            f" {_memory_missing(linked, has_plan):.0f} bytes more on each device would do"
        )
    if problem.pinned and has_plan(replace(linked, devices=boundless, pinned={})):
        return (
            f"pinned: no plan keeps to {dict(problem.pinned)}; a device holds one part unless `reuse` is set "
            "and must be able to run what is pinned to it"
        )
    return "problem: no device can run the steps; check part_ms, boundary_bytes and excluded"


def _memory_missing(problem: ChainProblem, has_plan: Callable[[ChainProblem], bool]) -> float:
    """Return how many bytes more on each device let the problem have a plan, to one part in a hundred."""

    def enough(more: float) -> bool:
        richer = tuple(replace(device, memory_bytes=device.memory_bytes + more) for device in problem.devices)
        return has_plan(replace(problem, devices=richer))

    whole = problem.part_bytes
    low, high = 0.0, float(whole.sum() if whole.ndim == 1 else np.max(whole[np.triu_indices(len(whole), 1)]))
    while high - low > high / 100:
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _memory_shortage(problem: ChainProblem) -> str | None:
    allowed = [device for device in problem.devices if device.name not in problem.excluded]
    if not allowed:
        return "excluded: every device is excluded; leave one"
    largest = max(allowed, key=lambda device: device.memory_bytes)
    for step in range(problem.n_steps):
        need = problem.part_memory_bytes(step, step + 1)
        if need > largest.memory_bytes:
            return (
                f"memory: {problem.step(step)} takes {need:.0f} bytes, {need - largest.memory_bytes:.0f} more than "
                f"{largest.name!r} has, the largest device"
            )
    if problem.part_bytes.ndim == 1:
        need = float(problem.part_bytes.sum())
        have = sum(device.memory_bytes * device.count for device in allowed)
        if need > have:
            return f"memory: the steps take {need:.0f} bytes, {need - have:.0f} more than all devices have"
    return None


def _step_shortage(problem: ChainProblem) -> str | None:
    """Name a step that no device can run."""
    allowed = [d for d, device in enumerate(problem.devices) if device.name not in problem.excluded]
    for step in range(problem.n_steps) if problem.part_ms.ndim == 2 else ():
        if not any(math.isfinite(problem.part_time_ms(step, step + 1, d)) for d in allowed):
            return f"{problem.step(step)}: no device can run it; give one a finite part_ms or exclude fewer devices"
    return None
