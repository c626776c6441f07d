"""What a stage costs besides its inference, predicted and measured: the wait for the device, and the work of messages.

Parts that compute next to nothing (the greatest of many numbers) run on the devices of the default fleet, one alone
or two in turn, idle and under load. One request at a time, each after a random pause, so that it meets a throttled
device at any point of its cycle: latency, without the inferences. A stream: time between two answers, without the
inference. Reference: what pepper.latency.stage_costs says of the device, which placements count with; but for what
empty caches cost, since such parts empty none.

    python -m benchmarks.stage_costs
"""

import argparse
import itertools
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from benchmarks.common import composition, print_table
from pepper.config import PepperConfig
from pepper.devices.calibration import calibrate
from pepper.devices.cores import resolve
from pepper.execution.layout import Layout
from pepper.execution.pipeline import Network
from pepper.execution.pool import StagePool
from pepper.execution.runner import Runner
from pepper.execution.trials import PAUSE_S, Sample, one_at_a_time, saturated, steps
from pepper.fleet import Fleet, FleetDevice, Link, everywhere
from pepper.graph.cuts import find_cuts
from pepper.graph.load import load_graph
from pepper.graph.model import find_model
from pepper.graph.running import random_inputs, run_whole
from pepper.latency.features import Setting
from pepper.latency.stage_costs import COLD_MS, handling_ms, wait_ms
from pepper.planning.fleets import assemble
from pepper.planning.settings import setting
from pepper.planning.splitting import Splitter
from pepper.sweep.cells import Cell

PLANS = (("server",), ("edge",), ("camera",), ("camera", "server"), ("server", "camera"), ("edge", "server"))
LOADS = ("idle", "cpu75")
TIME_LIMIT_S = 60.0


def write_model(folder: Path, numbers: int) -> Path:
    """Write the model: two operators with a cut between them, that much goes in and over the cut."""
    nodes = [
        helper.make_node("Relu", ["x"], ["h"]),
        helper.make_node("ReduceMax", ["h"], ["y"], axes=[1], keepdims=1),
    ]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, numbers])
    wanted = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1])
    graph = helper.make_graph(nodes, "greatest", [given], [wanted])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    file = folder / f"greatest{numbers}.onnx"
    onnx.save(model, file)
    return file


def measure(runner: Runner, sample: Sample, seconds: float) -> tuple[float, float]:
    """Return the mean latency of single requests and the time between the answers of a stream, ms, both without
    what the inferences take (of the stream: the longest of them)."""
    one_at_a_time(runner, [sample], 0.2, 5)
    single = one_at_a_time(runner, [sample], seconds, 5, longest_pause_s=PAUSE_S)
    over = [answer.latency_ms - sum(steps(answer).compute) for answer in single.answers]
    stream = saturated(runner, [sample], seconds, 30)
    return float(np.mean(over)), 1000 / stream.throughput_per_s - max(stream.steps(mean=True).compute)


def predict(settings: Sequence[Setting], sent_bytes: int) -> tuple[float, float]:
    """Return what is predicted of the same, where nothing has emptied the caches."""
    handling = [float(handling_ms(one, np.array(sent_bytes))) for one in settings]
    return sum(handling) + sum(wait_ms(one) - COLD_MS for one in settings), max(handling)


def setting_of(config: PepperConfig, device: FleetDevice) -> Setting:
    assert device.device is not None
    assert device.load is not None
    spec = resolve(device.device)
    cell = Cell(config.model, find_model(config.model), spec, device.load, config.measure)
    return setting(cell, calibrate(spec))


def run(
    config: PepperConfig, devices: Mapping[str, FleetDevice], layouts: Sequence[Layout], sample: Sample, seconds: float
) -> list[tuple[float, float]]:
    """Measure each layout on these devices."""
    found = []
    with (
        tempfile.TemporaryDirectory() as home,
        StagePool(Fleet(devices, everywhere(devices, Link())), config.measure.session, TIME_LIMIT_S) as pool,
        closing(Network(pool.fleet, Path(home))) as network,
    ):
        pool.load(running=True)
        with Runner(pool, network, layouts[0], time_limit_s=TIME_LIMIT_S, in_flight=6) as runner:
            for layout in layouts:
                if runner.layout != layout:
                    runner.move(layout)
                found.append(measure(runner, sample, seconds))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kilobytes", nargs="+", type=int, default=[1, 200, 800, 3200], help="of the tensors")
    parser.add_argument("--seconds", type=float, default=1.5, help="of each trial (default: 1.5)")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kilobytes, load in itertools.product(options.kilobytes, LOADS):
            file = write_model(folder, 250 * kilobytes)
            graph = load_graph(file)
            inputs = random_inputs(graph)
            splitter = Splitter(graph, folder / f"{kilobytes}-{load}")
            layouts = [splitter.layout(find_cuts(graph)[: len(plan) - 1], list(plan)) for plan in PLANS]
            overrides = ["model=onnx", f"model.path={file}", "link=wifi"]
            overrides += [f"fleet.devices.{device}.load={load}" for device in ("server", "edge", "camera")]
            made = composition(*overrides)
            config, devices = made.config, assemble(made).devices
            settings = {name: setting_of(config, device) for name, device in devices.items()}
            sample = Sample(inputs, run_whole(graph, inputs, 1))
            for plan, measured in zip(PLANS, run(config, devices, layouts, sample, options.seconds), strict=True):
                predicted = predict([settings[device] for device in plan], 1000 * kilobytes)
                row = [" - ".join(plan), load, f"{kilobytes}"]
                for there, here in zip(predicted, measured, strict=True):
                    row += [f"{here:.2f}", f"{there:.2f}", f"{there / here - 1:+.0%}"]
                rows.append(row)
    print_table(
        "besides the inferences",
        ["plan", "load", "kB", "latency ms", "predicted", "error", "a result ms", "predicted", "error"],
        rows,
    )


if __name__ == "__main__":
    main()
