"""Whether parts that run side by side are better than a chain: the branched problem of a model, and its answer."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from pepper.config import PepperConfig
from pepper.config.placing import PARETO, PARETO_ENERGY
from pepper.fleet import Fleet, FleetDevice, Link, connected
from pepper.graph.ir import Graph
from pepper.placement.branched import OUTSIDE, BranchedProblem, Flow, evaluate_branched
from pepper.placement.branched_plan import Chances, branched_plan, chances
from pepper.placement.branched_search import solve_branched
from pepper.placement.chain import Solution
from pepper.placement.decision import Spread
from pepper.placement.evaluate import Stage, Stages
from pepper.placement.front import Front, three_way, within
from pepper.placement.objectives import LATENCY, Costed, Objective
from pepper.placement.plan import Plan
from pepper.placement.problem import ChainProblem, Links
from pepper.planning.forecast import Forecast
from pepper.planning.forms import Forms
from pepper.planning.keeping import Keeper
from pepper.planning.posing import chain_problem, origin_of

LEAST_S = 0.1
"""Least time of one solution along the trade-offs."""

LEAST_GAIN = 1e-6
"""Relative: what is less is rounding."""


@dataclass(frozen=True)
class Branched:
    """The best plan whose branches run side by side, beside the chain's.

    Attributes:
        problem: What was solved.
        solution: Its answer; None where none was found that keeps to the rules.
        chances: How sure it is; None likewise.
        plan: The same as a plan to run; None likewise.
        chain_ms: The value of the chain's plan; infinite where none keeps to the limits.
        taken: Whether it is better than that, and surely enough better than not splitting.
        front: With all trade-offs wanted, its own, from the lowest latency on.
        front_complete: Whether these are all of the trade-offs that energy has a part in: the time was not short.
        narrowed: Whether a plan broke the limit on the error, so that precisions were denied to some parts.
    """

    problem: BranchedProblem
    solution: Solution | None
    chances: Chances | None
    plan: Plan | None
    chain_ms: float
    taken: bool
    front: tuple[Plan, ...] = ()
    front_complete: bool = True
    narrowed: bool = False


def find_branched(
    config: PepperConfig,
    forecast: Forecast,
    chain: tuple[ChainProblem, Solution, Forecast],
    objective: Objective,
    spread: Spread,
    lineage: Mapping[str, Any],
    forms: Forms | None = None,
    *,
    chain_keeps: bool = True,
) -> Branched:
    """Solve for the best plan whose branches run side by side.

    Args:
        config: The whole configuration.
        forecast: What is predicted between regions of the model.
        chain: The chain's problem, the plan that was chosen there, and the forecast behind it.
        objective: What is minimised.
        spread: How far the predictions are off.
        lineage: As of `origin_of`.
        forms: The model in the precisions that parts may run in; None is its own only.
        chain_keeps: Whether the chain's plan keeps to the limits; if not, whatever does is taken.
    """
    options = config.place
    fleet = single_devices(forecast.fleet)
    keeper = Keeper(forms, forecast) if forms else None
    chain_value, bound = chain[1].value if chain_keeps else math.inf, math.inf
    while True:
        problem = branched_problem(config, forecast, fleet)
        start = _as_start(problem, forecast, *chain)
        solution = solve_branched(problem, objective, options.time_limit_seconds, start, options.seed)
        if solution is None:
            return Branched(problem, None, None, None, chain_value, taken=False)
        bound = min(bound, solution.bound)  # the first is that of all plans, whatever their error
        found, complete = _trade_offs(config, problem)
        if keeper is None or not keeper.narrows(problem.chain, [each.stages for each in (solution, *found)]):
            break
    solution = replace(solution, bound=bound)
    origin = replace(
        origin_of(config, forecast, lineage), fleet=fleet, accuracies={} if keeper is None else keeper.found
    )
    sure = chances(problem, solution.stages, objective, spread, options.samples, options.seed)
    better = solution.value < chain_value * (1 - LEAST_GAIN)
    return Branched(
        problem,
        solution,
        sure,
        branched_plan(problem, solution, objective, origin),
        chain_value,
        taken=better and (sure.probability >= options.confidence or not chain_keeps),
        front=tuple(branched_plan(problem, each, objective, origin) for each in found),
        front_complete=complete,
        narrowed=keeper is not None and keeper.narrowed,
    )


def _trade_offs(config: PepperConfig, problem: BranchedProblem) -> tuple[list[Solution], bool]:
    """Return all trade-offs where they are wanted, and whether these are all."""
    options = config.place
    if config.objective.name == PARETO:
        return _front(problem, options.time_limit_seconds, options.seed), True
    if config.objective.name == PARETO_ENERGY:
        front = branched_front(problem, options.time_limit_seconds, options.seed)
        return list(front.plans), front.complete
    return [], True


def _front(problem: BranchedProblem, time_limit_s: float, seed: int) -> list[Solution]:
    """Walk along the trade-offs: each plan must have a smaller period than the one before."""
    deadline, found = time.monotonic() + time_limit_s, list[Solution]()
    while (left_s := deadline - time.monotonic()) > 0:
        solution = solve_branched(problem, LATENCY, left_s / 2, found[-1].stages if found else None, seed)
        if solution is None:
            break
        found.append(solution)
        period_ms = evaluate_branched(problem, solution.stages).period_ms
        if period_ms == 0.0:
            break
        problem = replace(problem, chain=problem.chain.with_limits(period_ms=period_ms * (1 - 1e-3)))
    return found


def branched_front(problem: BranchedProblem, time_limit_s: float, seed: int = 0) -> Front:
    """Return the trade-offs of latency, period and energy, of the plans whose energy is known.

    Args:
        problem: The problem.
        time_limit_s: When to stop.
        seed: Of the searches.
    """
    deadline = time.monotonic() + time_limit_s

    def least(period_ms: float, energy_j: float) -> tuple[Solution, Costed] | None:
        tighter = replace(problem, chain=within(problem.chain, period_ms, energy_j))
        seconds = max((deadline - time.monotonic()) / 2, LEAST_S)
        found = solve_branched(tighter, LATENCY, seconds, seed=seed)
        return None if found is None else (found, evaluate_branched(problem, found.stages))

    return three_way(least, time_limit_s)


def branched_problem(config: PepperConfig, forecast: Forecast, fleet: Fleet) -> BranchedProblem:
    """Return the problem that the configuration poses, on a fleet of single devices.

    Raises:
        ConfigError: As of `chain_problem`.
    """
    chain = chain_problem(config, forecast)
    kind_of = {unit: unit.partition("#")[0] if unit not in forecast.fleet.devices else unit for unit in fleet.devices}
    column = [chain.index(kind) for kind in kind_of.values()]
    first = {kind: unit for unit, kind in reversed(kind_of.items())}
    single = ChainProblem.of(
        [replace(chain.devices[k], name=unit, count=1) for unit, k in zip(kind_of, column, strict=True)],
        chain.part_ms[..., column],
        chain.boundary_bytes,
        Links.pairs(list(kind_of), fleet.between),
        chain.part_bytes,
        chain.handling_ms[:, column],
        moved_ms=chain.moved_ms[..., column],
        forms=chain.forms[..., column],
        excluded=[unit for unit, kind in kind_of.items() if kind in chain.excluded],
        source=chain.source,
        sink=chain.sink,
        pinned={step: first[kind] for step, kind in chain.pinned.items()},
        labels=chain.labels,
        limits=chain.limits,
    )
    flows = flows_of(forecast.graph, forecast.borders.positions)
    return BranchedProblem(single, flows, forecast.message_ms[column], forecast.byte_ms[column])


def flows_of(graph: Graph, positions: tuple[int, ...]) -> tuple[Flow, ...]:
    """Return what flows between the steps from each of these positions to the next."""
    step = np.searchsorted(positions, np.arange(len(graph.operators)), side="right") - 1
    last, outputs = len(positions) - 1, set(graph.outputs)
    flows = []
    for tensor in graph.tensors:
        if tensor.is_weight:
            continue
        writer = OUTSIDE if tensor.producer is None else int(step[tensor.producer])
        readers = {int(step[reader]) for reader in tensor.readers} - {writer}
        if tensor.id in outputs:
            readers.add(last)
        if readers:
            flows.append(Flow(writer, tuple(sorted(readers)), float(tensor.bytes or 0)))
    return tuple(flows)


def single_devices(fleet: Fleet) -> Fleet:
    """List each of several equal devices by itself, as ``name#0``, ``name#1``, ..."""
    units = {
        name: [name] if device.count == 1 else [f"{name}#{number}" for number in range(device.count)]
        for name, device in fleet.devices.items()
    }
    devices: dict[str, FleetDevice] = {u: replace(fleet.devices[n], count=1) for n, of in units.items() for u in of}
    links: dict[tuple[str, str], Link] = {
        (a, b): Link(link.bandwidth_mbit_s, link.latency_ms, link.forwarded_mbit_s, link.energy_nj_per_byte)
        for (origin, target), link in fleet.between.items()
        for a in units[origin]
        for b in units[target]
        if a != b
    }
    return Fleet(devices, connected(links), fleet.source, fleet.sink)


def _as_start(
    problem: BranchedProblem, forecast: Forecast, chain: ChainProblem, solution: Solution, before: Forecast
) -> Stages | None:
    """Return the chain's plan between the regions' borders; None where it has others."""
    at = {position: number for number, position in enumerate(forecast.borders.positions)}
    ends = [before.borders.positions[end] for end in (0, *(stage.stop for stage in solution.stages))]
    if not all(end in at for end in ends) or any(device.count > 1 for device in chain.devices):
        return None
    devices = [problem.chain.index(chain.devices[stage.device].name) for stage in solution.stages]
    return tuple(Stage(at[a], at[b], device) for (a, b), device in zip(pairwise(ends), devices, strict=True))
