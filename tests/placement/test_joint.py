"""Several models on one fleet: every choice of plans by hand, and what the formulas say against a simulation."""

import itertools
import math
import random
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from pepper.errors import PlacementError
from pepper.placement.evaluate import Stage, Stages, evaluate
from pepper.placement.joint import MOST_BUSY, JointProblem, ModelStream
from pepper.placement.joint_search import JointSolution, Unsolved, in_order, memory_missing, solve_joint
from pepper.placement.problem import ChainProblem, DeviceKind, Links
from pepper.placement.queueing import Visit, chain_works
from pepper.placement.shared_queueing import StreamLatency, play_streams, stream_latencies

FAR = math.inf
"""A deadline."""


def random_joint(seed: int, models: int) -> JointProblem:
    """Small models that meet on few devices, in some problems short of memory or of time."""
    rng, draw = random.Random(seed), np.random.default_rng(seed)
    names = "abc"[: rng.randint(2, 3)]
    many = len(names)
    devices = [DeviceKind(name, rng.choice([math.inf, 9.0]), 1, rng.choice([0.0, 1.0])) for name in names]
    links = Links(draw.random((many, many)), rate := draw.random((many, many)), rate * rng.choice([0.5, 1.0]))
    ends = [rng.choice([None, *names]) for _ in range(2)]
    streams = []
    for number in range(models):
        n = rng.randint(2, 3 if models > 2 else 4)
        step_ms = draw.random((n, many)) * 4 + 0.2
        problem = ChainProblem.of(
            devices,
            lambda start, stop, device, times=step_ms: float(times[start:stop, device].sum()),
            draw.random(n + 1) * 5,
            links,
            part_bytes=draw.integers(1, 6, n),
            handling_ms=draw.random((n + 1, many)) * 0.2,
            source=ends[0],
            sink=ends[1],
            excluded=["a"] if rng.random() < 0.1 else [],
        )
        streams.append(ModelStream(f"m{number}", problem, rng.choice([5, 40, 90, 150]), rng.choice([1.0, 3.0])))
    return JointProblem(tuple(streams))


def plans_of(problem: ChainProblem) -> Iterator[Stages]:
    n, many = problem.n_steps, len(problem.devices)
    for count in range(1, min(n, many) + 1):
        for cuts in itertools.combinations(range(1, n), count - 1):
            ends = (0, *cuts, n)
            for devices in itertools.permutations(range(many), count):
                stages = tuple(map(Stage, ends[:-1], ends[1:], devices))
                if not evaluate(problem, stages).violations:
                    yield stages


def best_ms(problem: JointProblem) -> float:
    every = [list(plans_of(stream.problem)) for stream in problem.streams]
    costs = (problem.evaluate(dict(enumerate(plans))) for plans in itertools.product(*every))
    return min((cost.mean_ms for cost in costs if not cost.violations), default=math.inf)


@pytest.mark.parametrize("seed", range(60))
def test_the_best_plans_of_all_are_found_and_proven(seed: int) -> None:
    problem = random_joint(seed, 3 if seed % 6 == 0 else 2)
    found, best = solve_joint(problem, 20.0), best_ms(problem)
    if isinstance(found, Unsolved):
        assert best == math.inf
        assert found.proven
        assert found.carried < 1
        return
    assert found.cost.mean_ms == pytest.approx(best)
    assert found.gap == 0
    assert not found.cost.violations
    assert max(found.cost.busy.values()) <= MOST_BUSY * (1 + 1e-9)


def test_some_of_these_problems_have_no_answer_and_most_have_one() -> None:
    """Else the test above shows less than it seems."""
    none = [seed for seed in range(60) if isinstance(solve_joint(random_joint(seed, 2), 20.0), Unsolved)]
    assert 0 < len(none) < 30


