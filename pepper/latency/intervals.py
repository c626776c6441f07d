"""The interval around a prediction, and how much wider it is for what is new about a row."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from pepper.latency.features import Values

NOVELTIES = ("kinds", "extent", "load", "device")
"""What can be new about a row: operators that make more of the estimate than of any row trained on; a characteristic,
a load, a device outside of what was trained on."""


@dataclass(frozen=True)
class Interval:
    """Ratios of the true to the predicted median that hold for nine of ten models never seen.

    Attributes:
        low: The lower one where nothing else is new; NaN if the model knows none.
        high: The upper one.
        wider: By name of `NOVELTIES`: how many times wider it becomes, besides, where that is wholly new.
    """

    low: float = np.nan
    high: float = np.nan
    wider: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(NOVELTIES, 0.0))

    @classmethod
    def around(cls, ratios: Values) -> Self:
        """Return the interval that holds 90 % of some ratios, and knows nothing of what is new."""
        low, high = np.quantile(ratios, [0.05, 0.95]).tolist()
        return cls(low, high)

    def ratios(self, novelty: Values) -> tuple[Values, Values]:
        """Return the lower and the upper ratio of n rows, each of shape (n,).

        Args:
            novelty: How new each row is, by `NOVELTIES`, from 0 to 1, shape (n, len(NOVELTIES)).
        """
        width = 1 + novelty @ np.array([self.wider[name] for name in NOVELTIES])
        return self.low**width, self.high**width

    def holds(self, ratios: Values, novelty: Values) -> Values:
        """Tell of each ratio, as 0 or 1, whether it lies inside, shape (n,)."""
        low, high = self.ratios(novelty)
        return np.asarray((ratios >= low) & (ratios <= high), float)
