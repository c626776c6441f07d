"""Placements in MLflow: a run with its plan and figures, linked to the latency model and the data behind it."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pepper
from pepper.tracking.registry import Registry
from pepper.tracking.store import Store, reaching
from pepper.tracking.user import user

PLACEMENT = "placement"


@dataclass(frozen=True)
class Placement:
    """All that a placement's run needs.

    Attributes:
        name: The run's name.
        params: Its parameters.
        metrics: Its figures; those that are not finite are left out.
        note: Its description (Markdown).
        artifacts: A folder whose content becomes the run's artifacts.
    """

    name: str
    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    note: str
    artifacts: Path


def origin(registry: Registry, version: int) -> dict[str, Any]:
    """Return where a version's predictions come from: its model, the training's run, the data it learned from."""
    tags = registry.tags(version)
    return {
        "latency_model": registry.name,
        "latency_model_version": version,
        "training_run": registry.run_id(version),
        "dataset_digest": tags.get("dataset_digest", ""),
        "features_digest": tags.get("features_digest", ""),
    }


def log_placement(store: Store, placement: Placement, behind: Mapping[str, Any]) -> str:
    """Log a placement and return its run's identifier.

    The training's datasets become inputs of the run, so that MLflow leads from a plan to the profiles.

    Args:
        store: The store.
        placement: What to log.
        behind: What `origin` returned.

    Raises:
        TrackingError: The store does not answer.
    """
    from mlflow.entities import Metric, Param

    tags = {
        "pepper.kind": PLACEMENT,
        "pepper.version": pepper.__version__,
        "mlflow.user": user(),
        "mlflow.source.name": "pepper.run",
        "mlflow.note.content": placement.note,
        **{f"pepper.{key}": str(value) for key, value in behind.items()},
    }
    with reaching(store.config):
        client = store.client
        run_id = str(client.create_run(store.experiment_id, run_name=placement.name, tags=tags).info.run_id)
        client.log_artifacts(run_id, str(placement.artifacts))
        inputs = client.get_run(str(behind["training_run"])).inputs
        if inputs is not None and inputs.dataset_inputs:
            client.log_inputs(run_id, datasets=inputs.dataset_inputs)
        now_ms = round(time.time() * 1000)
        client.log_batch(
            run_id,
            metrics=[Metric(k, v, now_ms, 0) for k, v in placement.metrics.items() if abs(v) < float("inf")],
            params=[Param(key, str(value)[:6000]) for key, value in placement.params.items()],
        )
        client.set_terminated(run_id, "FINISHED")
    return run_id
