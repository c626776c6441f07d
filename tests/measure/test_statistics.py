"""Figures of samples, and the verdict on them."""

from typing import Any

import numpy as np
import pytest
from harness import composed
from hypothesis import given
from hypothesis import strategies as st

from pepper.config import LoadConfig, MeasureConfig
from pepper.measure.statistics import least_samples, median_interval, summarise
from pepper.measure.validity import drift_percent, invalid_reasons

latencies = st.lists(st.floats(1e-3, 1e4), min_size=1, max_size=300).map(np.array)


@given(latencies)
def test_the_interval_holds_the_median(samples: np.ndarray) -> None:
    low, high = median_interval(samples)
    assert low <= np.median(samples) <= high
    assert {low, high} <= set(samples)


@given(latencies, st.floats(0.1, 10))
def test_the_interval_scales_with_its_unit_and_not_with_order(samples: np.ndarray, factor: float) -> None:
    shuffled = np.random.default_rng(0).permutation(samples)
    assert median_interval(shuffled) == median_interval(samples)
    assert median_interval(samples * factor) == pytest.approx(np.array(median_interval(samples)) * factor)


@pytest.mark.parametrize("count", [20, 100, 1000])
def test_the_interval_covers_the_true_median_in_95_percent(count: int) -> None:
    rng = np.random.default_rng(count)
    trials = 2000
    draws = rng.lognormal(size=(trials, count))  # its median is 1
    covered = sum(low <= 1 <= high for low, high in map(median_interval, draws)) / trials
    # Three standard errors below; order statistics come in steps, so that short series are covered a bit more.
    assert 0.95 - 3 * np.sqrt(0.95 * 0.05 / trials) <= covered <= 0.99


@pytest.mark.parametrize(("quantile", "count"), [(0.90, 64), (0.95, 130), (0.99, 662)])
def test_how_many_samples_a_quantile_needs(quantile: float, count: int) -> None:
    assert least_samples(quantile) == count


@pytest.mark.parametrize(
    ("count", "given_quantiles"),
    [(1, ()), (63, ()), (64, (90,)), (129, (90,)), (130, (90, 95)), (661, (90, 95)), (662, (90, 95, 99))],
)
def test_a_quantile_is_given_only_with_enough_samples(count: int, given_quantiles: tuple[int, ...]) -> None:
    figures = summarise(np.arange(count) + 1.0)
    assert {q for q in (90, 95, 99) if f"latency_p{q}_ms" in figures} == set(given_quantiles)
    assert ("latency_stdev_ms" in figures) == (count > 1)
    assert figures["samples"] == count


@given(latencies)
def test_figures_are_in_order(samples: np.ndarray) -> None:
    f = summarise(samples)
    assert f["latency_min_ms"] <= f["latency_p50_low_ms"] <= f["latency_p50_ms"]
    assert f["latency_p50_ms"] <= f["latency_p50_high_ms"] <= f["latency_max_ms"]
    assert f["latency_min_ms"] * (1 - 1e-9) <= f["latency_mean_ms"] <= f["latency_max_ms"] * (1 + 1e-9)


def test_drift() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(10, 0.1, 300)
    assert drift_percent(noise) == pytest.approx(0, abs=1)
    slower = noise + np.repeat([0, 2, 4], 100)
    assert drift_percent(slower) == pytest.approx(40, abs=2)
    assert drift_percent(slower[::-1]) == pytest.approx(-40 / 1.4, abs=2)
    assert drift_percent(np.array([1.0, 9.0, 1.0])) == 0, "too few to tell"


MEASURE = composed("measure=default").measure
SOUND = {
    "latency_ci_percent": 1.0,
    "drift_percent": 0.0,
    "load_alone_percent": 50.0,
    "share_achieved": 0.5,
    "foreign_percent": 0.0,
    "steal_percent": 0.0,
    "throttled_periods": 0.0,
}
STATE: dict[str, Any] = {"throttle_count": 0, "governor": ["performance"], "affinity": [0, 1]}


def reasons(measure: MeasureConfig = MEASURE, after: dict[str, Any] | None = None, **changes: float) -> list[str]:
    return invalid_reasons(
        {**SOUND, **changes},
        measure,
        requested_load=LoadConfig(percent=50),
        requested_share=0.5,
        before=STATE,
        after={**STATE, **(after or {})},
    )


def test_sound_figures_are_valid() -> None:
    assert reasons() == []


@pytest.mark.parametrize(
    ("name", "good", "bad", "said"),
    [
        ("latency_ci_percent", 10, 10.1, "unstable: the median is known to 10.1 % only"),
        ("drift_percent", 15, 15.1, "unstable: the latency drifted by +15.1 %"),
        ("drift_percent", -15, -15.1, "unstable: the latency drifted by -15.1 %"),
        ("load_alone_percent", 55, 55.1, "load missed: 55.1 % alone on the device, asked for 50 %"),
        ("load_alone_percent", 45, 44.9, "load missed: 44.9 %"),
        ("share_achieved", 0.5499, 0.56, "share missed: 0.560 achieved, asked for 0.5"),
        ("share_achieved", 0.4501, 0.44, "share missed: 0.440 achieved"),
        ("foreign_percent", 10, 10.1, "noisy neighbour: 10.1 % of the cores went to others"),
        ("foreign_percent", -50, 11, "noisy neighbour"),
        ("steal_percent", 5, 5.1, "noisy neighbour: the hypervisor kept 5.1 %"),
        ("pace_change_percent", 25, 25.1, "pace: the machine changed its speed by 25.1 %"),
        ("pace_memory_change_percent", 100, 100.1, "pace: the machine's memory changed its speed by 100.1 %"),
        ("throttled_periods", 0, 1, "CPU quota used up: the control group stopped everything in 1 periods"),
        ("latency_ci_percent", 0, float("nan"), "unstable"),
    ],
)
def test_each_limit(name: str, good: float, bad: float, said: str) -> None:
    assert reasons(**{name: good}) == []
    (reason,) = reasons(**{name: bad})
    assert reason.startswith(said)


@pytest.mark.parametrize(
    ("after", "said"),
    [
        ({"throttle_count": 1}, "throttled"),
        ({"governor": ["powersave"]}, "environment changed: governor was ['performance'], then ['powersave']"),
        ({"affinity": [0]}, "environment changed: affinity"),
    ],
)
def test_each_change_of_the_machine(after: dict[str, Any], said: str) -> None:
    (reason,) = reasons(after=after)
    assert reason.startswith(said)


def test_all_reasons_are_told() -> None:
    assert len(reasons(latency_ci_percent=50, share_achieved=0.1, after={"throttle_count": 2})) == 3
