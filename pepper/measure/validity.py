"""The verdict on a profile: may its figures be trusted?"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pepper.config import LimitsConfig, LoadConfig, MeasureConfig
from pepper.measure.statistics import median_interval


def drift_percent(latency_ms: "np.ndarray[Any, Any]") -> float:
    """Return how far the latency moved from the first to the last third of the samples, percent.

    It is the gap between the 95 % confidence intervals of the two thirds' medians: 0 where they overlap.
    """
    third = len(latency_ms) // 3
    if third < 2:
        return 0.0
    first_low, first_high = median_interval(latency_ms[:third])
    last_low, last_high = median_interval(latency_ms[-third:])
    gap = max(0.0, last_low - first_high) - max(0.0, first_low - last_high)
    return float(100 * gap / np.median(latency_ms[:third]))


def invalid_reasons(
    metrics: Mapping[str, float],
    measure: MeasureConfig,
    *,
    requested_load: LoadConfig,
    requested_share: float,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
) -> list[str]:
    """Return why the figures should not be trusted; empty means VALID.

    Args:
        metrics: The cell's figures.
        measure: What was asked for, with the limits.
        requested_load: The load asked for.
        requested_share: CPU share asked for.
        before: Machine state before the timed span.
        after: The same after it.
    """
    limits: LimitsConfig = measure.limits
    reasons = []

    def check(key: str, value: float, limit: float, say: str) -> None:
        if not abs(value) <= limit:
            reasons.append(f"{key}: {say} (limit {limit:g})")

    ci = metrics["latency_ci_percent"]
    check("unstable", ci, limits.ci_percent, f"the median is known to {ci:.1f} % only")
    drift = metrics["drift_percent"]
    check("unstable", drift, limits.drift_percent, f"the latency drifted by {drift:+.1f} %")
    load = metrics["load_alone_percent"]
    check(
        "load missed",
        load - requested_load.percent,
        limits.load_points,
        f"{load:.1f} % alone on the device, asked for {requested_load.percent:g} %",
    )
    inferring = metrics.get("load_accelerator_alone_percent", 0.0)
    check(
        "load missed",
        inferring - requested_load.accelerator_percent,
        limits.load_points,
        f"{inferring:.1f} % alone on the accelerator, asked for {requested_load.accelerator_percent:g} %",
    )
    share = metrics["share_achieved"]
    check(
        "share missed",
        100 * (share / requested_share - 1),
        limits.share_percent,
        f"{share:.3f} achieved, asked for {requested_share:g}",
    )
    foreign = metrics["foreign_percent"]
    check(
        "noisy neighbour",
        max(0.0, foreign),
        limits.foreign_percent,
        f"{foreign:.1f} % of the cores went to others",
    )
    steal = metrics["steal_percent"]
    check("noisy neighbour", steal, limits.steal_percent, f"the hypervisor kept {steal:.1f} % of the cores")
    change = metrics.get("pace_change_percent", 0.0)
    check("pace", change, limits.pace_percent, f"the machine changed its speed by {change:.1f} %")
    change = metrics.get("pace_memory_change_percent", 0.0)
    check("pace", change, limits.pace_memory_percent, f"the machine's memory changed its speed by {change:.1f} %")
    if periods := metrics["throttled_periods"]:
        reasons.append(
            f"CPU quota used up: the control group stopped everything in {periods:.0f} periods; give it whole cores"
        )
    if after["throttle_count"] > before["throttle_count"]:
        reasons.append("throttled: the processor was too hot; let it cool down")
    faults = {each for state in (before, after) for each in state.get("accelerator", {}).get("faulty", ())}
    if faults:
        reasons.append(
            f"throttled: the accelerator's clock was held down ({', '.join(sorted(faults))}); let it cool down"
        )
    for key in ("governor", "affinity"):
        if after[key] != before[key]:
            reasons.append(f"environment changed: {key} was {before[key]}, then {after[key]}")
    return reasons
