"""Questions over ranges of positions, answered for many ranges at once."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Positions = NDArray[np.int64]
Values = NDArray[np.float64]


def sums_inside(first: Positions, last: Positions, values: Values, starts: Positions, ends: Positions) -> Values:
    """Sum, for every range, the values of the spans that lie inside it.

    A span ``[first, last]`` lies inside the range ``[start, end)`` if ``start <= first`` and ``last < end``.
    The spans are sorted bit by bit as in a wavelet matrix (Information Systems 47, 2015), all ranges
    descending it together, so that P spans and Q ranges take O((P + Q) log P) time and O(P + Q) memory.

    Args:
        first: First position of each span, shape (P,).
        last: Last position of each span, shape (P,).
        values: Values of each span, shape (P, C).
        starts: First position of each range, shape (Q,).
        ends: End (exclusive) of each range, shape (Q,).

    Returns:
        Sums of shape (Q, C).
    """
    totals = np.zeros((len(starts), values.shape[1]))
    order = np.argsort(-first, kind="stable")
    values = values[order]
    distinct, ranks = np.unique(last[order], return_inverse=True)
    bounds = np.searchsorted(distinct, ends)  # spans whose rank is below it end in time
    low = np.zeros(len(starts), np.int64)
    high = np.searchsorted(-first[order], -starts, side="right")  # spans before it begin in time
    for bit in reversed(range(len(distinct).bit_length())):
        clear = (ranks >> bit) & 1 == 0
        clear_before = np.concatenate(([0], np.cumsum(clear)))
        value_before = np.zeros((len(values) + 1, values.shape[1]))
        np.cumsum(np.where(clear[:, None], values, 0.0), axis=0, out=value_before[1:])
        is_set = (bounds >> bit) & 1 == 1
        totals[is_set] += value_before[high[is_set]] - value_before[low[is_set]]
        low_clear, high_clear = clear_before[low], clear_before[high]
        low = np.where(is_set, clear_before[-1] + low - low_clear, low_clear)
        high = np.where(is_set, clear_before[-1] + high - high_clear, high_clear)
        order = np.concatenate((np.flatnonzero(clear), np.flatnonzero(~clear)))
        ranks, values = ranks[order], values[order]
    return totals


class RangeMaximum:
    """Maximum of any range of a list in O(1), after O(n log n) preparation (a sparse table)."""

    def __init__(self, values: Values) -> None:
        self._levels = [values]
        span = 1
        while 2 * span <= len(values):
            below = self._levels[-1]
            self._levels.append(np.maximum(below[:-span], below[span:]))
            span *= 2

    def __call__(self, starts: Positions, ends: Positions) -> Values:
        """Maxima over ``[start, end)``; no range may be empty."""
        level = np.log2(ends - starts).astype(np.int64)
        result = np.empty(len(starts))
        for number in np.unique(level):
            chosen = level == number
            table = self._levels[number]
            result[chosen] = np.maximum(table[starts[chosen]], table[ends[chosen] - 2**number])
        return result


def longest_paths(predecessors: Sequence[Sequence[int]], starts: Positions, ends: Positions) -> Values:
    """Count, for every range, the operators on its longest path.

    One pass in topological order keeps, for each start that a later range still needs, the longest path to
    every operator: O(N S) array elements for N operators and S starts in use at a time, N array operations.

    Args:
        predecessors: The operators that each operator reads from, all of them before it.
        starts: First operator of each range, shape (Q,).
        ends: End (exclusive) of each range, shape (Q,).

    Returns:
        Path lengths of shape (Q,).
    """
    origins, origin = np.unique(starts, return_inverse=True)
    needed_until = np.zeros(len(origins), np.int64)
    np.maximum.at(needed_until, origin, ends)
    last_reader = list(range(len(predecessors)))
    for index, before in enumerate(predecessors):
        for number in before:
            last_reader[number] = index
    forget: dict[int, list[int]] = {}
    paths: dict[int, tuple[int, NDArray[np.int32]]] = {}
    deepest = np.zeros(len(origins), np.int32)
    result = np.empty(len(starts))
    by_end = np.argsort(ends, kind="stable")
    stops, places = np.unique(ends[by_end], return_index=True)
    asked = dict(zip(stops.tolist(), np.split(by_end, places[1:]), strict=True))
    opened = np.searchsorted(origins, np.arange(len(predecessors)), side="right").tolist()
    until = needed_until.tolist()
    low = 0
    for index in range(int(origins[0]), int(ends.max())):
        high = opened[index]
        while low < high and until[low] <= index:
            low += 1
        if low < high:
            path = np.ones(high - low, np.int32)
            for number in predecessors[index]:
                if number in paths:
                    base, before_path = paths[number]
                    before_path = before_path[low - base :]
                    common = path[: len(before_path)]
                    np.maximum(common, before_path + 1, out=common)
            if last_reader[index] > index:
                paths[index] = low, path
                forget.setdefault(last_reader[index], []).append(index)
            span = deepest[low:high]
            np.maximum(span, path, out=span)
        for number in forget.pop(index, ()):
            del paths[number]
        if index + 1 in asked:
            which = asked[index + 1]
            result[which] = deepest[origin[which]]
    return result
