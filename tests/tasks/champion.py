"""A desk with a champion trained on made-up measurements, a model to place and a fleet."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import onnx
import pytest
from harness import Desk, composed, make_model
from onnx import helper

from pepper.devices.calibration import Calibration
from pepper.devices.device import DeviceSpec
from pepper.hosts.local import LocalHost
from pepper.latency import collect
from pepper.latency.evaluation import leave_one_out
from pepper.latency.features import FEATURES
from pepper.latency.intervals import Interval
from pepper.latency.model import Hyperparameters, LatencyModel
from pepper.latency.training import trainer
from pepper.tracking.record import Dataset, NewVersion, Record
from pepper.tracking.registry import Registry, promotion, write_signature
from pepper.tracking.store import Store
from pepper.tracking.writer import write
from tests.latency.measured import measured

FLEET = """# A test's: two shares of one core.
name: pair
devices:
  camera: {device: share25, cores: [0]}
  server: {device: share100, cores: [-1]}
source: camera
sink: camera
"""
SHALLOW = Hyperparameters(rounds=20, bags=1)


def convnet(depth: int = 6, channels: int = 32) -> onnx.ModelProto:
    """Convolutions in a row that halve what they are given: sending the end is cheaper than the beginning."""
    rng = np.random.default_rng(0)
    weights, nodes, name = {}, [], "input"
    for layer in range(depth):
        before = 3 if layer == 0 else channels
        weights[f"w{layer}"] = rng.random((channels, before, 3, 3), dtype=np.float32) / channels
        strides = [2, 2] if layer % 2 else [1, 1]
        nodes.append(helper.make_node("Conv", [name, f"w{layer}"], [f"c{layer}"], pads=[1, 1, 1, 1], strides=strides))
        nodes.append(helper.make_node("Relu", [f"c{layer}"], [f"r{layer}"]))
        name = f"r{layer}"
    size = 64 // 2 ** (depth // 2)
    return make_model(nodes, {"input": [1, 3, 64, 64]}, {name: [1, channels, size, size]}, weights)


def register(desk: Desk, errors: Sequence[float]) -> None:
    """Train a small latency model on made-up measurements and register it, the first time as the champion.

    Args:
        desk: Where to.
        errors: For each version the standard deviation of an error that its training reports besides its own.
    """
    rows = measured(models=4, parts=6)
    model = LatencyModel.fit(rows.features, rows.p50_ms, rows.p95_ms, SHALLOW)
    unseen = leave_one_out(rows, "model", trainer(SHALLOW))
    overrides = (f"tracking.uri={desk.uri}", f"tracking.folder={desk.folder}/mlruns")
    store = Store(composed(*overrides, f"tracking.artifacts={desk.folder}/mlruns/artifacts").tracking)
    registry = Registry(store, "pepper-latency")
    dataset = Dataset("profiles", rows.digest, "dataset/rows.parquet", ("macs",), len(rows))
    version = NewVersion("pepper-latency", {"dataset_digest": rows.digest})
    folder = desk.folder / "training"
    replace(model, interval=Interval.around(rows.p50_ms / unseen)).save(folder / "model")
    write_signature(folder / "model", FEATURES, ("p50_ms",))
    collect.write(rows, folder / "dataset" / "train.parquet")
    table = collect.to_frame(rows)[["model", "part", "device", "load", "p50_ms"]]
    for error in errors:
        noise = np.exp(error * np.random.default_rng(0).standard_normal(len(rows)))
        table.assign(predicted_without_model_ms=unseen * noise).to_csv(folder / "predictions.csv", index=False)
        write(store, Record(kind="training", name="test", note="n", artifacts=folder, dataset=dataset, version=version))
    registry.promote(promotion(1, None, "first"))


def calibrated(spec: DeviceSpec) -> Calibration:
    """As if measured: other work on the machine must not decide where parts go."""
    gflops = 100 * spec.share
    return Calibration(gflops, gflops, gflops / 5, spec.share, 1, None, 0, 0, 0, [], "test", "none")


@contextmanager
def furnished(desk: Desk, errors: Sequence[float]) -> Iterator[Desk]:
    """Give a desk the champion, the model ``net`` and the fleet ``pair``; devices need not be calibrated meanwhile."""
    register(desk, errors)
    onnx.save(convnet(), desk.folder / "net.onnx")
    (desk.options / "model" / "net.yaml").write_text(f"# A test's.\nname: net\npath: {desk.folder}/net.onnx\n")
    (desk.options / "fleet").mkdir()
    (desk.options / "fleet" / "pair.yaml").write_text(FLEET)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalHost, "calibrate", lambda self, spec, *, renew=False: calibrated(spec))
        yield desk
