"""Why a problem has no plan, in one line."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from pepper.placement.dag import DagProblem
from pepper.placement.problem import ChainProblem, Limits, Links

HasPlan = Callable[[ChainProblem], bool]


def explain(problem: ChainProblem, has_plan: HasPlan) -> str:
    """Name what is short and by how much, by lifting one restriction after the other.

    Args:
        problem: A problem without a plan.
        has_plan: Tells whether a changed problem has a plan.
    """
    memory = _memory_shortage(problem)
    if memory:
        return memory
    n, names = problem.n_steps, [device.name for device in problem.devices]
    for step in range(n):
        able = [d for d in range(len(names)) if math.isfinite(problem.part_time_ms(step, step + 1, d))]
        allowed = [names[d] for d in able if names[d] not in problem.excluded]
        if problem.part_ms.ndim == 2 and not allowed:
            return f"{problem.step(step)}: no device can run it; give one a finite part_ms or exclude fewer devices"
    for name in ("latency_ms", "period_ms", "sent_bytes", "parts"):
        limit = getattr(problem.limits, name)
        if math.isfinite(limit) and has_plan(problem.with_limits(**{name: math.inf})):
            return f"limits.{name}: no plan keeps to {limit:g} (without it there is one); raise it"
    if problem.limits != Limits() and has_plan(replace(problem, limits=Limits())):
        return f"limits: no plan keeps to all of {problem.limits}; raise one"
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


def _memory_missing(problem: ChainProblem, has_plan: HasPlan) -> float:
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


def explain_dag(problem: DagProblem) -> str:
    """Name what a DAG problem without a placement is short of, and by how much."""
    kinds = [kind for kind in problem.kinds if kind.count]
    for number in np.unique(problem.group):
        items = np.flatnonzero(problem.group == number)
        what = f"item {items[0]}" if len(items) == 1 else f"items {items.tolist()} (one group)"
        able = [kind for kind in kinds if np.isfinite(kind.item_ms[items]).all()]
        if not able:
            return f"dag: {what} can run on no device; give one a finite time"
        largest = max(able, key=lambda kind: kind.memory_bytes)
        short = float(problem.item_bytes[items].sum()) - largest.memory_bytes
        if short > 0:
            return f"memory: {what}: {short:.0f} bytes more than {largest.name!r} has, the largest device"
    short = float(problem.item_bytes.sum()) - sum(kind.memory_bytes * kind.count for kind in kinds)
    if short > 0:
        return f"memory: the items need {short:.0f} bytes more than all devices have together"
    return "dag: no placement found; give more devices, memory or time, or make groups smaller"
