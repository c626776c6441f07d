"""From rows to a latency model with the evidence for it."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pepper.config import TuningConfig
from pepper.errors import LatencyError
from pepper.latency.baselines import BASELINES
from pepper.latency.dataset import Rows, held_out
from pepper.latency.evaluation import Trainer, fastest_picked, leave_one_out, noise_floor, outside, scores
from pepper.latency.features import Values
from pepper.latency.model import LEAST_TO_TRAIN, Hyperparameters, LatencyModel
from pepper.latency.tuning import TrialResult, Tuned, tune

if TYPE_CHECKING:
    import pandas as pd

LEAST_ROWS = 20
HELD_OUT = ("model", "device", "load")
NOISE = 0.05
"""Taken for the noise where no cell was measured twice."""


@dataclass(frozen=True)
class Trained:
    """A trained latency model.

    Attributes:
        model: The model, trained on ``train`` only.
        tuned: What the study found.
        train: The rows that it was tuned and trained on.
        test: The rows that no trial saw.
    """

    model: LatencyModel
    tuned: Tuned
    train: Rows
    test: Rows

    @property
    def test_scores(self) -> dict[str, float]:
        """Scores on the held-out rows, and the share of them that lies outside of what was trained on."""
        predicted = self.model.predict(self.test.features)
        return {**scores(self.test.p50_ms, predicted.p50_ms), "outside": float(predicted.outside.mean())}


def train(
    rows: Rows,
    config: TuningConfig,
    storage: Path,
    test_fraction: float = 0.2,
    progress: Callable[[TrialResult], None] | None = None,
) -> Trained:
    """Hold out whole models, search hyperparameters on the others and train on them.

    Args:
        rows: All that was measured.
        config: The search.
        storage: SQLite file that keeps its study.
        test_fraction: Share of the models that is held out.
        progress: Told of each trial that ends.

    Raises:
        LatencyError: Too few rows or models were measured.
    """
    if len(rows) < LEAST_ROWS:
        raise LatencyError(
            f"{len(rows)} rows to learn from; measure at least {LEAST_ROWS}, such as task=profile +sweep=parts"
        )
    test = held_out(rows, test_fraction)
    known = rows.take(~test)
    tuned = tune(known, config, storage, progress)
    unseen = leave_one_out(known, "model", trainer(tuned.hyperparameters))
    model = LatencyModel.fit(known.features, known.p50_ms, known.p95_ms, tuned.hyperparameters)
    return Trained(
        model=model.with_interval(known.p50_ms / unseen),
        tuned=tuned,
        train=known,
        test=rows.take(test),
    )


def trainer(hyperparameters: Hyperparameters) -> Trainer:
    """Return what trains a latency model with these hyperparameters."""
    return lambda rows: LatencyModel.fit(rows.features, rows.p50_ms, None, hyperparameters).p50_ms


@dataclass(frozen=True)
class Report:
    """Scores of pepper and of the baselines on the same rows and folds.

    Attributes:
        table: A line for each of `HELD_OUT` and each predictor: its scores, how often it picked the
            fastest device, and the share of rows outside of what was left to train on.
        predictions: pepper's prediction of each scored row by what was left out; only what could be left out.
        noise: Mean relative difference of the same cell measured twice; NaN if none was.
    """

    table: "pd.DataFrame"
    predictions: dict[str, Values]
    noise: float


def report(
    rows: Rows,
    hyperparameters: Hyperparameters,
    models: Collection[str] | None = None,
    track: Callable[[Sequence[str]], Iterable[str]] = iter,
) -> Report:
    """Score pepper and the baselines, leaving out each model, device and load in turn.

    Args:
        rows: What was measured.
        hyperparameters: Pepper's.
        models: Score these models only, left out one at a time; the others are always learned from.
        track: Passes on what is left out, and may show how far that is.
    """
    import pandas as pd

    predictors = {"pepper": trainer(hyperparameters), **BASELINES}
    noise = noise_floor(rows)
    least = noise if np.isfinite(noise) else NOISE
    lines = []
    predictions: dict[str, Values] = {}
    for by in track(HELD_OUT):
        _, counts = np.unique(rows.groups(by), return_counts=True)
        if len(counts) < 2 or len(rows) - counts.max() < LEAST_TO_TRAIN:
            continue
        scored = np.isin(rows.groups("model"), list(models)) if models is not None else np.ones(len(rows), bool)
        of, only = rows.take(scored), models if by == "model" else None
        beyond = float(leave_one_out(rows, by, outside, only=only)[scored].mean())
        for name, train_one in predictors.items():
            predicted = leave_one_out(rows, by, train_one, only=only)[scored]
            if name == "pepper":
                predictions[by] = predicted
            fastest = fastest_picked(of, predicted, least)
            line = {**scores(of.p50_ms, predicted), "fastest_picked": fastest.right, "fastest_cases": fastest.cases}
            line["outside"] = beyond
            lines.append({"held_out": by, "predictor": name, **line})
    return Report(pd.DataFrame(lines), predictions, noise)
