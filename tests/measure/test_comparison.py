"""The ratio of two medians and how far it may be off."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import lfilter

from pepper.measure import comparison
from pepper.measure.comparison import geometric_mean, median_ratio


@given(seed=st.integers(0, 1000), ratio=st.floats(0.1, 10), count=st.integers(5, 200), other=st.integers(5, 200))
@settings(max_examples=30, deadline=None)
def test_it_is_the_ratio_whatever_the_unit_and_turned_around(seed: int, ratio: float, count: int, other: int) -> None:
    rng = np.random.default_rng(seed)
    old, new = rng.lognormal(0, 0.1, count), ratio * rng.lognormal(0, 0.1, other)
    there, back = median_ratio([old], [new]), median_ratio([new], [old])
    assert there.value == pytest.approx(np.median(new) / np.median(old))
    assert there.value * back.value == pytest.approx(1)
    assert median_ratio([1000 * old], [1000 * new]).interval(0.9) == pytest.approx(there.interval(0.9))
    low, high = there.interval(0.9)
    wide_low, wide_high = there.interval(0.99)
    assert wide_low <= low <= there.value <= high <= wide_high


@given(seed=st.integers(0, 1000), count=st.integers(1, 70), levels=st.integers(1, 100))
@settings(max_examples=20, deadline=None)
def test_the_error_is_that_of_medians_of_blocks_drawn_anew(seed: int, count: int, levels: int) -> None:
    """Samples that follow each other are drawn together, those at the end with those at the start; many are equal."""
    samples = np.random.default_rng(seed).integers(1, 1 + levels, count) / 7
    length = max(1, round(count ** (1 / 3)))
    starts = np.random.default_rng(0).integers(0, count, (comparison.ROUNDS, -(-count // length)))
    drawn = [samples[np.add.outer(round_, np.arange(length)).ravel()[:count] % count] for round_ in starts]
    error = median_ratio([samples], [np.ones(1)]).error
    assert error == pytest.approx(np.std(np.log([np.median(each) for each in drawn])), abs=1e-12)


def test_equal_samples_are_equal_for_sure() -> None:
    assert median_ratio([np.full(20, 3.0)], [np.full(30, 3.0)]).interval(0.95) == pytest.approx((1.0, 1.0))


@pytest.mark.parametrize("memory", [0.0, 0.5])
def test_intervals_hold_the_truth_as_often_as_they_say(memory: float) -> None:
    """90 % intervals of 200 comparisons of equals, of independent samples and of such that resemble the one before."""
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(200):
        old, new = (np.exp(0.1 * lfilter([1], [1, -memory], rng.standard_normal(400))[100:]) for _ in range(2))
        low, high = median_ratio([old], [new]).interval(0.9)
        held += low <= 1 <= high
    assert 0.83 <= held / 200 <= 0.97


@pytest.mark.parametrize("processes", [3, 5])
def test_intervals_of_repeated_measurements_know_that_processes_differ(processes: int) -> None:
    """90 % intervals of equals whose processes differ by 5 %, far more than the samples of one of them tell."""
    rng = np.random.default_rng(3)
    held = alone = 0
    for _ in range(200):
        sides = [
            [rng.lognormal(0.05 * rng.standard_normal(), 0.02, 50) for _ in range(processes)] for _ in ("old", "new")
        ]
        low, high = median_ratio(*sides).interval(0.9)
        held += low <= 1 <= high
        low, high = median_ratio(sides[0][:1], sides[1][:1]).interval(0.9)
        alone += low <= 1 <= high
    assert 0.83 <= held / 200 <= 0.97
    assert alone / 200 < 0.3, "what one process cannot know"


def test_several_ratios_together_are_surer_than_one() -> None:
    rng = np.random.default_rng(2)
    ratios = [median_ratio([rng.lognormal(0, 0.1, 50)], [2 * rng.lognormal(0, 0.1, 50)]) for _ in range(20)]
    mean = geometric_mean(ratios)
    assert mean.value == pytest.approx(2, rel=0.05)
    assert mean.error < min(ratio.error for ratio in ratios)
