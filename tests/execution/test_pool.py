"""Stages come and go; none is left behind, and no number of a dead one is kept among those that get signals."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from harness import alive
from ladders import Bench

from pepper.config import LoadConfig
from pepper.devices.cores import CoresDevice
from pepper.execution.pool import StageLost, StagePool


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """The processes that are held to their devices' shares."""
    pids: set[int] = set()

    def noting(method: Callable[..., None], note: Callable[[int], None]) -> Callable[..., None]:
        def noted(device: CoresDevice, pid: int, *more: object) -> None:
            method(device, pid, *more)
            note(pid)

        return noted

    monkeypatch.setattr(CoresDevice, "confine", noting(CoresDevice.confine, pids.add))
    monkeypatch.setattr(CoresDevice, "pause", noting(CoresDevice.pause, pids.discard))
    return pids


def test_a_part_that_cannot_be_opened_leaves_nothing_behind(
    bench: Bench, pool: StagePool, held: set[int], tmp_path: Path
) -> None:
    file = tmp_path / "broken.onnx"
    file.write_bytes(b"no model")
    layout = bench.layout("a")
    broken = replace(layout, parts=(replace(layout.parts[0], file=file, sha256="broken"),))
    before = set(psutil.Process().children())
    with pytest.raises(StageLost, match=r"a: .*broken\.onnx"):
        pool.stages(broken)
    assert alive(list(set(psutil.Process().children()) - before)) == []
    assert held == set()


def test_a_dead_idle_stage_is_forgotten(bench: Bench, pool: StagePool, held: set[int]) -> None:
    (first,) = pool.stages(bench.layout("c"))
    first.program.kill()
    held.add(first.program.pid)  # as it was when it started, in whatever test
    (second,) = pool.stages(bench.layout("c"))
    assert second.program.pid != first.program.pid
    assert held == {second.program.pid}


def test_a_load_is_put_by_one_thread_at_a_time(pool: StagePool, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    class Recorder:
        def set(self, load: LoadConfig) -> None:
            seen.append((load.percent, pool._lock._is_owned()))

    monkeypatch.setitem(pool._loads, "a", Recorder())
    pool.put("a", LoadConfig(percent=30))
    assert seen == [(30, True)]
