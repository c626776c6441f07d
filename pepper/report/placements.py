"""What a placement says of itself: its lines for tables, its verdict, and its warnings."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pepper.console.tables import figure
from pepper.errors import argument
from pepper.graph.characteristics import in_kinds
from pepper.placement.evaluate import Stages, evaluate
from pepper.placement.plan import Plan
from pepper.placement.sensitivity import FlipPoint
from pepper.planning.placing import BANDWIDTHS, LOADS, Placed
from pepper.report.placement_tables import PartLine, PlanLine
from pepper.units import mbit_s

_MOST_NAMED = 5
"""Parts of a plan that is written in a line."""


def part_lines(plan: Plan) -> list[PartLine]:
    """Return the lines of a plan's table."""
    lines = [
        PartLine(
            f"{part.start} to {part.stop}",
            part.device,
            part.time_ms,
            part.receive_ms,
            part.pickup_ms,
            part.receive_bytes,
            part.memory_bytes,
            part.energy_j,
            part.moved_ms,
            part.precision,
        )
        for part in plan.parts
    ]
    if plan.return_ms:
        sent = plan.sent_bytes - sum(part.receive_bytes for part in plan.parts)
        lines.append(PartLine("output", str(plan.fleet.sink), None, plan.return_ms, None, sent, None))
    return lines


def energy_line(plan: Plan) -> str | None:
    """Say what a request takes above idle, and whose part of that is not known; None where no power is."""
    if len(plan.unmeasured) == len(set(plan.devices)) and not plan.links_j:
        return None
    of_links = f", {figure(plan.links_j)} J of it for transfers" if plan.links_j else ""
    line = f"energy {figure(plan.known_j)} J a request above idle, by the powers that the fleet states{of_links}"
    if not plan.unmeasured:
        return line
    return f"{line}; unmeasured, and not in it: {', '.join(plan.unmeasured)}"


def error_line(plan: Plan) -> str | None:
    """Say how far the answers lie from the model's own; None where all parts are in its precision."""
    accuracy = plan.accuracy
    if accuracy is None:
        return None
    source = "random samples" if accuracy.calibration is None else f"samples of {accuracy.calibration}"
    return (
        f"error {accuracy.error:.2g} of the largest magnitude, measured on {accuracy.samples} {source}"
        f" (place.max_error={accuracy.max_error:g}); of other inputs it is not known"
    )


def verdict(placed: Placed, confidence: float) -> str:
    """Say how good the chosen plan is, how sure that is, and whether splitting is worth it."""
    decision, objective = placed.decision, placed.objective
    if placed.refused:
        return f"{str(placed.refused).partition(': ')[0]}: no chain keeps to it, parts that run side by side do"
    chosen, best = decision.chosen, decision.best
    optimal = "proven optimal" if best.proven else f"at most {best.gap:.1%} above the optimum"
    line = (
        f"{objective.what} {figure(chosen.value)} {objective.unit}"
        f" (90 % interval {figure(decision.low)} to {figure(decision.high)}),"
        f" {'the best plan' if decision.within_noise else 'this plan'} {optimal} for the predicted times"
    )
    if error := error_line(placed.plan):
        line = f"{line}\n{error}"
    if decision.single is None or decision.probability is None:
        return line
    single_ms = objective.value(evaluate(placed.problem, decision.single))
    win = f"splitting would gain {1 - best.value / single_ms:.1%}, and is better with {decision.probability:.0%}"
    if decision.within_noise:
        return f"{line}\nnot split: {win} probability only, below {confidence:.0%}: within the noise of the predictions"
    return f"{line}\n{win} probability under the predictions' error".replace("would gain", "gains")


