"""The folds that hyperparameters are scored on: each is predicted from the rows of all others.

They are plain arrays, so that a machine that has neither a store nor names of models can score them, too.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Self

import numpy as np

from pepper.errors import LatencyError
from pepper.latency.dataset import Rows, grouped_folds
from pepper.latency.evaluation import relative_error
from pepper.latency.features import Values
from pepper.latency.model import Hyperparameters, LatencyModel
from pepper.latency.roofline import Roofline

Scorer = Callable[[Hyperparameters, int], float]
"""Scores hyperparameters on a fold, by its number: what `Folds.error` returns, here or on another machine."""


class Folds:
    """Rows, each of which is in one fold; what does not depend on the hyperparameters is computed once.

    Args:
        features: See `features.FEATURES`, shape (n, len(FEATURES)).
        p50_ms: Measured medians, shape (n,).
        fold_of: In which fold each row is, from 0, shape (n,).
    """

    def __init__(self, features: Values, p50_ms: Values, fold_of: Values) -> None:
        self.features, self.p50_ms, self.fold_of = features, p50_ms, fold_of
        self._rooflines: dict[tuple[int, float], Roofline] = {}

    @classmethod
    def of(cls, rows: Rows, count: int, seed: int) -> Self:
        """Return rows in folds that divide no model.

        Raises:
            LatencyError: They hold fewer than two models.
        """
        if len(np.unique(rows.group)) < 2:
            raise LatencyError("only one model to train on: folds are grouped by model; measure a second one")
        tested = [test for _, test in grouped_folds(rows.groups("model"), count, seed)]
        return cls(rows.features, rows.p50_ms, np.argmax(tested, axis=0).astype(float))

    @property
    def count(self) -> int:
        """How many there are."""
        return int(self.fold_of.max()) + 1

    def error(self, chosen: Hyperparameters, number: int) -> float:
        """Return the mean relative error in a fold of what was trained on all others."""
        test = self.fold_of == number
        features, p50_ms = self.features[~test], self.p50_ms[~test]
        roofline = None
        if chosen.base == "roofline":
            key = (number, chosen.freedom)
            roofline = self._rooflines.get(key) or Roofline.fit(features, p50_ms, chosen.freedom)
            self._rooflines[key] = roofline
        # One bag a trial: bags steady a prediction and hardly change which hyperparameters are best.
        model = LatencyModel.fit(features, p50_ms, None, replace(chosen, bags=1), roofline)
        return float(relative_error(self.p50_ms[test], model.p50_ms(self.features[test])).mean())
