"""``task=profile``: measure one cell, or every cell of a sweep, and log them."""

import contextlib
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from pepper.config import PepperConfig
from pepper.config.composing import Composition
from pepper.console.progress import StepProgress, stepwise
from pepper.console.tables import results_table, show
from pepper.errors import TrackingError
from pepper.report import notes
from pepper.sweep.axes import plan
from pepper.sweep.cells import Cell
from pepper.sweep.runner import run
from pepper.tasks.cell_facts import calibrated, described_models
from pepper.tasks.cell_log import STANDING, CellLog, cell_row, finished_cells
from pepper.tasks.posting import flush
from pepper.tasks.report import page
from pepper.tasks.result import Result
from pepper.tasks.sharing import SharedCells
from pepper.tracking import runs, views
from pepper.tracking.abandoned import close_abandoned
from pepper.tracking.history import history
from pepper.tracking.leases import Leases
from pepper.tracking.store import DeletedError, Store
from pepper.tracking.sweeps import Ends, SweepEnd, end_sweep, start_sweep


@dataclass(frozen=True, kw_only=True)
class Profiled(Result):
    """What came out of measuring cells.

    Attributes:
        rows: A line of the results table for each cell, in the order of the tables.
        run_id: The sweep's parent run; None without a sweep, or where every cell was finished before.
        failures: The cells that failed or were interrupted, with their reasons.
        unlogged: What could not be logged, and why; None if all is.
        waiting: Whether results wait on disk to be logged.
        view: Where the runs are in MLflow's UI.
    """

    rows: list[dict[str, Any]]
    run_id: str | None
    failures: list[str]
    unlogged: str | None
    waiting: bool
    view: str


def profile(composition: Composition) -> Profiled:
    """Measure what the configuration asks for, those cells of a sweep that are not finished; log it and say it.

    Returns:
        Its status is 0, or 1 if a cell failed or its result could not be logged.
    """
    config = composition.config
    return measure(config, plan(composition, stepwise("find the models", config.output == "quiet")))


def measure(config: PepperConfig, cells: Sequence[Cell]) -> Profiled:
    """Measure cells, those of a sweep only where they are not finished, log them and say what came out.

    Returns:
        As of `profile`.
    """
    profiled = measure_cells(config, cells)
    _say(config, profiled)
    return profiled


def measure_cells(config: PepperConfig, cells: Sequence[Cell]) -> Profiled:
    """Measure cells, those of a sweep only where they are not finished, and log them.

    Raises:
        DeviceError: The device of a single cell cannot be set up; in a sweep its cells fail, and the others go on.
        TrackingError: The store does not answer at the start.
    """
    store = Store(config.tracking)
    views.offer(store, views.CELLS)
    quiet = config.output == "quiet"
    posted = flush(store, track=stepwise("log what waits", quiet))
    if posted.failure is not None:
        raise posted.failure
    close_abandoned(store)
    results = {cell.identity: cell_row(cell, None) for cell in cells}
    with contextlib.ExitStack() as shared:
        leases = shared.enter_context(Leases(store.folder)) if config.sweep is not None else None
        before: dict[str, dict[str, Any]] = {}
        wanted = list(cells)
        if config.sweep is not None:
            table = history(store)
            before = finished_cells(table, STANDING["none"], results)
            reused = finished_cells(table, STANDING[config.sweep.rerun], results)
            for identity, result in reused.items():
                results[identity].update(result, reused=True)
            wanted = [cell for cell in cells if cell.identity not in reused]
            show(f"sweep {config.sweep.name}: {len(cells)} cells, {len(cells) - len(wanted)} finished before")
        calibrations, wanted = calibrated(
            wanted, stepwise("calibrate devices", quiet), lenient=config.sweep is not None
        )
        described = described_models(wanted, store.folder / "cache", stepwise("describe models", quiet))
        parent = None
        if config.sweep is not None and wanted:
            parent = start_sweep(store, config.sweep.name, len(cells), OmegaConf.to_yaml(asdict(config)))
        log = CellLog(store, parent, calibrations, described, results, StepProgress(len(wanted), quiet))
        claims = SharedCells(leases, store, log, before) if leases is not None else None
        status = "KILLED"
        started = time.monotonic()
        try:
            with log.progress:
                run(wanted, config.sweep.seed if config.sweep else 0, log.record, log.flush, claims)
            status = "FAILED" if log.failures else "FINISHED"
        finally:
            log.flush()
            if parent is not None:
                _close(store, parent, status, list(results.values()), time.monotonic() - started, log)
                if status != "KILLED" and log.unlogged is None:
                    _attach_report(config, store, parent, log)
    rows = sorted(
        results.values(),
        key=lambda r: (r["model"], -r["share"], r["device"], r["threads"], r["load_percent"]),
    )
    return Profiled(
        status=1 if log.failures or log.unlogged else 0,
        rows=rows,
        run_id=parent,
        failures=log.failures,
        unlogged=log.unlogged,
        waiting=log.waiting,
        view=views.address(store, views.CELLS),
    )


