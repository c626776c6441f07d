"""Models on their way to a host: fetched once, gone on with where that was cut, and fetched again if damaged."""

import re
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from harness import QUICK, composed, make_model, mlp
from machines import Machines

from pepper.config import ModelConfig
from pepper.errors import DeviceError, MeasureError, ModelError
from pepper.graph.model import ModelFile, find_model
from pepper.graph.needs import needs_of
from pepper.hosts import held
from pepper.hosts.local import here
from pepper.hosts.reach import bundle_of
from pepper.hosts.readable import unreadable
from pepper.hosts.remote import Joined
from pepper.measure.block import Block
from pepper.measure.sent import measured_on, ship


@pytest.fixture
def heavy(tmp_path: Path) -> ModelFile:
    """A model with its weights in another file, of some pieces."""
    model = mlp(700)
    file = tmp_path / "heavy.onnx"
    onnx.save(model, file, save_as_external_data=True, location="heavy.weights", size_threshold=0)
    found = find_model(ModelConfig(str(file)))
    assert [each.name for each in found.weight_files] == ["heavy.weights"]
    return found


def joined(machines: Machines) -> Joined:
    config = composed(f"hosts.folder={machines.folder}/fleet").hosts
    return Joined(bundle_of(config), 20)


@pytest.mark.slow
def test_a_fetch_goes_on_where_it_was_cut_and_what_is_damaged_is_fetched_again(
    machines: Machines, heavy: ModelFile
) -> None:
    weights = heavy.weight_files[0]
    size = weights.stat().st_size
    there = machines.cache("edge") / "pepper" / "models" / heavy.content_hash
    with joined(machines) as hosts:
        port = hosts.ask("edge", "receive", model=heavy.content_hash, name="heavy.weights", size=size)
        with hosts.stream("edge", port) as peer:
            peer.sendall(weights.read_bytes()[: size // 2])
            peer.shutdown(socket.SHUT_RDWR)
        ship(hosts, "edge", heavy)
        assert (there / "heavy.weights").read_bytes() == weights.read_bytes()
        fetched = (there / "heavy.weights").stat().st_mtime_ns
        ship(hosts, "edge", heavy)
        assert (there / "heavy.weights").stat().st_mtime_ns == fetched
        (there / "heavy.weights").write_bytes(bytes(np.random.default_rng(0).bytes(size)))
        config = composed("device=local", "device.threads=1", *QUICK)
        device = replace(here().resolve(config.device), host="edge")
        (profile,) = measured_on(hosts, Block(heavy, device, config.measure, (config.load,)))
        assert profile.status == "FINISHED", profile.reasons
        assert (there / "heavy.weights").read_bytes() == weights.read_bytes()


def of_ir(model: onnx.ModelProto) -> None:
    model.ir_version = 99


def of_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 99


def of_an_operator(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "Recent"


WRITTEN: dict[str, tuple[Callable[[onnx.ModelProto], None], str]] = {
    "IR version": (of_ir, r"reads models of IR version \d+ and below, this one has 99; pip install --upgrade onnx"),
    "opset": (of_opset, r"reads opset \d+ and below of ai\.onnx, the model has 99; pip install --upgrade onnx"),
    "operator": (of_an_operator, r"has no operator Recent of ai\.onnx; pip install --upgrade onnx"),
}


@pytest.mark.parametrize("change", WRITTEN)
def test_what_onnxruntime_here_does_not_read_is_said(tmp_path: Path, change: str) -> None:
    model, (changed, said) = mlp(8), WRITTEN[change]
    onnx.save(model, tmp_path / "model.onnx")
    assert unreadable(**asdict(needs_of(tmp_path / "model.onnx"))) is None
    changed(model)
    onnx.save(model, tmp_path / "model.onnx")
    assert re.search(said, str(unreadable(**asdict(needs_of(tmp_path / "model.onnx")))))


def test_operators_of_a_models_own_are_its_own_and_those_in_bodies_count(tmp_path: Path) -> None:
    own = onnx.helper.make_function(
        "mine", "Own", ["x"], ["y"], [onnx.helper.make_node("Exp", ["x"], ["y"])], [onnx.helper.make_opsetid("", 17)]
    )
    body = onnx.helper.make_graph(
        [onnx.helper.make_node("Neg", ["x"], ["z"])], "body", [], [onnx.helper.make_tensor_value_info("z", 1, [1])]
    )
    branch = onnx.helper.make_node("If", ["c"], ["o"], then_branch=body, else_branch=body)
    nodes = [onnx.helper.make_node("Own", ["x"], ["y"], domain="mine"), branch]
    model = make_model(nodes, {"x": [1], "c": []}, {"y": [1]})
    model.functions.append(own)
    onnx.save(model, tmp_path / "model.onnx")
    assert needs_of(tmp_path / "model.onnx").operators == (":Exp", ":If", ":Neg")


@pytest.mark.slow
def test_a_host_is_brought_no_model_that_its_onnxruntime_does_not_read(machines: Machines, tmp_path: Path) -> None:
    model = mlp(8)
    of_ir(model)
    onnx.save(model, tmp_path / "recent.onnx")
    config = composed("device=local", "device.threads=1", *QUICK)
    device = replace(here().resolve(config.device), host="edge")
    found = find_model(ModelConfig(str(tmp_path / "recent.onnx")))
    with (
        joined(machines) as hosts,
        pytest.raises(DeviceError, match=f"^host edge: onnxruntime .* {WRITTEN['IR version'][1]}"),
    ):
        measured_on(hosts, Block(found, device, config.measure, (config.load,)))
    assert not (machines.cache("edge") / "pepper" / "models" / found.content_hash).exists()


@pytest.mark.slow
def test_a_host_without_room_is_brought_nothing(machines: Machines, heavy: ModelFile) -> None:
    with joined(machines) as hosts:
        given = {"model": heavy.content_hash, "name": "heavy.onnx", "size": 2**60}
        with pytest.raises(DeviceError, match=r" kB are free, the model takes [1-9][\d,]* kB more; make room there"):
            hosts.ask("twin", "receive", **given)
    heavy.weight_files[0].unlink()
    with joined(machines) as hosts, pytest.raises(MeasureError, match=r"heavy\.weights: No such file"):
        ship(hosts, "twin", heavy)


@pytest.mark.slow
def test_who_has_no_certificate_brings_nothing(machines: Machines, heavy: ModelFile) -> None:
    with joined(machines) as hosts:
        port = hosts.ask("twin", "receive", model=heavy.content_hash, name="heavy.onnx", size=100)
        with socket.create_connection((hosts.address_of("twin"), port), timeout=10) as peer:
            peer.sendall(bytes(100))
            with suppress(ConnectionResetError):
                while peer.recv(1000):  # an alert, at most
                    continue
        assert hosts.ask("twin", "held", model=heavy.content_hash, files={"heavy.onnx": 100}) == {"heavy.onnx": 0}


@pytest.mark.parametrize(
    ("model", "name"), [("../x", "file"), ("0" * 64, "../file"), ("0" * 64, "/file"), ("0" * 64, "")]
)
def test_nothing_is_written_beside_the_models(model: str, name: str) -> None:
    with pytest.raises(ModelError):
        held.receive(model, name, 1)
