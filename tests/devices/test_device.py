"""Which cores and threads a device takes, what makes it itself, and its measured characteristics."""

import json
import os
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import composed

from pepper.caches import cache_folder
from pepper.config import DeviceConfig
from pepper.config.measuring import ThrottleMethod
from pepper.devices import calibration, host
from pepper.devices import calibration_checkup as calibration_checkup_module
from pepper.devices.calibration import calibrate
from pepper.devices.calibration_checkup import calibration_checkup
from pepper.devices.cores import CoresDevice, likeness, resolve
from pepper.devices.device import DeviceSpec
from pepper.devices.providers.cpu import memory_gbps
from pepper.devices.spells import Spell, Turns, measure_spells
from pepper.errors import ConfigError

pytestmark = pytest.mark.quiet

CORES = host.allowed_cores()


def device(**fields: object) -> DeviceSpec:
    return resolve(DeviceConfig(name="some", **fields))  # type: ignore[arg-type]


def test_defaults_are_all_cores_and_a_thread_each() -> None:
    spec = device()
    assert (spec.cores, spec.threads) == (tuple(CORES), len(CORES))


def test_threads_take_the_last_cores() -> None:
    assert device(threads=1).cores == (CORES[-1],)


def test_named_cores_are_taken_in_order() -> None:
    spec = device(cores=CORES[::-1], threads=1)
    assert (spec.cores, spec.threads) == (tuple(CORES), 1)


def test_too_much_is_refused() -> None:
    with pytest.raises(ConfigError, match=f"device.threads=999: .*at most {len(CORES)}"):
        device(threads=999)
    with pytest.raises(ConfigError, match="core 999 is not among"):
        device(cores=[CORES[0], 999])


def test_only_the_cores_that_this_process_may_use() -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {CORES[0]})
    try:
        assert device().cores == (CORES[0],)
        if len(CORES) > 1:
            with pytest.raises(ConfigError, match=f"core {CORES[1]} is not among"):
                device(cores=[CORES[1]])
    finally:
        os.sched_setaffinity(0, before)


def test_a_device_is_its_facts_and_not_its_name() -> None:
    spec = device()
    assert replace(spec, name="other").identity == spec.identity
    assert replace(spec, period_ms=99.0).identity != spec.identity
    assert replace(spec, threads=99).identity != spec.identity


def test_the_machine_is_part_of_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    here = device().identity
    monkeypatch.setattr(host, "machine_id", lambda: "another")
    assert device().identity != here


def test_an_unthrottled_device_has_no_throttle() -> None:
    with CoresDevice(device(threads=1)) as used:
        program = used.start("programs")
        program.request("cpu", timeout_s=10)
        program.confine()
        assert used.throttle_method == "none"


def test_the_machine_is_described() -> None:
    facts = host.cpu_facts()
    assert facts["cpu_model"]
    assert facts["cores"] >= len(CORES)
    assert facts["memory_bytes"] > 2**28
    state = host.state()
    assert state["affinity"] == CORES
    assert len(state["load_average"]) == 3
    json.dumps([facts, state])


@pytest.fixture(scope="module")
def calibrations(tmp_path_factory: pytest.TempPathFactory) -> dict[str, calibration.Calibration]:
    folder = tmp_path_factory.mktemp("calibrations")
    return {name: calibrate(resolve(composed(f"device={name}").device), folder) for name in ("share100", "share50")}


def test_a_calibration_is_measured(calibrations: dict[str, calibration.Calibration]) -> None:
    for found in calibrations.values():
        assert found.gflops_single > 0
        assert found.gflops == found.gflops_single, "one core, one thread"
        assert found.memory_gbps == found.memory_single_gbps
        assert found.memory_gbps > 0
        assert found.small_gflops is not None
        assert found.cache_gbps is not None
        assert min(found.small_gflops, found.cache_gbps) > 0
        assert found.cores == 1
        assert found.spells == calibration.SPELLS
        assert 0 <= found.spread_percent < 100
        assert found.cpu_model == host.cpu_facts()["cpu_model"]
    assert calibrations["share100"].throttle_method == "none"
    assert calibrations["share50"].throttle_method == "suspend"


def test_a_calibration_scales_with_the_share(calibrations: dict[str, calibration.Calibration]) -> None:
    free, half = calibrations["share100"], calibrations["share50"]
    # Other work on this machine takes its part of either: hence the wide bounds.
    assert 0.9 * 0.5 * free.share <= half.share <= 1.1 * 0.5
    assert free.share <= 1.05
    assert half.gflops_single / free.gflops_single == pytest.approx(0.5, rel=0.4)
    assert half.memory_gbps / free.memory_gbps == pytest.approx(0.5, rel=0.5)


@pytest.mark.skipif(len(CORES) < 2, reason="a device of several cores needs as many")
def test_all_threads_of_a_device_copy_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    together, copy = threading.Barrier(2), np.copyto

    def meet(target: Any, source: Any) -> None:
        together.wait(timeout=30)  # broken if one has to end before the other begins
        copy(target, source)

    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setattr(np, "copyto", meet)
    assert memory_gbps(0.01) > 0


