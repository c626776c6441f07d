"""What predicts the parts of a real model: a latency model that has not seen it, or the champion."""

from pathlib import Path

import numpy as np

from benchmarks.common import composed
from pepper.config import conf_dir
from pepper.latency.collect import collect
from pepper.latency.dataset import Rows
from pepper.latency.error_components import error_components
from pepper.latency.model import LatencyModel
from pepper.placement.decision import Spread
from pepper.planning.latency_models import chosen_version, load_spread, load_version, open_registry
from pepper.tracking.history import history
from pepper.tracking.store import Store

NOT_MODELS = ("onnx", "variants")  # options that stand for files of one's own, and for made-up models


def real_models() -> list[str]:
    """Return the options of real models."""
    found = (file.stem for file in sorted((conf_dir() / "model").glob("*.yaml")))
    return [name for name in found if name not in NOT_MODELS]


class Predictors:
    """A latency model and the spread of its errors for each model's cases.

    Args:
        folder: The store's.
        champion: Whether the store's champion predicts, not a model trained without the case's.
    """

    def __init__(self, folder: Path, champion: bool) -> None:
        self._config = composed(f"tracking.uri=sqlite:///{folder}/mlflow.db", f"tracking.folder={folder}")
        self._champion = champion
        self._rows: Rows | None = None
        self._fitted: dict[str, LatencyModel] = {}

    def of(self, model: str) -> tuple[LatencyModel, Spread]:
        """Return what predicts this model's parts."""
        if self._champion:
            registry = open_registry(self._config)
            version = chosen_version(registry, None)
            return load_version(registry, version), load_spread(registry, version)
        rows = self._collected()
        others = [name for name in real_models() if name != model and name in rows.model]
        logs, known = [], []
        for name in others:
            of = rows.take(rows.model == name)
            known.append(of)
            logs.append(np.log(of.p50_ms / self._without(name).p50_ms(of.features)))
        names = (np.concatenate([getattr(of, name) for of in known]) for name in ("model", "device", "part"))
        return self._without(model), Spread(*error_components(np.concatenate(logs), *names))

    def _without(self, model: str) -> LatencyModel:
        if model not in self._fitted:
            rows = self._collected()
            known = rows.take(rows.model != model)
            self._fitted[model] = LatencyModel.fit(known.features, known.p50_ms)
        return self._fitted[model]

    def _collected(self) -> Rows:
        if self._rows is None:
            store = Store(self._config.tracking)
            self._rows = collect(history(store), store.folder / "cache").rows
        return self._rows
