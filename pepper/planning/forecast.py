"""What a latency model predicts of every part of a model on every device of a fleet."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from pepper.config import LoadConfig, PepperConfig
from pepper.config.placing import Precision
from pepper.console.progress import Told, untold
from pepper.execution.pool import specs
from pepper.fleet import Fleet
from pepper.graph.aligned import ABSENT, aligned
from pepper.graph.borders import Borders, find_borders, find_regions
from pepper.graph.characteristics import FEATURES, Characteristics, CostWarning, every_part
from pepper.graph.ir import Graph
from pepper.graph.model import ModelFile
from pepper.hosts.reach import host_at
from pepper.latency.features import Setting, Values, rows
from pepper.latency.parts import PartPredictor, predict_parts
from pepper.latency.roofline import moved_ms
from pepper.latency.stage_costs import handling_ms, wait_ms
from pepper.placement.problem import ChainProblem
from pepper.placement.sensitivity import Scaling
from pepper.planning.settings import setting
from pepper.sweep.cells import Cell

_MEMORY = [FEATURES.index("weight_bytes"), FEATURES.index("activation_peak_bytes")]


class Forecast:
    """Predicts every part between a model's borders on every device of a fleet.

    Attributes:
        model: The model's file.
        graph: Its graph.
        gaps: A line for each operator whose cost is not known.
        borders: Where parts may begin and end.
        fleet: The devices.
        precisions: Those that parts may run in.
        part_ms: Predicted times at the fleet's loads, (n + 1, n + 1, D) by start, stop and device: of the quickest
            precision, ``inf`` where there is none.
        forms: Which of the precisions that is, in that shape.
        moved_ms: Of these, what a part's inputs take into a device's own memory and its outputs back, in that shape.
        handling_ms: How long a device works on the messages of a part that begins at a border, (n + 1, D).
        message_ms: The same of any part, whatever it receives, (D,).
        byte_ms: The same for each byte that it receives, (D,).
        wait_ms: How long a request waits at each device until it is taken up, by device.
        part_bytes: Memory of each part: its weights and the most activations alive, (n + 1, n + 1); of the precision in
            which it takes most.
        outside: Whether a row lies outside of what the latency model was trained on, shape of `part_ms`.
    """

    def __init__(
        self,
        config: PepperConfig,
        model: ModelFile,
        graph: Graph,
        fleet: Fleet,
        latency_model: PartPredictor,
        told: Told = untold,
        *,
        regions: bool = False,
        whole_in: Mapping[Precision, Graph] | None = None,
    ) -> None:
        """Describe the model, and predict all parts in one batch.

        Args:
            config: The whole configuration.
            model: The model's file.
            graph: Its graph.
            fleet: The devices.
            latency_model: Predicts.
            told: Told of two steps, and of one more for each device.
            regions: Whether parts may begin and end wherever no fusion is broken; else at the cuts that are asked for.
            whole_in: The whole model in each precision that parts may run in; None is its own only.

        Raises:
            ConfigError: This machine cannot give a device.
            ModelError: The model has no operators.
        """
        self._config = config
        self._latency_model = latency_model
        self.fleet, self.model, self.graph = fleet, model, graph
        self._specs = specs(fleet)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CostWarning)
            described = Characteristics(self.graph)
        self.gaps = described.gaps
        macs = np.diff(described.cumulative_macs).tolist()
        cuts = config.cuts
        most = config.place.max_cuts
        self.borders: Borders = (
            find_regions(graph, most, macs)
            if regions
            else find_borders(graph, cuts.kind, cuts.max_tensors, most, macs, cuts.bridge_dist)
        )
        whole_in = whole_in or {Precision.fp32: graph}
        self.precisions = tuple(whole_in)
        own = described.table(*every_part(self.borders.positions))
        self._parts = {
            precision: own if whole is graph else described_as(graph, whole, self.borders)
            for precision, whole in whole_in.items()
        }
        memory = np.stack([parts[:, _MEMORY].sum(axis=1) for parts in self._parts.values()], axis=1)
        memory[np.isnan(memory)] = 0.0
        self.part_bytes = self._by_border(memory.max(axis=1, keepdims=True))[..., 0]
        told("describe the model", f"{len(self.graph.operators)} operators")
        self._settings: dict[str, Setting] = {}
        for name, device in fleet.devices.items():
            self._settings[name] = self._setting(name, device.load)
            told("calibrate the devices", name)
        settings = list(self._settings.values())
        moved = np.hstack([moved_ms(rows(own, setting)) for setting in settings])
        self._moved_ms = self._by_border(moved)
        self._times, self._outside = self._predicted(settings)
        n = len(self.borders.positions)
        self._denied = np.zeros((len(self.precisions), n, n), bool)
        self._choose()
        self.handling_ms = self._handling_ms(settings)
        self.message_ms, self.byte_ms = _messages(settings)
        self.wait_ms = {name: wait_ms(setting) for name, setting in self._settings.items()}
        told("predict", f"{len(own)} parts on {len(settings)} devices")

    def memory_bytes(self, name: str) -> float:
        """Return what the parts on a device may take: its limit, else its host's memory."""
        spec = self._specs[name]
        return float(spec.memory_bytes or host_at(spec.host).facts()["memory_bytes"])

    def loaded(self, name: str) -> Scaling:
        """Return what gives a problem's device another load, in percent, as the latency model sees it."""
        load = self.fleet.devices[name].load
        assert load is not None

        def scale(problem: ChainProblem, percent: float) -> ChainProblem:
            times, handling = problem.part_ms.copy(), problem.handling_ms.copy()
            setting = self._setting(name, replace(load, percent=percent))
            predicted, _ = self._predicted([setting])
            index = problem.index(name)
            times[..., index] = self._allowed(predicted).min(axis=0)[..., 0]
            handling[:, index] = self._handling_ms([setting])[:, 0]
            return replace(problem, part_ms=times, handling_ms=handling)

        return scale

    def own_ms(self, start: int, stop: int, device: str) -> float:
        """Return the predicted time of a part in the model's own precision, by borders."""
        index = list(self.fleet.devices).index(device.partition("#")[0])
        return float(self._times[self.precisions.index(Precision.fp32), start, stop, index])

    def deny(self, precision: Precision, start: int, stop: int, *, overlapping: bool = False) -> None:
        """Let no part run in a precision that holds the steps from one border to another, or overlaps with them."""
        n = len(self.borders.positions)
        starts, stops = np.arange(n)[:, None], np.arange(n)[None, :]
        holds = (starts < stop) & (stops > start) if overlapping else (starts <= start) & (stops >= stop)
        self._denied[self.precisions.index(precision)] |= holds
        self._choose()

    def without(self, precision: Precision) -> list[str]:
        """Return the devices that run no part in a precision."""
        return [name for name, setting in self._settings.items() if not _has(setting, precision)]

    def _choose(self) -> None:
        """Take the quickest precision for each part and device."""
        times = self._allowed(self._times)
        self.forms = times.argmin(axis=0)
        self.part_ms = times.min(axis=0)
        self.outside = np.take_along_axis(self._outside, self.forms[None], axis=0)[0]
        self.moved_ms = np.minimum(self._moved_ms, self.part_ms)

    def _allowed(self, times: Values) -> Values:
        return np.where(self._denied[..., None], np.inf, times)

    def _predicted(self, settings: Sequence[Setting]) -> tuple[Values, npt.NDArray[np.bool_]]:
        """Predict all parts in each precision, and which lie outside of what was trained on: (precisions, n, n, D)."""
        found = []
        for precision, parts in self._parts.items():
            known = ~np.isnan(parts).any(axis=1)
            times = np.full((len(parts), len(settings)), np.inf)
            outside = np.zeros(times.shape)
            times[known], outside[known] = predict_parts(self._latency_model, parts[known], settings)
            times[:, [not _has(setting, precision) for setting in settings]] = np.inf
            found.append((self._by_border(times), self._by_border(outside) == 1))
        every_ms, every_outside = zip(*found, strict=True)
        return np.stack(every_ms), np.stack(every_outside)

    def _setting(self, name: str, load: LoadConfig | None) -> Setting:
        assert load is not None  # else the device has no specification, either
        config, spec = self._config, self._specs[name]
        return setting(Cell(config.model, self.model, spec, load, config.measure), host_at(spec.host).calibrate(spec))

    def _handling_ms(self, settings: Sequence[Setting]) -> Values:
        received = np.array(self.borders.bytes, float)
        return np.stack([handling_ms(setting, received) for setting in settings], axis=1)

    def _by_border(self, values: Values) -> Values:
        """Spread values of parts, shape (P, D), over a table by start and stop; 0 where there is no part."""
        n = len(self.borders.positions)
        table = np.zeros((n, n, values.shape[1]))
        table[np.triu_indices(n, 1)] = values
        return table


