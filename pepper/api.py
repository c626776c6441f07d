"""pepper from Python: the same code as the tasks, with typed results that show themselves as data frames."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from html import escape
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pepper.config import ModelConfig, OutputMode, PepperConfig
from pepper.config.composing import Composition, compose, compose_tree
from pepper.console.frames import Framed, FramedRows
from pepper.errors import ConfigError, MeasureError, PlacementError
from pepper.graph.balance import balanced_cuts
from pepper.graph.costs import operator_macs, operator_work
from pepper.graph.cuts import find_cuts
from pepper.graph.ir import Graph
from pepper.graph.model import load_configured
from pepper.placement.plan import Plan
from pepper.planning.placing import find_plan
from pepper.planning.predicting import ModelPrediction
from pepper.report.placement_tables import PlanLine
from pepper.report.placements import plan_lines, verdict, warnings
from pepper.sweep.axes import single_cell
from pepper.tasks.cuts import CutRow, cut_rows
from pepper.tasks.predict import prediction
from pepper.tasks.profile import measure_cells
from pepper.tasks.split import PartRow, part_rows

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class ModelProfile(Framed):
    """What a measurement gave.

    Attributes:
        model: What was measured.
        device: Where.
        load: Under which load.
        verdict: ``VALID``, or ``INVALID``: then ``reasons`` says why the figures should not be trusted.
        p50_ms: Median latency.
        low_ms: Lower end of the median's 95 % confidence interval.
        high_ms: Its upper end.
        reasons: Why it is INVALID; empty otherwise.
        run_id: The run in MLflow; None if the store is away and the result waits on disk.
        metrics: All figures; each name carries its unit.
    """

    model: str
    device: str
    load: str
    verdict: str
    p50_ms: float
    low_ms: float
    high_ms: float
    reasons: str
    run_id: str | None
    metrics: dict[str, float]


@dataclass(frozen=True)
class ModelPlacement:
    """Which device of a fleet runs which part, and how good that is.

    Attributes:
        plan: The plan that was chosen.
        verdict: How good it is, how sure that is, and whether splitting is worth it.
        plans: That plan beside what people do without a solver, a row each; ``ratio`` is to the best one.
        warnings: Why the predictions may be off, one line each.
    """

    plan: Plan
    verdict: str
    plans: FramedRows[PlanLine]
    warnings: list[str]

    def to_frame(self) -> "pd.DataFrame":
        """Return the plan's parts as a data frame, a row each."""
        return FramedRows(self.plan.parts).to_frame()

    def save(self, path: str | PathLike[str]) -> None:
        """Write the plan as the JSON file that ``task=execute`` runs.

        Raises:
            PlacementError: The file cannot be written.
        """
        try:
            self.plan.save(Path(path))
        except OSError as error:
            raise PlacementError(f"{path}: cannot be written ({error.strerror}); choose another file") from error

    def _repr_html_(self) -> str:
        said = (*self.verdict.splitlines(), *self.warnings)
        lines = "".join(f"<p>{escape(line)}</p>" for line in said)
        return f"{FramedRows(self.plan.parts)._repr_html_()}{lines}{self.plans._repr_html_()}"


