"""Predictions of many parts on many devices, in one batch."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pepper.latency.features import Setting, Values, rows
from pepper.latency.model import LatencyModel


def predict_parts(
    model: LatencyModel, parts: Values, settings: Sequence[Setting]
) -> tuple[Values, npt.NDArray[np.bool_]]:
    """Predict each part in each setting.

    Args:
        model: The latency model.
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
