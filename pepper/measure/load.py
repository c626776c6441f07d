"""The contract of a background load on a device: started, verified alone, watched while a model is timed."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from pepper.config import LoadConfig
from pepper.devices.device import Device, DeviceSpec
from pepper.errors import ConfigError
from pepper.hosts.host import Host


@dataclass(frozen=True)
class Usage:
    """What a load used.

    Attributes:
        cpu_s: CPU time on the device's cores, summed over cores, seconds.
        clock_s: The clock, seconds.
        feeding_s: CPU time of what infers on the device's accelerator beside that.
        inferring_s: For how long it has inferred there.
        inferring_clock_s: The clock when that was counted: between two inferences.
    """

    cpu_s: float
    clock_s: float
    feeding_s: float = 0.0
    inferring_s: float = 0.0
    inferring_clock_s: float = 0.0


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

    @property
    def least_span_s(self) -> float:
        """How long it must have run, as it is set, before two readings tell what it uses."""
        return 0.0

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


def accelerator_percent_between(before: Usage, after: Usage) -> float:
    """Return for how much of the time between two readings a load inferred on the accelerator, percent."""
    span_s = after.inferring_clock_s - before.inferring_clock_s
    return 100 * (after.inferring_s - before.inferring_s) / span_s if span_s else 0.0