@pytest.mark.parametrize("seed", range(0, 60, 3))
def test_beside_the_others_a_plan_costs_by_how_much_it_raises_the_mean(seed: int) -> None:
    """So the chain's own solvers place a model beside others exactly; and others make it dearer, never cheaper."""
    problem = random_joint(seed, 2)
    first, second = (list(plans_of(stream.problem)) for stream in problem.streams)
    theirs = {0: random.Random(seed).choice(first)}
    beside, alone = problem.beside(1, theirs), problem.beside(1, {})
    ends = problem.streams[1].problem.sink, problem.streams[1].problem.source
    for stages in second:
        cost, both = evaluate(beside, stages), problem.evaluate({**theirs, 1: stages})
        names = [problem.devices[stage.device].name for stage in stages]
        if len(stages) > 1 and (names[0], names[-1]) == ends:  # one link for input and output
            assert cost.latency_ms * problem.weights[1] <= both.mean_ms - problem.evaluate(theirs).mean_ms + 1e-9
        elif math.isfinite(cost.latency_ms):
            added_ms = both.mean_ms - problem.evaluate(theirs).mean_ms
            assert cost.latency_ms * problem.weights[1] == pytest.approx(added_ms)
            assert cost.latency_ms >= evaluate(alone, stages).latency_ms * (1 - 1e-9)
            assert max(both.busy.values()) <= MOST_BUSY * (1 + 1e-9)
        else:
            assert both.violations


@pytest.mark.parametrize("seed", range(0, 60, 5))
def test_plans_come_in_the_order_of_their_latency(seed: int) -> None:
    problem = random_joint(seed, 2).beside(0, {})
    listed = [stages for _, stages in in_order(problem, FAR)]
    every = [s for s in plans_of(problem) if math.isfinite(evaluate(problem, s).latency_ms)]
    assert sorted(map(str, listed)) == sorted(map(str, every))
    times = [evaluate(problem, stages).latency_ms for stages in listed if stages is not None]
    assert times == pytest.approx(sorted(times))


def one_device(*works: tuple[float, float]) -> JointProblem:
    """Models of one step on one device: requests a second, and the work of each (ms)."""
    links = Links(np.zeros((1, 1)), np.zeros((1, 1)), np.zeros((1, 1)))
    streams = [
        ModelStream(f"m{k}", ChainProblem.of([DeviceKind("a")], np.full((2, 2, 1), ms), [0, 0], links), rate)
        for k, (rate, ms) in enumerate(works)
    ]
    return JointProblem(tuple(streams))


WHOLE = (Stage(0, 1, 0),)


@pytest.mark.parametrize(
    ("works", "within"),
    [(((300, 2.0),), 0.03), (((20, 10.0), (150, 2.0)), 0.1), (((10, 20.0), (40, 5.0), (200, 1.0)), 0.15)],
)
def test_a_shared_device_takes_as_long_as_a_simulation_says(works: list[tuple[float, float]], within: float) -> None:
    problem = one_device(*works)
    cost = problem.evaluate(dict.fromkeys(range(len(works)), WHOLE))
    played = stream_latencies([([Visit("a", ms)], rate) for rate, ms in works], requests=30_000)
    assert cost.busy["a"] == pytest.approx(sum(rate * ms / 1000 for rate, ms in works))
    for formula_ms, simulated in zip(cost.latency_ms, played, strict=True):
        assert formula_ms == pytest.approx(simulated.mean_ms, rel=within)


