"""Two sweeps at once on one store: each cell is measured once, and both end with the whole table."""

import csv
import multiprocessing
import os
import select
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest
from harness import Desk, descendants, lasting, running, wait_until
from mlflow import MlflowClient

from pepper.tracking.leases import Leases

EIGHT = """# Two models on two devices under two loads.
name: eight
axes:
  model: [tiny, small]
  device: [share50, share100]
  load: [idle, cpu50]
"""
CELL = f"{0xABC:064x}"[::-1]
FORK = multiprocessing.get_context("fork")


def hold(folder: Path, taken: Any, end: Any) -> None:
    with Leases(folder) as leases:
        assert leases.take(CELL)
        taken.set()
        end.wait(60)


def test_a_lease_ends_with_its_process(tmp_path: Path) -> None:
    with Leases(tmp_path) as leases:
        assert leases.alone
        assert leases.take(CELL)
        assert leases.take(CELL), "it is this process's own"
        leases.give_back(CELL)
        taken = FORK.Event()
        other = FORK.Process(target=hold, args=(tmp_path, taken, FORK.Event()))
        other.start()
        assert taken.wait(60)
        assert not leases.alone
        assert not leases.take(CELL)
        assert leases.holder(CELL) == other.pid
        assert leases.take("0" * 64), "another cell is free"
        other.kill()
        other.join()
        assert leases.holder(CELL) is None
        assert leases.take(CELL)
        assert not leases.alone, "it may have finished what it had"


@pytest.mark.slow
def test_a_sweep_that_is_started_twice_measures_each_cell_once(desk: Desk, tmp_path: Path) -> None:
    desk.sweep("eight", EIGHT)
    both = [desk.start("+sweep=eight", *lasting(0.3)) for _ in range(2)]
    outcomes = [desk.finish(process, 240) for process in both]
    for outcome in outcomes:
        assert outcome.status == 0, outcome.err
        assert outcome.out.count("VALID") == 8
    runs = desk.runs()
    assert len(runs) == len({run.data.tags["pepper.cell"] for run in runs}) == 8
    parents = desk.runs("sweep")
    assert {parent.info.status for parent in parents} == {"FINISHED"}
    for number, parent in enumerate(parents):
        folder = tmp_path / str(number)
        folder.mkdir()
        file = MlflowClient(desk.uri).download_artifacts(parent.info.run_id, "results.csv", str(folder))
        with Path(file).open() as stream:
            assert {row["run_id"] for row in csv.DictReader(stream)} == {run.info.run_id for run in runs}
    assert not desk.pending


@pytest.mark.slow
def test_what_a_killed_sweep_had_under_way_is_measured_by_the_other(desk: Desk, started: list[psutil.Process]) -> None:
    desk.sweep("one", "# One.\nname: one\naxes:\n  model: [tiny]\n  device: [share100]\n")
    first = desk.start("+sweep=one", *lasting(3))
    wait_until(lambda: running("pepper.measure.worker", first.pid), 60)
    started += descendants(first.pid)
    first.send_signal(signal.SIGSTOP)  # in the middle of its cell: what it had for the store is written
    second = desk.start("+sweep=one", *lasting(3))
    assert second.stderr is not None
    assert select.select([second.stderr], [], [], 60)[0], "it waits in silence"
    assert f"waiting for 1 cells that process {first.pid} measures" in second.stderr.readline()
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    outcome = desk.finish(second)
    assert outcome.status == 0, outcome.err
    assert len(desk.runs()) == 1
    assert [run.info.status for run in desk.runs("sweep")] == ["RUNNING", "FINISHED"], "the next run closes it"
