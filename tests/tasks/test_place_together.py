"""``task=place place.models=[...]``: several models on one fleet, run at one time, and what is refused."""

import json
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
from harness import Desk, MakeDesk

from pepper.devices import host
from pepper.placement.plan import Plan
from tests.tasks.champion import convnet, furnished

PAIR = """# A test's: two shares of one core, and another core.
name: pair
devices:
  camera: {device: share50, cores: [0]}
  server: {device: share100, cores: [-1]}
source: camera
sink: camera
"""


@pytest.fixture(scope="module")
def desk(make_desk: MakeDesk, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with furnished(make_desk(tmp_path_factory.mktemp("together") / "desk"), errors=(0.0,)) as made:
        (made.options / "fleet" / "pair.yaml").write_text(PAIR)
        for name, depth in (("deep", 8), ("flat", 4)):
            file = made.folder / f"{name}.onnx"
            onnx.save(convnet(depth, 32 if name == "deep" else 24), file)
            (made.options / "model" / f"{name}.yaml").write_text(f"# A test's.\nname: {name}\npath: {file}\n")
        (made.options / "model" / "again.yaml").write_text(f"# A test's.\nname: again\npath: {made.folder}/flat.onnx\n")
        yield made


def place(desk: Desk, *overrides: str, models: str = "deep,flat") -> object:
    return desk("task=place", f"place.models=[{models}]", "fleet=pair", "link=ethernet_1gbit",
                "place.time_limit_seconds=1", *overrides)  # fmt: skip


@pytest.mark.skipif(len(host.allowed_cores()) < 2, reason="two devices need two cores")
def test_two_models_are_placed_and_run_together(desk: Desk, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = place(
        desk,
        "place.rates.deep=20",
        "place.rates.flat=40",
        "place.priorities.flat=2",
        f"place.out={out}",
        "place.execute=true",
        f"execute.out={tmp_path}/run",
        "execute.trials.seconds=0.3",
        "execute.trials.min_requests=5",
        "output=json",
    )
    assert done.status == 0, done.err
    said = json.loads(done.out)
    assert [line["model"] for line in said["models"]] == ["deep", "flat"]
    assert all(line["together_ms"] >= line["alone_ms"] for line in said["models"])
    assert said["bound_ms"] <= said["mean_ms"] <= said["separate_mean_ms"] * (1 + 1e-9)
    runs = said["execute"]["runs"]
    assert [run["model"] for run in runs] == ["deep", "flat"]
    assert all(run["requests"] > 1 and run["measured_ms"] > 0 for run in runs)
    assert (tmp_path / "run" / "flat" / "requests.csv").read_text().count("all at their rates") == runs[1]["requests"]
    for name in ("deep", "flat"):
        plan = Plan.load(out / name / "plan.json")
        assert plan.model is not None
        assert plan.model.name == name
        assert plan.provenance["placement_run"] == said["run_id"]
    alone = desk(
        "task=execute",
        f"execute.plan={out}/deep/plan.json",
        "execute.trials.seconds=0.1",
        "execute.trials.min_requests=5",
    )
    assert alone.status == 0, alone.err


def refused(desk: Desk, *overrides: str, models: str = "deep,flat") -> str:
    done = place(desk, *overrides, models=models)
    assert done.status == 2, done.out
    return done.error


def test_what_is_wrong_is_said_with_a_fix(desk: Desk) -> None:
    assert "place.models: model=dep: no such option; did you mean 'deep'?" in refused(desk, models="dep,flat")
    assert "'onnx' names no file" in refused(desk, models="onnx,flat")
    assert "place.rates.dep=3: place.models does not have it; did you mean 'deep'?" in refused(
        desk, "place.rates.dep=3"
    )
    assert "place.rates.flat=0" in refused(desk, "place.rates.flat=0")
    assert "names 'flat' twice" in refused(desk, models="flat,flat")
    assert "'again' and 'flat' are one model" in refused(desk, models="flat,again")
    assert "objective.name=throughput" in refused(desk, "objective=throughput")
    assert "objective.max_latency_ms=5: does not hold for several models" in refused(desk, "objective.max_latency_ms=5")
    assert "place.graph=dag" in refused(desk, "place.graph=dag")
    several = "execute.others.compare=True: says how one model's plan is run"
    assert several in refused(desk, "place.execute=true", "execute.others.compare=true")
    done = desk("task=quickstart", "place.models=[deep,flat]")
    assert "place.models=[deep,flat]: several models are for task=place; leave it out" in done.error


def test_rates_that_no_plan_carries_are_said_with_those_that_one_does(desk: Desk) -> None:
    error = refused(desk, "place.rates.deep=1e6")
    assert "place.rates.deep=1e+06: no plan carries it, even without the other models; give at most " in error
    most = float(error.rpartition(" ")[2])
    assert place(desk, f"place.rates.deep={most}", models="deep").status == 0
    error = refused(desk, f"place.rates.deep={most * 0.9}", "place.rates.flat=1000")
    assert "carry these together (at most " in error
    assert place(desk, *error.partition("as with ")[2].split()).status == 0


def test_a_fleet_whose_memory_does_not_hold_all_says_how_much_is_missing(desk: Desk) -> None:
    error = refused(desk, "objective.max_memory_bytes=1150000")
    assert "the fleet's memory does not hold all of them" in error
    more = int(error.partition("them; ")[2].split()[0])
    assert place(desk, f"objective.max_memory_bytes={1150000 + more}").status == 0
