"""Sections of the report about placements: the parts of a plan, what crosses between them, and when each works."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich.filesize import decimal

from pepper.config.placing import PlanGraph
from pepper.execution.runner import Event
from pepper.placement.plan import Plan
from pepper.placement.queueing import UnderLoad
from pepper.report import charts, plan_charts
from pepper.report.execution_tables import MoveLine, RunLine, StepLine
from pepper.report.page import Block, Chart, Facts, Section, Table
from pepper.report.placement_tables import LEAST_MOVED_MS
from pepper.report.placements import energy_line, error_line
from pepper.report.timelines import Busy, lanes
from pepper.units import per_second


@dataclass(frozen=True)
class PlanReport:
    """A placement and what is known of it.

    Attributes:
        name: How its run is called.
        plan: What was decided.
        run_id: Its run; None on a page that is kept in it.
        front: Plans that no other one beats in all that was asked for.
        steps: The steps of a request, where the plan was run.
        runs: The plans that were run.
        events: What happened while it ran.
        moves: The moves to another plan.
        timelines: When a device or link was busy, by what is shown; one request first.
        busy: What requests are foretold to take that arise at random.
    """

    name: str
    plan: Plan
    run_id: str | None = None
    front: Sequence[Plan] = ()
    steps: Sequence[StepLine] = ()
    runs: Sequence[RunLine] = ()
    events: Sequence[Event] = ()
    moves: Sequence[MoveLine] = ()
    timelines: Mapping[str, Sequence[Busy]] = field(default_factory=dict)
    busy: Sequence[UnderLoad] = ()


def section(placement: PlanReport) -> Section:
    """Return the section about one placement."""
    plan = placement.plan
    parts, names = plan.parts, plan.devices
    busy = [event for measured in placement.timelines.values() for event in measured]
    looks = charts.styles(list(dict.fromkeys([*names, *(event.device for event in [*predicted(plan), *busy])])))
    facts = {
        "objective": plan.objective,
        "predicted latency": f"{plan.latency_ms:.3g} ms",
        "predicted throughput": f"{per_second(plan.period_ms):.3g}/s" if plan.period_ms else "unknown",
        **_achieved(placement.steps),
        "sent a request": decimal(round(plan.sent_bytes)),
        **({} if (energy := energy_line(plan)) is None else {"energy": energy.removeprefix("energy ")}),
        **({} if (error := error_line(plan)) is None else {"error": error.removeprefix("error ")}),
        "proof": "optimal" if plan.gap == 0 else f"within {plan.gap:.1%} of the optimum",
    }
    operators = parts[-1].stop - parts[0].start
    moving = any(part.moved_ms >= LEAST_MOVED_MS for part in parts)
    mixed = plan.accuracy is not None
    model = plan.model.name if plan.model else "the plan"
    blocks: list[Block] = [
        Facts(facts),
        Chart(
            plan_charts.chain(parts, names, looks),
            f"{operators} operators in {len(parts)} parts; bytes cross at the cuts",
        ),
        *_timelines(plan, placement.timelines, looks),
        Table(
            f"Parts of {model}" + (f" (run {placement.run_id})" if placement.run_id else ""),
            [
                "part",
                "operators",
                "device",
                *(["precision"] if mixed else []),
                "predicted ms",
                *(["of it host-device ms"] if moving else []),
                "memory",
                "receives",
                "transfer ms",
                "pickup ms",
                "reads",
            ],
            [
                [
                    str(number),
                    f"{part.start} to {part.stop}",
                    part.device,
                    *([part.precision.value] if mixed else []),
                    part.time_ms,
                    *([part.moved_ms if part.moved_ms >= LEAST_MOVED_MS else None] if moving else []),
                    decimal(round(part.memory_bytes)),
                    decimal(round(part.receive_bytes)) if part.receive_bytes else None,
                    part.receive_ms or None,
                    part.pickup_ms,
                    ", ".join(part.inputs),
                ]
                for number, part in enumerate(parts, 1)
            ],
        ),
    ]
    if placement.front:
        points = [(other.latency_ms, per_second(other.period_ms)) for other in placement.front]
        chosen = (plan.latency_ms, per_second(plan.period_ms))
        caption = f"{len(points)} plans that no other one beats"
        blocks.append(Chart(plan_charts.front(points, chosen), caption))
    if placement.busy:
        blocks.append(_under_load(placement.busy))
    if placement.steps:
        blocks += _measured(placement.steps)
    if placement.runs:
        blocks.append(_runs(placement.runs))
    if placement.moves:
        blocks.append(_moves(placement.moves))
    if placement.events:
        blocks.append(_events(placement.events))
    return Section(f"{'Execution' if placement.steps else 'Placement'}: {placement.name}", blocks)


def _under_load(busy: Sequence[UnderLoad]) -> Table:
    return Table(
        "Requests that arise at random (simulated)",
        ["requests/s", "of the most, %", "median ms", "p95 ms", "p99 ms"],
        [[line.rate_per_s, 100 * line.utilisation, line.p50_ms, line.p95_ms, line.p99_ms] for line in busy],
    )


def _achieved(steps: Sequence[StepLine]) -> dict[str, str]:
    """Return what was measured of the two figures that a plan predicts."""
    means_ms = {step.what: step.measured_ms for step in steps}
    found = {}
    if "one request" in means_ms:
        found["measured latency"] = f"{means_ms['one request']:.3g} ms"
    if means_ms.get("between results of a stream"):
        found["measured throughput"] = f"{per_second(means_ms['between results of a stream']):.3g}/s"
    return found


def _measured(steps: Sequence[StepLine]) -> list[Block]:
    names = [f"{step.what}, {step.where}" if step.where else step.what for step in steps]  # the whole way is nowhere
    chart = plan_charts.steps(names, [step.predicted_ms for step in steps], [step.measured_ms for step in steps])
    rows = [[name, step.predicted_ms, step.measured_ms] for name, step in zip(names, steps, strict=True)]
    return [
        Chart(chart, f"{len(names)} steps of a request, predicted and measured (means)"),
        Table("The same in figures", ["step", "predicted ms", "measured ms"], rows),
    ]


def _runs(runs: Sequence[RunLine]) -> Table:
    rows = [[run.name, run.devices, run.latency_ms, run.per_second, run.ratio] for run in runs]
    return Table("Plans that were run", ["plan", "devices", "mean ms", "results/s", "times the best"], rows)


def _moves(moves: Sequence[MoveLine]) -> Table:
    columns = {
        "after s": "at_s",
        "from": "before",
        "to": "after",
        "at loads": "loads",
        "predicted ms, before": "predicted_before_ms",
        "predicted ms, after": "predicted_after_ms",
        "median ms, before": "before_p50_ms",
        "median ms, after": "after_p50_ms",
        "answers/s, before": "before_per_s",
        "answers/s, after": "after_per_s",
    }
    rows = [[getattr(move, name) for name in columns.values()] for move in moves]
    return Table("Moves to another plan", list(columns), rows)


def _events(events: Sequence[Event]) -> Table:
    rows = [[(event.at_ns - events[0].at_ns) / 1e9, event.kind, event.note] for event in events]
    return Table("What happened meanwhile", ["after the first, s", "event", "what and why"], rows)


def predicted(plan: Plan) -> list[Busy]:
    """Return when each part and transfer of one request begins and ends, by the plan's own figures.

    Of parts that run side by side the transfers are not shown: several may be under way.
    """
    if plan.graph == PlanGraph.dag:
        return [
            Busy(part.device, part.device, 1, f"part {number}", part.begin_ms, part.begin_ms + part.time_ms)
            for number, part in enumerate(plan.parts, 1)
            if part.begin_ms is not None
        ]
    now_ms, found = 0.0, []
    before = plan.fleet.source
    for number, part in enumerate(plan.parts, 1):
        if part.receive_ms:
            stop_ms = now_ms + part.receive_ms
            lane = f"{before} -> {part.device}"
            found.append(Busy(lane, part.device, 1, decimal(round(part.receive_bytes)), now_ms, stop_ms))
            now_ms = stop_ms
        now_ms += part.pickup_ms
        found.append(Busy(part.device, part.device, 1, f"part {number}", now_ms, now_ms + part.time_ms))
        now_ms += part.time_ms
        before = part.device
    if plan.return_ms:
        sink = str(plan.fleet.sink)
        found.append(Busy(f"{before} -> {sink}", sink, 1, "the answer", now_ms, now_ms + plan.return_ms))
    return found


def _timelines(plan: Plan, shown: Mapping[str, Sequence[Busy]], looks: Mapping[str, charts.Style]) -> list[Block]:
    """Return one request as predicted, beside it as measured, and below what else was."""
    foreseen = predicted(plan)
    caption = f"one request, predicted ({len(plan.parts)} parts)"
    if not shown:
        return [Chart(plan_charts.timeline(foreseen, looks), _caption(caption))]
    (first, alone), *others = shown.items()
    rows = lanes(foreseen, alone)
    longest_ms = max(event.stop_ms for event in [*foreseen, *alone])
    return [
        [
            Chart(plan_charts.timeline(events, looks, rows, longest_ms), _caption(title))
            for title, events in ((caption, foreseen), (first, alone))
        ],
        *(
            Chart(plan_charts.timeline(events, looks), f"{_caption(title)} A number: the request.")
            for title, events in others
        ),
    ]


def _caption(title: str) -> str:
    return f"{title[0].upper()}{title[1:]}. Hatched: a transfer; gaps: waits."
