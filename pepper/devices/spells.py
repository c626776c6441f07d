"""A spell: all of a device's speeds, measured inside its share within some tenths of a second."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pepper.devices.cores import together
from pepper.devices.device import Device, DeviceSpec, Program
from pepper.devices.providers.choice import CPU
from pepper.errors import MeasureError

SHARE_SECONDS = 0.15  # some dozens of turns
KERNEL_SECONDS = 0.08
RUNTIME_SECONDS = 0.05
SLICE_SECONDS = 0.2
TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Spell:
    """What a device did in one spell; each as :class:`pepper.devices.calibration.Calibration` has it."""

    measured_s: float
    share: float
    gflops_single: float
    gflops: float
    memory_single_gbps: float
    memory_gbps: float
    small_gflops: float | None = None
    cache_gbps: float | None = None
    int8_gops: float | None = None
    kernel_us: float | None = None
    runtime: dict[str, float] | None = None


@dataclass(frozen=True)
class Turns:
    """How a device lets its programs run; each as :class:`pepper.devices.calibration.Calibration` has it."""

    throttle_method: str
    cycle_ms: float | None
    slice_ms: float | None


def measure_spells(spec: DeviceSpec, count: int) -> tuple[list[Spell], Turns]:
    """Measure a device's speeds this many times, about half a second each, and how it lets its programs run.

    The kernels take turns, so that a slow second of the machine does not fall on one of them alone.

    Raises:
        DeviceError: The device cannot be set up here.
        MeasureError: A program on it crashed, or its provider runs nothing.
    """
    on_cores = spec.choice.name == CPU
    runtime = None if on_cores else _runtime(spec)
    with together([spec])[0] as device:
        one = _program(device, 0)
        singles = [_speeds(one, spec, share=True, inner=on_cores, integers=on_cores) for _ in range(count)]
        turns = Turns(device.throttle_method, device.cycle_ms, None if device.hands_out else _slice_ms(device, one))
        one.end()
        every, wholes = None, singles
        if (len(spec.cores), spec.threads) != (1, 1):
            every = _program(device)
            wholes = [_speeds(every, spec, integers=on_cores) for _ in range(count)]
            every.end()
        paces: list[float | None] = [None] * count
        if on_cores:
            every = device.start("pepper.devices.calibrator")
            every.confine()
            paces = [_kernel_us(every) for _ in range(count)]
    return [
        Spell(
            measured_s=time.time(),
            share=single["share"],
            gflops_single=single["gflops"],
            gflops=max(whole["gflops"], single["gflops"]),  # it can always run on one
            memory_single_gbps=single["memory_gbps"],
            memory_gbps=max(whole["memory_gbps"], single["memory_gbps"]),
            small_gflops=single.get("small_gflops"),
            cache_gbps=single.get("cache_gbps"),
            int8_gops=max(whole["int8_gops"], single["int8_gops"]) if on_cores else None,
            kernel_us=pace,
            runtime=runtime,
        )
        for single, whole, pace in zip(singles, wholes, paces, strict=True)
    ], turns


def _runtime(spec: DeviceSpec) -> dict[str, float]:
    """Return what the device's provider does."""
    with together([spec])[0] as device:
        program = device.start("pepper.devices.calibrator")
        program.confine()
        return program.request(
            "speeds",
            timeout_s=TIMEOUT_S,
            provider=spec.choice.to_json(),
            threads=spec.threads,
            seconds=RUNTIME_SECONDS,
        )[0]


def _program(device: Device, core: int | None = None) -> Program:
    program = device.start("pepper.devices.calibrator", core)
    _probe(program, device.spec, "gflops", 0.02)  # loads the library, starts its threads
    program.confine()
    return program


def _speeds(
    program: Program, spec: DeviceSpec, *, share: bool = False, inner: bool = False, integers: bool = False
) -> dict[str, float]:
    """Return what a program of the device reaches: the share that it gets, and speeds, inside of the caches, too."""
    found = {}
    if share:
        found["share"] = float(program.request("share", timeout_s=TIMEOUT_S, seconds=SHARE_SECONDS)[0]["value"])
    more = (*(("small_gflops", "cache_gbps") if inner else ()), *(("int8_gops",) if integers else ()))
    for kernel in ("gflops", "memory_gbps", *more):
        found[kernel] = _probe(program, spec, kernel, KERNEL_SECONDS)
    return found


def _probe(program: Program, spec: DeviceSpec, kernel: str, seconds: float) -> float:
    answer, _ = program.request(
        "probe", timeout_s=TIMEOUT_S, provider=spec.choice.to_json(), kernel=kernel, seconds=seconds
    )
    return float(answer["value"])


def _kernel_us(program: Program) -> float | None:
    try:
        return float(program.request("pace", timeout_s=TIMEOUT_S)[0]["value"])
    except MeasureError:
        if not program.alive:
            raise
        return None  # this host does not let it be timed: the profiles say why


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
