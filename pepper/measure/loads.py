"""Loads by what ``load.generator`` names: pepper's own, stress-ng, and those that were added."""

from pepper import additions
from pepper.config import LoadConfig
from pepper.config.measuring import GENERATORS
from pepper.devices.device import Device, DeviceSpec
from pepper.hosts.reach import host_at
from pepper.measure.accelerator_load import WithAccelerator, check_accelerator
from pepper.measure.built_in_load import BuiltIn
from pepper.measure.load import Load, loaded_cores
from pepper.measure.stress_ng import StressNg

LOADS: dict[str, type[Load]] = dict(zip(GENERATORS, (BuiltIn, StressNg), strict=True))


def check_load(load: LoadConfig, device: DeviceSpec) -> None:
    """Make sure that the load can run on the device.

    Raises:
        ConfigError: It wants more cores than the device has, an accelerator, or a program that is not installed.
    """
    loaded_cores(load, len(device.cores))
    check_accelerator(load, device)
    if load.percent:
        _load_class(load.generator).check(load, device, host_at(device.host))


def start_load(generator: str, device: Device) -> Load:
    """Return a silent load on the device."""
    cores = _load_class(generator)(device)
    return cores if device.spec.on_cores else WithAccelerator(device, cores)


def _load_class(generator: str) -> type[Load]:
    return LOADS.get(generator) or additions.load_class(additions.LOADS, generator, Load)
