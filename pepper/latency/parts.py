"""Predictions of many parts on many devices, in one batch."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pepper.latency.features import Setting, Values, rows


class PartPredictor(Protocol):
    """What predicts parts: a latency model, or an estimate in its place."""

    def mean_ms(self, features: Values, /) -> Values:
        """Return mean times, shape (N,), of N rows of features."""

    def outside(self, features: Values, /) -> npt.NDArray[np.bool_]:
        """Return which values lie outside of what was trained on, shape (N, columns)."""


def predict_parts(
    model: PartPredictor, parts: Values, settings: Sequence[Setting]
) -> tuple[Values, npt.NDArray[np.bool_]]:
    """Predict each part in each setting.

    Args:
        model: Predicts.
        parts: Characteristics of P parts, shape (P, len(characteristics.FEATURES)).
        settings: D settings: devices at their loads.

    Returns:
        Mean times in ms (medians would not add up to a plan's), and which rows lie outside of what was trained
        on, both of shape (P, D).
    """
    features = np.vstack([rows(parts, setting) for setting in settings])
    shape = (len(settings), len(parts))
    outside = np.asarray(np.any(model.outside(features), axis=1), bool)
    return model.mean_ms(features).reshape(shape).T, outside.reshape(shape).T
