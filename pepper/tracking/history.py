"""All cells ever logged, as one table that is read from MLflow incrementally: by the runs' identity, not by clocks."""

import gc
import hashlib
import itertools
import math
import sys
import uuid
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pepper.caches import read_table, write_table
from pepper.config.measuring import Rerun
from pepper.measure.profile import Again
from pepper.tracking.locks import lock
from pepper.tracking.runs import LOGGED_METRIC
from pepper.tracking.searching import CHUNK, listed, seldom_collecting
from pepper.tracking.store import Store, reaching

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities import Run

MOST_EXCLUDED = 1500  # runs that a question names as known
CACHE_VERSION = 5
TAGS = ("cell", "verdict", "reasons", "again", "record", "onnxruntime", "version")
LOGGED = f"metrics.{LOGGED_METRIC}"
COLUMNS = ["run_id", "name", "status", "parent", "started_ms", "ended_ms", *TAGS, LOGGED]
ENDED = ("FINISHED", "FAILED", "KILLED")
# Which verdicts let a finished cell stand, by sweep.rerun.
STANDING: dict[Rerun, list[str]] = {Rerun.failed: ["VALID"], Rerun.none: ["VALID", "INVALID"], Rerun.all: []}
IDENTITY_TAG = "pepper.store_id"

_CELLS = "tags.`pepper.kind` = 'cell'"
_ORDER = ["attributes.start_time ASC"]  # then MLflow orders by run
_DIGITS = "0123456789abcdef"


def store_identity(store: Store) -> str:
    """Return what tells this store from any other that was or will be at its address: written into it once.

    Raises:
        TrackingError: The store does not answer.
    """
    with reaching(store.config), lock(store.folder):
        for attempt in range(2):
            found = store.client.get_experiment(store.experiment_id).tags.get(IDENTITY_TAG)
            if found or attempt:
                break
            # Of two machines that write at once the last one wins; the other then reads all runs once more.
            store.client.set_experiment_tag(store.experiment_id, IDENTITY_TAG, uuid.uuid4().hex)
    return str(found)


def history(store: Store) -> "pd.DataFrame":
    """Return every logged cell, one row a run: tags, ``params.*`` (text) and ``metrics.*`` (numbers).

    What was read before comes from a local file, as far as the store still holds it as it was: which runs these are is
    asked of the store, and so is every run that is not among them, whenever its writer's clock says that it was
    logged. Runs deleted in MLflow are left out; where runs are gone since, that is said. Measurements that a sweep took
    back, since they contradicted others, by measuring the cell again are left out, too.

    Raises:
        TrackingError: The store does not answer.
    """
    import pandas as pd

    address = hashlib.sha256(f"{store.uri}\n{store.experiment_id}".encode()).hexdigest()[:12]
    name = f"history-v{CACHE_VERSION}-{address}"
    file = store.folder / "cache" / f"{name}-{store_identity(store)}.parquet"
    _forget(file, f"{name}-*", store)
    known = read_table(file, COLUMNS)
    if known is None:
        known = pd.DataFrame(columns=COLUMNS)
    with reaching(store.config), seldom_collecting():
        page = known.attrs.get("page")
        still = known["run_id"].isin(_unchanged(store, known, page))
        rows, page = _read(store, set(known["run_id"][still]), page)
    tables = [table for table in (known[still], pd.DataFrame(rows)) if len(table)]
    table = pd.concat(tables) if tables else known[:0]
    gone = set(known["run_id"]) - set(table["run_id"])
    if gone:
        _say(f"{len(gone)} of the runs that were read before", store)
    table = table[table[LOGGED].notna()].reset_index(drop=True)  # the others are being logged just now
    settled = table[table["status"].isin(ENDED)]
    if gone or not _runs(settled) <= _runs(known):
        settled.attrs["page"] = page
        write_table(settled, file)
    return _not_taken_back(table)


def finished_cells(table: "pd.DataFrame", verdicts: Sequence[str], cells: Collection[str]) -> dict[str, dict[str, Any]]:
    """Return the results of cells by their identities, the newest of each that is finished with one of the verdicts.

    Args:
        table: All logged cells, as `history` returns them.
        verdicts: Which verdicts let a result stand.
        cells: Identities of the cells.
    """
    standing = (table["status"] == "FINISHED") & table["verdict"].isin(verdicts) & table["cell"].isin(cells)
    standing &= table["again"] != Again.retest
    newest = table[standing].sort_values("ended_ms").drop_duplicates("cell", keep="last")
    metrics = [column for column in newest.columns if column.startswith("metrics.")]
    newest = newest[["cell", "status", "verdict", "reasons", "run_id", *metrics]]
    return {
        str(row["cell"]): {
            "status": row["status"],
            "verdict": row["verdict"],
            "reasons": row["reasons"] or "",
            "run_id": row["run_id"],
            **{name.removeprefix("metrics."): row[name] for name in metrics if row[name] == row[name]},
        }
        for row in newest.to_dict("records")
    }


