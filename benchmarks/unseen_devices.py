"""How well are latencies predicted on a device that is not at hand, from ten of them? On NAS-Bench-201.

Other devices were measured before: each is learned by pepper's latency model from some architectures, built as ONNX
models and described by pepper's own extractor, once with and once without the operators that no output needs. The
device is then learned from a few of its latencies (`pepper.latency.unseen`) and asked about all the others. References
on the same rows: multiply-accumulates, the best single source scaled to the latencies, ridge regression of the sources'
predictions around their mean. Without a target, each source device in turn is one.
"""

import argparse
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.common import print_table
from benchmarks.nasbench201 import describe
from pepper.latency.dataset import grouped_folds
from pepper.latency.evaluation import relative_error, scores
from pepper.latency.features import COLUMN, Setting, Values, rows
from pepper.latency.model import LatencyModel
from pepper.latency.unseen import Kin, UnseenDevice

Indices = npt.NDArray[np.int64]
KEEP_DEAD = (True, False)
"""The ways to describe an architecture: whether operators that no output needs run."""
METHODS = ("pepper", "multiply-accumulates", "best single source", "ridge around the mean")


def describe_all(architectures: Sequence[str]) -> list[Values]:
    """Describe architectures on every core, in each way."""
    chunks = [architectures[start : start + 100] for start in range(0, len(architectures), 100)]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        return [
            rows(np.concatenate(list(pool.map(partial(describe, keep_dead=keep), chunks))), Setting())
            for keep in KEEP_DEAD
        ]


def learn(features: Sequence[Values], latency_ms: Values, known: Indices) -> tuple[LatencyModel, int]:
    """Train on the known rows, described in the way in which half of them predict the other half better."""
    errors = []
    for described in features:
        predicted = np.empty(len(known))
        for train, test in grouped_folds(np.array([str(row) for row in known]), 2):
            model = LatencyModel.fit(described[known[train]], latency_ms[known[train]])
            predicted[test] = model.p50_ms(described[known[test]])
        errors.append(np.median(relative_error(latency_ms[known], predicted)))
    way = int(np.argmin(errors))
    return LatencyModel.fit(features[way][known], latency_ms[known]), way


def ridge(sources: Values, chosen: Indices, log_ms: Values) -> Values:
    """Combine the sources' log predictions, shape (n, s), around their mean; penalty 1."""
    mean = sources.mean(axis=1)
    terms = np.column_stack((np.ones(len(sources)), sources - mean[:, None]))
    penalty = np.diag([1e-6, *np.ones(sources.shape[1])])
    here = terms[chosen]
    return np.asarray(mean + terms @ np.linalg.solve(here.T @ here + penalty, here.T @ (log_ms - mean[chosen])))


def scaled(sources: Values, chosen: Indices, log_ms: Values) -> Values:
    """The source that differs least from the chosen latencies but for a factor."""
    off = log_ms[:, None] - sources[chosen]
    level = np.median(off, axis=0)
    best = int(np.abs(off - level).mean(axis=0).argmin())
    return np.asarray(sources[:, best] + level[best])


