"""What do branches that run side by side gain over a chain, under the same costs?

Models with branches are placed on whole cores of this machine, connected by its memory, once as a chain and once as
task=place place.graph=dag does. Reference: the chain's proven optimum; the ratio is never above 1, as the chain's plan
is taken where no better one is found. Costs are predictions: of the physical estimate behind the latency models (every
factor 1), from this machine's calibration; so they are as true as that is, and --execute measures both plans.
Three models come from the onnx package; a U-Net, a detector with three heads and an encoder with a decoder are made
here. A last line solves a made-up problem of 500 regions on 10 devices.

    python -m benchmarks.dag_placement
    python -m benchmarks.dag_placement --execute
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from benchmarks.common import composed, print_table
from pepper.config import DeviceConfig, LoadConfig, PepperConfig
from pepper.console.tables import figure
from pepper.execution.pipeline import Network
from pepper.execution.pool import StagePool
from pepper.execution.runner import Runner
from pepper.execution.trials import PAUSE_S, Sample, one_at_a_time, saturated
from pepper.fleet import Fleet, FleetDevice, Link, everywhere
from pepper.graph.model import find_model
from pepper.graph.running import random_inputs, run_whole
from pepper.graph.verify import telling
from pepper.hosts.local import here
from pepper.latency.features import Values
from pepper.latency.roofline import TERMS, Roofline
from pepper.placement.branched import OUTSIDE, BranchedProblem, Flow
from pepper.placement.branched_plan import branched_plan
from pepper.placement.branched_search import solve_branched
from pepper.placement.chain import solve
from pepper.placement.objectives import OBJECTIVES, Objective
from pepper.placement.plan import Plan
from pepper.placement.problem import ChainProblem, DeviceKind, Links
from pepper.planning.branching import branched_problem
from pepper.planning.forecast import Forecast
from pepper.planning.posing import chain_problem, origin_of
from pepper.planning.splitting import Splitter

PACKAGED = ("googlenet", "inception_v2", "densenet121")
LINK = Link(10_000.0, 0.05)
TIMED = [name for name, objective in OBJECTIVES.items() if not objective.per_joule]
SAMPLES, LEAST, SECONDS = 2, 20, 1.0
SCALE_BRANCHES, SCALE_DEPTH, SCALE_MODULES, SCALE_DEVICES = 8, 12, 5, 10


class Estimate:
    """The physical estimate in the place of a latency model."""

    def __init__(self) -> None:
        self._roofline = Roofline(np.ones(len(TERMS)))

    def mean_ms(self, features: Values) -> Values:
        """Return mean times."""
        return self._roofline.mean_ms(features)

    def outside(self, features: Values) -> npt.NDArray[np.bool_]:
        """Return that nothing lies outside: nothing was trained."""
        return np.zeros((len(features), 1), dtype=bool)


class Net:
    """Adds convolutions to a graph."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}
        self._rng = np.random.default_rng(0)

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add an operator; return its output's name."""
        output = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def conv(self, x: str, into: int, out: int, stride: int = 1) -> str:
        """Add a convolution and its activation."""
        name = f"w{len(self.weights)}"
        self.weights[name] = (self._rng.random((out, into, 3, 3), dtype=np.float32) - 0.5) / into
        return self.op("Relu", self.op("Conv", x, name, pads=[1, 1, 1, 1], strides=[stride, stride]))

    def save(self, file: Path, inputs: dict[str, list[int]], outputs: list[str]) -> Path:
        """Write the model."""
        values = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, shape) for n, shape in inputs.items()]
        results = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [None] * 4) for n in outputs]
        weights = [onnx.numpy_helper.from_array(value, name) for name, value in self.weights.items()]
        graph = helper.make_graph(self.nodes, file.stem, values, results, weights)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), file)
        return file


