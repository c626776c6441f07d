"""A cell on its calibrated device: what its run is logged with, and what a latency model sees of it."""

from dataclasses import asdict
from typing import Any

from pepper.devices.calibration import Calibration
from pepper.latency.features import Setting
from pepper.sweep.cells import Cell


def setting(cell: Cell, calibration: Calibration) -> Setting:
    """Return the setting of a cell on a calibrated device, as the runs' parameters give it."""
    return Setting.from_params(run_params(cell, calibration))


def run_params(cell: Cell, calibration: Calibration | None) -> dict[str, Any]:
    """Return the parameters of a cell's run: its own facts and the device's, where it could be calibrated."""
    if calibration is None:
        return cell.params()
    facts = {**asdict(calibration), "instruction_sets": " ".join(calibration.instruction_sets)}
    del facts["throttle_method"]
    facts |= {f"runtime_{key}": value for key, value in (facts.pop("runtime") or {}).items()}
    return {**cell.params(), **{f"device_{key}": value for key, value in facts.items()}}
