import numpy as np
import pandas as pd
import pytest

from pepper.errors import LatencyError
from pepper.graph.characteristics import FEATURES
from pepper.latency import description
from pepper.latency.features import Values
from pepper.latency.model import Hyperparameters, LatencyModel
from pepper.planning import absent
from tests.latency.measured import measured, random_parts

KNOWN = measured(models=10)
PARTS = random_parts(60, seed=7)


@pytest.fixture(scope="module")
def champion() -> LatencyModel:
    return LatencyModel.fit(KNOWN.features, KNOWN.p50_ms, KNOWN.p95_ms, Hyperparameters(rounds=30))


def odd_ms(parts: Values) -> Values:
    """A runtime with kernels that are five times as slow for large operators, as no estimate has it."""
    macs, operators = (parts[:, FEATURES.index(name)] for name in ("macs", "operators"))
    return np.asarray(5 + macs / 1e7 * np.where(macs / operators > 3e6, 5, 1))


def imported(device: str, parts: Values, latency_ms: Values, load: str = "idle") -> pd.DataFrame:
    return pd.DataFrame(
        {
            "status": "FINISHED",
            "verdict": "VALID",
            "params.device": device,
            "params.load": load,
            "params.imported_from": "rows.csv:2",
            "params.characteristics": [description.encode(part) for part in parts],
            "metrics.latency_p50_ms": latency_ms,
        }
    )


def error(learned: absent.AbsentDevice) -> float:
    asked = PARTS[50:]
    return float(np.median(np.abs(learned.predict(asked).p50_ms / (3 * odd_ms(asked)) - 1)))


def test_a_device_of_which_much_was_imported_teaches_another_one(champion: LatencyModel) -> None:
    few = imported("phone", PARTS[40:50], 3 * odd_ms(PARTS[40:50]))
    alone = absent.learn("phone", few, champion, KNOWN)
    many = pd.concat([few, imported("tablet", PARTS[:40], odd_ms(PARTS[:40]))], ignore_index=True)
    assert error(absent.learn("phone", many, champion, KNOWN)) < 0.9 * error(alone)


def test_loaded_latencies_do_not_count_and_too_few_are_refused(champion: LatencyModel) -> None:
    idle = imported("phone", PARTS[:5], odd_ms(PARTS[:5]))
    loaded = imported("phone", PARTS[5:10], 2 * odd_ms(PARTS[5:10]), load="cpu50")
    logged = pd.concat([idle, loaded], ignore_index=True)
    assert len(absent.learn("phone", logged, champion, KNOWN).latency_ms) == 5
    with pytest.raises(LatencyError, match="phone: 0 idle latencies"):
        absent.learn("phone", loaded, champion, KNOWN)
    with pytest.raises(LatencyError, match="did you mean 'phone'"):
        absent.learn("phones", logged, champion, KNOWN)
    with pytest.raises(LatencyError, match="no measurement from elsewhere was imported"):
        absent.learn("phone", logged.drop(columns="params.imported_from"), champion, KNOWN)
