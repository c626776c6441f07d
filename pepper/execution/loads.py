"""How much of each device is used by others while a plan runs."""

import contextlib
import time
from collections.abc import Iterable
from dataclasses import dataclass

import psutil

from pepper.devices import host
from pepper.execution.pool import StagePool
from pepper.measure.load import Usage, percent_between


@dataclass(frozen=True)
class _Own:
    """CPU time of a process of this run (s), and the cores that it may use."""

    cpu_s: float
    cores: frozenset[int]


@dataclass(frozen=True)
class DeviceLoad:
    """The load on a device, percent of its CPU time.

    Attributes:
        foreign_percent: Of its cores' time, what went to processes outside of the run.
        generated_percent: What the run's load generator used.
    """

    foreign_percent: float
    generated_percent: float

    @property
    def percent(self) -> float:
        """Both together."""
        return min(100.0, self.foreign_percent + self.generated_percent)


class LoadMeter:
    """Reads the load on each device: what neither the stages nor the device's emulation use of it.

    Of a load that the run has put there, the generator tells. The rest is what the kernel counts as busy on the
    device's cores, less the CPU time of this process and of all that it has started, as far as they may use these
    cores: a process that moves between cores counts on each, so the rest is sooner too low than too high.

    What a load uses beside a busy stage stands for what it would use alone, as a latency model has it: a fair
    scheduler gives a neighbour all that it wants up to half of a core, and one that wants more slows a stage no
    further.

    Args:
        pool: The devices in use.
    """

    def __init__(self, pool: StagePool) -> None:
        self._pool = pool
        self._begin(pool.usage())

    def read(self) -> dict[str, DeviceLoad]:
        """Return each device's load since the last reading (resolution: 10 ms ticks)."""
        own_before, usage_before, at_s = self._own, self._usage, self._at_s
        usage = self._pool.usage()
        busy_s = {name: times.since_start()[0] for name, times in self._times.items()}
        self._begin(usage)
        wall_s = self._at_s - at_s
        loads = {}
        for name, spec in self._pool.specs.items():
            own_s = sum(
                found.cpu_s - (own_before[pid].cpu_s if pid in own_before else 0.0)
                for pid, found in self._own.items()
                if not found.cores.isdisjoint(spec.cores)
            )
            foreign_percent = 100 * max(0.0, busy_s[name] - own_s) / (wall_s * len(spec.cores))
            generated_percent = 0.0
            if name in usage_before:
                cores = self._pool.planned(name).cores or len(spec.cores)
                generated_percent = max(0.0, percent_between(usage_before[name], usage[name], spec.share, cores))
            loads[name] = DeviceLoad(foreign_percent, generated_percent)
        return loads

    def _begin(self, usage: dict[str, Usage]) -> None:
        self._usage = usage
        self._times = {name: host.CoreTimes(list(spec.cores)) for name, spec in self._pool.specs.items()}
        me = psutil.Process()
        self._own = dict(_own([me, *me.children(recursive=True)]))
        self._at_s = time.perf_counter()


def _own(processes: Iterable[psutil.Process]) -> Iterable[tuple[int, _Own]]:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
            times = process.cpu_times()
            yield process.pid, _Own(times.user + times.system, frozenset(process.cpu_affinity() or ()))
