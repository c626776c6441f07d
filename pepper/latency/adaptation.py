"""A new device from a few measurements: factors on what the champion believes its time is made of.

The champion's estimate divides a part's time among arithmetic, memory and overheads, and says how far a shared
core stretches it. A device whose arithmetic is b times slower than its calibration promises takes about
share x log b longer in log space, where share is what arithmetic takes of the part's time; likewise for the
others. So the log of measured over predicted is a linear function of a few known numbers, with a Gaussian
prior at 0, "the champion is right" (Bayesian linear regression: Bishop 2006, section 3.3). How far the prior
lets the factors go is chosen by leaving each measurement out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from pepper.errors import LatencyError
from pepper.latency.dataset import Names
from pepper.latency.features import COLUMN, SETTING, Values
from pepper.latency.medoids import medoids
from pepper.latency.roofline import BYTE_TERMS, MAC_TERMS, TERMS, Roofline

DEVICE = (
    "device_gflops",
    "device_gflops_single",
    "device_memory_gbps",
    "device_share",
    "device_cores",
    "device_l2_bytes",
    "device_l3_bytes",
    *(name for name in SETTING if name.startswith("device_runtime_")),
)
"""Features that describe a device."""
FACTORS = ("arithmetic", "memory", "overhead", "throttle", "load")
LEAST = 3
"""Fewest measurements to adapt to."""

DEVICE_COLUMNS = [COLUMN[name] for name in DEVICE]
_TOLERANCES = np.array([0.5 if name == "device_memory_gbps" else 0.25 for name in DEVICE])
"""How far two calibrations of one device may differ, relative: on a shared machine, memory speed does by 40 %."""
_LOAD_COLUMNS = [COLUMN[name] for name in ("load_percent", "load_cores", "load_accelerator_percent")]
_STRENGTHS = (0.3, 1.0, 3.0, 10.0)
"""Variance that the prior allows to a log factor, over that of a measurement's log error."""
_LEAST_SPREAD = 0.05
_ITERATIONS = 20
_CALIBRATED = Roofline(np.ones(len(TERMS)))
"""The estimate at the calibrated speed."""
_CLASSES = [
    np.array([term in MAC_TERMS for term in TERMS]),
    np.array([term in BYTE_TERMS for term in TERMS]),
    np.array([term not in (*MAC_TERMS, *BYTE_TERMS) for term in TERMS]),
]


