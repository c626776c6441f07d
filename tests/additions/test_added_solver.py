"""A solver of placement problems that is not pepper's own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Desk, MakeDesk

from pepper.placement.plan import Plan
from tests.additions.conftest import Install, documented, documented_entry
from tests.tasks.champion import furnished

HEADING = "A solver"


@pytest.fixture(scope="module")
def desk(make_desk: MakeDesk, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with furnished(make_desk(tmp_path_factory.mktemp("solver") / "desk"), errors=(0.0,)) as made:
        yield made


def test_it_is_asked_first_and_the_others_prove(desk: Desk, install: Install, tmp_path: Path) -> None:
    install(*documented_entry(HEADING), documented(HEADING, "python"))
    done = desk("task=place", "model=net", "fleet=pair", "place.max_parts=1", f"place.out={tmp_path}/out")
    assert done.status == 0, done.err
    plan = Plan.load(tmp_path / "out" / "plan.json")
    assert (plan.solver, plan.gap) == ("whole", 0)


def test_one_that_is_none_is_told(desk: Desk, install: Install, tmp_path: Path) -> None:
    install(*documented_entry(HEADING), "whole = 3")
    done = desk("task=place", "model=net", "fleet=pair", f"place.out={tmp_path}/out")
    assert done.status == 2
    assert "'whole' of pepper.solvers: is no function" in done.err
