"""Runs in MLflow: one for each cell, one parent for each sweep."""

import html
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pepper.tracking.lineage import ending
from pepper.tracking.records import Record
from pepper.tracking.starting import start_run
from pepper.tracking.store import Store, reaching

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import pandas as pd
    from mlflow.entities import Run

CELL, SWEEP, SPLIT = "cell", "sweep", "split"
RESULTS = "results.parquet"
"""A sweep's artifact: its cells and their figures."""
LOGGED_METRIC = "logged_unix_s"
"""When the run was logged: what a reader that knows all runs up to a time asks for."""

_BINS, _BLOCKS = 40, " ▁▂▃▄▅▆▇█"


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
    run_id = start_run(store, SPLIT, name, {})
    with ending(store, run_id):
        for key, value in params.items():
            store.client.log_param(run_id, key, value)
        store.client.log_metric(run_id, "difference", difference)
        store.client.log_artifacts(run_id, str(folder), "parts")
    return run_id


def log_once(store: Store, record: Record) -> str:
    """Log a record as a run, unless MLflow has it already, and return the run's identifier.

    A run that was cut off half-way (its record still waits) is deleted and logged anew.
    """
    from mlflow.entities import Metric, Param, RunTag

    client, profile = store.client, record.profile
    for run in _logged(store, record.key):
        if LOGGED_METRIC in run.data.metrics and run.info.status == profile.status:
            return str(run.info.run_id)
        client.delete_run(run.info.run_id)
    tags = {
        "pepper.record": record.key,
        "pepper.cell": record.cell,
        "pepper.verdict": profile.verdict or None,
        "pepper.reasons": "; ".join(profile.reasons) or None,
        "pepper.onnxruntime": profile.environment.get("worker", {}).get("onnxruntime"),
        "mlflow.parentRunId": record.parent,
    }
    run_id = start_run(store, CELL, record.name, tags, round(profile.started_s * 1000))
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


def run_of(store: Store, key: str) -> str | None:
    """Return the run that a record was logged as, by whichever process; None if it is not logged.

    Raises:
        TrackingError: The store does not answer.
    """
    with reaching(store.config):
        return next((str(run.info.run_id) for run in _logged(store, key)), None)


def forget(store: Store, record: Record) -> None:
    """Delete what is logged of a record.

    Raises:
        TrackingError: The store does not answer.
    """
    with reaching(store.config):
        for run in _logged(store, record.key):
            store.client.delete_run(run.info.run_id)


def _logged(store: Store, key: str) -> "Sequence[Run]":
    found: Sequence[Run] = store.client.search_runs(
        [store.experiment_id], filter_string=f"tags.`pepper.record` = '{key}'", max_results=10
    )
    return found


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
