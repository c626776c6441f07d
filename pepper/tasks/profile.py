"""``task=profile``: measure one cell, or every cell of a sweep, and log them."""

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from pepper.config import PepperConfig
from pepper.devices.calibration import Calibration, calibrate
from pepper.errors import TrackingError
from pepper.measure.profile import Profile
from pepper.report import notes
from pepper.report.tables import results_table, show
from pepper.sweep.axes import Compose, plan
from pepper.sweep.cells import Cell
from pepper.sweep.progress import CellProgress
from pepper.sweep.runner import run
from pepper.tasks.report import page
from pepper.tracking import runs, views
from pepper.tracking.history import history
from pepper.tracking.records import Pending, Record
from pepper.tracking.store import Store

# Which verdicts let a finished cell stand, by sweep.rerun.
STANDING: dict[str, list[str]] = {"failed": ["VALID"], "none": ["VALID", "INVALID"], "all": []}


def profile(config: PepperConfig, overrides: Sequence[str], compose: Compose) -> int:
    """Measure what the configuration asks for.

    Returns:
        The exit status: 0, or 1 if a cell failed or its result could not be logged.
    """
    cells = plan(config, overrides, compose)
    store = Store(config.tracking)
    views.offer(store, views.CELLS)
    runs.flush(store)
    results = {cell.identity: _row(cell, None) for cell in cells}
    wanted = cells
    if config.sweep is not None:
        reused = _finished(store, config.sweep.rerun)
        for cell in cells:
            if cell.identity in reused:
                results[cell.identity].update(reused[cell.identity], reused=True)
        wanted = [cell for cell in cells if cell.identity not in reused]
        show(f"sweep {config.sweep.name}: {len(cells)} cells, {len(cells) - len(wanted)} finished before")
    calibrations = {cell.device.identity: calibrate(cell.device) for cell in wanted}
    parent = None
    if config.sweep is not None and wanted:
        parent = runs.start_sweep(store, config.sweep.name, len(cells), OmegaConf.to_yaml(asdict(config)))
    log = _Log(store, parent, calibrations, results, len(wanted))
    status = "KILLED"
    started = time.monotonic()
    try:
        with log.progress:
            run(wanted, config.sweep.seed if config.sweep else 0, log.record, log.flush)
        status = "FAILED" if log.failures else "FINISHED"
    finally:
        log.flush()
        if parent is not None:
            _close(store, parent, status, list(results.values()), time.monotonic() - started, log)
            if status != "KILLED" and log.unlogged is None:
                _attach_report(config, store, parent, log)
    _say(config, results, log, views.address(store, views.CELLS))
    return 1 if log.failures or log.unlogged else 0


class _Log:
    """Takes finished cells: keeps them on disk at once, and logs them to MLflow between blocks."""

    def __init__(
        self,
        store: Store,
        parent: str | None,
        calibrations: dict[str, Calibration],
        results: dict[str, dict[str, Any]],
        cells: int,
    ) -> None:
        self._store = store
        self._parent = parent
        self._calibrations = calibrations
        self._results = results
        self._pending = Pending(store.folder)
        self.progress = CellProgress(cells)
        self.failures: list[str] = []
        self.unlogged: str | None = None

    def record(self, cell: Cell, profile: Profile) -> None:
        """Keep a finished cell."""
        calibration = asdict(self._calibrations[cell.device.identity])
        calibration["instruction_sets"] = " ".join(calibration["instruction_sets"])
        facts = {f"device_{key}": value for key, value in calibration.items() if key != "throttle_method"}
        self._pending.add(
            Record(
                name=cell.name,
                cell=cell.identity,
                params={**cell.params(), **facts},
                profile=profile,
                config=OmegaConf.to_yaml(
                    {key: asdict(getattr(cell, key)) for key in ("model_config", "device", "load", "measure")}
                ),
                parent=self._parent,
            )
        )
        self._results[cell.identity] = _row(cell, profile)
        reasons = "; ".join(profile.reasons)
        if profile.status != "FINISHED":
            self.failures.append(f"{profile.status} {cell.name}: {reasons}")
            outcome = f"{profile.status}: {reasons}"
        else:
            outcome = f"{profile.metrics['latency_p50_ms']:.2f} ms, {profile.verdict}"
            outcome += f": {reasons}" if reasons else ""
        self.progress.advance(cell.name, outcome, failed=profile.status != "FINISHED")

    @property
    def waiting(self) -> bool:
        """Whether a result is not logged yet."""
        return bool(self._pending.all())

    def flush(self) -> None:
        """Log what waits; if the store fails, it goes on waiting."""
        try:
            runs.flush(self._store)
            self.unlogged = None
        except TrackingError as error:
            if self.unlogged is None:
                print(f"warning: {error}; results are kept in {self._pending.folder}", file=sys.stderr)
            self.unlogged = str(error)


