"""How much of each device is used by others while a plan runs."""

from dataclasses import dataclass

from pepper.execution.pool import StagePool
from pepper.measure.load import percent_between


@dataclass(frozen=True)
class DeviceLoad:
    """The load on a device, percent of its CPU time.

    Attributes:
        foreign_percent: Of its cores' time, what went to processes outside of the run.
        generated_percent: What the run's load generator used.
        throttled_periods: In how many periods a CPU quota on the host's programs was used up.
    """

    foreign_percent: float
    generated_percent: float
    throttled_periods: int = 0

    @property
    def percent(self) -> float:
        """Both together."""
        return min(100.0, self.foreign_percent + self.generated_percent)


class LoadMeter:
    """Reads the load on each device: what neither the stages nor the device's emulation use of it.

    Of a load that the run has put there, the generator tells. The rest is what the device's host counts as busy on its
    cores, less the CPU time of this run (see :class:`pepper.hosts.host.CoreUse`).

    What a load uses beside a busy stage stands for what it would use alone, as a latency model has it: a fair
    scheduler gives a neighbour all that it wants up to half of a core, and one that wants more slows a stage no
    further.

    Args:
        pool: The devices in use.
    """

    def __init__(self, pool: StagePool) -> None:
        self._pool = pool
        self._usage = pool.usage()
        self._meter = pool.meter()

    def read(self) -> dict[str, DeviceLoad]:
        """Return each device's load since the last reading (resolution: 10 ms ticks)."""
        before, self._usage = self._usage, self._pool.usage()
        found = self._meter.read()
        loads = {}
        for name, spec in self._pool.specs.items():
            foreign_percent = 100 * found[name].foreign_s / (found[name].wall_s * len(spec.cores))
            generated_percent = 0.0
            if name in before:
                cores = self._pool.planned(name).cores or len(spec.cores)
                generated_percent = max(0.0, percent_between(before[name], self._usage[name], spec.share, cores))
            loads[name] = DeviceLoad(foreign_percent, generated_percent, found[name].throttled_periods)
        return loads
