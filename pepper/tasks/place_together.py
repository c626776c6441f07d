"""``task=place`` of several models: plans that count what the models cost each other on one fleet."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pepper.config import PepperConfig
from pepper.config.composing import Composition
from pepper.console.output import results_under
from pepper.console.progress import StepProgress
from pepper.console.tables import show
from pepper.outputs import fill_folder, results_folder
from pepper.placement.plan import Plan
from pepper.planning.joint_placing import PlacedModels, find_joint_plan
from pepper.report import plans as pages
from pepper.report.joint_placements import (
    JointRunLine,
    joint_lines,
    joint_metrics,
    joint_name,
    joint_params,
    joint_table,
    joint_verdict,
    joint_warnings,
    use_lines,
    use_table,
)
from pepper.report.page import render
from pepper.tasks.execute_together import execute_together
from pepper.tasks.result import Result
from pepper.tracking.abandoned import close_abandoned
from pepper.tracking.posting import begun, log
from pepper.tracking.record import Record
from pepper.tracking.store import Store


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
        status, runs = execute_together(config, placed, plans)
    return PlacedTogether(status=status, plans=plans, run_id=run_id, runs=runs)


def _say(config: PepperConfig, placed: PlacedModels) -> None:
    show(f"{joint_name(placed)} on {config.fleet.name}, by {placed.predicted_by}")
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


def _log(
    config: PepperConfig, store: Store, placed: PlacedModels, folder: Path, out: Path | None
) -> tuple[str, dict[str, Plan]]:
    """Write the plans, log all and a page about it; return the run's identifier and the plans with it."""
    plans = {model.name: model.plan for model in placed.models}
    _save(plans, folder)
    if out:  # before the store is asked for anything
        fill_folder("place.out", folder, out)
    title = f"{joint_name(placed)} on {config.fleet.name}"
    record = Record(
        kind="joint_placement",
        name=title,
        params=joint_params(config, placed),
        metrics=joint_metrics(placed),
        tags={f"pepper.{key}": value for key, value in placed.lineage.items()},
        note=joint_verdict(placed),
        artifacts=folder,
        data_of=placed.lineage["training_run"] or None,
    )
    record, link = begun(store, record, "placement")
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
