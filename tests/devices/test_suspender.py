"""Who runs in a device's turns: its programs and their neighbour, as under a fair scheduler."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pepper.devices.suspender import Held, Turn

TURN_S = 0.001


def parts(wants: float, programs: bool, seed: int, turns: int = 4000) -> float:
    """Return the part of the turns that a neighbour has; turns have random lengths."""
    rng = random.Random(seed)
    held = object.__new__(Held)  # nothing is signalled
    turn = Turn(0.5, [held] if programs else [], [held] if wants else [], wants)
    had_s = 0.0
    for _ in range(turns):
        turn.choose(TURN_S)
        seconds = TURN_S * rng.uniform(0.5, 1.5)
        turn.ran(seconds)
        had_s += seconds if turn.running is turn.neighbours and wants else 0.0
    return had_s / turn.ran_s


@given(st.floats(0, 1), st.integers(0, 100))
def test_a_neighbour_has_what_it_wants_but_not_more_than_the_programs(wants: float, seed: int) -> None:
    assert parts(wants, True, seed) == pytest.approx(min(wants, 0.5), abs=0.015)


@given(st.floats(0, 1), st.integers(0, 100))
def test_a_neighbour_alone_has_what_it_wants(wants: float, seed: int) -> None:
    assert parts(wants, False, seed) == pytest.approx(wants, abs=0.015)


def test_who_comes_back_has_nothing_to_make_up_for() -> None:
    held = object.__new__(Held)
    turn = Turn(0.5, [], [held], 1.0)
    for _ in range(1000):  # the programs are paused meanwhile
        turn.choose(TURN_S)
        turn.ran(TURN_S)
    turn.programs.append(held)
    ran = []
    for _ in range(100):
        turn.choose(TURN_S)
        turn.ran(TURN_S)
        ran.append(turn.running is turn.programs)
    assert 49 <= sum(ran) <= 51
    assert any(ran[:3])
