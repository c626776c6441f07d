"""Executions in MLflow: a run with what was predicted and measured, linked to the placement and the data behind it.

What the store does not take is kept on disk, and logged when it does.
"""

import json
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pepper
from pepper.errors import TrackingError, refusal
from pepper.tracking.lineage import ending, hand_on_datasets
from pepper.tracking.store import Store, lock, reaching
from pepper.tracking.user import user

EXECUTION = "execution"
UNLOGGED = "unlogged"
"""Folder beside the store for what it did not take: a folder each, with the artifacts and all else in one file."""
_FILE = "execution.json"
_ARTIFACTS = "artifacts"


@dataclass(frozen=True)
class Execution:
    """All that an execution's run needs.

    Attributes:
        name: The run's name.
        params: Its parameters.
        metrics: Its figures; those that are not finite are left out.
        provenance: Where the plan's numbers come from; kept as tags.
        note: Its description (Markdown).
        artifacts: A folder whose content becomes the run's artifacts.
        failed: Whether it ended early.
        ended_s: When it was over (UNIX time).
        key: Unique to it; its run carries it as a tag.
    """

    name: str
    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    provenance: Mapping[str, Any]
    note: str
    artifacts: Path
    failed: bool = False
    ended_s: float = field(default_factory=time.time)
    key: str = field(default_factory=lambda: uuid.uuid4().hex)


@dataclass(frozen=True)
class Unlogged:
    """An execution that is kept on disk.

    Attributes:
        folder: Where.
        execution: All of it.
        uri: The store that it is meant for (a whole path for SQLite).
        experiment: The experiment there.
    """

    folder: Path
    execution: Execution
    uri: str
    experiment: str


def log_execution(store: Store, execution: Execution) -> str:
    """Log an execution and return its run's identifier.

    Its tags lead to the placement's run, and the datasets behind the plan become its inputs.

    Raises:
        TrackingError: The store does not answer.
    """
    from mlflow.entities import Metric, Param

    tags = {
        **{f"pepper.{key}": str(value)[:5000] for key, value in execution.provenance.items()},
        "pepper.kind": EXECUTION,
        "pepper.record": execution.key,
        "pepper.version": pepper.__version__,
        "mlflow.user": user(),
        "mlflow.source.name": "pepper.run",
        "mlflow.note.content": execution.note,
    }
    client, ended_ms = store.client, round(execution.ended_s * 1000)
    with reaching(store.config):
        run = client.create_run(store.experiment_id, ended_ms, tags, execution.name)
        run_id = str(run.info.run_id)
    with ending(store, run_id, "FAILED" if execution.failed else "FINISHED", ended_ms):
        client.log_artifacts(run_id, str(execution.artifacts))
        hand_on_datasets(client, execution.provenance.get("training_run"), run_id)
        client.log_batch(
            run_id,
            metrics=[Metric(k, v, ended_ms, 0) for k, v in execution.metrics.items() if abs(v) < float("inf")],
            params=[Param(key, str(value)[:6000]) for key, value in execution.params.items()],
        )
    return run_id


def keep_unlogged(store: Store, execution: Execution) -> Path:
    """Keep on disk what the store did not take, and return the folder: complete, or not there.

    Raises:
        TrackingError: It cannot be written.
    """
    name = time.strftime(f"%Y-%m-%d_%H-%M-%S_{execution.key[:6]}", time.localtime(execution.ended_s))
    folder = store.folder / UNLOGGED / name
    draft = folder.with_name(f".{name}")
    facts = {**asdict(execution), "artifacts": None}
    content = {"uri": store.uri, "experiment": store.config.experiment, "execution": facts}
    try:
        shutil.copytree(execution.artifacts, draft / _ARTIFACTS)
        (draft / _FILE).write_text(json.dumps(content))
        draft.rename(folder)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise TrackingError(f"{folder}: cannot keep results ({refusal(error)}); free some space") from error
    return folder


def unlogged(folder: Path) -> list[Unlogged]:
    """Return what is kept beside the store in this folder, oldest first.

    Raises:
        TrackingError: A file is damaged.
    """
    return [_read(file) for file in sorted((folder / UNLOGGED).glob(f"[!.]*/{_FILE}"))]


def _read(file: Path) -> Unlogged:
    try:
        content = json.loads(file.read_text())
        execution = Execution(**{**content["execution"], "artifacts": file.with_name(_ARTIFACTS)})
        return Unlogged(file.parent, execution, content["uri"], content["experiment"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrackingError(f"{file}: damaged ({error}); remove its folder to go on without it") from error


def log_unlogged(store: Store, kept: Unlogged, complete: Callable[[str], None]) -> bool:
    """Log what was kept, in the place of what the store took of it before, and forget it.

    Args:
        store: The store.
        kept: What was kept.
        complete: Adds to the run, given its identifier, before it is forgotten.

    Returns:
        Whether it was still there to be logged: another process may have done so.

    Raises:
        TrackingError: The store does not answer; it is still kept.
    """
    with lock(store.folder):
        if not kept.folder.exists():
            return False
        with reaching(store.config):
            for run in store.client.search_runs(
                [store.experiment_id], f"tags.`pepper.record` = '{kept.execution.key}'"
            ):
                store.client.delete_run(run.info.run_id)
        complete(log_execution(store, kept.execution))
        try:
            shutil.rmtree(kept.folder)
        except OSError as error:
            reason = f"{kept.folder}: logged, but cannot be removed ({refusal(error)})"
            raise TrackingError(f"{reason}; remove it, or it is logged again") from error
    return True
