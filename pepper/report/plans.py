"""Sections of the report about placements: the parts of a plan, what crosses between them, and when each works."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from pepper.report import charts, plan_charts
from pepper.report.page import Block, Chart, Facts, Section, Table
from pepper.report.timelines import Busy, lanes

if TYPE_CHECKING:
    import pandas as pd

Plan = Mapping[str, Any]
"""A plan as its ``plan.json`` holds it."""


@dataclass(frozen=True)
class PlanReport:
    """A placement and what is known of it.

    Attributes:
        name: How its run is called.
        run_id: Its run.
        plan: What was decided.
        front: Plans that no other one beats in both latency and throughput.
        steps: One row a step, where the plan was run: ``what``, ``where``, ``predicted_ms``, ``measured_ms``.
        runs: One row a plan that was run: ``name``, ``devices``, ``latency_ms``, ``per_second``, ``ratio``.
        events: One row an event while it ran: ``at_ns``, ``kind``, ``note``.
        moves: One row a move to another plan, as `pepper.report.execution_tables.MoveLine`.
        timeline: One row a time that a device or link was busy, as `Busy`, and ``shown``: of what; one request first.
    """

    name: str
    run_id: str
    plan: Plan
    front: Sequence[Plan] = ()
    steps: "pd.DataFrame | None" = None
    runs: "pd.DataFrame | None" = None
    events: "pd.DataFrame | None" = None
    moves: "pd.DataFrame | None" = None
    timeline: "pd.DataFrame | None" = None


def section(placement: PlanReport) -> Section:
    """Return the section about one placement."""
    plan = placement.plan
    parts: Sequence[Plan] = plan["parts"]
    names = [str(part["device"]) for part in parts]
    shown = _shown(placement.timeline)
    busy = [event for measured in shown.values() for event in measured]
    looks = charts.styles(list(dict.fromkeys([*names, *(event.device for event in [*predicted(plan), *busy])])))
    facts = {
        "objective": str(plan["objective"]),
        "predicted latency": f"{plan['latency_ms']:.3g} ms",
        "predicted throughput": f"{1000 / plan['period_ms']:.3g}/s" if plan["period_ms"] else "unknown",
        **_achieved(placement.steps),
        "sent a request": charts.size(plan["sent_bytes"]),
        "proof": "optimal" if plan["gap"] == 0 else f"within {plan['gap']:.1%} of the optimum",
    }
    operators = parts[-1]["stop"] - parts[0]["start"]
    blocks: list[Block] = [
        Facts(facts),
        Chart(
            plan_charts.chain(parts, names, looks),
            f"{operators} operators in {len(parts)} parts; bytes cross at the cuts",
        ),
        *_timelines(plan, shown, looks),
        Table(
            f"Parts of {plan['model']['name']} (run {placement.run_id})",
            ["part", "operators", "device", "predicted ms", "memory", "receives", "transfer ms", "pickup ms", "reads"],
            [
                [
                    str(number),
                    f"{part['start']} to {part['stop']}",
                    name,
                    part["time_ms"],
                    charts.size(part["memory_bytes"]),
                    charts.size(part["receive_bytes"]) if part["receive_bytes"] else None,
                    part["receive_ms"] or None,
                    part.get("pickup_ms"),
                    ", ".join(part["inputs"]),
                ]
                for number, (part, name) in enumerate(zip(parts, names, strict=True), 1)
            ],
        ),
    ]
    if placement.front:
        points = [(other["latency_ms"], 1000 / other["period_ms"]) for other in placement.front]
        chosen = (plan["latency_ms"], 1000 / plan["period_ms"])
        caption = f"{len(points)} plans that no other one beats in both"
        blocks.append(Chart(plan_charts.front(points, chosen), caption))
    if placement.steps is not None and len(placement.steps):
        blocks += _measured(placement.steps)
    if placement.runs is not None and len(placement.runs):
        blocks.append(_runs(placement.runs))
    if placement.moves is not None and len(placement.moves):
        blocks.append(_moves(placement.moves))
    if placement.events is not None and len(placement.events):
        blocks.append(_events(placement.events))
    return Section(f"{'Placement' if placement.steps is None else 'Execution'}: {placement.name}", blocks)


def _achieved(steps: "pd.DataFrame | None") -> dict[str, str]:
    """Return what was measured of the two figures that a plan predicts."""
    if steps is None:
        return {}
    means_ms = dict(zip(steps["what"], steps["measured_ms"], strict=True))
    found = {}
    if "one request" in means_ms:
        found["measured latency"] = f"{means_ms['one request']:.3g} ms"
    if means_ms.get("between results of a stream"):
        found["measured throughput"] = f"{1000 / means_ms['between results of a stream']:.3g}/s"
    return found


def _measured(steps: "pd.DataFrame") -> list[Block]:
    names = [
        str(what) if where != where else f"{what}, {where}"  # the whole way is nowhere: NaN
        for what, where in zip(steps["what"], steps["where"], strict=True)
    ]
    chart = plan_charts.steps(names, steps["predicted_ms"].tolist(), steps["measured_ms"].tolist())
    rows = [
        [name, *charts.plain(values)]
        for name, values in zip(names, steps[["predicted_ms", "measured_ms"]].to_numpy(), strict=True)
    ]
    return [
        Chart(chart, f"{len(names)} steps of a request, predicted and measured (means)"),
        Table("The same in figures", ["step", "predicted ms", "measured ms"], rows),
    ]


def _runs(runs: "pd.DataFrame") -> Table:
    columns = {
        "name": "plan",
        "devices": "devices",
        "latency_ms": "mean ms",
        "per_second": "results/s",
        "ratio": "times the best",
    }
    return _rows("Plans that were run", columns, runs)


def _moves(moves: "pd.DataFrame") -> Table:
    columns = {
        "at_s": "after s",
        "before": "from",
        "after": "to",
        "loads": "at loads",
        "predicted_before_ms": "predicted ms, before",
        "predicted_after_ms": "predicted ms, after",
        "before_p50_ms": "median ms, before",
        "after_p50_ms": "median ms, after",
        "before_per_s": "answers/s, before",
        "after_per_s": "answers/s, after",
    }
    return _rows("Moves to another plan", columns, moves)


def _events(events: "pd.DataFrame") -> Table:
    since_s = (events["at_ns"] - events["at_ns"].iloc[0]) / 1e9
    columns = {"since_s": "after the first, s", "kind": "event", "note": "what and why"}
    return _rows("What happened meanwhile", columns, events.assign(since_s=since_s))


def _rows(caption: str, columns: Mapping[str, str], frame: "pd.DataFrame") -> Table:
    """Return some of a frame's columns, under names for people."""
    rows = frame[list(columns)].astype(object).to_numpy().tolist()
    return Table(caption, list(columns.values()), rows)


