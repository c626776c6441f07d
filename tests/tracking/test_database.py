"""The first run makes its database whole or not at all; what another way was left half-made is made again."""

import multiprocessing
import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pepper.config import TrackingConfig
from pepper.tracking import database
from pepper.tracking.store import Store

FORK = multiprocessing.get_context("fork")  # MLflow is imported once


def open_store(folder: Path) -> None:
    store = Store(TrackingConfig(f"sqlite:///{folder}/mlflow.db", "pepper/profiles", str(folder)))
    store.client.create_run(store.experiment_id)


def let_mlflow_make_it(folder: Path) -> None:
    from mlflow import MlflowClient

    folder.mkdir(parents=True, exist_ok=True)
    MlflowClient(f"sqlite:///{folder}/mlflow.db").search_experiments()


def run(target: Callable[[Path], None], folder: Path, number: int | None = None, after_s: float = 0.0) -> int | None:
    """Run a function in a process of its own, send it a signal meanwhile, and return its exit status."""
    process = FORK.Process(target=target, args=(folder,))
    process.start()
    if number is not None and process.pid is not None:
        time.sleep(after_s)
        os.kill(process.pid, number)
    process.join(60)
    return process.exitcode


@pytest.mark.slow
def test_a_first_run_that_is_killed_breaks_no_later_one(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    started = time.monotonic()
    assert run(open_store, tmp_path / "whole") == 0
    whole_s = time.monotonic() - started
    for trial, number in enumerate((signal.SIGINT, signal.SIGKILL, signal.SIGTERM)):
        folder = tmp_path / str(trial)
        run(open_store, folder, number, whole_s * (0.2 + 0.3 * trial))
        assert run(open_store, folder) == 0, capfd.readouterr().err
        assert not list(folder.glob(".mlflow*")), "no draft is left"
    for trial in range(2):
        folder = tmp_path / f"mlflow {trial}"
        run(let_mlflow_make_it, folder, signal.SIGKILL, whole_s * (0.2 + 0.3 * trial))
        assert run(open_store, folder) == 0, capfd.readouterr().err


def test_a_file_of_another_program_is_left_alone(tmp_path: Path, fresh_database: Path) -> None:
    theirs = tmp_path / "theirs.db"
    with sqlite3.connect(theirs) as connection:
        connection.execute("CREATE TABLE books (title TEXT)")
    before = theirs.read_bytes()
    with sqlite3.connect(theirs) as connection:
        connection.execute("INSERT INTO books VALUES ('a')")
    connection.close()
    assert theirs.read_bytes() != before
    before = theirs.read_bytes()
    database.make_whole(theirs, tmp_path)
    assert theirs.read_bytes() == before
    garbage = tmp_path / "garbage.db"
    garbage.write_bytes(b"no database")
    database.make_whole(garbage, tmp_path)
    assert garbage.read_bytes() == b"no database"


def test_a_half_made_file_is_made_again_and_one_with_a_run_is_not(tmp_path: Path, fresh_database: Path) -> None:
    file = tmp_path / "mlflow.db"
    shutil.copy(fresh_database, file)
    with sqlite3.connect(file) as connection:  # as if it had been left in the middle of a step
        connection.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
    open_store(tmp_path)
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
    connection.close()
    before = file.read_bytes()
    database.make_whole(file, tmp_path)
    assert file.read_bytes() == before
