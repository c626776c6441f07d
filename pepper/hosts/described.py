"""What a host that joined says of itself and of its devices, in plain values."""

import time
from dataclasses import asdict
from typing import Any

import psutil
from pydantic import TypeAdapter

import pepper
from pepper.config import DeviceConfig
from pepper.devices import calibration, runtimes
from pepper.devices.device import DeviceSpec
from pepper.devices.pace import ReferenceKernel
from pepper.errors import DeviceError, MeasureError
from pepper.hosts import lending, operations
from pepper.hosts.local import here
from pepper.packages import onnxruntime_version

_SPEC, _CONFIG = TypeAdapter(DeviceSpec), TypeAdapter(DeviceConfig)


def describe() -> dict[str, Any]:
    """Return what this machine is, which state it is in, what is installed, and what it does."""
    return {
        "facts": facts(),
        "state": state(),
        "cores": cores(),
        "pepper": pepper.__version__,
        "onnxruntime": onnxruntime_version(),
        "providers": _providers(),
        "pace": _pace(),
        "runs": [*operations.running(), *lending.lent()],
        "agent_memory_bytes": psutil.Process().memory_info().rss,
    }


def _providers() -> list[dict[str, str]]:
    """Return the execution providers here: their names, and of what is more than the cores the hardware."""
    try:
        return [{"name": choice.name, **dict(runtimes.found(choice))} for choice in runtimes.choices()]
    except MeasureError:
        return []


def _pace() -> float | None:
    """Return how fast the cores compute now, 1 is as fast as the whole machine was calibrated; None where it never was,
    or while something is measured."""
    kept = calibration.known(here().resolve(DeviceConfig(name="all")))
    if kept is None or kept.calibration.kernel_us is None or operations.running() or lending.lent():
        return None
    try:
        return kept.calibration.kernel_us / ReferenceKernel().time().arithmetic_us
    except OSError:
        return None


def clock() -> float:
    """Return what the clock says, seconds since 1970."""
    return time.time()


def facts() -> dict[str, Any]:
    """Return what this machine is."""
    return here().facts()


def state() -> dict[str, Any]:
    """Return the state that it is in."""
    return here().state()


def cores() -> list[int]:
    """Return the cores that programs may use."""
    return here().cores()


def installed(program: str) -> bool:
    """Return whether a program is installed."""
    return here().installed(program)


def resolve(device: dict[str, Any], version: str) -> dict[str, Any]:
    """Fill in what a device's configuration leaves open.

    Raises:
        DeviceError: Who asks has another version of pepper.
    """
    if version != pepper.__version__:
        raise DeviceError(f"has pepper {pepper.__version__}, who asks has {version}; install the same on both")
    return {**asdict(here().resolve(_CONFIG.validate_python(device))), "onnxruntime": onnxruntime_version()}


def calibrate(spec: dict[str, Any], renew: bool) -> dict[str, Any]:
    """Return a device's characteristics, measured the first time."""
    return asdict(here().calibrate(_SPEC.validate_python(spec), renew=renew))


def busy_percent(spec: dict[str, Any], seconds: float) -> float:
    """Return how much of a device's cores is used."""
    return here().busy_percent(_SPEC.validate_python(spec), seconds)
