"""``task=predict``: how long a model would take on a device under a load, and how sure that is."""

import math
import sys
import warnings
from dataclasses import asdict, dataclass

from pepper.config import PepperConfig
from pepper.config.composing import Composition
from pepper.console.frames import Framed
from pepper.console.progress import StepProgress
from pepper.console.tables import show
from pepper.errors import ConfigError
from pepper.graph.characteristics import Characteristics, CostWarning, in_kinds
from pepper.graph.ir import check_operators
from pepper.hosts.reach import host_at
from pepper.latency.features import rows
from pepper.latency.model import Prediction
from pepper.latency.ranges import in_short
from pepper.latency.unseen import UnseenPrediction
from pepper.measure.noise import NoiseFloor
from pepper.planning.latency_models import chosen_version, load_version, noise_floor, open_registry
from pepper.planning.settings import setting
from pepper.sweep.axes import single_cell
from pepper.tasks.absent import absent_device
from pepper.tasks.result import Result


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
        version: Its version.
        adapted_with: How many measurements of this device it was adapted with; 0 if it was not.
        noise: How far two measurements of a cell differed in what it was trained on; None if none was repeated.
        warnings: Why the prediction may be off, one line each.
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


def predict(composition: Composition) -> Result:
    """Print the predicted median, 95th percentile and interval."""
    said = prediction(composition.config)
    tail = "" if math.isnan(said.p95_ms) else f", 95th percentile {said.p95_ms:.3g} ms"
    show(f"{said.name}: median {said.p50_ms:.3g} ms{tail}", **asdict(said))
    show(f"  90 % of models never seen take {said.low_ms:.3g} to {said.high_ms:.3g} ms where this is said")
    by = f", adapted to this device with {said.adapted_with} measurements" if said.adapted_with else ""
    show(f"  by {said.registered_model} version {said.version}{by}")
    if said.noise:
        show(f"  noise floor of what it learned from: {said.noise}")
    for line in said.warnings:
        print(f"warning: {line}", file=sys.stderr)
    return Result()


def prediction(config: PepperConfig) -> ModelPrediction:
    """Ask the champion, or the version that the configuration names.

    Raises:
        LatencyError: There is no champion, or it has another feature list.
        ModelError: The model cannot be read, or has no operators.
    """
    absent = config.predict.device
    if absent is not None and config.load.percent:
        raise ConfigError(
            f"load={config.load.name}: of predict.device={absent} only idle latencies are known; drop load"
        )
    with StepProgress(3, config.is_quiet, seldom=True) as progress:
        registry = open_registry(config)
        version = chosen_version(registry, config.latency.version)
        model = load_version(registry, version)
        progress.advance("load the latency model", f"version {version}")
        cell = single_cell(config)
        assert cell.model is not None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CostWarning)
            graph = cell.model.graph()
            check_operators(graph)
            characteristics = Characteristics(graph)
        progress.advance("describe the model", f"{len(graph.operators)} operators")
        part = characteristics.table([0], [len(graph.operators)])
        said: Prediction | UnseenPrediction
        if absent is not None:
            device = absent_device(config, absent)
            progress.advance("learn the device", absent)
            said, adapted, doubts = device.predict(part), len(device.latency_ms), device.warnings()
        else:
            row = rows(part, setting(cell, host_at(cell.device.host).calibrate(cell.device)))
            progress.advance("calibrate the device", cell.device.name)
            said, doubts = model.predict(row), in_short(model.out_of_range(row))
            there = [adaptation.measurements for adaptation in model.adaptations if adaptation.of_device(row)[0]]
            adapted = there[-1] if there else 0
    gaps = [f"{gap}; the prediction counts it as nothing" for gap in in_kinds(characteristics.gaps)]
    return ModelPrediction(
        name=cell.name if absent is None else f"{cell.model.name} / {absent} / idle",
        p50_ms=float(said.p50_ms[0]),
        p95_ms=float(said.p95_ms[0]) if isinstance(said, Prediction) else math.nan,
        low_ms=float(said.low_ms[0]),
        high_ms=float(said.high_ms[0]),
        registered_model=registry.name,
        version=version,
        adapted_with=adapted,
        noise=noise_floor(registry, version),
        warnings=[*gaps, *doubts],
    )
