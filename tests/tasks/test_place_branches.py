"""``task=place place.graph=dag``: branches side by side on two devices, and run there."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from harness import Desk, MakeDesk
from onnx import helper

from pepper.devices import host
from pepper.placement.plan import Plan
from tests.tasks.champion import furnished

pytestmark = pytest.mark.skipif(len(host.allowed_cores()) < 2, reason="two devices need two cores")

TWINS = """# Two whole cores.
name: twins
devices:
  left: {device: share100, cores: [0]}
  right: {device: share100, cores: [-1]}
source: left
sink: left
"""


def towers(branches: int = 2, depth: int = 3, channels: int = 48) -> onnx.ModelProto:
    """A stem, branches of convolutions, each also an input of its own sum with the stem, and their concatenation."""
    rng = np.random.default_rng(0)
    weights: dict[str, Any] = {"stem_w": rng.random((channels, 3, 3, 3), dtype=np.float32) / channels}
    nodes = [helper.make_node("Conv", ["input", "stem_w"], ["stem"], pads=[1, 1, 1, 1])]
    tips = []
    for branch in range(branches):
        name = "stem"
        for layer in range(depth):
            key = f"b{branch}l{layer}"
            weights[key] = rng.random((channels, channels, 3, 3), dtype=np.float32) / channels
            nodes.append(helper.make_node("Conv", [name, key], [f"{key}c"], pads=[1, 1, 1, 1]))
            nodes.append(helper.make_node("Relu", [f"{key}c"], [f"{key}r"]))
            name = f"{key}r"
        nodes.append(helper.make_node("GlobalAveragePool", [name], [f"tip{branch}"]))
        tips.append(f"tip{branch}")
    nodes.append(helper.make_node("Concat", tips, ["output"], axis=1))
    graph = helper.make_graph(
        nodes,
        "towers",
        [helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, [1, 3, 64, 64])],
        [helper.make_tensor_value_info("output", onnx.TensorProto.FLOAT, [1, branches * channels, 1, 1])],
        [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])


@pytest.fixture(scope="module")
def desk(make_desk: MakeDesk, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with furnished(make_desk(tmp_path_factory.mktemp("branches") / "desk"), errors=(0.0,)) as made:
        onnx.save(towers(), made.folder / "towers.onnx")
        file = made.folder / "towers.onnx"
        (made.options / "model" / "towers.yaml").write_text(f"# A test's.\nname: towers\npath: {file}\n")
        (made.options / "fleet" / "twins.yaml").write_text(TWINS)
        yield made


def place(desk: Desk, model: str, *overrides: str) -> Any:
    return desk("task=place", f"model={model}", "fleet=twins", "link=same_host", "place.graph=dag",
                "place.time_limit_seconds=10", "place.confidence=0", *overrides)  # fmt: skip


def test_branches_run_side_by_side_and_compute_what_the_whole_does(desk: Desk, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = place(
        desk,
        "towers",
        f"place.out={out}",
        "place.split=true",
        "place.execute=true",
        "execute.trials.seconds=0.1",
        "execute.trials.min_requests=5",
    )
    assert done.status == 0, done.out + done.err
    assert "below the chain's" in done.out
    assert "requests/s, at random" in done.out
    assert "proved: parts compute what the whole does" in done.out
    assert "largest difference to the whole model" in done.out
    plan = Plan.load(out / "plan.json")
    assert plan.graph == "dag"
    assert set(plan.devices) == {"left", "right"}
    begun = {part.device: part.begin_ms for part in plan.parts}
    assert None not in begun.values()
    overlaps = [
        (a, b)
        for a in plan.parts
        for b in plan.parts
        if a.device < b.device and a.begin_ms < b.begin_ms + b.time_ms and b.begin_ms < a.begin_ms + a.time_ms
    ]
    assert overlaps, "at one time on two devices"


def test_a_chain_without_branches_stays_one(desk: Desk, tmp_path: Path) -> None:
    done = place(desk, "net", f"place.out={tmp_path}/out")
    assert done.status == 0, done.err
    assert "which is taken" in done.out
    assert json.loads((tmp_path / "out" / "plan.json").read_text())["graph"] == "chain"


def test_pins_exclusions_limits_and_trade_offs_hold_for_branches_too(desk: Desk, tmp_path: Path) -> None:
    done = place(desk, "towers", "place.excluded=[right]", f"place.out={tmp_path}/out")
    assert done.status == 0, done.err
    assert set(Plan.load(tmp_path / "out" / "plan.json").devices) == {"left"}
    done = place(desk, "towers", "objective=pareto", "place.pinned.right=1", f"place.out={tmp_path}/out")
    assert done.status == 0, done.err
    front = [Plan.load(file) for file in sorted((tmp_path / "out").glob("front_*.json"))]
    assert front
    assert all(plan.parts[0].device == "right" for plan in front)
    values = sorted((plan.latency_ms, plan.period_ms) for plan in front)
    assert [period for _, period in values] == sorted((period for _, period in values), reverse=True)


def test_a_limit_that_no_chain_keeps_is_kept_side_by_side(desk: Desk, tmp_path: Path) -> None:
    free = json.loads(place(desk, "towers", "output=json").out)
    least_ms = {line["name"]: line["latency_ms"] for line in free["plans"]}
    between_ms = (least_ms["pepper"] + least_ms["chain"]) / 2
    done = place(desk, "towers", f"objective.max_latency_ms={between_ms:.6g}", f"place.out={tmp_path}/out")
    assert done.status == 0, done.err
    assert (
        f"objective.max_latency_ms={between_ms:.6g}: no chain keeps to it, parts that run side by side do" in done.out
    )
    plan = Plan.load(tmp_path / "out" / "plan.json")
    assert (plan.graph, plan.latency_ms <= between_ms) == ("dag", True)
    too_little = f"objective.max_latency_ms={least_ms['pepper'] / 2:.4g}"
    done = place(desk, "towers", too_little)
    assert done.status == 2
    assert f"{too_little}: no plan keeps to it" in done.err


def test_moves_are_for_chains(desk: Desk, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert place(desk, "towers", f"place.out={out}").status == 0
    done = desk("task=execute", f"execute.plan={out}/plan.json", "execute.moves.allowed=true")
    assert done.status != 0
    assert "execute.moves.allowed=true: moves are for chains" in done.err
