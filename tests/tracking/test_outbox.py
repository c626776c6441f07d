"""Records wait on disk, complete or absent."""

import json
import shlex
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pepper.config.composing import compose
from pepper.errors import TrackingError
from pepper.tracking.outbox import Outbox, import_command
from pepper.tracking.record import RUN_ID, Child, Dataset, NewVersion, Record
from pepper.tracking.store import Store
from tests.tracking.recorded import a_record


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    record = a_record(
        tmp_path,
        below="parts",
        children=(Child("trial", "trial 0", "KILLED", {"rounds": 3}, {"mape": 0.1}),),
        dataset=Dataset("profiles", "abc", "dataset/rows.parquet", ("macs",), 3),
        data_of="0" * 32,
        version=NewVersion("pepper-latency", {"rows": "3"}, f"see {RUN_ID}"),
        parent="1" * 32,
    )
    outbox = Outbox(tmp_path)
    entry = outbox.add(record, "sqlite:///x", "pepper/latency")
    (read,) = outbox.all()
    assert read.record == replace(record, artifacts=entry / "artifacts")
    assert (read.uri, read.experiment) == ("sqlite:///x", "pepper/latency")
    assert record.artifacts is not None
    for file in record.artifacts.iterdir():
        assert (entry / "artifacts" / file.name).read_bytes() == file.read_bytes()
    outbox.remove(entry)
    assert outbox.all() == []


def test_a_record_need_not_have_artifacts(tmp_path: Path) -> None:
    record = Record(kind="lap", name="one")
    Outbox(tmp_path).add(record)
    assert [each.record for each in Outbox(tmp_path).all()] == [record]


def test_records_come_oldest_first(tmp_path: Path) -> None:
    records = [a_record(tmp_path, name=str(number)) for number in range(5)]
    for record in records:
        Outbox(tmp_path).add(record)
        time.sleep(0.01)
    assert [each.record.name for each in Outbox(tmp_path).all()] == list("01234")


def test_a_record_that_cannot_be_written_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    record = a_record(tmp_path)
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(TrackingError, match=r"No space left on device\); free some space"):
        Outbox(tmp_path).add(record)
    assert list((tmp_path / "pending").iterdir()) == []


def test_a_half_written_record_is_not_read(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    outbox.add(a_record(tmp_path))
    (tmp_path / "pending" / ".draft").mkdir()
    (tmp_path / "pending" / ".draft" / "record.json").write_text("{")
    assert len(outbox.all()) == 1


def test_records_are_json_that_others_can_read(tmp_path: Path) -> None:
    record = a_record(tmp_path)
    Outbox(tmp_path).add(record)
    facts = json.loads((tmp_path / "pending" / record.key / "record.json").read_text())
    assert facts["schema"] == 2
    assert (facts["record"]["kind"], facts["record"]["metrics"]["latency_p50_ms"]) == ("cell", 2.5)


def test_the_command_that_logs_what_waits_can_be_pasted(tmp_path: Path) -> None:
    folder = tmp_path / "my runs (1)"
    _, _, _, *overrides = shlex.split(import_command(folder))
    assert compose(overrides).tracking.folder == str(folder)


def test_what_cannot_wait_is_kept_elsewhere(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = [a_record(tmp_path), a_record(tmp_path, key="f" * 32)]
    (store.folder / "pending").write_text("no folder\n")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with pytest.raises(TrackingError, match=rf"cannot keep results .*task=import tracking.folder={tmp_path}/state"):
        Outbox(store.folder).add(records[0])
    with pytest.raises(TrackingError, match="cannot keep results"):
        Outbox(store.folder).add(records[1])
    (kept,) = (tmp_path / "state" / "pepper").iterdir()
    assert len(Outbox(kept).all()) == 2
    monkeypatch.setattr(
        tempfile, "mkdtemp", lambda **_: (_ for _ in ()).throw(PermissionError(13, "Permission denied"))
    )
    other = tmp_path / "other"
    other.mkdir()
    (other / "pending").write_text("no folder\n")
    with pytest.raises(TrackingError, match=r"cannot keep results .*what was measured last is lost"):
        Outbox(other).add(records[0])
