"""Trainings in MLflow: a parent run with its dataset, figures and model, and a nested run a trial."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pepper.tracking.lineage import ending
from pepper.tracking.starting import start_run
from pepper.tracking.store import Store

TRAINING, TRIAL = "training", "trial"
MODEL_FOLDER = "model"


@dataclass(frozen=True)
class TrialRecord:
    """One trial as it is logged.

    Attributes:
        number: Its number in the study.
        finished: Whether it ran to its end; else it was pruned.
        params: What it tried.
        metrics: What came out.
    """

    number: int
    finished: bool
    params: Mapping[str, Any]
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Dataset:
    """The rows that a training used, as MLflow lists them.

    Attributes:
        name: How it is listed.
        digest: Hash of its content.
        file: Its Parquet file, below the run's artifacts.
        columns: Names of its columns.
        rows: How many rows it has.
    """

    name: str
    digest: str
    file: str
    columns: Sequence[str]
    rows: int


@dataclass(frozen=True)
class Training:
    """All that a training's run needs.

    Attributes:
        name: The run's name.
        params: Its parameters.
        metrics: Its figures; those that are not finite are left out.
        trials: The trials of its study.
        dataset: The rows that it used.
        note: Its description (Markdown).
        artifacts: A folder whose content becomes the run's artifacts.
    """

    name: str
    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    trials: Sequence[TrialRecord]
    dataset: Dataset
    note: str
    artifacts: Path


def log_training(store: Store, training: Training) -> str:
    """Log a finished training and return its run's identifier.

    Raises:
        TrackingError: The store does not answer; the run is then marked as failed where that can be done.
    """
    run_id = start_run(store, TRAINING, training.name, {"mlflow.note.content": training.note})
    with ending(store, run_id):
        store.client.log_artifacts(run_id, str(training.artifacts))
        _log_dataset(store, run_id, training.dataset)
        _log(store, run_id, training.params, training.metrics)
        for trial in training.trials:
            child = start_run(store, TRIAL, f"trial {trial.number}", {"mlflow.parentRunId": run_id})
            with ending(store, child, "FINISHED" if trial.finished else "KILLED"):
                _log(store, child, trial.params, trial.metrics)
    return run_id


def _log(store: Store, run_id: str, params: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
    from mlflow.entities import Metric, Param

    now_ms = round(time.time() * 1000)
    store.client.log_batch(
        run_id,
        metrics=[Metric(key, value, now_ms, 0) for key, value in metrics.items() if abs(value) < float("inf")],
        params=[Param(key, str(value)) for key, value in params.items()],
    )


def _log_dataset(store: Store, run_id: str, dataset: Dataset) -> None:
    from mlflow.entities import Dataset as Entity
    from mlflow.entities import DatasetInput, InputTag

    uri = f"{store.client.get_run(run_id).info.artifact_uri}/{dataset.file}"
    entity = Entity(
        name=dataset.name,
        digest=dataset.digest,
        source_type="local",
        source=json.dumps({"uri": uri}),
        schema=json.dumps({"mlflow_colspec": [{"name": name, "type": "double"} for name in dataset.columns]}),
        profile=json.dumps({"num_rows": dataset.rows}),
    )
    store.client.log_inputs(run_id, datasets=[DatasetInput(entity, [InputTag("mlflow.data.context", "training")])])
