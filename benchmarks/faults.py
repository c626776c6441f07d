"""Is any request lost, or answered twice, whatever happens to the stages?

Each run serves a real model in 2 to 4 parts on two devices, with queues and loads of requests of random size, and does
something to it at a random moment: kill -9 of a stage, a stage that is stopped (for good, or for a while), a link that
becomes very slow, a request with a wrong tensor, a move to another plan; or several of these. Every request must be
answered exactly once: by what the whole model computes, or (wrong tensors only) by an error. A run fails, and says
its seed, if that does not hold or if a process is left behind.

    python -m benchmarks.faults --runs 300 --seed 0 --share 0.5
"""

import argparse
import contextlib
import os
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import numpy as np
import psutil

from benchmarks.common import composed, print_table
from pepper.config import DeviceConfig, LoadConfig
from pepper.devices import host
from pepper.devices.process import Process
from pepper.errors import ExecutionError
from pepper.execution.layout import Layout
from pepper.execution.pipeline import Network
from pepper.execution.pool import StagePool
from pepper.execution.runner import Answer, Runner
from pepper.fleet import Fleet, FleetDevice, Link, everywhere
from pepper.graph.balance import balanced_cuts
from pepper.graph.characteristics import Characteristics
from pepper.graph.cuts import find_cuts
from pepper.graph.load import load_graph
from pepper.graph.rounding import Values, difference
from pepper.graph.running import random_inputs, run_whole
from pepper.graph.split import split

DEVICES = ("first", "second")
TIME_LIMIT_S = 1.0
FAULTS = ("kill", "stop", "pause", "slow link", "wrong tensor", "move")
SLOW_MBIT_S = 0.05
LATEST_S = 0.15


@dataclass
class Outcome:
    """What one run came to.

    Attributes:
        faults: What was done.
        answered: Requests answered rightly.
        refused: Requests with a wrong tensor, answered by an error.
        ended: Whether no plan was left, and the run said so.
        seconds: How long it took.
        broken: What was promised and not kept.
    """

    faults: list[str]
    answered: int = 0
    refused: int = 0
    ended: bool = False
    seconds: float = 0.0
    broken: list[str] = field(default_factory=list)


def on_cores(share: float) -> Fleet:
    """Return two devices of this machine, each with a share of its core's time."""
    cores = host.allowed_cores()
    places = dict(zip(DEVICES, (cores[0], cores[-1]), strict=True))
    devices = {
        name: FleetDevice(
            DeviceConfig(name=name, kind="emulated", cores=[core], threads=1, share=share), LoadConfig(percent=0)
        )
        for name, core in places.items()
    }
    return Fleet(devices, everywhere(DEVICES, Link(bandwidth_mbit_s=4000, latency_ms=0.2)), *DEVICES)


class Rig:
    """A model split in several ways, and a fleet to run it on, for many runs.

    Args:
        model: A model's option name.
        folder: For parts and sockets.
        fleet: The devices.
    """

    def __init__(self, model: str, folder: Path, fleet: Fleet) -> None:
        self.folder, self.fleet = folder, fleet
        graph = load_graph(composed(f"model={model}").model.path)
        macs = np.diff(Characteristics(graph).cumulative_macs).tolist()
        self.manifests = {}
        for parts in (2, 3, 4):
            home = folder / f"{parts}"
            self.manifests[home] = split(graph, balanced_cuts(graph, find_cuts(graph), parts, macs), home)
        self.samples: list[tuple[Values, Values]] = []
        for seed in range(3):
            inputs = random_inputs(graph, seed)
            self.samples.append((inputs, run_whole(graph, inputs, 1)))

    def layout(self, rng: Random, lost: frozenset[str] = frozenset()) -> Layout | None:
        """Return parts on devices that are left, or None."""
        left = [name for name in self.fleet.devices if name not in lost]
        if not left:
            return None
        home = rng.choice(list(self.manifests))
        return Layout.of(self.manifests[home], home, [rng.choice(left) for _ in self.manifests[home].parts])

    @contextlib.contextmanager
    def pool(self) -> Iterator[StagePool]:
        """Give the fleet's stages, kept from run to run."""
        with StagePool(self.fleet, composed().measure.session, 60.0) as pool:
            yield pool


