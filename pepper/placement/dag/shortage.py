"""Why a DAG problem has no placement, in one line."""

import numpy as np

from pepper.placement.dag.problem import DagProblem


def explain(problem: DagProblem) -> str:
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
