"""The contract of a background load on a device: started, verified alone, watched while a model is timed."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from pepper.config import LoadConfig
from pepper.devices.device import Device, DeviceSpec
from pepper.errors import ConfigError
from pepper.hosts.host import Host


@dataclass(frozen=True)
class Usage:
    """CPU time that a load used (s, summed over cores), and the clock (s)."""

    cpu_s: float
    clock_s: float


class Load(ABC):
    """A load on a device: silent until it is set; whoever started it closes it, before the device is left.

    What it uses belongs to the device: its programs are started there, and confined, so that it gets of the device what
    a neighbour would.

    Args:
        device: Where it runs.
    """

    @abstractmethod
    def __init__(self, device: Device) -> None: ...

    @classmethod  # noqa: B027 - most loads can run anywhere
    def check(cls, load: LoadConfig, device: DeviceSpec, host: Host) -> None:
        """Make sure, before anything is started, that this load can run on a device of a host.

        Raises:
            ConfigError: It cannot; the message names the key.
        """

    @abstractmethod
    def set(self, load: LoadConfig) -> None:
        """Run this load from now on, in place of the one before: alone, it uses ``load.percent`` of the share of each
        of the device's first cores, as many as :func:`loaded_cores` says; with 0 percent it is silent.

        Raises:
            MeasureError: It does not start.
        """

    @abstractmethod
    def usage(self) -> Usage:
        """Return what it has used since it was set, or since before that.

        Raises:
            MeasureError: A part of it has ended.
        """

    @abstractmethod
    def close(self) -> None:
        """End it; again, and nothing happens."""


def loaded_cores(load: LoadConfig, device_cores: int) -> int:
    """Return on how many of the device's cores the load runs.

    Raises:
        ConfigError: The load wants more cores than the device has.
    """
    count = load.cores or device_cores
    if count > device_cores:
        raise ConfigError(f"load.cores={count}: the device has {device_cores} cores; lower it")
    return count if load.percent > 0 else 0


def percent_between(before: Usage, after: Usage, share: float, cores: int) -> float:
    """Return what a load used between two readings, percent of the loaded cores' share."""
    return 100 * (after.cpu_s - before.cpu_s) / ((after.clock_s - before.clock_s) * share * cores)
