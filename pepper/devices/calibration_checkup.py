"""Whether a device's calibration can be trusted, as far as what is kept of it tells; nothing is measured."""

import time
from pathlib import Path

from pepper.config import DeviceConfig
from pepper.devices.calibration import HOLDS, Calibration, known
from pepper.devices.checkup import OK, WARN, Finding
from pepper.devices.cores import resolve
from pepper.errors import PepperError

SPREAD_PERCENT = 25.0
LEAST_SHARE = 0.9  # of what it is to have
LEAST_GAIN = 0.6  # of what as many cores could do
_WHAT = "calibration"


def calibration_checkup(config: DeviceConfig, folder: Path | None = None) -> Finding:
    """Look at a device's calibration.

    Args:
        config: The device.
        folder: Where calibrations are kept; the user's cache by default.
    """
    try:
        spec = resolve(config)
        kept = known(spec, folder)
    except PepperError as error:
        found, _, fix = str(error).partition("; ")
        return Finding(WARN, _WHAT, found, fix)
    if kept is None:
        return Finding(OK, _WHAT, f"{spec.name} has none yet: its first profile makes it")
    now = kept.calibration
    shown = f"{spec.name}: {_speeds(now)}; best of {now.spells}, spread {now.spread_percent:.0f} %"
    shown += f", {_age(time.time() - now.measured_s)} ago"
    renewed = "it is looked at again by each sweep, and taken anew where it no longer holds"
    best = max((each.gflops for each in kept.earlier), default=0.0)
    for odd, what, fix in (
        (now.share < LEAST_SHARE * spec.share, f"a busy loop got {now.share:.2f} of a core", "end what else runs"),
        (now.gflops * (1 + HOLDS) < best, f"an earlier one had {best:.3g} GFLOP/s", "let it cool down, end what else"),
        (now.spread_percent > SPREAD_PERCENT, "the machine is not steady", "end what else runs"),
        (
            spec.threads > 1 and now.gflops < LEAST_GAIN * min(spec.threads, now.cores) * now.gflops_single,
            f"its cores do {now.gflops / now.gflops_single:.1f} times what one does: do they share a physical core?",
            "give it one thread of each physical core (device.cores)",
        ),
    ):
        if odd:
            return Finding(WARN, _WHAT, f"{shown}; {what}", f"{fix}; {renewed}")
    return Finding(OK, _WHAT, shown)


def _speeds(now: Calibration) -> str:
    shown = f"{now.gflops:.3g} GFLOP/s, memory {now.memory_gbps:.3g} GB/s"
    if now.cores > 1 and now.memory_single_gbps is not None:
        shown += f" ({now.gflops_single:.3g} and {now.memory_single_gbps:.3g} on one core)"
    return shown


def _age(seconds: float) -> str:
    for unit, length_s in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} seconds"
