"""What a report reads from MLflow beside the cells' table: sweeps and single artifacts."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pepper.errors import TrackingError, nearest
from pepper.tracking.runs import RESULTS, SWEEP
from pepper.tracking.store import Store, reaching

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities import Run


def sweep_cells(store: Store, wanted: str, cells: "pd.DataFrame") -> "tuple[Run, pd.DataFrame]":
    """Return a sweep's parent run and, of all logged cells, those that belong to it.

    These are the cells that it measured, and the results of earlier sweeps that it reused.

    Args:
        store: An open store.
        wanted: The sweep's run identifier, or its name: the newest of that name.
        cells: What :func:`pepper.tracking.history.history` returned.

    Raises:
        TrackingError: There is no such sweep.
    """
    run = _sweep(store, wanted)
    mine = cells["parent"] == run.info.run_id if "parent" in cells else cells["cell"].isna()
    results = read_artifact(store, run.info.run_id, RESULTS)
    if results is None:  # still running, or cut off
        return run, cells[mine]
    import io

    import pandas as pd

    table = pd.read_parquet(io.BytesIO(results), columns=["cell", "reused"])
    reused = cells["cell"].isin(table.loc[table["reused"].astype(bool), "cell"])
    return run, cells[mine | reused]


def newest_runs(store: Store, kind: str, most: int) -> "list[Run]":
    """Return the newest finished runs of a kind, in whatever experiment they are, newest first."""
    with reaching(store.config):
        experiments = [experiment.experiment_id for experiment in store.client.search_experiments()]
        return list(
            store.client.search_runs(
                experiments,
                f"tags.`pepper.kind` = '{kind}' and attributes.status = 'FINISHED'",
                order_by=["attributes.start_time DESC"],
                max_results=most,
            )
        )


def read_artifact(store: Store, run_id: str, path: str) -> bytes | None:
    """Return an artifact's content; None if the run or the artifact is not there (any more)."""
    with tempfile.TemporaryDirectory() as scratch:
        try:
            with reaching(store.config):
                return Path(store.client.download_artifacts(run_id, path, scratch)).read_bytes()
        except TrackingError:
            return None


def artifact_names(store: Store, run_id: str) -> list[str]:
    """Return the paths of a run's artifacts, those in folders left out; empty if the run is gone."""
    try:
        with reaching(store.config):
            return [str(file.path) for file in store.client.list_artifacts(run_id) if not file.is_dir]
    except TrackingError:
        return []


def _sweep(store: Store, wanted: str) -> "Run":
    with reaching(store.config):
        sweeps = store.client.search_runs(
            [store.experiment_id],
            f"tags.`pepper.kind` = '{SWEEP}'",
            order_by=["attributes.start_time DESC"],
            max_results=1000,
        )
    for run in sweeps:
        if wanted in (run.info.run_id, run.info.run_name):
            return run
    names = list(dict.fromkeys(str(run.info.run_name) for run in sweeps))
    known = f" (sweeps: {', '.join(names[:20])})" if names else "; nothing was swept yet"
    raise TrackingError(f"report.sweep={wanted}: no such sweep{nearest(wanted, names)}{known}")