def _finished(store: Store, rerun: str) -> dict[str, dict[str, Any]]:
    """Return the results that need not be measured again, the newest of each cell."""
    table = history(store)
    if table.empty:
        return {}
    table = table[(table["status"] == "FINISHED") & table["verdict"].isin(STANDING[rerun])]
    newest = table.sort_values("ended_ms").drop_duplicates("cell", keep="last")
    metrics = [column for column in newest.columns if column.startswith("metrics.")]
    return {
        str(row["cell"]): {
            "status": row["status"],
            "verdict": row["verdict"],
            "reasons": row["reasons"] or "",
            **{name.removeprefix("metrics."): row[name] for name in metrics if row[name] == row[name]},
        }
        for row in newest.to_dict("records")
    }


def _row(cell: Cell, profile: Profile | None) -> dict[str, Any]:
    """Return a line of the results table; without a profile, of a cell that was not reached."""
    params = cell.params()
    facts = {key: params[key] for key in ("model", "device", "load", "load_percent", "threads", "share")}
    if profile is None:
        return {
            **facts,
            "cell": cell.identity,
            "status": "KILLED",
            "verdict": "",
            "reasons": "",
            "reused": False,
        }
    return {
        **facts,
        "cell": cell.identity,
        "status": profile.status,
        "verdict": profile.verdict,
        "reasons": "; ".join(profile.reasons),
        "reused": False,
        **profile.metrics,
    }


def _close(store: Store, parent: str, status: str, rows: list[dict[str, Any]], seconds: float, log: _Log) -> None:
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
        with runs.artifacts(store, parent) as folder:
            runs.write_table(pd.DataFrame(rows), folder)
            if drawn:
                for suffix in ("png", "svg"):
                    latency(rows, folder / f"latency.{suffix}")
        runs.end_sweep(store, parent, status, {**metrics, "wall_s": seconds}, note)
    except (TrackingError, OSError) as error:  # OSError: no room for the files on their way to the store
        log.unlogged = str(error)


def _attach_report(config: PepperConfig, store: Store, parent: str, log: _Log) -> None:
    """Keep the report of the sweep with its run."""
    try:
        html = page(config, store, parent)
        with runs.artifacts(store, parent) as folder:
            (folder / "report.html").write_text(html, encoding="utf-8")
    except (TrackingError, OSError) as error:
        log.unlogged = str(error)


def _say(config: PepperConfig, results: dict[str, dict[str, Any]], log: _Log, view: str) -> None:
    rows = sorted(
        results.values(),
        key=lambda r: (r["model"], -r["share"], r["device"], r["threads"], r["load_percent"]),
    )
    show(results_table(rows))
    for row in rows:
        if row["verdict"] == "INVALID":
            print(f"INVALID {row['model']} / {row['device']} / {row['load']}: {row['reasons']}")
    for failure in log.failures:
        print(failure, file=sys.stderr)
    if log.unlogged:
        kept = (
            f"results are kept in {config.tracking.folder}/pending: python -m pepper.run task=import logs them"
            if log.waiting
            else "every cell is logged, the sweep's overview is not"
        )
        print(f"error: {log.unlogged}; {kept}", file=sys.stderr)
    else:
        print(f"compare the runs: {ui_command(config.tracking.uri, view)}")


def ui_command(uri: str, view: str) -> str:
    """Return the line that opens MLflow's UI on the store, and where the runs are in it."""
    if uri.startswith("http"):
        return f"{uri.rstrip('/')}/{view}"
    program = Path(sys.executable)
    shown = program.relative_to(Path.cwd()) if program.is_relative_to(Path.cwd()) else program
    return f"{shown} -m mlflow ui --backend-store-uri {uri}  (then open http://127.0.0.1:5000/{view})"
