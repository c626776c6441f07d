"""``task=report`` on stores as they are found: empty, broken, foreign, changed meanwhile."""

import json
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Desk, lasting
from sqlalchemy import event
from sqlalchemy.engine import Engine

from pepper.tracking.views import CELLS
from tests.report.measured import log_cells

NASTY = '<script>alert(1)</script> & "名"\''


def report(desk: Desk, *overrides: str) -> str:
    """The report of a desk's store."""
    file = desk.folder / "reports" / "report.html"
    outcome = desk("task=report", f"report.out={file}", *overrides)
    assert outcome.status == 0, outcome.err
    assert str(file) in outcome.out
    assert [path.name for path in file.parent.iterdir()] == ["report.html"]
    return file.read_text()


def test_an_empty_store(desk: Desk) -> None:
    assert "Nothing was measured yet" in report(desk)


def test_where_it_is_as_json(desk: Desk) -> None:
    file = desk.folder / "report.html"
    found = json.loads(desk("task=report", f"report.out={file}", "output=json").out)
    assert (found["file"], found["bytes"]) == (str(file), file.stat().st_size)


def test_what_was_measured(desk: Desk) -> None:
    log_cells(desk, ["one", NASTY])
    html = report(desk)
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "18 VALID" in html
    assert "150 to" not in html
    assert "18 cells of 150 samples, 2,700 in all" not in html, "one chart shows one load or one model"
    assert "9 cells of 150 samples, 1,350 in all" in html
    assert "GFLOP/s measured" in html
    assert "Linux" in html, "what the worker recorded"


def test_only_failed_cells(desk: Desk) -> None:
    log_cells(desk, ["one"], failed=True)
    html = report(desk)
    assert "No cell has a figure" in html
    assert "the worker died: &lt;b&gt;signal&lt;/b&gt; 9" in html


def test_runs_of_other_projects(desk: Desk) -> None:
    log_cells(desk, ["one"])
    from mlflow import MlflowClient

    client = MlflowClient(desk.uri)
    experiment = client.get_experiment_by_name("pepper/profiles").experiment_id
    for where in (experiment, client.create_experiment("another project")):
        run = client.create_run(where, run_name="theirs", tags={"pepper.kind": "cell"} if where == experiment else {})
        client.log_param(run.info.run_id, "model", "theirs")
        client.log_metric(run.info.run_id, "logged_unix_s", 4e9)
        client.set_terminated(run.info.run_id)
    html = report(desk)
    assert "9 VALID" in html
    assert "theirs" not in html


def test_a_run_whose_artifacts_are_gone(desk: Desk) -> None:
    log_cells(desk, ["one"])
    shutil.rmtree(desk.folder / "mlruns" / "artifacts")
    assert "9 VALID" in report(desk)


def test_deleted_runs_are_left_out(desk: Desk) -> None:
    log_cells(desk, ["one", "two"])
    assert "18 VALID" in report(desk)
    from mlflow import MlflowClient

    for run in desk.runs():
        if run.data.params["model"] == "two":
            MlflowClient(desk.uri).delete_run(run.info.run_id)
    html = report(desk)
    assert "9 VALID" in html
    assert ">two<" not in html


@pytest.fixture
def impatient() -> Iterator[None]:
    """MLflow waits 20 s for a lock; here it waits half a second."""

    def shorter(connection: Any, cursor: Any, statement: str, parameters: Any, *rest: Any) -> tuple[str, Any]:
        return statement.replace("busy_timeout = 20000", "busy_timeout = 500"), parameters

    event.listen(Engine, "before_cursor_execute", shorter, retval=True)
    yield
    event.remove(Engine, "before_cursor_execute", shorter)


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
def test_a_locked_database(desk: Desk) -> None:
    log_cells(desk, ["one"])
    other = sqlite3.connect(desk.folder / "mlruns" / "mlflow.db")
    other.execute("BEGIN EXCLUSIVE")
    try:
        outcome = desk("task=report", f"report.out={desk.folder}/report.html")
    finally:
        other.close()
    assert outcome.status == 2
    assert "database is locked" in outcome.error
    assert "tracking.uri=" in outcome.error
    assert not (desk.folder / "report.html").exists()


