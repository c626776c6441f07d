"""How far rows lie from what a latency model was trained on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from pepper.latency.features import FEATURES, Values

TOLERANCE = 1.25
"""How far outside of what was trained on a value may lie, as a ratio, before it is named."""
MOST_NAMED = 3


@dataclass(frozen=True)
class OutOfRange:
    """A feature of one row that lies outside of what was trained on.

    Attributes:
        row: Index of the row.
        feature: Its name.
        value: Its value there.
        low: Least value trained on.
        high: Greatest value trained on.
    """

    row: int
    feature: str
    value: float
    low: float
    high: float

    @property
    def ratio(self) -> float:
        """How many times above the greatest or below the least; infinite where a ratio to 0 would be."""
        bound = self.high if self.value > self.high else self.low
        least, most = sorted((self.value, bound))
        return most / least if least > 0 else np.inf

    @property
    def distance(self) -> float:
        """What to rank by: the ratio; against 0, the number itself: few operators are nearer than many bytes."""
        return self.ratio if np.isfinite(self.ratio) else 1 + max(self.value, self.high, self.low)

    def __str__(self) -> str:
        side = "above" if self.value > self.high else "below"
        far = f"{self.ratio:.3g} times" if np.isfinite(self.ratio) else "far"
        return f"{self.feature}={self.value:.4g}: {far} {side} what was trained on ({self.low:.4g} to {self.high:.4g})"


@dataclass(frozen=True)
class Ranges:
    """The values that were trained on.

    Attributes:
        lows: Least value of each feature, NaN where none was known, shape (len(FEATURES),).
        highs: Greatest value of each.
    """

    lows: Values
    highs: Values

    @classmethod
    def of(cls, features: Values) -> Self:
        """Return the ranges of rows, shape (n, len(FEATURES))."""
        return cls(np.fmin.reduce(features), np.fmax.reduce(features))

    def outside(self, features: Values) -> npt.NDArray[np.bool_]:
        """Tell which values lie outside by more than `TOLERANCE`, shape of the rows."""
        above = features > self.highs * np.where(self.highs > 0, TOLERANCE, 1)
        below = features < self.lows / np.where(self.lows > 0, TOLERANCE, 1)
        return np.asarray(above | below)

    def named(self, features: Values, outside: npt.NDArray[np.bool_]) -> list[OutOfRange]:
        """Name the values that lie outside, row by row, the farthest first."""
        found = [
            OutOfRange(
                row, FEATURES[column], *map(float, (features[row, column], self.lows[column], self.highs[column]))
            )
            for row, column in np.argwhere(outside).tolist()
        ]
        return sorted(found, key=lambda value: (value.row, -value.distance))


def in_short(values: Sequence[OutOfRange]) -> list[str]:
    """Say what lies outside in a few lines: the farthest by name, the others by number."""
    more = len(values) - MOST_NAMED
    return [*map(str, values[:MOST_NAMED]), *([f"and {more} more outside of what was trained on"] if more > 0 else [])]
