"""What this machine is, and the state that it is in."""

import os
import platform
import re
import time
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from pepper.devices import own_limits
from pepper.devices.device import machine_hash

NAME = "here"
CPU = Path("/sys/devices/system/cpu")

# Instruction sets that decide which kernels onnxruntime picks (x86 and Arm names of /proc/cpuinfo).
INSTRUCTION_SETS = (
    "sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16",
    "amx_tile", "amx_int8", "amx_bf16", "asimd", "asimddp", "asimdhp", "fphp", "i8mm", "bf16", "sve", "sve2",
)  # fmt: skip


def allowed_cores() -> list[int]:
    """Return the CPU indices that this process may use, in order."""
    return sorted(psutil.Process().cpu_affinity() or range(os.cpu_count() or 1))


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


@cache
def cpu_facts() -> dict[str, Any]:
    """Return the processor's model, instruction sets, caches (bytes) and nominal frequency (MHz)."""
    info = _read(Path("/proc/cpuinfo")) or ""
    model = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", info, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", info, re.MULTILINE)
    present = set(flags[1].split()) if flags else set()
    caches = {}
    for index in sorted((CPU / "cpu0/cache").glob("index*")):
        size = _read(index / "size")
        if size and _read(index / "type") != "Instruction":
            caches[f"l{_read(index / 'level')}_bytes"] = int(size.removesuffix("K")) * 1024
    frequency = psutil.cpu_freq() if hasattr(psutil, "cpu_freq") else None
    return {
        "cpu_model": model[1] if model else platform.processor() or platform.machine(),
        "instruction_sets": [name for name in INSTRUCTION_SETS if name in present],
        "caches": caches,
        "frequency_mhz": round(frequency.max or frequency.current) if frequency else None,
        "cores": os.cpu_count() or 1,
        "memory_bytes": psutil.virtual_memory().total,
        "system": f"{platform.system()} {platform.release()}",
    }


def likeness(cores: Sequence[int]) -> list[Any]:
    """Return what cores are like: equal for two sets of cores that are as fast, as far as the machine tells.

    Of each core its capacity, highest frequency and cache sizes; of all together, how many of them share a physical
    core, a second- or third-level cache, and a package. What cores outside of the set share with it is not looked at.
    """

    def told(core: int, file: str) -> str | None:
        return _read(CPU / f"cpu{core}" / file)

    own = ("cpu_capacity", "cpufreq/cpuinfo_max_freq", *(f"cache/index{level}/size" for level in range(4)))
    shared = (
        "topology/core_cpus_list",
        "cache/index2/shared_cpu_list",
        "cache/index3/shared_cpu_list",
        "topology/physical_package_id",
    )
    kinds = sorted(([told(core, file) for file in own] for core in cores), key=str)
    return [kinds, [sorted(Counter(told(core, file) for core in cores).values()) for file in shared]]


@cache
def machine_id() -> str:
    """Return a short hash that changes when the processor, its cores or its memory do."""
    return machine_hash(cpu_facts())


def state() -> dict[str, Any]:
    """Return what may differ from one minute to the next and change a latency.

    Governor and current frequency (MHz) by core, temperatures (degrees Celsius), counts of thermal
    throttling, load average, and this process's affinity, CPU quota (cores) and free memory (bytes), as far as its
    control groups leave it; None or empty where the machine does not tell.
    """
    quota, limit = own_limits.cpu_quota(), own_limits.free_memory_bytes()
    available = psutil.virtual_memory().available
    cores = allowed_cores()
    throttles = [_read(CPU / f"cpu{core}/thermal_throttle/core_throttle_count") for core in cores]
    frequencies = psutil.cpu_freq(percpu=True) or []
    return {
        "governor": sorted({_read(CPU / f"cpu{core}/cpufreq/scaling_governor") or "unknown" for core in cores}),
        "frequency_mhz": [round(frequency.current) for frequency in frequencies],
        "temperature_c": {
            name: [entry.current for entry in entries]
            for name, entries in getattr(psutil, "sensors_temperatures", dict)().items()
        },
        "throttle_count": sum(int(count) for count in throttles if count),
        "load_average": list(os.getloadavg()),
        "affinity": cores,
        "cpu_quota_cores": None if quota is None else quota.cores,
        "memory_available_bytes": available if limit is None else min(available, limit),
    }


class CoreTimes:
    """CPU time of chosen cores since a start: how busy they were, and what the hypervisor kept."""

    def __init__(self, cores: list[int]) -> None:
        self._cores = cores
        self._start = self._now()

    def _now(self) -> tuple[float, float]:
        times = psutil.cpu_times(percpu=True)
        chosen = [times[core] for core in self._cores]
        idle = sum(entry.idle + getattr(entry, "iowait", 0.0) for entry in chosen)
        steal = sum(getattr(entry, "steal", 0.0) for entry in chosen)
        busy = sum(sum(entry[:8]) for entry in chosen) - idle - steal  # the first eight do not overlap
        return busy, steal

    def since_start(self) -> tuple[float, float]:
        """Return busy and stolen seconds, summed over the cores (resolution: 10 ms ticks)."""
        busy, steal = self._now()
        return busy - self._start[0], steal - self._start[1]


def busy_percent(cores: list[int], seconds: float = 1.0) -> float:
    """Return how much of these cores' time is used right now, watched for a while."""
    times = CoreTimes(cores)
    started_s = time.monotonic()
    time.sleep(seconds)
    busy_s, _ = times.since_start()
    return max(0.0, min(100.0, 100.0 * busy_s / (len(cores) * (time.monotonic() - started_s))))
