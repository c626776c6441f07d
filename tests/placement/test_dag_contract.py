"""The DAG solvers against brute force, on random small problems."""

import itertools
import math
import random

import numpy as np
import pytest

from pepper.errors import PlacementError
from pepper.placement.dag import throughput
from pepper.placement.dag.latency import solve_latency
from pepper.placement.dag.problem import DagProblem, Kind, Output, Place, evaluate_dag
from pepper.placement.dag.throughput import solve_throughput

CASES = 200


def random_problem(seed: int, training: bool = False) -> DagProblem:
    """Small numbers (many ties); memory limits, unable kinds, groups, and outputs read against precedence."""
    rng = random.Random(seed)
    n = rng.randint(1, 6)
    density = rng.choice([0.2, 0.4, 0.7])
    edges = [(a, b) for a, b in itertools.combinations(range(n), 2) if rng.random() < density]
    outputs = []
    for writer in range(n):
        readers = {b for a, b in edges if a == writer}
        if training and rng.random() < 0.3:
            readers.add(rng.randrange(n))
        readers.discard(writer)
        if readers:
            outputs.append(Output(writer, tuple(sorted(readers)), float(rng.choice([0, 0.5, 1, 2, 8]))))
    accelerator_ms = np.array([float(rng.choice([0, 0, 1, 2, 3, 5])) for _ in range(n)])
    cpu_ms = np.array([t * rng.choice([1.0, 2.0, 4.0]) for t in accelerator_ms])
    accelerator_ms[[rng.random() < 0.1 for _ in range(n)]] = math.inf
    return DagProblem(
        (
            Kind("accelerator", rng.randint(0, 2), accelerator_ms, rng.choice([math.inf, 4.0, 8.0])),
            Kind("cpu", rng.randint(0, 2), cpu_ms, host=True),
            Kind("gpu", rng.randint(0, 1), np.array([float(rng.randint(0, 4)) for _ in range(n)]), 6.0),
        )[: 3 if rng.random() < 0.3 else 2]
        if rng.random() < 0.9
        else (Kind("accelerator", 2, np.ones(n), 4.0), Kind("cpu", 1, cpu_ms, host=True)),
        np.array([float(rng.randint(0, 3)) for _ in range(n)]),
        tuple(outputs),
        tuple(edges),
        np.array([i if rng.random() < 0.8 else rng.randrange(n) for i in range(n)]),
    )


def every_placement(problem: DagProblem) -> list[tuple[Place, ...]]:
    devices = [(k, d) for k, kind in enumerate(problem.kinds) for d in range(kind.count)]
    return list(itertools.product(devices, repeat=problem.n_items))


def merges_circles(problem: DagProblem) -> bool:
    """Whether groups precede one another in a circle: on the host, they need not stay together."""
    return len(np.unique(problem.group)) > len(np.unique(problem.blocks))


def test_latency_is_optimal() -> None:
    proven = 0
    for seed in range(CASES):
        try:
            problem = random_problem(seed)
        except PlacementError:  # no devices
            continue
        costs = [evaluate_dag(problem, places) for places in every_placement(problem)]
        optimum = min((cost.latency_ms for cost in costs if not cost.violations), default=math.inf)
        if math.isinf(optimum):
            with pytest.raises(PlacementError):
                solve_latency(problem)
            continue
        if merges_circles(problem):
            continue
        solution = solve_latency(problem)
        cost = evaluate_dag(problem, solution.places)
        assert cost.violations == ()
        assert cost.latency_ms == pytest.approx(optimum), seed
        assert solution.proven
        assert solution.bound <= optimum * (1 + 1e-9)
        proven += 1
    assert proven > CASES / 2


@pytest.mark.parametrize(("training", "pairs"), [(False, throughput.PAIRS), (True, throughput.PAIRS), (True, 1)])
def test_throughput_is_optimal(monkeypatch: pytest.MonkeyPatch, training: bool, pairs: int) -> None:
    """However many ideals are taken at a time."""
    monkeypatch.setattr(throughput, "PAIRS", pairs)
    solved = 0
    for seed in range(CASES):
        try:
            problem = random_problem(seed, training)
        except PlacementError:  # no devices
            continue
        costs = [evaluate_dag(problem, places) for places in every_placement(problem)]
        optimum = min((cost.period_ms for cost in costs if not cost.violations), default=math.inf)
        if math.isinf(optimum):
            with pytest.raises(PlacementError):
                solve_throughput(problem)
            continue
        solution = solve_throughput(problem)
        cost = evaluate_dag(problem, solution.places)
        assert cost.violations == ()
        assert cost.period_ms == pytest.approx(optimum), seed
        assert solution.proven
        assert solution.bound <= optimum * (1 + 1e-9)
        solved += 1
    assert solved > CASES / 2
