"""Which cores and threads a device takes, what makes it itself, and its measured characteristics."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from harness import composed

from pepper.caches import cache_folder
from pepper.config import DeviceConfig
from pepper.devices import calibration, host
from pepper.devices.calibration import calibrate
from pepper.devices.cores import CoresDevice, resolve
from pepper.devices.device import DeviceSpec
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
        assert found.memory_gbps > 0
        assert found.cores == 1
        assert found.cpu_model == host.cpu_facts()["cpu_model"]
    assert calibrations["share100"].throttle_method == "none"
    assert calibrations["share50"].throttle_method == "suspend"


def test_a_calibration_scales_with_the_share(calibrations: dict[str, calibration.Calibration]) -> None:
    free, half = calibrations["share100"], calibrations["share50"]
    # Other work on this machine takes its part of either: hence the wide bounds.
    assert 0.9 * 0.5 * free.share <= half.share <= 1.1 * 0.5
    assert free.share <= 1.05
    assert half.gflops_single / free.gflops_single == pytest.approx(0.5, rel=0.4)
    assert half.memory_gbps / free.memory_gbps == pytest.approx(0.5, rel=0.4)


def test_a_calibration_is_measured_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calibrations: dict[str, calibration.Calibration]
) -> None:
    measured = []

    def measure(spec: DeviceSpec) -> calibration.Calibration:
        measured.append(spec.identity)
        return calibrations["share100"]

    monkeypatch.setattr(calibration, "measure", measure)
    spec = device(threads=1)
    assert calibrate(spec, tmp_path) == calibrate(spec, tmp_path) == calibrations["share100"]
    calibrate(replace(spec, name="other"), tmp_path)
    assert len(measured) == 1
    calibrate(replace(spec, share=0.5, kind="emulated"), tmp_path)
    assert len(measured) == 2


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
    monkeypatch.setattr(calibration, "measure", lambda spec: found)
    spec = device(threads=1)
    calibrate(spec, tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_text(json.dumps({**json.loads(file.read_text()), **wrong}))
    assert calibrate(spec, tmp_path) == found
    assert json.loads(file.read_text())["gflops"] == found.gflops


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

    def measure(spec: DeviceSpec) -> calibration.Calibration:
        measured.append(spec.cores)
        return calibrations["share100"]

    monkeypatch.setattr(calibration, "measure", measure)
    (tmp_path / "cache").mkdir()
    for cores in [(0,), (1,), (2,), (4,), (0, 1), (2, 3), (0, 3), (3, 2), (3, 4)]:
        calibrate(replace(device(threads=1), cores=cores), tmp_path / "cache")
    assert measured == [(0,), (4,), (0, 1), (2, 3), (3, 4)]


def test_a_damaged_cache_is_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calibrations: dict[str, calibration.Calibration]
) -> None:
    monkeypatch.setattr(calibration, "measure", lambda spec: calibrations["share100"])
    spec = device(threads=1)
    calibrate(spec, tmp_path)
    (file,) = tmp_path.iterdir()
    for text in ("", "{", "[]", '{"gflops": 1}'):
        file.write_text(text)
        assert calibrate(spec, tmp_path) == calibrations["share100"]


def test_the_cache_follows_the_users_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/some/cache")
    assert cache_folder("calibration") == Path("/some/cache/pepper/calibration")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder("calibration") == Path.home() / ".cache/pepper/calibration"
