"""``task=predict``: how long a model would take on a device under a load, and how sure that is."""

import math
import sys
from dataclasses import asdict, replace

from pepper.config import PepperConfig
from pepper.config.composing import Composition
from pepper.console.progress import StepProgress
from pepper.console.tables import show
from pepper.errors import ConfigError
from pepper.latency.explanation import explain
from pepper.planning.drift import disagreements
from pepper.planning.latency_models import chosen_version, open_registry
from pepper.planning.predicting import ModelPrediction, Predictor, describe_cell, whole_part
from pepper.planning.shipped import called, caution
from pepper.sweep.axes import single_cell
from pepper.tasks.absent import absent_device
from pepper.tasks.result import Result


def predict(composition: Composition) -> Result:
    """Print the predicted median, 95th percentile and interval."""
    said = prediction(composition.config)
    tail = "" if math.isnan(said.p95_ms) else f", 95th percentile {said.p95_ms:.3g} ms"
    show(f"{said.name}: median {said.p50_ms:.3g} ms{tail}", **asdict(said))
    show(f"  90 % of models never seen take {said.low_ms:.3g} to {said.high_ms:.3g} ms where this is said")
    by = f", adapted to this device with {said.adapted_with} measurements" if said.adapted_with else ""
    show(f"  by {called(said.registered_model, said.version)}{by}")
    if said.noise:
        show(f"  noise floor of what it learned from: {said.noise}")
    for name, ms in asdict(said.explanation).items() if said.explanation else ():
        if ms and name != "p50_ms":
            show(f"  {name.removesuffix('_ms'):<12}{ms:>+12.4g} ms{ms / said.p50_ms:>+9.1%}")
    for line in said.warnings:
        print(f"warning: {line}", file=sys.stderr)
    return Result()


def prediction(config: PepperConfig) -> ModelPrediction:
    """Ask the champion, or the version that the configuration names.

    Raises:
        LatencyError: The latency model has another feature list.
        ModelError: The model cannot be read, or has no operators.
    """
    absent = config.predict.device
    if absent is not None and not config.load.is_silent:
        raise ConfigError(
            f"load={config.load.name}: of predict.device={absent} only idle latencies are known; drop load"
        )
    with StepProgress(3, config.is_quiet, seldom=True) as progress:
        registry = open_registry(config)
        predictor = Predictor(registry, chosen_version(registry, config.latency.version))
        progress.advance("load the latency model", f"version {predictor.version}")
        cell = single_cell(config)
        if absent is None:
            described = describe_cell(cell, progress.advance)
            said = predictor.predict([described])[0]
            against = disagreements(config, registry, predictor.version, predictor.model, [cell.device.name])
            said = replace(said, warnings=[*said.warnings, *against])
            wanted = config.predict.explain
            return replace(said, explanation=explain(predictor.model, described.row)) if wanted else said
        assert cell.model is not None
        part, gaps = whole_part(cell.model.graph(), progress.advance)
        device = absent_device(config, absent)
        progress.advance("learn the device", absent)
        there = device.predict(part)
    return ModelPrediction(
        name=f"{cell.model.name} / {absent} / idle",
        p50_ms=float(there.p50_ms[0]),
        p95_ms=math.nan,
        low_ms=float(there.low_ms[0]),
        high_ms=float(there.high_ms[0]),
        registered_model=registry.name,
        version=predictor.version,
        adapted_with=len(device.latency_ms),
        noise=predictor.noise,
        warnings=[*caution(registry, predictor.version), *gaps, *device.warnings()],
    )
