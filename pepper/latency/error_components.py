"""What errors of predictions have in common: which part of them all parts of a model share."""

import numpy as np
import numpy.typing as npt

from pepper.latency.dataset import Names
from pepper.latency.features import Values


def error_components(log_ratio: Values, model: Names, device: Names, part: Names) -> tuple[float, float, float]:
    """Split errors into what a model shares, what its parts on one device share besides, and the rest.

    Variance components by moments: the mean product of the errors of two different parts of a model estimates
    the variance that they share (Searle, Casella, McCulloch, "Variance Components", 1992).

    Args:
        log_ratio: Logarithm of the true over the predicted time, for models not trained on, shape (n,).
        model: The model of each row.
        device: Its device.
        part: Its part.

    Returns:
        Standard deviations: of the model's error, of the device's within the model, of each row's own.
    """
    everything = _products(log_ratio, model, device, part)
    by_device = _products(log_ratio, model, device) - everything
    across = _products(log_ratio, model) - _products(log_ratio, model, device)
    across -= _products(log_ratio, model, part) - everything
    total = float(np.mean(log_ratio**2))
    same = _mean(by_device, 0.0)
    of_model = min(max(_mean(across, same), 0.0), total)
    of_device = min(max(same - of_model, 0.0), total - of_model)
    return tuple(np.sqrt([of_model, of_device, total - of_model - of_device]).tolist())


def _products(values: Values, *groups: Names) -> npt.NDArray[np.float64]:
    """Sum of the products of all ordered pairs of rows of one group, and the number of such pairs."""
    _, member = np.unique(np.stack(groups), axis=1, return_inverse=True)
    sums = np.bincount(member.ravel(), values)
    return np.array([np.sum(sums**2), np.sum(np.bincount(member.ravel()).astype(float) ** 2)])


def _mean(pairs: npt.NDArray[np.float64], default: float) -> float:
    return float(pairs[0] / pairs[1]) if pairs[1] else default
