"""Which cells to measure next, so that a latency model learns most of all of them.

What is worth measuring stands for many cells that are not known yet. Latency models that learned from different draws
of what was measured disagree where it does not tell (query by committee: Seung, Opper and Sompolinsky, COLT 1992); half
of the cells that are chosen are the medoids of all cells, each weighing as much as they disagree about it, or all the
same where little was measured. The other half is drawn: medoids alone lean to what is unusual, and a latency model that
learned from them was measured to err more about the rest.
"""

import numpy as np
import numpy.typing as npt

from pepper.latency.adaptation import composition
from pepper.latency.dataset import Names, Rows
from pepper.latency.features import Values
from pepper.latency.medoids import medoids
from pepper.latency.model import Hyperparameters, LatencyModel
from pepper.latency.roofline import TERMS, Roofline

LEAST = 20
"""Fewest rows that a committee learns from."""

_MEMBERS = 5
_HYPERPARAMETERS = Hyperparameters(rounds=150, bags=1)  # as good at disagreeing, and quick
_CALIBRATED = Roofline(np.ones(len(TERMS)))


def choose(
    cells: Values, parts: Names, known: npt.NDArray[np.int64], measured: Rows | None, count: int, seed: int = 0
) -> list[int]:
    """Choose cells to measure.

    Args:
        cells: All that could be measured, rows of `features.rows`, shape (n, len(FEATURES)).
        parts: The part that each is of, shape (n,).
        known: Indices of those that were measured.
        measured: What is known, of other cells too; None if nothing is.
        count: How many to choose.
        seed: Seed of what is drawn.

    Returns:
        Their indices, the most telling first, those drawn last; all that are left if there are no more than ``count``.
    """
    roofline, weight = _CALIBRATED, None
    if measured is not None and len(measured) >= LEAST:
        roofline = Roofline.fit(measured.features, measured.p50_ms)
        weight = disagreement(measured, cells)
    chosen = medoids(cell_points(cells, roofline), parts, (count + 1) // 2, weight, known)
    left = np.setdiff1d(np.arange(len(cells)), [*known, *chosen])
    drawn = np.random.default_rng([seed, len(known)]).permutation(left)
    return [*chosen, *drawn[: count - len(chosen)].tolist()]


def disagreement(measured: Rows, cells: Values) -> Values:
    """Return how much latency models of draws of measured parts differ: the logs' standard deviation, shape (n,)."""
    rng, parts = np.random.default_rng(0), np.unique(measured.part)
    said = []
    for _ in range(_MEMBERS):
        drawn = [np.flatnonzero(measured.part == part) for part in rng.choice(parts, len(parts))]
        rows = measured.take(np.concatenate(drawn))
        said.append(np.log(LatencyModel.fit(rows.features, rows.p50_ms, None, _HYPERPARAMETERS).p50_ms(cells)))
    return np.asarray(np.std(said, axis=0))


def cell_points(cells: Values, roofline: Roofline = _CALIBRATED) -> Values:
    """Return cells as points: what makes up their time, how far it is stretched, and how long it is."""
    others = np.column_stack((composition(cells, roofline)[:, -2:], np.log(roofline.latency_ms(cells))))
    return np.column_stack((2 * roofline.shares(cells), others / np.maximum(others.std(axis=0), 1e-9)))
