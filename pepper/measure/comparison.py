"""Is one profile faster than another, and how sure is that?"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, inf, log, sqrt
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

ROUNDS = 1000
_AT_ONCE = 2**22  # resampled values held at a time


@dataclass(frozen=True)
class Ratio:
    """A candidate's median over the baseline's; below 1 the candidate is faster.

    Attributes:
        value: The ratio.
        error: Standard error of its logarithm.
        freedom: Degrees of freedom of that error.
    """

    value: float
    error: float
    freedom: float = inf

    def interval(self, confidence: float) -> tuple[float, float]:
        """Return the confidence interval of the ratio."""
        from scipy.stats import t

        reach = float(t.ppf((1 + confidence) / 2, self.freedom)) * self.error
        return self.value * exp(-reach), self.value * exp(reach)


def typical(processes: "Sequence[np.ndarray[Any, Any]]") -> float:
    """Return the geometric mean of the medians of processes that measured the same."""
    return exp(float(np.mean([log(np.median(samples)) for samples in processes])))


def median_ratio(
    baseline: "Sequence[np.ndarray[Any, Any]]", candidate: "Sequence[np.ndarray[Any, Any]]", seed: int = 0
) -> Ratio:
    """Compare the medians of what processes measured.

    Where a side was measured by several processes, their spread is its error: a process differs from the next by more
    than its samples tell (Kalibera and Jones, Rigorous Benchmarking in Reasonable Time, 2013). Of a single process the
    samples are all there is.

    Args:
        baseline: For each process its samples, shape (n,), in the order of measurement.
        candidate: Likewise, in the same unit.
        seed: Seed of the resampling.
    """
    rng = np.random.default_rng(seed)
    sides = [_variance(processes, rng) for processes in (baseline, candidate)]
    return Ratio(typical(candidate) / typical(baseline), *_together(sides))


def geometric_mean(ratios: Sequence[Ratio]) -> Ratio:
    """Return the mean ratio of several independent comparisons."""
    mean = sum(log(ratio.value) for ratio in ratios) / len(ratios)
    error, freedom = _together([(ratio.error**2, ratio.freedom) for ratio in ratios])
    return Ratio(exp(mean), error / len(ratios), freedom)


def _together(variances: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return the error of a sum and its degrees of freedom (Welch and Satterthwaite)."""
    total = sum(variance for variance, _ in variances)
    spent = sum(variance**2 / freedom for variance, freedom in variances)
    return sqrt(total), total**2 / spent if spent else inf


def _variance(processes: "Sequence[np.ndarray[Any, Any]]", rng: np.random.Generator) -> tuple[float, float]:
    """Return the variance of a side's typical median, as a logarithm, and its degrees of freedom."""
    count = len(processes)
    within = sum(_log_median_variance(samples, rng) for samples in processes) / count**2
    if count == 1:
        return within, inf
    between = float(np.var([log(np.median(samples)) for samples in processes], ddof=1)) / count
    return (between, count - 1) if between > within else (within, inf)


def _log_median_variance(samples: "np.ndarray[Any, Any]", rng: np.random.Generator) -> float:
    """Estimate the variance of a median's logarithm by a circular block bootstrap.

    Samples that follow each other are alike, so that single ones drawn anew would promise too much: runs of
    n^(1/3) samples are drawn (Politis and Romano, in Exploring the Limits of Bootstrap, 1992).
    """
    count = len(samples)
    length = max(1, round(count ** (1 / 3)))
    blocks = -(-count // length)
    order = np.argsort(samples)
    ordered, ranks = samples[order], np.argsort(order).astype(np.int32)  # the middle of ranks is found sooner
    runs = np.ascontiguousarray(sliding_window_view(np.resize(ranks, count + length - 1), length))
    middle = count // 2
    medians: list[float] = []
    while len(medians) < ROUNDS:
        rounds = min(ROUNDS - len(medians), max(1, _AT_ONCE // count))
        drawn = np.take(runs, rng.integers(0, count, (rounds, blocks)), axis=0).reshape(rounds, -1)[:, :count]
        drawn = np.partition(drawn, middle, axis=1)
        high = drawn[:, middle]
        low = high if count % 2 else drawn[:, :middle].max(axis=1)
        medians += ((ordered[low] + ordered[high]) / 2).tolist()
    return float(np.var(np.log(medians)))
