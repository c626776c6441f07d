"""Background load on a device: started, verified alone, watched while a model is timed."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Protocol

import psutil

from pepper.config import LoadConfig
from pepper.devices.device import Device, DeviceSpec
from pepper.devices.process import PACKAGE_ROOT, Process
from pepper.errors import ConfigError, MeasureError

STRESS_NG = "stress-ng"
TIMEOUT_S = 30.0
POLL_S = 0.005


@dataclass(frozen=True)
class Usage:
    """CPU time that the generators used (s, summed over cores), and the clock (s)."""

    cpu_s: float
    clock_s: float


class Load(Protocol):
    """A load that is set, watched and silenced."""

    def set(self, load: LoadConfig) -> None:
        """Run this load from now on."""

    def usage(self) -> Usage:
        """Return what the generators have used so far."""

    def close(self) -> None:
        """End the generators."""


def loaded_cores(load: LoadConfig, device_cores: int) -> int:
    """Return on how many of the device's cores the load runs.

    Raises:
        ConfigError: The load wants more cores than the device has.
    """
    count = load.cores or device_cores
    if count > device_cores:
        raise ConfigError(f"load.cores={count}: the device has {device_cores} cores; lower it")
    return count if load.percent > 0 else 0


def check_load(load: LoadConfig, device: DeviceSpec) -> None:
    """Make sure that the load can run on the device.

    Raises:
        ConfigError: It wants more cores than the device has, or a program that is not installed.
    """
    loaded_cores(load, len(device.cores))
    if load.percent and load.generator == STRESS_NG and shutil.which(STRESS_NG) is None:
        raise ConfigError("load.generator=stress-ng: not installed; install stress-ng or use load.generator=pepper")


class BuiltIn:
    """pepper's own generator: one process a core, silent until a load is set."""

    def __init__(self, device: Device) -> None:
        self._share = device.spec.share
        self._processes: list[Process] = []
        for core in device.spec.cores:
            process = device.start("pepper.measure.generator", [core])
            process.request("usage", timeout_s=TIMEOUT_S)  # it is up
            device.confine(process.pid)
            self._processes.append(process)

    def set(self, load: LoadConfig) -> None:
        """Run this load on the first cores that it asks for, and silence the others."""
        count = loaded_cores(load, len(self._processes))
        for index, process in enumerate(self._processes):
            fraction = load.percent / 100 * self._share if index < count else 0.0
            process.request("set", timeout_s=TIMEOUT_S, fraction=fraction, period_ms=load.period_ms)

    def usage(self) -> Usage:
        """Return what the generators have used so far."""
        answers = [process.request("usage", timeout_s=TIMEOUT_S)[0] for process in self._processes]
        return Usage(sum(answer["cpu_s"] for answer in answers), time.perf_counter())

    def close(self) -> None:
        """End the generators."""
        for process in self._processes:
            process.close()


class StressNg:
    """stress-ng's CPU stressor, started anew for each load."""

    def __init__(self, device: Device) -> None:
        self._program = shutil.which(STRESS_NG) or STRESS_NG
        self._device = device
        self._popen: subprocess.Popen[bytes] | None = None
        self._pipe = -1  # its other end tells the leader of the stressors' group whether this process lives
        self._stressors: list[psutil.Process] = []

    def set(self, load: LoadConfig) -> None:
        """Run this load on the first cores that it asks for.

        Raises:
            MeasureError: It does not start, or ends at once.
        """
        self.close()
        count = loaded_cores(load, len(self._device.spec.cores))
        if not count:
            return
        percent = max(1, round(load.percent * self._device.spec.share))
        cores = ",".join(str(core) for core in self._device.spec.cores[:count])
        command = [self._program, "--cpu", str(count), "--cpu-load", str(percent), "--taskset", cores]
        theirs, self._pipe = os.pipe2(os.O_CLOEXEC)
        try:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", "pepper.devices.command", str(theirs), *command],
                env={**os.environ, "PYTHONPATH": PACKAGE_ROOT},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs],
                start_new_session=True,
            )
        finally:
            os.close(theirs)
        deadline = time.monotonic() + TIMEOUT_S
        while len(stressors := self._grandchildren()) < count:
            if self._popen.poll() is not None or time.monotonic() > deadline:
                raise MeasureError(f"load.generator=stress-ng: {' '.join(command)} did not start")
            time.sleep(POLL_S)
        for stressor in stressors:
            self._device.confine(stressor.pid)
        self._stressors = stressors

    def _grandchildren(self) -> list[psutil.Process]:
        """Return the stressors: what the program has started that the leader of their group runs."""
        assert self._popen is not None
        with contextlib.suppress(psutil.NoSuchProcess):  # one has just ended
            programs = psutil.Process(self._popen.pid).children()
            return [child for program in programs for child in program.children(recursive=True)]
        return []

    def usage(self) -> Usage:
        """Return what the stressors have used so far (resolution: 10 ms ticks).

        Raises:
            MeasureError: One is gone.
        """
        try:
            times = [process.cpu_times() for process in self._stressors]
        except psutil.NoSuchProcess as error:
            raise MeasureError(f"load.generator=stress-ng: a stressor (process {error.pid}) has ended") from error
        return Usage(sum(entry.user + entry.system for entry in times), time.perf_counter())

    def close(self) -> None:
        """End the stressors, stopped ones too."""
        if self._popen is not None:
            with contextlib.suppress(ProcessLookupError):  # they have ended by themselves
                os.killpg(self._popen.pid, signal.SIGKILL)
            self._popen.wait()
            os.close(self._pipe)
        self._popen, self._stressors = None, []


def start_load(generator: str, device: Device) -> Load:
    """Return a silent load on the device."""
    return StressNg(device) if generator == STRESS_NG else BuiltIn(device)


def percent_between(before: Usage, after: Usage, share: float, cores: int) -> float:
    """Return what the generators used between two readings, percent of the loaded cores' share."""
    return 100 * (after.cpu_s - before.cpu_s) / ((after.clock_s - before.clock_s) * share * cores)
