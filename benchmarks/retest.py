"""How far do two measurements of the same cell differ? The noise floor of every prediction.

Reference: the first of two sweeps over the same cells, in another random order.
"""

import argparse
import contextlib
import io
import tempfile
from pathlib import Path

import pandas as pd
from hydra import compose, initialize_config_dir

from benchmarks.common import print_table
from pepper import config
from pepper.config.composing import Composition
from pepper.tasks.profile import profile


def sweep(overrides: list[str], folder: str, seed: int) -> pd.DataFrame:
    """Measure every cell of a sweep and return its results table."""
    arguments = [
        *overrides,
        f"sweep.seed={seed}",
        "sweep.rerun=all",
        f"tracking.uri=sqlite:///{folder}/mlflow.db",
        f"tracking.artifacts={folder}/artifacts",
        f"tracking.folder={folder}",
    ]
    with initialize_config_dir(str(config.conf_dir()), version_base="1.3"):
        cfg = config.typed(compose("run", overrides=arguments))
        with contextlib.redirect_stdout(io.StringIO()):
            profile(Composition(cfg, tuple(arguments), lambda changed: compose("run", overrides=list(changed))))
    newest = max(Path(folder).rglob("results.parquet"), key=lambda file: file.stat().st_mtime)
    return pd.read_parquet(newest).set_index("cell")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--sweep", nargs="+", default=["+sweep=loads"], help="overrides of the sweep that is run")
    options = parser.parse_args()
    config.register()
    with tempfile.TemporaryDirectory() as folder:
        first, second = (sweep(options.sweep, folder, seed) for seed in (1, 2))
    both = first.merge(second, left_index=True, right_index=True, suffixes=("", "_again"))
    valid = both[(both["verdict"] == "VALID") & (both["verdict_again"] == "VALID")].copy()
    rows = []
    for label, group in [("all", valid), *valid.groupby("device"), *valid.groupby("load"), *valid.groupby("model")]:
        line = [str(label), f"{len(group)}"]
        for figure in ("latency_p50_ms", "latency_mean_ms"):
            difference = (group[f"{figure}_again"] / group[figure] - 1).abs()
            line += [f"{difference.median():.1%}", f"{difference.quantile(0.9):.1%}"]
        rows.append(line)
    print_table(
        f"absolute relative difference of the same cell in two sweeps; {len(valid)} of {len(both)} cells VALID in both",
        ["cells", "count", "median (p50)", "90 % (p50)", "median (mean)", "90 % (mean)"],
        rows,
    )


if __name__ == "__main__":
    main()
