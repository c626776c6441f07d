"""What ``task=execute`` keeps of a run: tables and figures in a folder and in MLflow, also of one that ended early."""

import contextlib
import csv
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from pepper.config import PepperConfig
from pepper.console.output import add_results
from pepper.console.tables import figure, show
from pepper.errors import ConfigError, PepperError
from pepper.measure.statistics import summarise
from pepper.outputs import fill_folder, remove_stale
from pepper.placement.plan import Plan
from pepper.planning.measured import Kept, MeasuredPlan
from pepper.report import plans, timeline_figures
from pepper.report.execution_timelines import timelines
from pepper.report.executions import metrics_of, move_lines, run_lines, step_lines, tables
from pepper.report.page import render
from pepper.tracking.posting import log
from pepper.tracking.record import Fact, Record
from pepper.tracking.runs import EXECUTION
from pepper.tracking.store import Store

REQUESTS = "requests.csv"


@contextlib.contextmanager
def logged_if_cut_short(config: PepperConfig, store: Store, out: Path | None, plan: Plan, kept: Kept) -> Iterator[None]:
    """Where a run cannot go on, keep and log what was measured until then, as a failed run; the error goes on."""
    try:
        yield
    except (PepperError, KeyboardInterrupt) as error:
        if any(kept.answers.values()) and not kept.logged:
            try:
                where = _log_cut_short(config, store, out, plan, kept, error)
            except PepperError as another:  # the first error is the one that the user must hear last
                print(f"warning: {another}", file=sys.stderr)
            else:
                if isinstance(error, KeyboardInterrupt):
                    error.args = (where,)
                else:
                    show(where)
        raise


def _log_cut_short(
    config: PepperConfig, store: Store, out: Path | None, plan: Plan, kept: Kept, error: BaseException
) -> str:
    """Log what there is, and say where.

    Raises:
        ConfigError: The folder cannot be written; the store has it.
        TrackingError: The store does not answer; a folder beside it has it.
    """
    metrics: dict[str, float] = {}
    for name, answers in kept.answers.items():
        taken = np.array([answer.latency_ms for answer in answers if answer.error is None])
        if len(taken):
            metrics |= {f"{name.replace(' ', '_')}_{key}": value for key, value in summarise(taken).items()}
    found = {
        "events": [asdict(event) for event in (*kept.events, *kept.others.events)],
        "runs": [asdict(run) for run in kept.others.runs],
        "not_run": [asdict(other) for other in kept.others.not_run],
    }
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _write_all(folder, plan, found, kept)
        _write_page(folder, plans.PlanReport(plan.title, plan, events=[*kept.events, *kept.others.events]))
        note = f"ended early: {str(error) or 'interrupted'}"
        try:
            run_id = _log(config, store, plan, metrics, folder, note, failed=True)
        finally:
            if out is not None:
                fill_folder("execute.out", folder, out)
    add_results(run_id=run_id)
    return f"what was measured until then: run {run_id} of {config.execute.experiment}, FAILED"


def log_run(
    config: PepperConfig, store: Store, out: Path | None, plan: Plan, measured: MeasuredPlan, kept: Kept
) -> None:
    """Keep tables and figures in the folder, if there is one, and log them.

    Raises:
        ConfigError: The folder cannot be written; the store has them.
        TrackingError: The store does not answer; a folder beside it has them.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        found = tables(plan, measured)
        _write_all(folder, plan, found, kept)
        busy = timelines(plan, measured)
        timeline_figures.timelines({"one request, predicted": plans.predicted(plan), **busy}, folder / "timeline")
        moves = move_lines(measured.adapted) if measured.adapted else []
        _write_page(
            folder,
            plans.PlanReport(
                plan.title,
                plan,
                steps=step_lines(plan, measured),
                runs=run_lines(plan, measured) if measured.others.runs else [],
                events=measured.all_events,
                moves=moves,
                timelines=busy,
            ),
        )
        refused = None
        if out is not None:
            try:
                remove_stale(out / f"{name}.csv" for name in found)
                fill_folder("execute.out", folder, out)
            except ConfigError as error:  # MLflow may still take them
                refused = error
        note = f"one request: predicted **{figure(plan.latency_ms)} ms**, measured **{figure(measured.latency_ms)} ms**"
        note += "".join(f"\n\n**INVALID**: {fault}" for fault in measured.faults)
        note += "".join(f"\n\n{refusal}" for refusal in measured.refusals)
        kept.logged = True  # or kept beside the store
        run_id = _log(config, store, plan, metrics_of(plan, measured), folder, note)
    show(f"logged as run {run_id} of {config.execute.experiment}", run_id=run_id)
    if refused is not None:
        raise refused


def _log(
    config: PepperConfig,
    store: Store,
    plan: Plan,
    metrics: Mapping[str, float],
    folder: Path,
    note: str,
    failed: bool = False,
) -> str:
    """Log a run with a folder's files, and return its identifier."""
    params: dict[str, Fact] = {
        "model": plan.model.name if plan.model else "",
        "model_sha256": plan.model.sha256 if plan.model else "",
        "objective": plan.objective,
        "devices": " - ".join(plan.devices),
        "parts": len(plan.parts),
        "borders": " ".join(str(part.start) for part in plan.parts[1:]),
        "seed": config.execute.seed,
    }
    record = Record(
        kind=EXECUTION,
        name=plan.title,
        status="FAILED" if failed else "FINISHED",
        params=params,
        metrics=metrics,
        tags={f"pepper.{key}": value for key, value in plan.provenance.items()},
        note=note,
        artifacts=folder,
        data_of=plan.provenance.get("training_run") or None,
    )
    return log(store, record, "what was measured").run_id


def _write_page(folder: Path, report: plans.PlanReport) -> None:
    (folder / "report.html").write_text(render(report.name, "", [plans.section(report)]), encoding="utf-8")


def _write_all(folder: Path, plan: Plan, found: Mapping[str, Sequence[Mapping[str, Any]]], kept: Kept) -> None:
    plan.save(folder / "plan.json")
    for name, rows in found.items():
        _write(folder / f"{name}.csv", rows)
    _write(folder / REQUESTS, kept.rows())


def _write(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows under all columns that any of them has; without rows, no file."""
    if rows:
        with file.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(dict.fromkeys(name for row in rows for name in row)))
            writer.writeheader()
            writer.writerows(rows)