def plan_lines(placed: Placed, front: bool) -> list[PlanLine]:
    """Return the lines of the comparison: the chosen plan, the front if asked for, what people do otherwise."""
    branched = placed.branched
    beside = branched is not None and branched.taken
    plans: dict[str, Stages | None] = {"chain" if beside else "pepper": placed.decision.chosen.stages}
    if placed.decision.within_noise:
        plans["predicted best"] = placed.decision.best.stages
    if front and not branched:
        plans |= {f"front {number}": solution.stages for number, solution in enumerate(placed.front, 1)}
    plans |= {name: entry and entry[0] for name, entry in placed.baselines.items()}
    best = placed.decision.best.value
    lines = []
    if branched and branched.plan and branched.solution:
        best = min(best, branched.solution.value)
        lines.append(_plan_line("pepper" if beside else "side by side", branched.plan, branched.solution.value / best))
    if branched and front:
        lines += [_plan_line(f"front {number}", plan, None) for number, plan in enumerate(placed.front_plans, 1)]
    for name, stages in plans.items():
        if stages is None:
            lines.append(PlanLine(name, "", np.inf, np.inf, 0.0, None, None, ("no plan",)))
            continue
        cost = evaluate(placed.problem, stages)
        value = placed.objective.value(cost)
        ratio = value / best if best and np.isfinite(value) else None
        broken = [*cost.violations[:1], *([f"{len(cost.violations) - 1} more"] if len(cost.violations) > 1 else [])]
        lines.append(
            PlanLine(
                name,
                _named(placed, stages),
                cost.latency_ms,
                cost.period_ms,
                cost.sent_bytes,
                cost.energy_j if np.isfinite(cost.energy_j) else None,
                ratio,
                broken,
            )
        )
    return lines


def _plan_line(name: str, plan: Plan, ratio: float | None) -> PlanLine:
    parts = " ".join(f"{part.device}[{part.start}:{part.stop}]" for part in plan.parts)
    if len(plan.parts) > _MOST_NAMED:
        parts = f"{len(plan.parts)} parts on {', '.join(dict.fromkeys(plan.devices))}"
    energy_j = None if plan.unmeasured else plan.energy_j
    return PlanLine(name, parts, plan.latency_ms, plan.period_ms, plan.sent_bytes, energy_j, ratio)


def side_by_side(placed: Placed, confidence: float) -> str | None:
    """Say what came of parts that run side by side; None where that was not asked for."""
    branched, unit = placed.branched, placed.objective.unit
    if branched is None:
        return None
    if branched.solution is None or branched.chances is None:
        return "parts side by side: no such plan keeps to the rules; the chain's is taken"
    value, chain_ms, sure = branched.solution.value, branched.chain_ms, branched.chances.probability
    proof = "proven optimal" if branched.solution.proven else f"at most {branched.solution.gap:.1%} above the optimum"
    found = f"parts side by side: {figure(value)} {unit}, {proof} for the predicted times"
    if branched.taken:
        low, high = branched.chances.low, branched.chances.high
        gain = "no chain keeps to the limits"
        if np.isfinite(chain_ms):
            gain = f"{1 - value / chain_ms:.1%} below the chain's {figure(chain_ms)} {unit}"
        return f"{found}; {gain} (90 % interval {figure(low)} to {figure(high)})"
    if value < chain_ms:
        return f"{found}; better than not splitting with {sure:.0%} only, below {confidence:.0%}: the chain's is taken"
    return f"{found}; not below the chain's {figure(chain_ms)} {unit}, which is taken"


def flip_lines(placed: Placed, found: Mapping[str, Sequence[FlipPoint]]) -> Iterator[str]:
    """Say for each quantity how far it may go until another plan is best, and which."""
    rate = link_mbit_s(placed)
    loads = {f"load on {name}": percent for name, percent in placed.forecast.fleet.load_percent.items()}
    for name, points in found.items():
        now = loads.get(name, 1.0)

        def written(value: float, percent: bool = name in loads) -> str:
            if percent:
                return f"{value:.0f} %"
            return f"{float(f'{value * rate:.3g}'):,g} Mbit/s" if rate else f"{value:.3g} times"

        below = max((point for point in points if point.factor <= now), key=lambda p: p.factor, default=None)
        above = min((point for point in points if point.factor > now), key=lambda p: p.factor, default=None)
        ends = [f"below {written(below.factor)} {_named(placed, below.below)}"] if below else []
        ends += [f"above {written(above.factor)} {_named(placed, above.above)}"] if above else []
        more = f" ({len(points)} flip points in flips.csv)" if len(points) > len(ends) else ""
        low, high = LOADS if name in loads else BANDWIDTHS[[0, -1]]
        same = f"the same plan is best from {written(low)} to {written(high)}"
        yield f"{name}: {', '.join(ends) + ' is best' if ends else same}{more}"


def flip_rows(placed: Placed, found: Mapping[str, Sequence[FlipPoint]]) -> list[dict[str, Any]]:
    """Return every flip point: what changes, where, and the best plan below and above."""
    return [
        {
            "quantity": name,
            "value": point.factor,
            "best_below": _named(placed, point.below),
            "best_above": _named(placed, point.above),
        }
        for name, points in found.items()
        for point in points
    ]


