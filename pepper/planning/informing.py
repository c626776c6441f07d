"""A sweep with a budget: which of its cells are measured."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from pepper.config import PepperConfig
from pepper.config.measuring import Rerun
from pepper.console.tables import show
from pepper.devices.calibration import Calibration
from pepper.devices.device import DeviceSpec
from pepper.errors import DeviceError, LatencyError, MeasureError
from pepper.hosts.reach import host_at
from pepper.latency import collect
from pepper.latency.dataset import Rows
from pepper.latency.informative import LEAST, choose
from pepper.planning.settings import run_params
from pepper.sweep.cells import Cell
from pepper.tracking.history import STANDING, finished_cells, history
from pepper.tracking.store import Store


def within_budget(
    config: PepperConfig,
    cells: Sequence[Cell],
    track: Callable[[Sequence[DeviceSpec]], Iterable[DeviceSpec]] = iter,
) -> list[Cell]:
    """Return the cells of a sweep that are measured within ``sweep.budget``, and say which these are and why.

    VALID ones count, so that a sweep that was interrupted goes on to the same number, and one with a larger budget
    learns from what was measured.

    Args:
        config: The whole configuration, with a sweep.
        cells: All of its cells.
        track: Told of the devices that are calibrated.

    Raises:
        LatencyError: A model cannot be described.
        TrackingError: The store does not answer.
    """
    assert config.sweep is not None
    budget = config.sweep.budget
    if budget is None or budget >= len(cells):
        return list(cells)
    store = Store(config.tracking)
    table = history(store)
    finished = finished_cells(table, STANDING[Rerun.failed], {cell.identity for cell in cells})
    known = [cell for cell in cells if cell.identity in finished]
    left, measured = max(0, budget - len(known)), None
    if left:
        try:
            measured = collect.collect(table, store.folder / "cache").rows
        except LatencyError:
            measured = None  # nothing was
    chosen = _chosen(store, cells, known, measured, left, config.sweep.seed, track)
    why = "half drawn, half those that stand best for the others"
    if measured is not None and len(measured) >= LEAST:
        why += f" where latency models that learned from draws of {len(measured)} measurements disagree"
    show(
        f"sweep {config.sweep.name}: {len(chosen)} more of {len(cells)} cells,"
        f" {len(known)} of a budget of {budget} are VALID before; {why}",
        budget=budget,
        chosen=[cell.name for cell in chosen],
    )
    wanted = {cell.identity for cell in (*known, *chosen)}
    return [cell for cell in cells if cell.identity in wanted]


def _chosen(
    store: Store,
    cells: Sequence[Cell],
    known: Sequence[Cell],
    measured: Rows | None,
    count: int,
    seed: int,
    track: Callable[[Sequence[DeviceSpec]], Iterable[DeviceSpec]],
) -> list[Cell]:
    if not count:
        return []
    calibrations: dict[str, Calibration] = {}
    for device in track(list({cell.device.identity: cell.device for cell in cells}.values())):
        try:
            calibrations[device.identity] = host_at(device.host).calibrate(device)
        except (DeviceError, MeasureError):
            continue  # its cells would fail, and teach nothing
    free = [cell for cell in cells if cell.model is not None and cell.device.identity in calibrations]
    if not free:
        return list(cells[:count])  # they say why
    params = [run_params(cell, calibrations[cell.device.identity]) for cell in free]
    features = collect.describe(params, store.folder / "cache")
    parts = np.array([cell.model.content_hash for cell in free if cell.model])
    before = {cell.identity for cell in known}
    places = np.array([place for place, cell in enumerate(free) if cell.identity in before], int)
    return [free[place] for place in choose(features, parts, places, measured, count, seed)]