_BUSY = [field.name for field in fields(Busy)]


def predicted(plan: Plan) -> list[Busy]:
    """Return when each part and transfer of one request begins and ends, by the plan's own figures."""
    now_ms, found = 0.0, []
    before = plan["fleet"]["source"]
    for number, part in enumerate(plan["parts"], 1):
        device = str(part["device"])
        if part["receive_ms"]:
            stop_ms = now_ms + part["receive_ms"]
            found.append(Busy(f"{before} -> {device}", device, 1, charts.size(part["receive_bytes"]), now_ms, stop_ms))
            now_ms = stop_ms
        now_ms += part.get("pickup_ms", 0.0)
        found.append(Busy(device, device, 1, f"part {number}", now_ms, now_ms + part["time_ms"]))
        now_ms += part["time_ms"]
        before = device
    if plan["return_ms"]:
        sink = str(plan["fleet"]["sink"])
        found.append(Busy(f"{before} -> {sink}", sink, 1, "the answer", now_ms, now_ms + plan["return_ms"]))
    return found


def _shown(timeline: "pd.DataFrame | None") -> dict[str, list[Busy]]:
    """Return what a table of timelines shows, by its name."""
    if timeline is None:
        return {}
    return {
        str(shown): [Busy(*row) for row in rows[_BUSY].itertuples(index=False)]
        for shown, rows in timeline.groupby("shown", sort=False)
    }


def _timelines(plan: Plan, shown: Mapping[str, Sequence[Busy]], looks: Mapping[str, charts.Style]) -> list[Block]:
    """Return one request as predicted, beside it as measured, and below what else was."""
    foreseen = predicted(plan)
    caption = f"one request, predicted ({len(plan['parts'])} parts)"
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
