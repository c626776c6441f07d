"""``output=json`` and ``output=quiet``: what scripts read; and flags wherever they stand."""

import io
import json
import math
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from harness import ROOT, Desk

import pepper
from pepper import run
from pepper.config import OutputMode
from pepper.console.output import add_results, results_under, speaking
from pepper.console.progress import StepProgress
from pepper.console.tables import comparisons_table, cuts_table, figure, parts_table, results_table, show
from pepper.interrupts import Interrupted
from pepper.run import main


def document(out: str) -> dict[str, Any]:
    """The one JSON document that stdout carries, and nothing else."""
    (line,) = out.splitlines()

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    found = json.loads(line, parse_constant=refuse)
    assert isinstance(found, dict)
    return found


def test_which_pepper_this_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"pepper {pepper.__version__}\n"


def test_a_profile_as_json(desk: Desk) -> None:
    done = desk("output=json", "model=tiny", "device=share100")
    found = document(done.out)
    assert (found["task"], found["status"]) == ("profile", 0)
    (cell,) = found["cells"]
    assert cell["latency_p50_ms"] > 0
    (run,) = desk.runs()
    assert found["run_id"] == cell["run_id"] == run.info.run_id
    assert "[1/1]" in done.err, "progress goes to stderr"


def test_a_sweep_as_json_names_every_run(desk: Desk) -> None:
    desk.sweep("pair", "# Two.\nname: pair\naxes:\n  model: [tiny, small]\n  device: [share100]\n")
    first = document(desk("output=json", "+sweep=pair").out)
    again = document(desk("output=json", "+sweep=pair").out)
    (parent,) = desk.runs("sweep")
    assert first["run_id"] == parent.info.run_id
    runs = {run.info.run_id for run in desk.runs()}
    assert {cell["run_id"] for cell in first["cells"]} == runs
    assert {cell["run_id"] for cell in again["cells"]} == runs, "of reused cells too"
    assert all(cell["reused"] for cell in again["cells"])


def test_an_error_as_json(desk: Desk) -> None:
    done = desk("output=json", "task=cuts", "model=corrupt")
    assert done.status == 2
    found = document(done.out)
    assert found["status"] == 2
    assert done.error == f"error: {found['error']}"


@pytest.mark.parametrize("mistake", ["nonsense=1", "device.threads=0", "model=squeezent"])
def test_a_command_that_cannot_be_composed_as_json(desk: Desk, mistake: str) -> None:
    done = desk("output=json", mistake)
    assert document(done.out) == {"status": 2, "error": done.error.strip().removeprefix("error: ")}


def test_cuts_as_json(desk: Desk) -> None:
    found = document(desk("output=json", "task=cuts", "model=tiny").out)
    assert found["operators"] == 3
    assert [cut["tensors"] for cut in found["cuts"]] == [["h"], ["r"]]
    assert found["cuts"][0] == {
        "operators_before": 1,
        "in_order": True,
        "tensors": ["h"],
        "dtypes": ["float"],
        "shapes": [[1, 16]],
        "bytes": 64,
    }


def test_quiet_says_nothing_where_all_is_well(desk: Desk) -> None:
    done = desk("output=quiet", "model=tiny", "device=share100")
    assert (done.status, done.out, done.err) == (0, "", "")


def test_quiet_names_problems(desk: Desk) -> None:
    done = desk("output=quiet", "model=unknown", "device=share100")
    assert done.status == 1
    assert done.out == ""
    assert "FAILED unknown" in done.error


