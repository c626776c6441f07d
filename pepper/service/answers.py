"""Answers that come at once: each asks a task, and what it takes long to prepare is kept for the next request."""

import threading
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from pepper.config import ModelConfig, conf_dir
from pepper.config.composing import Composition
from pepper.config.overrides import keys_of
from pepper.errors import PepperError
from pepper.graph.characteristics import FEATURES
from pepper.graph.cuts import find_cuts
from pepper.graph.model import load_configured
from pepper.hosts import reach
from pepper.hosts.roll import HostThere, hosts_there
from pepper.latency.baselines import BASELINES
from pepper.latency.baselines import Predictor as Baseline
from pepper.latency.features import Values
from pepper.planning.latency_models import chosen_version, open_registry, trained_rows
from pepper.planning.nodes import Node, fastest, fleet_nodes
from pepper.planning.predicting import DescribedCell, ModelPrediction, Predictor, describe_cell, whole_part
from pepper.service.problems import Refused, refusal_of
from pepper.service.requests import CellAsked, CutsAsked, Sizes
from pepper.service.shelf import Shelf
from pepper.sweep.axes import single_cell
from pepper.tasks.cuts import cut_rows

SERVED_GROUPS = (
    *("tracking", "latency", "measure", "device", "load", "fleet", "link", "objective"),
    *("hosts", "prometheus"),
)
"""What of the service's own command line counts for what it is asked."""
ASKED_GROUPS = ("device", "load", "fleet", "link", "objective", "measure")
"""What requests choose an option of."""
CHAMPION_S = 2.0
"""The champion is looked up again after that long."""
_KEPT = 1024

Kept = TypeVar("Kept")


