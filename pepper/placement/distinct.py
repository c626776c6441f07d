"""Dynamic program over which devices are taken: exact where each device holds one part."""

import math
import time
from itertools import groupby

import numpy as np

from pepper.placement.costs import Costs
from pepper.placement.evaluate import Stage
from pepper.placement.objectives import Objective
from pepper.placement.problem import ChainProblem, Floats
from pepper.placement.relaxed import Found, lower_bound

MAX_BYTES = 1 << 29
"""Most memory of the table."""

MAX_WORK = 2e10
"""Most additions; some 30 seconds of numpy."""

Usage = tuple[int, ...]


def distinct(problem: ChainProblem, objective: Objective, deadline: float) -> Found:
    """Solve with each device used at most once, for up to some 14 unlike devices.

    A state is how many devices of each kind are taken, the last kind and the boundary; 2^D D n states for D
    unlike devices, O(2^D D n (n + D)) time. Devices of one kind are counted, not told apart.
    Says nothing (a bound of 0) with `reuse`, when the table would be too large, or past the deadline.
    """
    nothing = Found(None, 0.0)
    if problem.reuse:
        return nothing
    costs = Costs(problem, objective)
    n, n_devices = problem.n_steps, len(problem.devices)
    allowed = [0 if d.name in problem.excluded else d.count for d in problem.devices]
    most_parts = int(min(n, problem.limits.parts, sum(allowed)))
    row_bytes = 8 * n_devices * (n + 1)
    most_states = int(min(MAX_BYTES / row_bytes, MAX_WORK / (n_devices * (n + 1) ** 2)))
    usages = _usages(allowed, most_parts, most_states)
    if usages is None:
        return nothing

    stage = np.full((n_devices, n + 1, n + 1), math.inf)
    for start in range(n):
        stage[:, start, start + 1 :] = costs.parts_from(start).T
    hop = np.stack([costs.hop(boundary) for boundary in range(n + 1)], axis=2)  # [from, to, boundary]
    row = {usage: k for k, usage in enumerate(usages)}
    # best[usage, last kind, boundary]: least cost of the steps before the boundary.
    best = np.full((len(usages), n_devices, n + 1), math.inf)

    def arrival(rows: int | list[int], device: int) -> Floats:
        """Cost of having arrived on `device`, for each boundary: (..., n + 1)."""
        total: Floats = costs.combine(best[rows], hop[:, device]).min(axis=-2)
        return total

    def entry(device: int) -> Floats:
        total = np.full(n + 1, math.inf)
        total[0] = costs.entry[device]
        return total

    for n_parts, group in groupby(usages[1:], key=sum):
        level = list(group)
        for device in range(n_devices):
            targets = [usage for usage in level if usage[device]]
            chunk = max(1, (1 << 22) // (n + 1) ** 2)
            for at in range(0, len(targets), chunk):
                if time.monotonic() > deadline:
                    return nothing
                some = targets[at : at + chunk]
                if n_parts == 1:
                    arrived = entry(device)[None]
                else:
                    arrived = arrival([row[_less(usage, device)] for usage in some], device)
                ended = costs.combine(arrived[:, :, None], stage[device]).min(axis=1)
                best[[row[usage] for usage in some], device] = ended

    final = costs.combine(best[:, :, n], costs.exit)
    index, last = divmod(int(final.argmin()), n_devices)
    value = float(final[index, last])
    if math.isinf(value):
        return Found(None, math.inf)

    stages, usage, stop = [], usages[index], n
    while True:
        previous = _less(usage, last)
        if not any(previous):
            stages.append(Stage(0, stop, last))
            return Found(tuple(reversed(stages)), lower_bound(value, costs))
        start = int(costs.combine(arrival(row[previous], last), stage[last, :, stop]).argmin())
        stages.append(Stage(start, stop, last))
        before = int(costs.combine(best[row[previous], :, start], hop[:, last, start]).argmin())
        usage, last, stop = previous, before, start


def _usages(allowed: list[int], most_parts: int, most_states: int) -> list[Usage] | None:
    """List the numbers of devices taken of each kind, by their sum; None when there are too many."""
    level: set[Usage] = {tuple(0 for _ in allowed)}
    usages = sorted(level)
    for _ in range(most_parts):
        level = {
            (*usage[:d], usage[d] + 1, *usage[d + 1 :])
            for usage in level
            for d, limit in enumerate(allowed)
            if usage[d] < limit
        }
        usages += sorted(level)
        if len(usages) > most_states:
            return None
    return usages


def _less(usage: Usage, device: int) -> Usage:
    return (*usage[:device], usage[device] - 1, *usage[device + 1 :])
