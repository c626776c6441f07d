"""``task=quickstart``: every step from measuring to a plan that was run, and what stops it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from harness import Desk

from pepper.devices import host
from pepper.placement.evaluate import Evaluation
from pepper.report.execution_tables import RunLine
from pepper.tasks.execute import Executed
from pepper.tasks.place import PlacedPlan
from pepper.tasks.quickstart import _lines, _verdict
from tests.tasks.plans import make_plan, shares

TINY = """# A test's: three small models.
name: few
axes:
  model: [tiny, small, conv]
  device: [share100, share50, share25]
  load: [idle, cpu25, cpu50]
"""
QUICKLY = (
    "task=quickstart",
    "+sweep=few",
    "tuning.trials=2",
    "model=conv",
    "execute.trials.seconds=0.1",
    "execute.trials.min_requests=5",
)


@pytest.mark.slow
@pytest.mark.skipif(len(host.allowed_cores()) < 2, reason="the default fleet takes two cores")
def test_all_steps_are_taken_and_logged(desk: Desk) -> None:
    from mlflow import MlflowClient

    desk.sweep("few", TINY)
    outcome = desk(*QUICKLY, "output=json")
    assert outcome.status == 0, outcome.err
    found = json.loads(outcome.out)
    assert len(found["sweep"]["cells"]) == 27
    assert found["train"]["version"] == found["promote"]["champion"] == 1
    assert found["place"]["plan"]["model"]["name"] == "conv"
    assert found["execute"]["metrics"]["failed_requests"] == 0
    assert found["place"]["run_id"] != found["execute"]["run_id"]
    names = [line["name"] for line in found["plans"]]
    split = len(found["place"]["plan"]["parts"]) > 1
    assert names[: 3 + split] == ["the plan", *["no split"] * (2 + split)], "a plan that does not split is one of these"
    assert set(names[3 + split :]) <= {"each part on its fastest device"}
    assert found["plans"][0]["predicted_ms"] == found["place"]["plan"]["latency_ms"]
    assert found["seconds"] > 0
    client = MlflowClient(desk.uri)
    for name in ("profiles", "latency", "placements", "executions"):
        experiment = client.get_experiment_by_name(f"pepper/{name}")
        assert experiment is not None
        assert client.search_runs([experiment.experiment_id]), name
    assert int(client.get_model_version_by_alias("pepper-latency", "champion").version) == 1


@pytest.mark.slow
def test_a_step_that_fails_stops_it(desk: Desk) -> None:
    desk.sweep("few", "# Too few to learn from.\nname: few\naxes:\n  model: [tiny]\n  device: [share100]\n")
    outcome = desk(*QUICKLY)
    assert outcome.status == 2
    steps = [line.split(":")[0] for line in outcome.out.splitlines() if line.startswith("[")]
    assert steps == ["[1/5] sweep", "[2/5] train"]
    assert outcome.err.splitlines()[-1].startswith("error: quickstart stopped at step 2, train: 1 rows to learn from")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [("fleet.devices.edge.load=cpu99", "load=cpu99"), ("model.path=nowhere.onnx", "nowhere.onnx")],
)
def test_what_is_wrong_with_the_placing_is_said_before_measuring(desk: Desk, wrong: str, message: str) -> None:
    outcome = desk("task=quickstart", wrong)
    assert outcome.status == 2
    assert message in outcome.error
    assert desk.runs() == []


def test_any_plan_that_was_run_has_its_line(models: dict[str, Path]) -> None:
    """Also one of a kind of several devices, and plans of which nothing was predicted."""
    plan = make_plan(str(models["small"]), ["camera", "edge#1"], shares(camera=0.3, **{"edge#1": 0.3}))
    runs = [
        RunLine("the plan", "camera - edge#1", 5.0, 500.0, 1.0),
        RunLine("no split", "edge#1", 8.0, 125.0, 1.0),
        RunLine("cut before operator 2", "camera - edge#1", 1.0, 1e3, 1.0),
    ]
    alone = {"edge": Evaluation((8.0,), (0.0,), (0.0,), (None,), (None, None), 8.0, 4.0, 0.0, ())}
    placed = PlacedPlan(plan=plan, alone=alone, run_id="0")
    lines = _lines(placed, Executed(runs=runs))
    assert [(line.predicted_ms, line.predicted_per_s) for line in lines] == [(4.0, 500.0), (8.0, 250.0), (None, None)]
    assert _verdict(lines, throughput=True).startswith("measured, the plan is 4.00 times as many")
    assert "not known" in _verdict(lines[:1], throughput=True)
    lost = [replace(runs[0], name="the plan (a device was lost)")]
    assert _lines(placed, Executed(runs=lost))[0].predicted_ms is None
