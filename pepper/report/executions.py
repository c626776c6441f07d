"""What was measured of a plan, as lines for tables and as the metrics of its run."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from pepper.execution.runner import Answer
from pepper.measure.statistics import summarise
from pepper.placement.plan import Plan
from pepper.planning.measured import Adapted, MeasuredPlan
from pepper.planning.other_plans import OtherRun
from pepper.report.execution_tables import LinkLine, MoveLine, RunLine, StepLine
from pepper.report.execution_timelines import timelines
from pepper.units import mbit_s

THE_PLAN = "the plan"


def step_lines(plan: Plan, measured: MeasuredPlan) -> list[StepLine]:
    """Return the lines of the main table: along the way, then the whole."""
    medians, means, busy = measured.single.steps(), measured.single.steps(mean=True), measured.stream.steps()
    replanned = len(means.compute) != len(plan.parts) or bool(measured.events)
    # What is received waits for the device's turn, and is handled there, before its inference begins.
    predicted = [*(part.receive_ms + part.pickup_ms for part in plan.parts), plan.return_ms]
    lines = []
    for number, transfer_ms in enumerate(means.transfer):
        hop = measured.hops[number].hop if measured.hops and not replanned else None
        last = number == len(plan.parts)
        if hop is not None and (hop.link is not None or not last):
            lines.append(
                StepLine(
                    " and ".join(["transfer"] * (hop.link is not None) + ["pickup"] * (not last)),
                    f"{hop.sender} -> {hop.receiver}" if hop.link is not None else str(hop.receiver),
                    predicted[number],
                    transfer_ms,
                    medians.transfer[number],
                )
            )
        if number < len(means.compute) and not replanned:
            part = plan.parts[number]
            lines.append(
                StepLine(
                    f"stage {number + 1}, operators {part.start} to {part.stop}",
                    part.device,
                    part.time_ms,
                    means.compute[number],
                    medians.compute[number],
                    means.queue[number],
                    busy.queue[number],
                    measured.usage[number]["peak_memory_bytes"],
                )
            )
            if (moved_ms := measured.usage[number]["moved_ms"]) is not None:
                lines.append(
                    StepLine(f"host-device transfers in stage {number + 1}", part.device, part.moved_ms, moved_ms)
                )
    median_ms = float(np.median(measured.single.latency_ms))
    period_ms = 1000 / measured.stream.throughput_per_s
    return [
        *lines,
        StepLine("one request", "", None if replanned else plan.latency_ms, measured.latency_ms, median_ms),
        StepLine("between results of a stream", "", None if replanned else plan.period_ms, period_ms),
    ]


def link_lines(measured: MeasuredPlan) -> list[LinkLine]:
    """Return a line for each hop that goes over a link."""
    return [
        LinkLine(
            f"{found.hop.sender} -> {found.hop.receiver}",
            mbit_s(found.hop.link.ms_per_byte),
            found.bandwidth_mbit_s,
            found.hop.link.latency_ms,
            found.latency_ms,
        )
        for found in measured.hops
        if found.hop.link is not None
    ]


def run_lines(plan: Plan, measured: MeasuredPlan) -> list[RunLine]:
    """Return a line for the plan and for each other one that was run, with its ratio to the best of all."""
    mine = OtherRun(
        "the plan (a device was lost)" if measured.lost else THE_PLAN,
        measured.devices,
        measured.latency_ms,
        measured.stream.throughput_per_s,
        measured.difference,
        measured.excess,
    )
    runs = [mine, *measured.others.runs]
    values = [plan.minimised.measured(run.latency_ms, run.per_second, len(run.devices)) for run in runs]
    best = min((value for value in values if value is not None), default=None)
    return [
        RunLine(
            run.name,
            " - ".join(run.devices),
            run.latency_ms,
            run.per_second,
            None if best is None or value is None else value / best,
        )
        for run, value in zip(runs, values, strict=True)
    ]


def move_lines(adapted: Adapted) -> list[MoveLine]:
    """Return a line for each move: the latency and throughput around it, between the changes of load."""
    answers = [answer for answer in adapted.trial.answers if answer.error is None]
    ends = [*(move.since_ns for move in adapted.moves[1:]), max(answer.answered_ns for answer in answers)]
    lines = []
    for move, end_ns in zip(adapted.moves, ends, strict=False):
        before = _between(answers, move.number - 1, move.since_ns, move.at_ns)
        after = _between(answers, move.number, move.at_ns, end_ns)
        lines.append(
            MoveLine(
                (move.at_ns - adapted.started_ns) / 1e9,
                " - ".join(move.before),
                " - ".join(move.after),
                ", ".join(f"{name} {percent:.0f} %" for name, percent in move.loads.items()),
                move.current_ms,
                move.best_ms,
                before[0],
                after[0],
                before[1],
                after[1],
            )
        )
    return lines


def _between(answers: Sequence[Answer], layout: int, start_ns: int, end_ns: int) -> tuple[float, float]:
    """Return the median latency (ms) of a layout's answers in a span, and how many came a second."""
    found = [a.latency_ms for a in answers if a.layout == layout and start_ns <= a.answered_ns <= end_ns]
    if not found:
        return float("nan"), 0.0
    return float(np.median(found)), len(found) / max((end_ns - start_ns) / 1e9, 1e-9)


