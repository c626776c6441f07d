"""``task=place``: cut the model and place its parts by the champion's predictions."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pepper.config import PepperConfig
from pepper.config.composing import Composition
from pepper.console.output import results_under
from pepper.console.progress import StepProgress
from pepper.console.tables import show
from pepper.graph.ir import Graph
from pepper.graph.manifest import is_split
from pepper.graph.split import split as write_parts
from pepper.outputs import fill_folder, output_folder, remove_stale, results_folder
from pepper.placement.evaluate import Evaluation
from pepper.placement.plan import Plan, is_plan
from pepper.placement.queueing import UnderLoad
from pepper.planning.placing import Placed, alone, busy_latencies, find_plan, flips
from pepper.planning.splitting import planned_cuts, proved_plan
from pepper.report import plans as pages
from pepper.report.page import render
from pepper.report.placement_pictures import draw
from pepper.report.placement_tables import comparison_table, load_table, plan_table
from pepper.report.placements import (
    energy_line,
    flip_lines,
    flip_rows,
    metrics,
    part_lines,
    plan_lines,
    side_by_side,
    verdict,
    warnings,
    write_flips,
)
from pepper.tasks.execute import Executed, execute_plan
from pepper.tasks.place_together import PlacedTogether, place_together
from pepper.tasks.result import Result
from pepper.tasks.split import say_proof
from pepper.tracking.abandoned import close_abandoned
from pepper.tracking.posting import begun, log
from pepper.tracking.record import Record
from pepper.tracking.store import Store

_STEPS = 9
"""What is told of while placing, and each device twice more."""


@dataclass(frozen=True, kw_only=True)
class PlacedPlan(Result):
    """What came of a placement.

    Attributes:
        plan: The plan.
        alone: What the champion predicts of the whole model on each device.
        run_id: The placement's run.
        executed: What came of running it, where that was asked for.
    """

    plan: Plan
    alone: dict[str, Evaluation]
    run_id: str
    executed: Executed | None = None


def place(composition: Composition) -> PlacedPlan | PlacedTogether:
    """Place the model's parts, or those of several models, and say, write and log how."""
    return place_together(composition) if composition.config.place.models else place_one(composition)


def place_one(composition: Composition) -> PlacedPlan:
    """Place one model's parts.

    Args:
        composition: The configuration, and what its fleet's options are composed from.

    Returns:
        Its status is 0, or 1 if parts do not compute what the whole does or a request failed.

    Raises:
        ConfigError: The fleet, a limit or a pin is not what it must be.
        ExecutionError: The plan is to be run, and cannot.
        LatencyError: The champion cannot be used by this pepper.
        PlacementError: No plan keeps to the rules.
    """
    config = composition.config
    if (out := results_folder("place.out", config.place.out)) and config.place.split:
        output_folder("place.out", out / "parts", is_split)
    store = Store(replace(config.tracking, experiment=config.place.experiment))
    close_abandoned(store)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        steps = _STEPS + 2 * len(config.fleet.devices)
        with StepProgress(steps, config.is_quiet, seldom=True) as progress:
            placed = find_plan(composition, progress.advance)
            found = flips(placed, progress.advance)
            draw(placed, folder, progress.advance)
        busy = busy_latencies(placed)
        _say(config, placed, busy)
        rows, said = flip_rows(placed, found), list(warnings(placed))
        for line in (*flip_lines(placed, found), *(f"warning: {line}" for line in said)):
            show(line)
        run_id, plan = _log(config, store, placed, busy, rows, folder, out)
    where = f"; plan.json and figures in {out}" if out else ""
    show(
        f"logged as run {run_id} of {config.place.experiment}{where}",
        plan=plan.to_json(),
        flips=rows,
        warnings=said,
        run_id=run_id,
    )
    status = _split(placed.forecast.graph, plan, out / "parts") if out and config.place.split else 0
    executed = None
    if config.place.execute:
        with results_under("execute"):
            executed = execute_plan(config, plan, "the plan")
        status = max(status, executed.status)
    return PlacedPlan(status=status, plan=plan, alone=alone(placed.problem), run_id=run_id, executed=executed)


