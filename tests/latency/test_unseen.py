from collections.abc import Callable

import numpy as np
import pytest

from pepper.errors import LatencyError
from pepper.latency.evaluation import scores
from pepper.latency.features import COLUMN, Setting, Values, rows
from pepper.latency.unseen import Behaviour, Kin, UnseenDevice
from tests.latency.measured import random_parts

MODELS = rows(random_parts(200, seed=3), Setting())
CHOSEN, REST = np.arange(10), np.arange(10, 200)


def device(macs: float, moved: float, operator: float) -> Behaviour:
    """A device that takes so many ms for 1e9 MACs, 1e9 bytes and an operator."""

    def behaviour(features: Values) -> Values:
        columns = [features[:, COLUMN[name]] for name in ("macs", "bytes_activation", "operators")]
        return np.asarray(columns[0] * macs / 1e9 + columns[1] * moved / 1e9 + columns[2] * operator)

    return behaviour


KNOWN = [device(100, 300, 0.02), device(30, 200, 0.05), device(20, 400, 0.01)]


def learned(there: Behaviour, spoil: Callable[[Values], Values] = lambda ms: ms) -> UnseenDevice:
    return UnseenDevice.fit([Kin(KNOWN, MODELS)], [MODELS[CHOSEN]], spoil(there(MODELS[CHOSEN])))


def error(found: UnseenDevice, there: Behaviour) -> float:
    return scores(there(MODELS[REST]), found.predict([MODELS[REST]]).p50_ms)["median_error"]


def test_a_device_like_the_known_ones_is_learned_at_whatever_level() -> None:
    there = device(700, 2500, 0.3)
    assert error(learned(there), there) < 0.03


def test_so_is_one_that_spends_its_time_as_none_of_them_does() -> None:
    there = device(20, 5000, 0.02)
    best = min(
        scores(there(MODELS[REST]), known(MODELS[REST]) * np.median(there(MODELS) / known(MODELS)))["median_error"]
        for known in KNOWN
    )
    assert error(learned(there), there) < best / 2


def test_a_wild_latency_does_not_count_much() -> None:
    def spoil(latency_ms: Values) -> Values:
        latency_ms[3] *= 20
        return latency_ms

    there = device(60, 250, 0.03)
    assert error(learned(there, spoil), there) < 0.1


def test_intervals_hold_and_widen_where_latencies_contradict_each_other() -> None:
    there = device(60, 250, 0.03)
    noise = np.exp(0.05 * np.random.default_rng(0).standard_normal(len(MODELS)))
    measured_ms = there(MODELS) * noise
    calm = UnseenDevice.fit([Kin(KNOWN, MODELS)], [MODELS[CHOSEN]], measured_ms[CHOSEN]).predict([MODELS[REST]])
    inside = (calm.low_ms <= measured_ms[REST]) & (measured_ms[REST] <= calm.high_ms)
    assert inside.mean() > 0.8
    wild_ms = measured_ms[CHOSEN] * np.exp(np.random.default_rng(1).standard_normal(len(CHOSEN)))
    wild = UnseenDevice.fit([Kin(KNOWN, MODELS)], [MODELS[CHOSEN]], wild_ms).predict([MODELS[REST]])
    assert np.median(wild.high_ms / wild.low_ms) > 1.5 * np.median(calm.high_ms / calm.low_ms)


def test_the_latencies_tell_how_the_models_run_there() -> None:
    fewer = MODELS.copy()
    kept = np.random.default_rng(0).uniform(0.2, 1, (len(MODELS), 1))
    names = ("macs", "macs_conv_dense_k3", "bytes_activation", "operators", "operators_rectifier")
    fewer[:, [COLUMN[name] for name in names]] *= kept
    there = device(60, 250, 0.03)
    ways = [MODELS, fewer]
    kin = [Kin(KNOWN, way) for way in ways]
    for way in (0, 1):
        found = UnseenDevice.fit(kin, [each[CHOSEN] for each in ways], there(ways[way][CHOSEN]))
        assert found.ways()[way] > 0.9
        predicted = found.predict([each[REST] for each in ways]).p50_ms
        assert scores(there(ways[way][REST]), predicted)["median_error"] < 0.03


def test_too_few_latencies_or_none_that_is_a_time_are_refused() -> None:
    kin = [Kin(KNOWN, MODELS)]
    with pytest.raises(LatencyError, match="2 latencies to learn a device from; at least 3"):
        UnseenDevice.fit(kin, [MODELS[:2]], np.ones(2))
    with pytest.raises(LatencyError, match="above 0"):
        UnseenDevice.fit(kin, [MODELS[:3]], np.array([1.0, 0.0, 2.0]))
    with pytest.raises(LatencyError, match="no known device"):
        Kin([], MODELS)
