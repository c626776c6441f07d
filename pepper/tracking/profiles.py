"""A profile as a run: what is recorded of it, and how it is read back with its samples."""

import html
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pepper.errors import TrackingError
from pepper.measure.noise import NoiseFloor
from pepper.measure.profile import Again, Profile
from pepper.tracking.record import Fact, Record
from pepper.tracking.runs import CELL, LOGGED_METRIC, SWEEP
from pepper.tracking.searching import CHUNK, listed, seldom_collecting
from pepper.tracking.store import Store, reaching

if TYPE_CHECKING:
    from mlflow.entities import Run


_BINS, _BLOCKS = 40, " ▁▂▃▄▅▆▇█"


def write_artifacts(profile: Profile, config: str, folder: Path) -> None:
    """Write what a profile's run has as artifacts.

    Args:
        profile: What was measured.
        config: The resolved configuration (YAML).
        folder: Where.
    """
    (folder / "config.yaml").write_text(config)
    if profile.environment:
        (folder / "environment.json").write_text(json.dumps(profile.environment, indent=2))
    if profile.samples:
        import pyarrow as pa
        from pyarrow import parquet

        samples = profile.samples
        table = pa.table({"start_s": samples["start_ns"] / 1e9, "latency_ms": samples["latency_ns"] / 1e6})
        parquet.write_table(table, folder / "samples.parquet")
    if profile.operators:
        (folder / "operators.json").write_text(profile.operators)


def record_profile(
    name: str, cell: str, params: Mapping[str, Fact], profile: Profile, again: Again | None = None, **others: Any
) -> Record:
    """Return what is logged of a profile, but for its artifacts.

    Args:
        name: The run's name.
        cell: The cell's identity.
        params: The cell's facts.
        profile: What was measured.
        again: Why its sweep measured it again, if it did.
        **others: More of the record, such as its parent.
    """
    return Record(
        kind=CELL,
        name=name,
        status=profile.status,
        params=params,
        metrics={**profile.metrics, LOGGED_METRIC: time.time()},
        tags={
            "pepper.cell": cell,
            "pepper.verdict": profile.verdict or None,
            "pepper.again": again,
            "pepper.reasons": "; ".join(profile.reasons) or None,
            "pepper.notes": "; ".join(profile.notes) or None,
            "pepper.onnxruntime": profile.environment.get("worker", {}).get("onnxruntime"),
        },
        note=_note(profile),
        started_s=profile.started_s,
        ended_s=profile.ended_s,
        **others,
    )


def outcome(record: Record) -> dict[str, Any]:
    """Return what a waiting record says of its cell: status, verdict, reasons and figures by name."""
    return {
        "status": record.status,
        "verdict": record.tags.get("pepper.verdict") or "",
        "reasons": record.tags.get("pepper.reasons") or "",
        **{name: value for name, value in record.metrics.items() if name != LOGGED_METRIC},
    }


@dataclass(frozen=True)
class LoggedProfile:
    """A finished cell as MLflow keeps it.

    Attributes:
        run_id: Its run.
        name: The run's name.
        cell: The cell's identity.
        params: The cell's facts, as text.
        verdict: ``VALID`` or ``INVALID``.
        reasons: Why it is INVALID.
        host: Facts of the machine, as :func:`pepper.devices.host.cpu_facts` gives them.
        onnxruntime: Version that ran it.
        latency_ms: Samples in the order of measurement, shape (n,).
    """

    run_id: str
    name: str
    cell: str
    params: dict[str, str]
    verdict: str
    reasons: str
    host: dict[str, Any]
    onnxruntime: str
    latency_ms: np.ndarray[Any, Any]


def logged_profiles(
    store: Store, run_id: str, track: "Callable[[Sequence[Run]], Iterable[Run]]" = iter
) -> list[LoggedProfile]:
    """Return the profile of a run; of a sweep's, those of its finished cells, reused ones too.

    Those that contradicted others, of cells that the sweep measured again for that, are left out.

    Args:
        store: The store.
        run_id: The run.
        track: Passes the runs on, and may show how far that is.

    Raises:
        TrackingError: There is no such run, it is none of pepper's profiles or sweeps, or nothing is finished.
    """
    run = _run(store, run_id)
    kind = run.data.tags.get("pepper.kind")
    if kind not in (CELL, SWEEP):
        raise TrackingError(f"run {run_id}: is no profile and no sweep; name a run that task=profile logged")
    with seldom_collecting():
        cells = [run] if kind == CELL else _cells(store, run_id)
    if stated := next((run for run in cells if run.data.tags.get("pepper.trust")), None):
        raise TrackingError(
            f"run {stated.info.run_id}: was measured elsewhere, so there are no samples of it; name runs that"
            " task=profile logged"
        )
    taken_back = _taken_back(cells)
    profiles = [
        _profile(store, cell)
        for cell in track(cells)
        if cell.info.status == "FINISHED" and cell.info.run_id not in taken_back
    ]
    if not profiles:
        raise TrackingError(f"run {run_id}: holds no finished profile; measure it again")
    return profiles


