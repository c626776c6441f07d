"""How sure a latency model is of models that it has not seen: learned from models, and loads, that it is left without.

The size of an error, its mean absolute logarithm, is what left-out models are off by, and more with each thing that is
new about a row; these are found by least squares, and are never negative. Errors over sizes are then alike, and the
interval lies between their quantiles (normalised conformal prediction: Lei et al., "Distribution-free predictive
inference for regression", JASA 2018), each model weighing the same (Dunn, Wasserman and Ramdas, "Distribution-free
prediction sets for two-layer hierarchical models", JASA 2023). Few models are too sure: quantiles are `expanded`.

Two things cannot be left out where all models are alike and one machine measured them. An operator of a new kind is
taken to stray from what operators take in common as the known kinds do, and a new device from what its calibration
says as the known devices do.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Self

import numpy as np

from pepper.latency.dataset import Mask, Rows, grouped_folds
from pepper.latency.evaluation import expanded
from pepper.latency.features import Values
from pepper.latency.intervals import NOVELTIES, Interval
from pepper.latency.model import LEAST_TO_TRAIN, Hyperparameters, LatencyModel
from pepper.latency.roofline import TERMS, Roofline

_FOLDS = 20
_OUTSIDE = 0.1
_LEAST_SIZE = 0.1  # of what is not new, over the mean error
_FINEST = 0.01  # log; measurements are no finer
_KINDS, _EXTENT, _LOAD, _DEVICE = range(len(NOVELTIES))


@dataclass(frozen=True)
class LeftOut:
    """Rows as models saw them that were trained without them.

    Attributes:
        rows: The rows, n of them.
        p50_ms: Their predicted medians, shape (n,).
        novelty: How new each was, by `NOVELTIES`, shape (n, len(NOVELTIES)).
    """

    rows: Rows
    p50_ms: Values
    novelty: Values

    @property
    def ratio(self) -> Values:
        """The measured over the predicted median, shape (n,)."""
        return np.asarray(self.rows.p50_ms / self.p50_ms)

    def take(self, chosen: Mask) -> Self:
        """Return some of the rows."""
        return type(self)(self.rows.take(chosen), self.p50_ms[chosen], self.novelty[chosen])


def leave_out(
    rows: Rows, by: str, hyperparameters: Hyperparameters, only: Collection[str] | None = None
) -> LeftOut | None:
    """Predict each row by a model that was trained without its ``model``, ``device`` or ``load``.

    Args:
        rows: What was measured.
        by: What is left out.
        hyperparameters: How the models are trained.
        only: The groups that are left out, each alone, and returned; the others are always learned from.

    Returns:
        The rows; None where one group has so many that too few are left to learn from.
    """
    groups = rows.groups(by)
    if len(rows) - np.unique(groups, return_counts=True)[1].max() < LEAST_TO_TRAIN:
        return None
    predicted, novelty = np.full(len(rows), np.nan), np.zeros((len(rows), len(NOVELTIES)))
    folds = grouped_folds(groups, _FOLDS) if only is None else [(groups != name, groups == name) for name in only]
    for known, unknown in folds:
        there = rows.take(known)
        model = LatencyModel.fit(there.features, there.p50_ms, None, hyperparameters)
        predicted[unknown] = model.p50_ms(rows.features[unknown])
        novelty[unknown] = model.novelty(rows.features[unknown])
    return LeftOut(rows, predicted, novelty).take(np.isfinite(predicted))


def interval(model: LatencyModel, by_model: LeftOut | None, by_load: LeftOut | None) -> Interval:
    """Learn the interval of a model.

    Args:
        model: The model.
        by_model: What it was trained on, each row predicted without its model; None if that could not be.
        by_load: The same without its load.
    """
    if by_model is None:
        return Interval()
    weight = _equal(by_model.rows)
    error = np.log(by_model.ratio)
    seen, kinds, extent = _sizes(np.abs(error), by_model.novelty, weight)
    size = seen + by_model.novelty[:, [_KINDS, _EXTENT]] @ np.array([kinds, extent])
    level = expanded(_OUTSIDE, len(np.unique(by_model.rows.group)))
    low, high = np.quantile(error / size, [level, 1 - level], weights=weight, method="inverted_cdf")
    sizes = {
        "kinds": max(kinds, _spread_of_kinds(model)),
        "extent": extent,
        "load": _of_loads(by_load) if by_load else 0.0,
        "device": _spread_of_devices(by_model.rows),
    }
    return Interval(
        low=float(np.exp(min(low, -1.0) * seen)),  # at least the mean error each way
        high=float(np.exp(max(high, 1.0) * seen)),
        wider={name: sizes[name] / seen for name in NOVELTIES},
    )


def _equal(rows: Rows) -> Values:
    """Weights by which each model counts the same, shape (n,)."""
    _, model, count = np.unique(rows.group, return_inverse=True, return_counts=True)
    return np.asarray(1 / count[model], float)


def _sizes(error: Values, novelty: Values, weight: Values) -> tuple[float, float, float]:
    """Return how large errors are where nothing is new, and what new kinds and a new extent add."""
    from scipy.optimize import nnls

    terms = np.column_stack((np.ones(len(error)), novelty[:, [_KINDS, _EXTENT]]))
    root = np.sqrt(weight)
    seen, kinds, extent = nnls(terms * root[:, None], error * root)[0].tolist()
    least = max(_LEAST_SIZE * float(np.average(error, weights=weight)), _FINEST)
    return max(seen, least), kinds, extent


def _of_loads(left_out: LeftOut) -> float:
    """Return how much larger errors are under a load that lies outside; 0 where none does without the others."""
    error, outside = np.abs(np.log(left_out.ratio)), left_out.novelty[:, _LOAD] > 0
    if not outside.any():
        return 0.0
    return max(0.0, float(error[outside].mean() - (error[~outside].mean() if not outside.all() else 0.0)))


def _spread_of_kinds(model: LatencyModel) -> float:
    """Return how far the factors of operators' kinds lie from those of their class, mean absolute logarithm."""
    return model.roofline.spread_of_kinds(model.most_shares) if model.roofline else 0.0


def _spread_of_devices(rows: Rows) -> float:
    """Return how far latencies lie from what calibrations say, at the median ratio, mean absolute logarithm."""
    ratio = np.log(rows.p50_ms / Roofline(np.ones(len(TERMS))).latency_ms(rows.features))
    return float(np.mean(np.abs(ratio - np.median(ratio))))
