"""Errors made of known components are taken apart again."""

import numpy as np
import pytest

from pepper.latency.error_components import error_components
from pepper.latency.features import Setting, rows
from pepper.latency.model import Hyperparameters, LatencyModel
from pepper.latency.parts import predict_parts
from tests.latency.measured import measured, random_parts, setting


@pytest.mark.parametrize("truth", [(0.3, 0.1, 0.05), (0.0, 0.3, 0.1), (0.2, 0.0, 0.2), (0.0, 0.0, 0.2)])
def test_components_are_found_again(truth: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(0)
    models, devices, parts, loads = 250, 4, 6, 3
    shape = (models, devices, parts, loads)
    model, device, part, _ = (axis.ravel() for axis in np.indices(shape))
    errors = (
        truth[0] * rng.standard_normal((models, 1, 1, 1))
        + truth[1] * rng.standard_normal((models, devices, 1, 1))
        + truth[2] * rng.standard_normal(shape)
    ).ravel()
    names = (values.astype(str) for values in (model, device, np.char.add(model.astype(str), part.astype(str))))
    found = np.array(error_components(errors, *names))
    assert found**2 == pytest.approx(np.array(truth) ** 2, abs=0.015)


def test_one_part_a_model_says_nothing_about_what_is_shared() -> None:
    names = np.array(["a", "b", "c"])
    assert error_components(np.array([0.1, -0.1, 0.1]), names, np.full(3, "d"), names) == pytest.approx((0, 0, 0.1))


def test_all_parts_on_all_devices_are_predicted_as_one_by_one() -> None:
    known = measured()
    model = LatencyModel.fit(known.features, known.p50_ms, None, Hyperparameters(rounds=10, bags=1))
    parts = random_parts(5, seed=3)
    settings = [setting(100.0), setting(25.0, 50.0), Setting(device_gflops=1e9)]
    times, outside = predict_parts(model, parts, settings)
    assert times.shape == outside.shape == (5, 3)
    for number, where in enumerate(settings):
        assert times[:, number] == pytest.approx(model.mean_ms(rows(parts, where)))
    assert outside[:, 2].all()
