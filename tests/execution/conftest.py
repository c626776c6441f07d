from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from harness import alive
from ladders import Bench

from pepper.config import SessionConfig
from pepper.devices.cores import CoresDevice
from pepper.execution.pipeline import Network
from pepper.execution.pool import StagePool
from pepper.hosts.local import LocalHost


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"))


@pytest.fixture(scope="module")
def pool(bench: Bench) -> Iterator[StagePool]:
    """Stages for a module's tests; what one test loses is back for the next."""
    with pytest.MonkeyPatch.context() as patch:
        # One core may have to do for all: these tests are about who gets what, not about when.
        patch.setattr(LocalHost, "devices", lambda self, specs: [CoresDevice(spec) for spec in specs])
        before = set(psutil.Process().children())
        with StagePool(bench.fleet, SessionConfig(), 60.0) as made:
            yield made
        assert alive(list(set(psutil.Process().children()) - before)) == []


@pytest.fixture
def network(bench: Bench, tmp_path: Path, pool: StagePool) -> Iterator[Network]:
    pool.lost.clear()
    made = bench.network(tmp_path)
    yield made
    made.close()
