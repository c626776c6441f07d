"""``task=export``: the folder that it writes, and what starts its programs."""

import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from harness import Desk, MakeDesk

from pepper.config import ExportConfig, SessionConfig
from pepper.deployment.compose import compose_files
from pepper.deployment.export import pipeline_name
from pepper.deployment.standing import request_tensor, standing_pipeline
from pepper.deployment.systemd import systemd_files
from pepper.errors import ConfigError
from pepper.execution.pool import specs
from pepper.execution.standing_files import GatewayFile, StageFile
from pepper.graph.load import load_graph
from pepper.graph.source import TensorSpec
from pepper.graph.split import split
from pepper.placement.plan import Plan
from pepper.planning.splitting import planned_cuts
from tests.deployment.standing import units
from tests.tasks.plans import CORES, make_plan, save, shares


@pytest.fixture(scope="module")
def desk(make_desk: MakeDesk, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return make_desk(tmp_path_factory.mktemp("export") / "desk")


@pytest.fixture
def plan(models: dict[str, Path]) -> Plan:
    fleet = shares(camera=0.3, edge=1.0)
    edge = fleet["edge"].device
    assert edge is not None
    fleet["edge"] = replace(fleet["edge"], device=replace(edge, memory_bytes=2**30))
    return make_plan(str(models["small"]), ["camera", "edge"], fleet)


def exported(desk: Desk, plan: Plan, folder: Path, *overrides: str) -> Path:
    out = folder / "out"
    outcome = desk(
        "task=export", f"export.plan={save(plan, folder)}", f"export.out={out}", "export.here=hall", *overrides
    )
    assert outcome.status == 0, outcome.err
    assert "proved: parts compute what the whole does" in outcome.out
    return out


def told(out: Path) -> tuple[list[StageFile], GatewayFile]:
    stages = [StageFile.model_validate_json(file.read_text()) for file in sorted(out.glob("stage-*.json"))]
    return stages, GatewayFile.model_validate_json((out / "gateway.json").read_text())


def test_units_bind_stages_to_cores_shares_and_parts(desk: Desk, plan: Plan, tmp_path: Path) -> None:
    out = exported(desk, plan, tmp_path, "export.port=9000", "export.at=/srv/p", "export.python=/srv/python")
    first, second, gateway = (units(out)[name]["Service"] for name in ("stage-1", "stage-2", "gateway"))
    assert first["ExecStart"] == "/srv/python -m pepper.execution.standing_stage /srv/p/small/stage-1.json"
    assert gateway["ExecStart"] == "/srv/python -m pepper.gateway /srv/p/small/gateway.json"
    assert first["CPUAffinity"] == second["CPUAffinity"] == str(CORES[-1])
    assert (first["CPUQuota"], second.get("CPUQuota"), gateway.get("CPUQuota")) == ("30%", None, None)
    assert (first.get("MemoryMax"), second["MemoryMax"]) == (None, str(2**30))
    assert first["Type"] == "notify"
    assert {unit["Restart"] for unit in (first, second, gateway)} == {"always"}
    assert Plan.load(out / "plan.json") == plan
    assert stat.S_IMODE((out / "keys.env").stat().st_mode) == 0o600
    stages, entry = told(out)
    assert [entry.send[0].address, *(stage.send[0].address for stage in stages)] == [
        "127.0.0.1:9001",
        "127.0.0.1:9002",
        "127.0.0.1:9003",
    ]
    assert entry.receive == ["127.0.0.1:9003"]
    assert (entry.latency_s, entry.stages[1].time_s) == (plan.latency_ms / 1000, plan.parts[1].time_ms / 1000)
    assert (out / "systemd" / "hall" / "pepper-small.target").is_file()
    listed = json.loads((out / "export.json").read_text())["files"]
    assert {*listed, "export.json"} == {str(file.relative_to(out)) for file in out.rglob("*") if file.is_file()}


def test_an_export_takes_the_place_of_an_earlier_one_only(desk: Desk, plan: Plan, tmp_path: Path) -> None:
    first = (exported(desk, plan, tmp_path) / "keys.env").read_text()
    out = exported(desk, plan, tmp_path, "export.kind=compose")
    assert (out / "keys.env").read_text() != first
    assert not (out / "systemd").exists()
    (out / "mine").touch()
    refused = desk("task=export", f"export.plan={tmp_path}/plan.json", f"export.out={out}")
    assert refused.error == f"error: export.out={out}: holds what pepper did not write there; choose another folder"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["export.plan=null"], "export.plan: has no value; give export.plan=FILE, a plan.json of task=place"),
        (["export.out=null"], "export.out: has no value; give export.out=DIR, the folder to write"),
        (["export.kind=docker"], "export.kind=docker: must be one of compose, k3s, systemd"),
        (["export.name=My model"], "export.name=My model: give a name of small letters"),
        (["export.at=pipelines"], "export.at=pipelines: must be a whole path"),
        (["export.addresses.edge=a/b"], "export.addresses.edge=a/b: must be a name or an address"),
        (["export.in_flight=0"], "export.in_flight=0: must be at least 1 and at most 256"),
        (["export.plan=missing.json"], "export.plan=missing.json: cannot be read"),
    ],
)
def test_what_cannot_be_exported(desk: Desk, plan: Plan, tmp_path: Path, overrides: list[str], said: str) -> None:
    refused = desk("task=export", f"export.plan={save(plan, tmp_path)}", f"export.out={tmp_path}/out", *overrides)
    assert refused.status == 2
    assert said in refused.error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("model", "name"), [("ResNet 50", "resnet-50"), ("50/resnet.onnx", "model-50-resnet-onnx"), ("x" * 60, "x" * 40)]
)
def test_names_that_units_and_addresses_can_have(model: str, name: str) -> None:
    assert pipeline_name(model) == name


