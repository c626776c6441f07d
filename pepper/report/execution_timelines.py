"""Who was busy when, of requests that were answered."""

from collections.abc import Sequence
from dataclasses import replace

from pepper.execution.runner import Answer
from pepper.execution.trials import steps
from pepper.placement.plan import Plan
from pepper.planning.measured import MeasuredPlan
from pepper.report.timelines import Busy

_STREAM = 6
"""Answers that come in the timeline of a stream."""


def timelines(plan: Plan, measured: MeasuredPlan) -> dict[str, list[Busy]]:
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
        waits = zip(places[1:], answer.senders, steps(answer).transfer, strict=True)
        for receiver, senders, transfer_ms in waits:
            hop = max(senders, key=lambda stage: answer.stamps[stage].sent)
            sender = places[hop]
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
