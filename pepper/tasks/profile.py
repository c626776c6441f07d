"""``task=profile``: measure one cell, or every cell of a sweep, and log them."""

import contextlib
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pepper.config import PepperConfig
from pepper.config.composing import Composition
from pepper.config.measuring import Rerun
from pepper.console.progress import StepProgress, stepwise
from pepper.console.tables import results_table, show
from pepper.devices.calibration import Calibration
from pepper.measure.noise import NoiseFloor, floor_of
from pepper.planning.informing import within_budget
from pepper.sweep.axes import plan
from pepper.sweep.cells import Cell
from pepper.sweep.runner import run
from pepper.sweep.second_looks import SecondLooks
from pepper.tasks.cell_facts import calibrated, described_models
from pepper.tasks.cell_log import CellLog, cell_row
from pepper.tasks.posting import flush_before
from pepper.tasks.result import Result
from pepper.tasks.sharing import SharedCells
from pepper.tasks.sweep_log import attach_report, begin_sweep, end_sweep
from pepper.tracking import views
from pepper.tracking.abandoned import close_abandoned
from pepper.tracking.history import STANDING, finished_cells, history
from pepper.tracking.leases import Leases
from pepper.tracking.outbox import PENDING, import_command
from pepper.tracking.record import Status
from pepper.tracking.store import Store


@dataclass(frozen=True, kw_only=True)
class Profiled(Result):
    """What came out of measuring cells.

    Attributes:
        rows: A line of the results table for each cell, in the order of the tables.
        run_id: The sweep's parent run; None without a sweep, or where every cell was finished before.
        failures: The cells that failed or were interrupted, with their reasons.
        unlogged: What could not be logged, and why; None if all is.
        waiting: Whether results wait on disk to be logged.
        noise: How far two measurements of a cell differ, where cells were measured twice.
        view: Where the runs are in MLflow's UI.
    """

    rows: list[dict[str, Any]]
    run_id: str | None
    failures: list[str]
    unlogged: str | None
    waiting: bool
    noise: NoiseFloor | None
    view: str


def profile(composition: Composition) -> Profiled:
    """Measure what the configuration asks for, those cells of a sweep that are not finished; log it and say it.

    Returns:
        Its status is 0, or 1 if a cell failed or its result could not be logged.
    """
    config = composition.config
    cells = plan(composition, stepwise("find the models", config.is_quiet))
    if config.sweep is not None:
        cells = within_budget(config, cells, stepwise("calibrate devices", config.is_quiet))
    return measure(config, cells)


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
    quiet = config.is_quiet
    flush_before(store, stepwise("log what waits", quiet))
    close_abandoned(store)
    results = {cell.identity: cell_row(cell) for cell in cells}
    with contextlib.ExitStack() as shared:
        leases = shared.enter_context(Leases(store.folder)) if config.sweep is not None else None
        before: dict[str, dict[str, Any]] = {}
        wanted = list(cells)
        if config.sweep is not None:
            table = history(store)
            before = finished_cells(table, STANDING[Rerun.none], results)
            reused = finished_cells(table, STANDING[config.sweep.rerun], results)
            for identity, result in reused.items():
                results[identity].update(result, reused=True)
            wanted = [cell for cell in cells if cell.identity not in reused]
            show(f"sweep {config.sweep.name}: {len(cells)} cells, {len(cells) - len(wanted)} finished before")
        calibrations: dict[str, Calibration] = {}
        described: dict[str, str] = {}

        def prepare(of: Sequence[Cell]) -> list[Cell]:
            found, ready = calibrated(of, stepwise("calibrate devices", quiet), lenient=config.sweep is not None)
            calibrations.update(found)
            described.update(described_models(ready, store.folder / "cache", stepwise("describe models", quiet)))
            return ready

        wanted = prepare(wanted)
        sweep = None
        if config.sweep is not None and wanted:
            sweep = begin_sweep(config, config.sweep.name, store, len(cells))
        parent = None if sweep is None else sweep.run_id
        log = CellLog(store, parent, calibrations, described, results, StepProgress(len(wanted), quiet))
        claims = SharedCells(leases, store, log, before) if leases is not None else None
        to_its_end = False
        started = time.monotonic()
        try:
            with log.progress:
                run(wanted, config.sweep.seed if config.sweep else 0, log.record, log.flush, claims)
                if config.sweep is not None and leases is not None:
                    looks = SecondLooks(config.sweep, log, results, partial(SharedCells, leases, store, log, results))
                    looks.retry(wanted)
                    looks.retest(wanted)
                    if wanted:
                        looks.settle(cells, prepare)
            to_its_end = True
        finally:
            log.flush()
            if sweep is not None:
                status: Status = "KILLED" if not to_its_end else "FAILED" if log.failures else "FINISHED"
                end_sweep(store, sweep, status, list(results.values()), time.monotonic() - started, log)
                if to_its_end and log.unlogged is None:
                    attach_report(config, store, str(parent), log)
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
        noise=floor_of(log.repeats),
        view=views.address(store, views.CELLS),
    )


def _say(config: PepperConfig, measured: Profiled) -> None:
    show(results_table(measured.rows), cells=measured.rows)
    if measured.noise:
        show(f"noise floor: {measured.noise}", noise=asdict(measured.noise))
    for row in measured.rows:
        if row["verdict"] == "INVALID":
            print(f"INVALID {row['model']} / {row['device']} / {row['load']}: {row['reasons']}", file=sys.stderr)
    for failure in measured.failures:
        print(failure, file=sys.stderr)
    run_id = measured.run_id or (measured.rows[0].get("run_id") if config.sweep is None else None)
    if run_id:
        show(f"logged as run {run_id}", run_id=run_id)
    if measured.unlogged:
        folder = config.tracking.folder
        kept = (
            f"results are kept in {folder}/{PENDING}: {import_command(folder)} logs them"
            if measured.waiting
            else "every cell is logged, the sweep's overview is not"
        )
        print(f"error: {measured.unlogged}; {kept}", file=sys.stderr)
    else:
        show(f"compare the runs: {ui_command(config.tracking.uri, measured.view)}")


def ui_command(uri: str, view: str = "") -> str:
    """Return the line that opens MLflow's UI on the store, and where the runs are in it."""
    if uri.startswith("http"):
        return f"{uri.rstrip('/')}/{view}"
    program = Path(sys.executable)
    shown = program.relative_to(Path.cwd()) if program.is_relative_to(Path.cwd()) else program
    command = shlex.join([str(shown), "-m", "mlflow", "ui", "--backend-store-uri", uri])
    return f"{command}  (then open http://127.0.0.1:5000/{view})"
