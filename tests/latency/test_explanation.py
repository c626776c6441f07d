from dataclasses import asdict, replace

import numpy as np
import pytest

from pepper.latency.adaptation import Adaptation
from pepper.latency.explanation import explain
from pepper.latency.features import COLUMN
from pepper.latency.model import Hyperparameters, LatencyModel
from tests.latency.measured import measured

KNOWN = measured(models=10)


@pytest.fixture(scope="module")
def champion() -> LatencyModel:
    return LatencyModel.fit(KNOWN.features, KNOWN.p50_ms, KNOWN.p95_ms, Hyperparameters(rounds=30))


def test_the_parts_add_up_to_the_prediction(champion: LatencyModel) -> None:
    of = KNOWN.take((KNOWN.device == "slow") & (KNOWN.load == "idle"))
    adapted = champion.adapted(
        Adaptation.fit(of.features, 2 * of.p50_ms / champion.p50_ms(of.features), champion.roofline)
    )
    for model in (champion, adapted):
        for row in range(0, len(KNOWN), 7):
            features = KNOWN.features[[row]]
            said = explain(model, features)
            assert said is not None
            parts = asdict(said)
            assert parts.pop("p50_ms") == pytest.approx(model.p50_ms(features)[0])
            assert sum(parts.values()) == pytest.approx(said.p50_ms)
    said = explain(adapted, of.features[[0]])
    assert said is not None
    assert said.adaptation_ms > 0.5 * (said.p50_ms - said.adaptation_ms)


def test_a_neighbour_makes_it_wait_and_an_accelerator_move(champion: LatencyModel) -> None:
    idle, loaded = (KNOWN.features[KNOWN.load == load][[0]] for load in ("idle", "cpu50"))
    for features, waits in ((idle, False), (loaded, True)):
        said = explain(champion, features)
        assert said is not None
        assert (said.waiting_ms > 0.05 * said.p50_ms) == waits
        assert said.transfer_ms == 0
    moved = idle.copy()
    for name in ("gflops", "memory_gbps", "in_gbps", "out_gbps"):
        moved[0, COLUMN[f"device_runtime_{name}"]] = 100.0
    moved[0, COLUMN["device_runtime_in_gbps"]] = 1e-3
    assert champion.roofline is not None
    factors = np.ones_like(champion.roofline.factors)
    said = explain(replace(champion, roofline=replace(champion.roofline, factors=factors)), moved)
    assert said is not None
    assert said.transfer_ms == pytest.approx(idle[0, COLUMN["input_bytes"]] / 1e-3 / 1e6, rel=0.01)


def test_without_an_estimate_there_is_nothing_to_explain() -> None:
    constant = LatencyModel.fit(KNOWN.features, KNOWN.p50_ms, None, Hyperparameters(rounds=5, base="constant"))
    assert explain(constant, KNOWN.features[[0]]) is None
