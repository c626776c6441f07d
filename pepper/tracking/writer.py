"""The one place where runs are written: how they begin, what they hold, how they end, and what is made of them."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pepper
from pepper.tracking.abandoned import OWNER_TAG, owner
from pepper.tracking.record import RUN_ID, Child, Dataset, Fact, Record
from pepper.tracking.registry import Registry
from pepper.tracking.store import Store, reaching
from pepper.tracking.user import user

if TYPE_CHECKING:
    from mlflow.entities import Run

MOST_NAME = 250
"""Characters that databases keep of a run's name."""
MOST_TAG = 5000
"""Characters of a tag's value."""
MOST_PARAM = 6000
"""Characters of a parameter's value."""
KEY_TAG, PARENT_TAG, NOTE_TAG = "pepper.record", "mlflow.parentRunId", "mlflow.note.content"


@dataclass(frozen=True)
class Written:
    """What became of a record.

    Attributes:
        run_id: Its run.
        model: The registered model that it became a version of; None if it was to be none.
        version: That version.
    """

    run_id: str
    model: str | None = None
    version: int | None = None


def write(store: Store, record: Record) -> Written:
    """Log a record as a run, unless the store has it already, and make of that what it is to become.

    A run that was cut off half-way is deleted and logged anew; one that was started with `begin` is completed.

    Raises:
        TrackingError: The store does not answer, or refuses; the run is then marked as failed where that can be done.
    """
    run_id = None if record.run_id else _whole_run(store, record)
    if run_id is None:
        run_id = record.run_id or _start(store, record)
        with _ending(store, run_id, record.status, record.ended_ms):
            _fill(store, run_id, record)
            for child in record.children:
                _write_child(store, run_id, child, record.ended_ms)
    if (new := record.version) is None:
        return Written(run_id)
    new = replace(new, description=new.description.replace(RUN_ID, run_id))
    registry = Registry(store, new.model)
    return Written(run_id, new.model, registry.version_of(run_id) or registry.register(run_id, new))


def begin(store: Store, record: Record) -> str:
    """Start the run of a record with what is known of it, its tags included, and return its identifier.

    `write` completes and ends it, given the record with this ``run_id``.

    Raises:
        TrackingError: The store does not answer.
    """
    run_id = _start(store, record)
    with reaching(store.config):
        _fill(store, run_id, record)
    return run_id


def run_of(store: Store, key: str) -> str | None:
    """Return the run that a record was logged as, by whichever process; None if it is not logged.

    Raises:
        TrackingError: The store does not answer.
    """
    with reaching(store.config):
        return next((str(run.info.run_id) for run in _runs(store, KEY_TAG, key)), None)


def forget(store: Store, record: Record) -> None:
    """Delete the runs that were made for a record, but for one that was started before.

    Raises:
        TrackingError: The store does not answer.
    """
    if record.run_id is None:
        with reaching(store.config):
            for run in _runs(store, KEY_TAG, record.key):
                _delete(store, run)


def shortened(text: str, most: int = MOST_NAME) -> str:
    """Return a text of that many characters at most: what is too much is left out in the middle."""
    if len(text) <= most:
        return text
    head = (most - 1) // 2
    return f"{text[:head]}…{text[len(text) - (most - 1 - head) :]}"


def _whole_run(store: Store, record: Record) -> str | None:
    """Return the run that holds all of a record; runs that hold less are deleted."""
    with reaching(store.config):
        for run in _runs(store, KEY_TAG, record.key):
            # Whoever ends an abandoned run does so with another time.
            if (run.info.status, run.info.end_time) == (record.status, record.ended_ms):
                return str(run.info.run_id)
            _delete(store, run)
    return None


def _runs(store: Store, tag: str, value: str) -> "list[Run]":
    return list(
        store.client.search_runs([store.experiment_id], filter_string=f"tags.`{tag}` = '{value}'", max_results=50_000)
    )


def _delete(store: Store, run: "Run") -> None:
    for child in _runs(store, PARENT_TAG, str(run.info.run_id)):
        store.client.delete_run(child.info.run_id)
    store.client.delete_run(run.info.run_id)


def _start(store: Store, record: Record | Child, parent: str | None = None, started_ms: int | None = None) -> str:
    """Start a run and return its identifier.

    A name that is too long is shortened in its middle; the tag ``pepper.name`` has it whole.
    """
    shown = shortened(record.name)
    tags: dict[str, Fact] = {"pepper.name": None if shown == record.name else record.name, PARENT_TAG: parent}
    if isinstance(record, Record):
        tags |= {**record.tags, KEY_TAG: record.key, PARENT_TAG: record.parent}
        started_ms = record.started_ms
    always = {
        "pepper.kind": record.kind,
        "pepper.version": pepper.__version__,
        OWNER_TAG: owner(),
        "mlflow.user": user(),
        "mlflow.source.name": "pepper.run",
        "mlflow.source.type": "LOCAL",
    }
    with reaching(store.config):
        run = store.client.create_run(
            store.experiment_id,
            start_time=started_ms,
            tags={**{k: shortened(str(v), MOST_TAG) for k, v in tags.items() if v is not None}, **always},
            run_name=shown,
        )
    return str(run.info.run_id)


@contextlib.contextmanager
def _ending(store: Store, run_id: str, status: str, at_ms: int) -> Iterator[None]:
    """End a run with a status, or as failed if what is logged meanwhile is refused."""
    with reaching(store.config):
        try:
            yield
        except BaseException:
            with contextlib.suppress(Exception):  # the store may be gone; the first error is the one to say
                store.client.set_terminated(run_id, "FAILED")
            raise
        store.client.set_terminated(run_id, status, at_ms)


def _fill(store: Store, run_id: str, record: Record) -> None:
    """Log what a record holds."""
    if record.artifacts is not None:
        store.client.log_artifacts(run_id, str(record.artifacts), record.below or None)
    if record.dataset is not None:
        _log_dataset(store, run_id, record.dataset)
    if record.data_of:
        _hand_on_datasets(store, record.data_of, run_id)
    _log_batch(store, run_id, record, record.ended_ms, record.note)


def _write_child(store: Store, parent: str, child: Child, at_ms: int) -> None:
    run_id = _start(store, child, parent, at_ms)
    with _ending(store, run_id, child.status, at_ms):
        _log_batch(store, run_id, child, at_ms)


def _log_batch(store: Store, run_id: str, record: Record | Child, at_ms: int, note: str = "") -> None:
    """Log parameters, figures and the description."""
    from mlflow.entities import Metric, Param, RunTag

    params = {key: str(value) for key, value in record.params.items()}
    store.client.log_batch(
        run_id,
        metrics=[Metric(key, value, at_ms, 0) for key, value in record.metrics.items()],
        params=[Param(key, shortened(value, MOST_PARAM)) for key, value in params.items()],
        tags=[RunTag(NOTE_TAG, shortened(note, MOST_TAG))] if note else [],
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


def _hand_on_datasets(store: Store, training_run: str, run_id: str) -> None:
    """Make a training's datasets inputs of a run, so that MLflow leads from it to the profiles.

    A training that this store does not know, as where a plan comes from another one, has none to hand on.
    """
    from mlflow.exceptions import MlflowException

    try:
        inputs: Any = store.client.get_run(training_run).inputs
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return
    if inputs is not None and inputs.dataset_inputs:
        store.client.log_inputs(run_id, datasets=inputs.dataset_inputs)
