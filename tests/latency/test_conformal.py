"""Intervals hold as often as they say, and are wider where something is new."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pepper.latency.adaptation import Adaptation
from pepper.latency.conformal import interval, leave_out
from pepper.latency.dataset import Rows
from pepper.latency.features import COLUMN, Values
from pepper.latency.intervals import NOVELTIES, Interval
from pepper.latency.model import Hyperparameters, LatencyModel
from tests.latency.measured import measured

FEW = Hyperparameters(rounds=5, learning_rate=0.3, bags=1)


def strayed(models: int, spread: float, seed: int) -> Rows:
    """Rows of models each of which takes longer or shorter as a whole than its characteristics say."""
    rows = measured(models, seed=seed)
    names, model = np.unique(rows.model, return_inverse=True)
    own = np.exp(spread * np.random.default_rng(seed).standard_normal(len(names)))
    return replace(rows, p50_ms=rows.p50_ms * own[model], p95_ms=rows.p95_ms * own[model])


def learned(rows: Rows) -> LatencyModel:
    model = LatencyModel.fit(rows.features, rows.p50_ms, None, FEW)
    return replace(model, interval=interval(model, leave_out(rows, "model", FEW), leave_out(rows, "load", FEW)))


@pytest.fixture(scope="module")
def model() -> LatencyModel:
    return learned(strayed(12, 0.2, 1))


def width(model: LatencyModel, features: Values) -> float:
    """The narrowest interval of some rows, log of its ratio."""
    found = model.predict(features)
    return float(np.log(found.high_ms / found.low_ms).min())


def test_nine_of_ten_models_never_seen_lie_inside() -> None:
    """In the mean of what could have been learned from: one draw of a few models is luckier than another."""
    inside = []
    for seed in range(4):
        model, unseen = learned(strayed(8, 0.2, seed)), strayed(40, 0.2, 100 + seed)
        found = model.predict(unseen.features)
        inside.append(np.mean((unseen.p50_ms >= found.low_ms) & (unseen.p50_ms <= found.high_ms)))
    assert 0.82 < np.mean(inside) < 0.98


def test_models_that_stray_more_have_a_wider_interval(model: LatencyModel) -> None:
    known = measured().features
    assert width(learned(strayed(12, 0.02, 1)), known) < width(model, known) / 2


@pytest.mark.parametrize(
    ("columns", "value"),
    [
        (["device_gflops", "device_gflops_single"], 1000.0),
        (["macs_gemm", "bytes_gemm"], 1e12),
    ],
)
def test_what_is_new_widens_it(model: LatencyModel, columns: list[str], value: float) -> None:
    known = strayed(12, 0.2, 1).features
    new = known.copy()
    new[:, [COLUMN[name] for name in columns]] = value
    assert width(model, new) > width(model, known)


def test_a_device_that_was_adapted_to_is_new_no_more(model: LatencyModel) -> None:
    rows = strayed(12, 0.2, 1)
    features = rows.features[rows.device == "slow"]
    features[:, [COLUMN["device_gflops"], COLUMN["device_gflops_single"]]] = 1000.0
    ratios = np.full(len(features), 1.1)
    adapted = model.adapted(Adaptation.fit(features, ratios, model.roofline))
    assert width(adapted, features) < width(model, features)


@settings(max_examples=50, deadline=None)
@given(
    novelty=st.lists(st.floats(0, 1), min_size=len(NOVELTIES), max_size=len(NOVELTIES)),
    more=st.integers(0, len(NOVELTIES) - 1),
    wider=st.lists(st.floats(0, 10), min_size=len(NOVELTIES), max_size=len(NOVELTIES)),
)
def test_more_that_is_new_is_never_narrower(novelty: list[float], more: int, wider: list[float]) -> None:
    kept = Interval(0.8, 1.3, dict(zip(NOVELTIES, wider, strict=True)))
    further = [*novelty[:more], 1.0, *novelty[more + 1 :]]
    low, high = kept.ratios(np.array([novelty, further]))
    assert low[1] <= low[0] <= 0.8
    assert high[1] >= high[0] >= 1.3


def test_what_was_foretold_exactly_makes_no_prediction_exact(tmp_path: Path) -> None:
    model = learned(measured(models=6, noise=0))
    assert model.interval.low < 0.995
    assert model.interval.high > 1.005
    model.save(tmp_path)
    assert LatencyModel.load(tmp_path).interval == model.interval


def test_one_model_says_nothing() -> None:
    rows = measured(models=1)
    assert leave_out(rows, "model", FEW) is None
    kept = interval(LatencyModel.fit(rows.features, rows.p50_ms, None, FEW), None, None)
    assert np.isnan(kept.low)
    assert not any(kept.wider.values())
