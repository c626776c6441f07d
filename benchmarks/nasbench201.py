"""How well does pepper predict the latency of architectures that it has not seen? On NAS-Bench-201.

Each architecture is built as an ONNX model, described by pepper's own extractor and learned with pepper's own
training. Reference: predictors published on the same device, and XGBoost on a code made for this search space.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.common import print_table
from benchmarks.nasbench201_graph import build
from pepper.graph.characteristics import Characteristics
from pepper.graph.load import load_graph
from pepper.latency.evaluation import scores
from pepper.latency.features import Setting, Values, rows
from pepper.latency.model import LatencyModel

# Rank correlation and share within 10 %, Raspberry Pi 4: HELP (Lee et al., NeurIPS 2021), table 3; the last
# three were measured on other rows of the data used here.
PUBLISHED = [
    ("FLOPs (HELP, table 3)", "-", 0.846, None),
    ("BRP-NAS (HELP, table 3)", "900", 0.847, None),
    ("BRP-NAS (HELP, table 3)", "3200", 0.853, None),
    ("HELP, meta-trained on other devices", "10", 0.890, None),
    ("XGBoost on one-hot edges and counts", "100", 0.922, 0.536),
    ("XGBoost on one-hot edges and counts", "900", 0.962, 0.619),
    ("XGBoost on one-hot edges and counts", "8000", 0.981, 0.677),
]


def describe(architectures: Sequence[str], keep_dead: bool) -> Values:
    """Build each architecture and return its characteristics, a row each."""
    described = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        for architecture in architectures:
            build(architecture, file, keep_dead)
            graph = load_graph(file)
            described.append(Characteristics(graph).table([0], [len(graph.operators)])[0])
    return np.array(described)


def describe_all(architectures: Sequence[str], keep_dead: bool) -> Values:
    """Describe architectures on every core."""
    chunks = [architectures[start : start + 100] for start in range(0, len(architectures), 100)]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        return np.concatenate(list(pool.map(partial(describe, keep_dead=keep_dead), chunks)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="CSV with columns arch and latency_ms")
    parser.add_argument("--train-rows", type=int, nargs="+", default=[900, 100], help="rows to train on")
    parser.add_argument("--seed", type=int, nargs="+", default=[0, 1, 2], help="seeds of the choice of those rows")
    parser.add_argument(
        "--keep-dead-operators", action="store_true", help="describe operators that cannot reach the output too"
    )
    options = parser.parse_args()
    table = pd.read_csv(options.data)
    latency_ms = table["latency_ms"].to_numpy(float)
    if max(options.train_rows) >= len(table):
        parser.error(f"--train-rows {max(options.train_rows)}: {options.data} has only {len(table)} rows")
    started = time.monotonic()
    features = rows(describe_all(table["arch"].tolist(), options.keep_dead_operators), Setting())
    described_s = time.monotonic() - started
    lines = []
    for count in options.train_rows:
        results = []
        for seed in options.seed:
            order = np.random.default_rng(seed).permutation(len(table))
            train, test = order[:count], order[count:]
            started = time.monotonic()
            model = LatencyModel.fit(features[train], latency_ms[train])
            seconds = time.monotonic() - started
            results.append({**scores(latency_ms[test], model.p50_ms(features[test])), "seconds": seconds})
        figures = pd.DataFrame(results).mean()
        lines.append(
            [f"pepper, mean of {len(results)} draws", str(count)]
            + [f"{figures[key]:.3f}" for key in ("spearman",)]
            + [f"{figures[key]:.1%}" for key in ("within_5", "within_10", "within_20", "median_error", "mape")]
            + [f"{figures['seconds']:.2f} s"]
        )
    for name, trained, spearman, within in PUBLISHED:
        share = "" if within is None else f"{within:.1%}"
        lines.append([name, trained, f"{spearman:.3f}", "", share, "", "", "", ""])
    print_table(
        f"{len(table)} architectures, built and described in {described_s:.0f} s; tested on all rows not trained on",
        ["predictor", "rows", "Spearman", "in 5 %", "in 10 %", "in 20 %", "median error", "MAPE", "training"],
        lines,
    )


if __name__ == "__main__":
    main()