@dataclass(frozen=True)
class Adaptation:
    """What a few measurements on one device say about the champion's predictions there.

    Attributes:
        device: The device by what it measures, by name of `DEVICE`, shape (len(DEVICE),); NaN where not known.
        factors: Log factors by `FACTORS`, shape (len(FACTORS),).
        measurements: How many it was made from.
    """

    device: Values
    factors: Values
    measurements: int

    @classmethod
    def fit(cls, features: Values, ratios: Values, roofline: Roofline | None) -> Self:
        """Fit the factors to measurements on one device.

        Args:
            features: Rows of `features.rows`, shape (n, len(FEATURES)), all of one device.
            ratios: Measured over predicted medians, shape (n,).
            roofline: The champion's estimate; None takes the calibration's word.

        Raises:
            LatencyError: Fewer than `LEAST` rows, or rows of several devices.
        """
        if len(ratios) < LEAST:
            raise LatencyError(f"{len(ratios)} VALID measurements to adapt to; at least {LEAST} are needed")
        devices = np.unique(np.nan_to_num(features[:, DEVICE_COLUMNS]), axis=0)
        if len(devices) > 1:
            raise LatencyError(f"measurements of {len(devices)} devices; adapt to one at a time")
        factors = _factors(composition(features, roofline), np.log(ratios))
        return cls(features[0, DEVICE_COLUMNS], factors, len(ratios))

    def correction(self, features: Values, roofline: Roofline | None) -> Values:
        """Return what to add to the log latency of rows of this device, shape (n,)."""
        return np.asarray(composition(features, roofline) @ self.factors)

    def of_device(self, features: Values) -> npt.NDArray[np.bool_]:
        """Tell which rows are of this device, within what two calibrations of it may differ by."""
        return self._near(features[:, DEVICE_COLUMNS])

    def of_same(self, other: Self) -> bool:
        """Tell whether the other adaptation is of this device."""
        return bool(self._near(other.device[None])[0])

    def _near(self, devices: Values) -> npt.NDArray[np.bool_]:
        near = np.isclose(devices, self.device, rtol=_TOLERANCES, atol=0, equal_nan=True)
        return np.asarray(near.all(axis=1))

    def to_json(self) -> dict[str, Any]:
        """Return the adaptation by name."""
        device = [None if np.isnan(value) else value for value in self.device.tolist()]
        return {
            "device": dict(zip(DEVICE, device, strict=True)),
            "factors": dict(zip(FACTORS, self.factors.tolist(), strict=True)),
            "measurements": self.measurements,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read what `to_json` returned."""
        device = np.array([content["device"][name] for name in DEVICE], float)
        return cls(device, np.array([content["factors"][name] for name in FACTORS], float), content["measurements"])


def composition(features: Values, roofline: Roofline | None) -> Values:
    """What the champion's estimate of a row is made of: how its log changes with the log of each of `FACTORS`.

    Returns:
        An array of shape (n, len(FACTORS)).
    """
    whole = roofline or _CALIBRATED
    work_ms = np.stack([replace(whole, factors=whole.factors * each).work_ms(features) for each in _CLASSES], axis=1)
    idle = features.copy()
    idle[:, _LOAD_COLUMNS] = 0
    idle[:, COLUMN["load_slowdown"]] = 1
    idle_ms, loaded_ms = whole.latency_ms(idle), whole.latency_ms(features)
    return np.column_stack(
        (
            work_ms / work_ms.sum(axis=1, keepdims=True),
            np.log(idle_ms / whole.work_ms(features)),
            np.log(loaded_ms / idle_ms),
        )
    )


def left_out(features: Values, ratios: Values, roofline: Roofline | None) -> Values:
    """Return the correction of each row by an adaptation to all the others, shape (n,), log.

    Args:
        features: As for `Adaptation.fit`.
        ratios: As there.
        roofline: As there.
    """
    terms, logs = composition(features, roofline), np.log(ratios)
    others = ~np.eye(len(logs), dtype=bool)
    return np.array([terms[row] @ _factors(terms[kept], logs[kept]) for row, kept in enumerate(others)])


def choose(candidates: Values, parts: Names, roofline: Roofline | None, count: int) -> list[int]:
    """Choose the rows that stand best for all candidates: what they teach then holds for the others.

    They are medoids in the space of `composition` and log latency, each axis scaled to unit variance. Designs
    that minimise the factors' variance (D- and I-optimal) pick the extremes, where the champion errs most and for
    reasons of their own; they were measured to adapt worse than rows chosen at random.

    Args:
        candidates: What can be measured on the device, rows of `features.rows`, shape (n, len(FEATURES)).
        parts: The part that each row is of, shape (n,).
        roofline: The champion's estimate.
        count: How many to choose.

    Returns:
        Indices of the chosen rows, the most telling first; all rows if there are no more than ``count``.
    """
    size = np.log((roofline or _CALIBRATED).latency_ms(candidates))
    points = np.column_stack((composition(candidates, roofline), size))
    return medoids(points / np.maximum(points.std(axis=0), 1e-9), parts, count)


def _factors(terms: Values, logs: Values) -> Values:
    """The posterior's mean, under the strongest prior that predicts left-out rows about as well as any."""
    everything, others = np.ones((1, len(logs)), bool), ~np.eye(len(logs), dtype=bool)
    best, least = np.zeros(terms.shape[1]), np.abs(logs)
    for strength in _STRENGTHS:
        unseen = np.einsum("ij,ij->i", terms, _posterior(terms, logs, others, strength))
        error = np.abs(logs - unseen)
        gain = least - error
        # A weaker prior must be better by more than its standard error, or chance alone would choose it.
        if gain.mean() > gain.std(ddof=1) / np.sqrt(len(gain)):
            best, least = _posterior(terms, logs, everything, strength)[0], error
    return best


def _posterior(terms: Values, logs: Values, kept: npt.NDArray[np.bool_], strength: float) -> Values:
    """The posterior's mean for several choices of rows at once, by reweighted least squares.

    Some parts surprise on every device; Cauchy's weights (Holland and Welsch, Communications in Statistics
    1977) keep them from being taken for the device.

    Args:
        terms: Shape (n, k).
        logs: Shape (n,).
        kept: Which rows count, shape (m, n).
        strength: See `_STRENGTHS`.

    Returns:
        Factors, shape (m, k).
    """
    factors = np.zeros((len(kept), terms.shape[1]))
    for _ in range(_ITERATIONS):
        error = np.abs(logs - factors @ terms.T)
        scale = 1.4826 * np.nanmedian(np.where(kept, error, np.nan), axis=1, keepdims=True)
        weight = kept / (1 + (error / (2.385 * np.maximum(scale, _LEAST_SPREAD))) ** 2)
        precision = np.eye(terms.shape[1]) + strength * np.einsum("mn,ni,nj->mij", weight, terms, terms)
        factors = np.linalg.solve(precision, strength * ((weight * logs) @ terms)[..., None])[..., 0]
    return factors
