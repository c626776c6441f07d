"""How good predictions are: scores, leave-one-out, the noise floor, and whether a difference is real."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from pepper.errors import LatencyError
from pepper.latency.dataset import Rows, grouped_folds
from pepper.latency.features import COLUMN, Values
from pepper.latency.ranges import Ranges

Trainer = Callable[[Rows], Callable[[Values], Values]]
"""Trains on rows and returns what predicts medians (ms) from features."""


def relative_error(measured_ms: Values, predicted_ms: Values) -> Values:
    """Absolute error of each row over its measured latency."""
    return np.asarray(np.abs(predicted_ms / measured_ms - 1))


def scores(measured_ms: Values, predicted_ms: Values) -> dict[str, float]:
    """Score predictions.

    Returns:
        ``mape`` and ``median_error`` (fractions of the measured latency), ``within_5``, ``within_10``,
        ``within_20`` (fractions of rows within 5, 10 and 20 %), ``spearman`` (rank correlation; NaN below
        three rows) and ``rows``.
    """
    from scipy.stats import spearmanr

    error = relative_error(measured_ms, predicted_ms)
    defined = len(error) > 2 and all(np.ptp(values) > 0 for values in (measured_ms, predicted_ms))
    return {
        "mape": float(error.mean()),
        "median_error": float(np.median(error)),
        **{f"within_{percent}": float(np.mean(error <= percent / 100)) for percent in (5, 10, 20)},
        "spearman": float(spearmanr(measured_ms, predicted_ms).statistic) if defined else np.nan,
        "rows": float(len(error)),
    }


def leave_one_out(rows: Rows, by: str, train: Trainer, most: int = 20, only: Collection[str] | None = None) -> Values:
    """Predict each row by a model that was trained without its ``model``, ``device`` or ``load``.

    Args:
        rows: What was measured.
        by: What is left out.
        train: Trains one model.
        most: How many models are trained at most; if there are more groups, several leave together.
        only: The groups that are left out, each alone; the others are always learned from.

    Returns:
        The predictions, shape (n,); NaN where the row's group was not left out.

    Raises:
        LatencyError: There is only one.
    """
    groups = rows.groups(by)
    names = np.unique(groups)
    if len(names) < 2:
        raise LatencyError(f"only one {by} was measured ({names[0]}): leaving it out leaves nothing to learn from")
    predicted = np.full(len(rows), np.nan)
    folds = grouped_folds(groups, most) if only is None else [(groups != name, groups == name) for name in only]
    for known, unknown in folds:
        predicted[unknown] = train(rows.take(known))(rows.features[unknown])
    return predicted


def outside(rows: Rows) -> Callable[[Values], Values]:
    """Return what tells, as 0 or 1, which rows lie outside of these; a `Trainer`, to count such rows by."""
    ranges = Ranges.of(rows.features)
    return lambda features: ranges.outside(features).any(axis=1).astype(float)


def repeats(rows: Rows) -> list[tuple[float, float]]:
    """Return the medians of each two measurements of a cell that follow one another, ms."""
    cells: dict[tuple[object, ...], list[float]] = {}
    for index, p50_ms in enumerate(rows.p50_ms.tolist()):
        setting = rows.features[index, COLUMN["threads"]]
        cells.setdefault((rows.part[index], rows.device[index], rows.load[index], setting), []).append(p50_ms)
    return [pair for values in cells.values() for pair in pairwise(values)]


def noise_floor(rows: Rows) -> float:
    """Mean relative difference of the same cell measured twice: what no predictor can stay below.

    Returns:
        The mean over all pairs, NaN if no cell was measured twice.
    """
    differences = [abs(later / earlier - 1) for earlier, later in repeats(rows)]
    return float(np.mean(differences)) if differences else np.nan


@dataclass(frozen=True)
class FastestPicked:
    """How often the device predicted to be fastest is the fastest.

    Attributes:
        cases: Parts under one load that were measured on two devices or more whose best two differ by more
            than the noise.
        right: The share of them in which the fastest device was picked; NaN without cases.
    """

    cases: int
    right: float


def fastest_picked(rows: Rows, predicted_ms: Values, noise: float = 0.05) -> FastestPicked:
    """Compare the fastest device measured and predicted, for each part under each load.

    Args:
        rows: What was measured.
        predicted_ms: The prediction for each row.
        noise: The least relative difference between the best two devices that counts.
    """
    by_case: dict[tuple[str, str], dict[str, tuple[float, float]]] = {}
    for part, load, device, measured, predicted in zip(
        rows.part.tolist(), rows.load.tolist(), rows.device.tolist(), rows.p50_ms, predicted_ms, strict=True
    ):
        by_case.setdefault((part, load), {})[device] = (float(measured), float(predicted))
    right = []
    for devices in by_case.values():
        ordered = sorted(measured for measured, _ in devices.values())
        if len(ordered) > 1 and ordered[1] > ordered[0] * (1 + noise):
            best, picked = (min(devices, key=lambda name: devices[name][side]) for side in (0, 1))
            right.append(best == picked)
    return FastestPicked(len(right), float(np.mean(right)) if right else np.nan)


@dataclass(frozen=True)
class Comparison:
    """A challenger against the champion on the same rows.

    Attributes:
        difference: The challenger's mean error less the champion's; below 0 the challenger is better.
        low: Lower end of its confidence interval.
        high: Upper end.
        rows: How many rows were compared.
    """

    difference: float
    low: float
    high: float
    rows: int

    @property
    def better(self) -> bool:
        """Whether the challenger is better beyond noise."""
        return self.high < 0


def compare(
    rows: Rows,
    challenger_ms: Values,
    champion_ms: Values,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Compare two predictions of the same rows by a paired bootstrap over models.

    Rows of one model are alike, so whole models are drawn (the cluster bootstrap: Field and Welsh, JRSS B
    2007); with fewer than five models, parts are drawn instead, and the answer holds for these models only.
    A bootstrap of few clusters is too sure, so its quantiles are `expanded`.

    Args:
        rows: What was measured.
        challenger_ms: One prediction for each row.
        champion_ms: The other.
        confidence: Of the two-sided interval.
        resamples: How many times rows are drawn.
        seed: Seed of the draws.
    """
    gain = relative_error(rows.p50_ms, challenger_ms) - relative_error(rows.p50_ms, champion_ms)
    clusters = rows.group if len(np.unique(rows.group)) >= 5 else rows.part
    _, member = np.unique(clusters, return_inverse=True)
    sums, sizes = np.bincount(member, gain), np.bincount(member)
    drawn = np.random.default_rng(seed).integers(len(sums), size=(resamples, len(sums)))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    count = len(sums)
    if count < 2:  # nothing to tell a difference from chance by
        return Comparison(float(gain.mean()), -np.inf, np.inf, len(gain))
    level = expanded(1 - confidence, count)
    low, high = np.quantile(means, [level, 1 - level])
    return Comparison(float(gain.mean()), float(low), float(high), len(gain))


def expanded(outside: float, count: int) -> float:
    """Return the level of the lower quantile that leaves a share outside, half of it below, if ``count`` clusters tell.

    Those of few are moved out as Student's are (the expanded percentile interval: Hesterberg, The American
    Statistician 2015).
    """
    from scipy.stats import norm, t

    if count < 2:
        return 0.0
    return float(norm.cdf(np.sqrt(count / (count - 1)) * t.ppf(outside / 2, count - 1)))


def by_group(rows: Rows, predicted_ms: Values) -> dict[str, dict[str, dict[str, float]]]:
    """Score each model, device and load alone: ``{"model": {"resnet50": scores}}``."""
    return {
        by: {str(name): scores(rows.p50_ms[groups == name], predicted_ms[groups == name]) for name in np.unique(groups)}
        for by in ("model", "device", "load")
        for groups in [rows.groups(by)]
    }
