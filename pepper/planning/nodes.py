"""The devices of a fleet as nodes to choose from: which of them runs a model fastest."""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pepper.config.composing import Composition
from pepper.execution.pool import specs
from pepper.hosts.reach import host_at
from pepper.latency.features import Setting, Values, rows
from pepper.planning.fleets import assemble
from pepper.planning.settings import setting
from pepper.sweep.cells import Cell


@dataclass(frozen=True)
class Node:
    """A device of a fleet under its load.

    Attributes:
        name: Its name in the fleet.
        host: Its host's name.
        processor: What its host's processor is.
        identifier: A UUID that stays the same as long as the device does.
        setting: What a latency model sees of it.
    """

    name: str
    host: str
    processor: str
    identifier: str
    setting: Setting


def fleet_nodes(composition: Composition) -> list[Node]:
    """Return the devices of the configured fleet, calibrated.

    Raises:
        ConfigError: The fleet is not what it must be.
        DeviceError: A device cannot be calibrated.
    """
    config, fleet = composition.config, assemble(composition)
    found = []
    for name, spec in specs(fleet).items():
        load = fleet.devices[name].load
        assert load is not None  # else it has no specification, either
        cell = Cell(config.model, None, spec, load, config.measure)
        identifier = uuid.uuid5(uuid.NAMESPACE_OID, f"{spec.facts()}")
        host = host_at(spec.host)
        calibrated = setting(cell, host.calibrate(spec))
        found.append(Node(name, host.name, str(host.facts()["cpu_model"]), str(identifier), calibrated))
    return found


def fastest(part: Values, nodes: Sequence[Node], p50_ms: Callable[[Values], Values]) -> tuple[int, float]:
    """Return which node runs a part fastest, and its predicted median latency (ms).

    Args:
        part: Its characteristics, shape (1, len(characteristics.FEATURES)).
        nodes: At least one.
        p50_ms: Predicts the median latency of each row.
    """
    predicted = p50_ms(np.vstack([rows(part, node.setting) for node in nodes]))
    best = int(np.argmin(predicted))
    return best, float(predicted[best])
