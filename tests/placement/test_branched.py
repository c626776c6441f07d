"""Plans whose branches run side by side: against brute force, against the chain, and under limits."""

import itertools
import math
import random

import numpy as np
import pytest

from pepper.fleet import Link
from pepper.placement.branched import OUTSIDE, BranchedProblem, Flow, evaluate_branched
from pepper.placement.branched_bounds import Bounds
from pepper.placement.branched_search import solve_branched
from pepper.placement.evaluate import Stage, Stages, evaluate
from pepper.placement.front import beats
from pepper.placement.objectives import ENERGY, LATENCY, THROUGHPUT, Objective
from pepper.placement.problem import ChainProblem, DeviceKind, Limits, Links
from pepper.planning.branching import branched_front


def random_problem(seed: int) -> BranchedProblem:
    rng, power = random.Random(seed), random.Random(f"power {seed}")
    n, d = rng.randint(1, 5), rng.randint(1, 3)
    names = [f"d{k}" for k in range(d)]
    times = np.full((n + 1, n + 1, d), math.inf)
    for start, stop in itertools.combinations(range(n + 1), 2):
        times[start, stop] = [rng.choice([0.5, 1, 2, 3]) + (stop - start) * rng.random() for _ in range(d)]
    flows = [Flow(OUTSIDE, tuple(sorted(rng.sample(range(n), rng.randint(1, min(2, n))))), rng.choice([0.0, 50.0]))]
    for writer in range(n):
        readers = [k for k in range(writer + 1, n) if rng.random() < 0.5]
        if not readers or rng.random() < 0.2:
            readers.append(n)
        flows.append(Flow(writer, tuple(readers), rng.choice([0.0, 100.0, 400.0])))
    boundary = np.full(n + 1, 100.0)
    boundary[1:-1] = [math.inf if rng.random() < 0.2 else 100.0 for _ in range(n - 1)]
    pairs = {
        (a, b): Link(
            rng.choice([None, 1.0, 4.0]),
            rng.choice([0.0, 0.3]),
            energy_nj_per_byte=power.choice([0.0, 2e3, 1e4]),
        )
        for a in names
        for b in names
        if a != b
    }
    if len(pairs) > 2 and rng.random() < 0.3:
        del pairs[rng.choice(list(pairs))]
    limits = Limits(
        latency_ms=rng.choice([math.inf, math.inf, 6.0]),
        period_ms=rng.choice([math.inf, math.inf, 4.0]),
        sent_bytes=rng.choice([math.inf, 300.0]),
        parts=rng.choice([math.inf, 2]),
        energy_j=power.choice([math.inf, math.inf, math.inf, 0.01]),
    )
    chain = ChainProblem.of(
        [
            DeviceKind(
                name,
                rng.choice([math.inf, 3.0]),
                wait_ms=rng.choice([0.0, 0.2]),
                power_w=power.choice([0.0, 0.5, 1.0, 2.0, math.inf]),
            )
            for name in names
        ],
        times,
        boundary,
        Links.pairs(names, pairs),
        part_bytes=1.0,
        excluded=[names[-1]] if d > 1 and rng.random() < 0.1 else [],
        source=rng.choice([None, names[0]]),
        sink=rng.choice([None, names[0]]),
        pinned={rng.randrange(n): names[0]} if rng.random() < 0.2 else {},
        limits=limits,
    )
    return BranchedProblem(chain, tuple(flows), np.full(d, 0.1), np.full(d, 0.0005))


def every_plan(problem: BranchedProblem) -> list[Stages]:
    plans = []
    for count in range(len(problem.allowed) - 1):
        for inner in itertools.combinations(problem.allowed[1:-1], count):
            ends = (0, *inner, problem.n_steps)
            spans = list(itertools.pairwise(ends))
            for devices in itertools.product(problem.able, repeat=len(spans)):
                plans.append(tuple(Stage(a, b, k) for (a, b), k in zip(spans, devices, strict=True)))
    return plans


OWN = Objective("own", "own", per_ms=1.0, per_part=0.4, per_joule=300.0)


@pytest.mark.parametrize("objective", [LATENCY, THROUGHPUT, ENERGY, OWN])
def test_branched_plan_is_optimal_and_its_bound_holds(objective: Objective) -> None:
    found = 0
    for seed in range(120):
        problem = random_problem(seed)
        costs = [evaluate_branched(problem, plan) for plan in every_plan(problem)]
        best = min((objective.value(cost) for cost in costs if not cost.violations), default=math.inf)
        least = min((objective.value(cost) for cost in costs), default=math.inf)
        bounds = Bounds(problem)
        assert bounds.of(objective) <= least * (1 + 1e-9)
        solution = solve_branched(problem, objective, 30.0)
        if math.isinf(best):
            assert solution is None
            continue
        assert solution is not None
        assert not evaluate_branched(problem, solution.stages).violations
        assert solution.value == pytest.approx(best), seed
        assert solution.proven
        found += 1
    assert found > 50


