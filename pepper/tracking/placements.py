"""Placements in MLflow: a run with its plan and figures, linked to the latency model and the data behind it."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pepper.tracking.lineage import ending, hand_on_datasets
from pepper.tracking.registry import Registry
from pepper.tracking.starting import start_run
from pepper.tracking.store import Store

PLACEMENT = "placement"


@dataclass(frozen=True)
class PlacementRecord:
    """All that a placement's run needs.

    Attributes:
        params: The run's parameters.
        metrics: Its figures; those that are not finite are left out.
        artifacts: A folder whose content becomes the run's artifacts.
    """

    params: Mapping[str, Any]
    metrics: Mapping[str, float]
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


def start_placement(store: Store, name: str, note: str, behind: Mapping[str, Any]) -> str:
    """Start a placement's run and return its identifier, which its plans then carry.

    Args:
        store: The store.
        name: The run's name.
        note: Its description (Markdown).
        behind: What `origin` returned.

    Raises:
        TrackingError: The store does not answer.
    """
    tags = {"mlflow.note.content": note, **{f"pepper.{key}": value for key, value in behind.items()}}
    return start_run(store, PLACEMENT, name, tags)


def log_placement(store: Store, run_id: str, placement: PlacementRecord, behind: Mapping[str, Any]) -> None:
    """Log a placement in its run, and end that.

    The training's datasets become inputs of the run, so that MLflow leads from a plan to the profiles.

    Args:
        store: The store.
        run_id: What `start_placement` returned.
        placement: What to log.
        behind: What `origin` returned.

    Raises:
        TrackingError: The store does not answer.
    """
    from mlflow.entities import Metric, Param

    client = store.client
    with ending(store, run_id):
        client.log_artifacts(run_id, str(placement.artifacts))
        hand_on_datasets(client, str(behind["training_run"]), run_id)
        now_ms = round(time.time() * 1000)
        client.log_batch(
            run_id,
            metrics=[Metric(k, v, now_ms, 0) for k, v in placement.metrics.items() if abs(v) < float("inf")],
            params=[Param(key, str(value)[:6000]) for key, value in placement.params.items()],
        )
