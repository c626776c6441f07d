"""Runs in MLflow: one for each cell, one parent for each sweep."""

import html
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pepper
from pepper.tracking.abandoned import owner
from pepper.tracking.records import Pending, Record
from pepper.tracking.store import Store, lock, reaching
from pepper.tracking.user import user

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import pandas as pd

CELL, SWEEP, SPLIT = "cell", "sweep", "split"
RESULTS = "results.parquet"
"""A sweep's artifact: its cells and their figures."""
LOGGED_METRIC = "logged_unix_s"
"""When the run was logged: what a reader that knows all runs up to a time asks for."""

_BINS, _BLOCKS = 40, " ▁▂▃▄▅▆▇█"


def _tags(kind: str, **tags: str | None) -> dict[str, str]:
    known = {f"pepper.{key}": value for key, value in tags.items() if value is not None}
    source = {"mlflow.user": user(), "mlflow.source.name": "pepper.run", "mlflow.source.type": "LOCAL"}
    return {"pepper.kind": kind, "pepper.version": pepper.__version__, **source, **known}


def start_sweep(store: Store, name: str, cells: int, config: str) -> str:
    """Start a sweep's parent run and return its identifier."""
    with reaching(store.config):
        run = store.client.create_run(
            store.experiment_id, run_name=name, tags=_tags(SWEEP, sweep=name, owner=owner()), start_time=_now_ms()
        )
        run_id = str(run.info.run_id)
        store.client.log_param(run_id, "cells", cells)
        store.client.log_text(run_id, config, "config.yaml")
    return run_id


def end_sweep(store: Store, run_id: str, status: str, metrics: Mapping[str, float], note: str) -> None:
    """End a sweep's parent run.

    Args:
        store: The store.
        run_id: The parent run.
        status: ``FINISHED``, ``FAILED`` or ``KILLED``.
        metrics: Figures of the whole sweep.
        note: Its description (Markdown).
    """
    with reaching(store.config):
        for key, value in metrics.items():
            store.client.log_metric(run_id, key, value)
        store.client.set_tag(run_id, "mlflow.note.content", note)
        store.client.set_terminated(run_id, status)


