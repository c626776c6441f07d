"""What ``task=place`` says and draws of a placement."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from pepper.errors import PlacementError
from pepper.placement.baselines import single_device
from pepper.placement.chain import Solution, solve
from pepper.placement.decision import Decision
from pepper.placement.evaluate import Evaluation, Stages, evaluate, simulate
from pepper.placement.plan import Plan
from pepper.placement.problem import ChainProblem
from pepper.placement.sensitivity import flip_points, scale_bandwidth
from pepper.report import placement_figures as figures
from pepper.report.placement_tables import PartLine, PlanLine
from pepper.tasks.placement_problem import Forecast

_STREAM = 6
"""Requests in the figure of a pipelined stream."""

_BANDWIDTHS = np.geomspace(0.05, 20.0, 31)
_FLIPS_S = 2.0
"""Most time of one solution along a bandwidth or a load."""


@dataclass(frozen=True)
class Placed:
    """A problem and its answer.

    Attributes:
        forecast: What was predicted.
        problem: The problem.
        objective: What was minimised: ``latency`` or ``throughput``.
        decision: What was chosen, and why.
        front: Every trade-off of latency and throughput, from the lowest latency on.
        baselines: What people do without a solver; None where that gives no plan.
    """

    forecast: Forecast
    problem: ChainProblem
    objective: str
    decision: Decision
    front: tuple[Solution, ...]
    baselines: Mapping[str, tuple[Stages, Evaluation] | None]


def part_lines(plan: Plan) -> list[PartLine]:
    """Return the lines of a plan's table."""
    lines = [
        PartLine(
            f"{part.start} to {part.stop}",
            part.device,
            part.time_ms,
            part.receive_ms,
            part.receive_bytes,
            part.memory_bytes,
        )
        for part in plan.parts
    ]
    if plan.return_ms:
        sent = plan.sent_bytes - sum(part.receive_bytes for part in plan.parts)
        lines.append(PartLine("output", str(plan.fleet["sink"]), None, plan.return_ms, sent, None))
    return lines


def verdict(placed: Placed, confidence: float) -> str:
    """Say how good the chosen plan is, how sure that is, and whether splitting is worth it."""
    decision, objective = placed.decision, placed.objective
    chosen, best = decision.chosen, decision.best
    figure = "latency" if objective == "latency" else "time between results"
    optimal = "proven optimal" if best.proven else f"at most {best.gap:.1%} above the optimum"
    line = (
        f"{figure} {chosen.value:.2f} ms (90 % interval {decision.low:.2f} to {decision.high:.2f}),"
        f" {'the best plan' if decision.within_noise else 'this plan'} {optimal} for the predicted times"
    )
    if decision.single is None or decision.probability is None:
        return line
    single_ms = evaluate(placed.problem, decision.single).value(objective)
    win = f"splitting would gain {1 - best.value / single_ms:.1%}, and is better with {decision.probability:.0%}"
    if decision.within_noise:
        return f"{line}\nnot split: {win} probability only, below {confidence:.0%}: within the noise of the predictions"
    return f"{line}\n{win} probability under the predictions' error".replace("would gain", "gains")


def plan_lines(placed: Placed, front: bool) -> list[PlanLine]:
    """Return the lines of the comparison: the chosen plan, the front if asked for, what people do otherwise."""
    plans: dict[str, Stages | None] = {"pepper": placed.decision.chosen.stages}
    if placed.decision.within_noise:
        plans["predicted best"] = placed.decision.best.stages
    if front:
        plans |= {f"front {number}": solution.stages for number, solution in enumerate(placed.front, 1)}
    plans |= {name: entry and entry[0] for name, entry in placed.baselines.items()}
    best = placed.decision.best.value
    lines = []
    for name, stages in plans.items():
        if stages is None:
            lines.append(PlanLine(name, "", np.inf, np.inf, 0.0, None, ("no plan",)))
            continue
        cost = evaluate(placed.problem, stages)
        ratio = cost.value(placed.objective) / best if best else None
        lines.append(
            PlanLine(
                name,
                _named(placed, stages),
                cost.latency_ms,
                cost.period_ms,
                cost.sent_bytes,
                ratio,
                cost.violations,
            )
        )
    return lines


