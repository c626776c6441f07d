"""The setting that a latency model sees of a cell."""

from dataclasses import asdict

from pepper.devices.calibration import Calibration
from pepper.latency.features import Setting
from pepper.sweep.cells import Cell


def setting(cell: Cell, calibration: Calibration) -> Setting:
    """Return the setting of a cell on a calibrated device, as the runs' parameters give it."""
    return Setting.from_params(
        {**cell.params(), **{f"device_{key}": value for key, value in asdict(calibration).items()}}
    )
