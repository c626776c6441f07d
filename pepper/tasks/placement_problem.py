"""From a model, a fleet and a latency model to a placement problem."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from pepper.config import PepperConfig
from pepper.devices.calibration import calibrate
from pepper.errors import ConfigError
from pepper.graph.borders import Borders, find_borders
from pepper.graph.characteristics import FEATURES, Characteristics, CostWarning, every_part
from pepper.graph.model import ModelFile, find_model
from pepper.latency.features import Setting, Values
from pepper.latency.messages import handling_ms, wait_ms
from pepper.latency.model import LatencyModel
from pepper.latency.parts import predict_parts
from pepper.placement.problem import ChainProblem, Device, Limits
from pepper.placement.sensitivity import Scaling
from pepper.report.progress import Told, untold
from pepper.sweep.cells import Cell
from pepper.tasks.fleet import Fleet, FleetDevice, known
from pepper.tasks.settings import setting


class Forecast:
    """Predicts every part between a model's borders on every device of a fleet.

    Attributes:
        model: The model's file.
        graph: Its graph.
        gaps: A line for each operator whose cost is not known.
        borders: Where parts may begin and end.
        fleet: The devices.
        part_ms: Predicted times at the fleet's loads, (n + 1, n + 1, D) by start, stop and device.
        handling_ms: How long a device works on the messages of a part that begins at a border, (n + 1, D).
        wait_ms: How long a request waits at each device until it is taken up, by device.
        part_bytes: Memory of each part: its weights and the most activations alive, (n + 1, n + 1).
        outside: Whether a row lies outside of what the latency model was trained on, shape of `part_ms`.
    """

    def __init__(self, config: PepperConfig, fleet: Fleet, latency_model: LatencyModel, told: Told = untold) -> None:
        """Load and describe the model, and predict all parts in one batch.

        Args:
            config: The whole configuration.
            fleet: The devices.
            latency_model: Predicts.
            told: Told of two steps, and of one more for each device.

        Raises:
            ModelError: The model cannot be read or has no operators.
        """
        self._config = config
        self._latency_model = latency_model
        self.fleet = fleet
        self.model: ModelFile = find_model(config.model)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CostWarning)
            self.graph = self.model.graph()
            described = Characteristics(self.graph)
        self.gaps = described.gaps
        macs = np.diff(described.cumulative_macs).tolist()
        cuts = config.cuts
        self.borders: Borders = find_borders(self.graph, cuts.kind, cuts.max_tensors, config.place.max_cuts, macs)
        self._parts = described.table(*every_part(self.borders.positions))
        memory = self._parts[:, [FEATURES.index("weight_bytes"), FEATURES.index("activation_peak_bytes")]]
        self.part_bytes = self._by_border(memory.sum(axis=1, keepdims=True))[..., 0]
        told("describe the model", f"{len(self.graph.operators)} operators")
        self._settings: dict[str, Setting] = {}
        for device in fleet.devices:
            self._settings[device.name] = self._setting(device)
            told("calibrate the devices", device.name)
        settings = list(self._settings.values())
        times, outside = predict_parts(latency_model, self._parts, settings)
        self.part_ms = self._by_border(times)
        self.handling_ms = self._handling_ms(settings)
        self.wait_ms = {name: wait_ms(setting) for name, setting in self._settings.items()}
        self.outside = self._by_border(outside.astype(float)) == 1
        told("predict", f"{len(self._parts)} parts on {len(settings)} devices")

    def loaded(self, device: FleetDevice) -> Scaling:
        """Return what gives a problem's device another load, in percent, as the latency model sees it."""

        def scale(problem: ChainProblem, percent: float) -> ChainProblem:
            times, handling = problem.part_ms.copy(), problem.handling_ms.copy()
            there = replace(device, load=replace(device.load, percent=percent))
            setting = self._setting(there)
            predicted, _ = predict_parts(self._latency_model, self._parts, [setting])
            index = problem.index(device.name)
            times[..., index] = self._by_border(predicted)[..., 0]
            handling[:, index] = self._handling_ms([setting])[:, 0]
            return replace(problem, part_ms=times, handling_ms=handling)

        return scale

    def _setting(self, device: FleetDevice) -> Setting:
        config = self._config
        cell = Cell(config.model, self.model, device.spec, device.load, config.measure)
        return setting(cell, calibrate(device.spec))

    def _handling_ms(self, settings: Sequence[Setting]) -> Values:
        received = np.array(self.borders.bytes, float)
        return np.stack([handling_ms(setting, received) for setting in settings], axis=1)

    def _by_border(self, values: Values) -> Values:
        """Spread values of parts, shape (P, D), over a table by start and stop; 0 where there is no part."""
        n = len(self.borders.positions)
        table = np.zeros((n, n, values.shape[1]))
        table[np.triu_indices(n, 1)] = values
        return table


def chain_problem(config: PepperConfig, forecast: Forecast) -> ChainProblem:
    """Return the problem that the configuration poses.

    Raises:
        ConfigError: A pin or an excluded device contradicts the fleet, the model or another one.
    """
    place, objective, fleet = config.place, config.objective, forecast.fleet
    names = [device.name for device in fleet.devices]
    known("place.excluded", place.excluded, names)
    limits = {
        "latency_ms": objective.max_latency_ms,
        "period_ms": objective.min_per_second and 1000 / objective.min_per_second,
        "sent_bytes": objective.max_sent_bytes,
        "parts": place.max_parts,
    }
    most = objective.max_memory_bytes if objective.max_memory_bytes is not None else np.inf
    return ChainProblem.of(
        [
            Device(device.name, min(device.memory_bytes, most), device.count, forecast.wait_ms[device.name])
            for device in fleet.devices
        ],
        forecast.part_ms,
        np.array(forecast.borders.bytes, float),
        fleet.links,
        forecast.part_bytes,
        forecast.handling_ms,
        excluded=place.excluded,
        source=fleet.source,
        sink=fleet.sink,
        pinned=_pins(place.pinned, names, place.excluded, forecast.borders.positions),
        labels=[f"operators {start} to {end}" for start, end in pairwise(forecast.borders.positions)],
        limits=Limits(**{name: value for name, value in limits.items() if value is not None}),
    )


def _pins(
    pinned: Mapping[str, list[int]], names: list[str], excluded: list[str], positions: tuple[int, ...]
) -> dict[int, str]:
    """Turn pinned operators into pinned steps: a step goes with any of its operators."""
    known("place.pinned", pinned, names)
    steps: dict[int, str] = {}
    for name, (start, end) in pinned.items():
        if name in excluded:
            raise ConfigError(f"place.pinned.{name}: the device is in place.excluded too; drop one of them")
        if end > positions[-1]:
            raise ConfigError(f"place.pinned.{name}=[{start},{end}]: the model has {positions[-1]} operators")
        for step in range(len(positions) - 1):
            if positions[step] < end and start < positions[step + 1]:
                other = steps.setdefault(step, name)
                if other != name:
                    raise ConfigError(
                        f"place.pinned.{name}=[{start},{end}]: no cut parts it from what is pinned to {other!r}"
                        f" (operators {positions[step]} to {positions[step + 1]} go together)"
                    )
    return steps
