"""How often is a latency model promoted that is no better, and how often one that is?

Made-up errors of champions and challengers go through what task=promote decides with. Each model favours one side by
chance, and so does each of its parts and each cell (standard deviations of the relative error). Challengers that are
no better must hardly ever be promoted (2.5 % at a confidence of 95 %), those that are better by --gain often.
Reference: the plain percentile interval of the same bootstrap, which is too sure of few models.

    python -m benchmarks.promotion
"""

import argparse
from collections.abc import Sequence

import numpy as np
from scipy.stats import norm, t

from benchmarks.common import print_table
from pepper.latency.dataset import Rows
from pepper.latency.evaluation import compare
from pepper.latency.features import FEATURES, Values

CONFIDENCE = 0.95
CHAMPIONS_ERROR = 0.3  # relative; what counts are differences to it


def plain(models: int) -> float:
    """Return the confidence at which the widened interval of so many models is the plain one of `CONFIDENCE`."""
    quantile = norm.ppf((1 - CONFIDENCE) / 2) / np.sqrt(models / (models - 1))
    return float(1 - 2 * t.cdf(quantile, models - 1))


def cells(models: int, parts: int, settings: int) -> Rows:
    """Return rows that all took 1 ms: each part of each model in each setting."""
    model, part, device = (grid.ravel() for grid in np.indices((models, parts, settings)))
    ones = np.ones(len(model))
    named = [np.char.add(name, index.astype(str)) for name, index in (("model", model), ("device", device))]
    parts_of = np.char.add(np.char.add(named[0], "/"), part.astype(str))
    loads = np.full(len(model), "idle")
    return Rows(np.zeros((len(model), len(FEATURES))), ones, ones, named[0], parts_of, named[1], loads, named[0])


def chances(rows: Rows, deviations: Sequence[float], rng: np.random.Generator) -> Values:
    """Draw by how much each row favours the champion."""
    favour = np.zeros(len(rows))
    for group, deviation in zip((rows.model, rows.part, np.arange(len(rows))), deviations, strict=True):
        _, member = np.unique(group, return_inverse=True)
        favour += deviation * rng.standard_normal(member.max() + 1)[member]
    return favour


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, nargs="+", default=[5, 9, 20], help="held out (default: 5 9 20)")
    parser.add_argument("--parts", type=int, default=6, help="of a model (default: 6)")
    parser.add_argument("--settings", type=int, default=8, help="in which each part is measured (default: 8)")
    parser.add_argument(
        "--deviations",
        type=float,
        nargs=3,
        default=[0.04, 0.04, 0.05],
        metavar=("MODEL", "PART", "CELL"),
        help="by which a model, a part and a cell favour one side (default: 0.04 0.04 0.05)",
    )
    parser.add_argument("--gain", type=float, default=0.06, help="of a better challenger (default: 0.06)")
    parser.add_argument("--challengers", type=int, default=400, help="of each kind (default: 400)")
    options = parser.parse_args()
    lines = []
    for models in options.models:
        rows = cells(models, options.parts, options.settings)
        champion_ms = rows.p50_ms * (1 + CHAMPIONS_ERROR)
        confidences = (plain(models), CONFIDENCE)
        promoted = {(gain, confidence): 0 for gain in (0.0, options.gain) for confidence in confidences}
        for challenger in range(options.challengers):
            favour = chances(rows, options.deviations, np.random.default_rng(challenger))
            for gain, confidence in promoted:
                challenger_ms = champion_ms + favour - gain
                found = compare(rows, challenger_ms, champion_ms, confidence, resamples=2_000, seed=challenger)
                promoted[gain, confidence] += found.better
        lines.append([f"{models}", *(f"{count / options.challengers:.1%}" for count in promoted.values())])
    print_table(
        f"{options.challengers} challengers that are no better, {options.challengers} that are, by {options.gain:.0%}",
        ["held-out models", "wrongly promoted, plain", "widened", "rightly promoted, plain", "widened"],
        lines,
    )


if __name__ == "__main__":
    main()
