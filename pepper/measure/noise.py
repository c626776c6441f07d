"""The noise floor: how far two measurements of the same cell differ. No prediction and no comparison can be better."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

import numpy as np


@dataclass(frozen=True)
class NoiseFloor:
    """Differences between two measurements of a cell, in workers of their own.

    Attributes:
        median_percent: Half of the cells differ by less.
        p90_percent: Nine of ten differ by less.
        cells: How many were measured twice.
    """

    median_percent: float
    p90_percent: float
    cells: int

    def __str__(self) -> str:
        count = "one cell was" if self.cells == 1 else f"{self.cells} cells were"
        return (
            f"{count} measured twice: the medians differ by {self.median_percent:.1f} % (median) and"
            f" {self.p90_percent:.1f} % (90th percentile)"
        )

    def metrics(self) -> dict[str, float]:
        """Return the figures by the names that runs have them under."""
        return {f"noise_{name}": float(value) for name, value in asdict(self).items()}

    @classmethod
    def read(cls, figures: Mapping[str, Any]) -> Self | None:
        """Return what `metrics` gave, numbers or text, from among other figures; None if it is not there."""
        names = [f"noise_{each.name}" for each in fields(cls)]
        if not all(name in figures for name in names):
            return None
        median, p90, cells = (float(figures[name]) for name in names)
        return cls(median, p90, round(cells))


def floor_of(pairs: Sequence[tuple[float, float]]) -> NoiseFloor | None:
    """Return the noise floor that some cells show; None without any.

    Args:
        pairs: What was measured first and what was measured again, in the same unit.
    """
    if not pairs:
        return None
    differences = [100 * abs(again / first - 1) for first, again in pairs]
    return NoiseFloor(float(np.median(differences)), float(np.quantile(differences, 0.9)), len(pairs))
