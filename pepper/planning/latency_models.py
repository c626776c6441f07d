"""What the tasks about latency models share: the registry, and what a version holds."""

from pathlib import Path

import numpy as np

from pepper.config import PepperConfig
from pepper.errors import LatencyError
from pepper.latency import collect
from pepper.latency.dataset import Rows
from pepper.latency.error_components import error_components
from pepper.latency.features import FEATURES
from pepper.latency.model import LatencyModel
from pepper.measure.noise import NoiseFloor
from pepper.placement.decision import Spread
from pepper.planning.shipped import SHIPPED, LatencyModels, called
from pepper.tracking.registry import MODEL_FOLDER, Registry, write_signature
from pepper.tracking.store import Store

_OUTPUTS = ("p50_ms", "p95_ms", "low_ms", "high_ms")


def open_registry(config: PepperConfig) -> LatencyModels:
    """Open the registry of latency models, with the one that pepper ships."""
    return LatencyModels(Store(config.tracking), config.latency.registered_model)


def load_version(registry: Registry, version: int) -> LatencyModel:
    """Load a registered latency model.

    Raises:
        LatencyError: It was trained on another feature list than this pepper has.
        TrackingError: There is no such version.
    """
    with registry.artifacts(version, MODEL_FOLDER) as folder:
        try:
            return LatencyModel.load(folder)
        except LatencyError as error:
            reason = str(error).removeprefix(f"{folder}: ").removeprefix(f"{folder}/")
            raise LatencyError(f"{called(registry.name, version)}: {reason}") from error


def chosen_version(registry: Registry, version: int | None) -> int:
    """Return the version asked for, or the champion; where there is none, the model that pepper ships."""
    found = version if version is not None else registry.champion()
    return SHIPPED if found is None else found


def write_version(folder: Path, model: LatencyModel, rows: Rows, train: Rows, test: Rows) -> None:
    """Write what a version holds: the model with its signature, and its rows, those trained on and those held out."""
    model.save(folder / MODEL_FOLDER)
    write_signature(folder / MODEL_FOLDER, FEATURES, _OUTPUTS)
    for name, part in (("rows", rows), ("train", train), ("test", test)):
        collect.write(part, folder / "dataset" / f"{name}.parquet")


def trained_rows(registry: Registry, version: int) -> Rows:
    """Return the rows that a version was trained on.

    Of one that was adapted to a device it is those of the training before.

    Raises:
        LatencyError: They cannot be read.
        TrackingError: There is no such version, or its rows are gone.
    """
    version, _ = _trained(registry, version)
    with registry.artifacts(version, "dataset") as folder:
        return collect.read(folder / "train.parquet")


def noise_floor(registry: Registry, version: int) -> NoiseFloor | None:
    """Return how far two measurements of a cell differed in what a version learned from; None if none was repeated.

    Raises:
        TrackingError: There is no such version.
    """
    return NoiseFloor.read(_trained(registry, version)[1])


def _trained(registry: Registry, version: int) -> tuple[int, dict[str, str]]:
    """Return the version that was trained, of one that was adapted to a device the one before, and its tags."""
    while adapted_from := (tags := registry.tags(version)).get("adapted_from"):
        version = int(adapted_from)
    return version, tags


def load_spread(registry: Registry, version: int) -> Spread:
    """Return how far a version's predictions lie off, by what its training held out.

    Of one that was adapted to a device it is what the training before held out.

    Raises:
        LatencyError: Its predictions cannot be read.
        TrackingError: There is no such version, or its predictions are gone.
    """
    import pandas as pd

    version, _ = _trained(registry, version)
    columns = ["model", "device", "part", "p50_ms", "predicted_without_model_ms"]
    with registry.artifacts(version, "predictions.csv") as file:
        try:
            table = pd.read_csv(file, usecols=columns).dropna(subset="predicted_without_model_ms")  # was held out
            ratio = (table["p50_ms"] / table["predicted_without_model_ms"]).to_numpy(float)
            if not np.all((ratio > 0) & (ratio < np.inf)):
                raise ValueError("a latency that is no number above 0")
        except (ValueError, TypeError) as error:  # the parser's errors among them
            reason = " ".join(str(error).split())
            raise LatencyError(
                f"{registry.name} version {version}: predictions.csv cannot be read ({reason}); train again with"
                " task=train"
            ) from error
    model, device, part = (table[name].to_numpy(str) for name in ("model", "device", "part"))
    return Spread(*error_components(np.log(ratio), model, device, part))
