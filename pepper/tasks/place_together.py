"""``task=place`` of several models: plans that count what the models cost each other on one fleet."""

import csv
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pepper.config import PepperConfig
from pepper.config.composing import Composition
from pepper.console.output import results_under
from pepper.console.progress import StepProgress
from pepper.console.tables import figure, show
from pepper.errors import PepperError, TrackingError, listed
from pepper.hosts import reach
from pepper.outputs import fill_folder, results_folder
from pepper.placement.plan import Plan
from pepper.planning.joint_measuring import MeasuredModels, Ready, measure_together, ready
from pepper.planning.joint_placing import PlacedModels, find_joint_plan
from pepper.planning.measured import Kept
from pepper.planning.other_plans import wrong_answer
from pepper.report import plans as pages
from pepper.report.joint_placements import (
    JointRunLine,
    joint_lines,
    joint_metrics,
    joint_run_lines,
    joint_run_metrics,
    joint_runs_table,
    joint_table,
    joint_verdict,
    joint_warnings,
    placed_parts,
    use_lines,
    use_table,
)
from pepper.report.page import render
from pepper.tasks.result import Result
from pepper.tracking.abandoned import close_abandoned
from pepper.tracking.posting import log
from pepper.tracking.record import Fact, Record
from pepper.tracking.store import Store
from pepper.tracking.writer import begin


@dataclass(frozen=True, kw_only=True)
class PlacedTogether(Result):
    """What came of a placement of several models.

    Attributes:
        plans: By model, its plan.
        run_id: The placement's run.
        runs: What was measured of each, where the plans were run.
    """

    plans: dict[str, Plan]
    run_id: str
    runs: Sequence[JointRunLine] = ()


def place_together(composition: Composition) -> PlacedTogether:
    """Place several models, and say, write and log how.

    Args:
        composition: The configuration, and what its fleet's and models' options are composed from.

    Returns:
        Its status is 0, or 1 if an answer differs from the whole model's or a request failed.

    Raises:
        ConfigError: The fleet, a model, a limit or a pin is not what it must be.
        ExecutionError: The plans are to be run, and cannot.
        LatencyError: The champion cannot be used by this pepper.
        PlacementError: No plans keep to the rules, or carry the rates.
    """
    config = composition.config
    out = results_folder("place.out", config.place.out)
    store = Store(replace(config.tracking, experiment=config.place.experiment))
    close_abandoned(store)
    steps = len(config.place.models) * (2 + len(config.fleet.devices)) + 1
    with StepProgress(steps, config.is_quiet, seldom=True) as progress:
        placed = find_joint_plan(composition, progress.advance)
    _say(config, placed)
    with tempfile.TemporaryDirectory() as scratch:
        run_id, plans = _log(config, store, placed, Path(scratch), out)
    show(
        f"logged as run {run_id} of {config.place.experiment}{f'; a plan.json of each model in {out}' if out else ''}",
        plans={name: plan.to_json() for name, plan in plans.items()},
        run_id=run_id,
    )
    if not config.place.execute:
        return PlacedTogether(plans=plans, run_id=run_id)
    with results_under("execute"):
        status, runs = _execute(config, placed, plans)
    return PlacedTogether(status=status, plans=plans, run_id=run_id, runs=runs)


def _say(config: PepperConfig, placed: PlacedModels) -> None:
    show(f"{_names(placed)} on {config.fleet.name}, by {placed.predicted_by}")
    lines, uses, said = joint_lines(placed), use_lines(placed), joint_warnings(placed)
    show(joint_table(lines), models=[asdict(line) for line in lines])
    show(use_table(uses), uses=[asdict(line) for line in uses])
    show(
        joint_verdict(placed),
        mean_ms=placed.solution.cost.mean_ms,
        bound_ms=placed.solution.bound_ms,
        separate_mean_ms=placed.separate.mean_ms,
        warnings=said,
    )
    for line in said:
        show(f"warning: {line}")


def _names(placed: PlacedModels) -> str:
    return ", ".join(model.name for model in placed.models)


def _log(
    config: PepperConfig, store: Store, placed: PlacedModels, folder: Path, out: Path | None
) -> tuple[str, dict[str, Plan]]:
    """Write the plans, log all and a page about it; return the run's identifier and the plans with it."""
    plans = {model.name: model.plan for model in placed.models}
    _save(plans, folder)
    if out:  # before the store is asked for anything
        fill_folder("place.out", folder, out)
    title = f"{_names(placed)} on {config.fleet.name}"
    record = Record(
        kind="joint_placement",
        name=title,
        params=_params(config, placed),
        metrics=joint_metrics(placed),
        tags={f"pepper.{key}": value for key, value in placed.lineage.items()},
        note=joint_verdict(placed),
        artifacts=folder,
        data_of=placed.lineage["training_run"] or None,
    )
    try:
        record = replace(record, run_id=begin(store, replace(record, artifacts=None, data_of=None)))
        link = {"placement_run": record.run_id}
    except TrackingError:  # then it waits, and plans say by what it can be found later
        link = {"placement_record": record.key}
    plans = {name: replace(plan, provenance={**plan.provenance, **link}) for name, plan in plans.items()}
    _save(plans, folder)
    if out:
        fill_folder("place.out", folder, out)
    sections = [pages.section(pages.PlanReport(name, plan, record.run_id)) for name, plan in plans.items()]
    (folder / "report.html").write_text(render(title, joint_verdict(placed), sections), encoding="utf-8")
    return log(store, record, "the plans").run_id, plans


