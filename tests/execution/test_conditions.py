"""A run that was disturbed says so."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from harness import undisturbed
from ladders import Bench

from pepper.config import DeviceConfig, LimitsConfig, SessionConfig
from pepper.devices import host
from pepper.execution.conditions import Condition, ConditionMeter
from pepper.execution.pool import IDLE, StagePool
from pepper.execution.runner import Runner
from pepper.execution.trials import saturated
from pepper.fleet import Fleet, FleetDevice, Link, everywhere

CORE = host.allowed_cores()[-1]
SHARE = 0.4


@pytest.fixture
def foreign() -> Iterator[None]:
    """A program on the devices' core that this process has not started."""
    spin = f"import os; os.sched_setaffinity(0, [{CORE}])\nwhile True: pass"
    starter = (
        "import subprocess, sys\n"
        f"print(subprocess.Popen([sys.executable, '-c', {spin!r}], stdout=subprocess.DEVNULL).pid)"
    )
    pid = int(subprocess.run([sys.executable, "-c", starter], stdout=subprocess.PIPE, text=True, check=True).stdout)
    yield
    psutil.Process(pid).kill()


def conditions(bench: Bench, folder: Path) -> list[Condition]:
    """Run a stream on two devices that share a core."""
    devices = {
        name: FleetDevice(DeviceConfig(name=name, kind="emulated", cores=[CORE], threads=1, share=SHARE), IDLE)
        for name in "ab"
    }
    fleet = Fleet(devices, everywhere("ab", Link(1000, 0.1)), "a", "a")
    with (
        StagePool(fleet, SessionConfig(), 60.0) as pool,
        closing(bench.network(folder, fleet=fleet)) as network,
        Runner(pool, network, bench.layout("a", "b"), time_limit_s=20) as runner,
    ):
        meter = ConditionMeter(pool)
        saturated(runner, bench.samples, 1.0, 10)
        return meter.read(runner.layout.devices)


@pytest.mark.slow
@pytest.mark.quiet
def test_devices_that_nobody_disturbs_are_sound(bench: Bench, tmp_path: Path) -> None:
    runs = iter(range(100))

    def faults() -> int:
        folder = tmp_path / str(next(runs))
        folder.mkdir()
        found = conditions(bench, folder)
        assert [condition.device for condition in found] == ["a", "b"]
        return sum(len(list(condition.faults(LimitsConfig()))) for condition in found)

    assert undisturbed(faults, 0) == 0


@pytest.mark.slow
@pytest.mark.quiet
@pytest.mark.usefixtures("foreign")
def test_a_program_beside_the_run_is_found(bench: Bench, tmp_path: Path) -> None:
    for condition in conditions(bench, tmp_path):
        assert condition.foreign_percent > 10
        assert any(line.startswith("noisy neighbour: ") for line in condition.faults(LimitsConfig()))


def test_a_missed_share_is_named() -> None:
    limits = LimitsConfig()
    assert list(Condition("camera", 0.25, 0.26, 0.0).faults(limits)) == []
    assert list(Condition("server", 1.0, None, 0.0).faults(limits)) == []
    (fault,) = Condition("camera", 0.25, 0.2, 0.0).faults(limits)
    assert fault == "share missed: camera gave 0.200 of its cores, asked for 0.25 (limit 10 %)"
