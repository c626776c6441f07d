"""Cells as latency models see them, and what one says of them."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pepper.console.frames import Framed
from pepper.console.progress import Told, untold
from pepper.graph.characteristics import Characteristics, CostWarning, in_kinds
from pepper.graph.ir import Graph, check_operators
from pepper.hosts.reach import host_at
from pepper.latency.explanation import Explanation
from pepper.latency.features import Values, rows
from pepper.latency.ranges import OutOfRange, in_short
from pepper.measure.noise import NoiseFloor
from pepper.planning.latency_models import load_version, noise_floor
from pepper.planning.settings import setting
from pepper.planning.shipped import caution
from pepper.sweep.cells import Cell
from pepper.tracking.registry import Registry


@dataclass(frozen=True)
class ModelPrediction(Framed):
    """What a latency model says of a cell.

    Attributes:
        name: The cell.
        p50_ms: Median.
        p95_ms: 95th percentile of single inferences; NaN if the latency model was trained without.
        low_ms: Lower end of the interval that the true median lies in, for a model never seen, in 90 % of cases.
        high_ms: Its upper end.
        registered_model: The latency model's name in the registry.
        version: Its version; 0 is the one that pepper ships.
        adapted_with: How many measurements of this device it was adapted with; 0 if it was not.
        noise: How far two measurements of a cell differed in what it was trained on; None if none was repeated.
        warnings: Why the prediction may be off, one line each.
        explanation: What the median is made of, where that was asked for and the latency model has an estimate.
    """

    name: str
    p50_ms: float
    p95_ms: float
    low_ms: float
    high_ms: float
    registered_model: str
    version: int
    adapted_with: int
    noise: NoiseFloor | None
    warnings: list[str]
    explanation: Explanation | None = None


@dataclass(frozen=True)
class DescribedCell:
    """A cell as latency models see it.

    Attributes:
        name: Its name.
        row: Its features, shape (1, len(features.FEATURES)).
        gaps: What is not known of the model's cost, one line each.
    """

    name: str
    row: Values
    gaps: list[str]


class Predictor:
    """One version of a latency model, loaded to predict cells.

    Args:
        registry: Where it is registered.
        version: Its version.

    Attributes:
        version: Its version.
        model: The latency model.
        noise: How far two measurements of a cell differed in what it was trained on; None if none was repeated.

    Raises:
        LatencyError: It has another feature list than this pepper.
        TrackingError: There is no such version.
    """

    def __init__(self, registry: Registry, version: int) -> None:
        self.version, self.model = version, load_version(registry, version)
        self._registry = registry
        self.noise = noise_floor(registry, version)

    def predict(self, cells: Sequence[DescribedCell]) -> list[ModelPrediction]:
        """Predict cells, at least one, in one go."""
        rows = np.vstack([cell.row for cell in cells])
        result = self.model.predict(rows)
        named: list[list[OutOfRange]] = [[] for _ in cells]
        for value in self.model.out_of_range(rows) if result.outside.any() else ():
            named[value.row].append(value)
        cautions = caution(self._registry, self.version)
        counts = [adaptation.measurements * adaptation.of_device(rows) for adaptation in self.model.adaptations]
        return [
            ModelPrediction(
                name=cell.name,
                p50_ms=float(result.p50_ms[row]),
                p95_ms=float(result.p95_ms[row]),
                low_ms=float(result.low_ms[row]),
                high_ms=float(result.high_ms[row]),
                registered_model=self._registry.name,
                version=self.version,
                adapted_with=next((int(count[row]) for count in reversed(counts) if count[row]), 0),
                noise=self.noise,
                warnings=[*cautions, *cell.gaps, *in_short(named[row])],
            )
            for row, cell in enumerate(cells)
        ]


def describe_cell(cell: Cell, told: Told = untold) -> DescribedCell:
    """Describe a cell of a whole model, on a device that is calibrated for it if need be.

    Args:
        cell: The cell.
        told: Told of two steps.

    Raises:
        ModelError: The model cannot be read, or has no operators.
    """
    assert cell.model is not None
    part, gaps = whole_part(cell.model.graph(), told)
    row = rows(part, setting(cell, host_at(cell.device.host).calibrate(cell.device)))
    told("calibrate the device", cell.device.name)
    return DescribedCell(cell.name, row, gaps)


def whole_part(graph: Graph, told: Told = untold) -> tuple[Values, list[str]]:
    """Return the characteristics of a whole model, shape (1, columns), and what is not known of them.

    Args:
        graph: The model.
        told: Told of one step.

    Raises:
        ModelError: It has no operators.
    """
    check_operators(graph)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CostWarning)
        characteristics = Characteristics(graph)
    operators = len(graph.operators)
    told("describe the model", f"{operators} operators")
    gaps = [f"{gap}; the prediction counts it as nothing" for gap in in_kinds(characteristics.gaps)]
    return characteristics.table([0], [operators]), gaps
