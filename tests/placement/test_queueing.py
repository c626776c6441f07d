"""Simulated streams: alone they take the plan's latency, together its period, and between them what theory says."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pepper.placement.branched import evaluate_branched
from pepper.placement.evaluate import evaluate
from pepper.placement.queueing import Visit, answered_ms, branched_works, chain_works, play, under_load
from tests.placement.test_branched import every_plan as every_branched_plan
from tests.placement.test_branched import random_problem as branched_problem
from tests.placement.test_chain_contract import every_plan, random_problem


@pytest.mark.parametrize("seed", range(40))
def test_a_chain_takes_its_latency_alone_and_its_period_in_a_stream(seed: int) -> None:
    problem = random_problem(seed)
    for stages in itertools.islice(every_plan(problem.n_steps, len(problem.devices)), 0, None, 5):
        cost = evaluate(problem, stages)
        if math.isfinite(cost.latency_ms):
            works = chain_works(problem, stages)
            assert answered_ms(works, [0.0])[0] == pytest.approx(cost.latency_ms)
            if len({work.resource for work in works}) == len(works):
                ends = answered_ms(works, [0.0] * 20)
                assert ends[-1] - ends[-2] == pytest.approx(cost.period_ms)


def test_parts_side_by_side_take_their_latency_alone_and_their_period_is_the_largest_load() -> None:
    """Queues serve what is there: only where a plan has a part wait for one before it may that differ."""
    alike = []
    for seed in range(40):
        problem = branched_problem(seed)
        for stages in every_branched_plan(problem)[::7]:
            cost = evaluate_branched(problem, stages)
            if math.isfinite(cost.latency_ms):
                works = branched_works(problem, stages)
                load: dict[str, float] = {}
                for work in works:
                    load[work.resource] = load.get(work.resource, 0.0) + work.busy_ms
                assert max(load.values()) == pytest.approx(cost.period_ms)
                alike.append(answered_ms(works, [0.0])[0] == pytest.approx(cost.latency_ms))
    assert len(alike) > 100
    assert np.mean(alike) > 0.9


WORKS = st.lists(
    st.tuples(st.sampled_from("abc"), st.floats(0, 9), st.floats(0, 3), st.floats(0, 2)), min_size=1, max_size=5
)


@settings(max_examples=60, deadline=None)
@given(WORKS, st.lists(st.floats(0, 10), min_size=1, max_size=8))
def test_no_resource_does_two_things_at_once_and_none_rests_while_work_is_there(
    drawn: list[tuple[str, float, float, float]], gaps: list[float]
) -> None:
    works = [
        Visit(name, busy, delay, (k - 1,) if k else (), begin) for k, (name, busy, delay, begin) in enumerate(drawn)
    ]
    arise = np.cumsum(gaps).tolist()
    spans = [*play(works, arise)]
    assert sorted((span.request, span.work) for span in spans) == [
        (request, work) for request in range(len(arise)) for work in range(len(works))
    ]
    at = {(span.request, span.work): span for span in spans}
    for name in {work.resource for work in works}:
        busy = sorted((span.start_ms, span.stop_ms) for span in spans if span.resource == name)
        assert all(after[0] >= before[1] - 1e-9 for before, after in itertools.pairwise(busy))
    for span in spans:
        ready = arise[span.request] + works[span.work].begin_ms
        if span.work:
            ready = max(ready, at[span.request, span.work - 1].stop_ms + works[span.work - 1].delay_ms)
        assert span.start_ms >= ready - 1e-9
        before = [each.stop_ms for each in spans if each.resource == span.resource and each.stop_ms <= span.start_ms]
        assert span.start_ms == pytest.approx(max([ready, *before])), "it rested"


@pytest.mark.parametrize("utilisation", [0.5, 0.8])
def test_a_single_device_waits_as_theory_says(utilisation: float) -> None:
    """Constant service: the mean wait is half of that of exponential service (Pollaczek and Khinchine)."""
    arise = np.cumsum(np.random.default_rng(0).exponential(1 / utilisation, 40_000))
    waits = answered_ms([Visit("a", 1.0)], arise.tolist()) - arise - 1.0
    assert waits.mean() == pytest.approx(utilisation / (2 * (1 - utilisation)), rel=0.1)


def test_more_than_it_can_give_takes_for_ever_and_little_takes_its_latency() -> None:
    works = [Visit("a", 4.0, 1.0), Visit("b", 5.0, 0.0, (0,))]
    idle = under_load(works, 0.01, requests=200)
    assert (idle.p50_ms, idle.p99_ms) == pytest.approx((10.0, 10.0))
    full = under_load(works, 200.0)
    assert full.utilisation == pytest.approx(1.0)
    assert full.p50_ms == math.inf
    half, most = (under_load(works, rate, requests=4000) for rate in (100.0, 180.0))
    assert half.p50_ms < most.p50_ms < most.p95_ms < most.p99_ms


def test_times_of_single_requests_count() -> None:
    works = [Visit("a", 1.0), Visit("b", 1.0, 0.0, (0,))]
    assert answered_ms(works, [0.0, 0.0], np.array([[2.0, 1.0], [1.0, 5.0]])).tolist() == [3.0, 8.0]