def flips(placed: Placed) -> Iterator[str]:
    """Say at which bandwidth and at which load of a device another plan is best."""
    problem = placed.problem
    rates = problem.links.ms_per_byte[~np.eye(len(problem.devices), dtype=bool)]
    alike = rates.size > 0 and np.ptp(rates) == 0 and rates[0] > 0
    find = partial(flip_points, problem, objective=placed.objective, tolerance=0.02, time_limit_s=_FLIPS_S)
    found = find(scaling=scale_bandwidth, low=_BANDWIDTHS[0], high=_BANDWIDTHS[-1])
    for point in found:
        there = f"{point.factor * 0.008 / rates[0]:.3g} Mbit/s" if alike else f"{point.factor:.3g} times the bandwidth"
        yield f"flip point: above {there} {_named(placed, point.above)} is best, below {_named(placed, point.below)}"
    if not found:
        yield f"no flip point from {_BANDWIDTHS[0]:g} to {_BANDWIDTHS[-1]:g} times the bandwidth"
    still = []
    for device in placed.forecast.fleet.devices:
        points = find(scaling=placed.forecast.loaded(device), low=1.0, high=95.0, tolerance=0.05)
        for point in points:
            yield (
                f"flip point: above {point.factor:.0f} % load on {device.name} {_named(placed, point.above)} is best,"
                f" below {_named(placed, point.below)}"
            )
        if not points:
            still.append(device.name)
    if still:
        yield f"no flip point at any load of {', '.join(still)}"


def warnings(placed: Placed) -> Iterator[str]:
    """Say what the predictions cannot be trusted in."""
    forecast = placed.forecast
    for gap in forecast.gaps[:1]:
        more = f" (and {len(forecast.gaps) - 1} more)" if len(forecast.gaps) > 1 else ""
        yield f"warning: cost not known of {gap}{more}; the predictions count it as nothing"
    if forecast.borders.left_out:
        yield f"{forecast.borders.left_out} cuts were left out; raise place.max_cuts to choose from more"
    stages = placed.decision.chosen.stages
    count = int(forecast.outside.sum())
    if count:
        n = len(forecast.borders.positions)
        rows = n * (n - 1) // 2 * len(forecast.fleet.devices)
        of_plan = sum(bool(forecast.outside[stage.start, stage.stop, stage.device]) for stage in stages)
        yield (
            f"warning: {count} of {rows} predicted times lie outside of what the latency model was trained on,"
            f" {of_plan} of the plan's {len(stages)} among them"
        )


def draw(placed: Placed, folder: Path) -> None:
    """Draw a request, a stream, the Pareto front, and latency against bandwidth."""
    problem, stages = placed.problem, placed.decision.chosen.stages
    one, stream = (
        [(event.resource.removesuffix("#0"), event.request, event.start_ms, event.stop_ms) for event in events]
        for events in (simulate(problem, stages, 1), simulate(problem, stages, _STREAM))
    )
    front = [evaluate(problem, solution.stages) for solution in placed.front]
    others = {"pepper": evaluate(problem, stages)}
    others |= {
        name: entry[1] for name, entry in placed.baselines.items() if entry is not None and not entry[1].violations
    }
    rates = problem.links.ms_per_byte[~np.eye(len(problem.devices), dtype=bool)]
    known = rates[np.isfinite(rates) & (rates > 0)]
    scale = 0.008 / known.max() if known.size else 1.0
    curves = _curves(placed)
    for suffix in ("png", "svg"):
        figures.timeline(one, "one request", folder / f"request.{suffix}")
        figures.timeline(stream, f"a stream of {_STREAM} requests", folder / f"stream.{suffix}")
        figures.tradeoff(
            [(cost.latency_ms, 1000 / cost.period_ms) for cost in front if cost.period_ms],
            {name: (cost.latency_ms, 1000 / cost.period_ms) for name, cost in others.items() if cost.period_ms},
            folder / f"pareto.{suffix}",
        )
        figures.against_bandwidth(
            curves,
            (_BANDWIDTHS * scale).tolist(),
            "bandwidth of the slowest link (Mbit/s)" if known.size else "bandwidth (ratio)",
            folder / f"bandwidth.{suffix}",
        )


def _curves(placed: Placed) -> dict[str, list[float]]:
    """Latency at each bandwidth: the best plan there, the chosen plan, the best single device."""
    curves: dict[str, list[float]] = {"best plan": [], "this plan": [], "best single device": []}
    for factor in _BANDWIDTHS.tolist():
        problem = scale_bandwidth(placed.problem, factor)
        try:
            best = solve(problem, "latency", _FLIPS_S).value
        except PlacementError:
            best = np.inf
        single = single_device(problem, "latency")
        curves["best plan"].append(best)
        curves["this plan"].append(evaluate(problem, placed.decision.chosen.stages).latency_ms)
        curves["best single device"].append(evaluate(problem, single).latency_ms if single else np.inf)
    return curves


def _named(placed: Placed, stages: Stages | None) -> str:
    """Write a plan in a line: which operators where."""
    if stages is None:
        return "no plan"
    positions, devices = placed.forecast.borders.positions, placed.problem.devices
    return " ".join(f"{devices[s.device].name}[{positions[s.start]}:{positions[s.stop]}]" for s in stages)
