"""What the latency model must beat, trained on the same rows and folds."""

from collections.abc import Callable

import numpy as np

from pepper.graph.characteristics import PAPER_FEATURES
from pepper.latency.dataset import Rows
from pepper.latency.evaluation import Trainer
from pepper.latency.features import COLUMN, Values

Predictor = Callable[[Values], Values]

_PAPER_COLUMNS = [COLUMN[name] for name in (*PAPER_FEATURES, "load_percent", "input_bytes", "output_bytes")]
_DEVICE_COLUMNS = [COLUMN[name] for name in ("device_gflops", "device_memory_gbps", "device_share", "threads")]
_LEAST_MS = 1e-3


def _device_codes(features: Values, known: Values | None = None) -> tuple[Values, Values]:
    """Number devices in the order of their facts, as the paper numbers its two; a new one gets the nearest's.

    Returns:
        The codes, shape (n,), and the facts of the devices numbered, shape (devices, facts).
    """
    facts = np.nan_to_num(features[:, _DEVICE_COLUMNS])
    devices = np.unique(facts, axis=0) if known is None else known
    scale = np.maximum(np.abs(devices).max(axis=0), 1e-9)
    distance = (np.abs(facts[:, None, :] - devices[None]) / scale).sum(axis=2)
    return distance.argmin(axis=1).astype(float), devices


def paper(rows: Rows) -> Predictor:
    """Train as the paper does: PEPPER (IOT '25, doi 10.1145/3770501.3770528).

    Squared error of the latency itself, 145 trees, learning rate 0.1, depth 6; five characteristics, input
    and output bytes, the load and a number for the device. Trees do not depend on its robust scaling, nor on
    a disk usage that does not vary.
    """
    import xgboost

    codes, devices = _device_codes(rows.features)
    data = xgboost.DMatrix(np.column_stack((rows.features[:, _PAPER_COLUMNS], codes)), rows.p50_ms)
    booster = xgboost.train({"objective": "reg:squarederror", "learning_rate": 0.1, "max_depth": 6}, data, 145)

    def predict(features: Values) -> Values:
        table = np.column_stack((features[:, _PAPER_COLUMNS], _device_codes(features, devices)[0]))
        return np.asarray(np.maximum(booster.inplace_predict(table), _LEAST_MS), float)

    return predict


def linear(rows: Rows) -> Predictor:
    """Fit time = a MACs / arithmetic speed + b bytes / memory speed + c, with least relative squares."""

    def table(features: Values) -> Values:
        speeds = [np.nan_to_num(features[:, COLUMN[name]], nan=1.0) for name in ("device_gflops", "device_memory_gbps")]
        moved = features[:, COLUMN["read_bytes"]] + features[:, COLUMN["written_bytes"]]
        work = (features[:, COLUMN["macs"]] / speeds[0], moved / speeds[1], np.ones(len(features)))
        return np.stack(work, axis=1) * features[:, [COLUMN["load_slowdown"]]]

    relative = table(rows.features) / rows.p50_ms[:, None]
    size = np.abs(relative).max(axis=0)
    factors = np.linalg.lstsq(relative / size, np.ones(len(rows)), rcond=None)[0] / size
    return lambda features: np.maximum(table(features) @ factors, _LEAST_MS)


def device_mean(rows: Rows) -> Predictor:
    """Answer with the mean latency of the device (of the nearest one if it is new)."""
    codes, devices = _device_codes(rows.features)
    numbers = codes.astype(int)
    means = np.bincount(numbers, rows.p50_ms) / np.bincount(numbers)
    return lambda features: np.asarray(means[_device_codes(features, devices)[0].astype(int)])


BASELINES: dict[str, Trainer] = {"paper": paper, "linear": linear, "device mean": device_mean}