def unet(folder: Path) -> Path:
    net, x, skips = Net(), "image", []
    for level, width in enumerate((16, 32, 64)):
        x = net.conv(net.conv(x, 3 if not level else width // 2, width), width, width)
        skips.append((net.conv(net.conv(x, width, width), width, width), width))
        x = net.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = net.conv(x, 64, 128)
    net.weights["scales"] = np.array([1, 1, 2, 2], np.float32)
    below = 128
    for skip, width in reversed(skips):
        up = net.op("Resize", x, "", "scales", mode="nearest")
        x, below = net.conv(net.op("Concat", up, skip, axis=1), below + width, width), width
    return net.save(folder / "unet.onnx", {"image": [1, 3, 96, 96]}, [x])


def detector(folder: Path) -> Path:
    net, x, heads, before = Net(), "image", list[str](), 3
    for width in (16, 32, 64, 96):
        x, before = net.conv(net.conv(x, before, width, 2), width, width), width
        if width > 16:
            heads.append(net.conv(net.conv(net.conv(x, width, width), width, width), width, 24))
    return net.save(folder / "detector.onnx", {"image": [1, 3, 192, 192]}, heads)


def encoder_decoder(folder: Path) -> Path:
    """Two inputs, each with layers of its own, and a decoder that reads the encoder at each of its layers."""
    net, encoded, decoded = Net(), "source", "target"
    for layer in range(5):
        encoded = net.conv(encoded, 3 if not layer else 48, 48)
        if layer < 3:
            decoded = net.conv(decoded, 3 if not layer else 48, 48)
    for _ in range(3):
        decoded = net.conv(net.op("Concat", decoded, encoded, axis=1), 96, 48)
    shapes = {"source": [1, 3, 64, 64], "target": [1, 3, 64, 64]}
    return net.save(folder / "encoder_decoder.onnx", shapes, [decoded])


MADE: dict[str, Callable[[Path], Path]] = {"U-Net": unet, "detector": detector, "encoder-decoder": encoder_decoder}


def cores(count: int) -> Fleet:
    """Return whole cores of this machine."""
    allowed = here().cores()[-count:]
    names = [f"core{number}" for number in range(len(allowed))]
    devices = {
        name: FleetDevice(
            DeviceConfig(name=name, kind="emulated", cores=[core], threads=1, share=1.0), LoadConfig(0, name="idle")
        )
        for name, core in zip(names, allowed, strict=True)
    }
    return Fleet(devices, everywhere(names, LINK), names[0], names[0])


def composed_for(name: str, folder: Path) -> PepperConfig:
    chosen = [f"model={name}"] if name in PACKAGED else ["model=onnx", f"model.path={MADE[name](folder)}"]
    return composed("task=place", *chosen)


def plans(config: PepperConfig, fleet: Fleet, objective: Objective, seconds: float) -> tuple[Plan, Plan, float, int]:
    """Return the chain's plan, the one with branches side by side, how long solving that took, and its steps."""
    model = find_model(config.model)
    graph = model.graph()
    chain_forecast = Forecast(config, model, graph, fleet, Estimate())
    forecast = Forecast(config, model, graph, fleet, Estimate(), regions=True)
    problem = chain_problem(config, chain_forecast)
    origin = origin_of(config, chain_forecast, {})
    chain = Plan.of(problem, solve(problem, objective, seconds), objective, origin)
    branched = branched_problem(config, forecast, fleet)
    begun = time.perf_counter()
    found = solve_branched(branched, objective, seconds)
    took_s = time.perf_counter() - begun
    assert found is not None
    return chain, branched_plan(branched, found, objective, origin_of(config, forecast, {})), took_s, branched.n_steps


def measure(config: PepperConfig, fleet: Fleet, chosen: list[Plan], objective: Objective) -> list[float]:
    """Run plans on random inputs, in turn, and return what the objective says of each; answers must be right."""
    graph = find_model(config.model).graph()
    runs = [(inputs, run_whole(graph, inputs, 1)) for inputs in (random_inputs(graph, k) for k in range(SAMPLES))]
    _, limits = telling(graph, runs, threads=1)
    samples = [Sample(inputs, expected, limits) for inputs, expected in runs]
    values = []
    with (
        tempfile.TemporaryDirectory() as home,
        closing(Network(fleet, Path(home))) as network,
        StagePool(fleet, config.measure.session, 60.0) as pool,
    ):
        splitter = Splitter(graph, Path(home) / "parts")
        for plan in chosen:
            with Runner(pool, network, splitter.planned(plan, "the plan"), time_limit_s=60.0) as runner:
                one_at_a_time(runner, samples, 0.0, LEAST // 4)
                alone = one_at_a_time(runner, samples, SECONDS, LEAST, longest_pause_s=PAUSE_S)
                stream = saturated(runner, samples, SECONDS, LEAST)
            assert max(alone.excess, stream.excess) <= 1, "an answer differs from the whole model's"
            mean_ms = float(np.mean(alone.latency_ms))
            value = objective.measured(mean_ms, stream.throughput_per_s, len(plan.parts))
            assert value is not None
            values.append(value)
    return values


def modules() -> BranchedProblem:
    """Return modules of branches, one behind the other."""
    rng = np.random.default_rng(0)
    flows, steps = [Flow(OUTSIDE, (0,), 1e4)], 1
    for _ in range(SCALE_MODULES):
        heads = [steps + branch * SCALE_DEPTH for branch in range(SCALE_BRANCHES)]
        end = steps + SCALE_BRANCHES * SCALE_DEPTH
        flows.append(Flow(steps - 1, tuple(heads), 1e4))
        flows += [Flow(k, (k + 1,), 1e4) for head in heads for k in range(head, head + SCALE_DEPTH - 1)]
        flows += [Flow(head + SCALE_DEPTH - 1, (end,), 1e4) for head in heads]
        steps = end + 1
    flows.append(Flow(steps - 1, (steps,), 100.0))
    names = [f"device{k}" for k in range(SCALE_DEVICES)]
    chain = ChainProblem.of(
        [DeviceKind(name) for name in names],
        rng.uniform(0.5, 2.0, (steps, 1)) * rng.uniform(1.0, 3.0, (1, SCALE_DEVICES)),
        np.full(steps + 1, 1e4),
        Links.uniform(SCALE_DEVICES, Link(1000.0, 0.05)),
        source=names[0],
        sink=names[0],
    )
    return BranchedProblem(chain, tuple(flows), np.full(SCALE_DEVICES, 0.05), np.zeros(SCALE_DEVICES))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=[*PACKAGED, *MADE], default=[*PACKAGED, *MADE])
    parser.add_argument("--objectives", nargs="+", choices=TIMED, default=list(TIMED))
    parser.add_argument("--devices", type=int, default=2, help="cores of this machine (default: 2)")
    parser.add_argument("--time-limit", type=float, default=10.0, help="seconds a problem (default: 10)")
    parser.add_argument("--execute", action="store_true", help="run both plans, too")
    args = parser.parse_args()
    fleet, rows = cores(args.devices), []
    with tempfile.TemporaryDirectory() as scratch:
        for name, config in [(name, composed_for(name, Path(scratch))) for name in args.models]:
            for objective in (OBJECTIVES[key] for key in args.objectives):
                chain, beside, took_s, steps = plans(config, fleet, objective, args.time_limit)
                value, rival = objective.value(beside), objective.value(chain)
                taken = beside if value < rival else chain
                row = [name, objective.name, str(steps), figure(rival), figure(min(value, rival))]
                row += [f"{min(value / rival, 1.0):.3f}", str(len(taken.parts)), f"{beside.gap:.1%}", f"{took_s:.1f}"]
                if args.execute:
                    alone, together = measure(config, fleet, [chain, taken], objective)
                    row += [figure(alone), figure(together), f"{together / alone:.3f}"]
                rows.append(row)
    header = ["model", "objective", "regions", "chain ms", "dag ms", "ratio", "parts", "gap", "solver s"]
    measured = ["chain, measured", "dag, measured", "ratio"] if args.execute else []
    print_table(f"on {args.devices} cores of this machine", [*header, *measured], rows)
    problem = modules()
    begun = time.perf_counter()
    found = solve_branched(problem, OBJECTIVES["latency"], args.time_limit)
    assert found is not None
    print(
        f"{problem.n_steps} regions on {SCALE_DEVICES} devices: {figure(found.value)} ms, at most {found.gap:.1%} above"
        f" the optimum, in {time.perf_counter() - begun:.1f} s"
    )


if __name__ == "__main__":
    main()
