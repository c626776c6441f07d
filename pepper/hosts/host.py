"""The contract of a host."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pepper.config import DeviceConfig
from pepper.devices.calibration import Calibration
from pepper.devices.device import Device, DeviceSpec
from pepper.devices.energy import EnergyUse


@dataclass(frozen=True)
class CoreUse:
    """What became of a device's cores in a span.

    Attributes:
        wall_s: How long the span was, seconds.
        busy_s: CPU time that was used, seconds summed over the cores (resolution: 10 ms ticks).
        stolen_s: The same of what a hypervisor kept.
        own_s: Of the time used, that of this run: its own process and what it has started, as far as these may use the
            device's cores. One that moves between cores counts on each. 0 where it was not asked for.
        throttled_periods: In how many periods a CPU quota on the host's programs was used up.
    """

    wall_s: float
    busy_s: float
    stolen_s: float
    own_s: float
    throttled_periods: int

    @property
    def foreign_s(self) -> float:
        """CPU time of others: sooner too low than too high."""
        return max(0.0, self.busy_s - self.own_s)


class UseMeter(ABC):
    """Watches devices' cores, from when it is made."""

    @abstractmethod
    def read(self) -> dict[str, CoreUse]:
        """Return what became of each device's cores since the last reading, by the device's name."""


class Host(ABC):
    """A machine (or container) on which pepper runs programs: this one, or another that joined.

    All that is said of a device is its host's and never the caller's: facts, load, clock, cores and their numbers. What
    a host gives are values; it holds nothing for its caller and is never closed by it.

    A host that cannot be reached, or is lost, raises DeviceError from any of these.

    Attributes:
        name: How the configuration, tables and time stamps call it; unique among the hosts of a run. Time stamps of its
            programs are of its own monotonic clock (ns): those of two hosts cannot be compared as they are.
    """

    name: str

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """Return what it is, JSON-able: ``cpu_model``, ``instruction_sets``, ``caches`` (bytes by level),
        ``frequency_mhz``, ``cores`` (their number), ``memory_bytes``, ``system``."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Return what may differ from one minute to the next and change a latency, JSON-able; see
        :func:`pepper.devices.host.state`."""

    @abstractmethod
    def addresses(self) -> set[str]:
        """Return under which names and addresses it can be known to others."""

    @abstractmethod
    def cores(self) -> list[int]:
        """Return the numbers of the cores that programs may use there, in order."""

    @abstractmethod
    def installed(self, program: str) -> bool:
        """Return whether a program that devices may be told to run is installed there, under this name."""

    @abstractmethod
    def resolve(self, config: DeviceConfig) -> DeviceSpec:
        """Fill in what a device's configuration leaves open.

        Raises:
            ConfigError: It asks for cores that the host does not give.
        """

    @abstractmethod
    def calibrate(self, spec: DeviceSpec, *, renew: bool = False) -> Calibration:
        """Return a device's measured characteristics; measured (some seconds) the first time, and kept on the host.

        Args:
            spec: The device.
            renew: Whether to look first whether they still hold, where they are some minutes old.

        Raises:
            ConfigError: They cannot be kept.
            DeviceError: The device cannot be set up.
            MeasureError: A program on it crashed.
        """

    @abstractmethod
    def busy_percent(self, spec: DeviceSpec, seconds: float = 1.0) -> float:
        """Return how much of the device's cores is used right now, 0 to 100, watched for a while."""


class RunningHost(Host):
    """A host on which this process itself starts programs.

    The devices that it opens belong to the caller, who uses each as a context and so ends it.
    """

    @abstractmethod
    def accelerator(self, spec: DeviceSpec) -> dict[str, Any]:
        """Return the state of a device's accelerator, JSON-able; see :func:`pepper.devices.nvidia.gpu_state`.

        It is empty where it has none that tells."""

    @abstractmethod
    def energy(self, spec: DeviceSpec) -> EnergyUse:
        """Count the energy of a device's accelerator, or of its processors where it has none, from now on. The first
        call takes half a second where there is a meter: nothing should run then."""

    @abstractmethod
    def devices(self, specs: Sequence[DeviceSpec]) -> list[Device]:
        """Return devices that can be used at the same time, in this order; nothing is started yet.

        Raises:
            ConfigError: They want more of a core than there is, or share cores in a way that cannot be emulated.
        """

    @abstractmethod
    def meter(self, specs: Sequence[DeviceSpec], *, own: bool = False) -> UseMeter:
        """Watch the cores of devices from now on.

        Args:
            specs: The devices; their names differ.
            own: Whether to tell this run's own programs from others', which takes some milliseconds a reading.
        """
