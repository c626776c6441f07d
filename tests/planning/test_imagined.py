"""Devices that do not exist: predicted and placed on by what is said of them, never measured or run."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Desk, MakeDesk

from pepper.config import DeviceConfig
from pepper.config.hosting import IMAGINED
from pepper.config.measuring import FACTS
from pepper.errors import ConfigError, DeviceError
from pepper.hosts.reach import host_at
from pepper.latency.features import SETTING
from tests.tasks.champion import furnished

SAID = ("device=imagined", "device.facts.gflops=20", "device.facts.memory_gbps=8")
CAMERA = ("fleet.devices.camera.device=imagined", "fleet.devices.camera.overrides.facts={gflops: 3, memory_gbps: 8}")


@pytest.fixture(scope="module")
def desk(make_desk: MakeDesk, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with furnished(make_desk(tmp_path_factory.mktemp("imagined")), [0.0]) as made:
        yield made


def test_its_facts_are_those_that_a_latency_model_sees() -> None:
    seen = {name.removeprefix("device_") for name in SETTING if name.startswith("device_")}
    assert set(FACTS) == seen - {"share"}


def test_what_is_said_is_its_calibration() -> None:
    spec = host_at(IMAGINED).resolve(
        DeviceConfig(name="phone", host=IMAGINED, facts={"gflops": 40.0, "memory_gbps": 9.0, "cores": 4.0}, threads=4)
    )
    found = host_at(IMAGINED).calibrate(spec)
    assert (found.gflops, found.gflops_single, found.memory_gbps, found.cores) == (40, 10, 9, 4)
    other = host_at(IMAGINED).resolve(DeviceConfig(name="b", host=IMAGINED, facts={"gflops": 4.0, "memory_gbps": 9.0}))
    assert spec.identity != other.identity
    with pytest.raises(DeviceError, match="nothing can be measured there; use task=predict"):
        host_at(IMAGINED).calibrate(spec, renew=True)


def test_a_faster_one_is_predicted_to_be_faster(desk: Desk) -> None:
    slow, fast = (
        desk("task=predict", "model=net", "device=imagined", f"device.facts.gflops={gflops}", SAID[2], "output=json")
        for gflops in (2, 200)
    )
    assert slow.status == fast.status == 0, slow.err
    assert json.loads(fast.out)["p50_ms"] < json.loads(slow.out)["p50_ms"]


def test_it_is_placed_on_and_its_plan_is_not_run(desk: Desk) -> None:
    placed = desk("task=place", "model=net", "fleet=pair", f"place.out={desk.folder}/imagined", *CAMERA)
    assert placed.status == 0, placed.err
    plan = Path(desk.folder) / "imagined" / "plan.json"
    for refused in (
        desk("task=execute", f"execute.plan={plan}"),
        desk("task=export", f"export.plan={plan}", f"export.out={desk.folder}/exported"),
    ):
        assert refused.status == 2
        assert "is imagined (device.host=imagined): plans for it can be made, not run" in refused.error


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("model=tiny", *SAID), "nothing can be measured there; use task=predict"),
        (("task=predict", "model=net", "device=imagined"), "device.facts.gflops: has no value"),
        (("task=predict", "model=net", *SAID, "device.facts.l4_bytes=1"), "did you mean 'l"),
        (("task=predict", "model=net", "device.facts.gflops=1"), "set device.host=imagined"),
        (("task=predict", "model=net", *SAID, "device.facts.gflops=-1"), "device.facts.gflops=-1"),
        (
            ("task=place", "model=net", "fleet=pair", *CAMERA, "link=measured"),
            "none to or from an imagined device can be",
        ),
        (
            ("task=place", "model=net", "fleet=pair", *CAMERA, "fleet.devices.camera.load=found"),
            "imagined; give an option of load",
        ),
    ],
)
def test_a_mistake_is_said_in_a_line(desk: Desk, arguments: tuple[str, ...], said: str) -> None:
    done = desk(*arguments)
    assert done.status == 2, done.out
    assert said in done.error
    assert "Traceback" not in done.err


def test_no_host_can_be_called_so() -> None:
    from pepper.config.hosting import HostsConfig

    with pytest.raises(ConfigError, match="give other names"):
        HostsConfig(folder="fleet", names=[IMAGINED])
