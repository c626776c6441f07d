"""The reference kernel, and what its times say of a cell."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from threading import Event, Thread

import pytest
from harness import ROOT
from hypothesis import given
from hypothesis import strategies as st

from pepper.devices.pace import KernelTime, ReferenceKernel
from pepper.measure.pace import Paces, pace_of
from pepper.measure.worker import Worker

times = st.lists(st.floats(1, 1e4), min_size=1, max_size=6)

LEAST = """
from pepper.devices.pace import ReferenceKernel
kernel = ReferenceKernel()
print(min(kernel.time().arithmetic_us for _ in range(30)))
"""


def least_us(stopped: bool) -> float:
    """The least time of many in a process of its own, which is stopped for half of the time where that is wanted."""
    process = subprocess.Popen([sys.executable, "-c", LEAST], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    over = Event()

    def stop_and_continue() -> None:
        while not over.is_set():
            for number in (signal.SIGSTOP, signal.SIGCONT):
                with suppress(ProcessLookupError):
                    process.send_signal(number)
                time.sleep(0.001)

    thread = Thread(target=stop_and_continue)
    if stopped:
        thread.start()
    try:
        out, _ = process.communicate(timeout=60)
    finally:
        over.set()
        if stopped:
            thread.join()
        process.kill()
    return float(out)


@pytest.mark.quiet
def test_being_stopped_is_not_being_slow() -> None:
    assert least_us(stopped=True) == pytest.approx(least_us(stopped=False), rel=0.2)


def test_it_leaves_the_cores_as_they_were() -> None:
    before = os.sched_getaffinity(0)
    assert min(ReferenceKernel().time()) > 0
    assert os.sched_getaffinity(0) == before


def test_a_core_taken_away_is_told_and_the_worker_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    beyond = {*os.sched_getaffinity(0), 4000}
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: beyond)
    assert Worker().pace() == {"why": "Invalid argument"}


@given(times, times)
def test_times_beside_a_load_are_held_against_one_another(quiet_us: list[float], timed_us: list[float]) -> None:
    quiet, timed = ([KernelTime(us, 2 * us * us) for us in times_us] for times_us in (quiet_us, timed_us))
    apart = Paces(quiet, timed, loaded=True).metrics()
    together = Paces(quiet, timed, loaded=False).metrics()
    for half, name in enumerate(("", "memory_")):
        mean_us = sum(each[half] for each in quiet) / len(quiet)
        assert apart[f"kernel_{name}us"] == together[f"kernel_{name}us"] == pytest.approx(mean_us)
        change = apart.get(f"pace_{name}change_percent", 0)
        assert 0 <= change <= together[f"pace_{name}change_percent"]
        groups = [[each[half] for each in group] for group in (quiet, timed)]
        assert change == pytest.approx(max(100 * (max(group) / min(group) - 1) for group in groups), abs=1e-6)


def test_without_times_nothing_is_said() -> None:
    assert Paces([], [], loaded=False, why="no permission").metrics() == {}
    assert pace_of({}, 100.0) == pace_of({"kernel_us": 100.0}, None) == {}


def test_a_kernel_that_takes_twice_as_long_is_half_the_pace() -> None:
    assert pace_of({"kernel_us": 200.0}, 100.0) == {"pace": 0.5}


@pytest.mark.parametrize(
    ("took_us", "said_us"),
    [([100, 101], [100, 101]), ([100, 180, 102], [100, 102]), ([100, 180, 170, 160, 175], [100, 160])],
)
def test_a_slow_moment_is_looked_at_again_and_a_slow_machine_stays_slow(
    took_us: list[float], said_us: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    took = iter(took_us)
    monkeypatch.setattr(ReferenceKernel, "time", lambda self: KernelTime(next(took), 50.0))
    worker = Worker()
    assert [worker.pace()["kernel"].arithmetic_us for _ in said_us] == said_us
    assert next(took, None) is None