def test_a_file_that_cannot_be_written(desk: Desk) -> None:
    (desk.folder / "file").touch()
    outcome = desk("task=report", f"report.out={desk.folder}/file/report.html")
    assert outcome.status == 2
    assert "report.out=" in outcome.error
    assert "cannot be written" in outcome.error
    assert "cannot be written (Is a directory)" in desk("task=report", f"report.out={desk.folder}").error


@pytest.mark.slow
def test_one_sweep_of_several(desk: Desk) -> None:
    """A sweep's report holds its own cells and those that it reused."""
    sweep = "# A test's.\nname: {name}\naxes:\n  model: {models}\n  device: [share100]\n"
    desk.sweep("first", sweep.format(name="first", models="[tiny]"))
    desk.sweep("second", sweep.format(name="second", models="[tiny, small]"))
    desk.sweep("broken", sweep.format(name="broken", models="[corrupt]"))
    assert desk("+sweep=first").status == 0
    second = desk("+sweep=second")
    assert second.status == 0
    assert f"viewStateShareKey={CELLS}" in second.out
    assert desk("+sweep=broken").status == 1
    assert "Sweep first" in report(desk, "report.sweep=first")
    assert ">small<" not in report(desk, "report.sweep=first")
    both = report(desk, "report.sweep=second")
    assert all(f">{model}<" in both for model in ("tiny", "small"))
    assert ">corrupt<" not in both
    assert "1 FAILED" in report(desk, "report.sweep=broken")
    by_run = desk.runs("sweep")[0].info.run_id
    assert "Sweep first" in report(desk, f"report.sweep={by_run}")
    error = desk("task=report", "report.sweep=secnd").error
    assert "report.sweep=secnd: no such sweep; did you mean 'second'?" in error
    for run in desk.runs("sweep"):
        attached = Path(run.info.artifact_uri.removeprefix("file://")) / "report.html"
        assert f"Sweep {run.info.run_name}" in attached.read_text()
        assert run.data.tags["mlflow.note.content"].startswith("**1 ") or run.info.run_name == "second"
    assert "nothing was swept yet" in desk("task=report", "report.sweep=x", "tracking.experiment=other").error


@pytest.mark.slow
def test_a_sweep_whose_run_is_deleted_meanwhile(desk: Desk) -> None:
    """Its cells are logged; what is missing is said."""
    from mlflow import MlflowClient

    desk.sweep("two", "# Two.\nname: two\naxes:\n  model: [tiny, small]\n  device: [share100]\n")
    command = desk.start("+sweep=two", *lasting(1.5))
    assert command.stderr is not None
    assert any(line.startswith(("[1/2] tiny", "[1/2] small")) for line in command.stderr)
    (sweep,) = desk.runs("sweep")
    MlflowClient(desk.uri).delete_run(sweep.info.run_id)
    outcome = desk.finish(command)
    assert outcome.status == 1
    assert "Traceback" not in outcome.err
    last = outcome.err.splitlines()[-1]
    assert "a run was deleted in MLflow meanwhile" in last
    assert "every cell is logged, the sweep's overview is not" in last
    assert len(desk.runs()) == 2
    assert desk.pending == []


@pytest.mark.slow
def test_a_database_that_is_locked_for_a_while(desk: Desk) -> None:
    """A sweep says so, keeps what it measured, and logs it when the lock is gone."""
    desk.sweep("one", "# One.\nname: one\naxes:\n  model: [tiny]\n  device: [share100]\n  load: [idle, cpu25]\n")
    command = desk.start("+sweep=one", *lasting(1.5))
    assert command.stderr is not None
    assert "[1/2]" in command.stderr.readline()
    other = sqlite3.connect(desk.folder / "mlruns" / "mlflow.db")
    other.execute("BEGIN EXCLUSIVE")
    try:
        assert "[2/2]" in command.stderr.readline()
        warning = command.stderr.readline()  # after the 20 s that MLflow waits for a lock
        assert len(desk.pending) == 2
    finally:
        other.close()
    assert warning.startswith("warning: tracking.uri=")
    assert "database is locked" in warning
    assert "results are kept in" in warning
    outcome = desk.finish(command)
    assert outcome.status == 0
    assert outcome.err == ""
    assert desk.pending == []
    assert "2 VALID" in report(desk, "report.sweep=one")
