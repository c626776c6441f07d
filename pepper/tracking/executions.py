"""Executions in MLflow: a run with what was predicted and measured, linked to the placement and the data behind it.

What the store does not take is kept on disk, and logged when it does.
"""

import math
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pepper.tracking.lineage import ending, hand_on_datasets
from pepper.tracking.outbox import Outbox, artifacts, read_facts
from pepper.tracking.starting import start_run
from pepper.tracking.store import Store, reaching

EXECUTION = "execution"
_FILE = "execution.json"


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
class KeptExecution:
    """An execution that waits to be logged.

    Attributes:
        execution: All of it.
        uri: The store that it is meant for (a whole path for SQLite).
        experiment: The experiment there.
    """

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
        **{f"pepper.{key}": value for key, value in execution.provenance.items()},
        "pepper.record": execution.key,
        "mlflow.note.content": execution.note,
    }
    client, ended_ms = store.client, round(execution.ended_s * 1000)
    run_id = start_run(store, EXECUTION, execution.name, tags, ended_ms)
    with ending(store, run_id, "FAILED" if execution.failed else "FINISHED", ended_ms):
        client.log_artifacts(run_id, str(execution.artifacts))
        hand_on_datasets(client, execution.provenance.get("training_run"), run_id)
        client.log_batch(
            run_id,
            metrics=[Metric(k, v, ended_ms, 0) for k, v in execution.metrics.items() if math.isfinite(v)],
            params=[Param(key, str(value)[:6000]) for key, value in execution.params.items()],
        )
    return run_id


class Unlogged(Outbox[KeptExecution]):
    """The executions that wait to be logged."""

    NAME = "unlogged"

    def add(self, kept: KeptExecution) -> Path:
        """Keep an execution on disk; figures that are not finite are left out.

        Raises:
            TrackingError: It cannot be written.
        """
        execution = kept.execution
        name = time.strftime(f"%Y-%m-%d_%H-%M-%S_{execution.key[:6]}", time.localtime(execution.ended_s))
        facts = {key: value for key, value in vars(execution).items() if key != "artifacts"}
        facts["metrics"] = {key: value for key, value in execution.metrics.items() if math.isfinite(value)}
        content = {"uri": kept.uri, "experiment": kept.experiment, "execution": facts}
        return self.put_facts(name, _FILE, content, execution.artifacts)

    def read(self, entry: Path) -> KeptExecution | None:
        """Return what an entry holds; None if it is gone: another process has logged it.

        Raises:
            UnusableError: It is damaged.
        """
        from pepper.tracking.schemas import checked_execution

        facts = read_facts(entry, _FILE)
        if facts is None:
            return None
        content = checked_execution(facts)
        execution = Execution(**content["execution"], artifacts=artifacts(entry))
        return KeptExecution(execution, content["uri"], content["experiment"])


def log_again(store: Store, execution: Execution) -> str:
    """Log an execution in the place of what the store took of it before, and return its run's identifier.

    Raises:
        TrackingError: The store does not answer.
    """
    with reaching(store.config):
        for run in store.client.search_runs([store.experiment_id], f"tags.`pepper.record` = '{execution.key}'"):
            store.client.delete_run(run.info.run_id)
    return log_execution(store, execution)
