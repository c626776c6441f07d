"""A physical estimate of latency: work over speed, with an efficiency for each kind of operator.

The time of a part is the sum over kinds of operators of their multiply-accumulates over the device's
arithmetic speed and their bytes over its memory speed (the two axes of the roofline model: Williams,
Waterman and Patterson, CACM 2009), an overhead an operator and one an inference. The factors, 1 at the
device's calibrated speed, are fitted and never negative, so that the estimate extrapolates: a part with twice
the work of any seen takes twice as long.

Where a core is shared, with a neighbour or by a throttle, it works in slices. A part much longer than a slice
takes its whole share of the waiting; one shorter than half a slice mostly ends within it, so that its median
latency is that of an idle core.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from pepper.graph.cost_kinds import KINDS, MAC_KINDS
from pepper.latency.features import COLUMN, Values

MAC_TERMS = tuple(f"macs_{kind}" for kind in MAC_KINDS)
BYTE_TERMS = tuple(f"bytes_{kind}" for kind in KINDS)
TERMS = (*MAC_TERMS, *BYTE_TERMS, "operators", "inference")

_CLASS = np.array([0] * len(MAC_TERMS) + [1] * len(BYTE_TERMS) + [2, 3])
_MACS = [COLUMN[name] for name in MAC_TERMS]
_BYTES = [COLUMN[name] for name in BYTE_TERMS]
_OVERHEAD_FLOP = 1e5  # an overhead of 1 is the time of this much arithmetic on one core
_SLICE_MS = 3.0
"""How long a whole core works before it waits: the scheduler's base slice, and a throttle's cycle."""
_SHARPNESS = 4.0
_LEAST_MS, _MOST_MS = 1e-6, 1e9
_LEAST_SPREAD = 0.02  # relative; measurements are no finer
_ITERATIONS = 30


@dataclass(frozen=True)
class Roofline:
    """A fitted estimate.

    Attributes:
        factors: By term of `TERMS`: times the calibrated device's time, shape (len(TERMS),).
    """

    factors: Values

    @classmethod
    def fit(cls, features: Values, latency_ms: Values, freedom: float = 3.0) -> Self:
        """Fit the factors to measured latencies.

        The loss is Huber's on the relative error, so that a few bad measurements do not count much. Few rows
        cannot tell many kinds apart, so each factor is drawn to the common one of its class (arithmetic,
        memory, operators, inference).

        Args:
            features: Rows of `features.rows`, shape (n, len(FEATURES)).
            latency_ms: Measured latencies, shape (n,).
            freedom: How far a kind's factor may lie from its class's, in multiples of it.
        """
        times = _times(features)
        work_ms = _unstretched(latency_ms, features)
        pooled = np.stack([times[:, c == _CLASS].sum(axis=1) for c in range(4)], axis=1)
        common = _robust(pooled, work_ms, None, None)[_CLASS]
        spread = freedom * np.maximum(common, 0.1 * common.max())
        return cls(_robust(times, work_ms, common, spread))

    def latency_ms(self, features: Values) -> Values:
        """Estimate the latency of each row, load included, shape (n,)."""
        return _stretched(self.work_ms(features), features)

    def work_ms(self, features: Values) -> Values:
        """Estimate how long each row would take on whole, idle cores, shape (n,)."""
        return np.asarray(np.maximum(_times(features) @ self.factors, _LEAST_MS))

    def to_json(self) -> dict[str, float]:
        """Return the factors by term."""
        return dict(zip(TERMS, self.factors.tolist(), strict=True))

    @classmethod
    def from_json(cls, factors: Mapping[str, Any]) -> Self:
        """Read what `to_json` returned."""
        return cls(np.array([factors[term] for term in TERMS], float))


def _times(features: Values) -> Values:
    """Milliseconds of each term on whole cores at the device's calibrated speed; without calibration, at
    1 GFLOP/s and GB/s. Calibration is measured inside the device's share, so whole cores are faster."""

    def speed(name: str) -> Values:
        return np.nan_to_num(features[:, COLUMN[name]], nan=1.0)

    def column(values: Values) -> Values:
        return values[:, None]

    single = column(speed("device_gflops_single"))
    overhead = _OVERHEAD_FLOP / single / 1e6
    blocks = (
        2 * features[:, _MACS] / column(speed("device_gflops")) / 1e6,
        features[:, _BYTES] / column(speed("device_memory_gbps")) / 1e6,
        column(features[:, COLUMN["operators"]]) * overhead,
        overhead,
    )
    return np.asarray(np.hstack(blocks) * column(features[:, COLUMN["device_share"]]))


def _stretched(work_ms: Values, features: Values) -> Values:
    """Median latency of work on shared cores: a smooth form of the work plus a wait for each slice's end.

    With slices of length a and waits of b, a part of length w that starts anywhere in a slice meets w/a ends
    on average, and its median count turns from none to one at w = a/2.
    """
    share = features[:, COLUMN["device_share"]]
    slowdown = features[:, COLUMN["load_slowdown"]] / share
    in_halves = (2 * work_ms / (_SLICE_MS * share)) ** _SHARPNESS
    return np.asarray(work_ms * (1 + (slowdown - 1) * in_halves / (1 + in_halves)))


def _unstretched(latency_ms: Values, features: Values) -> Values:
    """The work whose median latency is given: `_stretched` grows with the work, so bisection finds it."""
    low, high = np.full(len(latency_ms), np.log(_LEAST_MS)), np.full(len(latency_ms), np.log(_MOST_MS))
    for _ in range(60):
        middle = (low + high) / 2
        above = _stretched(np.exp(middle), features) > latency_ms
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    return np.asarray(np.exp(high))


def _robust(
    times: Values,
    latency_ms: Values,
    centre: npt.NDArray[np.float64] | None,
    spread: npt.NDArray[np.float64] | None,
) -> Values:
    """Non-negative factors with the least Huber loss of the relative error, by reweighted least squares."""
    from scipy.optimize import nnls

    relative = times / latency_ms[:, None]
    size = np.maximum(np.abs(relative).max(axis=0), 1e-12)
    scaled = relative / size
    weight = np.ones(len(latency_ms))
    factors = np.zeros(times.shape[1])
    for _ in range(_ITERATIONS):
        rows, target = scaled * weight[:, None], weight
        if centre is not None and spread is not None:
            noise = max(float(np.median(np.abs(relative @ factors - 1))), _LEAST_SPREAD)
            pull = noise / (spread * size)
            rows = np.vstack((rows, np.diag(pull)))
            target = np.concatenate((target, pull * centre * size))
        new = nnls(rows, target)[0] / size
        done = np.allclose(new, factors, rtol=1e-3, atol=1e-9)
        factors = new
        if done:
            break
        error = np.abs(np.log(np.maximum(relative @ factors, 1e-9)))
        scale = max(float(np.median(error)), _LEAST_SPREAD)
        weight = 1 / np.sqrt(np.maximum(1, error / scale))
    return factors
