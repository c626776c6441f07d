"""Every run is written in one place, once, whatever it is a run of."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pepper.errors import TrackingError
from pepper.tracking.history import history
from pepper.tracking.outbox import Outbox
from pepper.tracking.posting import flush
from pepper.tracking.record import RUN_ID, Child, Dataset, NewVersion, Record
from pepper.tracking.registry import Registry
from pepper.tracking.store import Store
from pepper.tracking.user import user
from pepper.tracking.writer import MOST_PARAM, MOST_TAG, begin, write
from tests.tracking.recorded import a_record


def logged(store: Store) -> list[Any]:
    return list(store.client.search_runs([store.experiment_id]))


def test_a_record_is_logged_once(store: Store) -> None:
    record = a_record(store.folder.parent)
    written = write(store, record)
    assert write(store, record) == written
    (run,) = logged(store)
    assert run.info.run_id == written.run_id
    assert (run.info.status, run.info.run_name) == ("FINISHED", "a / b / c")
    assert run.data.tags["pepper.verdict"] == "VALID"
    assert run.data.metrics["latency_p50_ms"] == 2.5
    assert run.data.params == {"model": "a", "none": "None"}
    assert run.info.end_time - run.info.start_time == pytest.approx(1000, abs=2)


def test_what_waits_is_logged_and_forgotten(store: Store) -> None:
    outbox = Outbox(store.folder)
    record = a_record(store.folder.parent)
    for each in (record, a_record(store.folder.parent)):
        outbox.add(each)
    assert len(flush(store).written) == 2
    assert flush(store).written == {}
    outbox.add(record)  # logged, but cut off before it was forgotten
    flush(store)
    assert len(logged(store)) == 2
    assert outbox.all() == []


def test_a_run_that_was_cut_off_is_replaced(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    record = a_record(store.folder.parent)
    Outbox(store.folder).add(record)
    monkeypatch.setattr(store.client, "log_batch", lambda *_, **__: (_ for _ in ()).throw(OSError("gone")))
    assert isinstance(flush(store).failure, TrackingError)
    monkeypatch.undo()
    (half,) = logged(store)
    assert half.info.status == "FAILED"
    assert history(store).empty
    flush(store)
    (run,) = logged(store)
    assert run.info.run_id != half.info.run_id
    assert run.info.status == "FINISHED"


def a_training(folder: Path, **changes: Any) -> Record:
    """A record that has everything that a record can have."""
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "MLmodel").write_text("flavors: {}\n")
    return replace(
        Record(
            kind="training",
            name="pepper-latency on 3 rows",
            params={"rounds": 3, "memory": None, "long": "p" * 7000},
            metrics={"mape": 0.1, "noise": math.nan, "worst": math.inf},
            tags={"pepper.fleet": "pair", "pepper.none": None, "pepper.long": "t" * 7000},
            note="n" * 7000,
            artifacts=folder,
            children=tuple(Child("trial", f"trial {number}", "KILLED") for number in range(2)),
            dataset=Dataset("profiles", "abc", "dataset/rows.parquet", ("macs",), 3),
            version=NewVersion("pepper-latency", {"rows": "3"}, f"picture of {RUN_ID}"),
            started_s=1e9,
            ended_s=1e9 + 60,
        ),
        **changes,
    )


def test_a_run_has_all_that_its_record_says(store: Store, tmp_path: Path) -> None:
    written = write(store, a_training(tmp_path / "files"))
    run = store.client.get_run(written.run_id)
    assert (run.info.status, run.info.start_time, run.info.end_time) == ("FINISHED", 10**12, 10**12 + 60_000)
    assert run.data.metrics == {"mape": 0.1}
    assert (run.data.params["rounds"], run.data.params["memory"]) == ("3", "None")
    assert len(run.data.params["long"]) == MOST_PARAM
    assert {key: run.data.tags[key] for key in ("pepper.kind", "pepper.fleet", "mlflow.user")} == {
        "pepper.kind": "training",
        "pepper.fleet": "pair",
        "mlflow.user": user(),
    }
    assert "pepper.none" not in run.data.tags
    assert len(run.data.tags["pepper.long"]) == len(run.data.tags["mlflow.note.content"]) == MOST_TAG
    assert run.inputs.dataset_inputs[0].dataset.digest == "abc"
    below = f"tags.mlflow.parentRunId = '{written.run_id}'"
    children = store.client.search_runs([store.experiment_id], below)
    assert sorted((child.info.run_name, child.info.status) for child in children) == [
        ("trial 0", "KILLED"),
        ("trial 1", "KILLED"),
    ]
    assert (written.model, written.version) == ("pepper-latency", 1)
    version = store.client.get_model_version("pepper-latency", "1")
    assert (version.run_id, version.description) == (written.run_id, f"picture of {written.run_id}")
    heir = write(store, Record(kind="placement", name="a plan", data_of=written.run_id)).run_id
    assert store.client.get_run(heir).inputs.dataset_inputs[0].dataset.digest == "abc"
    assert write(store, Record(kind="placement", name="of another store", data_of="0" * 32)).run_id


@pytest.mark.parametrize(
    "step", ["create_run", "log_artifacts", "log_inputs", "log_batch", "set_terminated", "create_model_version"]
)
def test_wherever_logging_is_cut_off_it_is_logged_once_later(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    record = a_training(tmp_path / "files")
    with monkeypatch.context() as patch:
        patch.setattr(store.client, step, lambda *_, **__: (_ for _ in ()).throw(OSError("gone")))
        with pytest.raises(TrackingError, match="does not answer"):
            write(store, record)
    Outbox(store.folder).add(record, store.uri, store.config.experiment)
    (written,) = flush(store).written.values()
    found = logged(store)
    assert sorted(run.data.tags["pepper.kind"] for run in found) == ["training", "trial", "trial"]
    assert {run.info.status for run in found} == {"FINISHED", "KILLED"}
    assert Registry(store, "pepper-latency").versions() == [written.version] == [1]
    Outbox(store.folder).add(record, store.uri, store.config.experiment)  # logged, but cut off before it was forgotten
    assert list(flush(store).written.values()) == [written]
    assert len(logged(store)) == 3


def test_a_run_that_was_begun_is_completed(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "config.yaml").write_text("x: 1\n")
    begun = Record(kind="sweep", name="s", params={"cells": 2}, tags={"pepper.sweep": "s"}, artifacts=folder)
    run_id = begin(store, begun)
    assert store.client.get_run(run_id).info.status == "RUNNING"
    record = replace(begun, run_id=run_id, status="FAILED", metrics={"wall_s": 1.0}, note="**1 FAILED**")
    for _ in range(2):
        assert write(store, record).run_id == run_id
    (run,) = logged(store)
    assert (run.info.status, run.data.metrics, run.data.params) == ("FAILED", {"wall_s": 1.0}, {"cells": "2"})
    assert (run.data.tags["pepper.sweep"], run.data.tags["mlflow.note.content"]) == ("s", "**1 FAILED**")
    assert [file.path for file in store.client.list_artifacts(run_id)] == ["config.yaml"]
