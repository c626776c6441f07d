"""Parents of sweeps that were killed outright are closed by the next sweep, those that live are left alone."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from harness import Desk, lasting

from pepper.tracking.abandoned import is_gone, owner

ONE = "# One long cell.\nname: one\naxes:\n  model: [tiny]\n  device: [share100]\n"


def test_this_process_is_not_gone() -> None:
    assert not is_gone(owner())


def test_an_ended_process_is_gone_and_a_reused_number_is_no_alibi() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert is_gone(json.dumps({**json.loads(owner()), "pid": child.pid}))
    assert is_gone(json.dumps({**json.loads(owner()), "started_s": time.time() - 1e6}))


@pytest.mark.parametrize(("fact", "gone"), [("host", False), ("pid_namespace", False), ("boot", True)])
def test_what_cannot_be_known_is_left_alone(fact: str, gone: bool) -> None:
    elsewhere = {**json.loads(owner()), fact: "another", "pid": 2**22 + 1}
    assert is_gone(json.dumps(elsewhere)) == gone


@pytest.mark.slow
def test_a_killed_sweep_is_closed_by_the_next(desk: Desk) -> None:
    desk.sweep("one", ONE)
    process = desk.start("+sweep=one", *lasting(30))
    deadline = time.monotonic() + 60
    while not desk.runs("sweep"):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    desk.sweep("two", ONE.replace("name: one", "name: two"))
    assert desk("+sweep=two").status == 0
    assert [run.info.status for run in desk.runs("sweep")] == ["RUNNING", "FINISHED"], "it lives: left alone"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert desk("+sweep=two").status == 0
    killed = desk.runs("sweep")[0]
    assert killed.info.status == "KILLED"
    assert "its process ended" in killed.data.tags["mlflow.note.content"]


def test_a_half_written_record_is_removed_once_it_is_old(desk: Desk) -> None:
    pending = Path(desk.folder) / "mlruns" / "pending"
    for name, age_s in ((".old", 7200), (".new", 0)):
        (pending / name).mkdir(parents=True)
        os.utime(pending / name, (time.time() - age_s,) * 2)
    assert desk("task=import").status == 0
    assert [path.name for path in pending.iterdir()] == [".new"]
