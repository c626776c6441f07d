"""``execute.moves.allowed=true``: from a champion to a plan that is left when a load makes another one better."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Desk, MakeDesk, ends_what_was_abandoned

from pepper.devices import host
from tests.tasks.champion import furnished

CORES = host.allowed_cores()

pytestmark = [
    pytest.mark.slow,
    pytest.mark.quiet,
    pytest.mark.skipif(len(CORES) < 2, reason="two devices need two cores"),
]


@pytest.fixture(scope="module")
def desk(make_desk: MakeDesk, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with furnished(make_desk(tmp_path_factory.mktemp("adapting") / "desk"), errors=(0.0,)) as made:
        yield made


@pytest.fixture(scope="module")
def plan(desk: Desk) -> Path:
    out = desk.folder / "placed"
    done = desk("task=place", "model=net", "fleet=pair", "objective=throughput", "link=ethernet_1gbit",
                "place.confidence=0", f"place.out={out}")  # fmt: skip
    assert done.status == 0, done.err
    return out / "plan.json"


def test_a_load_in_mid_run_moves_the_plan(desk: Desk, plan: Path, tmp_path: Path) -> None:
    done = desk(
        "task=execute",
        f"execute.plan={plan}",
        "execute.trials.seconds=0.5",
        "execute.trials.min_requests=5",
        "execute.trials.rate_per_s=20",
        "execute.moves.allowed=true",
        "execute.moves.margin=0.02",
        "execute.moves.patience_seconds=1",
        "execute.moves.seconds=10",
        "execute.moves.load_change.server=90",
        "execute.moves.load_change_after_seconds=2",
        f"execute.out={tmp_path}",
    )
    assert done.status == 0, done.err
    assert "watching the loads for" in done.out
    with (tmp_path / "moves.csv").open(newline="") as stream:
        moves = list(csv.DictReader(stream))
    assert moves
    assert float(moves[-1]["predicted_after_ms"]) < 0.98 * float(moves[-1]["predicted_before_ms"])
    assert all(float(moves[-1][f"{when}_per_s"]) > 0 for when in ("before", "after"))
    assert "at loads of" in (tmp_path / "events.csv").read_text()


def test_a_plan_is_run_as_soon_as_it_is_placed(desk: Desk) -> None:
    quickly = ("execute.trials.seconds=0.2", "execute.trials.min_requests=5")
    with (
        ends_what_was_abandoned(desk.uri, "pepper/placements"),
        ends_what_was_abandoned(desk.uri, "pepper/executions"),
    ):
        done = desk("task=place", "model=net", "fleet=pair", "place.execute=true", *quickly, "output=json")
    assert done.status == 0, done.err
    found = json.loads(done.out)
    assert found["execute"]["metrics"]["predicted_latency_ms"] == found["plan"]["latency_ms"]
    assert found["execute"]["metrics"]["failed_requests"] == 0
    from mlflow import MlflowClient

    run = MlflowClient(desk.uri).get_run(found["execute"]["run_id"])
    assert run.data.tags["pepper.placement_run"] == found["run_id"]


def test_what_cannot_be_is_said(desk: Desk, plan: Path) -> None:
    run = ("task=execute", f"execute.plan={plan}")
    assert (
        "execute.moves.load_change: is for a run that reacts" in desk(*run, "execute.moves.load_change.server=90").error
    )
    adapting = (*run, "execute.moves.allowed=true")
    assert "execute.moves.load_change: the fleet has no device 'serer'; did you mean" in (
        desk(*adapting, "execute.moves.load_change.serer=90").error
    )
    assert "execute.moves.load_change.server=900" in desk(*adapting, "execute.moves.load_change.server=900").error
    other = desk(*adapting, "cuts=tensors", "place.max_cuts=1").error
    assert "execute.moves.allowed=true: the plan is cut before operator" in other