def test_messages_on_a_link_wait_for_each_other_whoever_sends_them() -> None:
    """A small message behind large ones waits for these; parts on a device share it instead."""
    arise = [[0.0], [1.0]]
    small, large = [Visit("a->b", 1.0)], [Visit("a->b", 10.0)]
    first, second = play_streams([(large, arise[0]), (small, arise[1])])
    assert (first[0], second[0]) == pytest.approx((10.0, 11.0))
    first, second = play_streams([([Visit("a", 10.0)], arise[0]), ([Visit("a", 1.0)], arise[1])])
    assert (first[0], second[0]) == pytest.approx((11.0, 3.0))
    links = Links(np.zeros((2, 2)), np.ones((2, 2)), np.ones((2, 2)))
    streams = [
        ModelStream(
            name,
            ChainProblem.of(
                [DeviceKind("a"), DeviceKind("b")], np.zeros((2, 2, 2)), [size, 0], links, source="a", pinned={0: "b"}
            ),
            rate,
        )
        for name, size, rate in (("small", 1.0, 100), ("large", 10.0, 40))
    ]
    problem = JointProblem(tuple(streams))
    plans = {0: (Stage(0, 1, 1),), 1: (Stage(0, 1, 1),)}
    cost = problem.evaluate(plans)
    played = stream_latencies([(chain_works(s.problem, plans[k]), s.rate_per_s) for k, s in enumerate(streams)])
    for formula_ms, simulated in zip(cost.latency_ms, played, strict=True):
        assert formula_ms == pytest.approx(simulated.mean_ms, rel=0.1)


def test_alone_a_stream_takes_its_latency() -> None:
    problem = random_joint(3, 2).scaled(0.5)
    found = solve_joint(problem)
    assert isinstance(found, JointSolution)
    for stream, stages, alone_ms in zip(problem.streams, found.plans, found.cost.alone_ms, strict=True):
        rare = stream_latencies([(chain_works(stream.problem, stages), 0.01)], requests=50)[0]
        assert rare == StreamLatency(*[pytest.approx(alone_ms)] * 3)


def test_rates_beyond_the_fleet_say_what_can_be_carried() -> None:
    """Two devices of which each could carry one model: what is said to be carried is."""
    links = Links(*[np.zeros((2, 2))] * 3)
    devices = [DeviceKind("a"), DeviceKind("b")]
    part_ms = np.full((2, 2, 2), 10.0)
    streams = [ModelStream(name, ChainProblem.of(devices, part_ms, [0, 0], links), 150.0) for name in "xyz"]
    problem = JointProblem(tuple(streams))
    found = solve_joint(problem, 10.0)
    assert isinstance(found, Unsolved)
    assert found.proven
    assert found.carried == pytest.approx(MOST_BUSY / 3.0, rel=1e-3)  # two of them on one device
    assert isinstance(solve_joint(problem.scaled(found.carried * 0.999), 10.0), JointSolution)


def test_memory_that_holds_no_two_models_says_how_much_is_missing() -> None:
    links = Links(*[np.zeros((2, 2))] * 3)
    devices = [DeviceKind("a", 10.0), DeviceKind("b", 4.0)]
    streams = [
        ModelStream(name, ChainProblem.of(devices, np.ones((2, 2, 2)), [0, 0], links, part_bytes=[8.0]), 1.0)
        for name in "xy"
    ]
    problem = JointProblem(tuple(streams))
    found = solve_joint(problem, 5.0)
    assert isinstance(found, Unsolved)
    assert (found.proven, found.carried) == (True, 0.0)
    more = memory_missing(problem)
    assert more == pytest.approx(4.0, abs=0.2)  # then b holds the other one
    richer = [replace(device, memory_bytes=device.memory_bytes + more) for device in devices]
    streams = [replace(each, problem=replace(each.problem, devices=tuple(richer))) for each in streams]
    assert isinstance(solve_joint(JointProblem(tuple(streams)), 5.0), JointSolution)


def test_what_cannot_be_shared_is_refused() -> None:
    stream = one_device((1.0, 1.0)).streams[0]
    other = replace(stream.problem, devices=(DeviceKind("b"),))
    limited = stream.problem.with_limits(latency_ms=1.0)
    for streams in (
        (),
        (stream, replace(stream, problem=other)),
        (replace(stream, rate_per_s=0.0),),
        (replace(stream, problem=limited),),
    ):
        with pytest.raises(PlacementError):
            JointProblem(streams)
