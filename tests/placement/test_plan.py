"""Plans as files, the baselines beside the optimum, and the points at which the best plan changes."""

import json
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from pepper.errors import PlacementError
from pepper.placement.baselines import BASELINES, compare
from pepper.placement.chain import solve
from pepper.placement.evaluate import Stage, evaluate
from pepper.placement.plan import Origin, Plan
from pepper.placement.problem import ChainProblem, Device, Link, Links
from pepper.placement.sensitivity import flip_points, scale_bandwidth, scale_times


def chain(seed: int = 0) -> ChainProblem:
    rng = np.random.default_rng(seed)
    return ChainProblem.of(
        [Device("camera", wait_ms=0.5), Device("edge", wait_ms=0.2), Device("server")],
        rng.uniform(1, 5, (8, 1)) * [4.0, 2.0, 1.0] * rng.uniform(0.5, 2.0, (8, 3)),
        rng.uniform(1e3, 1e5, 9),
        Links.uniform(3, Link(100.0, 0.5)),
        handling_ms=rng.uniform(0, 0.1, (9, 3)),
        source="camera",
        sink="camera",
    )


def test_plan_comes_back_as_saved(tmp_path: Path) -> None:
    problem = chain()
    solution = solve(problem)
    origin = Origin(
        {"name": "net", "path": "net.onnx", "sha256": "0", "input_shapes": {"x": [1, 3]}},
        {"camera": {"device": {"share": 0.25}, "load": {"percent": 0}}},
        positions=range(0, 90, 10),
        tensors=[(f"t{k}",) for k in range(9)],
        provenance={"latency_model": "pepper-latency/3"},
        rules={"excluded": ["edge"]},
    )
    plan = Plan.of(problem, solution, "latency", origin)
    plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == plan
    assert plan.latency_ms == solution.value
    assert plan.gap == 0
    spent = sum(part.time_ms + part.pickup_ms + part.receive_ms for part in plan.parts) + plan.return_ms
    assert spent == pytest.approx(plan.latency_ms)
    assert (plan.parts[0].start, plan.parts[0].inputs) == (0, ("t0",))
    assert (plan.parts[-1].stop, plan.parts[-1].outputs) == (80, ("t8",))
    assert plan.fleet["devices"] == {"camera": origin.devices["camera"], "edge": {}, "server": {}}
    assert len(plan.fleet["links"]) == 6
    rate = {"bandwidth_mbit_s": 100.0, "latency_ms": 0.5, "forwarded_mbit_s": None}
    assert {"from": "camera", "to": "edge", **rate} in plan.fleet["links"]
    assert plan.rules == {"excluded": ["edge"]}


def test_a_hub_delays_by_both_sides_and_its_slower_one_bounds() -> None:
    up, down = [Link(100.0, 1.0), Link(20.0, 1.0)], [Link(50.0, 2.0), Link(200.0, 2.0)]
    problem = ChainProblem.of(
        [Device("camera"), Device("server")],
        [[100.0, 1.0]],
        [1e5, 0.0],
        Links.hub(up, down),
        source="camera",
    )
    there, back = Plan.of(problem, solve(problem), "latency").fleet["links"]
    assert there == {
        "from": "camera",
        "to": "server",
        "bandwidth_mbit_s": pytest.approx(100),
        "latency_ms": 3.0,
        "forwarded_mbit_s": pytest.approx(200),
    }
    assert (back["bandwidth_mbit_s"], back["forwarded_mbit_s"]) == (pytest.approx(20), pytest.approx(50))


def test_of_a_kind_a_plan_names_the_devices_at_work() -> None:
    problem = ChainProblem.of(
        [Device("camera"), Device("node", count=3)],
        [[9.0, 1.0], [9.0, 1.0], [9.0, 1.0]],
        [10.0] * 4,
        Links.uniform(2, Link(math.inf, 0.1)),
        source="camera",
    )
    plan = Plan.of(problem, solve(problem, "throughput"), "throughput")
    assert [part.device for part in plan.parts] == ["node#0", "node#1", "node#2"]
    assert list(plan.fleet["devices"]) == ["camera", "node#0", "node#1", "node#2"]
    assert len(plan.fleet["links"]) == 12
    assert plan.fleet["links"][0]["bandwidth_mbit_s"] is None


