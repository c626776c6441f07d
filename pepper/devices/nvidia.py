"""The state of an NVIDIA GPU, as its driver's management library tells it (NVML; the package nvidia-ml-py brings it).

It is asked by the process that measures, never by the timed worker, and imported where a device is such a GPU only.
"""

from collections.abc import Callable
from typing import Any

_HELD = {
    0x04: "power limit",
    0x08: "hardware slowdown",
    0x20: "too hot (software)",
    0x40: "too hot (hardware)",
    0x80: "power brake",
}
"""Why clocks are held down, by bit of NVML's ``nvmlClocksThrottleReason...``; the others are idleness and settings."""

_FAULTS = 0x08 | 0x20 | 0x40 | 0x80
"""Those that no GPU in good order has; a power limit is reached by any that is busy."""


def gpu_state(uuid: str) -> dict[str, Any]:
    """Return what may differ from one minute to the next: ``clock_mhz``, ``memory_clock_mhz``, ``temperature_c``,
    ``power_w``, ``memory_used_bytes``, ``held`` (why the clock is held down, a list), ``faulty`` (those reasons that
    spoil a measurement); besides ``name``, ``driver``, ``memory_total_bytes``. What the GPU does not tell is left out;
    empty where the library is not installed, or does not know the GPU.

    Args:
        uuid: The GPU's.
    """
    try:
        import pynvml as nvml
    except ImportError:
        return {}
    try:
        nvml.nvmlInit()  # counted by the library: again, and it costs nothing
        gpu = nvml.nvmlDeviceGetHandleByUUID(uuid)
    except nvml.NVMLError:
        return {}
    asked: dict[str, Callable[[], Any]] = {
        "name": lambda: _text(nvml.nvmlDeviceGetName(gpu)),
        "driver": lambda: _text(nvml.nvmlSystemGetDriverVersion()),
        "clock_mhz": lambda: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM),
        "memory_clock_mhz": lambda: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_MEM),
        "temperature_c": lambda: nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU),
        "power_w": lambda: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000,
        "memory_used_bytes": lambda: nvml.nvmlDeviceGetMemoryInfo(gpu).used,
        "memory_total_bytes": lambda: nvml.nvmlDeviceGetMemoryInfo(gpu).total,
        "held": lambda: _reasons(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu), 0xFF),
        "faulty": lambda: _reasons(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu), _FAULTS),
    }
    found = {}
    for name, ask in asked.items():
        try:
            found[name] = ask()
        except nvml.NVMLError:
            continue
    return found


def _text(told: str | bytes) -> str:
    return told.decode() if isinstance(told, bytes) else told


def _reasons(bits: int, of: int) -> list[str]:
    return [reason for bit, reason in _HELD.items() if bits & of & bit]
