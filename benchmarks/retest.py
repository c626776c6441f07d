"""Is a number that says VALID the number that comes again? Two sweeps over the same cells, in other orders.

Reference: the first of the two. Differences are shown as measured, and at pace 1: each latency times its cell's pace,
which would be the better figure if the pace explained the differences.
"""

import argparse
import contextlib
import io
import tempfile
from pathlib import Path

import pandas as pd

from benchmarks.common import composition, print_table
from pepper.tasks.profile import profile
from pepper.tracking.history import history
from pepper.tracking.store import Store

PACE_QUANTILES = (0.5, 0.9, 0.98, 1.0)


def sweep(name: str, overrides: list[str], folder: str, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Measure every cell of a sweep; returns what stands in the end, and the first attempts, by cell."""
    made = composition(
        f"+sweep={name}",
        *overrides,
        f"sweep.seed={seed}",
        "sweep.rerun=all",
        f"tracking.uri=sqlite:///{folder}/mlflow.db",
        f"tracking.artifacts={folder}/artifacts",
        f"tracking.folder={folder}",
    )
    with contextlib.redirect_stdout(io.StringIO()):
        profiled = profile(made)
    runs = history(Store(made.config.tracking))
    first = runs[(runs["parent"] == profiled.run_id) & runs["again"].isna()]
    return pd.DataFrame(profiled.rows).set_index("cell"), first.set_index("cell")


def differences(valid: pd.DataFrame) -> list[str]:
    """Return the median, the 90th percentile and the worst of the differences, as measured and at pace 1."""
    line = []
    for pace, pace_again in ((1.0, 1.0), (valid["pace"].fillna(1.0), valid["pace_again"].fillna(1.0))):
        first, again = valid["latency_p50_ms"] * pace, valid["latency_p50_ms_again"] * pace_again
        difference = (again / first - 1).abs()
        line += [f"{difference.median():.1%}", f"{difference.quantile(0.9):.1%}", f"{difference.max():.1%}"]
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--sweep", default="loads", metavar="NAME", help="the sweep that is run twice")
    parser.add_argument("overrides", nargs="*", help="more of the configuration, such as model=squeezenet")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "artifacts").mkdir()
        found = [sweep(options.sweep, options.overrides, folder, seed) for seed in (1, 2)]
    (first, first_attempts), (again, again_attempts) = found
    attempts = pd.concat([first_attempts, again_attempts])
    count, at_once = len(first) + len(again), (attempts["verdict"] == "VALID").sum()
    print_table(
        "verdicts of both sweeps",
        ["", "cells", "share"],
        [
            ["VALID in the first attempt", f"{at_once}", f"{at_once / count:.0%}"],
            *(
                [f"{verdict} in the end", f"{total}", f"{total / count:.0%}"]
                for verdict, total in pd.concat([first, again])["verdict"].value_counts().items()
            ),
        ],
    )
    shown = ["model", "device", "load", "verdict", "latency_p50_ms", "pace"]
    sides = [each.reindex(columns=shown) for each in (first, again)]
    both = sides[0].merge(sides[1][shown[3:]], left_index=True, right_index=True, suffixes=("", "_again"))
    valid = both[(both["verdict"] == "VALID") & (both["verdict_again"] == "VALID")]
    print_table(
        f"\nabsolute difference of a cell's medians; {len(valid)} of {len(both)} cells VALID in both sweeps",
        ["cells", "count", "median", "90 %", "worst", "median, pace 1", "90 %, pace 1", "worst, pace 1"],
        [
            [str(label), f"{len(group)}", *differences(group)]
            for label, group in [
                ("all", valid),
                *(pair for by in ("device", "load", "model") for pair in valid.groupby(by)),
            ]
            if len(group)
        ],
    )
    moved = {
        half: attempts[column].dropna()
        for half, column in (
            ("arithmetic", "metrics.pace_change_percent"),
            ("memory", "metrics.pace_memory_change_percent"),
        )
        if column in attempts
    }
    named = attempts["reasons"].fillna("").str.contains("pace: ")
    print_table(
        f"\nhow far the pace moved within a cell; {named.sum()} of {len(attempts)} cells INVALID for it",
        ["kernel", "cells", *(f"{quantile:.0%}" for quantile in PACE_QUANTILES)],
        [
            [half, f"{len(changes)}", *(f"{changes.quantile(quantile):.1f} %" for quantile in PACE_QUANTILES)]
            for half, changes in moved.items()
        ],
    )


if __name__ == "__main__":
    main()
