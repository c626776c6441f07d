"""What is found out about cells before they are measured: their devices' calibrations, and what their models cost."""

import contextlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from pepper.devices.calibration import Calibration
from pepper.devices.device import DeviceSpec
from pepper.errors import DeviceError, MeasureError, ModelError
from pepper.hosts.reach import host_at
from pepper.latency import description
from pepper.latency.description import Track
from pepper.sweep.cells import Cell


def calibrated(
    cells: Sequence[Cell], track: Callable[[Sequence[DeviceSpec]], Iterable[DeviceSpec]], *, lenient: bool
) -> tuple[dict[str, Calibration], list[Cell]]:
    """Calibrate the cells' devices; return what was found, and the cells with the error of those that cannot be.

    Raises:
        DeviceError: A device cannot be set up, and `lenient` does not say that its cells are to fail.
    """
    calibrations: dict[str, Calibration] = {}
    errors: dict[str, str] = {}
    there = {cell.device.identity: cell.device for cell in cells if cell.model is None or cell.error is None}
    for device in track(list(there.values())):
        try:
            calibrations[device.identity] = host_at(device.host).calibrate(device, renew=True)
        except (DeviceError, MeasureError) as error:
            if isinstance(error, DeviceError) and not lenient:
                raise
            errors[device.identity] = str(error)
    return calibrations, [replace(cell, error=errors.get(cell.device.identity, cell.error)) for cell in cells]


def described_models(cells: Sequence[Cell], cache: Path, track: Track) -> dict[str, str]:
    """Describe the cells' models as they are measured, by the cells' identities; what cannot be described is not."""
    texts: dict[str, str] = {}
    plain: dict[str, tuple[description.Model, str]] = {}
    for cell in cells:
        if cell.model and (cell.model.given or cell.model.inner_shapes):  # what it costs is this cell's alone
            with contextlib.suppress(ModelError):
                texts[cell.identity] = description.encode(description.describe_model(cell.model))
        elif cell.model:
            model = cell.model.content_hash, json.dumps(cell.model.shapes)
            plain[cell.identity] = model, str(cell.model.file)
    found, _ = description.describe_all(dict(plain.values()), description.kept_in(cache), track)
    return texts | {key: description.encode(found[model]) for key, (model, _) in plain.items() if model in found}
