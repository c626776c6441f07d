"""Statistics of latency samples; free of assumptions about their distribution."""

from functools import cache
from math import comb, sqrt
from typing import Any

import numpy as np

Z_95 = 1.96
QUANTILES = (0.90, 0.95, 0.99)


def median_interval(samples: "np.ndarray[Any, Any]") -> tuple[float, float]:
    """Return a 95 % confidence interval of the median, from order statistics.

    The ranks follow from the normal approximation of Binomial(n, 1/2) (Conover, Practical Nonparametric
    Statistics, 1999, section 3.2).

    Args:
        samples: Shape (n,), n >= 1, any unit.
    """
    ordered = np.sort(samples)
    count = len(ordered)
    spread = Z_95 * sqrt(count) / 2
    low = max(0, int(np.floor(count / 2 - spread)))
    high = min(count - 1, int(np.ceil(count / 2 + spread)))
    return float(ordered[low]), float(ordered[high])


@cache
def least_samples(quantile: float, confidence: float = 0.99) -> int:
    """Return how many samples a quantile needs: the early-stopping rule of MLPerf's LoadGen.

    Enough that at most one sample beyond the true quantile would be seen with probability
    ``1 - confidence`` or less: 64 for p90, 130 for p95, 662 for p99.
    """
    count = 1
    while sum(comb(count, k) * (1 - quantile) ** k * quantile ** (count - k) for k in (0, 1)) > 1 - confidence:
        count += 1
    return count


def summarise(latency_ms: "np.ndarray[Any, Any]") -> dict[str, float]:
    """Return the figures of a cell's samples; a quantile only where the samples suffice for it.

    Args:
        latency_ms: Shape (n,), n >= 1.
    """
    low, high = median_interval(latency_ms)
    figures = {
        "latency_p50_ms": float(np.median(latency_ms)),
        "latency_p50_low_ms": low,
        "latency_p50_high_ms": high,
        "latency_mean_ms": float(np.mean(latency_ms)),
        "latency_min_ms": float(np.min(latency_ms)),
        "latency_max_ms": float(np.max(latency_ms)),
        "samples": float(len(latency_ms)),
    }
    if len(latency_ms) > 1:
        figures["latency_stdev_ms"] = float(np.std(latency_ms, ddof=1))
    for quantile in QUANTILES:
        if len(latency_ms) >= least_samples(quantile):
            figures[f"latency_p{round(quantile * 100)}_ms"] = float(np.quantile(latency_ms, quantile))
    return figures