def test_results_of_a_step_stand_under_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    with speaking(OutputMode.json):
        with results_under("first"):
            add_results(run_id="a")
        add_results(run_id="b")
    assert document(capsys.readouterr().out) == {"first": {"run_id": "a"}, "run_id": "b"}


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ("profile", "finished cells are kept; the same command goes on from here"),
        ("train", "finished trials are kept; the same command goes on from here"),
        ("cuts", None),
    ],
)
@pytest.mark.parametrize(
    ("stop", "word"), [(KeyboardInterrupt, "interrupted"), (lambda: Interrupted(15), "terminated")]
)
def test_an_interrupted_task_says_what_is_kept(
    task: str,
    said: str | None,
    stop: Callable[[], KeyboardInterrupt],
    word: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(*_: object) -> int:
        raise stop()

    monkeypatch.setattr(run, "_task", interrupted)
    assert main([f"task={task}"]) == (143 if word == "terminated" else 130)
    assert capsys.readouterr().err == (f"{word}: {said}\n" if said else f"{word}\n")


def test_results_that_are_no_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    with speaking(OutputMode.json):
        print("for people")
        add_results(nan=math.nan, infinite=[math.inf], pair=(1, 2.5), none=None)
    assert document(capsys.readouterr().out) == {"nan": None, "infinite": [None], "pair": [1, 2.5], "none": None}
    add_results(nowhere=1)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0051234, "0.00512"), (0.5, "0.500"), (12.345, "12.3"), (480.4, "480"), (12345.6, "12346"), (0.0, "0")],
)
def test_figures_have_three_significant_digits(value: float, text: str) -> None:
    assert figure(value) == text


def test_flags_may_stand_behind_overrides(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever the order; ``--cfg job`` composes and prints, and measures nothing."""
    for line in ("load=idle --cfg job device=share50", "--cfg job load=idle device=share50"):
        assert main(line.split()) == 0
        assert "name: share50" in capsys.readouterr().out


ODD = ("[/x]", "net[red]v2", "[bold", "a\\[b]")
"""Names that Rich would take for markup."""


@pytest.mark.parametrize("name", ODD)
def test_names_are_no_markup(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"model": name, "device": name, "load": name, "threads": 1, "verdict": "VALID", "status": "", "reused": True}
    show(results_table([row]))
    cut = {"operators_before": 1, "in_order": True, "tensors": [name], "dtypes": [name], "shapes": [[1]], "bytes": 4}
    show(cuts_table([cut]))
    part = {"file": name, "operators": 1, "macs": 1.0, "share": 1.0, "inputs": [name], "input_bytes": [4]}
    show(parts_table([part]))
    changes = ("baseline_ms", "candidate_ms", "change_percent", "low_percent", "high_percent")
    show(comparisons_table([{"name": name, "verdict": "slower", **dict.fromkeys(changes, 1.0)}], 0.95))
    show(f"{name}: said")
    said = capsys.readouterr().out
    assert said.count(name) == 3 + 2 + 2 + 1 + 1


@pytest.mark.parametrize("name", ODD)
def test_a_model_may_be_called_anything(desk: Desk, name: str) -> None:
    done = desk("model=tiny", f"model.name={name}", f"device.name={name}", f"load.name={name}")
    assert done.status == 0, done.err
    assert done.out.count(name) == 3


def test_progress_on_a_terminal_takes_names_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stderr", terminal)
    with StepProgress(2) as progress:
        progress.advance("[/x]", "[red]")
    assert "[/x]: [red]" in terminal.getvalue()


def shell(desk: Desk, redirection: str, *overrides: str) -> subprocess.CompletedProcess[str]:
    """Run a command whose streams the shell has put elsewhere."""
    command = " ".join(map(shlex.quote, [sys.executable, "-m", "pepper.run", *desk.arguments(*overrides)]))
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command} {redirection}"],
        cwd=desk.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("redirection", "status", "error"),
    [
        ("2>&-", 0, ""),
        ("2>/dev/full", 0, ""),
        (">&-", 0, ""),
        (">/dev/full", 2, "error: stdout: cannot be written (No space left on device); send it elsewhere"),
        ("| true", 141, ""),
        (">&- 2>&- <&-", 0, ""),
    ],
)
def test_nothing_is_lost_where_output_cannot_be_written(desk: Desk, redirection: str, status: int, error: str) -> None:
    done = shell(desk, redirection, "output=json", "model=tiny", "device=share100")
    assert done.returncode == status, done.stderr
    said = [line for line in done.stderr.splitlines() if not line.startswith("[")]
    assert said == ([error] if error else []), "progress apart"
    assert len(desk.runs()) == 1
    if "2>" in redirection and ">&- " not in redirection:
        assert document(done.stdout)["status"] == 0
