"""Plans as files, the baselines beside the optimum, and the points at which the best plan changes."""

import json
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from pepper.config import DeviceConfig, LoadConfig
from pepper.errors import PlacementError
from pepper.fleet import Fleet, FleetDevice, FleetLink, Link
from pepper.placement.baselines import BASELINES, compare
from pepper.placement.chain import solve
from pepper.placement.evaluate import Stage, evaluate
from pepper.placement.objectives import LATENCY, THROUGHPUT, Objective
from pepper.placement.plan import Origin, Plan, PlannedModel, PlanRules
from pepper.placement.problem import ChainProblem, DeviceKind, Links
from pepper.placement.sensitivity import flip_points, scale_bandwidth, scale_times


def chain(seed: int = 0) -> ChainProblem:
    rng = np.random.default_rng(seed)
    return ChainProblem.of(
        [DeviceKind("camera", wait_ms=0.5), DeviceKind("edge", wait_ms=0.2), DeviceKind("server")],
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
    camera = FleetDevice(DeviceConfig("camera", "emulated", share=0.25), LoadConfig(percent=0))
    origin = Origin(
        PlannedModel("net", "net.onnx", "0", {"x": (1, 3)}),
        Fleet({"camera": camera, "edge": FleetDevice(), "server": FleetDevice()}),
        positions=range(0, 90, 10),
        tensors=[(f"t{k}",) for k in range(9)],
        provenance={"latency_model": "pepper-latency/3"},
        rules=PlanRules(excluded=("edge",)),
    )
    plan = Plan.of(problem, solution, LATENCY, origin)
    plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == plan
    assert plan.latency_ms == solution.value
    assert plan.gap == 0
    spent = sum(part.time_ms + part.pickup_ms + part.receive_ms for part in plan.parts) + plan.return_ms
    assert spent == pytest.approx(plan.latency_ms)
    assert (plan.parts[0].start, plan.parts[0].inputs) == (0, ("t0",))
    assert (plan.parts[-1].stop, plan.parts[-1].outputs) == (80, ("t8",))
    assert plan.fleet.devices == {"camera": camera, "edge": FleetDevice(), "server": FleetDevice()}
    assert len(plan.fleet.links) == 6
    assert plan.fleet.between["camera", "edge"] == FleetLink(100.0, 0.5, origin="camera", target="edge")
    assert plan.rules == PlanRules(excluded=("edge",))


def test_a_plan_of_the_version_before_is_read() -> None:
    plan = Plan.load(Path(__file__).parent / "data" / "plan_version_3.json")
    assert plan.model == PlannedModel("net", "net.onnx", "0", {"x": (1, 3)})
    camera = plan.fleet.devices["camera"]
    assert (camera.device, camera.load) == (
        DeviceConfig("share25", "emulated", cores=[0], threads=1, share=0.25),
        LoadConfig(percent=25),
    )
    assert plan.rules == PlanRules({"camera": (0, 10)}, ("edge",), 2)
    assert plan.fleet.between["camera", "edge"].bandwidth_mbit_s == pytest.approx(100)
    same = Plan.of(chain(), solve(chain()), LATENCY)
    assert (plan.latency_ms, len(plan.parts)) == (same.latency_ms, len(same.parts))


def test_a_hub_delays_by_both_sides_and_its_slower_one_bounds() -> None:
    up, down = [Link(100.0, 1.0), Link(20.0, 1.0)], [Link(50.0, 2.0), Link(200.0, 2.0)]
    names = ("camera", "server")
    problem = ChainProblem.of(
        [DeviceKind(name) for name in names],
        [[100.0, 1.0]],
        [1e5, 0.0],
        Links.pairs(names, {(names[a], names[b]): Link.through_hub(up[a], down[b]) for a in (0, 1) for b in (0, 1)}),
        source="camera",
    )
    there, back = Plan.of(problem, solve(problem), LATENCY).fleet.links
    assert (there.origin, there.target, there.latency_ms) == ("camera", "server", 3.0)
    assert (there.bandwidth_mbit_s, there.forwarded_mbit_s) == (pytest.approx(100), pytest.approx(200))
    assert (back.bandwidth_mbit_s, back.forwarded_mbit_s) == (pytest.approx(20), pytest.approx(50))


def test_of_a_kind_a_plan_names_the_devices_at_work() -> None:
    problem = ChainProblem.of(
        [DeviceKind("camera"), DeviceKind("node", count=3)],
        [[9.0, 1.0], [9.0, 1.0], [9.0, 1.0]],
        [10.0] * 4,
        Links.uniform(2, Link(math.inf, 0.1)),
        source="camera",
    )
    plan = Plan.of(problem, solve(problem, THROUGHPUT), THROUGHPUT)
    assert [part.device for part in plan.parts] == ["node#0", "node#1", "node#2"]
    assert list(plan.fleet.devices) == ["camera", "node#0", "node#1", "node#2"]
    assert len(plan.fleet.links) == 12
    assert plan.fleet.links[0].bandwidth_mbit_s is None


LINK = {"from": "a", "to": "b", "bandwidth_mbit_s": 1.0, "latency_ms": 0.0, "forwarded_mbit_s": None}
PART = asdict(Plan.of(chain(), solve(chain()), LATENCY).parts[0])
FLEET = {"devices": {}, "links": [], "source": None, "sink": None}
MODEL = {"name": "net", "path": "net.onnx", "sha256": "0", "input_shapes": {}}


def deep(levels: int) -> dict[str, object]:
    found: dict[str, object] = {}
    for _ in range(levels):
        found = {"a": found}
    return found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "other"}, "not a plan"),
        ({"version": 99}, "plan version 99; this pepper reads 3, 4 and 5"),
        ({"parts": []}, "parts is \\[\\]: .*at least 1"),
        ({"gap": None, "surprise": 1}, "gap is None"),
        ({"surprise": 1}, "surprise is 1: unexpected"),
        ({"parts": [PART | {"time_ms": None}]}, "parts.0.time_ms is None"),
        ({"parts": [PART | {"start": 1}]}, "do not follow one another"),
        ({"parts": [PART | {"stop": 0}]}, "a part has no operators"),
        ({"parts": [PART | {"stop": 2**70}]}, "parts.0.stop"),
        ({"parts": [PART | {"inputs": None}]}, "parts.0.inputs is None"),
        ({"parts": [PART | {"inputs": [None]}]}, "parts.0.inputs.0 is None"),
        ({"parts": [PART | {"device": ["a"]}]}, "parts.0.device is "),
        ({"model": {"name": "net"}}, "model.path is missing"),
        ({"model": MODEL | {"path": "a\0b"}}, "model: path holds a NUL"),
        ({"model": MODEL | {"sha256": None}}, "sha256 is None"),
        ({"model": MODEL | {"input_shapes": [1]}}, "input_shapes is \\[1\\]"),
        ({"model": MODEL | {"input_shapes": {"x": [-1]}}}, "input_shapes.x.0 is -1"),
        ({"fleet": {"links": []}}, "fleet.devices is missing"),
        ({"fleet": FLEET}, "not among the fleet's devices"),
        ({"fleet": FLEET | {"links": [{}]}}, "fleet.links.0.from is missing"),
        ({"fleet": FLEET | {"links": None}}, "fleet.links is None"),
        ({"fleet": FLEET | {"source": []}}, "fleet.source is \\[\\]"),
        ({"fleet": FLEET | {"devices": {"<b>": {}}}}, "device '<b>': give a name"),
        (
            {"fleet": FLEET | {"devices": {"a": {"load": {"name": "measured", "percent": 30.0}}}}},
            "load.name=measured: .* found now; write load: found",
        ),
        *(
            ({"fleet": FLEET | {"links": [LINK | wrong]}}, f"fleet.links.0.{next(iter(wrong))} is ")
            for wrong in ({"bandwidth_mbit_s": -5}, {"bandwidth_mbit_s": "fast"}, {"latency_ms": None}, {"from": ["a"]})
        ),
        ({"fleet": "x"}, "fleet is 'x'"),
        ({"rules": "x"}, "rules is 'x'"),
        ({"provenance": "x"}, "provenance is 'x'"),
        ({"latency_ms": None}, "latency_ms is None"),
        ({"latency_ms": True}, "latency_ms is True"),
        ({"latency_ms": -1}, "latency_ms is -1"),
        ({"period_ms": float("nan")}, "NaN is no number"),
        ({"gap": float("inf")}, "Infinity is no number"),
        ({"gap": 10**400}, "gap is 1000"),
        ({"rules": {"pinned": None}}, "rules.pinned is None"),
        ({"rules": {"excluded": None}}, "rules.excluded is None"),
        ({"rules": {"pinned": {"a": 3}}}, "rules.pinned.a is 3"),
        ({"rules": {"max_parts": "x"}}, "rules.max_parts is 'x'"),
        ({"objective": "fun"}, "objective is 'fun'; use one of latency, throughput"),
        ({"provenance": deep(100)}, "nested too deep"),
        ({"provenance": deep(900)}, "nested too deep"),
    ],
)
def test_bad_plan_is_one_clear_line(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = tmp_path / "plan.json"
    Plan.of(chain(), solve(chain()), LATENCY).save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(PlacementError, match=message) as caught:
        Plan.load(path)
    assert "\n" not in str(caught.value)
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
    json.dumps(asdict(Plan.of(chain(), solve(chain()), LATENCY)), allow_nan=False)


@pytest.mark.parametrize("objective", [LATENCY, THROUGHPUT])
def test_no_baseline_beats_the_optimum(objective: Objective) -> None:
    for seed in range(20):
        problem = chain(seed)
        optimum = solve(problem, objective).value
        found = compare(problem, objective)
        assert list(found) == list(BASELINES)
        assert found["best single device"] is not None
        for entry in found.values():
            if entry is not None and not entry[1].violations:
                assert objective.value(entry[1]) >= optimum * (1 - 1e-9)


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
