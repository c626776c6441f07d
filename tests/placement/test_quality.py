"""The benchmark of placements against measured parts: its cases, its exhaustive search, its regrets."""

import itertools
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest

from benchmarks.placement_quality import (
    CAMERA,
    DEVICES,
    OBJECTIVES,
    PATTERNS,
    PEPPER,
    borders,
    cases,
    every_plan,
    problems,
    ranges,
    regrets,
)
from pepper.graph.balance import balanced_cuts
from pepper.graph.characteristics import FEATURES, Characteristics
from pepper.graph.cuts import find_cuts
from pepper.graph.load import load_graph
from pepper.graph.model import find_model
from pepper.latency.dataset import Rows
from pepper.latency.features import Setting
from pepper.latency.features import rows as described
from pepper.placement.chain import solve
from pepper.placement.decision import Spread
from pepper.placement.evaluate import evaluate
from pepper.placement.objectives import objective_named
from pepper.placement.problem import Link
from tests.harness import composed

SPEED = {"share100": 100.0, "share50": 50.0, "share25": 25.0}
PERCENT = {"idle": 0.0, "cpu25": 25.0, "cpu75": 75.0}
MODELS = ("squeezenet", "alexnet", "shufflenet")


def grid(model: str) -> Iterator[tuple[str, str, np.ndarray]]:
    """Name, hash and characteristics of each range of three elements."""
    file = find_model(composed(f"model={model}").model)
    graph = load_graph(file.file, shapes=file.shapes)
    characteristics = Characteristics(graph)
    chosen = balanced_cuts(graph, find_cuts(graph), 3, np.diff(characteristics.cumulative_macs).tolist())
    positions = [0, *(cut.position for cut in chosen), len(graph.operators)]
    for start, stop in itertools.combinations(positions, 2):
        yield f"{model}[{start}:{stop}]", f"{model}{start}-{stop}", characteristics.table([start], [stop])


@pytest.fixture(scope="module")
def measured() -> tuple[Rows, pd.DataFrame]:
    """Times of a roofline, with noise, of every range of three models on every device under every load."""
    rng = np.random.default_rng(0)
    features, names, cells = [], [], []
    for model in MODELS:
        for name, sha256, part in grid(model):
            for device, load in itertools.product(SPEED, PERCENT):
                gflops = SPEED[device]
                setting = Setting(gflops, gflops, gflops / 5, gflops / 100, load_percent=PERCENT[load], load_cores=1)
                features.append(described(part, setting))
                names.append((model, sha256, device, load, model))
                cells.append((model, name, sha256, device, load))
    stacked = np.vstack(features)
    work = stacked[:, FEATURES.index("macs")] / 1e6 + stacked[:, FEATURES.index("operators")] / 2
    speed = np.array([SPEED[device] for *_, device, _, _ in names])
    slow = np.array([1 + PERCENT[load] / 100 for *_, load, _ in names])
    p50_ms = work * 100 / speed * slow / 30 * np.exp(0.03 * rng.standard_normal(len(names)))
    columns = (np.array(column) for column in zip(*names, strict=True))
    keys = [f"params.{key}" for key in ("family", "model", "model_sha256", "device", "load")]
    table = pd.DataFrame(cells, columns=keys).assign(verdict="VALID", ended_ms=0)
    return Rows(stacked, p50_ms, p50_ms, *columns), table.assign(**{"metrics.latency_mean_ms": p50_ms})


def test_every_regret_is_at_least_one_and_the_cases_are_counted(measured: tuple[Rows, pd.DataFrame]) -> None:
    found, spreads = cases(*measured)
    assert len(found) == len(MODELS) * len(PATTERNS)
    assert all(case.complete for case in found)
    for case, objective in itertools.product(found, OBJECTIVES):
        values = regrets(case, Link(100.0, 0.2), objective, spreads[case.model])
        assert min(values.values()) >= 1 - 1e-9
        assert values[PEPPER[0]] < 3.0


def test_with_true_times_pepper_finds_what_the_search_of_all_plans_finds(measured: tuple[Rows, pd.DataFrame]) -> None:
    for case, objective in itertools.product(cases(*measured)[0], OBJECTIVES):
        goal = objective_named(objective)
        optimum = min(goal.value(evaluate(case.truth, plan)) for plan in every_plan(case.truth))
        assert solve(case.truth, goal).value == pytest.approx(optimum)


def test_a_part_that_was_not_measured_makes_a_case_incomplete(measured: tuple[Rows, pd.DataFrame]) -> None:
    rows, cells = measured
    ends = cells.loc[cells["params.family"] == "alexnet", "params.model_sha256"]
    gone = (rows.part == ends.iloc[0]) & (rows.device == "share50") & (rows.load == "idle")
    found, _ = cases(rows.take(~gone), cells)
    incomplete = [case for case in found if not case.complete]
    assert {case.model for case in incomplete} == {"alexnet"}
    assert {PATTERNS[case.pattern][DEVICES.index("share50")] for case in incomplete} == {"idle"}
    for case in incomplete:
        assert np.isfinite(list(regrets(case, Link(10.0), "latency", Spread()).values())[:2]).all()


def test_boundaries_are_where_measured_parts_begin_and_end() -> None:
    named = [("net", "net[3:9]", "x"), ("net", "net", "y"), ("other", "other[0:1]", "z")]
    keys = ("params.family", "params.model", "params.model_sha256")
    cells = pd.DataFrame(named, columns=keys)
    assert borders({(0, 20), (0, 5), (5, 20), (5, 9), (9, 20), (3, 9), (2, 20)}, 20) == [0, 5, 9, 20]
    assert borders({(3, 9)}, 20) == [0, 20]
    assert ranges(cells, {"net": 20}) == {("net", "x"): (3, 9), ("net", "y"): (0, 20)}
    file = find_model(composed("model=squeezenet").model)
    graph = load_graph(file.file, shapes=file.shapes)
    count = len(graph.operators)
    times = {((0, count), CAMERA, "idle"): 9.0, ((0, 2), CAMERA, "idle"): 1.0, ((2, count), "share100", "idle"): 2.0}
    truth, _ = problems(graph, times, times, dict.fromkeys(DEVICES, "idle"), {})
    assert truth.n_steps == 2
    assert truth.boundary_bytes[0] == 3 * 224 * 224 * 4
    assert {len(plan) for plan in every_plan(truth)} == {1, 2}