def noise_floor_of(store: Store, run_id: str) -> NoiseFloor | None:
    """Return what a sweep found by measuring cells twice; of a cell's run, what its sweep did.

    Raises:
        TrackingError: There is no such run.
    """
    run = _run(store, run_id)
    parent = run.data.tags.get("mlflow.parentRunId")
    return NoiseFloor.read((_run(store, parent) if parent else run).data.metrics)


def _taken_back(cells: "Sequence[Run]") -> set[str]:
    """Return the runs of measurements that contradicted others, of cells that were measured again for that."""
    ended = [(run.info.run_id, run.data.tags["pepper.cell"], run.info.end_time) for run in cells if run.info.end_time]
    judged = {
        run.data.tags["pepper.cell"]: run.info.end_time
        for run in cells
        if run.data.tags.get("pepper.again") == Again.order and run.info.status == "FINISHED"
    }
    return {run_id for run_id, cell, at_ms in ended if at_ms < judged.get(cell, 0)}


def _run(store: Store, run_id: str) -> "Run":
    from mlflow.exceptions import MlflowException

    with reaching(store.config):
        try:
            return store.client.get_run(run_id)
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
    raise TrackingError(f"run {run_id}: not in {store.config.uri}; copy the run's identifier, or set tracking.uri")


def _cells(store: Store, parent: str) -> "Sequence[Run]":
    """Return a sweep's own cells and those that it reused."""
    import pandas as pd

    with reaching(store.config):
        own = store.client.search_runs(
            [store.experiment_id], f"tags.`mlflow.parentRunId` = '{parent}'", max_results=50_000
        )
    with tempfile.TemporaryDirectory() as scratch:
        try:
            with reaching(store.config):
                file = store.client.download_artifacts(parent, "results.parquet", scratch)
            table = pd.read_parquet(file)
        except TrackingError:  # it was cut off before it wrote its table
            return list(own)
    reused = table["run_id"][table["reused"].astype(bool)].dropna() if "run_id" in table else ()
    return [*own, *_runs(store, [str(run_id) for run_id in reused])]


def _runs(store: Store, run_ids: Sequence[str]) -> "list[Run]":
    """Return runs in the order of their names, many at once; one that was deleted is still there for who names it."""
    found = {}
    with reaching(store.config):
        for start in range(0, len(run_ids), CHUNK):
            condition = f"attributes.run_id IN ({listed(run_ids[start : start + CHUNK])})"
            runs = store.client.search_runs([store.experiment_id], condition, max_results=CHUNK)
            found.update({run.info.run_id: run for run in runs})
    return [found.get(run_id) or _run(store, run_id) for run_id in run_ids]


def _profile(store: Store, run: "Run") -> LoggedProfile:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
    from pyarrow import parquet

    tags = run.data.tags
    with tempfile.TemporaryDirectory() as scratch, reaching(store.config):
        # By address: by run, MLflow asks the database for the run, and for models in it, again for each file.
        repository = get_artifact_repository(run.info.artifact_uri, tracking_uri=store.config.uri)
        samples, environment = (
            Path(repository.download_artifacts(name, scratch))  # type: ignore[no-untyped-call]
            for name in ("samples.parquet", "environment.json")
        )
        with parquet.ParquetFile(samples) as file:
            latency_ms = file.read(["latency_ms"])["latency_ms"].to_numpy()
        facts = json.loads(environment.read_text())
    return LoggedProfile(
        run_id=str(run.info.run_id),
        name=str(run.info.run_name),
        cell=tags["pepper.cell"],
        params=dict(run.data.params),
        verdict=tags.get("pepper.verdict", ""),
        reasons=tags.get("pepper.reasons", ""),
        host=facts["host"],
        onnxruntime=tags.get("pepper.onnxruntime", ""),
        latency_ms=latency_ms,
    )


def _note(profile: Profile) -> str:
    """Describe a run in Markdown: the verdict, the figures that matter, and how the samples are spread."""
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
    lines.append("\n".join(f"- {_line(why)}" for why in (*profile.reasons, *profile.notes)))
    return "\n\n".join(filter(None, lines))


def _line(text: str) -> str:
    """Return a text as one line that is no markup."""
    return html.escape(" ".join(text.split()), quote=False)


def _spread(latency_ms: np.ndarray[Any, Any]) -> str:
    """Return a histogram in characters: the samples up to their 99th percentile, in equal steps."""
    end = float(np.percentile(latency_ms, 99))
    counts, edges = np.histogram(latency_ms[latency_ms <= end], bins=_BINS)
    levels = np.ceil(counts * (len(_BLOCKS) - 1) / max(1, counts.max())).astype(int)
    bars = "".join(_BLOCKS[level] for level in levels)
    return f"`{bars}` samples from {edges[0]:.3g} to {edges[-1]:.3g} ms (99th percentile)"
