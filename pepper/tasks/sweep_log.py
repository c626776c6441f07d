"""What is kept of a sweep as a whole: the run above its cells, begun before the first and ended with their table."""

import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from pepper.config import PepperConfig
from pepper.errors import TrackingError
from pepper.measure.noise import floor_of
from pepper.report import notes
from pepper.tasks.cell_log import CellLog
from pepper.tasks.report import page
from pepper.tracking import runs
from pepper.tracking.outbox import Outbox
from pepper.tracking.record import Record, Status
from pepper.tracking.runs import SWEEP
from pepper.tracking.store import DeletedError, Store
from pepper.tracking.writer import begin, write


def begin_sweep(config: PepperConfig, name: str, store: Store, count: int) -> Record:
    """Start the parent run of a sweep's cells, and return what is known of it so far."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "config.yaml").write_text(OmegaConf.to_yaml(asdict(config)))
        record = Record(kind=SWEEP, name=name, params={"cells": count}, tags={"pepper.sweep": name}, artifacts=folder)
        return replace(record, artifacts=None, run_id=begin(store, record))


def end_sweep(
    store: Store, begun: Record, status: Status, rows: list[dict[str, Any]], seconds: float, log: CellLog
) -> None:
    """End the parent run with its table, figures and overview."""
    import pandas as pd

    from pepper.report.figures import latency

    counts = {
        verdict: sum((row["verdict"] or row["status"]) == verdict for row in rows)
        for verdict in ("VALID", "INVALID", "FAILED", "KILLED")
    }
    metrics = {f"cells_{verdict.lower()}": float(count) for verdict, count in counts.items()}
    drawn = any("latency_p50_ms" in row for row in rows)
    noise = floor_of(log.repeats)
    note = notes.sweep(
        rows, log.failures, noise, runs.figure_address(str(begun.run_id), "latency.png") if drawn else None
    )
    try:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            runs.write_table(pd.DataFrame(rows), folder)
            if drawn:
                latency(rows, folder / "latency")
            record = replace(
                begun,
                status=status,
                metrics={**metrics, "wall_s": seconds, **(noise.metrics() if noise else {})},
                note=note,
                artifacts=folder,
                ended_s=time.time(),
            )
            try:
                write(store, record)
            except DeletedError as error:  # nothing to wait for
                log.unlogged = str(error)
            except TrackingError as error:
                log.unlogged = str(error)
                Outbox(store.folder).add(record, store.uri, store.config.experiment)
    except (TrackingError, OSError) as error:  # OSError: no room for the files on their way to the store
        log.unlogged = str(error)


def attach_report(config: PepperConfig, store: Store, parent: str, log: CellLog) -> None:
    """Keep the report of the sweep with its run."""
    try:
        html = page(config, store, parent)
        with runs.artifacts(store, parent) as folder:
            (folder / "report.html").write_text(html, encoding="utf-8")
    except (TrackingError, OSError) as error:
        log.unlogged = str(error)
