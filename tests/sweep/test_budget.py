"""A sweep with a budget measures those of its cells that teach most, and goes on to the same number."""

import pytest
from harness import Desk, MakeDesk

pytestmark = pytest.mark.slow

SIX = """# Two models under three loads, on half a core.
name: six
axes:
  model: [tiny, small]
  device: [share50]
  load: [idle, cpu25, cpu50]
retest: 0
"""


@pytest.fixture(scope="module")
def desk(make_desk: MakeDesk, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    desk = make_desk(tmp_path_factory.mktemp("budget") / "desk")
    desk.sweep("six", SIX)
    return desk


def test_the_same_budget_measures_no_more_and_a_larger_one_goes_on(desk: Desk) -> None:
    first = desk("+sweep=six", "sweep.budget=2")
    assert first.status == 0, first.err
    assert "sweep six: 2 more of 6 cells, 0 of a budget of 2 are VALID before" in first.out
    assert "that stand best for the others" in first.out
    measured = {run.data.tags["pepper.cell"] for run in desk.runs()}
    assert len(measured) == 2

    again = desk("+sweep=six", "sweep.budget=2")
    assert "0 more of 6 cells, 2 of a budget of 2" in again.out
    assert "2 cells, 2 finished before" in again.out
    assert len(desk.runs()) == 2

    more = desk("+sweep=six", "sweep.budget=3")
    assert "1 more of 6 cells, 2 of a budget of 3" in more.out
    found = {run.data.tags["pepper.cell"] for run in desk.runs()}
    assert len(found) == 3
    assert measured < found


def test_a_budget_for_all_chooses_none(desk: Desk) -> None:
    whole = desk("+sweep=six", "sweep.budget=6", "sweep.rerun=none")
    assert "of a budget" not in whole.out
    assert "6 cells" in whole.out
    wrong = desk("+sweep=six", "sweep.budget=0")
    assert "sweep.budget=0: must be at least 1" in wrong.err
