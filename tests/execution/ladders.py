"""A small model in parts, and unthrottled devices to run them on."""

from pathlib import Path

import numpy as np
import onnx
from harness import make_model
from onnx import helper

from pepper.config import DeviceConfig
from pepper.devices import host
from pepper.execution.layout import Layout
from pepper.execution.pipeline import Network
from pepper.execution.pool import IDLE
from pepper.execution.trials import Sample
from pepper.fleet import Fleet, FleetDevice, Link, everywhere
from pepper.graph.cuts import cut_behind
from pepper.graph.load import load_graph
from pepper.graph.running import random_inputs, run_whole
from pepper.graph.split import split

NAMES = ("a", "b", "c")
WIDTH = 32


def ladder(rows: int) -> onnx.ModelProto:
    """Four steps; the first one's output is read by the third, too, and is an output of the model itself."""
    rng = np.random.default_rng(0)
    weights = {f"w{k}": rng.standard_normal((WIDTH, WIDTH)).astype(np.float32) for k in range(4)}
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["first"]),
        helper.make_node("MatMul", ["first", "w1"], ["second"]),
        helper.make_node("Add", ["second", "first"], ["third"]),
        helper.make_node("MatMul", ["third", "w3"], ["y"]),
    ]
    shape = [rows, WIDTH]
    return make_model(nodes, {"x": shape}, {"y": shape, "first": shape}, weights)


class Bench:
    """The model, its layouts by devices, and a fleet whose devices may have one core in common.

    Args:
        folder: For its files.
        rows: Of each tensor.
    """

    def __init__(self, folder: Path, rows: int = 2) -> None:
        file = folder / "ladder.onnx"
        onnx.save(ladder(rows), file)
        self.folder = folder
        self.file = file
        self.graph = load_graph(file)
        self._cuts = {2: [2], 3: [1, 2], 4: [1, 2, 3], 1: []}
        core = host.allowed_cores()[-1]
        devices = {name: FleetDevice(DeviceConfig(name=name, cores=[core], threads=1), IDLE) for name in NAMES}
        self.fleet = Fleet(devices, everywhere(NAMES, Link(1000, 0.1)), "a", "a")
        self.samples = []
        for seed in range(3):
            inputs = random_inputs(self.graph, seed)
            self.samples.append(Sample(inputs, run_whole(self.graph, inputs, 1)))

    def layout(self, *devices: str) -> Layout:
        """The model in as many parts as devices."""
        folder = self.folder / f"{len(devices)}"
        cuts = [cut_behind(self.graph, position) for position in self._cuts[len(devices)]]
        return Layout.of(split(self.graph, cuts, folder), folder, devices)

    def network(self, folder: Path, queue: int = 4, port: int | None = None, fleet: Fleet | None = None) -> Network:
        """Queues and links in a folder."""
        return Network(fleet or self.fleet, folder, queue, port)
