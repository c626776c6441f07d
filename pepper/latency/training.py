"""From rows to a latency model with the evidence for it."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pepper.config import TuningConfig
from pepper.errors import LatencyError
from pepper.latency.baselines import BASELINES
from pepper.latency.conformal import LeftOut, interval, leave_out
from pepper.latency.dataset import Rows, held_out
from pepper.latency.evaluation import Trainer, fastest_picked, leave_one_out, noise_floor, outside, scores
from pepper.latency.features import Values
from pepper.latency.model import Hyperparameters, LatencyModel
from pepper.latency.tuning import Others, TrialResult, Tuned, nobody, tune

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
        """Scores on the held-out rows, and which share lies outside of what was trained on, and inside the interval."""
        predicted, p50_ms = self.model.predict(self.test.features), self.test.p50_ms
        inside = (p50_ms >= predicted.low_ms) & (p50_ms <= predicted.high_ms)
        return {
            **scores(p50_ms, predicted.p50_ms),
            "outside": float(predicted.outside.mean()),
            "inside": float(inside.mean()),
        }


def train(
    rows: Rows,
    config: TuningConfig,
    storage: Path,
    test_fraction: float = 0.2,
    progress: Callable[[TrialResult], None] | None = None,
    others: Others = nobody,
) -> Trained:
    """Hold out whole models, search hyperparameters on the others and train on them.

    Args:
        rows: All that was measured.
        config: The search.
        storage: SQLite file that keeps its study.
        test_fraction: Share of the models that is held out.
        progress: Told of each trial that ends.
        others: Who tries hyperparameters beside this process.

    Raises:
        LatencyError: Too few rows or models were measured.
    """
    if len(rows) < LEAST_ROWS:
        raise LatencyError(
            f"{len(rows)} rows to learn from; measure at least {LEAST_ROWS}, such as task=profile +sweep=parts"
        )
    test = held_out(rows, test_fraction)
    known = rows.take(~test)
    tuned = tune(known, config, storage, progress, others)
    by_model, by_load = (leave_out(known, by, tuned.hyperparameters) for by in ("model", "load"))
    model = LatencyModel.fit(known.features, known.p50_ms, known.p95_ms, tuned.hyperparameters)
    return Trained(
        model=replace(model, interval=interval(model, by_model, by_load)),
        tuned=tuned,
        train=known,
        test=rows.take(test),
    )


def trainer(hyperparameters: Hyperparameters) -> Trainer:
    """Return what trains a latency model with these hyperparameters."""
    return lambda rows: LatencyModel.fit(rows.features, rows.p50_ms, None, hyperparameters).p50_ms


@dataclass(frozen=True)
class Evidence:
    """What pepper said of n rows that it was trained without.

    Attributes:
        p50_ms: The predicted medians, shape (n,).
        inside: Whether, as 0 or 1, the measured ones lie inside the interval, which is learned without the errors of
            their group, too; NaN if there was nothing to learn it from, shape (n,).
    """

    p50_ms: Values
    inside: Values


@dataclass(frozen=True)
class Report:
    """Scores of pepper and of the baselines on the same rows and folds.

    Attributes:
        table: A line for each of `HELD_OUT` and each predictor: its scores, how often it picked the
            fastest device, and the share of rows outside of what was left to train on; pepper's also which share
            lies inside its interval.
        evidence: Of each scored row by what was left out; only what could be left out.
        noise: Mean relative difference of the same cell measured twice; NaN if none was.
    """

    table: "pd.DataFrame"
    evidence: Mapping[str, Evidence]
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

    noise = noise_floor(rows)
    least = noise if np.isfinite(noise) else NOISE
    scored = np.isin(rows.groups("model"), list(models)) if models is not None else np.ones(len(rows), bool)
    of = rows.take(scored)
    only = {by: models if by == "model" else None for by in HELD_OUT}
    left_out = {by: leave_out(rows, by, hyperparameters, only[by]) for by in track(HELD_OUT)}
    whole = LatencyModel.fit(rows.features, rows.p50_ms, None, hyperparameters)
    lines: list[dict[str, Any]] = []
    evidence: dict[str, Evidence] = {}
    for by, found in left_out.items():
        if found is None:
            continue
        mine = found if only[by] else found.take(scored)
        evidence[by] = Evidence(mine.p50_ms, _inside(whole, mine, by, left_out))
        beyond = float(leave_one_out(rows, by, outside, only=only[by])[scored].mean())
        told = {"pepper": mine.p50_ms}
        told |= {name: leave_one_out(rows, by, one, only=only[by])[scored] for name, one in BASELINES.items()}
        for name, predicted in told.items():
            fastest = fastest_picked(of, predicted, least)
            line = {**scores(of.p50_ms, predicted), "fastest_picked": fastest.right, "fastest_cases": fastest.cases}
            line |= {"outside": beyond, "inside": float(evidence[by].inside.mean()) if name == "pepper" else np.nan}
            lines.append({"held_out": by, "predictor": name, **line})
    return Report(pd.DataFrame(lines), evidence, noise)


def _inside(whole: LatencyModel, found: LeftOut, by: str, left_out: Mapping[str, LeftOut | None]) -> Values:
    """Tell, as 0 or 1, which rows lie inside the interval that is learned without the errors of their group."""
    inside = np.full(len(found.rows), np.nan)
    by_model = left_out["model"]
    if by_model is None:
        return inside
    groups = found.rows.groups(by)
    for name in np.unique(groups):
        others = by_model.take(by_model.rows.groups(by) != name)
        if len(others.rows):
            mine = groups == name
            by_load = left_out["load"]
            there = interval(whole, others, by_load and by_load.take(by_load.rows.groups(by) != name))
            inside[mine] = there.holds(found.ratio[mine], found.novelty[mine])
    return inside