@pytest.mark.skipif(len(CORES) < 2, reason="a device of several cores needs as many")
def test_a_device_of_several_cores_has_speeds_of_one_and_of_all() -> None:
    (spell,), _ = measure_spells(device(threads=2), 1)
    assert spell.gflops >= spell.gflops_single > 0
    assert spell.memory_gbps >= spell.memory_single_gbps > 0


def kept(found: calibration.Calibration) -> calibration.CalibrationRecord:
    spell = Spell(1.0, found.share, *[getattr(found, name) for name in SPEEDS])
    return calibration.CalibrationRecord(found, [spell], [])


SPEEDS = ("gflops_single", "gflops", "memory_single_gbps", "memory_gbps")


def test_a_calibration_is_measured_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calibrations: dict[str, calibration.Calibration]
) -> None:
    measured = []

    def measure(spec: DeviceSpec) -> calibration.CalibrationRecord:
        measured.append(spec.identity)
        return kept(calibrations["share100"])

    monkeypatch.setattr(calibration, "measure", measure)
    spec = device(threads=1)
    assert calibrate(spec, tmp_path) == calibrate(spec, tmp_path) == calibrations["share100"]
    calibrate(replace(spec, name="other", kind="emulated"), tmp_path)
    assert len(measured) == 1
    calibrate(replace(spec, share=0.5, kind="emulated"), tmp_path)
    assert len(measured) == 2


def test_devices_of_the_same_hardware_share_a_calibration() -> None:
    whole = device(threads=1)
    assert likeness(whole) == likeness(replace(whole, kind="emulated", throttle=ThrottleMethod.cgroup, period_ms=10.0))
    assert likeness(whole) != likeness(replace(whole, kind="a board")), "one that was added may be anything"
    half = replace(whole, kind="emulated", share=0.5)
    assert likeness(half) != likeness(whole)
    assert likeness(half) != likeness(replace(half, period_ms=10.0)), "other turns, other figures"