def _not_taken_back(table: "pd.DataFrame") -> "pd.DataFrame":
    judged = table[(table["again"] == Again.order) & (table["status"] == "FINISHED")]
    if judged.empty:
        return table
    since = table["cell"].map(judged.groupby("cell")["ended_ms"].max())
    return table[~(table["ended_ms"] < since)].reset_index(drop=True)


def _runs(table: "pd.DataFrame") -> set[tuple[str, str]]:
    return set(zip(table["run_id"], table["status"], strict=True))


def _say(what: str, store: Store) -> None:
    print(f"{what} are no longer in tracking.uri={store.config.uri}: left out", file=sys.stderr)


def _forget(file: Path, pattern: str, store: Store) -> None:
    """Remove what was read from stores that were at this address before."""
    for old in file.parent.glob(pattern):
        if not old.name.startswith(file.name):
            old.unlink(missing_ok=True)
            if old.suffix == ".parquet":
                _say("another store is at this address now: the runs that were read before", store)


def _unchanged(store: Store, known: "pd.DataFrame", page: str | None) -> set[str]:
    """Return those of the known runs that the store still holds, active and with the status that they had.

    MLflow always answers with whole runs, a millisecond each, and has no way to ask for a list of their names only. So
    it is asked for the last one of a chunk of named runs: where there is such a one, all of them are there. Where there
    is none, and where there are too few runs for a chunk, they are read again like any other run.

    Args:
        store: The store.
        known: The runs, their status and start.
        page: MLflow's token for the page that begins with the last run of a chunk.
    """
    there: set[str] = set()
    if page is None:
        return there
    for status, runs in known.sort_values(["started_ms", "run_id"]).groupby("status"):
        run_ids = runs["run_id"].tolist()
        most = len(run_ids) - CHUNK  # the last chunk may overlap the one before
        for start in [*range(0, most, CHUNK), most] if most >= 0 else ():
            chunk = run_ids[start : start + CHUNK]
            condition = f"attributes.status = '{status}' and attributes.run_id IN ({listed(chunk)})"
            last = store.client.search_runs(
                [store.experiment_id], condition, order_by=_ORDER, max_results=1, page_token=page
            )
            if [run.info.run_id for run in last] == chunk[-1:]:
                there.update(chunk)
    return there


def _read(store: Store, known: set[str], page: str | None) -> "tuple[list[dict[str, str | float | None]], str | None]":
    """Return a row for each run that is not among the known ones, and the token for a page of a chunk's last run."""
    rows: list[dict[str, str | float | None]] = []
    names: dict[str, str] = {}  # each text once: most repeat from run to run
    digits = max(0, math.ceil(math.log(max(len(known), 1) / MOST_EXCLUDED, len(_DIGITS))))
    by_prefix: dict[str, list[str]] = {}
    for run_id in known:
        by_prefix.setdefault(run_id[:digits], []).append(run_id)
    for prefix in map("".join, itertools.product(_DIGITS, repeat=digits)):
        condition = _CELLS
        if digits:
            condition += f" and attributes.run_id LIKE '{prefix}%'"
        if prefix in by_prefix:
            condition += f" and attributes.run_id NOT IN ({listed(by_prefix[prefix])})"
        token = None
        while True:
            found = store.client.search_runs(
                [store.experiment_id], condition, order_by=_ORDER, max_results=CHUNK - 1, page_token=token
            )
            first, token = token is None, found.token
            if first and token:
                page = token if isinstance(token, str) else token.decode()  # bytes where no server is between
            rows += [_row(run, names) for run in found]
            if not token:
                break
            del found
            gc.collect()  # a page's objects refer to one another
    return list({row["run_id"]: row for row in rows}.values()), page


def _row(run: "Run", names: dict[str, str]) -> dict[str, str | float | None]:
    def once(text: str) -> str:
        return names.setdefault(text, text)

    tags = {key: run.data.tags.get(f"pepper.{key}") for key in TAGS}
    return {
        "run_id": run.info.run_id,
        "name": run.info.run_name,
        "status": once(run.info.status),
        "parent": run.data.tags.get("mlflow.parentRunId"),
        "started_ms": run.info.start_time,
        "ended_ms": run.info.end_time,
        **tags,
        LOGGED: None,
        **{once(f"params.{key}"): once(value) for key, value in run.data.params.items()},
        **{once(f"metrics.{key}"): value for key, value in run.data.metrics.items()},
    }
