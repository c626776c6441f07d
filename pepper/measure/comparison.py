"""Is one profile faster than another, and how sure is that?"""

from dataclasses import dataclass
from math import exp, log, sqrt
from statistics import NormalDist
from typing import Any

import numpy as np

ROUNDS = 1000
_AT_ONCE = 2**22  # resampled values held at a time


@dataclass(frozen=True)
class Ratio:
    """A candidate's median over the baseline's; below 1 the candidate is faster.

    Attributes:
        value: The ratio.
        error: Standard error of its logarithm.
    """

    value: float
    error: float

    def interval(self, confidence: float) -> tuple[float, float]:
        """Return the confidence interval of the ratio."""
        reach = NormalDist().inv_cdf((1 + confidence) / 2) * self.error
        return self.value * exp(-reach), self.value * exp(reach)


def median_ratio(baseline: "np.ndarray[Any, Any]", candidate: "np.ndarray[Any, Any]", seed: int = 0) -> Ratio:
    """Compare the medians of two profiles' samples.

    Args:
        baseline: Shape (n,), in the order of measurement.
        candidate: Shape (m,), likewise, in the same unit.
        seed: Seed of the resampling.
    """
    rng = np.random.default_rng(seed)
    error = sqrt(sum(_log_median_variance(samples, rng) for samples in (baseline, candidate)))
    return Ratio(float(np.median(candidate) / np.median(baseline)), error)


def geometric_mean(ratios: "list[Ratio]") -> Ratio:
    """Return the mean ratio of several independent comparisons."""
    mean = sum(log(ratio.value) for ratio in ratios) / len(ratios)
    return Ratio(exp(mean), sqrt(sum(ratio.error**2 for ratio in ratios)) / len(ratios))


def _log_median_variance(samples: "np.ndarray[Any, Any]", rng: np.random.Generator) -> float:
    """Estimate the variance of a median's logarithm by a circular block bootstrap.

    Samples that follow each other are alike, so that single ones drawn anew would promise too much: runs of
    n^(1/3) samples are drawn (Politis and Romano, in Exploring the Limits of Bootstrap, 1992).
    """
    count = len(samples)
    length = max(1, round(count ** (1 / 3)))
    blocks = -(-count // length)
    medians: list[float] = []
    while len(medians) < ROUNDS:
        rounds = min(ROUNDS - len(medians), max(1, _AT_ONCE // count))
        starts = rng.integers(0, count, (rounds, blocks, 1))
        drawn = samples[((starts + np.arange(length)) % count).reshape(rounds, -1)[:, :count]]
        medians += np.median(drawn, axis=1).tolist()
    return float(np.var(np.log(medians)))
