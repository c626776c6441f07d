"""How well does pepper predict what was measured on this machine, for models that it has not seen?

Reads every VALID cell of a tracking store, such as these commands leave there:
python -m pepper.run +sweep=parts, +sweep=variants, +sweep=grid. The nine real models are left out one at a time,
whole ones and their parts together; generated ones are only learned from. References: the noise floor (cells that
were measured twice, as sweep.rerun=all does), and the paper's features and settings, trained on the same rows and
folds.
"""

import argparse
import time
from pathlib import Path

import numpy as np

from benchmarks.common import composed, print_table
from pepper.latency.collect import collect
from pepper.latency.features import FEATURES
from pepper.latency.model import Hyperparameters, LatencyModel
from pepper.latency.training import report
from pepper.tracking.history import history
from pepper.tracking.store import Store


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("mlruns"), help="the store's folder")
    options = parser.parse_args()
    folder = options.folder.absolute()
    store = Store(composed(f"tracking.uri=sqlite:///{folder}/mlflow.db", f"tracking.folder={folder}").tracking)
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        rows = collect(history(store), folder / "cache").rows
        seconds.append(time.perf_counter() - started)
    real = [name for name in np.unique(rows.model).tolist() if not name.startswith("variant")]
    found = report(rows, Hyperparameters(), real)
    noise = found.noise
    lines = []
    for held_out, of in found.table.groupby("held_out", sort=False):
        reference = float(of.loc[of["predictor"] == "paper", "mape"].iloc[0])
        for line in of.to_dict("records"):
            lines.append(
                [f"{held_out}: {line['predictor']}"]
                + [f"{line[key]:.1%}" for key in ("mape", "median_error", "within_10", "within_20")]
                + [f"{line['spearman']:.3f}", f"{line['mape'] / reference:.2f}"]
                + [f"{line['mape'] / noise:.1f}" if noise == noise else ""]
                + [f"{line['fastest_picked']:.1%} of {line['fastest_cases']:.0f}"]
                + ["" if line["inside"] != line["inside"] else f"{line['inside']:.1%}"]
            )
    counts = ", ".join(f"{len(np.unique(getattr(rows, by)))} {by}s" for by in ("model", "part", "device", "load"))
    print_table(
        f"{len(rows)} cells: {counts}; noise floor {noise:.1%}",
        [
            "left out",
            "MAPE",
            "median error",
            "in 10 %",
            "in 20 %",
            "Spearman",
            "to paper",
            "to noise",
            "fastest picked",
            "in 90 % interval",
        ],
        lines,
    )
    model = LatencyModel.fit(rows.features, rows.p50_ms, rows.p95_ms)
    many = np.resize(rows.features, (100_000, len(FEATURES)))
    started = time.perf_counter()
    model.predict(many)
    print(f"\n100,000 rows predicted in {time.perf_counter() - started:.2f} s (median, 95th percentile, interval)")
    print(f"dataset collected in {seconds[0]:.2f} s, again in {seconds[1]:.2f} s")


if __name__ == "__main__":
    main()
