"""What a pipeline costs beyond its parts: latency a hop, and throughput against the busiest core's own limit.

Each model runs in 2 and in 4 parts of nearly equal work on two unthrottled cores, joined by free links, stages
taking turns (first core, second, first, second). Reference: every part alone on its core, in pepper's own harness,
median latency, in the same round. One request: its latency over the sum of those medians, and what is left per hop
(a pipeline of n stages has n + 1: the driver is at both ends). A stream: stages on one core cannot overlap, so the
limit is the core with the larger sum of parts, one result every so many ms; the driver gets no core of its own.
What is missing went to messages and to caches that others have emptied (the CPU time that all stages took for a
request of the stream, over the parts alone), to the driver (its own CPU time a request: it sends, receives and
compares), and to waits (the rest).

    python -m benchmarks.pipeline_overhead --models resnet50
"""

import argparse
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.common import composed, print_table
from pepper.config import DeviceConfig, ModelConfig, PepperConfig
from pepper.devices import host
from pepper.devices.device import DeviceSpec
from pepper.execution.layout import Layout
from pepper.execution.pipeline import Network
from pepper.execution.pool import IDLE, StagePool, specs
from pepper.execution.runner import Runner
from pepper.execution.trials import Sample, one_at_a_time, saturated
from pepper.fleet import Fleet, FleetDevice, Link, everywhere
from pepper.graph.balance import balanced_cuts
from pepper.graph.characteristics import Characteristics
from pepper.graph.cuts import find_cuts
from pepper.graph.load import load_graph
from pepper.graph.model import find_model
from pepper.graph.running import random_inputs, run_whole
from pepper.graph.split import split
from pepper.measure.launcher import Bench

DEVICES = ("first", "second")


class Case:
    """A model in so many parts, on two cores.

    Args:
        config: The default measurement, with the model.
        parts: How many.
        folder: For the parts and sockets.
    """

    def __init__(self, config: PepperConfig, parts: int, folder: Path) -> None:
        self._config = config
        self._folder = folder
        graph = load_graph(config.model.path)
        macs = np.diff(Characteristics(graph).cumulative_macs).tolist()
        manifest = split(graph, balanced_cuts(graph, find_cuts(graph), parts, macs), folder / "parts")
        cores = host.allowed_cores()
        devices = {
            name: FleetDevice(DeviceConfig(name=name, cores=[core], threads=1), IDLE)
            for name, core in zip(DEVICES, (cores[0], cores[-1]), strict=True)
        }
        self._fleet = Fleet(devices, everywhere(DEVICES, Link()))
        self._specs = specs(self._fleet)
        self._layout = Layout.of(manifest, folder / "parts", [DEVICES[k % 2] for k in range(parts)])
        inputs = random_inputs(graph)
        self._sample = Sample(inputs, run_whole(graph, inputs, 1))

    def alone(self) -> list[float]:
        """Return each part's median latency alone on its core, ms."""
        return [self._profile(part.file, self._specs[part.device]) for part in self._layout.parts]

    def _profile(self, file: Path, spec: DeviceSpec) -> float:
        with Bench(find_model(ModelConfig(path=str(file))), spec, self._config.measure, None) as bench:
            return bench.profile(IDLE).metrics["latency_p50_ms"]

    def together(self, seconds: float) -> tuple[float, float, float, float, float]:
        """Return one request's median latency and time inside of the stages (ms), and of a stream the stages' and the
        driver's CPU time a request (ms) and results a second."""
        with ExitStack() as stack:
            home = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=self._folder)))
            pool = stack.enter_context(StagePool(self._fleet, self._config.measure.session, 60.0))
            network = Network(pool.fleet, home)
            stack.callback(network.close)
            runner = stack.enter_context(Runner(pool, network, self._layout, time_limit_s=60.0))
            one_at_a_time(runner, [self._sample], 0.3, 5)
            single = one_at_a_time(runner, [self._sample], seconds, 20)
            before_ms, driver_s = _cpu_ms(runner), time.process_time()
            stream = saturated(runner, [self._sample], seconds, 30)
            driver_ms = 1000 * (time.process_time() - driver_s) / len(stream.answers)
            cpu_ms = (_cpu_ms(runner) - before_ms) / len(stream.answers)
            if max(single.difference, stream.difference) > 1e-4:
                raise SystemExit(f"{self._config.model.name}: the parts do not compute what the whole does")
            inside_ms = sum(single.steps().compute)
            return float(np.median(single.latency_ms)), inside_ms, cpu_ms, driver_ms, stream.throughput_per_s


def _cpu_ms(runner: Runner) -> float:
    return 1000 * sum(float(usage["cpu_s"]) for usage in runner.usage())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["squeezenet", "googlenet", "resnet50"])
    parser.add_argument("--parts", nargs="+", type=int, default=[2, 4])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each trial of a round")
    options = parser.parse_args()
    rows = []
    for model in options.models:
        for parts in options.parts:
            with tempfile.TemporaryDirectory() as folder:
                case = Case(composed(f"model={model}"), parts, Path(folder))
                rounds = [(case.alone(), *case.together(options.seconds)) for _ in range(options.rounds)]
            sums = [sum(alone) for alone, *_ in rounds]
            limits = [1000 / max(sum(alone[0::2]), sum(alone[1::2])) for alone, *_ in rounds]
            rows.append(
                [
                    model,
                    f"{parts}",
                    f"{median(sums):.2f}",
                    f"{median(latency for _, latency, *_ in rounds):.2f}",
                    f"{median(latency / alone for alone, (_, latency, *_) in zip(sums, rounds, strict=True)):.3f}",
                    f"{median((latency - inside) / (parts + 1) * 1000 for _, latency, inside, *_ in rounds):.0f}",
                    f"{median(cpu / alone for alone, (*_, cpu, _, _) in zip(sums, rounds, strict=True)):.3f}",
                    f"{median(driver for *_, driver, _ in rounds):.2f}",
                    f"{median(limits):.1f}",
                    f"{median(rate for *_, rate in rounds):.1f}",
                    f"{median(rate / limit for limit, (*_, rate) in zip(limits, rounds, strict=True)):.1%}",
                ]
            )
    print_table(
        f"two cores, medians of {options.rounds} rounds",
        [
            *("model", "stages", "parts alone ms", "latency ms", "ratio", "us a hop"),
            *("CPU to alone", "driver ms", "limit /s", "achieved /s", "of limit"),
        ],
        rows,
    )


if __name__ == "__main__":
    main()