def _save(plans: Mapping[str, Plan], folder: Path) -> None:
    for name, plan in plans.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        plan.save(folder / name / "plan.json")


def _params(config: PepperConfig, placed: PlacedModels) -> dict[str, Fact]:
    found: dict[str, Fact] = {
        "models": _names(placed),
        "fleet": config.fleet.name,
        "cuts": config.cuts.kind,
        "solver": placed.solution.solver,
    }
    for model, stream in zip(placed.models, placed.problem.streams, strict=True):
        found |= {
            f"{model.name}_per_s": stream.rate_per_s,
            f"{model.name}_priority": stream.priority,
            f"{model.name}_placement": placed_parts(model.plan),
            f"{model.name}_sha256": model.forecast.model.content_hash,
        }
    return found


def _execute(config: PepperConfig, placed: PlacedModels, plans: Mapping[str, Plan]) -> tuple[int, list[JointRunLine]]:
    """Run all plans at their rates, say and log what came of it, and return the exit status and a line for each."""
    reach.use(config.hosts)
    out = results_folder("execute.out", config.execute.out)
    store = Store(replace(config.tracking, experiment=config.execute.experiment))
    kept: dict[str, Kept] = defaultdict(Kept)
    with tempfile.TemporaryDirectory(prefix="pepper-") as scratch:
        folder = Path(scratch)
        for name in ("parts", "net", "kept"):
            (folder / name).mkdir()
        models = [
            ready(model.config, model.name, stream.rate_per_s, plans[model.name], folder / "parts")
            for model, stream in zip(placed.models, placed.problem.streams, strict=True)
        ]
        try:
            with StepProgress(len(models) + 1, config.is_quiet) as progress:
                measured = measure_together(config, models, folder / "net", progress, kept)
        except (PepperError, KeyboardInterrupt) as error:
            note = f"ended early: {str(error) or 'interrupted'}"
            if any(any(each.answers.values()) for each in kept.values()):
                _log_run(config, store, placed, {}, kept, folder / "kept", out, note, failed=True)
            raise
        lines = joint_run_lines(placed, measured)
        show(joint_runs_table(lines), runs=[asdict(line) for line in lines])
        show(f"largest difference to the whole models: {measured.difference:.2g} of the largest value")
        for fault in measured.faults:
            show(f"INVALID: {fault}")
        metrics = joint_run_metrics(lines)
        note = f"mean latency of all requests: **{figure(metrics['mean_latency_ms'])} ms** measured"
        note += "".join(f"\n\n**INVALID**: {fault}" for fault in measured.faults)
        _log_run(config, store, placed, metrics, kept, folder / "kept", out, note)
    return _status(models, measured), lines


def _log_run(
    config: PepperConfig,
    store: Store,
    placed: PlacedModels,
    metrics: Mapping[str, float],
    kept: Mapping[str, Kept],
    folder: Path,
    out: Path | None,
    note: str,
    *,
    failed: bool = False,
) -> None:
    """Keep what was measured of each request in the folder, if there is one, and log it."""
    for name, each in kept.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        rows = each.rows()
        with (folder / name / "requests.csv").open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(dict.fromkeys(key for row in rows for key in row)))
            writer.writeheader()
            writer.writerows(rows)
    record = Record(
        kind="joint_execution",
        name=f"{_names(placed)} together",
        status="FAILED" if failed else "FINISHED",
        params=_params(config, placed),
        metrics=metrics,
        tags={f"pepper.{key}": value for key, value in placed.lineage.items()},
        note=note,
        artifacts=folder,
        data_of=placed.lineage["training_run"] or None,
    )
    run_id = log(store, record, "what was measured").run_id
    show(f"logged as run {run_id} of {config.execute.experiment}{', FAILED' if failed else ''}", run_id=run_id)
    if out is not None:
        fill_folder("execute.out", folder, out)


def _status(models: Sequence[Ready], measured: MeasuredModels) -> int:
    """Say what went wrong, and return the exit status."""
    failures, wrong = measured.failures, measured.excess > 1
    if failures:
        print(f"error: {len(failures)} requests failed, the first: {failures[0]}", file=sys.stderr)
    if wrong:
        print(f"error: {wrong_answer(measured.difference, measured.excess)}", file=sys.stderr)
    for model in models:
        for reason in dict.fromkeys(model.untold.values()):
            outputs = [repr(output) for output, why in model.untold.items() if why == reason]
            print(
                f"warning: {model.name}: output {listed(outputs)} {reason}: its answers prove nothing", file=sys.stderr
            )
    return 1 if failures or wrong else 0
