"""Is a cell that is measured through the engine what it is when it is measured locally?

A head and a host that has joined it run on this machine. Each model is measured in turn by this process and by the
host, in random order within a pair. Reference: the local median of the same pair. Beside it: what the engine's process
took of a core while the host timed. The aims: medians within 2 %, at most 0.5 % of a core.

    python -m benchmarks.remote_fidelity --models squeezenet resnet50 --pairs 10
"""

import argparse
import contextlib
import random
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.common import composed, print_table
from benchmarks.joined import joined
from pepper.errors import MeasureError
from pepper.graph.model import find_model
from pepper.hosts.local import here
from pepper.hosts.remote import Joined
from pepper.measure.block import Block, measure_block
from pepper.measure.profile import Profile
from pepper.measure.sent import measured_on

EDGE_S = 1.0
"""Of a cell's ends, where the worker starts and the engine passes on what was measured."""


class EngineUse:
    """What a process's threads take of a core: CPU time by the kernel's nanoseconds, looked at ten times a second."""

    def __init__(self, pid: int) -> None:
        self._threads = Path(f"/proc/{pid}/task")
        self._looks: list[tuple[float, float]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "EngineUse":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def percent(self, begun_s: float, ended_s: float) -> float:
        """Return what it took between two times, percent of a core; NaN where that was not looked at."""
        inside = [look for look in self._looks if begun_s <= look[0] <= ended_s]
        if len(inside) < 2:
            return float("nan")
        (first_s, before_s), (last_s, after_s) = inside[0], inside[-1]
        return 100 * (after_s - before_s) / (last_s - first_s)

    def _watch(self) -> None:
        while not self._ended.wait(0.1):
            spent_ns = 0
            for thread in self._threads.iterdir():
                with contextlib.suppress(OSError):  # it has just ended
                    spent_ns += int((thread / "schedstat").read_text().split()[0])
            self._looks.append((time.time(), spent_ns / 1e9))


def once(block: Block, hosts: Joined | None) -> Profile:
    """Measure a block of one cell here, or on its host."""
    profiles: list[Profile] = []
    if hosts is None:
        measure_block(block, lambda _, profile: profiles.append(profile))
    else:
        profiles = measured_on(hosts, block)
    if profiles[0].status != "FINISHED":
        raise MeasureError("; ".join(profiles[0].reasons))
    return profiles[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument(
        "--models", nargs="+", default=["squeezenet", "shufflenet", "resnet50"], help="options of model"
    )
    parser.add_argument("--pairs", type=int, default=10, help="of measurements for each model")
    parser.add_argument("--seconds", type=float, default=4, help="timed in each")
    parser.add_argument("--seed", type=int, default=0, help="of the order within pairs")
    options = parser.parse_args()
    rng, lines = random.Random(options.seed), []
    with tempfile.TemporaryDirectory() as scratch, joined(Path(scratch), ["host"]) as there:
        for name in options.models:
            span = [f"measure.min_seconds={options.seconds}", f"measure.max_seconds={options.seconds}"]
            config = composed(f"model={name}", "device.threads=1", "measure.ci_percent=0.1", *span)
            device = here().resolve(config.device)
            block = Block(find_model(config.model), device, config.measure, (config.load,))
            away = replace(block, device=replace(device, host="host"))
            once(away, there.hosts)  # the host fetches the model
            ratios, spread, use, valid = [], [], [], 0
            for _ in range(options.pairs):
                medians, order = {}, [False, True]
                rng.shuffle(order)
                for remote in order:
                    with EngineUse(there.first.pid) as engine:
                        profile = once(away if remote else block, there.hosts if remote else None)
                    medians[remote] = profile.metrics["latency_p50_ms"]
                    if remote:
                        use.append(engine.percent(profile.started_s + EDGE_S, profile.ended_s - EDGE_S))
                        valid += profile.verdict == "VALID"
                ratios.append(medians[True] / medians[False])
                spread.append(medians[False])
            lines.append(
                [
                    name,
                    f"{options.pairs}",
                    f"{valid}",
                    f"{median(spread):.2f}",
                    f"{100 * (median(ratios) - 1):+.2f}",
                    f"{100 * (np.percentile(ratios, 25) - 1):+.2f} to {100 * (np.percentile(ratios, 75) - 1):+.2f}",
                    f"{100 * (max(spread) / min(spread) - 1):.1f}",
                    f"{np.nanmedian(use):.2f}",
                ]
            )
    print_table(
        "through the engine, beside local",
        ["model", "pairs", "VALID", "local ms", "remote %", "half of pairs %", "local spread %", "engine % of a core"],
        lines,
    )


if __name__ == "__main__":
    main()
