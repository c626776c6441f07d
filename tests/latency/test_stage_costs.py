"""What a message costs a device, and how long it waits there."""

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pepper.latency.features import Setting
from pepper.latency.stage_costs import handling_ms, wait_ms

SIZES = np.array([0.0, 1e3, 1e6])


@given(
    st.floats(0.05, 1.0),
    st.floats(0.0, 100.0),
    st.floats(1.0, 1000.0),
)
def test_less_share_more_load_and_more_bytes_never_cost_less(share: float, percent: float, speed: float) -> None:
    whole = Setting(device_gflops_single=speed, device_memory_gbps=speed / 5)
    part = Setting(device_gflops_single=speed * share, device_memory_gbps=speed * share / 5, device_share=share)
    busy = Setting(**{**vars(part), "load_percent": percent, "load_cores": 1.0})
    costs = [handling_ms(setting, SIZES) for setting in (whole, part, busy)]
    assert np.all(np.diff(costs[0]) > 0)
    assert np.allclose(costs[1], costs[0] / share)
    assert np.all(costs[2] >= costs[1])
    assert np.allclose(costs[2], costs[1] * busy.slowdown)
    cycles = [replace(setting, device_cycle_ms=4.0) for setting in (whole, part, busy)]
    assert 0 < wait_ms(whole) <= wait_ms(cycles[1]) <= wait_ms(cycles[2])
    assert wait_ms(part) == wait_ms(whole), "a cycle of unknown length"


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_the_wait_is_that_of_someone_who_comes_at_any_time(share: float) -> None:
    """By simulation: a turn at a random place of each cycle of random length, arrivals at random."""
    rng, cycle_ms = random.Random(0), 4.0
    lengths = [rng.uniform(0.5, 1.5) * cycle_ms for _ in range(20_000)]
    absences = [(1 - share) * length for length in lengths]
    expected = sum(absence**2 / 2 for absence in absences) / sum(lengths)
    there = wait_ms(Setting(device_share=share, device_cycle_ms=cycle_ms))
    assert there - wait_ms(Setting(device_share=1.0)) == pytest.approx(expected, rel=0.02)


def test_a_device_that_is_not_calibrated_has_a_cost_too() -> None:
    assert np.isfinite(handling_ms(Setting(), SIZES)).all()
