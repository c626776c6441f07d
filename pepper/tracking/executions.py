"""Executions in MLflow: a run with what was predicted and measured, linked to the placement and the data behind it."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pepper
from pepper.tracking.lineage import ending, hand_on_datasets
from pepper.tracking.store import Store, reaching
from pepper.tracking.user import user

EXECUTION = "execution"


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
    """

    name: str
    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    provenance: Mapping[str, Any]
    note: str
    artifacts: Path
    failed: bool = False


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
        "pepper.version": pepper.__version__,
        "mlflow.user": user(),
        "mlflow.source.name": "pepper.run",
        "mlflow.note.content": execution.note,
    }
    client = store.client
    with reaching(store.config):
        run_id = str(client.create_run(store.experiment_id, run_name=execution.name, tags=tags).info.run_id)
    with ending(store, run_id, "FAILED" if execution.failed else "FINISHED"):
        client.log_artifacts(run_id, str(execution.artifacts))
        hand_on_datasets(client, execution.provenance.get("training_run"), run_id)
        now_ms = round(time.time() * 1000)
        client.log_batch(
            run_id,
            metrics=[Metric(k, v, now_ms, 0) for k, v in execution.metrics.items() if abs(v) < float("inf")],
            params=[Param(key, str(value)[:6000]) for key, value in execution.params.items()],
        )
    return run_id