LINK = {"from": "a", "to": "b", "bandwidth_mbit_s": 1.0, "latency_ms": 0.0, "forwarded_mbit_s": None}
MODEL = {"name": "net", "path": "net.onnx", "sha256": "0", "input_shapes": {}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "other"}, "not a plan"),
        ({"version": 99}, "plan version 99; this pepper reads version 3"),
        ({"parts": []}, "do not follow one another"),
        ({"gap": None, "surprise": 1}, "incomplete plan"),
        (
            {"parts": [asdict(Plan.of(chain(), solve(chain()), "latency").parts[0]) | {"time_ms": None}]},
            "time_ms is None, no such number",
        ),
        ({"model": {"name": "net"}}, "model lacks input_shapes, path, sha256"),
        ({"fleet": {"devices": {}}}, "fleet lacks links, sink, source"),
        ({"fleet": {"devices": {}, "links": [], "source": None, "sink": None}}, "not among the fleet's devices"),
        ({"fleet": {"devices": {}, "links": [{}], "source": None, "sink": None}}, "a link lacks bandwidth_mbit_s, "),
        ({"fleet": {"devices": {}, "links": None, "source": None, "sink": None}}, "or its links no list"),
        ({"fleet": {"devices": {"<b>": {}}, "links": [], "source": None, "sink": None}}, "'<b>' has a name with other"),
        *(
            ({"fleet": {"devices": {}, "links": [LINK | wrong], "source": None, "sink": None}}, "link from a to b has")
            for wrong in ({"bandwidth_mbit_s": -5}, {"bandwidth_mbit_s": "fast"}, {"latency_ms": None})
        ),
        ({"fleet": "x"}, "fleet is no object"),
        ({"rules": "x"}, "rules is no object"),
        ({"provenance": "x"}, "provenance is no object"),
        ({"model": MODEL | {"sha256": None}}, "the model's sha256 is None, no text"),
        ({"model": MODEL | {"input_shapes": [1]}}, "input_shapes are \\[1\\], not a list"),
        ({"latency_ms": None}, "its latency_ms is None"),
        ({"period_ms": float("nan")}, "its period_ms is nan"),
        ({"gap": float("inf")}, "its gap is inf"),
        ({"rules": {"pinned": None}}, "pinned is no object"),
        ({"rules": {"excluded": None}}, "excluded no list"),
        ({"rules": {"pinned": {"a": 3}}}, "pin 3 to a, no first operator"),
        ({"rules": {"max_parts": "x"}}, "max_parts is 'x'"),
        (
            {"fleet": {"devices": {}, "links": [LINK | {"from": ["a"]}], "source": None, "sink": None}},
            "which are no names",
        ),
        ({"objective": "fun"}, "its objective is 'fun'"),
    ],
)
def test_bad_plan_is_one_clear_line(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = tmp_path / "plan.json"
    Plan.of(chain(), solve(chain()), "latency").save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(PlacementError, match=message):
        Plan.load(path)
    with pytest.raises(PlacementError, match="cannot be read"):
        Plan.load(tmp_path / "none.json")


def test_a_device_that_is_used_again_is_busy_with_both_parts() -> None:
    problem = chain()
    stages = (Stage(0, 3, 0), Stage(3, 5, 2), Stage(5, 8, 0))
    cost = evaluate(problem, stages)
    both = sum(cost.stage_ms[k] + problem.handling_ms[stages[k].start, 0] for k in (0, 2))
    assert cost.period_ms >= both - 1e-9
    assert any("2 parts on 1 devices" in line for line in cost.violations)


def test_plan_is_plain_json() -> None:
    json.dumps(asdict(Plan.of(chain(), solve(chain()), "latency")), allow_nan=False)


@pytest.mark.parametrize("objective", ["latency", "throughput"])
def test_no_baseline_beats_the_optimum(objective: str) -> None:
    for seed in range(20):
        problem = chain(seed)
        optimum = solve(problem, objective).value
        found = compare(problem, objective)
        assert list(found) == list(BASELINES)
        assert found["best single device"] is not None
        for entry in found.values():
            if entry is not None and not entry[1].violations:
                assert entry[1].value(objective) >= optimum * (1 - 1e-9)


def test_flip_points_separate_different_plans() -> None:
    problem = chain(3)
    points = flip_points(problem, scale_bandwidth, low=0.01, high=100.0)
    assert points
    for point in points:
        assert point.below != point.above
        for factor, plan in ((point.factor / 1.01, point.below), (point.factor * 1.01, point.above)):
            changed = scale_bandwidth(problem, factor)
            assert plan is not None
            assert evaluate(changed, plan).latency_ms == pytest.approx(solve(changed).value)


def test_load_on_a_device_drives_parts_away() -> None:
    problem = chain(1)
    busy = solve(scale_times("server")(problem, 1000.0))
    assert all(problem.devices[stage.device].name != "server" for stage in busy.stages)
    assert flip_points(problem, scale_times("server"), low=1.0, high=1000.0)
    with pytest.raises(PlacementError, match="give 0 < low < high"):
        flip_points(problem, low=2.0, high=1.0)
