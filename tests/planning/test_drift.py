"""Measurements that a latency model has not learned from say whether it still holds."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from harness import MakeDesk, composed

from pepper.latency.dataset import Rows
from pepper.latency.intervals import Interval
from pepper.latency.model import Hyperparameters, LatencyModel
from pepper.planning.drift import LEAST, disagreements, off_by
from pepper.planning.latency_models import load_version, open_registry
from pepper.planning.shipped import SHIPPED
from tests.latency.measured import measured
from tests.tracking.test_registry import log_cells


@pytest.fixture(scope="module")
def model() -> LatencyModel:
    rows = measured()
    fitted = LatencyModel.fit(rows.features, rows.p50_ms, None, Hyperparameters(rounds=20, bags=1))
    return replace(fitted, interval=Interval.around(np.linspace(0.8, 1.25, 101)))


def fast(seed: int, times: float) -> Rows:
    rows = measured(seed=seed)
    rows = rows.take(rows.device == "fast")
    return replace(rows, p50_ms=rows.p50_ms * times)


def test_other_models_on_the_same_machine_are_no_surprise(model: LatencyModel) -> None:
    assert off_by(model, fast(7, 1.0)) is None


@pytest.mark.parametrize("times", [1.5, 0.6])
def test_a_machine_that_became_slower_or_faster_is_one(model: LatencyModel, times: float) -> None:
    assert off_by(model, fast(7, times)) == pytest.approx(times, rel=0.1)


def test_a_few_cells_say_nothing(model: LatencyModel) -> None:
    assert off_by(model, fast(7, 9.0).take(np.arange(LEAST - 1))) is None


def test_an_empty_store_disagrees_with_nothing(make_desk: MakeDesk, tmp_path: Path) -> None:
    desk = make_desk(tmp_path / "desk")
    config = composed(f"tracking.uri={desk.uri}", f"tracking.folder={desk.folder}/mlruns")
    registry = open_registry(config)
    assert disagreements(config, registry, SHIPPED, load_version(registry, SHIPPED), ["share100"]) == []


def test_a_prediction_says_that_measurements_disagree(make_desk: MakeDesk, tmp_path: Path) -> None:
    desk = make_desk(tmp_path / "desk")
    log_cells(desk, slower=1e4)
    assert desk("task=import").status == 0
    asked = ("task=predict", "model=tiny", "device.threads=1")
    said = desk(*asked, "device.name=fast")
    assert said.status == 0, said.err
    assert "warning: fast: 10 measurements that the latency model that pepper ships has not learned from" in said.err
    assert "learn again with task=train" in said.err
    assert "measurements that" not in desk(*asked, "device.name=another").err
