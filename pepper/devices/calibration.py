"""A device's measured characteristics: what a latency model learns instead of the device's name."""

import contextlib
import json
import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pepper.caches import cache_folder
from pepper.devices import host
from pepper.devices.cores import likeness, together
from pepper.devices.device import Device, DeviceSpec, Program
from pepper.devices.providers.choice import CPU, Choice
from pepper.documents import read_json
from pepper.errors import MeasureError

SECONDS = 0.15
TRIALS = 4
RUNTIME_SECONDS = 0.05
SLICE_SECONDS = 0.2
TIMEOUT_S = 120.0
_MOST, _MOST_SHARE = 1e7, 1.5  # GFLOP/s and GB/s that no device has, and more than a core has to give, measured anyhow
VERSION = 3  # raise it when a kernel changes: old cache files are then measured again


@dataclass(frozen=True)
class Calibration:
    """How fast a device is, measured inside its share.

    Attributes:
        gflops_single: Single-precision matrix product on one core, GFLOP/s.
        gflops: The same with all of the device's threads.
        memory_gbps: Large copy, read and write together, GB/s.
        share: CPU time that a core really gave to a busy loop, as a fraction of wall time.
        cores: Number of cores.
        frequency_mhz: The processor's frequency; None where the machine does not tell.
        l1_bytes: First-level data cache.
        l2_bytes: Second-level cache.
        l3_bytes: Third-level cache.
        instruction_sets: Those that decide which kernels onnxruntime picks.
        cpu_model: The processor's name.
        throttle_method: What held the device to its share.
        cycle_ms: Mean length of the cycle in which that lets it run and wait; None where nothing stops it.
        slice_ms: How long the system lets one of two busy programs run on one of its cores; None where the device
            itself decides who runs, or it could not be told.
        runtime: What its execution provider does, as :class:`pepper.devices.providers.speeds.Speeds` has it; None for
            the CPU's own, which computes as fast as the cores do.
        kernel_us: CPU time of the reference kernel (see :mod:`pepper.devices.pace`) at that speed, the least of some
            trials, microseconds: the device's pace now is this over what it takes now. None where it cannot be timed
            or the provider is not the CPU's own.
    """

    gflops_single: float
    gflops: float
    memory_gbps: float
    share: float
    cores: int
    frequency_mhz: int | None
    l1_bytes: int
    l2_bytes: int
    l3_bytes: int
    instruction_sets: list[str]
    cpu_model: str
    throttle_method: str
    cycle_ms: float | None = None
    slice_ms: float | None = None
    runtime: dict[str, float] | None = None
    kernel_us: float | None = None


def calibrate(spec: DeviceSpec, folder: Path | None = None) -> Calibration:
    """Return the device's characteristics, measuring them (about two seconds) the first time.

    Devices that differ in nothing but which of some equal cores they have share one calibration: on a shared machine
    two measurements of memory speed differ by up to 40 % from hour to hour, and so would the predictions made of them.

    Args:
        spec: The device.
        folder: Where measured calibrations are kept; the user's cache by default.

    Raises:
        ConfigError: The cache cannot be written.
        DeviceError: The device cannot be set up here.
        MeasureError: A program on it crashed.
    """
    spec = replace(spec, memory_bytes=None)  # a limit makes nothing faster or slower, but the kernels need room
    file = (folder or cache_folder("calibration")) / f"{likeness(spec)}-v{VERSION}.json"
    with contextlib.suppress(OSError, ValueError, TypeError):  # absent, or damaged: measured (again)
        return _checked(Calibration(**read_json(file)))
    calibration = measure(spec)
    draft = file.with_suffix(f".{os.getpid()}")
    try:
        draft.write_text(json.dumps(asdict(calibration), indent=2))
        draft.replace(file)
    except OSError:  # a folder is there, say: it is measured again next time
        draft.unlink(missing_ok=True)
    return calibration


def _checked(kept: Calibration) -> Calibration:
    """Return a calibration that was read if it can have been measured.

    Raises:
        TypeError: A field is of another type.
        ValueError: A speed is none.
    """
    if not isinstance(kept.runtime, dict | None):
        raise TypeError("no speeds by name")
    runtime = (kept.runtime or {}).values()
    speeds = (kept.gflops_single, kept.gflops, kept.memory_gbps, kept.share, kept.cores, *runtime)
    speeds += tuple(value for value in (kept.cycle_ms, kept.slice_ms, kept.kernel_us) if value is not None)
    sizes = (kept.l1_bytes, kept.l2_bytes, kept.l3_bytes, kept.frequency_mhz or 0)
    if any(isinstance(value, bool) for value in (*speeds, *sizes)):
        raise TypeError("a truth value")
    if kept.share > _MOST_SHARE or not all(0 < value < _MOST for value in speeds):
        raise ValueError("no speed")
    if not all(0 <= value < math.inf for value in sizes):
        raise ValueError("no size")
    if not all(isinstance(text, str) for text in (kept.cpu_model, kept.throttle_method, *kept.instruction_sets)):
        raise TypeError("no text")
    return kept


