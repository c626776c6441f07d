"""A plan that splits is chosen only where its win is more than the noise of the predictions."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pepper.errors import PlacementError
from pepper.fleet import Link
from pepper.placement.chain import solve
from pepper.placement.decision import NOT_SPLIT, Spread, decide
from pepper.placement.evaluate import Stage, evaluate
from pepper.placement.objectives import LATENCY, THROUGHPUT, Objective
from pepper.placement.problem import ChainProblem, DeviceKind, Links

FRUGAL = Objective("frugal", "cost", per_ms=1.0, per_part=2.0)


def pair(first_ms: float, second_ms: float, **options: object) -> ChainProblem:
    """Two steps: each device is good at one of them."""
    times = [[first_ms, 10.0], [10.0, second_ms]]
    return ChainProblem.of(
        [DeviceKind("a"), DeviceKind("b")], times, [1e3] * 3, Links.uniform(2, Link(100.0)), **options
    )


@pytest.mark.parametrize("objective", [LATENCY, THROUGHPUT])
def test_without_errors_the_optimum_is_chosen(objective: Objective) -> None:
    decision = decide(pair(9.0, 9.0), objective, Spread())
    assert decision.chosen is decision.best
    assert decision.probability == 1.0
    assert not decision.within_noise
    assert decision.low == pytest.approx(decision.best.value) == pytest.approx(decision.high)


def test_a_small_win_is_noise_and_a_large_one_is_not() -> None:
    small = decide(pair(9.0, 9.0), LATENCY, Spread(part=0.3))
    assert small.within_noise
    assert small.probability is not None
    assert 0.5 < small.probability < 0.9
    assert (small.chosen.solver, small.chosen.stages) == (NOT_SPLIT, small.single)
    assert small.chosen.bound <= small.best.value < small.chosen.value
    assert small.chosen.gap > 0
    large = decide(pair(1.0, 1.0), LATENCY, Spread(part=0.3))
    assert large.chosen is large.best
    assert large.probability is not None
    assert large.probability > 0.99


def test_an_error_that_all_parts_share_does_not_make_a_win_doubtful() -> None:
    problem = pair(9.0, 9.0)
    shared = decide(problem, LATENCY, Spread(model=1.0))
    assert shared.probability is not None
    assert shared.probability > 0.99
    assert shared.low < shared.chosen.value / 3 < 3 * shared.chosen.value < shared.high * 2
    own = decide(problem, LATENCY, Spread(part=1.0))
    assert own.within_noise


def test_the_error_of_the_work_that_two_plans_share_does_not_make_a_win_doubtful() -> None:
    """The last tenth goes elsewhere and its time is saved: the other nine are on the same device in both plans."""
    problem = ChainProblem.of(
        [DeviceKind("a"), DeviceKind("b")],
        [[10.0, 100.0]] * 9 + [[10.0, 1.0]],
        [0.0] * 11,
        Links.uniform(2, Link(1e9)),
    )
    decision = decide(problem, THROUGHPUT, Spread(part=0.1))
    assert decision.probability is not None
    assert decision.probability > 0.99
    assert decision.chosen.stages == (Stage(0, 9, 0), Stage(9, 10, 1))


def test_where_nothing_may_stay_whole_the_best_plan_is_chosen() -> None:
    pinned = pair(9.0, 9.0, pinned={0: "a", 1: "b"})
    decision = decide(pinned, LATENCY, Spread(part=5.0))
    assert decision.single is None
    assert decision.probability is None
    assert decision.chosen is decision.best
    with pytest.raises(PlacementError, match="every device is excluded"):
        decide(pair(1.0, 1.0, excluded={"a", "b"}), LATENCY, Spread())


@given(st.integers(0, 1000), st.sampled_from([LATENCY, THROUGHPUT, FRUGAL]))
def test_what_is_chosen_keeps_to_the_rules_and_above_the_bound(seed: int, objective: Objective) -> None:
    rng = np.random.default_rng(seed)
    problem = ChainProblem.of(
        [DeviceKind(name) for name in "abc"],
        rng.uniform(1, 9, (5, 3)),
        rng.uniform(0, 1e5, 6),
        Links.uniform(3, Link(100.0, 0.1)),
        source="a",
        sink="a",
    )
    decision = decide(problem, objective, Spread(0.1, 0.1, 0.2), samples=200)
    cost = evaluate(problem, decision.chosen.stages)
    assert not cost.violations
    assert objective.value(cost) == pytest.approx(decision.chosen.value)
    assert decision.best.value == pytest.approx(solve(problem, objective).value)
    assert decision.low <= decision.high
    assert all(a.stop == b.start for a, b in pairwise(decision.chosen.stages))


def test_memory_that_is_short_is_said_with_how_much() -> None:
    """Each step fits somewhere, but no two of the four do together, and there are two devices."""
    n = 4
    sizes = np.triu(np.add.outer(-np.arange(n + 1), np.arange(n + 1)), 1) * 100.0
    problem = ChainProblem.of(
        [DeviceKind("a", 150.0), DeviceKind("b", 150.0)],
        np.ones((n, 2)),
        np.zeros(n + 1),
        Links.uniform(2, Link(math.inf)),
        sizes,
    )
    with pytest.raises(PlacementError, match=r"memory: .*; 5\d bytes more on each device would do"):
        solve(problem)
