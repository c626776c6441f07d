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
from pepper.latency.features import COLUMN, Values
from pepper.latency.roofline import BYTE_TERMS, MAC_TERMS, TERMS, Roofline

DEVICE = (
    "device_gflops",
    "device_gflops_single",
    "device_memory_gbps",
    "device_share",
    "device_cores",
    "device_l2_bytes",
    "device_l3_bytes",
)
"""Features that describe a device."""
FACTORS = ("arithmetic", "memory", "overhead", "stretch")
LEAST = 3
"""Fewest measurements to adapt to."""

DEVICE_COLUMNS = [COLUMN[name] for name in DEVICE]
_TOLERANCE = 0.05
"""How far two calibrations of one device may differ, relative."""
_STRENGTHS = (0.0, 0.3, 1.0, 3.0, 10.0)
"""Variance that the prior allows to a log factor, over that of a measurement's log error."""
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
        near = np.isclose(devices, self.device, rtol=_TOLERANCE, atol=0, equal_nan=True)
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
    """What a part's time is made of: the share of each class, and the log of how far sharing stretches it.

    Returns:
        An array of shape (n, len(FACTORS)).
    """
    whole = roofline or Roofline(np.ones(len(TERMS)))
    work_ms = np.stack([replace(whole, factors=whole.factors * each).work_ms(features) for each in _CLASSES], axis=1)
    stretch = np.log(whole.latency_ms(features) / whole.work_ms(features))
    return np.column_stack((work_ms / work_ms.sum(axis=1, keepdims=True), stretch))


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
    """Choose the rows that tell most about the factors.

    Greedy Bayesian D-optimality: each next row is the one about which the factors' posterior is least sure,
    which raises the determinant of their precision most (Chaloner and Verdinelli, Statistical Science 1995).
    What the champion gets wrong about a part it gets wrong under every load, so no part is chosen twice
    before each was chosen once.

    Args:
        candidates: What can be measured on the device, rows of `features.rows`, shape (n, len(FEATURES)).
        parts: The part that each row is of, shape (n,).
        roofline: The champion's estimate.
        count: How many to choose.

    Returns:
        Indices of the chosen rows, the most telling first; all rows if there are no more than ``count``.
    """
    terms = composition(candidates, roofline)
    covariance = np.eye(terms.shape[1])
    times = np.zeros(len(terms), int)  # that the row's part was chosen
    free = np.ones(len(terms), bool)
    chosen: list[int] = []
    while len(chosen) < min(count, len(terms)):
        spread = np.einsum("ij,jk,ik->i", terms, covariance, terms)
        best = int(np.where(free & (times == times[free].min()), spread, -np.inf).argmax())
        gain = covariance @ terms[best]
        covariance = covariance - np.outer(gain, gain) / (1 + spread[best])
        free[best] = False
        times += parts == parts[best]
        chosen.append(best)
    return chosen


def _factors(terms: Values, logs: Values) -> Values:
    """The posterior's mean, under the prior with the least error of rows left out."""
    results = []
    for strength in _STRENGTHS:
        precision = np.eye(terms.shape[1]) + strength * terms.T @ terms
        gain = strength * np.linalg.solve(precision, terms.T)
        hat = terms @ gain
        # A linear smoother's error of a row that it has not seen follows from its leverage (Allen's PRESS).
        unseen = (logs - hat @ logs) / (1 - np.diag(hat))
        results.append((float(np.abs(unseen).mean()), gain @ logs))
    return min(results, key=lambda result: result[0])[1]