def write_flips(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Write the rows of flip points as CSV."""
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ("quantity", "value", "best_below", "best_above"))
        writer.writeheader()
        writer.writerows({**row, "value": f"{row['value']:.4g}"} for row in rows)


def metrics(placed: Placed) -> dict[str, float]:
    """Return the figures of a placement's run."""
    decision, plan, unit = placed.decision, placed.plan, placed.objective.unit.lower()
    found = {
        "latency_ms": plan.latency_ms,
        "period_ms": plan.period_ms,
        "sent_bytes": plan.sent_bytes,
        "bound_ms": plan.bound_ms,
        "gap": plan.gap,
        f"{placed.objective.name}_low_{unit}": decision.low,
        f"{placed.objective.name}_high_{unit}": decision.high,
    }
    if not plan.unmeasured:
        found["energy_j"] = plan.energy_j
    if plan.accuracy is not None:
        found["error"] = plan.accuracy.error
    if decision.probability is not None:
        found["probability_split_is_better"] = decision.probability
    for name, entry in placed.baselines.items():
        if entry is not None and np.isfinite(value := placed.objective.value(entry[1])):
            found[f"{name.replace(' ', '_')}_{unit}"] = value
    return found


def _about_precisions(placed: Placed) -> Iterator[str]:
    """Say where precisions that are allowed are not had, and what an error does not tell."""
    if placed.forms is None:
        return
    for precision in placed.forms.graphs:
        without = placed.forecast.without(precision)
        if without:
            yield (
                f"{precision}: not on {', '.join(without)}: the execution provider there has no such arithmetic, or how"
                " fast that is was not measured"
            )
    if placed.plan.accuracy is not None:
        for output, reason in placed.forms.untold.items():
            yield f"output {output!r} {reason}: its error tells nothing of other precisions"
    if placed.narrowed:
        yield (
            f"place.max_error={placed.forms.max_error:g}: the quickest plan breaks it; this one is the best of those"
            " that leave what breaks it in the model's own precision, and the bound is that of all plans"
        )


def warnings(placed: Placed) -> Iterator[str]:
    """Say what the predictions cannot be trusted in."""
    forecast = placed.forecast
    yield from placed.cautions
    yield from placed.disagreements
    yield from _about_precisions(placed)
    for gap in in_kinds(forecast.gaps):
        yield f"{gap}; the predictions count it as nothing"
    if placed.counts_energy and (unmeasured := forecast.fleet.unmeasured):
        yield (
            f"unmeasured: {', '.join(unmeasured)}; no claim about energy is made of plans with parts there: give"
            f" {argument(f'fleet.devices.{unmeasured[0]}.power_w', 'WATTS')}"
        )
    if not placed.front_complete:
        yield "the trade-offs are not all that there are, or not proven; raise place.time_limit_seconds"
    if forecast.borders.left_out:
        yield f"{forecast.borders.left_out} cuts were left out; raise place.max_cuts to choose from more"
    stages = placed.decision.chosen.stages
    count = int(forecast.outside.sum())
    if count:
        n = len(forecast.borders.positions)
        rows = n * (n - 1) // 2 * len(forecast.fleet.devices)
        of_plan = sum(bool(forecast.outside[stage.start, stage.stop, stage.device]) for stage in stages)
        yield (
            f"{count} of {rows} predicted times lie outside of what the latency model was trained on,"
            f" {of_plan} of the plan's {len(stages)} among them"
        )


def _named(placed: Placed, stages: Stages | None) -> str:
    """Write a plan in a line: which operators where."""
    if stages is None:
        return "no plan"
    positions, devices = placed.forecast.borders.positions, placed.problem.devices
    if len(stages) > _MOST_NAMED:
        return f"{len(stages)} parts on {', '.join(dict.fromkeys(devices[s.device].name for s in stages))}"
    return " ".join(f"{devices[s.device].name}[{positions[s.start]}:{positions[s.stop]}]" for s in stages)


def link_mbit_s(placed: Placed) -> float | None:
    """Return the bandwidth of all links, None where they differ or have no limit."""
    problem = placed.problem
    rates = problem.links.ms_per_byte[~np.eye(len(problem.devices), dtype=bool)]
    return mbit_s(float(rates[0])) if rates.size and (rates == rates[0]).all() and rates[0] < np.inf else None