def metrics_of(plan: Plan, measured: MeasuredPlan) -> dict[str, float]:
    """Return the run's metrics; each name carries its unit."""
    single = summarise(measured.single.latency_ms)
    arrivals = summarise(measured.arrivals.latency_ms)
    found = {
        **single,
        **{f"at_rate_{name}": value for name, value in arrivals.items()},
        "rate_per_s": measured.rate_per_s,
        "throughput_per_s": measured.stream.throughput_per_s,
        "difference": measured.difference,
        "predicted_latency_ms": plan.latency_ms,
        "predicted_period_ms": plan.period_ms,
        "failed_requests": float(len(measured.failures)),
    }
    for condition in measured.conditions:
        name = condition.device.replace("#", "_")
        found[f"foreign_percent_{name}"] = condition.foreign_percent
        if condition.given is not None:
            found[f"share_achieved_{name}"] = condition.given
    for line in step_lines(plan, measured):
        name = line.what.partition(",")[0].replace(" ", "_")
        if " -> " in line.where:
            name += f"_{line.where.replace(' -> ', '_to_')}".replace("#", "_")
        if line.error is not None:
            found[f"{name}_error_percent"] = 100 * line.error
        found[f"{name}_measured_ms"] = line.measured_ms
        if line.memory_bytes is not None:
            found[f"{name}_peak_memory_bytes"] = line.memory_bytes
    if measured.adapted is not None:
        found["moves"] = float(len(measured.adapted.moves))
        for move in move_lines(measured.adapted)[-1:]:
            found |= {
                "moved_at_s": move.at_s,
                "before_move_p50_ms": move.before_p50_ms,
                "after_move_p50_ms": move.after_p50_ms,
                "before_move_per_s": move.before_per_s,
                "after_move_per_s": move.after_per_s,
            }
    if measured.others.runs and not measured.lost:
        ratio = run_lines(plan, measured)[0].ratio
        found |= {} if ratio is None else {"regret": ratio}
    return found


def tables(plan: Plan, measured: MeasuredPlan) -> dict[str, list[dict[str, Any]]]:
    """Return what was measured as tables by name, a row a dictionary."""
    return {
        "steps": [{**asdict(line), "error": line.error} for line in step_lines(plan, measured)],
        "links": [asdict(line) for line in link_lines(measured)],
        "runs": [asdict(line) for line in run_lines(plan, measured)],
        "not_run": [asdict(other) for other in measured.others.not_run],
        "events": [asdict(event) for event in measured.all_events],
        "conditions": [asdict(condition) for condition in measured.conditions],
        "moves": [] if measured.adapted is None else [asdict(line) for line in move_lines(measured.adapted)],
        "timeline": [
            {"shown": shown, **asdict(event)} for shown, events in timelines(plan, measured).items() for event in events
        ],
    }
