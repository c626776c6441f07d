"""Points that stand for others: greedy k-medoids (BUILD of Kaufman and Rousseeuw, Finding Groups in Data, 1990)."""

import numpy as np
import numpy.typing as npt

from pepper.latency.dataset import Names
from pepper.latency.features import Values

_MOST = 1000  # rows that are stood for: of more, a seeded choice says as much


def medoids(
    points: Values,
    parts: Names,
    count: int,
    weight: Values | None = None,
    known: npt.NDArray[np.int64] | None = None,
) -> list[int]:
    """Choose the points to which all points are nearest.

    No part is chosen twice before each was chosen once: what is wrong about a part is wrong under every load.

    Args:
        points: On a common scale, shape (n, k).
        parts: The part that each is of, shape (n,).
        count: How many to choose.
        weight: How much it counts that each point is near to one, shape (n,); None is all alike.
        known: Indices of points that are chosen already.

    Returns:
        Indices, the most telling first; all that are left if there are no more than ``count``.
    """
    points = points - points.mean(axis=0)  # what all share costs the distances' digits
    total, taken = len(points), np.array([], int) if known is None else known
    stood_for = np.arange(total)
    if total > _MOST:
        stood_for = np.sort(np.random.default_rng(0).choice(total, _MOST, replace=False))
    weights = np.ones(len(stood_for)) if weight is None else weight[stood_for]
    distance = _distance(points[stood_for], points)
    nearest = distance[:, taken].min(axis=1) if len(taken) else np.full(len(stood_for), distance.max())
    names, part = np.unique(parts, return_inverse=True)
    times = np.bincount(part[taken], minlength=len(names))  # that a part was chosen
    free = np.ones(total, bool)
    free[taken] = False
    chosen: list[int] = []
    for _ in range(min(count, int(free.sum()))):
        cost = weights @ np.minimum(nearest[:, None], distance)
        seldom = times[part] == times[part[free]].min()
        best = int(np.where(free & seldom, cost, np.inf).argmin())
        nearest = np.minimum(nearest, distance[:, best])
        free[best] = False
        times[part[best]] += 1
        chosen.append(best)
    return chosen


def _distance(ones: Values, others: Values) -> Values:
    squares = (ones**2).sum(axis=1)[:, None] + (others**2).sum(axis=1)
    return np.asarray(np.sqrt(np.maximum(squares - 2 * ones @ others.T, 0)))
