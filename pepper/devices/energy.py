"""Energy that a host or an accelerator uses, by a meter of its own where there is one; never a guess."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
IDLE_S = 0.5
LEAST_S = 0.5
"""Meters are refreshed every 100 ms or so: over less than this a difference tells little."""


@dataclass(frozen=True)
class Meter:
    """What counts energy.

    Attributes:
        source: What it is.
        scope: What it counts the energy of.
        read_j: Returns the energy so far, joules; a difference of two readings is what was used between them.
    """

    source: str
    scope: str
    read_j: Callable[[], float]


@cache
def meter(uuid: str | None) -> Meter | None:
    """Return the meter of a GPU, or with None that of this host's processors; None where there is none to be read."""
    return _processors(POWERCAP) if uuid is None else _gpu(uuid)


@cache
def idle_w(uuid: str | None) -> float | None:
    """Return the power of what a meter counts while nothing is measured, W; watched once, for half a second."""
    found = meter(uuid)
    if found is None:
        return None
    before_j, before_s = found.read_j(), time.perf_counter()
    time.sleep(IDLE_S)
    return (found.read_j() - before_j) / (time.perf_counter() - before_s)


def _gpu(uuid: str) -> Meter | None:
    try:
        import pynvml as nvml
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
        gpu = nvml.nvmlDeviceGetHandleByUUID(uuid)
        nvml.nvmlDeviceGetTotalEnergyConsumption(gpu)
    except nvml.NVMLError:
        return None
    return Meter("NVML", "the GPU", lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(gpu) / 1000)


def _processors(folder: Path) -> Meter | None:
    """Return the sum of the packages' counters (RAPL), which begin anew at their greatest value."""
    packages = [each for each in sorted(folder.glob("intel-rapl:*")) if each.name.count(":") == 1]
    try:
        last = {each: _joules(each / "energy_uj") for each in packages}
        ranges = {each: _joules(each / "max_energy_range_uj") for each in packages}
    except (OSError, ValueError):  # the counters are root's on most systems
        return None
    turned = dict.fromkeys(packages, 0.0)

    def read_j() -> float:
        for each in packages:
            now = _joules(each / "energy_uj")
            turned[each] += ranges[each] if now < last[each] else 0.0
            last[each] = now
        return sum(last.values()) + sum(turned.values())

    return Meter("RAPL", f"{len(packages)} processor package(s), all cores of it", read_j) if packages else None


def _joules(file: Path) -> float:
    return int(file.read_text()) / 1e6


class EnergyUse:
    """Energy of a span, from when it is made.

    Args:
        uuid: The GPU whose energy counts; None: the processors'.
    """

    def __init__(self, uuid: str | None) -> None:
        self._meter, self._idle_w = meter(uuid), idle_w(uuid)
        self._start_s, self._start_j = time.perf_counter(), self._meter.read_j() if self._meter else 0.0

    def read(self, inferences: int) -> tuple[dict[str, float], str]:
        """Return the energy of an inference, gross and above idle, J, and what was measured in a few words.

        Args:
            inferences: How many ran since.
        """
        if self._meter is None:
            return {}, "unmeasured: no meter here"
        used_j, took_s = self._meter.read_j() - self._start_j, time.perf_counter() - self._start_s
        if took_s < LEAST_S:
            return {}, f"unmeasured: {took_s:.2f} s is too short for the meter; raise measure.min_seconds"
        figures = {
            "energy_per_inference_j": used_j / inferences,
            "energy_above_idle_j": (used_j - (self._idle_w or 0.0) * took_s) / inferences,
        }
        return figures, f"{self._meter.source}: {self._meter.scope}; {self._idle_w:.1f} W idle"
