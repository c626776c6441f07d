"""What hurts measurement is found, on machines made of files and on this one."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from harness import Desk

from pepper.devices import checkup, host, runtimes
from pepper.devices.checkup import OK, WARN
from pepper.devices.providers.choice import Choice
from pepper.errors import MeasureError


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{text}\n")


@pytest.mark.parametrize(
    ("file", "text", "level"),
    [
        ("intel_pstate/no_turbo", "0", WARN),
        ("intel_pstate/no_turbo", "1", OK),
        ("cpufreq/boost", "1", WARN),
        ("cpufreq/boost", "0", OK),
        ("elsewhere", "1", OK),
    ],
)
def test_turbo(tmp_path: Path, file: str, text: str, level: str) -> None:
    write(tmp_path / file, text)
    found = checkup.turbo(tmp_path)
    assert found.level == level
    if level == WARN:
        assert str(tmp_path / file) in found.fix


@pytest.mark.parametrize(("governors", "level"), [(["powersave"], WARN), (["performance"], OK), (["unknown"], OK)])
def test_governor(monkeypatch: pytest.MonkeyPatch, governors: list[str], level: str) -> None:
    monkeypatch.setattr(host, "state", lambda: {"governor": governors})
    assert checkup.governor().level == level


@pytest.mark.parametrize(("count", "degrees", "level"), [(0, [40.0], OK), (3, [40.0], WARN), (0, [95.0], WARN)])
def test_heat(monkeypatch: pytest.MonkeyPatch, count: int, degrees: list[float], level: str) -> None:
    monkeypatch.setattr(host, "state", lambda: {"throttle_count": count, "temperature_c": {"cpu": degrees}})
    assert checkup.heat().level == level


@pytest.mark.parametrize(("lists", "level"), [(["0", "1"], OK), (["0-1", "0-1"], WARN), (["0,4", "1,5"], WARN)])
def test_siblings(tmp_path: Path, lists: list[str], level: str) -> None:
    for core, text in enumerate(lists):
        write(tmp_path / f"cpu{core}/topology/thread_siblings_list", text)
    assert checkup.siblings([0, 1], tmp_path).level == level


def test_control_groups_that_cannot_be_written(tmp_path: Path) -> None:
    found = checkup.cgroups(tmp_path)
    assert found.level == WARN
    assert "device.throttle=cgroup" in found.fix


@pytest.mark.parametrize(("source", "level"), [("tsc", OK), ("hpet", WARN)])
def test_clock(tmp_path: Path, source: str, level: str) -> None:
    write(tmp_path / "clocksource/clocksource0/current_clocksource", source)
    assert checkup.clock(tmp_path / "cpu").level == level


def test_one_core_is_few() -> None:
    assert checkup.affinity([0]).level == WARN
    assert checkup.affinity([0, 1]).level == OK


def test_the_priority_is_as_before() -> None:
    before = os.sched_getscheduler(0)
    checkup.realtime()
    assert os.sched_getscheduler(0) == before


def test_a_neighbour_is_named() -> None:
    """A busy loop on one core: the one that uses most is named, which is it unless something else does as much."""
    core = host.allowed_cores()[-1]
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        psutil.Process(busy.pid).cpu_affinity([core])
        work, _ = checkup.neighbours([core], 0.5)
        busy.kill()
    assert work.level == WARN
    assert "pid" in work.found


def test_the_task_lists_everything(desk: Desk) -> None:
    done = desk("task=doctor")
    assert done.status == 0, done.out
    for what in (
        "governor",
        "turbo",
        "SMT",
        "real-time",
        "steal",
        "memory",
        "packages",
        "disk",
        "tracking store",
        "xgboost",
    ):
        assert what in done.out


def test_each_provider_is_given_a_small_model() -> None:
    assert runtimes.first_run_ms(Choice()) > 0
    with pytest.raises(MeasureError, match="AzureExecutionProvider took no operator"):
        runtimes.first_run_ms(Choice("AzureExecutionProvider"))


def test_a_store_that_is_away_is_a_failure(desk: Desk) -> None:
    done = desk("task=doctor", "tracking.uri=http://127.0.0.1:9", "tracking.timeout_seconds=1")
    assert done.status == 1
    (line,) = [line for line in done.out.splitlines() if line.startswith("FAIL")]
    assert "127.0.0.1:9" in line
    assert "fix: check it or set tracking.uri" in line
