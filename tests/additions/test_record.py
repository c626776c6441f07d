"""A kind of record that pepper does not know: written at once, or kept and logged by ``task=import``."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import Desk, composed

from pepper.errors import TrackingError
from pepper.tracking.store import Store
from tests.additions.conftest import documented

HEADING = "A kind of record"
VOLTS = (4.1, 4.0, 3.9)

LogBattery = Callable[[Store, str, tuple[float, ...], Path], str]


@pytest.fixture
def log_battery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LogBattery:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "newcomer.py").write_text(documented(HEADING, "python"))
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.delitem(sys.modules, "newcomer", raising=False)
    import newcomer

    function: LogBattery = newcomer.log_battery
    monkeypatch.delitem(sys.modules, "newcomer")
    return function


@pytest.fixture
def store(desk: Desk) -> Store:
    return Store(composed(*(each for each in desk.arguments() if each.startswith("tracking."))).tracking)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "files"
    made.mkdir()
    (made / "volts.csv").write_text("hour,volts\n0,4.1\n1,3.9\n")
    return made


def test_it_is_written_alike_at_once_and_later(
    desk: Desk, store: Store, folder: Path, log_battery: LogBattery, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise ConnectionRefusedError(111, "Connection refused")

    at_once = log_battery(store, "camera", VOLTS, folder)
    with monkeypatch.context() as patch:
        patch.setattr(store.client, "log_batch", away)
        with pytest.raises(
            TrackingError, match=r"the store does not answer .*; what the battery gave is in (\S+): log"
        ):
            log_battery(store, "camera", VOLTS, folder)
    outcome = desk("task=import", "output=json")
    assert outcome.status == 0, outcome.err
    assert json.loads(outcome.out)["logged"] == {desk.uri: 1}
    first, second = desk.runs("battery")
    assert (first.info.run_id, first.data.params) == (at_once, second.data.params)
    assert (first.data.metrics, second.info.status) == (second.data.metrics, "FINISHED")
    for tag in ("pepper.device", "mlflow.note.content", "mlflow.user"):
        assert first.data.tags[tag] == second.data.tags[tag]
    for run in (first, second):
        assert [file.path for file in store.client.list_artifacts(run.info.run_id)] == ["volts.csv"]
    parents = sorted(run.data.tags["mlflow.parentRunId"] for run in desk.runs("reading"))
    assert parents == sorted(3 * [first.info.run_id, second.info.run_id])


def test_it_waits_where_logging_is_interrupted(
    desk: Desk, store: Store, folder: Path, log_battery: LogBattery, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store.client, "log_artifacts", interrupted)
        with pytest.raises(KeyboardInterrupt, match="what the battery gave is in "):
            log_battery(store, "camera", VOLTS, folder)
    assert [run.info.status for run in desk.runs("battery")] == ["FAILED"]
    assert desk("task=import").status == 0
    assert [run.info.status for run in desk.runs("battery")] == ["FINISHED"]