def test_manifests_are_what_kubernetes_takes(desk: Desk, plan: Plan, tmp_path: Path) -> None:
    validation = pytest.importorskip("kubernetes_validate")
    out = exported(desk, plan, tmp_path, "export.kind=k3s", "export.image=registry.local/pepper-host:1")
    kustomization = yaml.safe_load((out / "kustomization.yaml").read_text())
    kinds = []
    for name in kustomization["resources"]:
        for document in yaml.safe_load_all((out / name).read_text()):
            validation.validate(document, validation.latest_version(), strict=True)
            kinds.append(document["kind"])
    assert sorted(kinds) == ["Deployment"] * 3 + ["NetworkPolicy"] + ["Service"] * 3
    pods = [
        next(yaml.safe_load_all((out / f"stage-{number}.yaml").read_text()))["spec"]["template"]["spec"]
        for number in (1, 2)
    ]
    assert [pod["nodeSelector"] for pod in pods] == [{"kubernetes.io/hostname": "hall"}] * 2
    whole, part = pods[1]["containers"][0]["resources"], pods[0]["containers"][0]["resources"]
    assert whole["requests"] == whole["limits"] == {"cpu": "1", "memory": "1024Mi"}, "whole cores are exclusive ones"
    assert part["requests"]["cpu"] == "0.3"
    stages, entry = told(out)
    assert entry.send[0].address.startswith("small-stage-1:")
    assert stages[1].send[0].address.startswith("small-gateway:")


def test_a_compose_file_is_what_the_specification_has(desk: Desk, plan: Plan, tmp_path: Path) -> None:
    specification = pytest.importorskip("compose_spec")
    out = exported(desk, plan, tmp_path, "export.kind=compose")
    services = specification.PyCompose.from_yaml((out / "compose.yaml").read_text()).to_dict()["services"]
    assert list(services) == ["stage-1", "stage-2", "gateway"]
    content = yaml.safe_load((out / "compose.yaml").read_text())["services"]
    assert {service["restart"] for service in content.values()} == {"always"}
    assert (content["stage-1"]["cpuset"], content["stage-1"]["cpus"]) == (str(CORES[-1]), 0.3)


def test_programs_of_several_hosts_find_each_other(plan: Plan, models: dict[str, Path], tmp_path: Path) -> None:
    """The gateway is where requests arise; what hosts share is their addresses, and files of their own."""
    graph = load_graph(models["small"])
    manifest = split(graph, planned_cuts(graph, plan, "plan"), tmp_path / "parts")
    found = specs(plan.fleet)
    away = {"camera": replace(found["camera"], host="cam"), "edge": replace(found["edge"], host="box")}
    config = ExportConfig(here="hall", port=9000, addresses={"cam": "10.0.0.4"})
    pipeline = standing_pipeline("small", plan, manifest, tmp_path / "parts", away, SessionConfig(), config)
    assert [workload.host for workload in pipeline.workloads] == ["cam", "box", "cam"]
    first, second, gateway = (workload.told for workload in pipeline.workloads)
    assert isinstance(first, StageFile)
    assert first.receive == ["0.0.0.0:9001"]
    assert first.health.startswith("127.0.0.1:")
    assert [told.send[0].address for told in (gateway, first, second)] == ["10.0.0.4:9001", "box:9002", "10.0.0.4:9003"]
    assert set(compose_files(pipeline, config)) == {"compose.cam.yaml", "compose.box.yaml"}
    assert {Path(name).parent.name for name in systemd_files(pipeline, config)} == {"cam", "box"}


def test_strings_cannot_come_in_a_request() -> None:
    with pytest.raises(ConfigError, match="input 'text' is of type string, which no request can bring"):
        request_tensor("input", TensorSpec("text", "string", (1,)))
