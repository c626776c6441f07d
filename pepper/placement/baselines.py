"""What people do without a solver, costed like any plan."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from pepper.placement.evaluate import Evaluation, Stage, Stages, evaluate
from pepper.placement.objectives import Objective
from pepper.placement.problem import ChainProblem

Baseline = Callable[[ChainProblem, Objective], Stages | None]


def single_device(problem: ChainProblem, objective: Objective) -> Stages | None:
    """Do not split: everything on the device where it is best."""
    n = problem.n_steps
    return _best(problem, objective, [(Stage(0, n, d),) for d in range(len(problem.devices))])


def each_fastest(problem: ChainProblem, objective: Objective) -> Stages | None:
    """Send each step to its own fastest device, without network, memory or joint choice (the rule of PEPPER, IOT '25).

    Neighbouring steps on one device become one part; a device may be chosen again later.
    """
    del objective
    excluded = {problem.index(name) for name in problem.excluded}
    times = np.array(
        [
            [np.inf if d in excluded else problem.part_time_ms(step, step + 1, d) for d in range(len(problem.devices))]
            for step in range(problem.n_steps)
        ]
    )
    return _merge(times.argmin(axis=1).tolist())


def one_cut(problem: ChainProblem, objective: Objective) -> Stages | None:
    """Cut at most once, between two devices.

    Kang et al., "Neurosurgeon: Collaborative Intelligence Between the Cloud and Mobile Edge", ASPLOS 2017.
    """
    n, devices = problem.n_steps, range(len(problem.devices))
    whole: list[Stages] = [(Stage(0, n, d),) for d in devices]
    halves: list[Stages] = [
        (Stage(0, cut, a), Stage(cut, n, b)) for cut in range(1, n) for a in devices for b in devices if a != b
    ]
    return _best(problem, objective, whole + halves)


def equal_split(problem: ChainProblem, objective: Objective) -> Stages | None:
    """Cut into parts of equally many steps, in the devices' order; the best number of parts."""
    n, units = problem.n_steps, _units(problem)
    plans = []
    for n_parts in range(1, min(n, len(units)) + 1):
        ends = [round(n * k / n_parts) for k in range(n_parts + 1)]
        plans.append(tuple(Stage(start, stop, d) for (start, stop), d in zip(pairwise(ends), units, strict=False)))
    return _best(problem, objective, plans)


def greedy(problem: ChainProblem, objective: Objective) -> Stages | None:
    """Walk along the steps, each to the device where it ends first given the step before."""
    del objective
    links = problem.links
    here = None if problem.source is None else problem.index(problem.source)
    chosen: list[int] = []
    used: dict[int, int] = {}
    for step in range(problem.n_steps):
        best, best_ms = None, np.inf
        for d, device in enumerate(problem.devices):
            new = not chosen or d != chosen[-1]
            if device.name in problem.excluded or (new and not problem.reuse and used.get(d, 0) >= device.count):
                continue
            time_ms = problem.part_time_ms(step, step + 1, d)
            if new:
                time_ms += device.wait_ms + problem.handling_ms[step, d]
            if here is not None and d != here:
                time_ms += links.latency_ms[here, d] + problem.boundary_bytes[step] * links.ms_per_byte[here, d]
            if time_ms < best_ms:
                best, best_ms = d, time_ms
        if best is None:
            return None
        if not chosen or best != chosen[-1]:
            used[best] = used.get(best, 0) + 1
        chosen.append(best)
        here = best
    return _merge(chosen)


BASELINES: dict[str, Baseline] = {
    "best single device": single_device,
    "each part to its fastest device": each_fastest,
    "one cut between two devices": one_cut,
    "equal split": equal_split,
    "greedy": greedy,
}


def compare(problem: ChainProblem, objective: Objective) -> dict[str, tuple[Stages, Evaluation] | None]:
    """Cost every baseline under the problem; None where it has no plan.

    A baseline is not a solver: its plan may break rules, which its `Evaluation` then lists.
    """
    found = {name: baseline(problem, objective) for name, baseline in BASELINES.items()}
    return {name: None if stages is None else (stages, evaluate(problem, stages)) for name, stages in found.items()}


def _units(problem: ChainProblem) -> list[int]:
    return [
        d
        for d, device in enumerate(problem.devices)
        if device.name not in problem.excluded
        for _ in range(device.count)
    ]


def _best(problem: ChainProblem, objective: Objective, plans: Sequence[Stages]) -> Stages | None:
    """Return the best plan that keeps to the rules, else the best of all; None if none runs."""
    costs = [(evaluate(problem, plan), plan) for plan in plans]
    ranked = sorted(((bool(cost.violations), objective.value(cost), len(plan)), plan) for cost, plan in costs)
    if not ranked or np.isinf(ranked[0][0][1]):
        return None
    return ranked[0][1]


def _merge(devices: list[int]) -> Stages:
    cuts = [0, *(k for k in range(1, len(devices)) if devices[k] != devices[k - 1]), len(devices)]
    return tuple(Stage(start, stop, devices[start]) for start, stop in pairwise(cuts))
