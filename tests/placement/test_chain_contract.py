"""Every chain solver against brute force, on thousands of random small problems."""

import itertools
import math
import random
import time
from collections.abc import Iterator

import numpy as np
import pytest

from pepper.errors import PlacementError
from pepper.placement.chain import SOLVERS, pareto, solve
from pepper.placement.evaluate import Evaluation, Stage, Stages, evaluate
from pepper.placement.front import beats, chain_front
from pepper.placement.objectives import ENERGY, FEWEST_PARTS, LATENCY, THROUGHPUT, Objective
from pepper.placement.problem import ChainProblem, DeviceKind, Limits, Links

CASES = 300

FRUGAL = Objective("frugal", "cost", per_ms=0.5, per_part=2.0)
WANTED = (LATENCY, THROUGHPUT, FEWEST_PARTS, FRUGAL, ENERGY)


def every_plan(n_steps: int, n_devices: int) -> Iterator[Stages]:
    for n_parts in range(1, n_steps + 1):
        for cuts in itertools.combinations(range(1, n_steps), n_parts - 1):
            ends = (0, *cuts, n_steps)
            for devices in itertools.product(range(n_devices), repeat=n_parts):
                yield tuple(map(Stage, ends[:-1], ends[1:], devices))


def feasible(problem: ChainProblem) -> list[tuple[Stages, Evaluation]]:
    plans = ((plan, evaluate(problem, plan)) for plan in every_plan(problem.n_steps, len(problem.devices)))
    return [(plan, cost) for plan, cost in plans if not cost.violations]


def random_problem(seed: int) -> ChainProblem:
    """Small numbers (many ties), and every rule in some of the problems."""
    rng = random.Random(seed)
    draw = np.random.default_rng(seed)
    n, n_devices = rng.randint(1, 5), rng.randint(1, 3)
    names = "abc"[:n_devices]
    reuse = rng.random() < 0.5
    ends = [rng.choice([None, *names]) for _ in range(2)]
    power = np.random.default_rng([seed, 1])  # of its own: the rest is as without
    limited = power.random() < 0.15
    many = not reuse and rng.random() < 0.5
    devices = [
        DeviceKind(
            name,
            rng.choice([math.inf, 6.0, 12.0]),
            rng.choice([1, 2]) if many and name not in ends else 1,
            rng.choice([0.0, 0.0, 2.0]),
            float(power.choice([0.0, 500.0, 1000.0, 3000.0, math.inf])),
        )
        for name in names
    ]
    shape = (n, n_devices) if rng.random() < 0.5 else (n + 1, n + 1, n_devices)
    part_ms = draw.integers(0, 9, shape).astype(float)
    part_ms[draw.random(shape) < 0.1] = math.inf
    boundary = draw.integers(0, 3, n + 1).astype(float)
    boundary[draw.random(n + 1) < 0.1] = math.inf
    latency, rate = (draw.integers(0, 2, (n_devices, n_devices)).astype(float) for _ in range(2))
    latency[draw.random(latency.shape) < 0.15] = math.inf
    limits = Limits(
        latency_ms=rng.choice([math.inf] * 3 + [12.0, 20.0]),
        period_ms=rng.choice([math.inf] * 3 + [6.0, 10.0]),
        sent_bytes=rng.choice([math.inf] * 3 + [3.0, 6.0]),
        parts=rng.choice([math.inf] * 3 + [1, 2]),
        energy_j=float(power.choice([8.0, 20.0])) if limited else math.inf,
    )
    return ChainProblem.of(
        devices,
        part_ms,
        boundary,
        Links(latency, rate, rate * rng.choice([0.5, 1.0]), power.integers(0, 3, latency.shape).astype(float)),
        part_bytes=draw.integers(0, 6, (n,) if rng.random() < 0.5 else (n + 1, n + 1)),
        handling_ms=draw.integers(0, 3, (n + 1, n_devices)) if rng.random() < 0.4 else 0.0,
        source=ends[0],
        sink=ends[1],
        reuse=reuse,
        pinned={rng.randrange(n): rng.choice(names)} if rng.random() < 0.2 else {},
        limits=limits if rng.random() < 0.6 else Limits(),
    )