@dataclass(frozen=True)
class Model:
    """An ONNX model, ready to be looked at, measured, predicted and placed.

    Attributes:
        config: The model as the configuration names it.
    """

    config: ModelConfig

    @cached_property
    def graph(self) -> Graph:
        """The model as operators and tensors."""
        return load_configured(self.config)

    def cuts(self, kind: str = "tensors", max_tensors: int = 4, bridge_dist: int = 1) -> FramedRows[CutRow]:
        """Return where the model can be cut, and what crosses there.

        Args:
            kind: ``tensors`` (one tensor crosses), ``bridges`` or ``frontiers`` (up to ``max_tensors``).
            max_tensors: The most tensors that may cross at a frontier.
            bridge_dist: The least distance of two cuts, in operators.

        Raises:
            ModelError: The model cannot be read, or there is no such kind.
        """
        return FramedRows(cut_rows(self.graph, find_cuts(self.graph, kind, max_tensors, bridge_dist)))

    def parts(self, count: int, kind: str = "tensors", max_tensors: int = 4) -> FramedRows[PartRow]:
        """Return parts of nearly equal work.

        Args:
            count: How many.
            kind: Which cuts to choose from, as in :meth:`cuts`.
            max_tensors: As there.

        Raises:
            ModelError: The model cannot be read, or has too few cuts.
        """
        graph, work = self.graph, operator_work(self.graph)
        cuts = balanced_cuts(graph, find_cuts(graph, kind, max_tensors), count, work)
        return FramedRows(part_rows(graph, cuts, operator_macs(graph), work))

    def profile(self, *overrides: str, **options: object) -> ModelProfile:
        """Measure the model, and log the run to MLflow.

        Args:
            *overrides: As on the command line, such as ``device.threads=1``.
            **options: The same for groups: ``device="share50", load="cpu25", measure="quick"``.

        Raises:
            ConfigError: There is no such option, or a value does not fit.
            DeviceError: The device cannot be set up here.
            MeasureError: The model could not be measured.
            TrackingError: The store does not answer.
        """
        config = self._configured(_written(overrides, options))
        measured = measure_cells(config, [single_cell(config)])
        if measured.failures:
            raise MeasureError(measured.failures[0])
        (row,) = measured.rows
        return ModelProfile(
            **{key: row[key] for key in ("model", "device", "load", "verdict", "reasons")},
            p50_ms=row["latency_p50_ms"],
            low_ms=row["latency_p50_low_ms"],
            high_ms=row["latency_p50_high_ms"],
            run_id=row.get("run_id"),
            metrics={key: value for key, value in row.items() if isinstance(value, float)},
        )

    def predict(self, *overrides: str, **options: object) -> ModelPrediction:
        """Ask the champion, or ``latency.version``, how long the model would take.

        Args:
            *overrides: As on the command line.
            **options: The same for groups: ``device="share50", load="cpu25"``.

        Raises:
            ConfigError: There is no such option, or a value does not fit.
            LatencyError: The champion cannot be used by this pepper.
        """
        return prediction(self._configured(_written(overrides, options)))

    def place(self, *overrides: str, **options: object) -> ModelPlacement:
        """Decide where to cut the model and which device of a fleet runs each part, by the champion's predictions.

        Nothing is logged or drawn: ``task=place`` does that.

        Args:
            *overrides: As on the command line, such as ``place.pinned.camera=4``.
            **options: The same for groups: ``fleet="three_shares", link="wifi", objective="latency"``.

        Raises:
            ConfigError: There is no such option, or the fleet, a limit or a pin is not what it must be.
            LatencyError: The champion cannot be used by this pepper.
            PlacementError: No plan keeps to the rules.
        """
        given = _written(overrides, options)
        config = self._configured(given)
        if config.place.out:
            raise ConfigError(f"place.out={config.place.out}: nothing is written there; save what model.place returns")
        placed = find_plan(Composition(config, tuple(given), compose_tree))
        return ModelPlacement(
            placed.plan,
            verdict(placed, config.place.confidence),
            FramedRows(plan_lines(placed, front=config.objective.wants_front)),
            list(warnings(placed)),
        )

    def _configured(self, overrides: Sequence[str]) -> PepperConfig:
        for text in overrides:
            group = text.lstrip("+~").split("=")[0].split(".")[0]
            if group in ("model", "sweep"):
                raise ConfigError(f"{text}: this model is meant, alone; pepper.load another one")
            if group in ("task", "output"):
                raise ConfigError(f"{text}: has no meaning here; call the method that does what you want")
        return replace(compose(overrides), model=self.config, output=OutputMode.quiet)


def _written(overrides: Sequence[str], options: Mapping[str, object]) -> list[str]:
    """Return overrides and options as the command line has them."""
    return [*overrides, *(f"{key}={value}" for key, value in options.items())]


def load(
    model: str | PathLike[str],
    *,
    name: str | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    dims: Mapping[str, int] | None = None,
    batch: int | None = None,
    inputs: Mapping[str, object] | None = None,
    inputs_file: str | PathLike[str] | None = None,
) -> Model:
    """Return a model; its file is read when something is asked of it.

    Args:
        model: An ``.onnx`` file, an address such as ``variant://3``, or an option's name such as ``resnet50``.
        name: How runs and tables call it; taken from the file's name where it is not given.
        shapes: Whole shapes by input name.
        dims: Sizes by symbolic dimension name.
        batch: Size of a dynamic first dimension (1 if not given).
        inputs: Values by input name: a number or text for all of it, a list or array of its shape, or
            ``{"low": 0, "high": 30000}`` to draw from. Others are drawn.
        inputs_file: An ``.npz`` file of arrays by input name: the better way for large ones.

    Raises:
        ConfigError: There is no option of that name, or a size does not fit.
    """
    path = str(model)
    is_file = Path(path).suffix != "" or "://" in path
    config = ModelConfig(path) if is_file else compose([f"model={path}"]).model
    changed = replace(
        config,
        name=name or config.name,
        shapes=config.shapes if shapes is None else {key: list(shape) for key, shape in shapes.items()},
        dims=config.dims if dims is None else dict(dims),
        batch=config.batch if batch is None else batch,
        inputs=config.inputs if inputs is None else {key: _plain(value) for key, value in inputs.items()},
        inputs_file=config.inputs_file if inputs_file is None else str(inputs_file),
    )
    return Model(changed)


def _plain(value: object) -> object:
    """Return an array as the lists that a configuration holds."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
