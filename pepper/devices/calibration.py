"""A device's measured characteristics: what a latency model learns instead of the device's name."""

import contextlib
import json
import math
import os
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pepper.caches import cache_folder
from pepper.devices import host
from pepper.devices.cores import likeness
from pepper.devices.device import DeviceSpec
from pepper.devices.providers.choice import CPU
from pepper.devices.spells import Spell, Turns, measure_spells
from pepper.documents import read_json

SPELLS = 3
"""Spells of a first calibration, and of one that is to take another's place."""
MOST_SPELLS = 8
"""The newest of which the best figures are taken."""
RENEWED_S = 600.0
"""A sweep adds a spell if the newest is as old."""
HOLDS = 0.15
"""How much slower, relative, a device may have become before its calibration no longer holds."""
MOST_EARLIER = 8
_MOST, _MOST_SHARE = 1e7, 1.5  # GFLOP/s and GB/s that no device has, and more than a core has to give, measured anyhow
_SPEEDS = ("gflops_single", "gflops", "memory_single_gbps", "memory_gbps", "small_gflops", "cache_gbps", "int8_gops")
VERSION = 5  # raise it when a kernel changes: old cache files are then measured again
RUNTIME_VERSION = 2  # the same of what execution providers are measured with


@dataclass(frozen=True)
class Calibration:
    """How fast a device is, measured inside its share: the best of some spells, for others' work only takes from it.

    Attributes:
        gflops_single: Single-precision matrix product on one core, GFLOP/s.
        gflops: The same with all of the device's threads.
        memory_gbps: Large copies by all of the device's threads at once, read and write together, GB/s.
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
        kernel_us: CPU time of the reference kernel's arithmetic (see :mod:`pepper.devices.pace`), microseconds: the
            device's pace now is this over what it takes now. None where it cannot be timed or the provider is not the
            CPU's own.
        memory_single_gbps: Large copy by one thread.
        small_gflops: Product of small matrices on one core; None where the provider is not the CPU's own.
        cache_gbps: Copy by one thread within the second-level cache; None as above.
        int8_gops: Product of matrices of 8 bits with all of the device's threads, billions of operations a second;
            None as above.
        spells: Number of spells.
        spread_percent: How far the median spell lay below the best one, of the speed where that was most.
        measured_s: When the newest of them was measured, seconds since 1970.
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
    memory_single_gbps: float | None = None
    small_gflops: float | None = None
    cache_gbps: float | None = None
    int8_gops: float | None = None
    spells: int = 1
    spread_percent: float = 0.0
    measured_s: float = 0.0


@dataclass(frozen=True)
class CalibrationRecord:
    """What is kept of a device's speeds.

    Attributes:
        calibration: The one in use.
        spells: Those that it is the best of, the newest last.
        earlier: Calibrations that no longer held, the newest first.
    """

    calibration: Calibration
    spells: list[Spell]
    earlier: list[Calibration]


def calibrate(spec: DeviceSpec, folder: Path | None = None, *, renew: bool = False) -> Calibration:
    """Return the device's characteristics, measuring them (some three seconds) the first time.

    Devices that are the same hardware under the same limits share one calibration (see
    :func:`pepper.devices.cores.likeness`): on a shared machine two measurements of memory speed differ by up to 40 %
    from hour to hour, and so would the predictions made of them.

    Args:
        spec: The device.
        folder: Where measured calibrations are kept; the user's cache by default.
        renew: Whether to measure another spell where the last one is some minutes old. A calibration made in a slow
            moment becomes as fast as the device is; one that the device no longer reaches is measured anew, and kept
            among the earlier ones.

    Raises:
        ConfigError: The cache cannot be written.
        DeviceError: The device cannot be set up here.
        MeasureError: A program on it crashed.
    """
    spec = replace(spec, memory_bytes=None)  # a limit makes nothing faster or slower, but the kernels need room
    file = _file(spec, folder)
    kept = _read(file)
    if kept is None:
        found = measure(spec)
    elif renew and not 0 <= time.time() - kept.calibration.measured_s < RENEWED_S:
        found = _renewed(spec, kept)
    else:
        return kept.calibration
    draft = file.with_suffix(f".{os.getpid()}")
    try:
        draft.write_text(json.dumps(asdict(found), indent=2))
        draft.replace(file)
    except OSError:  # a folder is there, say: it is measured again next time
        draft.unlink(missing_ok=True)
    return found.calibration


def known(spec: DeviceSpec, folder: Path | None = None) -> CalibrationRecord | None:
    """Return what is kept of the device; nothing is measured.

    Raises:
        ConfigError: The cache cannot be written.
    """
    return _read(_file(replace(spec, memory_bytes=None), folder))


def _file(spec: DeviceSpec, folder: Path | None) -> Path:
    version = str(VERSION) if spec.choice.name == CPU else f"{VERSION}.{RUNTIME_VERSION}"
    return (folder or cache_folder("calibration")) / f"{likeness(spec)}-v{version}.json"


def _read(file: Path) -> CalibrationRecord | None:
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):  # absent, or damaged: measured (again)
        document: dict[str, Any] = read_json(file)
        spells = [Spell(**each) for each in document["spells"]]
        for spell in spells:
            _check_spell(spell)
        if not spells:
            raise ValueError("nothing measured")
        earlier = [_checked(Calibration(**each)) for each in document["earlier"]]
        return CalibrationRecord(_checked(Calibration(**document["calibration"])), spells, earlier)
    return None


def _check_spell(spell: Spell) -> None:
    """Make sure that a spell that was read can have been measured; raises as `_checked`."""
    if not isinstance(spell.runtime, dict | None):
        raise TypeError("no speeds by name")
    others = {"measured_s", "runtime"}
    speeds = (value for name, value in vars(spell).items() if name not in others and value is not None)
    _check_speeds((*speeds, *(spell.runtime or {}).values()))
    if not (spell.share <= _MOST_SHARE and 0 <= spell.measured_s < math.inf):
        raise ValueError("no spell")


def _checked(kept: Calibration) -> Calibration:
    """Return a calibration that was read if it can have been measured.

    Raises:
        TypeError: A field is of another type.
        ValueError: A speed is none.
    """
    if not isinstance(kept.runtime, dict | None):
        raise TypeError("no speeds by name")
    runtime = (kept.runtime or {}).values()
    speeds = (kept.gflops_single, kept.gflops, kept.memory_gbps, kept.share, kept.cores, kept.spells, *runtime)
    may_lack = (kept.cycle_ms, kept.slice_ms, kept.kernel_us, *(getattr(kept, name) for name in _SPEEDS))
    _check_speeds((*speeds, *(value for value in may_lack if value is not None)))
    if kept.share > _MOST_SHARE:
        raise ValueError("no share")
    sizes = (kept.l1_bytes, kept.l2_bytes, kept.l3_bytes, kept.frequency_mhz or 0, kept.spread_percent, kept.measured_s)
    if any(isinstance(value, bool) for value in sizes):
        raise TypeError("a truth value")
    if not all(0 <= value < math.inf for value in sizes):
        raise ValueError("no size")
    if not all(isinstance(text, str) for text in (kept.cpu_model, kept.throttle_method, *kept.instruction_sets)):
        raise TypeError("no text")
    return kept


def _check_speeds(values: Iterable[float]) -> None:
    values = list(values)
    if any(isinstance(value, bool) for value in values):
        raise TypeError("a truth value")
    if not all(0 < value < _MOST for value in values):
        raise ValueError("no speed")


def measure(spec: DeviceSpec) -> CalibrationRecord:
    """Measure the device now; nothing is known of it.

    Raises:
        DeviceError: It cannot be set up here.
        MeasureError: A program on it crashed, or its provider runs nothing.
    """
    spells, turns = measure_spells(spec, SPELLS)
    return CalibrationRecord(_best(spec, spells, turns), spells, [])


def _renewed(spec: DeviceSpec, kept: CalibrationRecord) -> CalibrationRecord:
    """Add a spell to what is kept; if it is slower, some more; if the best of them is, too, they take its place."""
    spells, turns = measure_spells(spec, 1)
    if _slower(spells, kept.calibration):
        more, turns = measure_spells(spec, SPELLS - 1)
        spells += more
        if _slower(spells, kept.calibration):
            return CalibrationRecord(
                _best(spec, spells, turns), spells, [kept.calibration, *kept.earlier][:MOST_EARLIER]
            )
    spells = [*kept.spells, *spells][-MOST_SPELLS:]
    return CalibrationRecord(_best(spec, spells, turns), spells, kept.earlier)


def _slower(spells: Sequence[Spell], calibration: Calibration) -> bool:
    """Whether the device reached one of its calibration's speeds in none of some spells."""
    reached = [(_most(spells, name), getattr(calibration, name)) for name in _SPEEDS]
    return any(now is not None and before is not None and now * (1 + HOLDS) < before for now, before in reached)