def measure(spec: DeviceSpec) -> Calibration:
    """Measure the device now."""
    runtime = None
    if spec.choice.name != CPU:
        with _alone(spec) as device:
            runtime = _runtime(device)
    with _alone(spec) as device:
        one = device.start("pepper.devices.calibrator", 0)
        one.confine()
        share = _share(one)
        memory_gbps = _best(one, spec.choice, "memory_gbps")
        method, cycle_ms = device.throttle_method, device.cycle_ms
        slice_ms = None if device.hands_out else _slice_ms(device, one)
    kernel_us = None
    if spec.choice.name == CPU:
        with _alone(spec) as device:
            kernel_us = _kernel_us(device)
    # A process of its own for each thread count: a library fixes it at its start.
    single_spec = replace(spec, cores=spec.cores[:1], threads=1)
    with _alone(single_spec) as device:
        gflops_single = _gflops(device)
    if spec.threads == 1 and len(spec.cores) == 1:
        gflops = gflops_single
    else:
        with _alone(spec) as device:
            gflops = _gflops(device)
    facts = host.cpu_facts()
    return Calibration(
        gflops_single=gflops_single,
        gflops=max(gflops, gflops_single),  # it can always run on one
        memory_gbps=memory_gbps,
        share=share,
        cores=len(spec.cores),
        frequency_mhz=facts["frequency_mhz"],
        l1_bytes=facts["caches"].get("l1_bytes", 0),
        l2_bytes=facts["caches"].get("l2_bytes", 0),
        l3_bytes=facts["caches"].get("l3_bytes", 0),
        instruction_sets=facts["instruction_sets"],
        cpu_model=facts["cpu_model"],
        throttle_method=method,
        cycle_ms=cycle_ms,
        slice_ms=slice_ms,
        runtime=runtime,
        kernel_us=kernel_us,
    )


def _alone(spec: DeviceSpec) -> Device:
    return together([spec])[0]


def _gflops(device: Device) -> float:
    program, provider = device.start("pepper.devices.calibrator"), device.spec.choice
    _probe(program, provider, "gflops", 0.05)  # loads the library, starts its threads
    program.confine()
    return _best(program, provider, "gflops")


def _kernel_us(device: Device) -> float | None:
    program = device.start("pepper.devices.calibrator")
    program.confine()
    try:
        return min(float(program.request("pace", timeout_s=TIMEOUT_S)[0]["value"]) for _ in range(TRIALS))
    except MeasureError:
        if not program.alive:
            raise
        return None  # this host does not let it be timed: the profiles say why


def _runtime(device: Device) -> dict[str, float]:
    """Return what the device's provider does.

    Raises:
        MeasureError: It runs nothing.
    """
    program, spec = device.start("pepper.devices.calibrator"), device.spec
    program.confine()
    return program.request(
        "speeds",
        timeout_s=TIMEOUT_S,
        provider=spec.choice.to_json(),
        threads=spec.threads,
        seconds=RUNTIME_SECONDS,
    )[0]


def _best(program: Program, provider: Choice, kernel: str) -> float:
    """Return the best of a few trials: whatever else runs here can only take from it."""
    return max(_probe(program, provider, kernel, SECONDS) for _ in range(TRIALS))


def _probe(program: Program, provider: Choice, kernel: str, seconds: float) -> float:
    answer, _ = program.request(
        "probe", timeout_s=TIMEOUT_S, provider=provider.to_json(), kernel=kernel, seconds=seconds
    )
    return float(answer["value"])


def _slice_ms(device: Device, program: Program) -> float | None:
    """Return how long a program of the device runs at a time beside another one that is busy, too."""
    other = device.start("pepper.devices.calibrator", 0)
    other.request("share", timeout_s=TIMEOUT_S, seconds=0.001)  # it is up
    other.confine()
    with ThreadPoolExecutor(1) as pool:
        busy = pool.submit(other.request, "share", timeout_s=TIMEOUT_S, seconds=SLICE_SECONDS)
        answer, _ = program.request("run_ms", timeout_s=TIMEOUT_S, seconds=SLICE_SECONDS)
        busy.result()
    other.end()
    value = answer["value"]
    return None if value is None else float(value)


def _share(program: Program) -> float:
    """Return the best of a few trials, as above."""
    asked = (program.request("share", timeout_s=TIMEOUT_S, seconds=SECONDS) for _ in range(TRIALS))
    return max(float(answer["value"]) for answer, _ in asked)
