"""What a host that joined says of itself and of its devices, in plain values."""

import time
from dataclasses import asdict
from typing import Any

import psutil
from pydantic import TypeAdapter

import pepper
from pepper.config import DeviceConfig
from pepper.devices.device import DeviceSpec
from pepper.errors import DeviceError
from pepper.hosts.local import here
from pepper.packages import onnxruntime_version

SPEC, _CONFIG = TypeAdapter(DeviceSpec), TypeAdapter(DeviceConfig)


def describe() -> dict[str, Any]:
    """Return what this machine is, which state it is in, and what is installed."""
    return {
        "facts": facts(),
        "state": state(),
        "cores": cores(),
        "pepper": pepper.__version__,
        "onnxruntime": onnxruntime_version(),
        "agent_memory_bytes": psutil.Process().memory_info().rss,
        "clock_s": time.time(),
    }


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
    return asdict(here().calibrate(SPEC.validate_python(spec), renew=renew))


def busy_percent(spec: dict[str, Any], seconds: float) -> float:
    """Return how much of a device's cores is used."""
    return here().busy_percent(SPEC.validate_python(spec), seconds)
