"""DAGs beyond brute force: answers within the time limit, bounds that hold, clear lines for bad input."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.device_placement import load_workload
from benchmarks.translator import Translator
from pepper.errors import PlacementError
from pepper.placement.dag.latency import solve_latency
from pepper.placement.dag.problem import DagProblem, DagSolution, Kind, Output, condense, evaluate_dag
from pepper.placement.dag.throughput import solve_throughput

Solver = Callable[..., DagSolution]


def grid(layers: int, steps: int, accelerators: int = 3, seed: int = 0) -> DagProblem:
    """An unrolled recurrent network: binomially many ideals."""
    rng = np.random.default_rng(seed)
    n = layers * steps
    edges = [(k, k + 1) for k in range(n) if (k + 1) % steps] + [(k, k + steps) for k in range(n - steps)]
    item_ms = rng.uniform(0.1, 2.0, n)
    readers = [tuple(b for a, b in edges if a == item) for item in range(n)]
    return DagProblem(
        (Kind("accelerator", accelerators, item_ms, 0.4 * n), Kind("cpu", 1, 8 * item_ms, host=True)),
        np.ones(n),
        tuple(Output(item, some, 0.05) for item, some in enumerate(readers) if some),
        tuple(edges),
        np.arange(n),
    )


@pytest.mark.parametrize("solver", [solve_throughput, solve_latency])
def test_too_many_ideals_give_an_answer_with_its_gap(solver: Solver) -> None:
    problem = grid(16, 16)
    solution = solver(problem, time_limit_s=2.0)
    cost = evaluate_dag(problem, solution.places)
    assert cost.violations == ()
    assert 0 < solution.bound < solution.value
    assert solution.value == pytest.approx(cost.period_ms if solver is solve_throughput else cost.latency_ms)
    assert 0 < solution.gap < 1


def test_more_devices_never_hurt() -> None:
    values = [solve_throughput(grid(3, 6, accelerators)).value for accelerators in (1, 2, 3, 4)]
    assert values == sorted(values, reverse=True)
    values = [solve_latency(grid(3, 5, accelerators)).value for accelerators in (1, 2, 3)]
    assert values == sorted(values, reverse=True)


def test_condensed_numbers_are_topological() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        n = int(rng.integers(1, 12))
        pairs = [tuple(map(int, rng.integers(0, n, 2))) for _ in range(int(rng.integers(0, 2 * n)))]
        block = condense(np.arange(n), [(a, b) for a, b in pairs])
        reach = np.eye(n, dtype=bool)
        for _ in range(n):
            for a, b in pairs:
                reach[a] |= reach[b]
        assert all(block[a] <= block[b] for a, b in pairs)
        assert ((block[:, None] == block) == (reach & reach.T)).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"item_bytes": -np.ones(4)}, "item_bytes must hold 4 numbers of at least 0"),
        ({"precedence": ((0, 9),)}, "an edge names item 9; items are 0 to 3"),
        ({"kinds": (Kind("npu", 1, np.full(4, math.nan)),)}, "npu: item_ms must hold 4 numbers"),
        ({"kinds": (Kind("npu", 0, np.ones(4)),)}, "no items or no devices"),
        ({"kinds": (Kind("npu", 1, np.full(4, math.inf)),)}, "run on no device"),
        ({"kinds": (Kind("npu", 9, np.ones(4), 0.0),)}, "item 0: 1 bytes more than 'npu' has"),
        ({"kinds": (Kind("npu", 1, np.ones(4), 2.0),)}, "the items need 2 bytes more than all devices"),
    ],
)
@pytest.mark.parametrize("solver", [solve_throughput, solve_latency])
def test_bad_dag_is_one_clear_line(solver: Solver, changes: dict[str, object], message: str) -> None:
    with pytest.raises(PlacementError, match=message) as error:
        solver(replace(grid(2, 2), **changes), time_limit_s=1.0)
    assert "\n" not in str(error.value)


def test_states_that_nobody_reads_do_not_hinder_the_proof(tmp_path: Path) -> None:
    """Each of them would double the ideals."""
    file = tmp_path / "translator.json"
    file.write_text(json.dumps(Translator(seed=1, layers=8, state_ms=0.0).workload()))
    problem = load_workload(file)
    solution = solve_throughput(problem, time_limit_s=20.0)
    assert solution.proven
    assert evaluate_dag(problem, solution.places).period_ms == pytest.approx(solution.value)
