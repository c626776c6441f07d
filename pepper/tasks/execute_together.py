"""Plans of several models are run at one time, and held to what is predicted of them."""

import csv
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from pepper.config import PepperConfig
from pepper.console.progress import StepProgress
from pepper.console.tables import figure, show
from pepper.errors import PepperError, listed
from pepper.hosts import reach
from pepper.outputs import fill_folder, results_folder
from pepper.placement.plan import Plan
from pepper.planning.joint_measuring import MeasuredModels, Ready, measure_together, ready
from pepper.planning.joint_placing import PlacedModels
from pepper.planning.measured import Kept
from pepper.planning.other_plans import wrong_answer
from pepper.report.joint_placements import (
    JointRunLine,
    joint_name,
    joint_params,
    joint_run_lines,
    joint_run_metrics,
    joint_runs_table,
)
from pepper.tasks.execute import proved_by_themselves
from pepper.tracking.posting import log
from pepper.tracking.record import Record
from pepper.tracking.store import Store


def execute_together(
    config: PepperConfig, placed: PlacedModels, plans: Mapping[str, Plan]
) -> tuple[int, list[JointRunLine]]:
    """Run the plans of several models at their rates, say and log what came of it.

    Args:
        config: The whole configuration.
        placed: What is predicted of them.
        plans: By model, its plan.

    Returns:
        The exit status, and a line for each model.

    Raises:
        ConfigError: This machine cannot give a device.
        ExecutionError: A stage was lost.
    """
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
        return _status(config, models, measured), lines


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
        name=f"{joint_name(placed)} together",
        status="FAILED" if failed else "FINISHED",
        params=joint_params(config, placed),
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


def _status(config: PepperConfig, models: Sequence[Ready], measured: MeasuredModels) -> int:
    """Say what went wrong, and return the exit status."""
    failures, wrong, unproved = measured.failures, measured.excess > 1, False
    if failures:
        print(f"error: {len(failures)} requests failed, the first: {failures[0]}", file=sys.stderr)
    if wrong:
        print(f"error: {wrong_answer(measured.difference, measured.excess)}", file=sys.stderr)
    for model in models:
        for reason in dict.fromkeys(model.untold.values()):
            names = listed([repr(output) for output, why in model.untold.items() if why == reason])
            print(f"warning: {model.name}: output {names} {reason}: its answers prove nothing", file=sys.stderr)
        if len(model.untold) == len(model.graph.outputs):
            proved = proved_by_themselves(config, model.graph, model.layout, f"the parts of {model.name}")
            unproved = unproved or not proved
    return 1 if failures or wrong or unproved else 0
