"""How long does a training take: the search, the final model and the evidence for it?

Rows are parts of eight real models, described by pepper's extractor, with latencies made up from a roofline and noise,
on three devices under five loads. Aim: 10 minutes for 100 trials on 5,000 rows on two cores.
"""

import argparse
import os
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

from benchmarks.common import composed, print_table
from pepper.config import TuningConfig
from pepper.graph.characteristics import Characteristics, CostWarning
from pepper.graph.model import find_model
from pepper.latency.dataset import Rows
from pepper.latency.features import Setting, Values, rows
from pepper.latency.roofline import TERMS, Roofline
from pepper.latency.training import report, train

MODELS = ("alexnet", "densenet121", "googlenet", "inception_v2", "resnet50", "shufflenet", "squeezenet", "vgg19")
SHARES = (1.0, 0.5, 0.25)
LOADS = (0.0, 25.0, 50.0, 75.0, 90.0)
AIM_S = 600.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000, help="rows to learn from")
    parser.add_argument("--trials", type=int, default=100, help="trials of the search")
    parser.add_argument("--seed", type=int, default=0, help="seed of the rows")
    options = parser.parse_args()
    known = _rows(options.rows, np.random.default_rng(options.seed))
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        trained = train(known, TuningConfig(trials=options.trials, folds=5), Path(folder) / "tuning.db")
        searched = time.perf_counter()
        report(known, trained.tuned.hyperparameters)
        ended = time.perf_counter()
    seconds = (searched - started, ended - searched, ended - started)
    pruned = sum(trial.state == "PRUNED" for trial in trained.tuned.trials)
    print_table(
        f"seconds to train on {len(known):,} rows with {len(os.sched_getaffinity(0))} cores",
        ["trials", "given up", "search and model", "evidence", "together", "over the aim"],
        [[str(options.trials), str(pruned), *(f"{s:.0f}" for s in seconds), f"{seconds[2] / AIM_S:.2f}"]],
    )


def _rows(count: int, rng: np.random.Generator) -> Rows:
    """Random parts of the models, by turns, each in every setting."""
    settings = [
        Setting(
            device_gflops=100 * share,
            device_gflops_single=100 * share,
            device_memory_gbps=20 * share,
            device_share=share,
            device_l2_bytes=2**20,
            device_l3_bytes=2**25,
            load_percent=load,
            load_cores=float(load > 0),
        )
        for share in SHARES
        for load in LOADS
    ]
    each = -(-count // (len(MODELS) * len(settings)))
    parts = {model: _parts(model, each, rng) for model in MODELS}
    features, names = [], []
    for model, table in parts.items():
        for setting in settings:
            features.append(rows(table, setting))
            device, load = f"share{setting.device_share:g}", f"cpu{setting.load_percent:g}"
            names += [(model, f"{model}{index}", device, load, model) for index in range(each)]
    stacked = np.vstack(features)
    factors = rng.uniform(0.5, 3, len(TERMS))
    p50_ms = Roofline(factors).latency_ms(stacked) * np.exp(0.1 * rng.standard_normal(len(stacked)))
    made = Rows(stacked, p50_ms, p50_ms * 1.2, *(np.array(column) for column in zip(*names, strict=True)))
    return made.take(rng.permutation(len(made))[:count])


def _parts(model: str, count: int, rng: np.random.Generator) -> Values:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CostWarning)
        found = find_model(composed(f"model={model}").model)
        graph = found.graph()
        ends = np.sort(rng.integers(0, len(graph.operators), (count, 2)), axis=1)
        return np.asarray(Characteristics(graph).table(ends[:, 0].tolist(), (ends[:, 1] + 1).tolist()))


if __name__ == "__main__":
    main()