def seeds(objective: Objective | None) -> range:
    """Each objective has problems of its own."""
    start = [*WANTED, None].index(objective) * CASES
    return range(start, start + (CASES // 3 if objective == ENERGY else CASES))


def made_for(name: str, problem: ChainProblem, objective: Objective) -> bool:
    """Whether a solver must find a problem's optimum and prove it."""
    limits, devices = problem.limits, problem.devices
    if name == "labels":
        return True
    if any(math.isfinite(limit) for limit in (limits.latency_ms, limits.energy_j, limits.sent_bytes)):
        return False
    if name == "distinct":
        return not problem.reuse
    if name == "balanced":
        return objective.bottleneck and not problem.reuse
    # `relaxed`: no rule runs over several parts.
    if min(problem.n_steps, limits.parts) == 1:
        return True
    if problem.reuse:
        boundless = all(math.isinf(device.memory_bytes) for device in devices)
        return objective in (LATENCY, ENERGY) and boundless and math.isinf(limits.period_ms)
    return all(device.count >= min(problem.n_steps, limits.parts) for device in devices)


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("objective", WANTED, ids=lambda objective: objective.name)
def test_solver_bounds_the_optimum_from_below(name: str, objective: Objective) -> None:
    theirs: list[int] = []
    missed: list[int] = []
    for seed in seeds(objective):
        problem = random_problem(seed)
        optimum = min((objective.value(cost) for _, cost in feasible(problem)), default=math.inf)
        found = SOLVERS[name](problem, objective, time.monotonic() + 60)
        assert found.bound <= optimum * (1 + 1e-9) + 1e-9, seed
        settled = found.bound >= optimum - 1e-6  # without a plan, too: both are inf
        if found.stages is not None:
            cost = evaluate(problem, found.stages)
            if not cost.violations:
                assert objective.value(cost) >= optimum - 1e-9, seed
        if math.isfinite(optimum):
            if made_for(name, problem, objective):
                (theirs if settled else missed).append(seed)
        elif name == "labels":
            assert settled, seed
    assert not missed
    # Enough of them to say so; `balanced` bounds the latency only.
    assert len(theirs) > len(seeds(objective)) / 10 or (name == "balanced" and not objective.bottleneck)


@pytest.mark.parametrize("objective", WANTED, ids=lambda objective: objective.name)
def test_solve_is_optimal_with_fewest_parts(objective: Objective) -> None:
    for seed in seeds(objective):
        problem = random_problem(seed)
        plans = [(plan, cost) for plan, cost in feasible(problem) if math.isfinite(objective.value(cost))]
        if not plans:
            with pytest.raises(PlacementError) as error:
                solve(problem, objective)
            assert "\n" not in str(error.value)
            continue
        optimum = min(objective.value(cost) for _, cost in plans)
        best = [plan for plan, cost in plans if objective.value(cost) <= optimum + 1e-9]
        solution = solve(problem, objective)
        cost = evaluate(problem, solution.stages)
        assert cost.violations == ()
        assert objective.value(cost) == pytest.approx(optimum, abs=1e-9), seed
        assert solution.proven
        assert solution.gap == 0
        assert solution.bound <= optimum + 1e-9
        assert len(solution.stages) == min(map(len, best)), seed


def test_pareto_is_the_whole_front() -> None:
    for seed in seeds(None):
        problem = random_problem(seed)
        points = {(cost.latency_ms, cost.period_ms) for _, cost in feasible(problem)}
        if not points:
            continue
        front = sorted(p for p in points if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in points))
        costs = [evaluate(problem, solution.stages) for solution in pareto(problem)]
        assert np.array([(c.latency_ms, c.period_ms) for c in costs]) == pytest.approx(np.array(front)), seed


def test_three_way_front_is_every_plan_that_no_other_beats() -> None:
    longest = 0
    for seed in range(150):
        problem = random_problem(seed)
        plans = [cost for _, cost in feasible(problem) if math.isfinite(cost.energy_j)]
        wanted = {
            (cost.latency_ms, cost.period_ms, cost.energy_j)
            for cost in plans
            if not any(beats(other, cost) for other in plans)
        }
        front = chain_front(problem, 60.0)
        costs = [evaluate(problem, solution.stages) for solution in front.plans]
        found = [(cost.latency_ms, cost.period_ms, cost.energy_j) for cost in costs]
        assert len(found) == len(wanted), seed
        assert sorted(found) == [pytest.approx(each) for each in sorted(wanted)], seed
        assert front.complete or not wanted, seed
        longest = max(longest, len(found))
    assert longest > 3
