"""A physical estimate of latency: work over speed, with an efficiency for each kind of operator.

The time of a part is the sum over kinds of operators of their multiply-accumulates over the device's
arithmetic speed and their bytes over its memory speed (the two axes of the roofline model: Williams,
Waterman and Patterson, CACM 2009), an overhead an operator and one an inference. Products of
integers have a speed of their own, whatever their kind. The factors, 1 at the device's calibrated speed, are
fitted and never negative, so that the estimate extrapolates: a part with twice the work of any seen takes twice
as long.

Where a core is shared, with a neighbour or by a throttle, it works in slices, and a part's *median* latency is
not its work times the slow-down. A part of length w that starts anywhere in slices of length a meets the end of
w/a slices on average, and each end costs one wait b: the median counts no wait until w is half a slice, then one.
How long slices are is measured when the device is calibrated; where it is not known, the median is taken for the mean.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from pepper.graph.cost_kinds import KINDS, MAC_KINDS
from pepper.latency.features import COLUMN, Values

REDUCED = ("macs_int8", "macs_float16")
MAC_TERMS = (*(f"macs_{kind}" for kind in MAC_KINDS), *REDUCED)
BYTE_TERMS = (*(f"bytes_{kind}" for kind in KINDS), "reordered_bytes")
LOAD_TERMS = ("product_mk", "product_kn", "product_mn")
TERMS = (*MAC_TERMS, *BYTE_TERMS, *LOAD_TERMS, "operators", "inference")

_CLASS = np.array([0] * len(MAC_TERMS) + [1] * len(BYTE_TERMS) + [2] * len(LOAD_TERMS) + [3, 4])
_KINDS = [COLUMN[name] for name in MAC_TERMS if name not in REDUCED]
_REDUCED = [COLUMN[name] for name in REDUCED]
_BYTES = [COLUMN[name] for name in BYTE_TERMS]
_LAUNCHED = [COLUMN[f"operators_{kind}"] for kind in KINDS if kind not in ("fused", "view")]
_LOADS = [COLUMN[name] for name in LOAD_TERMS]
_OVERHEAD_FLOP = 1e5  # an overhead of 1 is the time of this much arithmetic on one core
_SHARPNESS = 20.0
WHOLE = 0.97
"""A core that gives more than this share is not throttled."""
_BUSY = 1.9  # slow-down by a neighbour that is always ready to run
_LEAST_MS, _MOST_MS = 1e-6, 1e9
_LEAST_SPREAD = 0.02  # relative; measurements are no finer
_ALIKE = 1e-6  # log; an error is the relative one
_ITERATIONS = 30
_TOLD = 0.05  # of a row's work: a kind that never made as much has no factor of its own


@dataclass(frozen=True)
class Roofline:
    """A fitted estimate.

    Attributes:
        factors: By term of `TERMS`: times the calibrated device's time, shape (len(TERMS),).
    """

    factors: Values

    @classmethod
    def fit(cls, features: Values, latency_ms: Values, freedom: float = 10.0) -> Self:
        """Fit the factors to measured latencies.

        The loss is Huber's on the log error, so that a few bad measurements do not count much. Few rows
        cannot tell many kinds apart, so each factor is drawn to the common one of its class (arithmetic,
        memory, operators, inference).

        Args:
            features: Rows of `features.rows`, shape (n, len(FEATURES)).
            latency_ms: Measured latencies, shape (n,).
            freedom: How far a kind's factor may lie from its class's, in multiples of it.
        """
        times, work_ms = _times(features), _unstretched(latency_ms, features)
        pooled = np.stack([times[:, c == _CLASS].sum(axis=1) for c in range(_CLASS[-1] + 1)], axis=1)
        common = _robust(pooled, work_ms, None, None)[_CLASS]
        return cls(_robust(times, work_ms, common, freedom * np.maximum(common, 0.1 * common.max())))

    def latency_ms(self, features: Values) -> Values:
        """Estimate the latency of each row, load included, shape (n,)."""
        return _stretched(self.work_ms(features), features)

    def work_ms(self, features: Values) -> Values:
        """Estimate how long each row would take on whole, idle cores, shape (n,)."""
        return np.asarray(np.maximum(_times(features) @ self.factors, _LEAST_MS))

    def terms_ms(self, features: Values) -> Values:
        """Tell how long each term takes on whole, idle cores, shape (n, len(TERMS))."""
        return _times(features) * self.factors

    def mean_ms(self, features: Values) -> Values:
        """Estimate the mean latency of each row: work on shared cores takes all of its waits on average, shape (n,)."""
        slowdown = features[:, COLUMN["load_slowdown"]] / features[:, COLUMN["device_share"]]
        return np.asarray(self.work_ms(features) * slowdown)

    def shares(self, features: Values) -> Values:
        """Tell what each term makes of the work, shape (n, len(TERMS)); the terms of a row add up to 1."""
        terms = self.terms_ms(features)
        return np.asarray(terms / np.maximum(terms.sum(axis=1, keepdims=True), _LEAST_MS))

    def spread_of_kinds(self, shares: Values) -> float:
        """Tell how far the factors of kinds lie from the median of their class: the mean absolute logarithm.

        Args:
            shares: The most that each term made of a row that was fitted, shape (len(TERMS),); small ones tell nothing.
        """
        told = (shares >= _TOLD) & (self.factors > 0)
        classes = [np.log(self.factors[told & (number == _CLASS)]) for number in np.unique(_CLASS)]
        strays = [np.abs(logs - np.median(logs)) for logs in classes if len(logs) > 1]
        return float(np.mean(np.concatenate(strays))) if strays else 0.0

    def to_json(self) -> dict[str, float]:
        """Return the factors by term."""
        return dict(zip(TERMS, self.factors.tolist(), strict=True))

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read what `to_json` returned."""
        return cls(np.array([content[term] for term in TERMS], float))


