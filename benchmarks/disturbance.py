"""Is a cell that was disturbed on purpose told from one that was not?

One model is timed on one core, again and again: undisturbed (the reference), and while something is done to it, from
the start or from the middle of the cell on: work on the machine's other cores (matrix products, which take the clock
and a physical core's other half; copies, which take the shared caches and the memory), work on its own core, and its
share cut by stopping and continuing it. A cell may say VALID only if its median is the undisturbed one.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from threading import Thread

import psutil

from benchmarks.common import composed, print_table
from pepper.config import LoadConfig
from pepper.devices.cores import resolve
from pepper.graph.model import find_model
from pepper.measure.launcher import Bench
from pepper.measure.profile import Profile

PRODUCTS = "import numpy as np\na = np.random.rand(300, 300).astype('f4')\nwhile True: a @ a"
COPIES = "import numpy as np\na = np.ones(2**24)\nb = np.empty_like(a)\nwhile True: np.copyto(b, a)"
STOPS = """
import os, signal, sys, time
while True:
    for number in (signal.SIGSTOP, signal.SIGCONT):
        os.kill(int(sys.argv[1]), number)
        time.sleep(0.005)
"""
DISTURBANCES = ("none", "products elsewhere", "copies elsewhere", "products on its core", "its share cut")
SAME_PERCENT = 15.0
"""Within this of the undisturbed median, a cell is the undisturbed one."""


def commands(disturbance: str, core: int) -> list[list[str]]:
    """Return what has to run for it."""
    others = sorted(os.sched_getaffinity(0) - {core})
    python = [sys.executable, "-c"]
    if disturbance in ("products elsewhere", "copies elsewhere"):
        work = PRODUCTS if disturbance.startswith("products") else COPIES
        return [["taskset", "-c", str(other), *python, work] for other in others]
    if disturbance == "products on its core":
        return [["taskset", "-c", str(core), *python, PRODUCTS]]
    if disturbance == "its share cut":
        children = psutil.Process().children(recursive=True)
        (worker,) = (each.pid for each in children if "pepper.measure.worker" in each.cmdline())
        return [["taskset", "-c", str(others[0] if others else core), *python, STOPS, str(worker)]]
    return []


@contextmanager
def disturbed(disturbance: str, core: int, after_s: float) -> Iterator[None]:
    """Disturb from now on, or after some seconds, until the end."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    running: list[subprocess.Popen[bytes]] = []

    def begin() -> None:
        time.sleep(after_s)
        running.extend(subprocess.Popen(command, env=environment) for command in commands(disturbance, core))

    thread = Thread(target=begin)
    thread.start()
    if not after_s:
        thread.join()
        time.sleep(0.5)  # until numpy is there
    try:
        yield
    finally:
        thread.join()
        for process in running:
            process.kill()
            process.wait()
        for child in psutil.Process().children():  # the worker may just have been stopped
            child.send_signal(signal.SIGCONT)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="squeezenet")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    config = composed(f"model={options.model}", "device=share100")
    model, device = find_model(config.model), resolve(config.device)
    idle = LoadConfig(name="idle", percent=0)
    profiles: dict[tuple[str, str], list[Profile]] = {}
    with Bench(model, device, config.measure, None) as bench:
        started = time.perf_counter()
        bench.profile(idle)
        whole_s = time.perf_counter() - started
        for _ in range(options.rounds):
            for disturbance in DISTURBANCES:
                for since, after_s in (("all along", 0.0), ("from the middle", whole_s / 2)):
                    with disturbed(disturbance, device.cores[0], after_s):
                        found = bench.profile(idle)
                    profiles.setdefault((disturbance, since if disturbance != "none" else ""), []).append(found)
    usual_ms = median(found.metrics["latency_p50_ms"] for found in profiles["none", ""])
    rows = []
    for (disturbance, since), cells in profiles.items():
        ratios = [found.metrics["latency_p50_ms"] / usual_ms for found in cells]
        wrong = [
            ratio
            for found, ratio in zip(cells, ratios, strict=True)
            if found.trusted and abs(ratio - 1) > SAME_PERCENT / 100
        ]
        said = Counter(reason.partition(":")[0] for found in cells for reason in found.reasons)
        rows.append(
            [
                disturbance,
                since,
                f"{median(ratios):.3f}",
                f"{min(ratios):.3f} .. {max(ratios):.3f}",
                f"{sum(found.trusted for found in cells)} of {len(cells)}",
                f"{len(wrong)}",
                ", ".join(f"{what} ({count})" for what, count in said.items()) or "-",
            ]
        )
    print_table(
        f"{options.model} on core {device.cores[0]}; undisturbed {usual_ms:.3f} ms",
        ["disturbance", "since", "ratio", "range", "VALID", f"VALID, {SAME_PERCENT:g} % off", "reasons"],
        rows,
    )


if __name__ == "__main__":
    main()
