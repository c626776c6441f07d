"""This machine as a host."""

import contextlib
import shutil
import socket
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import psutil

from pepper.config import DeviceConfig
from pepper.devices import calibration, cores, host, own_limits
from pepper.devices.calibration import Calibration
from pepper.devices.device import Device, DeviceSpec
from pepper.devices.energy import EnergyUse
from pepper.devices.nvidia import gpu_state
from pepper.hosts.host import CoreUse, RunningHost, UseMeter


class LocalHost(RunningHost):
    """This machine, as far as this process may use it."""

    name = host.NAME

    def facts(self) -> dict[str, Any]:
        """Return what this machine is."""
        return host.cpu_facts()

    def state(self) -> dict[str, Any]:
        """Return the state that it is in."""
        return host.state()

    def accelerator(self, spec: DeviceSpec) -> dict[str, Any]:
        """Return the state of a GPU of which the driver told the UUID."""
        uuid = dict(spec.found).get("uuid")
        return {} if uuid is None else gpu_state(uuid)

    def energy(self, spec: DeviceSpec) -> EnergyUse:
        """Count energy by the GPU's own counter, or by the processors'."""
        return EnergyUse(dict(spec.found).get("uuid"))

    def addresses(self) -> set[str]:
        """Return the machine's name, and the addresses of its interfaces."""
        of_interfaces = {each.address for found in psutil.net_if_addrs().values() for each in found}
        return {"localhost", socket.gethostname(), *of_interfaces}

    def cores(self) -> list[int]:
        """Return the cores that this process may use."""
        return host.allowed_cores()

    def installed(self, program: str) -> bool:
        """Return whether the PATH leads to it."""
        return shutil.which(program) is not None

    def resolve(self, config: DeviceConfig) -> DeviceSpec:
        """Fill in a device's cores and threads."""
        return cores.resolve(config)

    def devices(self, specs: Sequence[DeviceSpec]) -> list[Device]:
        """Return devices that can be used at the same time."""
        return cores.together(specs)

    def calibrate(self, spec: DeviceSpec, *, renew: bool = False) -> Calibration:
        """Return a device's measured characteristics, kept in the user's cache."""
        return calibration.calibrate(spec, renew=renew)

    def busy_percent(self, spec: DeviceSpec, seconds: float = 1.0) -> float:
        """Return how much of the device's cores is used right now."""
        return host.busy_percent(list(spec.cores), seconds)

    def meter(self, specs: Sequence[DeviceSpec], *, own: bool = False) -> UseMeter:
        """Watch the cores of devices from now on."""
        return LocalMeter(specs, own)


@cache
def here() -> RunningHost:
    """Return this machine."""
    return LocalHost()


@dataclass(frozen=True)
class _Own:
    """CPU time of a process of this run (s), and the cores that it may use."""

    cpu_s: float
    cores: frozenset[int]


class LocalMeter(UseMeter):
    """Reads what the kernel counts, for each core and for each process that this one has started."""

    def __init__(self, specs: Sequence[DeviceSpec], own: bool) -> None:
        self._specs, self._wants_own = specs, own
        self._begin()

    def read(self) -> dict[str, CoreUse]:
        """Return what became of each device's cores since the last reading."""
        own_before, at_s, throttled = self._own, self._at_s, self._throttled
        times = {name: times.since_start() for name, times in self._times.items()}
        self._begin()
        found = {}
        for spec in self._specs:
            busy_s, stolen_s = times[spec.name]
            own_s = sum(
                own.cpu_s - (own_before[pid].cpu_s if pid in own_before else 0.0)
                for pid, own in self._own.items()
                if not own.cores.isdisjoint(spec.cores)
            )
            found[spec.name] = CoreUse(self._at_s - at_s, busy_s, stolen_s, own_s, self._throttled - throttled)
        return found

    def _begin(self) -> None:
        self._throttled = own_limits.throttled_periods()
        self._times = {spec.name: host.CoreTimes(list(spec.cores)) for spec in self._specs}
        self._own: dict[int, _Own] = {}
        if self._wants_own:
            me = psutil.Process()
            self._own = dict(_own([me, *me.children(recursive=True)]))
        self._at_s = time.perf_counter()


def _own(processes: Iterable[psutil.Process]) -> Iterable[tuple[int, _Own]]:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
            times = process.cpu_times()
            yield process.pid, _Own(times.user + times.system, frozenset(process.cpu_affinity() or ()))