def _times(features: Values) -> Values:
    """Milliseconds of each term on whole cores at the device's calibrated speed; without calibration, at
    1 GFLOP/s and GB/s. Calibration is measured inside the device's share, so whole cores are faster."""

    def speed(name: str) -> Values:
        return np.nan_to_num(features[:, COLUMN[name]], nan=1.0)

    def own(name: str, otherwise: Values) -> Values:
        """Return what the execution provider does, where it is not the cores' own."""
        known = features[:, COLUMN[name]]
        return np.where(np.isfinite(known), known, otherwise)[:, None]

    overhead = _OVERHEAD_FLOP / speed("device_gflops_single") / 1e6
    gflops = own("device_runtime_gflops", speed("device_gflops"))
    single, reduced = features[:, _KINDS], features[:, _REDUCED]
    rest = 1 - reduced.sum(axis=1) / np.maximum(single.sum(axis=1), 1)  # what products of each kind are not reduced
    integer = own("device_int8_gops", gflops[:, 0])
    launched = features[:, _LAUNCHED].sum(axis=1)[:, None]
    blocks = (
        2 * single * np.maximum(rest, 0)[:, None] / gflops / 1e6,
        2 * reduced / np.hstack((integer, gflops)) / 1e6,
        features[:, _BYTES] / own("device_runtime_memory_gbps", speed("device_memory_gbps")) / 1e6,
        2 * features[:, _LOADS] / gflops / 1e6,
        launched * own("device_runtime_launch_ms", overhead),
        own("device_runtime_call_ms", overhead) + moved_ms(features),
    )
    return np.asarray(np.hstack(blocks) * features[:, [COLUMN["device_share"]]])


def moved_ms(features: Values) -> Values:
    """Milliseconds that inputs and outputs take to where a provider computes and back; 0 for the cores' own."""
    ways = (("input_bytes", "device_runtime_in_gbps"), ("output_bytes", "device_runtime_out_gbps"))
    moved = [features[:, COLUMN[size]] / features[:, COLUMN[speed]] / 1e6 for size, speed in ways]
    return np.asarray(np.nan_to_num(np.sum(moved, axis=0)))[:, None]


def _stretched(work_ms: Values, features: Values) -> Values:
    """Median latency of work on shared cores: the work, and the waits that half of the inferences meet.

    A throttle's slices have random lengths, so that beyond the first wait their number grows as the work does.
    The scheduler's are all alike: the number of waits is a whole one.
    """
    share, slowdown = features[:, COLUMN["device_share"]], features[:, COLUMN["load_slowdown"]]
    cycle_ms, tick_ms, burst_ms = (
        features[:, COLUMN[name]] for name in ("device_cycle_ms", "device_slice_ms", "load_period_ms")
    )
    throttled, busy = share < WHOLE, slowdown >= _BUSY
    slice_ms = np.where(throttled, cycle_ms * share, np.where(busy, tick_ms, burst_ms))
    slices = work_ms / slice_ms
    whole = np.maximum(np.round(work_ms / tick_ms), 1) * _most(2 * work_ms / tick_ms)
    waits = np.where(busy, whole, slices)
    waits = np.where(throttled, np.maximum(slices, 1), waits) * np.where(busy & ~throttled, 1, _most(2 * slices))
    waiting_ms = waits * slice_ms * (slowdown / share - 1)
    # A neighbour that is not always ready takes no more than one that is.
    waiting_ms = np.where(throttled | busy, waiting_ms, np.fmin(waiting_ms, whole * tick_ms * (_BUSY - 1)))
    mean_ms = work_ms * (slowdown / share - 1)
    return np.asarray(work_ms + np.where(np.isfinite(waiting_ms), waiting_ms, mean_ms))


def _most(halves: Values) -> Values:
    """Whether most inferences of that many half slices meet a slice's end: a steep, smooth step from 0 to 1 at 1."""
    steep = np.minimum(halves, 2) ** _SHARPNESS
    return np.asarray(steep / (1 + steep))


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
    """Non-negative factors with the least Huber loss of the log error, by reweighted least squares."""
    from scipy.optimize import nnls

    relative = times / latency_ms[:, None]
    size = np.maximum(np.abs(relative).max(axis=0), 1e-12)
    scaled = relative / size
    level = relative.sum(axis=1)  # begun at the calibrated speed: from a fit that a stray row drew away none comes back
    weight = _weights(level / max(float(np.median(level)), 1e-12))
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
        weight = _weights(relative @ factors)
    return factors


def _weights(ratio: Values) -> Values:
    """Weights of rows by their estimated over their measured latency: errors count as logarithms, by Huber's loss.

    So one that is a thousand times too short is as far off as one that is as much too long.
    """
    ratio = np.maximum(ratio, 1e-9)
    error = np.abs(np.log(ratio))
    scale = max(float(np.median(error)), _LEAST_SPREAD)
    as_log = np.divide(error, np.abs(ratio - 1), out=np.ones(len(error)), where=error > _ALIKE)
    return np.asarray(as_log / np.sqrt(np.maximum(1, error / scale)))