def _say(config: PepperConfig, placed: Placed, busy: Sequence[UnderLoad]) -> None:
    plan, decision, unit = placed.plan, placed.decision, placed.objective.unit.lower()
    show(f"{placed.forecast.model.name} on {config.fleet.name}, by {placed.predicted_by}")
    show(plan_table(part_lines(plan)), plan=plan.to_json())
    show(
        verdict(placed, config.place.confidence),
        split=len(plan.parts) > 1,
        **{f"low_{unit}": decision.low, f"high_{unit}": decision.high},
        probability_split_is_better=decision.probability,
    )
    if beside := side_by_side(placed, config.place.confidence):
        show(beside, graph=plan.graph)
    if energy := energy_line(plan):
        show(energy, energy_j=plan.known_j, unmeasured=plan.unmeasured)
    lines = plan_lines(placed, front=config.objective.wants_front)
    show(comparison_table(lines), plans=[asdict(line) for line in lines])
    if busy:
        show(load_table(busy), under_load=[asdict(line) for line in busy])


def _log(
    config: PepperConfig,
    store: Store,
    placed: Placed,
    busy: Sequence[UnderLoad],
    flipped: Sequence[Mapping[str, Any]],
    folder: Path,
    out: Path | None,
) -> tuple[str, Plan]:
    """Write plans beside the figures, log all and a page about it; return the run's identifier and the plan with it."""
    plans = {"plan.json": placed.plan}
    if config.objective.wants_front:
        plans |= {f"front_{number}.json": plan for number, plan in enumerate(placed.front_plans, 1)}
    for name, plan in plans.items():
        plan.save(folder / name)
    write_flips(flipped, folder / "flips.csv")
    if out:  # before the store is asked for anything
        remove_stale(file for file in out.glob("front_*.json") if is_plan(file))
        fill_folder("place.out", folder, out)
    title = f"{placed.forecast.model.name} on {config.fleet.name}"
    record = _record(config, title, placed, folder)
    record, link = begun(store, record, "placement")
    plans = {name: replace(plan, provenance={**plan.provenance, **link}) for name, plan in plans.items()}
    for name, plan in plans.items():
        plan.save(folder / name)
    if out:
        fill_folder("place.out", folder, out)
    front = [*plans.values()][1:]
    section = pages.section(pages.PlanReport(title, plans["plan.json"], record.run_id, front, busy=busy))
    page = render(title, "" if record.run_id is None else f"run {record.run_id}", [section])
    (folder / "report.html").write_text(page, encoding="utf-8")
    return log(store, record, "the plan").run_id, plans["plan.json"]


def _record(config: PepperConfig, title: str, placed: Placed, folder: Path) -> Record:
    forecast, plan = placed.forecast, placed.plan
    params = {
        "model": forecast.model.name,
        "model_sha256": forecast.model.content_hash,
        "fleet": config.fleet.name,
        "objective": config.objective.name,
        "cuts": config.cuts.kind,
        "graph": plan.graph.value,
        "parts": len(plan.parts),
        "precisions": " ".join(plan.precisions),
        "placement": " ".join(f"{part.device}[{part.start}:{part.stop}]" for part in plan.parts),
        "solver": plan.solver,
        "source": plan.fleet.source,
        "sink": plan.fleet.sink,
        **{f"load_percent_{name}": percent for name, percent in forecast.fleet.load_percent.items()},
    }
    return Record(
        kind="placement",
        name=title,
        params=params,
        metrics=metrics(placed),
        tags={f"pepper.{key}": value for key, value in placed.lineage.items()},
        note=verdict(placed, config.place.confidence),
        artifacts=folder,
        data_of=placed.lineage["training_run"] or None,
    )


def _split(graph: Graph, plan: Plan, folder: Path) -> int:
    """Write the plan's parts, prove them, and return the exit status."""
    manifest = write_parts(graph, planned_cuts(graph, plan, "plan"), folder, "place.out")
    show(f"{len(plan.parts)} parts in {folder}")
    result = proved_plan(graph, plan, manifest, folder, "plan")[1]
    say_proof(result)
    return 0 if result.ok else 1