def test_a_calibration_is_looked_at_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow moment does not stay for ever; a device that has become slower is measured anew; a passing one is not."""
    spec = device(threads=1)
    speeds = iter([10, 10, 10, *[20], *[16, 19, 18], *[15, 16, 14], *[17]])
    asked: list[int] = []

    def measure_spells(spec: DeviceSpec, count: int) -> tuple[list[Spell], Turns]:
        asked.append(count)
        return [Spell(0.0, 1.0, *[float(next(speeds))] * 4) for _ in range(count)], Turns("none", None, 4.0)

    monkeypatch.setattr(calibration, "measure_spells", measure_spells)
    seen = [calibrate(spec, tmp_path, renew=True) for _ in range(5)]
    assert [each.gflops for each in seen] == [10, 20, 20, 16, 17]
    assert asked == [3, 1, 1, 2, 1, 2, 1]
    assert [each.spells for each in seen] == [3, 4, 7, 3, 4]
    assert seen[2].spread_percent == pytest.approx(100 * (1 - 16 / 20))
    found = calibration.known(replace(spec, memory_bytes=2**30), tmp_path)
    assert found is not None
    assert found.calibration == seen[-1] == calibrate(spec, tmp_path)
    assert found.earlier == [seen[2]]


def test_a_calibration_is_not_looked_at_again_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spell = Spell(time.time(), 1.0, 1.0, 1.0, 1.0, 1.0)
    monkeypatch.setattr(calibration, "measure_spells", lambda spec, count: ([spell] * count, Turns("none", None, 4.0)))
    first = calibrate(device(threads=1), tmp_path, renew=True)
    monkeypatch.setattr(calibration, "measure_spells", None)
    assert calibrate(device(threads=1), tmp_path, renew=True) == first


def test_only_the_newest_spells_count_and_not_all_calibrations_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def at(speed: float) -> calibration.CalibrationRecord:
        monkeypatch.setattr(
            calibration,
            "measure_spells",
            lambda spec, count: ([Spell(0.0, 1.0, *[speed] * 4)] * count, Turns("none", None, 4.0)),
        )
        calibrate(device(threads=1), tmp_path, renew=True)
        found = calibration.known(device(threads=1), tmp_path)
        assert found is not None
        return found

    for _ in range(calibration.MOST_SPELLS + 2):
        found = at(1000.0)
    assert len(found.spells) == found.calibration.spells == calibration.MOST_SPELLS
    for turn in range(calibration.MOST_EARLIER + 2):
        found = at(1000.0 / 2 ** (turn + 1))
    assert len(found.earlier) == calibration.MOST_EARLIER


@pytest.mark.parametrize(
    ("odd", "level", "said"),
    [
        ({}, "OK", "best of 3"),
        ({"spread_percent": 40.0}, "WARN", "the machine is not steady"),
        ({"share": 0.7}, "WARN", "a busy loop got 0.70 of a core"),
        ({"gflops": 8.0, "gflops_single": 8.0}, "WARN", "an earlier one had 10 GFLOP/s"),
    ],
    ids=str,
)
def test_what_is_odd_about_a_calibration_is_found(
    odd: dict[str, float],
    level: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    calibrations: dict[str, calibration.Calibration],
) -> None:
    config = composed("device=share100").device
    assert "none yet" in calibration_checkup(config, tmp_path).found
    usual = replace(calibrations["share100"], gflops=10.0, gflops_single=10.0, share=1.0, spread_percent=3.0)
    found = kept(replace(usual, **odd))
    monkeypatch.setattr(calibration, "measure", lambda spec: replace(found, earlier=[usual]))
    calibrate(resolve(config), tmp_path)
    shown = calibration_checkup(config, tmp_path)
    assert shown.level == level
    assert said in shown.found
    assert "GB/s" in shown.found


def test_cores_that_slow_each_other_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calibrations: dict[str, calibration.Calibration]
) -> None:
    found = replace(calibrations["share100"], cores=2, gflops=11.0, gflops_single=10.0, share=1.0, spread_percent=3.0)
    monkeypatch.setattr(calibration, "measure", lambda spec: kept(found))
    config = replace(composed().device, cores=None, threads=2)
    monkeypatch.setattr(calibration_checkup_module, "resolve", lambda config: replace(device(threads=1), threads=2))
    calibrate(replace(device(threads=1), threads=2), tmp_path)
    assert "its cores do 1.1 times what one does" in calibration_checkup(config, tmp_path).found


def test_a_device_that_is_not_here_is_said(tmp_path: Path) -> None:
    shown = calibration_checkup(replace(composed().device, cores=[4711]), tmp_path)
    assert (shown.level, "4711" in f"{shown.found} {shown.fix}") == ("WARN", True)


@pytest.mark.parametrize(
    "wrong",
    [
        {"gflops": 0.0},
        {"gflops_single": float("nan")},
        {"memory_gbps": float("inf")},
        {"share": "half"},
        {"cores": True},
        {"l2_bytes": -1},
        {"instruction_sets": None},
        {"cpu_model": 3},
        {"cache_gbps": 0.0},
        {"spread_percent": -1.0},
    ],
    ids=str,
)
def test_a_calibration_that_nothing_can_have_measured_is_measured_again(
    wrong: dict[str, object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    calibrations: dict[str, calibration.Calibration],
) -> None:
    found = calibrations["share100"]
    monkeypatch.setattr(calibration, "measure", lambda spec: kept(found))
    spec = device(threads=1)
    calibrate(spec, tmp_path)
    (file,) = tmp_path.iterdir()
    document = json.loads(file.read_text())
    for damaged in (
        {**document, "calibration": {**document["calibration"], **wrong}},
        {**document, "earlier": [{**document["calibration"], **wrong}]},
    ):
        file.write_text(json.dumps(damaged))
        assert calibrate(spec, tmp_path) == found
        assert json.loads(file.read_text())["calibration"]["gflops"] == found.gflops


def test_cores_that_nothing_tells_apart_share_a_calibration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calibrations: dict[str, calibration.Calibration]
) -> None:
    """Cores 0 and 1 are threads of one physical core; 2 and 3 have one each; 4 is slower."""
    machine = tmp_path / "cpu"
    for core, (physical, capacity) in enumerate([("0-1", 1024), ("0-1", 1024), ("2", 1024), ("3", 1024), ("4", 400)]):
        (machine / f"cpu{core}/topology").mkdir(parents=True)
        (machine / f"cpu{core}/topology/core_cpus_list").write_text(physical)
        (machine / f"cpu{core}/cpu_capacity").write_text(f"{capacity}\n")
    monkeypatch.setattr(host, "CPU", machine)
    measured = []

    def measure(spec: DeviceSpec) -> calibration.CalibrationRecord:
        measured.append(spec.cores)
        return kept(calibrations["share100"])

    monkeypatch.setattr(calibration, "measure", measure)
    (tmp_path / "cache").mkdir()
    for cores in [(0,), (1,), (2,), (4,), (0, 1), (2, 3), (0, 3), (3, 2), (3, 4)]:
        calibrate(replace(device(threads=1), cores=cores), tmp_path / "cache")
    assert measured == [(0,), (4,), (0, 1), (2, 3), (3, 4)]


def test_a_damaged_cache_is_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calibrations: dict[str, calibration.Calibration]
) -> None:
    monkeypatch.setattr(calibration, "measure", lambda spec: kept(calibrations["share100"]))
    spec = device(threads=1)
    calibrate(spec, tmp_path)
    (file,) = tmp_path.iterdir()
    whole = json.loads(file.read_text())
    wrong: list[dict[str, object]] = [
        {"spells": []},
        {"spells": [{**whole["spells"][0], "share": 9.0}]},
        {"spells": [{**whole["spells"][0], "gflops": -1.0}]},
        {"spells": [{**whole["spells"][0], "runtime": [1.0]}]},
        {"earlier": 3},
    ]
    for text in ("", "{", "[]", '{"gflops": 1}', *(json.dumps({**whole, **part}) for part in wrong)):
        file.write_text(text)
        assert calibrate(spec, tmp_path) == calibrations["share100"]


def test_the_cache_follows_the_users_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/some/cache")
    assert cache_folder("calibration") == Path("/some/cache/pepper/calibration")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder("calibration") == Path.home() / ".cache/pepper/calibration"