def run(rig: Rig, pool: StagePool, seed: int) -> Outcome:
    """Serve requests, and do harm meanwhile; devices that were lost are whole again afterwards."""
    rng = Random(seed)
    faults = rng.choices(FAULTS, k=rng.choice((1, 1, 2, 3)))
    outcome = Outcome(faults)
    first = rig.layout(rng)
    assert first is not None
    requests = rng.randrange(10, 60)
    wrong = set(rng.sample(range(requests), faults.count("wrong tensor")))
    moves = sorted(rng.sample(range(requests), faults.count("move")))
    began = time.monotonic()
    pool.lost.clear()
    with tempfile.TemporaryDirectory(dir=rig.folder) as folder:
        network = Network(rig.fleet, Path(folder), queue=rng.choice((1, 2, 8)))
        answers: list[Answer] = []
        timers: list[threading.Timer] = []
        try:
            with Runner(
                pool,
                network,
                first,
                time_limit_s=TIME_LIMIT_S,
                replan=lambda lost: rig.layout(rng, lost),
                in_flight=rng.choice((1, 4, 32)),
            ) as runner:
                for fault in faults:
                    harm = _harm(fault, rng, runner, network)
                    if harm is not None:
                        timers.append(threading.Timer(rng.uniform(0, LATEST_S), harm))
                        timers[-1].start()
                for number in range(requests):
                    inputs = rig.samples[number % len(rig.samples)][0]
                    if number in wrong:
                        inputs = {name: value[..., :-1] for name, value in inputs.items()}
                    runner.submit(inputs)
                    if number in moves:
                        target = rig.layout(rng, frozenset(pool.lost))
                        if target is not None:
                            runner.move(target)
                while runner.pending:
                    _collect(runner, answers)
                _collect(runner, answers)
        except ExecutionError as error:
            outcome.ended = True
            if len(pool.lost) < len(DEVICES):
                outcome.broken.append(f"gave up although a device was left: {error}")
        finally:
            for timer in timers:
                timer.cancel()
                timer.join()
            network.close()
    outcome.seconds = time.monotonic() - began
    judge(rig, outcome, answers, requests, wrong)
    return outcome


def _collect(runner: Runner, answers: list[Answer]) -> None:
    while (answer := runner.take(time.monotonic_ns() + 1_000_000)) is not None:
        answers.append(answer)


def _harm(fault: str, rng: Random, runner: Runner, network: Network) -> Callable[[], None] | None:
    """Return what does the harm, at whatever stage is there by then."""
    place = rng.random()

    def signals(*numbers: int) -> None:
        stages = runner.stages
        program = stages[int(place * len(stages))].program
        assert isinstance(program, Process)
        for pause, number in enumerate(numbers):
            time.sleep(0.1 * pause)
            with contextlib.suppress(ProcessLookupError):
                os.kill(program.pid, number)

    def slow() -> None:
        for slot in network.slots.values():
            network.clock.set(slot, Link(SLOW_MBIT_S))

    return {
        "kill": lambda: signals(signal.SIGKILL),
        "stop": lambda: signals(signal.SIGSTOP),
        "pause": lambda: signals(signal.SIGSTOP, signal.SIGCONT),
        "slow link": slow,
    }.get(fault)


def judge(rig: Rig, outcome: Outcome, answers: Sequence[Answer], requests: int, wrong: Collection[int] = ()) -> None:
    """Say what is wrong with the answers to a run's requests, of which some had a wrong tensor.

    Args:
        rig: What the run was made with: requests had its samples in turn.
        outcome: Takes the counts, and what is broken.
        answers: All that came.
        requests: How many there were.
        wrong: The numbers of those that have to fail.
    """
    times = Counter(answer.seq for answer in answers)
    outcome.broken += [f"request {seq} was answered {count} times" for seq, count in times.items() if count > 1]
    if not outcome.ended:
        outcome.broken += [f"request {seq} was not answered" for seq in range(requests) if seq not in times]
    for answer in answers:
        if answer.seq in wrong:
            outcome.refused += 1
            if answer.error is None:
                outcome.broken.append(f"request {answer.seq}: a wrong tensor was not refused")
        elif answer.error is not None:
            outcome.broken.append(f"request {answer.seq} failed: {answer.error}")
        else:
            expected = rig.samples[answer.seq % len(rig.samples)][1]
            far = max(difference(value, answer.outputs[name]) for name, value in expected.items())
            outcome.answered += 1
            if far > 1e-4:
                outcome.broken.append(f"request {answer.seq}: the answer is off by {far:.2g}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0, help="of the first run; the next have the next ones")
    parser.add_argument("--model", default="squeezenet")
    parser.add_argument(
        "--share", type=float, default=1.0, help="of its core's time that each device gets (default: 1)"
    )
    options = parser.parse_args()
    outcomes: dict[int, Outcome] = {}
    with tempfile.TemporaryDirectory() as folder:
        rig = Rig(options.model, Path(folder), on_cores(options.share))
        with rig.pool() as pool:
            for seed in range(options.seed, options.seed + options.runs):
                outcomes[seed] = run(rig, pool, seed)
                for line in outcomes[seed].broken:
                    print(f"seed {seed} ({', '.join(outcomes[seed].faults)}): {line}", flush=True)
    left = psutil.Process().children(recursive=True)
    rows = []
    for fault in FAULTS:
        hit = [outcome for outcome in outcomes.values() if fault in outcome.faults]
        rows.append(
            [
                fault,
                f"{len(hit)}",
                f"{sum(o.answered for o in hit)}",
                f"{sum(o.refused for o in hit)}",
                f"{sum(o.ended for o in hit)}",
                f"{sum(bool(o.broken) for o in hit)}",
                f"{max((o.seconds for o in hit), default=0):.1f}",
            ]
        )
    print_table(
        f"{options.runs} runs from seed {options.seed}, {options.share:.0%} of a core a device;"
        f" processes left behind: {len(left)}",
        ["fault among others", "runs", "answered", "refused", "no plan left", "broken", "longest s"],
        rows,
    )
    sys.exit(1 if left or any(outcome.broken for outcome in outcomes.values()) else 0)


if __name__ == "__main__":
    main()
