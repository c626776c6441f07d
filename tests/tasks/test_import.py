"""``task=import``: what the store did not take is logged later, whatever it is a run of."""

import json
from pathlib import Path
from typing import Any

import pytest
from harness import Desk, composed

from pepper.config import TrackingConfig
from pepper.errors import TrackingError
from pepper.tracking.posting import log
from pepper.tracking.record import Child, Record
from pepper.tracking.store import Store


def away(*_: Any, **__: Any) -> None:
    raise ConnectionRefusedError(111, "Connection refused")


def tracking(desk: Desk) -> TrackingConfig:
    return composed(*(each for each in desk.arguments() if each.startswith("tracking."))).tracking


def measure_battery(store: Store, folder: Path) -> str:
    """A task of a user's own, with records of a kind that pepper does not know."""
    (folder / "volts.csv").write_text("hour,volts\n0,4.1\n1,3.9\n")
    record = Record(
        kind="battery",
        name="camera, one hour",
        params={"cells": 2},
        metrics={"drop_v": 0.2},
        tags={"pepper.device": "camera"},
        note="**0.2 V** in an hour",
        artifacts=folder,
        children=(Child("discharge", "first half hour", metrics={"drop_v": 0.1}),),
    )
    return log(store, record, "what the battery gave").run_id


def test_a_kind_of_record_that_pepper_does_not_know(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, folder = Store(tracking(desk)), tmp_path / "files"
    folder.mkdir()
    at_once = measure_battery(store, folder)
    with monkeypatch.context() as patch:
        patch.setattr(store.client, "log_batch", away)
        with pytest.raises(
            TrackingError, match=r"the store does not answer .*; what the battery gave is in (\S+): log"
        ):
            measure_battery(store, folder)
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
    parents = sorted(run.data.tags["mlflow.parentRunId"] for run in desk.runs("discharge"))
    assert parents == sorted([first.info.run_id, second.info.run_id])


def test_what_is_interrupted_while_it_is_logged_waits(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    store, folder = Store(tracking(desk)), tmp_path / "files"
    folder.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(store.client, "log_artifacts", interrupted)
        with pytest.raises(KeyboardInterrupt, match="what the battery gave is in "):
            measure_battery(store, folder)
    assert [run.info.status for run in desk.runs("battery")] == ["FAILED"]
    assert desk("task=import").status == 0
    assert [run.info.status for run in desk.runs("battery")] == ["FINISHED"]
