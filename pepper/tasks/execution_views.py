"""What ``task=execute`` says, draws and logs of a run."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pepper.execution.adapting import Move
from pepper.execution.links import MeasuredHop
from pepper.execution.runner import Answer, Event
from pepper.execution.trials import Trial, steps
from pepper.measure.statistics import summarise
from pepper.placement.plan import Plan
from pepper.report.execution_tables import LinkLine, MoveLine, RunLine, StepLine
from pepper.report.placement_figures import Busy
from pepper.tasks.other_plans import OtherRun, Others

THE_PLAN = "the plan"
_STREAM = 6
"""Requests in the figure of a stream."""


@dataclass(frozen=True)
class Adapted:
    """A stream at a rate, during which the pipeline could move to other plans.

    Attributes:
        trial: The stream.
        started_ns: When it began (monotonic clock).
        moves: The moves.
        events: What happened to the pipeline.
    """

    trial: Trial
    started_ns: int
    moves: list[Move]
    events: list[Event]


@dataclass(frozen=True)
class Measured:
    """All that was measured of a plan.

    Attributes:
        hops: Its transfers, measured before the run.
        single: One request at a time.
        stream: As many as possible.
        arrivals: At a rate.
        rate_per_s: That rate.
        usage: CPU time and memory of each stage.
        devices: Of the parts of what ran at the end of the three trials.
        events: What happened to the pipeline in the three trials.
        adapted: A stream during which it could move to other plans, if one was run.
        others: What came of other plans.
    """

    hops: list[MeasuredHop]
    single: Trial
    stream: Trial
    arrivals: Trial
    rate_per_s: float
    usage: list[dict[str, Any]]
    devices: tuple[str, ...]
    events: list[Event]
    adapted: Adapted | None = None
    others: Others = field(default_factory=Others)

    @property
    def trials(self) -> tuple[Trial, ...]:
        """The three trials, and the fourth if there is one."""
        return (self.single, self.stream, self.arrivals, *([self.adapted.trial] if self.adapted else []))

    @property
    def lost(self) -> bool:
        """Whether a device was lost in the three trials: they then measured more than the plan."""
        return any(event.kind == "lost" for event in self.events)

    @property
    def all_events(self) -> list[Event]:
        """What happened to the pipeline in any trial, also of other plans."""
        return [*self.events, *(self.adapted.events if self.adapted else []), *self.others.events]

    @property
    def failures(self) -> list[str]:
        """Why requests failed, in any trial; and why other plans did."""
        return [*(reason for trial in self.trials for reason in trial.failures), *self.others.failures]

    @property
    def latency_ms(self) -> float:
        """Mean of single requests."""
        return float(np.mean(self.single.latency_ms))

    @property
    def difference(self) -> float:
        """Largest difference to the whole model's outputs, of any answer."""
        return max(*(trial.difference for trial in self.trials), *(run.difference for run in self.others.runs))


def step_lines(plan: Plan, measured: Measured) -> list[StepLine]:
    """Return the lines of the main table: along the way, then the whole."""
    medians, means, busy = measured.single.steps(), measured.single.steps(mean=True), measured.stream.steps()
    replanned = len(means.compute) != len(plan.parts) or bool(measured.events)
    # What is received waits for the device's turn, and is handled there, before its inference begins.
    predicted = [*(part.receive_ms + part.pickup_ms for part in plan.parts), plan.return_ms]
    lines = []
    for number, transfer_ms in enumerate(means.transfer):
        hop = measured.hops[number].hop if not replanned else None
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
    median_ms = float(np.median(measured.single.latency_ms))
    period_ms = 1000 / measured.stream.throughput_per_s
    return [
        *lines,
        StepLine("one request", "", None if replanned else plan.latency_ms, measured.latency_ms, median_ms),
        StepLine("between results of a stream", "", None if replanned else plan.period_ms, period_ms),
    ]


def link_lines(measured: Measured) -> list[LinkLine]:
    """Return a line for each hop that goes over a link."""
    return [
        LinkLine(
            f"{found.hop.sender} -> {found.hop.receiver}",
            found.hop.link.bandwidth_mbit_s,
            found.bandwidth_mbit_s,
            found.hop.link.latency_ms,
            found.latency_ms,
        )
        for found in measured.hops
        if found.hop.link is not None
    ]


def run_lines(plan: Plan, measured: Measured) -> list[RunLine]:
    """Return a line for the plan and for each other one that was run, with its ratio to the best of all."""
    mine = OtherRun(
        "the plan (a device was lost)" if measured.lost else THE_PLAN,
        measured.devices,
        measured.latency_ms,
        measured.stream.throughput_per_s,
        0.0,
    )
    runs = [mine, *measured.others.runs]
    values = [1 / run.per_second if plan.objective == "throughput" else run.latency_ms for run in runs]
    return [
        RunLine(run.name, " - ".join(run.devices), run.latency_ms, run.per_second, value / min(values))
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


def figures(plan: Plan, measured: Measured) -> dict[str, float]:
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
    for line in step_lines(plan, measured):
        name = line.what.partition(",")[0].replace(" ", "_")
        if line.what == "transfer":
            name = f"transfer_{line.where.replace(' -> ', '_to_')}".replace("#", "_")
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
        found["regret"] = run_lines(plan, measured)[0].ratio
    return found


def timelines(plan: Plan, measured: Measured) -> dict[str, list[Busy]]:
    """Return who was busy when: one request as predicted and as measured, and a stream."""
    alone = [answer for answer in measured.single.answers if answer.error is None]
    median = sorted(alone, key=lambda answer: answer.latency_ms)[len(alone) // 2]
    answered = [answer for answer in measured.stream.answers if answer.error is None]
    middle = answered[len(answered) // 2 :][:_STREAM]
    return {
        "one request, predicted": _predicted(plan),
        f"one request, measured (the median of {len(alone)})": _busy([median], plan),
        f"{len(middle)} requests of a saturated stream, measured": _busy(middle, plan),
    }


def _predicted(plan: Plan) -> list[Busy]:
    events: list[Busy] = []
    now, before = 0.0, plan.fleet["source"]
    for part in plan.parts:
        if part.receive_ms:
            events.append((f"{before} -> {part.device}", 0, now, now + part.receive_ms))
        now += part.receive_ms + part.pickup_ms
        events.append((part.device, 0, now, now + part.time_ms))
        now, before = now + part.time_ms, part.device
    if plan.return_ms:
        events.append((f"{before} -> {plan.fleet['sink']}", 0, now, now + plan.return_ms))
    return events


def _busy(answers: Sequence[Answer], plan: Plan) -> list[Busy]:
    """Turn stamps into bars; where the layout is not the plan's, only its stages are told apart."""
    events: list[Busy] = []
    for number, answer in enumerate(answers):
        devices = [part.device for part in plan.parts]
        if len(devices) != len(answer.stamps) - 1:
            devices = [f"stage {k + 1}" for k in range(len(answer.stamps) - 1)]
        places = [plan.fleet["source"], *devices, plan.fleet["sink"]]
        for hop, transfer_ms in enumerate(steps(answer).transfer):
            sent_ms = answer.stamps[hop].sent / 1e6
            if None not in places[hop : hop + 2] and places[hop] != places[hop + 1]:
                events.append((f"{places[hop]} -> {places[hop + 1]}", number, sent_ms, sent_ms + transfer_ms))
        for device, stamp in zip(devices, answer.stamps[1:], strict=True):
            events.append((device, number, stamp.start / 1e6, stamp.end / 1e6))
    start = min((begin for *_, begin, _ in events), default=0.0)
    return [(name, number, begin - start, end - start) for name, number, begin, end in events]
