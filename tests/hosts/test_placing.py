"""Fleets whose devices are on hosts that joined: their calibrations are asked of the hosts."""

import json
from pathlib import Path

import onnx
import pytest
from harness import MakeDesk
from machines import Machines

from tests.tasks.champion import furnished

pytestmark = pytest.mark.slow
SHORT = ("execute.trials.seconds=0.3", "execute.trials.min_requests=20", "measure.limits.foreign_percent=100")


def test_devices_on_hosts_are_predicted_and_placed_on(make_desk: MakeDesk, machines: Machines, tmp_path: Path) -> None:
    reached, out = f"hosts.folder={machines.folder}/fleet", tmp_path / "out"
    with furnished(make_desk(tmp_path / "desk"), errors=(0.0,)) as desk:
        fleet = ("model=net", "fleet=pair", "fleet.devices.server.overrides={host: edge}", reached)
        placed = desk("task=place", *fleet, "place.samples=100", f"place.out={out}")
        assert placed.status == 0, placed.err
        devices = json.loads((out / "plan.json").read_text())["fleet"]["devices"]
        assert [devices[name]["device"]["host"] for name in ("camera", "server")] == [None, "edge"]
        predicted = desk("task=predict", "model=net", "device=share100", "device.host=edge", reached)
        assert predicted.status == 0, predicted.err
        assert "share100@edge" in predicted.out
        model = onnx.load(desk.folder / "net.onnx")
        model.ir_version = 99
        onnx.save(model, desk.folder / "recent.onnx")
        refused = desk("task=place", *fleet, f"model.path={desk.folder / 'recent.onnx'}")
        assert refused.status == 2
        assert "fleet.devices.server: host edge: onnxruntime" in refused.error
        placed = desk(
            "task=place", *fleet, "place.samples=100", "place.pinned={camera: 4, server: [8, 12]}", f"place.out={out}"
        )
        assert placed.status == 0, placed.err
        ran = desk("task=execute", f"execute.plan={out / 'plan.json'}", "model=net", reached, *SHORT)
        assert ran.status == 0, ran.err
        assert "requests/s (Poisson)" in ran.out
