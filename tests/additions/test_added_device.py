"""A kind of device that is not pepper's own."""

import os

import pytest
from harness import Desk

from tests.additions.conftest import Install, documented, documented_entry

HEADING = "A device"

OPTION = """# One core, for what can wait.
name: modest
kind: modest
threads: 1
"""


def test_models_are_measured_on_it(desk: Desk, install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install(*documented_entry(HEADING), documented(HEADING, "python"))
    (desk.options / "device").mkdir()
    (desk.options / "device" / "modest.yaml").write_text(OPTION)
    priorities = []
    monkeypatch.setattr(os, "setpriority", lambda which, who, priority: priorities.append(priority))
    done = desk("model=tiny", "device=modest", "load=cpu50")
    assert done.status == 0, done.err
    (run,) = desk.runs()
    assert run.data.params["device"] == "modest"
    assert len(priorities) >= 2, "calibrator, worker and generator"
    assert set(priorities) == {5}


def test_a_kind_that_nobody_adds_is_told(desk: Desk) -> None:
    done = desk("model=tiny", "device=local", "device.kind=modest", "load=idle")
    assert done.status == 2
    assert "device.kind=modest: must be one of local, emulated" in done.err
