"""Results wait on disk, complete or absent, and are logged once."""

import json
import multiprocessing
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pepper.config import TrackingConfig
from pepper.errors import TrackingError
from pepper.measure.profile import Profile
from pepper.tracking import runs
from pepper.tracking.history import history
from pepper.tracking.posting import flush
from pepper.tracking.records import Pending
from pepper.tracking.store import Store
from tests.tracking.recorded import a_record


def logged(store: Store) -> list[Any]:
    return list(store.client.search_runs([store.experiment_id]))


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    record = a_record()
    pending = Pending(tmp_path)
    pending.add(record)
    (read,) = pending.all()
    for name, array in record.profile.samples.items():
        np.testing.assert_array_equal(read.profile.samples[name], array)
    no_samples = {"samples": {}}
    assert replace(read, profile=replace(read.profile, **no_samples)) == replace(
        record, profile=replace(record.profile, **no_samples)
    )
    pending.remove(pending.entries()[0])
    assert pending.all() == []


def test_a_failed_cell_has_a_record_without_samples(tmp_path: Path) -> None:
    record = a_record(profile=Profile(status="FAILED", started_s=1, ended_s=2, reasons=["it broke"]))
    Pending(tmp_path).add(record)
    assert Pending(tmp_path).all() == [record]


def test_records_come_oldest_first(tmp_path: Path) -> None:
    records = [a_record(name=str(number)) for number in range(5)]
    for record in records:
        Pending(tmp_path).add(record)
        time.sleep(0.01)
    assert [record.name for record in Pending(tmp_path).all()] == list("01234")


def test_a_record_that_cannot_be_written_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(TrackingError, match=r"No space left on device\); free some space"):
        Pending(tmp_path).add(a_record())
    assert list((tmp_path / "pending").iterdir()) == []


def test_a_half_written_record_is_not_read(tmp_path: Path) -> None:
    pending = Pending(tmp_path)
    pending.add(a_record())
    (tmp_path / "pending" / ".draft").mkdir()
    (tmp_path / "pending" / ".draft" / "record.json").write_text("{")
    assert len(pending.all()) == 1


def test_a_record_is_logged_once(store: Store) -> None:
    record = a_record()
    run_id = runs.log_once(store, record)
    assert runs.log_once(store, record) == run_id
    (run,) = logged(store)
    assert run.info.run_id == run_id
    assert (run.info.status, run.info.run_name) == ("FINISHED", "a / b / c")
    assert run.data.tags["pepper.verdict"] == "VALID"
    assert run.data.metrics["latency_p50_ms"] == 2.5
    assert run.data.params == {"model": "a", "none": "None"}
    assert run.info.end_time - run.info.start_time == pytest.approx(1000, abs=2)


def test_what_waits_is_logged_and_forgotten(store: Store) -> None:
    pending = Pending(store.folder)
    record = a_record()
    for each in (record, a_record()):
        pending.add(each)
    assert flush(store).count == 2
    assert flush(store).count == 0
    pending.add(record)  # logged, but cut off before it was forgotten
    flush(store)
    assert len(logged(store)) == 2
    assert pending.all() == []


def test_a_run_that_was_cut_off_is_replaced(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    record = a_record()
    Pending(store.folder).add(record)
    monkeypatch.setattr(store.client, "log_batch", lambda *_, **__: (_ for _ in ()).throw(OSError("gone")))
    assert isinstance(flush(store).failure, TrackingError)
    monkeypatch.undo()
    (half,) = logged(store)
    assert half.info.status == "RUNNING"
    assert history(store).empty
    flush(store)
    (run,) = logged(store)
    assert run.info.run_id != half.info.run_id
    assert run.info.status == "FINISHED"


def test_records_are_json_that_others_can_read(tmp_path: Path) -> None:
    record = a_record()
    Pending(tmp_path).add(record)
    facts = json.loads((tmp_path / "pending" / record.key / "record.json").read_text())
    assert facts["schema"] == 1
    assert facts["profile"]["metrics"]["latency_p50_ms"] == 2.5


def open_store(folder: str, barrier: Any, results: Any) -> None:
    config = TrackingConfig(uri=f"sqlite:///{folder}/mlflow.db", experiment="pepper/profiles", folder=folder)
    import mlflow  # noqa: F401 - before the start signal, so that both begin at once

    barrier.wait()
    try:
        results.put(Store(config).experiment_id)
    except Exception as error:
        results.put(repr(error))


@pytest.mark.slow
def test_two_processes_start_on_an_empty_store_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    processes = [context.Process(target=open_store, args=(str(tmp_path), barrier, results)) for _ in range(2)]
    for process in processes:
        process.start()
    found = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert found[0] == found[1]
    assert found[0].isdigit()


def test_what_cannot_wait_is_kept_elsewhere(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (store.folder / "pending").write_text("no folder\n")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with pytest.raises(TrackingError, match=rf"cannot keep results .*task=import tracking.folder={tmp_path}/state"):
        Pending(store.folder).add(a_record())
    with pytest.raises(TrackingError, match="cannot keep results"):
        Pending(store.folder).add(replace(a_record(), key="f" * 32))
    (kept,) = (tmp_path / "state" / "pepper").iterdir()
    assert [record.cell for record in Pending(kept).all()] == [a_record().cell] * 2
    monkeypatch.setattr(
        tempfile, "mkdtemp", lambda **_: (_ for _ in ()).throw(PermissionError(13, "Permission denied"))
    )
    other = tmp_path / "other"
    other.mkdir()
    (other / "pending").write_text("no folder\n")
    with pytest.raises(TrackingError, match=r"cannot keep results .*what was measured last is lost"):
        Pending(other).add(a_record())
