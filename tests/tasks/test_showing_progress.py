"""Tasks that may take longer than two seconds show on stderr how far they are, and how long it will take."""

import re
from collections.abc import Iterator

import pytest
from harness import Desk, MakeDesk

from pepper.console import progress
from pepper.devices import host
from pepper.errors import TrackingError
from pepper.tracking import posting
from tests.tasks.champion import furnished

SWEEP = "# Two models.\nname: two\naxes:\n  model: [tiny, small]\n  device: [share100]\n"

# By what is typed, in an order in which each finds what it needs: how the first and the last line begin.
SAID = {
    "+sweep=two": ("[1/2] find the models (", "[2/2] "),
    "task=place model=net fleet=pair": ("[1/13] describe the model: 12 operators (", "[13/13] draw: latency by "),
    "task=predict model=tiny device=share100": (
        "[1/3] load the latency model: version 1 (",
        "[3/3] calibrate the device",
    ),
    "task=split model=net split.out=parts": (
        "[1/3] read the model: 12 operators (",
        "[3/3] run parts and whole: compared (",
    ),
    "task=compare compare.baseline=RUN compare.candidate=RUN": (
        "[1/1] read the baseline (",
        "[1/1] read the candidate (",
    ),
    "task=report": ("[1/4] read: 2 profiles (", "[4/4] write: the page ("),
}


@pytest.fixture(scope="module")
def desk(make_desk: MakeDesk, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("progress")
    with furnished(make_desk(folder / "desk"), errors=(0.0,)) as made, pytest.MonkeyPatch.context() as patch:
        made.sweep("two", SWEEP)
        patch.setattr(host, "allowed_cores", lambda: [0, 1])  # a plan is made only: one core will do
        patch.setattr(progress, "SELDOM_S", 0.0)
        patch.chdir(folder)
        yield made


@pytest.mark.slow
def test_each_step_is_shown_with_the_time_left(desk: Desk) -> None:
    for typed_in, (first, last) in SAID.items():
        run_id = desk.runs()[0].info.run_id if "RUN" in typed_in else ""
        done = desk(*typed_in.replace("RUN", run_id).split())
        lines = [line for line in done.err.splitlines() if line.startswith("[")]
        assert lines, (typed_in, done)
        assert lines[0].startswith(first), (typed_in, lines)
        assert lines[-1].startswith(last), (typed_in, lines)
        assert all(re.search(r" \(\d+:\d\d left\)$", line) for line in lines)


def test_nothing_is_shown_where_only_problems_are_wanted(desk: Desk) -> None:
    for typed_in in ("task=place model=net fleet=pair", "task=split model=net split.out=parts", "+sweep=two"):
        done = desk("output=quiet", *typed_in.split())
        assert (done.status, done.out, done.err) == (0, "", "")


def test_results_that_wait_are_counted_as_they_are_logged(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: object) -> None:
        raise TrackingError("the store is away")

    with monkeypatch.context() as patch:
        patch.setattr(posting, "insist", refuse)
        assert desk("+sweep=two", "sweep.rerun=all").status == 1
    done = desk("task=import")
    assert "logged 2 waiting results" in done.out
    assert [line.split(" (")[0] for line in done.err.splitlines()] == ["[1/2] log", "[2/2] log"]