def _close(store: Store, parent: str, status: str, rows: list[dict[str, Any]], seconds: float, log: CellLog) -> None:
    """End the parent run with its table, figures and overview."""
    import pandas as pd

    from pepper.report.figures import latency

    counts = {
        verdict: sum((row["verdict"] or row["status"]) == verdict for row in rows)
        for verdict in ("VALID", "INVALID", "FAILED", "KILLED")
    }
    metrics = {f"cells_{verdict.lower()}": float(count) for verdict, count in counts.items()}
    drawn = any("latency_p50_ms" in row for row in rows)
    note = notes.sweep(rows, log.failures, runs.figure_address(parent, "latency.png") if drawn else None)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            runs.write_table(pd.DataFrame(rows), folder)
            if drawn:
                latency(rows, folder / "latency")
            end = SweepEnd(
                parent, status, {**metrics, "wall_s": seconds}, note, folder, store.uri, store.config.experiment
            )
            try:
                end_sweep(store, end)
            except DeletedError as error:  # nothing to wait for
                log.unlogged = str(error)
            except TrackingError as error:
                log.unlogged = str(error)
                Ends(store.folder).add(end)
    except (TrackingError, OSError) as error:  # OSError: no room for the files on their way to the store
        log.unlogged = str(error)


def _attach_report(config: PepperConfig, store: Store, parent: str, log: CellLog) -> None:
    """Keep the report of the sweep with its run."""
    try:
        html = page(config, store, parent)
        with runs.artifacts(store, parent) as folder:
            (folder / "report.html").write_text(html, encoding="utf-8")
    except (TrackingError, OSError) as error:
        log.unlogged = str(error)


def _say(config: PepperConfig, measured: Profiled) -> None:
    show(results_table(measured.rows), cells=measured.rows)
    for row in measured.rows:
        if row["verdict"] == "INVALID":
            print(f"INVALID {row['model']} / {row['device']} / {row['load']}: {row['reasons']}", file=sys.stderr)
    for failure in measured.failures:
        print(failure, file=sys.stderr)
    run_id = measured.run_id or (measured.rows[0].get("run_id") if config.sweep is None else None)
    if run_id:
        show(f"logged as run {run_id}", run_id=run_id)
    if measured.unlogged:
        kept = (
            f"results are kept in {config.tracking.folder}/pending: python -m pepper.run task=import logs them"
            if measured.waiting
            else "every cell is logged, the sweep's overview is not"
        )
        print(f"error: {measured.unlogged}; {kept}", file=sys.stderr)
    else:
        show(f"compare the runs: {ui_command(config.tracking.uri, measured.view)}")


def ui_command(uri: str, view: str) -> str:
    """Return the line that opens MLflow's UI on the store, and where the runs are in it."""
    if uri.startswith("http"):
        return f"{uri.rstrip('/')}/{view}"
    program = Path(sys.executable)
    shown = program.relative_to(Path.cwd()) if program.is_relative_to(Path.cwd()) else program
    return f"{shown} -m mlflow ui --backend-store-uri {uri}  (then open http://127.0.0.1:5000/{view})"
