"""``task=place`` from the command line: a champion, a fleet, a plan, and what it refuses."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from harness import Desk, MakeDesk, composed, make_model
from onnx import TensorProto, helper

import pepper
from pepper.devices import host
from pepper.errors import ConfigError, PlacementError
from pepper.graph.manifest import read_manifest
from pepper.graph.running import random_inputs
from pepper.placement.front import beats
from pepper.placement.plan import Plan
from pepper.planning.planned import Planned
from pepper.planning.replanning import replanner
from pepper.planning.splitting import Splitter
from tests.tasks.champion import furnished


@pytest.fixture(scope="module")
def desk(make_desk: MakeDesk, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A desk with a champion, a version 2 that is often far off, a model to place and a fleet."""
    with (
        furnished(make_desk(tmp_path_factory.mktemp("place") / "desk"), errors=(0.0, 2.0)) as made,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(host, "allowed_cores", lambda: [0, 1])  # nothing runs: one core will do
        yield made


def tracked(desk: Desk) -> tuple[str, ...]:
    store = f"{desk.folder}/mlruns"
    return f"tracking.uri={desk.uri}", f"tracking.artifacts={store}/artifacts", f"tracking.folder={store}"


def place(desk: Desk, *overrides: str) -> Any:
    return desk("task=place", "model=net", "fleet=pair", *overrides)


def test_from_the_champion_to_a_plan_that_can_be_run(desk: Desk, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = place(
        desk,
        "objective=throughput",
        "link=ethernet_1gbit",
        "place.pinned.camera=2",
        "place.confidence=0",
        "place.split=true",
        f"place.out={out}",
    )
    assert done.status == 0, done.err
    assert "net on pair, by pepper-latency version 1" in done.out
    assert "proved: parts compute what the whole does" in done.out
    assert "greedy" in done.out
    assert "lie outside of what the latency model was trained on" in done.out
    plan = Plan.load(out / "plan.json")
    assert [part.device for part in plan.parts] == ["camera", "server"]
    assert plan.parts[0].stop >= 2
    assert plan.parts[-1].stop == 12
    assert plan.parts[0].outputs == plan.parts[1].inputs
    assert plan.gap == 0
    assert plan.model.input_shapes == {"input": (1, 3, 64, 64)}
    camera = plan.fleet.devices["camera"]
    assert (camera.device.share, camera.load.percent) == (0.25, 0.0)
    link = plan.fleet.between["camera", "server"]
    assert (link.bandwidth_mbit_s, link.latency_ms) == (pytest.approx(941.0), 0.1)
    manifest = read_manifest(out / "parts")
    assert [part.operators for part in manifest.parts] == [part.stop - part.start for part in plan.parts]
    again = desk("task=split", "model=net", f"split.plan={out}/plan.json", f"split.out={tmp_path}/again")
    assert again.status == 0, again.err
    assert read_manifest(tmp_path / "again").cuts == manifest.cuts


def test_the_next_plan_keeps_to_the_rules_of_the_first(desk: Desk, tmp_path: Path) -> None:
    """What is pinned to a device goes nowhere else when that is lost, and what is excluded stays so."""
    for name, rules, lost, left in (
        ("free", (), "camera", ["server"]),
        ("pinned", ("place.pinned.camera=2",), "camera", None),
        ("pinned", ("place.pinned.camera=2",), "server", ["camera"]),
        ("excluded", ("place.excluded=[server]",), "camera", None),
    ):
        out = tmp_path / name
        assert place(desk, "place.confidence=0", f"place.out={out}", *rules).status == 0
        plan = Plan.load(out / "plan.json")
        config = composed(*tracked(desk))
        planned = Planned(config, plan, "plan.json")
        splitter = Splitter(planned.graph, tmp_path / f"{name}-{lost}")
        layout = replanner(planned, splitter)(frozenset({lost}))
        assert (None if layout is None else list(layout.devices)) == left


def test_an_objective_of_ones_own(desk: Desk) -> None:
    """Where a part costs more than any time that splitting saves, nothing is split."""
    (desk.options / "objective").mkdir()
    (desk.options / "objective" / "frugal.yaml").write_text("# Few parts.\nname: frugal\nweights: {part: 1e6}\n")
    done = place(desk, "objective=frugal", "place.confidence=0", "output=json")
    assert done.status == 0, done.err
    plan = json.loads(done.out)["plan"]
    assert (plan["objective"], len(plan["parts"]), plan["goal"]["per_part"]) == ("frugal", 1, 1e6)
    refused = place(desk, "objective.name=latncy")
    assert (refused.status, refused.err.count("\n")) == (2, 1)
    assert "objective.name=latncy" in refused.err


def test_the_run_leads_back_to_the_latency_model_and_its_data(desk: Desk) -> None:
    done = place(desk, "objective=pareto", "link=ethernet_100mbit")
    assert done.status == 0, done.err
    assert "front 1" in done.out
    from mlflow import MlflowClient

    client = MlflowClient(desk.uri)
    experiment = client.get_experiment_by_name("pepper/placements")
    assert experiment is not None
    run = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time desc"])[0]
    version = client.get_model_version_by_alias("pepper-latency", "champion")
    assert run.info.run_id in done.out
    assert run.data.tags["pepper.latency_model_version"] == str(version.version)
    assert run.data.tags["pepper.training_run"] == version.run_id
    assert run.inputs.dataset_inputs[0].dataset.digest == run.data.tags["pepper.dataset_digest"]
    assert run.data.params["objective"] == "pareto"
    assert run.data.metrics["latency_low_ms"] <= run.data.metrics["latency_ms"] <= run.data.metrics["latency_high_ms"]
    kept = Path(run.info.artifact_uri.removeprefix("file://"))
    pictures = {f"{name}.{kind}" for name in ("request", "stream", "pareto", "bandwidth") for kind in ("png", "svg")}
    assert {path.name for path in kept.iterdir()} >= {"plan.json", "front_1.json", "flips.csv", *pictures}
    assert Plan.load(kept / "front_1.json").provenance["training_run"] == version.run_id


def test_a_win_within_the_noise_is_said_and_not_chosen(desk: Desk, tmp_path: Path) -> None:
    base = ("objective=throughput", "link=ethernet_1gbit", "place.pinned.camera=2", f"place.out={tmp_path}")
    sure = place(desk, *base, "place.confidence=0")
    assert "splitting gains" in sure.out, sure.out + sure.err
    assert len(Plan.load(tmp_path / "plan.json").parts) == 2
    unsure = place(desk, *base, "latency.version=2", "place.confidence=0.99")
    assert "not split: splitting would gain" in unsure.out, unsure.err
    assert "within the noise of the predictions" in unsure.out
    assert "predicted best" in unsure.out
    plan = Plan.load(tmp_path / "plan.json")
    assert len(plan.parts) == 1
    assert plan.gap > 0


def test_from_python_as_from_the_command(desk: Desk, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same plan in the same file; nothing printed, nothing logged."""
    options = ("link.bandwidth_mbit_s=941", "place.pinned.camera=2", "place.confidence=0", "~fleet.devices.edge")
    model = pepper.load(desk.folder / "net.onnx", name="net")
    placed = model.place(*options, *tracked(desk), objective="throughput")
    assert capsys.readouterr() == ("", "")
    placed.save(tmp_path / "plan.json")
    document = json.loads(
        desk("output=json", "task=place", "model=net", "objective=throughput", *options).out,
    )
    assert document["plan"]["provenance"].pop("placement_run") == document["run_id"]
    assert json.loads((tmp_path / "plan.json").read_text()) == document["plan"]
    assert Plan.load(tmp_path / "plan.json") == placed.plan
    assert [part.device for part in placed.plan.parts] == ["camera", "server"]
    assert list(placed.to_frame()["device"]) == ["camera", "server"]
    assert placed.plans.to_frame()["name"][0] == "pepper"
    assert placed.verdict.startswith("time between results")
    assert placed._repr_html_().count("<table") == 2
    with pytest.raises(ConfigError, match=r"fleet\.devices\.server: device=share10.*did you mean 'share100'"):
        model.place("fleet.devices.server.device=share10", *tracked(desk))
    with pytest.raises(PlacementError, match="latency_ms"):
        model.place("objective.max_latency_ms=0.001", *options, *tracked(desk))
    with pytest.raises(ConfigError, match=r"place\.out=here"):
        model.place("place.out=here")


def test_all_that_is_said_as_json(desk: Desk) -> None:
    done = place(desk, "output=json", "objective=throughput", "link=ethernet_1gbit")
    found = json.loads(done.out)
    assert (found["task"], found["status"]) == ("place", 0)
    plan = found["plan"]
    assert found["split"] == (len(plan["parts"]) > 1)
    assert found["low_ms"] <= plan["period_ms"] <= found["high_ms"]
    assert found["plans"][0]["name"] == "pepper"
    assert found["plans"][0]["period_ms"] == plan["period_ms"]
    assert any("outside of what the latency model was trained on" in line for line in found["warnings"])
    assert all({"quantity", "value", "best_below", "best_above"} == set(flip) for flip in found["flips"])
    busy = found["under_load"]
    assert [line["utilisation"] for line in busy] == pytest.approx([0.5, 0.8, 0.95])
    assert all(line["p50_ms"] <= line["p95_ms"] <= line["p99_ms"] for line in busy)
    assert found["plan"]["latency_ms"] * 0.999 < busy[0]["p50_ms"] < busy[1]["p50_ms"] < busy[2]["p50_ms"]
    from mlflow import MlflowClient

    assert MlflowClient(desk.uri).get_run(found["run_id"]).data.metrics["period_ms"] == plan["period_ms"]


def test_a_plan_is_kept_where_mlflow_refuses_it(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    create = MlflowClient.create_run

    def refuse(*given: Any, **named: Any) -> Any:
        if "pepper.kind" in named["tags"]:
            raise MlflowException("the disk is full")
        return create(*given, **named)

    monkeypatch.setattr(MlflowClient, "create_run", refuse)
    done = place(desk, "objective=pareto", f"place.out={tmp_path}/out")
    assert done.status == 2
    assert "the store does not answer (the disk is full)" in done.error
    assert Plan.load(tmp_path / "out" / "plan.json").model.name == "net"
    assert (tmp_path / "out" / "front_1.json").exists()


def test_a_folder_that_cannot_be_written_is_said_first(make_desk: MakeDesk, tmp_path: Path) -> None:
    """Before anything else that is wrong: here, there is no champion either."""
    bare = make_desk(tmp_path / "bare")
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", "/proc/self/task"):  # the second is there, but takes no files
        error = bare("task=place", "model=tiny", f"place.out={out}").error
        assert f"place.out={out}: cannot be written" in error


# Each: what is typed, and what the one line must name besides.
MISTAKES = [
    (["place.excluded=[camra]"], ["place.excluded", "did you mean 'camera'"]),
    (["place.excluded=[camera,server]"], ["every device is excluded"]),
    (["fleet.source=sever"], ["fleet.source", "did you mean 'server'"]),
    (["place.pinned.camera=2", "place.excluded=[camera]"], ["place.pinned.camera", "place.excluded"]),
    (["place.pinned.camera=2", "place.pinned.server=[1,4]"], ["place.pinned.server", "'camera'"]),
    (["place.pinned.camera=99"], ["place.pinned.camera", "12 operators"]),
    (["place.pinned.camera=[4,2]"], ["place.pinned.camera", "[START,END]"]),
    (["objective.max_memory_bytes=1000"], ["memory", "operators", "more than"]),
    (["objective.max_latency_ms=0.001"], ["objective.max_latency_ms=0.001", "can be reached", "raise it"]),
    (["objective.min_per_second=1e6"], ["objective.min_per_second=1000000", "can be reached", "lower it"]),
    (["objective.min_per_second=-1"], ["objective.min_per_second=-1"]),
    (["objective=latancy"], ["objective=latancy", "did you mean 'latency'"]),
    (["link=wify"], ["link=wify", "did you mean 'wifi'"]),
    (["link.bandwidth_mbit_s=-5"], ["link.bandwidth_mbit_s=-5"]),
    (["link.latency_ms=nan"], ["link.latency_ms=nan"]),
    (["fleet=pairs"], ["fleet=pairs", "did you mean 'pair'"]),
    (["fleet.devices.server.device=share10"], ["device=share10", "did you mean 'share100'"]),
    (["fleet.devices.server.load=found"], ["fleet.devices.server", "emulated"]),
    (["fleet.devices.server.load=measured"], ["fleet.devices.server", "load=measured", "load: found"]),
    (["fleet.devices.camera.cores=[-1]"], ["core 1 is wanted 1.25 times (camera 0.25, server 1)", "or less of them"]),
    (["fleet.devices.server.cores=[4096]"], ["fleet.devices.server", "cores"]),
    (["fleet.mesh=false", "place.excluded=[camera]"], ["missing links", "camera->server"]),
    (["++fleet.hub={camera:wifi}"], ["fleet.hub", "'server'"]),
    (["++fleet.hub={camera:wifi,server:{bandwidth_mbit_s:-1,latency_ms:0}}"], ["fleet.hub.server", "-1"]),
    (["++fleet.hub={camera:wifi,server:5}"], ["fleet.hub.server=5", "bandwidth_mbit_s and latency_ms"]),
    (["place.split=true"], ["place.out=DIR"]),
    (["cuts=frontiers", "cuts.max_tensors=0"], ["cuts.max_tensors=0"]),
]


@pytest.mark.parametrize(("typed_in", "named"), MISTAKES, ids=[" ".join(mistake[0]) for mistake in MISTAKES])
def test_a_mistake_is_said_in_one_line(desk: Desk, typed_in: list[str], named: list[str]) -> None:
    done = place(desk, *typed_in)
    assert done.status == 2, done.out
    assert done.error.startswith("error: ")
    for text in named:
        assert text in done.error


def test_without_a_champion_the_shipped_model_places_and_the_way_to_one_is_said(
    make_desk: MakeDesk, tmp_path: Path
) -> None:
    done = make_desk(tmp_path / "empty")("task=place", "model=tiny")
    assert done.status == 0, done.err
    assert "by the latency model that pepper ships" in done.out
    assert "warning: the model that pepper ships answers" in done.out
    assert "task=train and task=promote" in done.out


def test_a_size_that_no_rule_gives_can_be_given_as_the_error_says(desk: Desk, tmp_path: Path) -> None:
    nodes = [helper.make_node("NonZero", ["input:0"], ["/m.1/nz"])]
    nodes.append(helper.make_node("Cast", ["/m.1/nz"], ["/m.1/y"], to=TensorProto.FLOAT))
    file = tmp_path / "net (1) = é.onnx"
    onnx.save(make_model(nodes, {"input:0": ["n", "t"]}, {"/m.1/y": [2, "k"]}), file)
    given = ["model=onnx", f"model.path={file}", f"place.out={tmp_path / 'out (1)'}"]
    refused = place(desk, *given)
    assert refused.status == 2
    advice = re.search(r"give (?:model\.dims\.\S+ or )?(model\.shapes\.\S+=)\[\.\.\.\]", refused.error)
    assert advice, refused.error
    given += [f"{advice[1]}[1,8]", "model.shapes./m.1/y=[2,8]"]
    done = place(desk, *given)
    assert done.status == 0, done.err
    plan = Plan.load(tmp_path / "out (1)" / "plan.json")
    assert plan.model.inner_shapes == {"/m.1/y": (2, 8)}
    assert Planned(composed(), plan, "plan").graph.tensor("/m.1/y").shape == (2, 8)


def test_a_plan_carries_the_values_of_inputs(desk: Desk, tmp_path: Path) -> None:
    model = make_model([helper.make_node("Gather", ["w", "ids:0"], ["y"])], {}, {"y": [1, "n", 4]}, {"w": np.eye(9, 4)})
    model.graph.input.append(helper.make_tensor_value_info("ids:0", TensorProto.INT64, [1, "n"]))
    onnx.save(model, tmp_path / "ids.onnx")
    given = ("model=onnx", f"model.path={tmp_path}/ids.onnx", "model.inputs.ids:0=[[3,1,4]]")
    done = place(desk, *given, f"place.out={tmp_path}/out")
    assert done.status == 0, done.err
    plan = Plan.load(tmp_path / "out" / "plan.json")
    assert plan.model.inputs == {"ids:0": [[3, 1, 4]]}
    assert random_inputs(Planned(composed(), plan, "plan").graph)["ids:0"].tolist() == [[3, 1, 4]]


def test_a_model_without_operators_is_refused_in_the_same_line_by_every_task(desk: Desk, tmp_path: Path) -> None:
    model = make_model([helper.make_node("Shape", ["x"], ["y"])], {"x": [1, 3]}, {"y": [2]}, {})
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    onnx.save(model, tmp_path / "empty.onnx")
    said = set()
    for task in ("place", "predict"):
        done = desk(f"task={task}", "model=onnx", f"model.path={tmp_path}/empty.onnx", "fleet=pair")
        assert done.status == 2, done.err
        said.add(done.error)
    (line,) = said
    assert "empty.onnx: has no operators" in line
    assert "give a model that computes something" in line


@pytest.mark.parametrize(("step", "link"), [("log_artifacts", "placement_run"), ("create_run", "placement_record")])
def test_a_plan_that_the_store_does_not_take_waits_with_its_page(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, link: str
) -> None:
    from mlflow import MlflowClient

    def away(*_: Any, **__: Any) -> None:
        raise ConnectionRefusedError(111, "Connection refused")

    out = tmp_path / "out"
    before = set(desk.pending)
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, step, away)
        done = place(desk, f"place.out={out}")
    assert done.status == 2
    (entry,) = set(desk.pending) - before
    assert done.err.endswith(f"; the plan is in {entry}: log it with task=import\n")
    plan = Plan.load(out / "plan.json")
    imported = desk("task=import")
    assert imported.status == 0, imported.err
    client = MlflowClient(desk.uri)
    experiment = client.get_experiment_by_name("pepper/placements")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id], f"tags.`pepper.record` = '{entry.name}'")
    assert run.info.status == "FINISHED"
    assert plan.provenance[link] == (run.info.run_id if link == "placement_run" else run.data.tags["pepper.record"])
    assert run.data.metrics["latency_ms"] == plan.latency_ms
    assert run.inputs.dataset_inputs[0].dataset.name == "profiles"
    files = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert {"plan.json", "report.html", "flips.csv"} <= files
    kept = Path(client.download_artifacts(run.info.run_id, "plan.json", str(tmp_path)))
    assert Plan.load(kept) == plan


def test_energy_is_minimised_and_limited_by_stated_powers(desk: Desk, tmp_path: Path) -> None:
    powers = ("fleet.devices.camera.power_w=1", "fleet.devices.server.power_w=60", "link=ethernet_1gbit")
    out = tmp_path / "out"
    done = place(desk, "objective=energy", *powers, "link.energy_nj_per_byte=20", f"place.out={out}")
    assert done.status == 0, done.err
    frugal = Plan.load(out / "plan.json")
    assert frugal.devices == ("camera",)
    part = frugal.parts[0]
    assert frugal.energy_j == pytest.approx(part.time_ms / 1000, rel=0.2)  # and the handling of a message
    assert f"energy {frugal.energy_j:.3g}"[:9] in done.out
    assert re.search(r"energy of a request \S+ J \(90 % interval", done.out)
    none = place(desk, *powers, f"objective.max_energy_j={frugal.energy_j / 2}")
    assert none.status == 2
    reach = re.search(r"objective.max_energy_j=\S+: no plan keeps to it; (\S+) can be reached: raise it", none.err)
    assert reach, none.err
    kept = place(desk, *powers, f"objective.max_energy_j={reach[1]}", f"place.out={tmp_path}/kept")
    assert kept.status == 0, kept.err
    assert Plan.load(tmp_path / "kept" / "plan.json").energy_j <= float(reach[1])
    assert "objective.max_energy_j" not in kept.err


def test_all_trade_offs_with_energy(desk: Desk, tmp_path: Path) -> None:
    powers = ("fleet.devices.camera.power_w=1", "fleet.devices.server.power_w=60", "link=ethernet_1gbit")
    done = place(desk, "objective=pareto_energy", *powers, f"place.out={tmp_path}")
    assert done.status == 0, done.err
    front = [Plan.load(file) for file in sorted(tmp_path.glob("front_*.json"))]
    assert len(front) > 1
    for plan in front:
        others = [other for other in front if other is not plan]
        assert not any(beats(other, plan) for other in others)


def test_a_device_of_unknown_power_is_named_and_in_no_claim(desk: Desk, tmp_path: Path) -> None:
    none = place(desk, "objective=energy")
    assert none.status == 2
    assert "objective.name=energy: no device's power is known; give fleet.devices.camera.power_w=WATTS" in none.err
    pinned = place(desk, "objective=energy", "fleet.devices.camera.power_w=1", "place.pinned.server=2")
    assert pinned.status == 2
    assert "the power of 'server', which operators are pinned to, is not known" in pinned.err
    some = place(desk, "objective=energy", "fleet.devices.server.power_w=60", f"place.out={tmp_path}/some")
    assert some.status == 0, some.err
    assert "warning: unmeasured: camera; no claim about energy is made of plans with parts there" in some.out
    assert Plan.load(tmp_path / "some" / "plan.json").devices == ("server",)
    other = place(desk, "fleet.devices.server.power_w=60", "place.pinned.camera=2", "place.pinned.server=[10,12]")
    assert other.status == 0, other.err
    assert re.search(r"energy \S+ J a request above idle, .*; unmeasured, and not in it: camera", other.out)
