"""How well does pepper predict what was measured on this machine, for models that it has not seen?

Reads every VALID cell of a tracking store, such as these commands leave there:
python -m pepper.run +sweep=parts, +sweep=variants, +sweep=grid. The nine real models are left out one at a time,
whole ones and their parts together; generated ones are only learned from. References: the noise floor (cells that
were measured twice, as sweep.rerun=all does), and the paper's features and settings, trained on the same rows and
folds.

With --by provider: the errors on each execution provider's rows, one latency model having learned from those of all
(python -m pepper.run +sweep=providers). Reference: the CPU's own provider.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.common import composed, print_table
from pepper.devices.providers.choice import CPU
from pepper.latency.collect import collect
from pepper.latency.dataset import Rows
from pepper.latency.evaluation import leave_one_out, noise_floor, scores
from pepper.latency.features import FEATURES
from pepper.latency.model import Hyperparameters, LatencyModel
from pepper.latency.training import report, trainer
from pepper.tracking.history import history
from pepper.tracking.store import Store


def print_by_provider(cells: pd.DataFrame, rows: Rows, real: list[str]) -> None:
    """Print the errors on models left out, for each provider."""
    of_device = dict(zip(cells["params.device"], cells["params.provider"].fillna(CPU), strict=True))
    provider = np.array([of_device[name] for name in rows.device.tolist()], str)
    predicted_ms = leave_one_out(rows, "model", trainer(Hyperparameters()), only=real)
    known = np.isfinite(predicted_ms)
    found = {
        name: scores(rows.p50_ms[chosen], predicted_ms[chosen]) | {"noise": noise_floor(rows.take(chosen))}
        for name in sorted(np.unique(provider).tolist(), key=lambda name: name != CPU)
        if (chosen := known & (provider == name)).any()
    }
    reference = found.get(CPU, {}).get("mape", np.nan)
    print_table(
        f"{len(rows)} cells of {len(np.unique(rows.part))} parts; models left out one at a time",
        ["provider", "rows", "MAPE", "median error", "in 10 %", "Spearman", "noise floor", "MAPE to the CPU's"],
        [
            [name, f"{of['rows']:.0f}"]
            + [f"{of[key]:.1%}" for key in ("mape", "median_error", "within_10")]
            + [f"{of['spearman']:.3f}", f"{of['noise']:.1%}" if of["noise"] == of["noise"] else ""]
            + [f"{of['mape'] / reference:.2f}"]
            for name, of in found.items()
        ],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("mlruns"), help="the store's folder")
    parser.add_argument("--by", choices=["provider"], help="print the errors on each provider's rows, and no others")
    options = parser.parse_args()
    folder = options.folder.absolute()
    store = Store(composed(f"tracking.uri=sqlite:///{folder}/mlflow.db", f"tracking.folder={folder}").tracking)
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        cells = history(store)
        rows = collect(cells, folder / "cache").rows
        seconds.append(time.perf_counter() - started)
    real = [name for name in np.unique(rows.model).tolist() if not name.startswith("variant")]
    if options.by:
        print_by_provider(cells, rows, real)
        return
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