def _most(spells: Sequence[Spell], name: str) -> float | None:
    values = [getattr(spell, name) for spell in spells]
    return max((value for value in values if value is not None), default=None)


def _best(spec: DeviceSpec, spells: Sequence[Spell], turns: Turns) -> Calibration:
    facts = host.cpu_facts()
    speeds: dict[str, Any] = {name: _most(spells, name) for name in _SPEEDS}
    spreads = [
        100 * (1 - statistics.median(getattr(spell, name) for spell in spells) / best)
        for name, best in speeds.items()
        if best is not None
    ]
    return Calibration(
        **speeds,
        share=max(spell.share for spell in spells),
        kernel_us=min((spell.kernel_us for spell in spells if spell.kernel_us is not None), default=None),
        runtime=_best_runtime([spell.runtime for spell in spells if spell.runtime is not None]),
        cores=len(spec.cores),
        frequency_mhz=facts["frequency_mhz"],
        l1_bytes=facts["caches"].get("l1_bytes", 0),
        l2_bytes=facts["caches"].get("l2_bytes", 0),
        l3_bytes=facts["caches"].get("l3_bytes", 0),
        instruction_sets=facts["instruction_sets"],
        cpu_model=facts["cpu_model"],
        **asdict(turns),
        spells=len(spells),
        spread_percent=max(spreads),
        measured_s=max(spell.measured_s for spell in spells),
    )


def _best_runtime(spells: Sequence[dict[str, float]]) -> dict[str, float] | None:
    """Return the best of what a provider did: speeds are large, times are short."""
    names = spells[0] if spells else ()
    best = {name: (min if name.endswith("_ms") else max)(spell[name] for spell in spells) for name in names}
    return best or None
