"""Stores that cannot be reached, fail in mid-sweep or cannot be written: one line, and nothing measured is lost."""

import multiprocessing
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from harness import Desk, MakeDesk, free_port, lasting, server, stop, wait_until

from pepper.config import TrackingConfig
from pepper.tracking.store import Store

CELL = ("model=tiny", "device=share100")

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "uri",
    [
        "http://127.0.0.1:9",
        "nonsense://somewhere",
        "postgresql+nodriver://localhost/x",
        "sqlite:////proc/nowhere/mlflow.db",
        "plain/folder",
    ],
)
def test_a_store_that_cannot_be_reached(desk: Desk, uri: str) -> None:
    outcome = desk(*CELL, f"tracking.uri={uri}")
    assert outcome.status == 2
    assert f"tracking.uri={uri}" in outcome.error
    assert "check it or set tracking.uri" in outcome.error
    assert outcome.out == ""
    assert not desk.pending, "nothing was measured"


def test_a_database_that_is_none(desk: Desk) -> None:
    (desk.folder / "mlruns" / "mlflow.db").write_bytes(b"not a database" * 100)
    outcome = desk(*CELL)
    assert outcome.status == 2
    assert "tracking.uri=" in outcome.error


def test_a_deleted_experiment(desk: Desk) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(desk.uri)
    client.delete_experiment(client.create_experiment("pepper/profiles"))
    outcome = desk(*CELL)
    assert outcome.status == 2
    assert "tracking.experiment=pepper/profiles: was deleted" in outcome.error


def test_a_server_that_fails_in_mid_sweep(desk: Desk, fresh_database: Path) -> None:
    """Results are kept, and ``task=import`` logs them once the server is back."""
    desk.sweep("two", "# Two.\nname: two\naxes:\n  model: [tiny]\n  device: [share100]\n  load: [idle, cpu25, cpu50]\n")
    database, port = desk.folder / "server.db", free_port()
    database.write_bytes(fresh_database.read_bytes())
    uri = f"http://127.0.0.1:{port}"
    tracking = ("tracking=server", f"tracking.uri={uri}", "tracking.artifacts=null", "tracking.timeout_seconds=2")
    with server(desk.folder, database, port) as process:
        command = desk.start("+sweep=two", *tracking, *lasting(1))
        assert command.stderr is not None
        while "[1/3]" not in (line := command.stderr.readline()):  # a busy machine tells of calibrating, too
            assert line
        stop(process)
        outcome = desk.finish(command)
    assert outcome.status == 1
    assert "Traceback" not in outcome.err
    warnings = [line for line in outcome.err.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 1
    assert "results are kept in" in warnings[0]
    assert outcome.err.splitlines()[-1].startswith("error: tracking.uri=")
    assert "task=import" in outcome.err.splitlines()[-1]
    assert outcome.out.count("VALID") == 3, "the table is shown all the same"
    assert len(desk.pending) == 4, "the cells, and the end of their sweep"

    away = desk("task=import", *tracking)
    assert away.status == 2
    assert uri in away.error
    assert len(desk.pending) == 4

    with server(desk.folder, database, port):
        for count in (4, 0):
            outcome = desk("task=import", *tracking)
            assert outcome.status == 0, outcome.err
            assert f"logged {count} waiting results to {uri}" in outcome.out
        runs = desk.runs(uri=uri)
        assert len(runs) == 3
        assert {run.info.status for run in runs} == {"FINISHED"}
        parent = {run.data.tags["mlflow.parentRunId"] for run in runs}
        assert parent == {run.info.run_id for run in desk.runs("sweep", uri=uri)}
    assert not desk.pending


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder that even root cannot write to."""
    folder = tmp_path / "readonly"
    folder.mkdir()
    folder.chmod(0o555)
    if os.geteuid() == 0 and subprocess.run(["chattr", "+i", folder], check=False, capture_output=True).returncode:
        pytest.skip("root writes everywhere here: no chattr")
    yield folder
    if os.geteuid() == 0:
        subprocess.run(["chattr", "-i", folder], check=True)
    folder.chmod(0o755)


def test_a_folder_that_is_read_only(desk: Desk, read_only: Path) -> None:
    outcome = desk(*CELL, f"tracking.folder={read_only}")
    assert outcome.status == 2
    assert f"tracking.folder={read_only}: cannot be written" in outcome.error
    assert list(read_only.iterdir()) == []


def test_a_folder_that_is_a_file(desk: Desk, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    outcome = desk(*CELL, f"tracking.folder={file}/mlruns")
    assert outcome.status == 2
    assert "cannot be written (Not a directory)" in outcome.error


@contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[Path]:
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "none", str(folder)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_is_full(desk: Desk, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 40) as disk:
        outcome = desk(*CELL, f"tracking.folder={disk}")
        assert outcome.status == 2
        assert f"tracking.folder={disk}: the disk is full" in outcome.error
        assert list(disk.iterdir()) == []


def test_a_disk_that_fills_up_in_mid_sweep(desk: Desk, tmp_path: Path) -> None:
    desk.sweep("two", "# Two.\nname: two\naxes:\n  model: [tiny, small]\n  device: [share100]\n")
    with small_disk(tmp_path / "disk", 60) as disk:
        command = desk.start("+sweep=two", f"tracking.folder={disk}", *lasting(1.5))
        assert command.stderr is not None
        assert any("[1/2]" in line for line in iter(command.stderr.readline, ""))
        wait_until(lambda: not list((disk / "pending").iterdir()))  # the first is logged
        with suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(bytes(2**20))
        outcome = desk.finish(command)
    assert outcome.status == 2
    assert "Traceback" not in outcome.err
    assert "cannot keep results (No space left on device); free some space" in outcome.err.splitlines()[-1]
    assert len(desk.runs()) == 1, "the cell before it is logged"
    assert desk.runs("sweep")[0].info.status != "RUNNING"
    advised = re.search(r"python -m pepper.run task=import (tracking.folder=\S+) logs", outcome.err)
    assert advised is not None
    done = desk("task=import", advised[1])
    assert done.status == 0, done.err
    assert [run.info.status for run in desk.runs()] == ["FINISHED", "FINISHED"], "and the one that had no room"


@pytest.mark.slow
def test_waiting_results_go_to_the_store_that_they_were_kept_for(
    make_desk: MakeDesk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two stores share a folder; the results of one wait while the other is used."""
    desk, other = make_desk(tmp_path / "desk"), make_desk(tmp_path / "other")
    elsewhere = f"tracking.uri={other.uri}"

    def away(*_: Any, **__: Any) -> None:
        raise OSError("away")

    with monkeypatch.context() as patch:
        patch.setattr("pepper.tracking.posting.write", away)
        assert desk("model=tiny", "device=share100", elsewhere).status == 1
    assert len(desk.pending) == 1
    assert desk("model=small", "device=share100").status == 0
    assert len(desk.pending) == 1, "it waits for its own store"
    imported = desk("task=import")
    assert imported.status == 0
    assert f"logged 1 waiting results to {other.uri}" in imported.out
    assert [run.data.params["model"] for run in desk.runs()] == ["small"]
    assert [run.data.params["model"] for run in other.runs()] == ["tiny"]


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