def predict(
    known: Sequence[tuple[LatencyModel, int]],
    predicted: Values,
    features: Sequence[Values],
    pool: Indices,
    chosen: Indices,
    latency_ms: Values,
) -> dict[str, tuple[Values, Values, Values]]:
    """Predict every row from those chosen, by each method: the median and the ends of the interval, ms."""
    behaviours = [model.p50_ms for model, _ in known]
    kin = [Kin(behaviours, described[pool]) for described in features]
    device = UnseenDevice.fit(kin, [described[chosen] for described in features], latency_ms[chosen])
    found = device.predict(features)
    log_ms, log_sources = np.log(latency_ms[chosen]), np.log(predicted)
    # Without any source, the better known description: with all operators.
    macs = np.log(np.maximum(features[0][:, [COLUMN["macs"]]], 1.0))
    others: dict[str, Callable[[], Values]] = {
        "multiply-accumulates": lambda: scaled(macs, chosen, log_ms),
        "best single source": lambda: scaled(log_sources, chosen, log_ms),
        "ridge around the mean": lambda: ridge(log_sources, chosen, log_ms),
    }
    nothing = np.full(len(predicted), np.nan)
    references = {name: (np.exp(method()), nothing, nothing) for name, method in others.items()}
    return {"pepper": (found.p50_ms, found.low_ms, found.high_ms), **references}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--sources", type=Path, required=True, help="CSV with arch, then a column (ms) a device")
    parser.add_argument("--target", type=Path, help="CSV with columns arch and latency_ms; else each source in turn")
    parser.add_argument("--samples", type=int, default=10, help="latencies of the target that are known")
    parser.add_argument("--source-rows", type=int, default=900, help="architectures that each source is learned from")
    parser.add_argument("--draws", type=int, default=8, help="choices of both, whose mean is printed")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first of them")
    parser.add_argument("--leave-out", nargs="*", default=[], help="source devices that are not learned from")
    options = parser.parse_args()
    sources = pd.read_csv(options.sources).drop(columns=options.leave_out)
    names = [name for name in sources if name != "arch"]
    targets: dict[str, pd.Series] = {}
    if options.target:
        table = pd.read_csv(options.target)
        targets[options.target.stem] = table.set_index("arch")["latency_ms"].dropna()
    else:
        targets = {name: sources.set_index("arch")[name] for name in names}
    architectures = sorted({*sources["arch"], *(arch for target in targets.values() for arch in target.index)})
    started = time.monotonic()
    features = describe_all(architectures)
    described_s = time.monotonic() - started
    place = {arch: number for number, arch in enumerate(architectures)}
    where = np.array([place[arch] for arch in sources["arch"]])
    results = []
    for seed in range(options.seed, options.seed + options.draws):
        rng = np.random.default_rng(seed)
        pool = where[rng.permutation(len(where))[: options.source_rows]]
        learned: dict[str, tuple[LatencyModel, int]] = {}
        predicted: dict[str, Values] = {}
        for name in names:
            latency_ms = np.full(len(architectures), np.nan)
            latency_ms[where] = sources[name]
            learned[name] = learn(features, latency_ms, pool)
            predicted[name] = learned[name][0].p50_ms(features[learned[name][1]])
        for name, target in targets.items():
            known = [other for other in names if other != name]
            draw = rng.permutation(np.setdiff1d([place[arch] for arch in target.index], pool))
            results += [
                {"device": name, "method": method, **figures}
                for method, figures in _judged(
                    [learned[other] for other in known],
                    np.column_stack([predicted[other] for other in known]),
                    features,
                    (pool, draw[: options.samples]),
                    {place[arch]: float(ms) for arch, ms in target.items()},
                )
            ]
    _show(pd.DataFrame(results), f"{len(architectures)} architectures, described twice in {described_s:.0f} s", options)


def _judged(
    known: Sequence[tuple[LatencyModel, int]],
    predicted: Values,
    features: Sequence[Values],
    chosen: tuple[Indices, Indices],
    target: Mapping[int, float],
) -> list[tuple[str, dict[str, float]]]:
    """Score each method on the target's rows that were not chosen."""
    latency_ms = np.full(len(predicted), np.nan)
    latency_ms[list(target)] = list(target.values())
    pool, samples = chosen
    rest = np.setdiff1d(list(target), samples)
    judged = []
    for method, (p50, low, high) in predict(known, predicted, features, pool, samples, latency_ms).items():
        inside = (low[rest] <= latency_ms[rest]) & (latency_ms[rest] <= high[rest])
        covered = float(inside.mean()) if np.isfinite(low).all() else np.nan
        judged.append((method, {**scores(latency_ms[rest], p50[rest]), "covered": covered}))
    return judged


def _show(results: pd.DataFrame, title: str, options: argparse.Namespace) -> None:
    keys = ["spearman", "within_10", "within_20", "median_error", "covered"]
    lines = []
    devices = results["device"].unique().tolist()
    devices += ["mean of all"] * (len(devices) > 1)
    for device in devices:
        of_device = results if device == "mean of all" else results[results["device"] == device]
        for method in METHODS:
            figures = of_device[of_device["method"] == method][keys]
            mean, spread = figures.mean(), figures.std(ddof=1)
            covered = "" if np.isnan(mean["covered"]) else f"{mean['covered']:.1%}"
            lines.append(
                [device, method, f"{mean['spearman']:.3f}", f"{spread['spearman']:.3f}"]
                + [f"{mean[key]:.1%}" for key in ("within_10",)]
                + [f"{spread['within_10']:.1%}"]
                + [f"{mean[key]:.1%}" for key in ("within_20", "median_error")]
                + [covered]
            )
    print_table(
        f"{title}; {options.source_rows} of each source, {options.samples} of the new device; {options.draws} draws",
        ["new device", "method", "Spearman", "+-", "in 10 %", "+-", "in 20 %", "median error", "90 % interval holds"],
        lines,
    )


if __name__ == "__main__":
    main()
