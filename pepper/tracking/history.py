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
MOST_NAMED = 500  # runs in one question
CACHE_VERSION = 3
COLUMNS = ["run_id", "status", "cell", "verdict", "deleted"]
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


def _active(store: Store, run_ids: list[str]) -> "list[Run]":
    """Return those of some runs that are there and not deleted."""
    runs: list[Run] = []
    for start in range(0, len(run_ids), MOST_NAMED):
        names = ", ".join(f"'{run_id}'" for run_id in run_ids[start : start + MOST_NAMED])
        runs += _pages(store, f" and attributes.run_id IN ({names})", deleted=False)
    return runs


def history(store: Store) -> "pd.DataFrame":
    """Return every logged cell, one row a run: tags, ``params.*`` (text) and ``metrics.*`` (numbers).

    What was read before comes from a local Parquet file; only newer runs are asked for. Runs deleted in
    MLflow are left out, also when ``mlflow gc`` took them away since: the file knows which were.

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
        unsure = set(known["run_id"][known["deleted"].astype(bool)]) - gone  # restored, or gone for good
        found = [*_active(store, sorted(unsure)), *fresh]
    read = {run.info.run_id: _row(run) for run in found}
    kept = known[~known["run_id"].isin(unsure | set(read))]
    tables = [table for table in (kept, pd.DataFrame(list(read.values()))) if len(table)]
    table = pd.concat(tables) if tables else kept
    table = table.assign(deleted=table["run_id"].isin(gone))
    if tables:
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_suffix(f".{os.getpid()}")
        table.to_parquet(draft, index=False)
        draft.replace(file)
    return table[~table["deleted"]].drop(columns="deleted").reset_index(drop=True)