def test_three_way_front_is_every_plan_that_no_other_beats() -> None:
    longest = 0
    for seed in range(60):
        problem = random_problem(seed)
        costs = [evaluate_branched(problem, plan) for plan in every_plan(problem)]
        plans = [cost for cost in costs if not cost.violations and math.isfinite(cost.energy_j)]
        wanted = {
            (cost.latency_ms, cost.period_ms, cost.energy_j)
            for cost in plans
            if not any(beats(other, cost) for other in plans)
        }
        front = branched_front(problem, 60.0)
        costs = [evaluate_branched(problem, solution.stages) for solution in front.plans]
        found = [(cost.latency_ms, cost.period_ms, cost.energy_j) for cost in costs]
        for each in wanted:
            assert any(each == pytest.approx(other, rel=2e-6) for other in found), seed
        for each in found:
            assert any(each == pytest.approx(other, rel=2e-6) for other in wanted), seed
        assert front.complete or not wanted
        longest = max(longest, len(found))
    assert longest > 3


def test_without_branches_it_costs_what_a_chain_does() -> None:
    names = ["a", "b"]
    links = Links.pairs(names, {("a", "b"): Link(2.0, 0.4), ("b", "a"): Link(1.0, 0.1)})
    bytes_in = [50.0, 100.0, 200.0, 70.0]
    devices = [DeviceKind("a", wait_ms=0.3), DeviceKind("b", wait_ms=0.7)]
    handling = 0.05 + 0.001 * np.array(bytes_in)[:, None] * np.ones(2)
    chain = ChainProblem.of(
        devices, np.array([[1, 2], [3, 1], [2, 2]], float), bytes_in, links, handling_ms=handling, source="a", sink="b"
    )
    flows = tuple(Flow(k - 1, (k,), size) for k, size in enumerate(bytes_in))
    problem = BranchedProblem(chain, flows, np.full(2, 0.05), np.full(2, 0.001))
    for stages in (
        (Stage(0, 3, 0),),
        (Stage(0, 3, 1),),
        (Stage(0, 1, 0), Stage(1, 3, 1)),
        (Stage(0, 2, 1), Stage(2, 3, 0)),
    ):
        wanted, cost = evaluate(chain, stages), evaluate_branched(problem, stages)
        assert cost.latency_ms == pytest.approx(wanted.latency_ms)
        assert cost.period_ms == pytest.approx(wanted.period_ms)
        assert cost.sent_bytes == wanted.sent_bytes


def wide(n_branches: int, depth: int, devices: int, seed: int = 0) -> BranchedProblem:
    """Modules of branches, one behind the other."""
    rng = np.random.default_rng(seed)
    flows, steps, ends = [Flow(OUTSIDE, (0,), 1e4)], 1, [0]
    for _ in range(3):
        fork = steps - 1
        tips, heads = [], []
        for _ in range(n_branches):
            heads.append(steps)
            flows += [Flow(steps + k, (steps + k + 1,), 1e4) for k in range(depth - 1)]
            steps += depth
            tips.append(steps - 1)
        flows.append(Flow(fork, tuple(heads), 1e4))
        flows += [Flow(tip, (steps,), 1e4) for tip in tips]
        steps += 1
        ends.append(steps)
    flows.append(Flow(steps - 1, (steps,), 100.0))
    names = [f"d{k}" for k in range(devices)]
    chain = ChainProblem.of(
        [DeviceKind(name) for name in names],
        rng.uniform(0.5, 2.0, (steps, 1)) * np.ones((1, devices)),
        np.full(steps + 1, 1e4),
        Links.uniform(devices, Link(1000.0, 0.05)),
        source="d0",
        sink="d0",
    )
    return BranchedProblem(chain, tuple(flows), np.full(devices, 0.05), np.zeros(devices))


def test_branches_run_side_by_side() -> None:
    problem = wide(2, 2, 2)
    alone = evaluate_branched(problem, (Stage(0, problem.n_steps, 0),))
    solution = solve_branched(problem, LATENCY, 5.0)
    assert solution is not None
    assert solution.value < 0.8 * alone.latency_ms
    assert 0 < solution.bound <= solution.value


def test_large_problem_is_answered_in_time_with_its_gap() -> None:
    problem = wide(8, 20, 10)
    assert problem.n_steps > 400
    solution = solve_branched(problem, LATENCY, 2.0)
    assert solution is not None
    assert 0 <= solution.gap < 1
    assert solution.value < evaluate_branched(problem, (Stage(0, problem.n_steps, 0),)).latency_ms
