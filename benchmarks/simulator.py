"""Do simulated queues foretell what requests take that arise at random?

A model in two parts on two cores, and in three that return to the first, is run as task=execute runs it: a saturated
stream says what it can give, then requests arise at random (Poisson) at 50, 80 and 95 % of that. Beside it the same
arrivals are played (`pepper.placement.queueing`), with each part's time as the saturated stream had it: always its mean
("constant", as task=place plays them), or drawn from what was measured ("drawn"). What a device needs for a request
besides its parts is what the stream's own rate says. Figures are simulated over measured percentiles.

    python -m benchmarks.simulator --models squeezenet googlenet
"""

import argparse
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt

from benchmarks.common import composed, print_table
from pepper.config import DeviceConfig, PepperConfig
from pepper.devices import host
from pepper.execution.layout import Layout
from pepper.execution.pipeline import Network
from pepper.execution.pool import IDLE, StagePool
from pepper.execution.runner import Runner
from pepper.execution.trials import Sample, Trial, at_rate, one_at_a_time, poisson_times, saturated, steps
from pepper.fleet import Fleet, FleetDevice, Link, everywhere
from pepper.graph.balance import balanced_cuts
from pepper.graph.characteristics import Characteristics
from pepper.graph.cuts import find_cuts
from pepper.graph.load import load_graph
from pepper.graph.running import random_inputs, run_whole
from pepper.graph.split import split
from pepper.placement.queueing import Visit, answered_ms
from pepper.planning.placing import UTILISATIONS

DEVICES = ("first", "second")
PERCENTILES = (50, 95, 99)
Floats = npt.NDArray[np.float64]


def fleet(shares: tuple[float, float]) -> Fleet:
    """Two cores of this machine, or shares of them."""
    cores = host.allowed_cores()
    devices = {
        name: FleetDevice(DeviceConfig(name=name, cores=[core], threads=1, share=share, kind=_kind(share)), IDLE)
        for name, core, share in zip(DEVICES, (cores[0], cores[-1]), shares, strict=True)
    }
    return Fleet(devices, everywhere(DEVICES, Link()))


def _kind(share: float) -> str:
    return "emulated" if share < 1 else "local"


def works_of(single: Trial, stream: Trial, devices: tuple[str, ...]) -> list[Visit]:
    """What a request asks of the devices, by the times of the saturated stream's parts and that stream's rate."""
    compute_ms = np.array([steps(answer).compute for answer in stream.latest])
    mean_ms = compute_ms.mean(axis=0)
    taken = {name: sum(ms for ms, at in zip(mean_ms, devices, strict=True) if at == name) for name in devices}
    besides_ms = max(0.0, 1000 / stream.throughput_per_s - max(taken.values()))
    transfer_ms = single.steps().transfer
    each_ms = {name: besides_ms / devices.count(name) for name in devices}
    works: list[Visit] = []
    for number, name in enumerate(devices):
        delay_ms = max(0.0, transfer_ms[number] - each_ms[name])
        works.append(Visit("driver", 0.0, delay_ms, (len(works) - 1,) if works else ()))
        works.append(Visit(name, float(mean_ms[number] + each_ms[name]), 0.0, (len(works) - 1,)))
    works.append(Visit("driver", 0.0, transfer_ms[-1], (len(works) - 1,)))
    return works


def drawn_ms(works: list[Visit], stream: Trial, count: int) -> Floats:
    """For each request the times of its parts, as one request of the stream had them, shape (count, len(works))."""
    compute_ms = np.array([steps(answer).compute for answer in stream.latest])
    chosen = compute_ms[np.random.default_rng(0).integers(len(compute_ms), size=count)]
    busy_ms = np.array([[work.busy_ms for work in works]] * count)
    busy_ms[:, 1::2] += chosen - compute_ms.mean(axis=0)
    return np.asarray(np.maximum(busy_ms, 0.0))


def measure(config: PepperConfig, parts: int, shares: tuple[float, float], seconds: float, seed: int) -> list[Floats]:
    """Return, by utilisation, ratios of simulated to measured percentiles, shape (2, 3): constant, drawn."""
    graph = load_graph(config.model.path)
    macs = np.diff(Characteristics(graph).cumulative_macs).tolist()
    inputs = random_inputs(graph)
    sample = [Sample(inputs, run_whole(graph, inputs, 1))]
    found = []
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        manifest = split(graph, balanced_cuts(graph, find_cuts(graph), parts, macs), home / "parts")
        devices = tuple(DEVICES[k % 2] for k in range(parts))
        layout = Layout.of(manifest, home / "parts", list(devices))
        pool = stack.enter_context(StagePool(fleet(shares), config.measure.session, 60.0))
        network = Network(pool.fleet, home)
        stack.callback(network.close)
        runner = stack.enter_context(Runner(pool, network, layout, time_limit_s=60.0))
        one_at_a_time(runner, sample, 0.3, 5)
        single = one_at_a_time(runner, sample, 2.0, 20)
        stream = saturated(runner, sample, seconds / 2, 60)
        works = works_of(single, stream, devices)
        for utilisation in UTILISATIONS:
            rate_per_s = utilisation * stream.throughput_per_s
            trial = at_rate(runner, sample, seconds, rate_per_s, seed)
            arise_ms = [at_ns / 1e6 for at_ns in poisson_times(rate_per_s, seconds, seed)]
            measured = np.percentile(trial.latency_ms, PERCENTILES)
            played = [
                answered_ms(works, arise_ms, busy_ms) - arise_ms
                for busy_ms in (None, drawn_ms(works, stream, len(arise_ms)))
            ]
            found.append(np.array([np.percentile(each, PERCENTILES) / measured for each in played]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["squeezenet", "googlenet", "resnet50"])
    parser.add_argument("--parts", nargs="+", type=int, default=[2, 3])
    parser.add_argument("--shares", nargs=2, type=float, default=[1.0, 1.0], help="of the two cores")
    parser.add_argument("--seconds", type=float, default=20.0, help="for which requests arise, at each rate")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rows = []
    for model in options.models:
        for parts in options.parts:
            config = composed(f"model={model}")
            rounds = [
                measure(config, parts, tuple(options.shares), options.seconds, seed) for seed in range(options.rounds)
            ]
            for number, utilisation in enumerate(UTILISATIONS):
                for way, times in enumerate(("constant", "drawn")):
                    ratios = np.array([each[number][way] for each in rounds])
                    cells = [f"{median(of):.2f} ({of.min():.2f} .. {of.max():.2f})" for of in ratios.T]
                    rows.append([model, f"{parts}", f"{utilisation:.0%}", times, *cells])
    print_table(
        f"simulated over measured, medians of {options.rounds} rounds (range), {options.seconds:g} s a rate",
        ["model", "parts", "load", "times", *(f"p{percentile}" for percentile in PERCENTILES)],
        rows,
    )


if __name__ == "__main__":
    main()
