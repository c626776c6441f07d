"""Progress: a line a step on stderr, with the time that is left."""

import re
from types import SimpleNamespace

import pytest

from pepper.console.progress import StepProgress, stepwise
from pepper.latency.tuning import TrialResult
from pepper.tasks.train import _telling


def test_each_step_has_its_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with StepProgress(3) as progress:
        progress.advance("first", "fine")
        progress.advance("second", "broken", failed=True)
    out, err = capsys.readouterr()
    assert out == ""
    first, second = err.splitlines()
    assert re.fullmatch(r"\[1/3\] first: fine \(\d+:\d\d left\)", first)
    assert re.fullmatch(r"\[2/3\] second: broken \(\d+:\d\d left\)", second)


def test_the_time_left_is_that_of_the_steps_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 30.0, 90.0, 120.0])
    monkeypatch.setattr("pepper.console.progress.time", SimpleNamespace(monotonic=lambda: next(clock)))
    progress = StepProgress(5)
    for left in ("2:00 left", "2:15 left", "1:20 left"):
        progress.advance("step", "done")
        assert left in capsys.readouterr().err


def test_nothing_is_shown_where_only_problems_are_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    with StepProgress(1, silent=True) as progress:
        progress.advance("first", "fine")
    assert capsys.readouterr() == ("", "")


def test_steps_that_are_no_news_are_shown_seldom(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 1.0, 1.9, 2.5, 3.0, 4.6])
    monkeypatch.setattr("pepper.console.progress.time", SimpleNamespace(monotonic=lambda: next(clock)))
    assert list(stepwise("look", silent=False)("abcde")) == list("abcde")
    assert capsys.readouterr() == ("", "[3/5] look (0:02 left)\n[5/5] look (0:00 left)\n")


def test_trials_of_an_earlier_run_are_not_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    tell = _telling(StepProgress(5))
    tell(TrialResult(3, "COMPLETE", 0.25, {}))
    tell(TrialResult(4, "PRUNED", None, {}))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("[1/2] trial 4: mean error 25.00% (")
    assert lines[1] == "[2/2] trial 5: given up (0:00 left)"
