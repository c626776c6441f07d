"""Energy that a host or an accelerator uses, by a meter of its own where there is one; never a guess."""

import math
import os
import shlex
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

COMMAND = "PEPPER_METER"
"""Variable of the environment whose command prints how many joules a meter of the user's own has counted so far. It is
the host's own: no configuration, which may come from elsewhere, names a command."""
COMMAND_S = 10.0
POWERCAP = Path("/sys/class/powercap")
IDLE_S = 0.5
LEAST_S = 0.5
"""Meters are refreshed every 100 ms or so: over less than this a difference tells little."""


class UnmeteredError(Exception):
    """A meter says nothing of use; the message is why."""


@dataclass(frozen=True)
class Meter:
    """What counts energy.

    Attributes:
        source: What it is.
        scope: What it counts the energy of.
        read_j: Returns the energy so far, joules; a difference of two readings is what was used between them. Raises
            :class:`UnmeteredError`.
    """

    source: str
    scope: str
    read_j: Callable[[], float]


@cache
def meter(uuid: str | None) -> Meter | None:
    """Return the meter of a GPU, or with None that of this host's processors; None where there is none to be read.

    The user's own comes before both.
    """
    if command := os.environ.get(COMMAND):
        return Meter(COMMAND, f"what {command!r} counts", lambda: _asked_j(command))
    return _processors(POWERCAP) if uuid is None else _gpu(uuid)


@cache
def idle_w(uuid: str | None) -> float | None:
    """Return the power of what a meter counts while nothing is measured, W; watched once, for half a second.

    Raises:
        UnmeteredError: The meter says nothing of use.
    """
    found = meter(uuid)
    if found is None:
        return None
    before_j, before_s = found.read_j(), time.perf_counter()
    time.sleep(IDLE_S)
    return (found.read_j() - before_j) / (time.perf_counter() - before_s)


def _asked_j(command: str) -> float:
    try:
        words = shlex.split(command)
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=COMMAND_S, stdin=subprocess.DEVNULL, check=True
        )
        joules = float(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        reason = " ".join(str(error).split())
        raise UnmeteredError(f"{COMMAND}={command}: prints no number of joules ({reason})") from error
    if not math.isfinite(joules):
        raise UnmeteredError(f"{COMMAND}={command}: prints {joules}, no number of joules")
    return joules


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
        self._meter, self._why = meter(uuid), "no meter here"
        try:
            self._idle_w = idle_w(uuid)
            self._start_s, self._start_j = time.perf_counter(), self._meter.read_j() if self._meter else 0.0
        except UnmeteredError as error:
            self._meter, self._why = None, str(error)

    def read(self, inferences: int) -> tuple[dict[str, float], str]:
        """Return the energy of an inference, gross and above idle, J, and what was measured in a few words.

        Args:
            inferences: How many ran since.
        """
        if self._meter is None:
            return {}, f"unmeasured: {self._why}"
        try:
            used_j, took_s = self._meter.read_j() - self._start_j, time.perf_counter() - self._start_s
        except UnmeteredError as error:
            return {}, f"unmeasured: {error}"
        if took_s < LEAST_S:
            return {}, f"unmeasured: {took_s:.2f} s is too short for the meter; raise measure.min_seconds"
        figures = {
            "energy_per_inference_j": used_j / inferences,
            "energy_above_idle_j": (used_j - (self._idle_w or 0.0) * took_s) / inferences,
        }
        return figures, f"{self._meter.source}: {self._meter.scope}; {self._idle_w:.1f} W idle"
