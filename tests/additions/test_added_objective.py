"""An objective of one's own: a file, no code."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Desk, MakeDesk

from pepper.placement.plan import Plan
from tests.additions.conftest import documented
from tests.tasks.champion import furnished


@pytest.fixture(scope="module")
def desk(make_desk: MakeDesk, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with furnished(make_desk(tmp_path_factory.mktemp("objective") / "desk"), errors=(0.0,)) as made:
        (made.options / "objective").mkdir()
        (made.options / "objective" / "frugal.yaml").write_text(documented("A fleet, a link, an objective", "yaml"))
        yield made


def test_a_plan_minimises_it(desk: Desk, tmp_path: Path) -> None:
    done = desk("task=place", "model=net", "fleet=pair", "objective=frugal", f"place.out={tmp_path}/out")
    assert done.status == 0, done.err
    plan = Plan.load(tmp_path / "out" / "plan.json")
    assert (plan.objective, len(plan.parts)) == ("frugal", 1)
