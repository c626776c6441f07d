"""The program that measures a device's speed from inside it: ``python -m pepper.devices.calibrator``."""

import math
from dataclasses import asdict
from typing import Any

from pepper.devices import spin
from pepper.devices.pace import ReferenceKernel
from pepper.devices.protocol import serve
from pepper.devices.providers.registry import provider_named
from pepper.devices.providers.speeds import measure_speeds


def share(seconds: float) -> dict[str, Any]:
    """Return the fraction of wall time in which a busy loop really ran."""
    return {"value": spin.cpu_fraction(seconds)}


def run_ms(seconds: float) -> dict[str, Any]:
    """Return how long a busy loop ran at a time; None if it was never stopped."""
    found = spin.run_ms(seconds)
    return {"value": None if math.isnan(found) else found}


def probe(provider: dict[str, Any], kernel: str, seconds: float) -> dict[str, Any]:
    """Return a speed; see :meth:`pepper.devices.providers.provider.Provider.probe`."""
    return {"value": provider_named(**provider).probe(kernel, seconds)}


def pace() -> dict[str, Any]:
    """Return what the reference kernel's arithmetic takes; see :class:`pepper.devices.pace.ReferenceKernel`."""
    return {"value": ReferenceKernel().time().arithmetic_us}


def speeds(provider: dict[str, Any], threads: int, seconds: float) -> dict[str, float]:
    """Return what a provider does; see :func:`pepper.devices.providers.speeds.measure_speeds`."""
    return asdict(measure_speeds(provider_named(**provider), threads, seconds))


if __name__ == "__main__":
    serve({"share": share, "run_ms": run_ms, "probe": probe, "pace": pace, "speeds": speeds})
