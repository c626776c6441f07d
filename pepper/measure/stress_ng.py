"""stress-ng's CPU stressor as a load."""

import time

from pepper.config import LoadConfig
from pepper.devices.device import Command, Device, DeviceSpec
from pepper.errors import ConfigError, MeasureError
from pepper.hosts.host import Host
from pepper.measure.load import Load, Usage, loaded_cores

STRESS_NG = "stress-ng"
TIMEOUT_S = 30.0


class StressNg(Load):
    """Started anew for each load."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._stressors: Command | None = None

    @classmethod
    def check(cls, load: LoadConfig, device: DeviceSpec, host: Host) -> None:
        """Make sure that it is installed."""
        if not host.installed(STRESS_NG):
            raise ConfigError("load.generator=stress-ng: not installed; install stress-ng or use load.generator=pepper")

    def set(self, load: LoadConfig) -> None:
        """Run this load on the first cores that it asks for."""
        self.close()
        count = loaded_cores(load, len(self._device.spec.cores))
        if not count:
            return
        percent = max(1, round(load.percent * self._device.spec.share))
        command = [STRESS_NG, "--cpu", str(count), "--cpu-load", str(percent)]
        self._stressors = self._device.run(command, count)
        if not self._stressors.confine(count, TIMEOUT_S):
            raise MeasureError(f"load.generator=stress-ng: {' '.join(command)} did not start")

    def usage(self) -> Usage:
        """Return what the stressors have used so far (resolution: 10 ms ticks)."""
        try:
            cpu_s = self._stressors.cpu_s() if self._stressors else 0.0
        except MeasureError as error:
            raise MeasureError(f"load.generator=stress-ng: a stressor has ended ({error})") from error
        return Usage(cpu_s, time.perf_counter())

    def close(self) -> None:
        """End the stressors."""
        if self._stressors:
            self._stressors.end()
        self._stressors = None
