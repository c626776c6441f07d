"""Samples that are given, and plans whose answers stay within a limit on their error."""

from collections.abc import Sequence
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pepper.config.placing import Precision
from pepper.errors import ConfigError, PlacementError
from pepper.fleet import Link
from pepper.graph.load import load_graph
from pepper.placement.accuracy import Accuracy
from pepper.placement.chain import solve
from pepper.placement.evaluate import Stage, Stages, evaluate
from pepper.placement.problem import ChainProblem, DeviceKind, Links
from pepper.planning.forecast import Forecast
from pepper.planning.forms import Forms, Samples
from pepper.planning.keeping import Keeper
from tests.tasks.champion import convnet

SHAPE = (1, 3, 64, 64)
BOTH = (Precision.fp32, Precision.int8)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"inputs": np.zeros((2, *SHAPE), np.float32)}, r"has no input 'inputs'; did you mean 'input'\?"),
        ({}, "holds no 'input'; give an array for each input"),
        ({"input": np.zeros((2, 3, 32, 32), np.float32)}, r"give \[SAMPLES,1,3,64,64\] of float32"),
        ({"input": np.zeros((2, *SHAPE))}, r"of float64; give \[SAMPLES,1,3,64,64\] of float32"),
        ({"input": np.zeros((0, *SHAPE), np.float32)}, r"give \[SAMPLES,1,3,64,64\] of float32"),
    ],
)
def test_samples_that_are_not_the_models_are_refused(tmp_path: Path, arrays: dict[str, Any], said: str) -> None:
    onnx.save(convnet(depth=1), tmp_path / "net.onnx")
    graph = load_graph(tmp_path / "net.onnx")
    np.savez(tmp_path / "mine.npz", **arrays)
    with pytest.raises(ConfigError, match=f"place.calibration=.*mine.npz: .*{said}") as refused:
        Samples.of(graph, str(tmp_path / "mine.npz"), 0)
    assert "\n" not in str(refused.value)


def test_one_sample_needs_no_axis_more(tmp_path: Path) -> None:
    onnx.save(convnet(depth=1), tmp_path / "net.onnx")
    graph = load_graph(tmp_path / "net.onnx")
    one = np.random.default_rng(0).random(SHAPE, np.float32)
    for array, count in ((one, 1), (np.stack([one, one]), 2)):
        np.savez(tmp_path / "mine.npz", input=array)
        samples = Samples.of(graph, str(tmp_path / "mine.npz"), 0)
        assert [values["input"].tolist() for values in samples.values] == [one.tolist()] * count


class Additive:
    """In place of the model: each step in 8 bits adds its error."""

    def __init__(self, step_errors: Sequence[float], max_error: float) -> None:
        self.step_errors, self.max_error = step_errors, max_error

    def error(self, parts: Sequence[tuple[int, int, Precision]]) -> float:
        return sum(sum(self.step_errors[start:stop]) for start, stop, form in parts if form == Precision.int8)

    def accuracy(self, parts: Sequence[tuple[int, int, Precision]]) -> Accuracy:
        return Accuracy(self.error(parts), self.max_error, 1)


class Table(Forecast):
    """Predicts by a table: times (precisions, n + 1, n + 1, D)."""

    def __init__(self, times: np.ndarray, precisions: tuple[Precision, ...] = BOTH) -> None:
        n = times.shape[1]
        self.precisions, self._times = precisions, times
        self._outside, self._moved_ms = np.zeros(times.shape, bool), np.zeros(times.shape[1:])
        self._denied = np.zeros(times.shape[:3], bool)
        self.fleet = cast(Any, type("Fleet", (), {"devices": {f"d{k}": None for k in range(times.shape[3])}}))
        self.borders = cast(Any, type("Borders", (), {"positions": tuple(range(n))}))
        self._choose()

    def problem(self) -> ChainProblem:
        kinds = [DeviceKind(name) for name in self.fleet.devices]
        sizes = np.full(len(self.borders.positions), 10.0)
        links = Links.uniform(len(kinds), Link(None, 0.1))
        return ChainProblem.of(kinds, self.part_ms, sizes, links, forms=self.forms)


def table(step_ms: np.ndarray, gain: float) -> np.ndarray:
    """Times of parts that add up over steps, (n, D) in single precision."""
    before = np.vstack([np.zeros(step_ms.shape[1]), np.cumsum(step_ms, axis=0)])
    own = np.maximum(before[None, :] - before[:, None], 0)
    return np.stack([own, own / gain])


def kept(keeper: Keeper, forecast: Table) -> Stages:
    stages = solve(forecast.problem()).stages
    while keeper.narrows(forecast.problem(), [stages]):
        stages = solve(forecast.problem()).stages
    return stages


def spans(forecast: Table, stages: Stages) -> list[tuple[int, int, Precision]]:
    problem = forecast.problem()
    return [(s.start, s.stop, BOTH[problem.part_form(s.start, s.stop, s.device)]) for s in stages]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(1, 3), st.integers(0, 1000), st.floats(0.01, 3))
def test_the_plan_keeps_to_the_limit_and_is_above_the_bound_of_all(
    steps: int, devices: int, seed: int, limit: float
) -> None:
    rng = np.random.default_rng(seed)
    times, errors = table(rng.random((steps, devices)) + 0.1, 3.0), rng.random(steps).tolist()
    forecast, forms = Table(times), Additive(errors, limit)
    keeper = Keeper(cast(Forms, forms), forecast)
    first = solve(forecast.problem())
    stages = kept(keeper, forecast)
    parts = spans(forecast, stages)
    assert forms.error(parts) <= limit
    value = evaluate(forecast.problem(), stages).latency_ms
    assert first.bound <= value + 1e-9
    assert keeper.narrowed == (forms.error(spans(Table(times), first.stages)) > limit)
    assert value <= best_of_one_form(times, errors, limit, Precision.fp32) + 1e-9
    if any(form == Precision.int8 for *_, form in parts):
        assert keeper.found[stages].error == forms.error(parts)


def best_of_one_form(times: np.ndarray, errors: Sequence[float], limit: float, form: Precision) -> float:
    """Brute force over all plans in one precision."""
    steps, devices = times.shape[1] - 1, times.shape[3]
    forecast = Table(times[[BOTH.index(form)]], (form,))
    best = np.inf
    for cuts in range(min(steps, devices)):
        for inner in combinations(range(1, steps), cuts):
            ends = list(pairwise((0, *inner, steps)))
            for order in np.ndindex(*[devices] * len(ends)):
                if len(set(order)) == len(order):
                    stages = tuple(Stage(a, b, device) for (a, b), device in zip(ends, order, strict=True))
                    best = min(best, evaluate(forecast.problem(), stages).latency_ms)
    return best


def test_the_step_that_breaks_the_limit_alone_is_left_in_its_precision() -> None:
    times = table(np.ones((8, 2)), 4.0)
    errors = [0.01, 0.5, *[0.01] * 6]
    forecast, forms = Table(times), Additive(errors, 0.1)
    parts = spans(forecast, kept(Keeper(cast(Forms, forms), forecast), forecast))
    assert [form for *_, form in parts] == [Precision.fp32, Precision.int8]
    assert parts[1] == (2, 8, Precision.int8)


def test_without_the_models_own_precision_a_limit_that_breaks_is_said() -> None:
    forecast = Table(table(np.ones((3, 1)), 4.0)[[1]], (Precision.int8,))
    with pytest.raises(PlacementError, match=r"place\.max_error=0\.1: .*differ by 0\.9; raise it, or allow fp32"):
        kept(Keeper(cast(Forms, Additive([0.3] * 3, 0.1)), forecast), forecast)
