"""How many cells must `sweep.budget` choose to predict as well as from 1,000 that a product of axes has?

Replays a store: cells are chosen step by step, and after each step a latency model learns from those chosen so far and
predicts parts that none of them is of. Without --latencies it is the cells that pepper's shipped model learned from:
parts of nine models on shares of a core under loads. With it, NAS-Bench-201 architectures on real devices, each
device calibrated by some architectures (what it does in multiply-accumulates and bytes a second). References on the
same cells: whole parts in every setting, as the product of a sweep's axes has them; farthest first, which fills the
space of the same points that pepper chooses in; random cells.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.common import print_table
from benchmarks.nasbench201 import describe_all
from benchmarks.shipped_model import read_cells
from pepper.graph import characteristics
from pepper.latency.collect import collect
from pepper.latency.dataset import Rows
from pepper.latency.evaluation import relative_error
from pepper.latency.features import Setting, Values, rows
from pepper.latency.informative import cell_points, choose
from pepper.latency.model import LatencyModel

Indices = npt.NDArray[np.int64]
Chooser = Callable[[Rows, Indices, int, np.random.Generator], Indices]
"""Adds to the cells that are known so far, up to a number."""
CALIBRATING = 20
WHOLE, RANDOM = "whole parts", "random"


def informative(pool: Rows, known: Indices, count: int, rng: np.random.Generator) -> Indices:
    so_far = pool.take(known) if len(known) else None
    return np.append(known, choose(pool.features, pool.part, known, so_far, count - len(known), int(rng.integers(99))))


def farthest_first(pool: Rows, known: Indices, count: int, rng: np.random.Generator) -> Indices:
    points, chosen = cell_points(pool.features), known.tolist() or [int(rng.integers(len(pool)))]
    nearest = np.min([((points - points[each]) ** 2).sum(axis=1) for each in chosen], axis=0)
    while len(chosen) < count:
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, ((points - points[chosen[-1]]) ** 2).sum(axis=1))
    return np.array(chosen)


def whole(pool: Rows, known: Indices, count: int, rng: np.random.Generator) -> Indices:
    left = [part for part in rng.permutation(np.unique(pool.part)) if part not in set(pool.part[known])]
    chosen = known
    while len(chosen) < count and left:
        chosen = np.append(chosen, np.flatnonzero(pool.part == left.pop()))
    return chosen[:count]


def at_random(pool: Rows, known: Indices, count: int, rng: np.random.Generator) -> Indices:
    left = np.setdiff1d(np.arange(len(pool)), known)
    return np.append(known, rng.permutation(left)[: count - len(known)])


CHOOSERS: dict[str, Chooser] = {
    "pepper": informative,
    "farthest first": farthest_first,
    WHOLE: whole,
    RANDOM: at_random,
}


def cells(table: pd.DataFrame, described: Values, devices: Sequence[str], which: Indices, calibrating: Indices) -> Rows:
    """Return the cells of some architectures on some devices, each calibrated by others."""
    column = {name: place for place, name in enumerate(characteristics.FEATURES)}
    macs = described[:, column["macs"]]
    moved = described[:, column["read_bytes"]] + described[:, column["written_bytes"]]
    features, p50_ms = [], []
    for device in devices:
        latency_ms = table[device].to_numpy(float)
        gflops, gbps = (
            float(np.median(1e-6 * work[calibrating] / latency_ms[calibrating])) for work in (2 * macs, moved)
        )
        there = Setting(device_gflops=gflops, device_gflops_single=gflops, device_memory_gbps=gbps)
        features.append(rows(described[which], there))
        p50_ms.append(latency_ms[which])
    parts = np.tile(which.astype(str), len(devices))
    found = np.concatenate(p50_ms)
    idle, names = np.full(len(parts), "idle"), np.repeat(devices, len(which))
    made = Rows(np.concatenate(features), found, np.full(len(parts), np.nan), parts, parts, names, idle, parts)
    return made.take(found > 0)


def measured(options: argparse.Namespace) -> Iterator[tuple[int, Rows, Rows]]:
    """Yield for each seed and store what can be chosen from, and the test."""
    table = pd.read_csv(options.latencies)
    table = table.sample(CALIBRATING + options.pool + options.test, random_state=0).reset_index(drop=True)
    devices = options.devices or [name for name in table if name != "arch"]
    described = describe_all(table["arch"].tolist(), keep_dead=True)
    for seed in options.seeds:
        order = np.random.default_rng(seed).permutation(len(table))
        calibrating, test, rest = np.split(order, [CALIBRATING, CALIBRATING + options.test])
        for store in [devices] if options.together else [[device] for device in devices]:
            yield seed, *(cells(table, described, store, which, calibrating) for which in (rest, test))


def shipped(options: argparse.Namespace) -> Iterator[tuple[int, Rows, Rows]]:
    """Yield the same of the cells that the shipped model learned from: a quarter of the parts are the test."""
    with tempfile.TemporaryDirectory() as folder:
        every = collect(read_cells(), Path(folder)).rows
    parts = np.unique(every.part)
    for seed in options.seeds:
        asked = np.isin(every.part, np.random.default_rng(seed).permutation(parts)[: len(parts) // 4])
        yield seed, every.take(~asked), every.take(asked)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--latencies", type=Path, help="CSV with arch, then a column (ms) a device")
    parser.add_argument("--devices", nargs="*", help="of the file's; all by default")
    parser.add_argument("--together", action="store_true", help="one store of all devices, not one of each")
    parser.add_argument("--pool", type=int, default=1200, help="architectures to choose from")
    parser.add_argument("--test", type=int, default=400, help="architectures to predict")
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 100, 200, 300, 500, 1000], help="cells, by steps")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of what is drawn, chosen and tested")
    options = parser.parse_args()
    stores = measured(options) if options.latencies else shipped(options)
    errors: dict[str, list[list[list[float]]]] = {name: [] for name in CHOOSERS}
    for seed, pool, asked in stores:
        for name, chooser in CHOOSERS.items():
            rng, known, curve = np.random.default_rng(seed), np.array([], int), []
            for size in options.sizes:
                known = chooser(pool, known, size, rng)
                model = LatencyModel.fit(pool.features[known], pool.p50_ms[known])
                predicted = model.p50_ms(asked.features)
                off = np.abs(np.log(predicted / asked.p50_ms))
                curve.append([float(np.median(relative_error(asked.p50_ms, predicted))), float(off.mean())])
            errors[name].append(curve)
    for place, what in enumerate(("median error", "mean absolute log error")):
        curves = {name: np.mean(found, axis=0)[:, place] for name, found in errors.items()}
        lines = []
        for name, curve in curves.items():
            line = [name, *(f"{error:.3f}" for error in curve)]
            for other in (WHOLE, RANDOM):
                enough = [size for size, error in zip(options.sizes, curve, strict=True) if error <= curves[other][-1]]
                line.append(str(enough[0]) if enough else "more")
            lines.append(line)
        last = options.sizes[-1]
        print_table(
            f"{what} after so many cells; {len(errors['pepper'])} replays",
            ["chosen by", *map(str, options.sizes), f"as good as {last} of {WHOLE}", f"as {last} {RANDOM}"],
            lines,
        )


if __name__ == "__main__":
    main()
