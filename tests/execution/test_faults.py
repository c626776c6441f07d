"""Seeded harm to a real model's pipelines: no request is lost, none answered twice, no process left behind."""

from collections.abc import Iterator

import psutil
import pytest
from harness import alive

from benchmarks.faults import FAULTS, Rig, on_cores, run
from pepper.devices import host
from pepper.execution.pool import StagePool

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(len(host.allowed_cores()) < 2, reason="two devices need two cores"),
]


@pytest.fixture(scope="module", params=[1.0, 0.4], ids=["whole cores", "shares"])
def rig(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Rig:
    return Rig("squeezenet", tmp_path_factory.mktemp("rig"), on_cores(request.param))


@pytest.fixture(scope="module")
def rig_pool(rig: Rig) -> Iterator[StagePool]:
    before = set(psutil.Process().children())
    with rig.pool() as pool:
        yield pool
    assert alive(list(set(psutil.Process().children()) - before)) == []


@pytest.mark.parametrize("seed", range(10))
def test_each_request_has_one_answer(rig: Rig, rig_pool: StagePool, seed: int) -> None:
    outcome = run(rig, rig_pool, seed)
    assert outcome.broken == [], f"seed {seed}: {outcome.faults}"
    assert set(outcome.faults) <= set(FAULTS)
