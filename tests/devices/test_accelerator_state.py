"""What a GPU's management library and energy meters tell, by a library that behaves as NVIDIA's does."""

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from harness import QUICK, composed, lasting

from pepper.config import LoadConfig
from pepper.devices import energy
from pepper.devices.cores import resolve
from pepper.devices.nvidia import gpu_state
from pepper.graph.model import find_model
from pepper.measure.launcher import Bench

WATTS = 250
_numbers = count()


@pytest.fixture
def uuid() -> str:
    """A GPU of its own for each test: meters are looked for once."""
    return f"GPU-{next(_numbers)}"


class Library(ModuleType):
    """Works after nvmlInit only, knows one GPU, and refuses what this GPU does not tell with its own exception."""

    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0

    class NVMLError(Exception):
        pass

    def __init__(self, uuid: str, untold: tuple[str, ...] = (), held: int = 0x01) -> None:
        super().__init__("pynvml")
        self._uuid, self._untold, self._held, self._up = uuid, untold, held, False

    def nvmlInit(self) -> None:  # noqa: N802
        self._up = True

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> object:  # noqa: N802
        if not self._up or uuid != self._uuid:
            raise self.NVMLError
        return self

    def __getattr__(self, name: str) -> Any:
        told = {
            "nvmlDeviceGetName": b"NVIDIA L4",
            "nvmlSystemGetDriverVersion": "570.86.15",
            "nvmlDeviceGetClockInfo": 2040,
            "nvmlDeviceGetTemperature": 51,
            "nvmlDeviceGetPowerUsage": 1000 * WATTS,
            "nvmlDeviceGetMemoryInfo": SimpleNamespace(used=2**30, total=2**34),
            "nvmlDeviceGetCurrentClocksThrottleReasons": self.__dict__["_held"],
            "nvmlDeviceGetTotalEnergyConsumption": int(1e6 * WATTS * time.perf_counter() / 1000),
        }

        def ask(*_: Any) -> Any:
            if name in self._untold or not self._up:
                raise self.NVMLError
            return told[name]

        if name not in told:
            raise AttributeError(name)
        return ask


def install(monkeypatch: pytest.MonkeyPatch, uuid: str, **behaviour: Any) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Library(uuid, **behaviour))


def test_a_gpu_says_how_it_is(monkeypatch: pytest.MonkeyPatch, uuid: str) -> None:
    install(monkeypatch, uuid, untold=("nvmlDeviceGetTemperature",), held=0x01 | 0x04 | 0x40)
    state = gpu_state(uuid)
    assert (state["name"], state["driver"], state["clock_mhz"], state["power_w"]) == (
        "NVIDIA L4",
        "570.86.15",
        2040,
        WATTS,
    )
    assert "temperature_c" not in state, "what it does not tell is left out"
    assert (state["held"], state["faulty"]) == (["power limit", "too hot (hardware)"], ["too hot (hardware)"])
    assert gpu_state("another") == {}


def test_without_the_library_nothing_is_said(monkeypatch: pytest.MonkeyPatch, uuid: str) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert gpu_state(uuid) == {}
    assert energy.meter(uuid) is None
    assert energy.EnergyUse(uuid).read(1) == ({}, "unmeasured: no meter here")


def test_energy_is_counted_gross_and_above_idle(monkeypatch: pytest.MonkeyPatch, uuid: str) -> None:
    install(monkeypatch, uuid)
    assert energy.idle_w(uuid) == pytest.approx(WATTS, rel=0.05)
    use = energy.EnergyUse(uuid)
    assert use.read(1)[1].startswith("unmeasured: 0.0"), "too short for the meter"
    start = time.perf_counter()
    time.sleep(energy.LEAST_S)
    figures, said = use.read(10)
    assert figures["energy_per_inference_j"] == pytest.approx(WATTS * (time.perf_counter() - start) / 10, rel=0.1)
    assert abs(figures["energy_above_idle_j"]) < 0.1 * figures["energy_per_inference_j"]
    assert said.startswith("NVML: the GPU; 2")


def test_processors_counters_are_added_up_and_may_begin_anew(tmp_path: Path) -> None:
    for number, name in enumerate(("intel-rapl:0", "intel-rapl:1", "intel-rapl:0:0")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(f"{(number + 1) * 1_000_000}\n")
        (tmp_path / name / "max_energy_range_uj").write_text("5000000\n")
    meter = energy._processors(tmp_path)
    assert meter is not None
    before = meter.read_j()
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("4000000\n")
    assert meter.read_j() - before == pytest.approx(3)
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("500000\n")
    assert meter.read_j() - before == pytest.approx(4.5)
    (tmp_path / "intel-rapl:1" / "energy_uj").unlink()
    assert energy._processors(tmp_path) is None, "not readable"


@pytest.mark.parametrize(("held", "verdict"), [(0x04, "VALID"), (0x20, "INVALID")])
def test_a_cell_holds_the_state_of_its_gpu(
    monkeypatch: pytest.MonkeyPatch, uuid: str, models: dict[str, Path], held: int, verdict: str
) -> None:
    install(monkeypatch, uuid, held=held)
    cfg = composed("model=onnx", f"model.path={models['tiny']}", "device=share100", *QUICK, *lasting(0.6))
    spec = replace(resolve(cfg.device), found=(("uuid", uuid),))
    with Bench(find_model(cfg.model), spec, cfg.measure, None) as bench:
        profile = bench.profile(LoadConfig(name="idle", percent=0))
    assert profile.verdict == verdict
    assert profile.notes[0].startswith("the accelerator's clock was held down: ")
    assert profile.metrics["accelerator_power_w"] == WATTS
    assert profile.metrics["accelerator_memory_bytes"] == 0
    assert profile.metrics["energy_per_inference_j"] > 0
    assert profile.environment["energy"].startswith("NVML: the GPU; ")
    assert profile.environment["before"]["accelerator"]["name"] == "NVIDIA L4"


@pytest.fixture
def own_meter(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Sets the command of the user's own meter."""

    def set_command(command: str) -> None:
        monkeypatch.setenv(energy.COMMAND, command)
        for each in (energy.meter, energy.idle_w):
            each.cache_clear()

    yield set_command
    for each in (energy.meter, energy.idle_w):
        each.cache_clear()


def test_a_meter_of_the_users_own_comes_first(own_meter: Callable[[str], None]) -> None:
    own_meter(f"{sys.executable} -c 'import time; print(5 * time.time())'")
    use = energy.EnergyUse(None)
    time.sleep(energy.LEAST_S)
    figures, said = use.read(2)
    assert figures["energy_per_inference_j"] > 5 * energy.LEAST_S / 2 * 0.9
    assert abs(figures["energy_above_idle_j"]) < 0.5 * figures["energy_per_inference_j"]
    assert said.startswith("PEPPER_METER: what ")


@pytest.mark.parametrize("command", ["no-such-meter", "false", "echo many", "echo nan", "echo '", "sleep 20"])
def test_a_meter_that_says_nothing_of_use_is_told(
    command: str, own_meter: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(energy, "COMMAND_S", 0.2)
    own_meter(command)
    figures, said = energy.EnergyUse(None).read(2)
    assert figures == {}
    assert said.startswith(f"unmeasured: PEPPER_METER={command}: prints")