@contextmanager
def artifacts(store: Store, run_id: str) -> "Iterator[Path]":
    """Give a folder; what is put there becomes the run's artifacts."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
        with reaching(store.config):
            store.client.log_artifacts(run_id, folder)


def log_split(store: Store, name: str, params: Mapping[str, object], difference: float, folder: Path) -> str:
    """Log a split as a run, its parts and manifest as artifacts, and return the run's identifier.

    Args:
        store: The store.
        name: The run's name.
        params: Facts of the model and the parts.
        difference: Largest difference between parts and whole.
        folder: Where the parts are.
    """
    with reaching(store.config):
        run = store.client.create_run(store.experiment_id, run_name=name, tags=_tags(SPLIT), start_time=_now_ms())
        run_id = str(run.info.run_id)
        for key, value in params.items():
            store.client.log_param(run_id, key, value)
        store.client.log_metric(run_id, "difference", difference)
        store.client.log_artifacts(run_id, str(folder), "parts")
        store.client.set_terminated(run_id, "FINISHED")
    return run_id


def flush(
    store: Store, kept_for: str | None = None, track: Callable[[Sequence[Record]], Iterable[Record]] = iter
) -> dict[str, str]:
    """Log every record that waits for this store and experiment; return their runs by the records' keys.

    Args:
        store: The store.
        kept_for: Log those that were kept for another store instead, by its URI.
        track: Passes the records on, and may show how far that is.

    Raises:
        TrackingError: The store does not answer; what was not logged still waits.
    """
    pending = Pending(store.folder)
    logged: dict[str, str] = {}
    if not pending.folder.is_dir():
        return logged
    with lock(store.folder):
        pending.clean()
        ours = [
            record
            for record in pending.all()
            if record.uri in (None, kept_for or store.uri) and record.experiment in (None, store.config.experiment)
        ]
        for record in track(ours):
            with reaching(store.config):
                logged[record.key] = log_once(store, record)
            pending.remove(record)
    return logged


def log_once(store: Store, record: Record) -> str:
    """Log a record as a run, unless MLflow has it already, and return the run's identifier.

    A run that was cut off half-way (its record still waits) is deleted and logged anew.
    """
    from mlflow.entities import Metric, Param, RunTag

    client, profile = store.client, record.profile
    for run in client.search_runs(
        [store.experiment_id], filter_string=f"tags.`pepper.record` = '{record.key}'", max_results=10
    ):
        if LOGGED_METRIC in run.data.metrics and run.info.status == profile.status:
            return str(run.info.run_id)
        client.delete_run(run.info.run_id)
    tags = _tags(
        CELL,
        record=record.key,
        cell=record.cell,
        verdict=profile.verdict or None,
        reasons="; ".join(profile.reasons) or None,
        onnxruntime=profile.environment.get("worker", {}).get("onnxruntime"),
    )
    if record.parent:
        tags["mlflow.parentRunId"] = record.parent
    run = client.create_run(
        store.experiment_id, start_time=round(profile.started_s * 1000), tags=tags, run_name=record.name
    )
    run_id = str(run.info.run_id)
    _log_artifacts(store, run_id, record)
    now_ms = _now_ms()
    metrics = {**profile.metrics, LOGGED_METRIC: now_ms / 1000}
    client.log_batch(
        run_id,
        metrics=[Metric(key, value, now_ms, 0) for key, value in metrics.items()],
        params=[Param(key, str(value)) for key, value in record.params.items()],
        tags=[RunTag("mlflow.note.content", _note(record))],
    )
    client.set_terminated(run_id, profile.status, end_time=round(profile.ended_s * 1000))
    return run_id


def _note(record: Record) -> str:
    """Describe a run in Markdown: the verdict, the figures that matter, and how the samples are spread."""
    profile = record.profile
    verdict = f"**{profile.verdict or profile.status}**"
    if "latency_p50_ms" in profile.metrics:
        m = profile.metrics
        tail = f", 95th percentile {m['latency_p95_ms']:.3g} ms" if "latency_p95_ms" in m else ""
        verdict += (
            f": median **{m['latency_p50_ms']:.3g} ms** (95 % interval {m['latency_p50_low_ms']:.3g} to"
            f" {m['latency_p50_high_ms']:.3g}){tail}, {m['throughput_per_s']:.3g} inferences/s,"
            f" {m['samples']:.0f} samples"
        )
    lines = [verdict]
    if "latency_ns" in profile.samples:
        lines.append(_spread(profile.samples["latency_ns"] / 1e6))
    lines.append("\n".join(f"- {_line(why)}" for why in profile.reasons))
    return "\n\n".join(filter(None, lines))


def _line(text: str) -> str:
    """Return a text as one line that is no markup."""
    return html.escape(" ".join(text.split()), quote=False)


def _spread(latency_ms: "np.ndarray[Any, Any]") -> str:
    """Return a histogram in characters: the samples up to their 99th percentile, in equal steps."""
    import numpy as np

    end = float(np.percentile(latency_ms, 99))
    counts, edges = np.histogram(latency_ms[latency_ms <= end], bins=_BINS)
    levels = np.ceil(counts * (len(_BLOCKS) - 1) / max(1, counts.max())).astype(int)
    bars = "".join(_BLOCKS[level] for level in levels)
    return f"`{bars}` samples from {edges[0]:.3g} to {edges[-1]:.3g} ms (99th percentile)"


def _log_artifacts(store: Store, run_id: str, record: Record) -> None:
    profile = record.profile
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "config.yaml").write_text(record.config)
        if profile.environment:
            (folder / "environment.json").write_text(json.dumps(profile.environment, indent=2))
        if profile.samples:
            import pyarrow as pa
            from pyarrow import parquet

            table = pa.table(
                {
                    "start_s": profile.samples["start_ns"] / 1e9,
                    "latency_ms": profile.samples["latency_ns"] / 1e6,
                }
            )
            parquet.write_table(table, folder / "samples.parquet")
        if profile.operators:
            (folder / "operators.json").write_text(profile.operators)
        store.client.log_artifacts(run_id, str(folder))


def _now_ms() -> int:
    return round(time.time() * 1000)


def figure_address(run_id: str, file: str) -> str:
    """Return where MLflow's UI finds an artifact of a run, for a picture in a description."""
    return f"get-artifact?path={file}&run_uuid={run_id}"


def write_table(frame: "pd.DataFrame", folder: Path) -> None:
    """Write a sweep's results as ``results.csv`` and ``results.parquet``."""
    frame.to_csv(folder / "results.csv", index=False)
    frame.to_parquet(folder / RESULTS, index=False)