def described_as(graph: Graph, form: Graph, borders: Borders) -> Values:
    """Describe the parts between a model's borders in another form of it, (P, columns); NaN where it lacks one."""
    ordered, positions = aligned(graph, form, borders)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CostWarning)
        described = Characteristics(ordered)
    starts, ends = every_part(positions.tolist())
    known = (np.array(starts) != ABSENT) & (np.array(ends) > np.array(starts))
    found = np.full((len(starts), len(FEATURES)), np.nan)
    found[known] = described.table(np.array(starts)[known], np.array(ends)[known])
    return found


def _has(setting: Setting, precision: Precision) -> bool:
    """Whether a device computes in a precision: 8 bits where their speed is known, halves on accelerators.

    The cores' provider has no arithmetic in half precision: it converts around each operator.
    """
    needed = {Precision.int8: setting.device_int8_gops, Precision.fp16: setting.device_runtime_gflops}
    return bool(np.isfinite(needed.get(precision, 0.0)))


def _messages(settings: Sequence[Setting]) -> tuple[Values, Values]:
    """Return by device the work on a message, and on each of its bytes: `handling_ms` is a line."""
    some_bytes = 1e6
    ends = np.stack([handling_ms(setting, np.array([0.0, some_bytes])) for setting in settings])
    return ends[:, 0], (ends[:, 1] - ends[:, 0]) / some_bytes
