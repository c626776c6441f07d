"""Models on their way to a host: fetched once, gone on with where that was cut, and fetched again if damaged."""

import socket
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from harness import QUICK, composed, mlp
from machines import Machines

from pepper.config import ModelConfig
from pepper.errors import DeviceError, MeasureError, ModelError
from pepper.graph.model import ModelFile, find_model
from pepper.hosts import held
from pepper.hosts.local import here
from pepper.hosts.reach import bundle_of
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


@pytest.mark.slow
def test_a_host_without_room_is_brought_nothing(machines: Machines, heavy: ModelFile) -> None:
    with joined(machines) as hosts:
        given = {"model": heavy.content_hash, "name": "heavy.onnx", "size": 2**60}
        with pytest.raises(DeviceError, match=r"MiB are free.*make room there"):
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
