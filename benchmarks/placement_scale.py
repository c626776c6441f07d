"""How long the chain solvers take, and how time and memory grow with the problem.

Every problem is random (the seed is an argument): steps that differ in work, devices that differ in speed and
in what they are good at, a 1 Gbit/s link between any two. A line says what it is to reach, where there is an
aim, and time over aim.
"""

import argparse
import math
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from pepper.fleet import Link
from pepper.placement.chain import Solution, solve
from pepper.placement.objectives import LATENCY, THROUGHPUT, Objective
from pepper.placement.problem import ChainProblem, DeviceKind, Limits, Links

LINK = Link(bandwidth_mbit_s=1000.0, latency_ms=0.5)


def chain(
    n_steps: int,
    n_devices: int,
    rng: np.random.Generator,
    per_part: bool = False,
    reuse: bool = False,
    count: int = 1,
) -> ChainProblem:
    """Return a random problem; `per_part` makes parts cost up to 10 % more or 5 % less than their steps."""
    work = rng.uniform(0.5, 2.0, n_steps)
    slowness = rng.uniform(0.5, 4.0, n_devices)
    step_ms = work[:, None] * slowness * rng.lognormal(0.0, 0.5, (n_steps, n_devices))
    part_ms = step_ms
    if per_part:
        before = np.concatenate([np.zeros((1, n_devices)), step_ms.cumsum(axis=0)])
        part_ms = np.full((n_steps + 1, n_steps + 1, n_devices), math.inf)
        for start in range(n_steps):
            parts = before[start + 1 :] - before[start]
            part_ms[start, start + 1 :] = parts * rng.uniform(0.95, 1.1, parts.shape)
    return ChainProblem.of(
        [DeviceKind(f"device{d}", count=count) for d in range(n_devices)],
        part_ms,
        rng.uniform(1e3, 1e5, n_steps + 1),
        Links.uniform(n_devices, LINK),
        source="device0" if count == 1 else None,
        sink="device0" if count == 1 else None,
        reuse=reuse,
    )


def timed(problem: ChainProblem, objective: Objective, time_limit_s: float) -> tuple[float, float, Solution]:
    """Return seconds, peak MiB (of a second run, as tracing slows) and the solution."""
    begin = time.perf_counter()
    solution = solve(problem, objective, time_limit_s)
    seconds = time.perf_counter() - begin
    tracemalloc.start()
    solve(problem, objective, time_limit_s)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return seconds, peak / 2**20, solution


def report(name: str, target_s: float | None, problem: ChainProblem, objective: Objective, limit_s: float) -> None:
    seconds, mebibytes, solution = timed(problem, objective, limit_s)
    gap = "proven" if solution.proven else f"{solution.gap:.1%}"
    aim = "" if target_s is None else f"{target_s:>7.1f}{seconds / target_s:>7.2f}"
    print(
        f"{name:<58}{seconds:>9.3f}{mebibytes:>8.0f}{len(solution.stages):>7}{gap:>8}{aim}",
        flush=True,
    )


def growth(name: str, sizes: list[int], problem_of: Callable[[int], ChainProblem]) -> None:
    """Print time and memory against size, with the slopes in a double logarithmic plot."""
    rows = [timed(problem_of(size), LATENCY, 60.0)[:2] for size in sizes]
    slopes = [np.polyfit(np.log(sizes), np.log([row[k] for row in rows]), 1)[0] for k in (0, 1)]
    for size, (seconds, mebibytes) in zip(sizes, rows, strict=True):
        print(f"  {name} {size:>5}: {seconds * 1000:8.1f} ms {mebibytes:8.2f} MiB")
    print(f"  exponent of time {slopes[0]:.2f}, of memory {slopes[1]:.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="of the random problems (default: 0)")
    parser.add_argument("--time-limit", type=float, default=10.0, help="seconds a problem (default: 10)")
    args = parser.parse_args()

    def rng() -> np.random.Generator:
        return np.random.default_rng(args.seed)

    limit_s = args.time_limit
    header = f"{'problem':<58}{'time s':>9}{'MiB':>8}{'parts':>7}{'gap':>8}{'aim s':>7}{'ratio':>7}"
    print(header)
    big = chain(1000, 100, rng(), reuse=True)
    report("latency, 1000 cuts, 100 devices", 0.5, big, LATENCY, limit_s)
    once = replace(big, reuse=False)
    report("latency, the same, each device at most once", None, once, LATENCY, limit_s)
    small = chain(200, 20, rng(), per_part=True, reuse=True)
    report("latency, 200 cuts, 20 devices, cost per part", 1.0, small, LATENCY, limit_s)
    few = replace(small, limits=Limits(parts=5))
    report("latency, the same, at most 5 parts", 1.0, few, LATENCY, limit_s)
    once = replace(small, reuse=False)
    report("latency, the same, each device at most once", None, once, LATENCY, limit_s)
    for n_steps in (40, 100):
        unlike = chain(n_steps, 12, rng(), per_part=True)
        report(f"throughput, {n_steps} cuts, 12 unlike devices", 10.0, unlike, THROUGHPUT, limit_s)
    fleet = chain(200, 20, rng(), count=50)
    report("throughput, 200 cuts, 1000 devices of 20 kinds", None, fleet, THROUGHPUT, limit_s)
    report("latency, 200 cuts, 1000 devices of 20 kinds", None, fleet, LATENCY, limit_s)
    short = chain(100, 20, rng(), count=3)
    report("throughput, 100 cuts, 60 devices of 20 kinds", None, short, THROUGHPUT, limit_s)

    print("\nGrowth, additive costs, 50 devices, by cuts")
    growth("cuts", [250, 500, 1000, 2000, 4000], lambda n: chain(n, 50, rng(), reuse=True))
    print("Growth, cost per part, 10 devices, by cuts")
    growth("cuts", [50, 100, 200, 400], lambda n: chain(n, 10, rng(), per_part=True, reuse=True))
    print("Growth, additive costs, 500 cuts, by devices")
    growth("devices", [25, 50, 100, 200], lambda d: chain(500, d, rng(), reuse=True))


if __name__ == "__main__":
    main()
