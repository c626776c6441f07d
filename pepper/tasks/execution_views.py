"""What ``task=execute`` says, draws and logs of a run."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np

from pepper.execution.adapting import Move
from pepper.execution.conditions import Condition
from pepper.execution.links import MeasuredHop
from pepper.execution.runner import Answer, Event
from pepper.execution.trials import Trial, steps
from pepper.measure.statistics import summarise
from pepper.placement.plan import Plan
from pepper.planning.other_plans import OtherRun, Others
from pepper.report.execution_tables import LinkLine, MoveLine, RunLine, StepLine
from pepper.report.timelines import Busy
from pepper.units import mbit_s

THE_PLAN = "the plan"
_STREAM = 6
"""Answers that come in the timeline of a stream."""


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
        conditions: What its devices gave meanwhile.
        faults: What of that makes the figures INVALID.
        adapted: A stream during which it could move to other plans, if one was run.
        others: What came of other plans.
        refused: Connections from outside of the run that its queues refused.
    """

    hops: list[MeasuredHop]
    single: Trial
    stream: Trial
    arrivals: Trial
    rate_per_s: float
    usage: list[dict[str, Any]]
    devices: tuple[str, ...]
    events: list[Event]
    conditions: list[Condition]
    faults: list[str]
    adapted: Adapted | None = None
    others: Others = field(default_factory=Others)
    refused: int = 0

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

    @property
    def refusals(self) -> list[str]:
        """That its queues refused connections from outside of the run, if they did."""
        count = f"{self.refused} connection{'s' if self.refused > 1 else ''}"
        return [f"execute.port: {count} from outside of the run refused"] if self.refused else []

    @property
    def excess(self) -> float:
        """Largest multiple of the accepted difference, of any answer."""
        return max(trial.excess for trial in self.trials)


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
            mbit_s(found.hop.link.ms_per_byte),
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
        measured.difference,
        measured.excess,
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
        found["regret"] = run_lines(plan, measured)[0].ratio
    return found


def timelines(plan: Plan, measured: Measured) -> dict[str, list[Busy]]:
    """Return who was busy when, by what is shown: one request, and a stream; of the last layout of each trial."""
    alone, stream = measured.single.latest, measured.stream.latest
    median = sorted(alone, key=lambda answer: answer.latency_ms)[len(alone) // 2]
    middle = stream[len(stream) // 2 :][:_STREAM]
    one = f"one request, measured (the median of {len(alone)})"
    several = f"a saturated stream, measured (while {len(middle)} of its {len(stream)} answers came)"
    return {
        one: _between_times(_busy(plan, [median]), median.stamps[0].sent, median.answered_ns),
        several: _between_times(_busy(plan, stream), middle[0].stamps[-1].start, middle[-1].answered_ns),
    }


def _busy(plan: Plan, answers: Sequence[Answer]) -> list[Busy]:
    """Turn stamps into bars, along the way of each request; times are those of the clock.

    On a link, a transfer waits for the one before it: there it begins when the last byte of that one was sent.
    """
    delay_ms = {ends: link.latency_ms for ends, link in plan.fleet.between.items()}
    computed, moved = [], []
    for answer in answers:
        places = [plan.fleet.source, *answer.devices, plan.fleet.sink]
        for hop, (way, transfer_ms) in enumerate(zip(pairwise(places), steps(answer).transfer, strict=True)):
            sender, receiver = way
            if sender is not None and receiver is not None and sender != receiver:
                sent_ms = answer.stamps[hop].sent / 1e6
                lane = f"{sender} -> {receiver}"
                busy = Busy(lane, receiver, answer.seq, "transfer", sent_ms, sent_ms + transfer_ms)
                moved.append(((sender, receiver), busy))
        for number, (device, stamp) in enumerate(zip(answer.devices, answer.stamps[1:], strict=True), 1):
            part = f"part {number}"
            computed.append(Busy(device, device, answer.seq, part, stamp.start / 1e6, stamp.end / 1e6))
    free_ms: dict[str, float] = {}
    transfers = []
    for way, event in sorted(moved, key=lambda one: one[1].stop_ms):
        transfers.append(replace(event, start_ms=max(event.start_ms, free_ms.get(event.lane, 0.0))))
        free_ms[event.lane] = event.stop_ms - delay_ms.get(way, 0.0)
    return sorted([*computed, *transfers], key=lambda event: (event.request, event.start_ms))


def _between_times(events: Sequence[Busy], since_ns: int, until_ns: int) -> list[Busy]:
    """Return what goes on in a span, the requests numbered anew; the first of all begins at 0, or the span does."""
    shown = [event for event in events if event.start_ms < until_ns / 1e6 and event.stop_ms > since_ns / 1e6]
    start_ms = min(since_ns / 1e6, *(event.start_ms for event in shown))
    numbers = {seq: number for number, seq in enumerate(sorted({event.request for event in shown}), 1)}
    return [
        replace(
            event,
            request=numbers[event.request],
            start_ms=event.start_ms - start_ms,
            stop_ms=event.stop_ms - start_ms,
        )
        for event in shown
    ]
