"""All cells ever logged, as one table that is read from MLflow incrementally."""

import hashlib
import os
from typing import TYPE_CHECKING

from pepper.tracking.runs import LOGGED_METRIC
from pepper.tracking.store import Store, reaching

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities import Run

PAGE = 1000
CACHE_VERSION = 2
COLUMNS = ["run_id", "status", "cell", "verdict"]
TAGS = ("cell", "verdict", "reasons", "record", "onnxruntime", "version")


def _row(run: "Run") -> dict[str, str | float | None]:
    tags = {key: run.data.tags.get(f"pepper.{key}") for key in TAGS}
    return {
        "run_id": run.info.run_id,
        "name": run.info.run_name,
        "status": run.info.status,
        "parent": run.data.tags.get("mlflow.parentRunId"),
        "ended_ms": run.info.end_time,
        **tags,
        **{f"params.{key}": value for key, value in run.data.params.items()},
        **{f"metrics.{key}": value for key, value in run.data.metrics.items()},
    }


def _pages(store: Store, condition: str, deleted: bool) -> "list[Run]":
    from mlflow.entities import ViewType

    view = ViewType.DELETED_ONLY if deleted else ViewType.ACTIVE_ONLY
    runs: list[Run] = []
    token = None
    while True:
        page = store.client.search_runs(
            [store.experiment_id],
            filter_string=f"tags.`pepper.kind` = 'cell'{condition}",
            run_view_type=view,
            max_results=PAGE,
            page_token=token,
        )
        runs += page
        token = page.token
        if not token:
            return runs


def history(store: Store) -> "pd.DataFrame":
    """Return every logged cell, one row a run: tags, ``params.*`` (text) and ``metrics.*`` (numbers).

    What was read before comes from a local Parquet file; only newer runs are asked for. Runs deleted in
    MLflow are left out.

    Raises:
        TrackingError: The store does not answer.
    """
    import pandas as pd

    key = hashlib.sha256(f"{store.config.uri}\n{store.experiment_id}".encode()).hexdigest()[:12]
    file = store.folder / "cache" / f"history-v{CACHE_VERSION}-{key}.parquet"
    try:
        known = pd.read_parquet(file)
    except (OSError, ValueError):  # absent, or damaged: all is read again
        known = pd.DataFrame(columns=COLUMNS)
    metric = f"metrics.{LOGGED_METRIC}"
    newest = known[metric].max() if metric in known and len(known) else 0.0
    with reaching(store.config):
        # Two writers' clocks may differ a little: read the last minute again.
        fresh = _pages(store, f" and metrics.{LOGGED_METRIC} > {newest - 60}", deleted=False)
        gone = {run.info.run_id for run in _pages(store, "", deleted=True)}
    table = known
    if fresh:
        new = pd.DataFrame([_row(run) for run in fresh])
        table = pd.concat([known[~known["run_id"].isin(set(new["run_id"]))], new]) if len(known) else new
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_suffix(f".{os.getpid()}")
        table.to_parquet(draft, index=False)
        draft.replace(file)
    return table[~table["run_id"].isin(gone)].reset_index(drop=True)