class Answers:
    """Asks the tasks.

    Args:
        composition: The service's configuration, and what options are composed from.
        shelf: The models.
        folders: The user's own options.
    """

    def __init__(self, composition: Composition, shelf: Shelf, folders: Sequence[Path]) -> None:
        self._composition, self._shelf, self._folders = composition, shelf, folders
        self._lock = threading.RLock()  # Hydra, and the warnings and the collector held while graphs are read
        self._registry = open_registry(composition.config)
        self._looked_up: tuple[float, int] | None = None
        self._composed = lru_cache(_KEPT)(self._compose)
        self._described = lru_cache(_KEPT)(self._describe)
        self._part = lru_cache(_KEPT)(self._characterise)
        self._predictor = lru_cache(2)(lambda version: Predictor(self._registry, version))
        self._baseline = lru_cache(1)(self._train_baseline)
        self._nodes = lru_cache(1)(lambda: fleet_nodes(self.composed("load=idle")))
        self.predictions = 0

    def overrides(self, *asked: str) -> list[str]:
        """Return overrides behind those of the service's own command line that they leave standing."""
        groups = {key.split(".")[0] for override in asked for key in keys_of(override)}
        return [
            *(
                own
                for own in self._composition.overrides
                for group in {key.split(".")[0] for key in keys_of(own)}
                if group in SERVED_GROUPS and group not in groups
            ),
            *asked,
        ]

    def composed(self, *asked: str) -> Composition:
        """Return the configuration that a request's overrides make.

        Raises:
            ConfigError: There is no such option.
        """
        return self._once(self._composed, *asked)

    def _compose(self, *asked: str) -> Composition:
        return self._composition.anew(self.overrides("output=quiet", *asked))

    def options(self) -> dict[str, list[str]]:
        """Return the options that requests may choose from, by group."""
        return {
            group: sorted(
                {file.stem for folder in (conf_dir(), *self._folders) for file in (folder / group).glob("*.yaml")}
            )
            for group in ASKED_GROUPS
        }

    def characteristics(self, model: str, sizes: Sizes) -> dict[str, Any]:
        """Return the characteristics of a model, by name, and what is not known of them."""
        row, gaps = self.part(model, sizes)
        values = dict(zip(FEATURES, row[0].tolist(), strict=True))
        return {"model": model, "operators": int(values["operators"]), "characteristics": values, "warnings": gaps}

    def part(self, model: str, sizes: Sizes) -> tuple[Values, list[str]]:
        """Return the characteristics of a model, shape (1, columns), and what is not known of them."""
        return self._once(self._part, model, sizes.model_dump_json(include=set(Sizes.model_fields)))

    def _characterise(self, model: str, sizes: str) -> tuple[Values, list[str]]:
        return self._said_of(model, lambda: whole_part(load_configured(self._model(model, sizes))))

    def cuts(self, model: str, asked: CutsAsked) -> dict[str, Any]:
        """Return where a model can be cut, as ``task=cuts`` does."""
        with self._lock:
            sizes = asked.model_dump_json(include=set(Sizes.model_fields))
            graph = self._said_of(model, lambda: load_configured(self._model(model, sizes)))
            found = find_cuts(graph, asked.kind, asked.max_tensors, asked.bridge_dist)
        rows = [vars(row) for row in cut_rows(graph, found)]
        return {"model": model, "operators": len(graph.operators), "cuts": rows}

    def predict(self, asked: Sequence[CellAsked]) -> list[ModelPrediction | Refused]:
        """Predict cells by the champion; one that cannot be described is answered by why."""
        predictor = self.predictor()
        described: list[DescribedCell | Refused] = []
        for cell in asked:
            try:
                self._shelf.file(cell.model)  # what is kept of a deleted one is no answer
                described.append(self._once(self._described, cell.model_dump_json()))
            except PepperError as error:
                described.append(refusal_of(error))
            except Refused as refused:
                described.append(refused)
        ready = [cell for cell in described if isinstance(cell, DescribedCell)]
        predicted = iter(predictor.predict(ready) if ready else ())
        self.predictions += len(ready)
        return [cell if isinstance(cell, Refused) else next(predicted) for cell in described]

    def _describe(self, asked: str) -> DescribedCell:
        cell = CellAsked.model_validate_json(asked)
        config = self.composed(*cell.cell_overrides()).config
        model = self._model(cell.model, cell.model_dump_json(include=set(Sizes.model_fields)))
        return self._said_of(cell.model, lambda: describe_cell(single_cell(replace(config, model=model))))

    def predictor(self) -> Predictor:
        """Return the champion, ready to predict.

        Raises:
            LatencyError: This pepper cannot use it.
        """
        return self._once(self._predictor, self.champion())

    def champion(self) -> int:
        """Return the version that predicts; 0 is the model that pepper ships, where there is no champion."""
        with self._lock:
            now = time.monotonic()
            if self._looked_up is None or now - self._looked_up[0] > CHAMPION_S:
                version = chosen_version(self._registry, self._composition.config.latency.version)
                self._looked_up = (now, version)
            return self._looked_up[1]

    def current(self) -> dict[str, Any]:
        """Return who is champion now; None if there is none."""
        with self._lock:
            return {"registered_model": self._registry.name, "champion": self._registry.champion()}

    def history(self) -> dict[str, Any]:
        """Return who was champion, when and why, as ``task=promote promote.history=true`` does."""
        with self._lock:
            return {**self.current(), "history": [asdict(entry) for entry in self._registry.history()]}

    def nodes(self) -> list[Node]:
        """Return the devices of the service's fleet.

        Raises:
            Refused: None can be used here.
        """
        return self._once(self._nodes)

    def hosts(self) -> list[HostThere]:
        """Return the hosts that joined, as ``task=fleet`` does.

        Raises:
            PepperError: There is no head, or it does not answer.
        """
        reach.use(self._composition.config.hosts)
        return hosts_there(reach.joined_hosts())

    def fastest(self, part: Values) -> tuple[int, float]:
        """Return which node the champion expects to be fastest, by number, and its median latency (ms)."""
        return fastest(part, self.nodes(), self.predictor().model.p50_ms)

    def fastest_of_paper(self, part: Values) -> tuple[int, float]:
        """Return the same by the paper's model, trained on what the champion learned from: it knows five
        characteristics, and of a model that was not sent there are no others."""
        return fastest(part, self.nodes(), self._once(self._baseline, self.champion()))

    def _train_baseline(self, version: int) -> Baseline:
        return BASELINES["paper"](trained_rows(self._registry, version))

    def _model(self, model: str, sizes: str) -> ModelConfig:
        given = Sizes.model_validate_json(sizes)
        file = self._shelf.file(model)
        return ModelConfig(
            str(file), name=model[:12], shapes=dict(given.shapes), dims=dict(given.dims), batch=given.batch
        )

    def _said_of(self, model: str, ask: Callable[[], Kept]) -> Kept:
        """Ask a task, and name a model in what it says by its hash, not by where it is kept."""
        try:
            return ask()
        except PepperError as error:
            file = self._shelf.file(model)
            raise refusal_of(error, {str(file.absolute()): f"model {model}", str(file): f"model {model}"}) from error

    def _once(self, kept: Callable[..., Kept], *key: Hashable) -> Kept:
        """Ask what keeps its answers; one at a time, so that no two requests prepare the same."""
        with self._lock:
            return kept(*key)
