"""Whether newer measurements disagree with a latency model: then something has changed that it does not know."""

from collections.abc import Collection

import numpy as np

from pepper.config import PepperConfig
from pepper.errors import LatencyError, TrackingError
from pepper.fleet import Fleet
from pepper.latency.collect import collect
from pepper.latency.dataset import Rows
from pepper.latency.model import LatencyModel
from pepper.planning.latency_models import trained_rows
from pepper.planning.shipped import called
from pepper.tracking.history import history
from pepper.tracking.registry import Registry
from pepper.tracking.store import Store

LEAST = 5
"""Cells of a device that tell something."""


def measured_names(fleet: Fleet) -> list[str]:
    """Return what the devices of a fleet are called where they are measured."""
    devices = [each.device for each in fleet.devices.values() if each.device is not None]
    return sorted({each.name if each.host is None else f"{each.name}@{each.host}" for each in devices})


def disagreements(
    config: PepperConfig, registry: Registry, version: int, model: LatencyModel, devices: Collection[str]
) -> list[str]:
    """Say on which devices measurements disagree with a version that was not trained on them, one line each.

    Args:
        config: The whole configuration.
        registry: Where the version is registered.
        version: The version.
        model: The same, loaded.
        devices: The devices' names.
    """
    store = Store(config.tracking)
    try:
        logged = history(store)
        if "params.device" not in logged:
            return []
        rows = collect(logged[logged["params.device"].isin(list(devices))], store.folder / "cache").rows
        known = trained_rows(registry, version)
    except (LatencyError, TrackingError):  # nothing is there to disagree, or the store is away
        return []
    fresh = rows.without(known)
    found = []
    for name in devices:
        there = fresh.take(fresh.device == name)
        if (times := off_by(model, there)) is not None:
            found.append(
                f"{name}: {len(there)} measurements that {called(registry.name, version)} has not learned from take"
                f" {times:.2f} times what it predicts, by median, beyond its 90 % interval: the machine or its software"
                " has changed, or is another one; learn again with task=train"
            )
    return found


def off_by(model: LatencyModel, there: Rows) -> float | None:
    """Return how many times longer a device's cells take than predicted, by median; None where that is no surprise.

    It is one where at least half of the cells lie on one side of the interval that holds nine of ten.
    """
    if len(there) < LEAST:
        return None
    said = model.predict(there.features)
    above, below = np.mean(there.p50_ms > said.high_ms), np.mean(there.p50_ms < said.low_ms)
    return float(np.median(there.p50_ms / said.p50_ms)) if max(above, below) >= 0.5 else None
