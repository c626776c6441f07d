"""Processes on a device: their answers, their surroundings, and every way in which they end."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from harness import ROOT, alive, wait_until

from pepper.devices import host
from pepper.devices.process import Process
from pepper.errors import MeasureError

CORE = host.allowed_cores()[-1]


@pytest.fixture
def process() -> Iterator[Process]:
    with Process("programs", [CORE], threads=3) as process:
        yield process


def test_arrays_go_both_ways(process: Process) -> None:
    array = np.random.default_rng(0).random((3, 5), dtype=np.float32)
    result, arrays = process.request("echo", timeout_s=10, text="héllo", arrays={"a": array, "b": array[0]})
    assert result == {"text": "héllo"}
    np.testing.assert_array_equal(arrays["a"], array)
    np.testing.assert_array_equal(arrays["b"], array[0])


def test_an_error_is_raised_here_and_the_process_lives_on(process: Process) -> None:
    with pytest.raises(MeasureError, match=r"^ValueError: not like this$"):
        process.request("refuse", timeout_s=10)
    assert process.request("echo", timeout_s=10, text="on")[0] == {"text": "on"}


@pytest.mark.parametrize(
    ("op", "fields", "message"),
    [
        ("leave", {"code": 3}, r"programs: crashed during 'leave' \(exit status 3\): last words"),
        ("die", {}, r"programs: crashed during 'die' \(killed by SIGSEGV\)"),
    ],
)
def test_a_crash_is_told(process: Process, op: str, fields: dict[str, int], message: str) -> None:
    with pytest.raises(MeasureError, match=message):
        process.request(op, timeout_s=10, **fields)
    assert not process.alive
    with pytest.raises(MeasureError, match="crashed during 'echo'"):
        process.request("echo", timeout_s=10, text="too late")


def test_a_kill_is_told(process: Process) -> None:
    process.request("cpu", timeout_s=10)
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(MeasureError, match=r"killed by SIGKILL, likely out of memory"):
        process.request("cpu", timeout_s=10)


def test_an_answer_that_is_none_is_told(process: Process) -> None:
    with pytest.raises(MeasureError, match=r"^programs: no answer to 'babble' but something else .*; it was killed$"):
        process.request("babble", timeout_s=10)
    assert not process.alive


def test_a_request_that_is_none_ends_the_program(process: Process) -> None:
    process.request("cpu", timeout_s=10)
    process._connection.send_bytes(b"\x00garbage")
    with pytest.raises(MeasureError, match=r"exit status 1.*no request: no message"):
        process.request("cpu", timeout_s=10)


def test_a_program_that_does_not_start() -> None:
    with Process("no_such_program", [CORE]) as process, pytest.raises(MeasureError, match="No module named"):
        process.request("echo", timeout_s=10)


@pytest.mark.parametrize("stopped", [False, True])
def test_a_hang_is_killed_within_the_limit(process: Process, stopped: bool) -> None:
    process.request("cpu", timeout_s=10)
    if stopped:
        os.kill(process.pid, signal.SIGSTOP)
    start = time.monotonic()
    with pytest.raises(MeasureError, match=r"no answer to 'hang' within 0.3 s \(hung\); it was killed"):
        process.request("hang", timeout_s=0.3)
    assert time.monotonic() - start < 0.3 + 5
    assert not process.alive


def test_the_surroundings_are_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    for name in ("OMP_NUM_THREADS", "ORT_LOG", "OMP_WAIT_POLICY", "SECRET", "MLFLOW_TRACKING_URI"):
        monkeypatch.setenv(name, "99")
    with Process("programs", [CORE], threads=3) as process:
        facts = process.request("facts", timeout_s=10)[0]
    assert facts["affinity"] == [CORE]
    environment = facts["environment"]
    for name in ("ORT_LOG", "OMP_WAIT_POLICY", "SECRET", "MLFLOW_TRACKING_URI"):
        assert name not in environment
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        assert environment[name] == "3"
    assert environment["PATH"] == os.environ["PATH"]
    assert environment["CUDA_VISIBLE_DEVICES"] == "1", "it chooses what a program runs on"


def test_the_parent_sleeps_while_it_waits(process: Process) -> None:
    process.request("cpu", timeout_s=10)
    before = time.process_time()
    process.request("spin", timeout_s=10, seconds=0.5)
    assert time.process_time() - before < 0.05


def test_closing_ends_it_also_when_stopped() -> None:
    for stopped in (False, True):
        process = Process("programs", [CORE])
        process.request("cpu", timeout_s=10)
        if stopped:
            os.kill(process.pid, signal.SIGSTOP)
        process.close()
        assert not process.alive


PARENT = """
import os, signal, sys, time
from pepper.devices.process import Process
processes = [Process("programs", [int(sys.argv[1])]) for _ in range(3)]
for process in processes:
    process.request("cpu", timeout_s=10)
os.kill(processes[1].pid, signal.SIGSTOP)
print(*(process.pid for process in processes), flush=True)
processes[2].request("hang", timeout_s=3600)
"""


def test_children_die_with_a_parent_that_is_killed(started: list[psutil.Process]) -> None:
    """One that waits, one that is stopped, one that is busy."""
    path = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(CORE)],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    started += [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
    assert len(started) == 3
    wait_until(lambda: started[1].status() == psutil.STATUS_STOPPED)
    parent.kill()
    parent.communicate()
    wait_until(lambda: not alive(started), timeout_s=5)


GROUP = """
import os, subprocess, sys, time
theirs, ours = os.pipe()
leader = subprocess.Popen(
    [sys.executable, "-m", "pepper.devices.command", str(theirs), "/bin/sh", "-c", "sleep 3600 & sleep 3600"],
    pass_fds=[theirs], start_new_session=True,
)
print(leader.pid, flush=True)
time.sleep(3600)
"""


@pytest.mark.parametrize("victim", ["parent", "program"])
def test_a_command_and_what_it_started_end_with_the_parent_and_with_the_program(
    victim: str, started: list[psutil.Process]
) -> None:
    """Stopped ones, too."""
    parent = subprocess.Popen([sys.executable, "-c", GROUP], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    leader = psutil.Process(int(parent.stdout.readline()))
    wait_until(lambda: len(leader.children(recursive=True)) == 3)
    program, *others = leader.children(recursive=True)
    started += [leader, program, *others]
    for other in others:
        other.suspend()
    (parent if victim == "parent" else program).kill()
    wait_until(lambda: not alive(started), timeout_s=10)
    parent.kill()
    parent.communicate()
