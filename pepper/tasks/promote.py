"""``task=promote``: make a latency model the champion, if it is better than the one that is."""

import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

from pepper.config import PepperConfig
from pepper.errors import LatencyError
from pepper.latency.collect import read
from pepper.latency.evaluation import compare, relative_error
from pepper.report.output import add_results
from pepper.report.tables import show
from pepper.tasks.latency_models import load_version, open_registry
from pepper.tracking.registry import Registry, promotion

STATUS_NOT_BETTER = 3


def promote(config: PepperConfig) -> int:
    """Move the champion's alias if the scores or a person say so; returns the exit status."""
    registry = open_registry(config)
    if config.promote.history:
        return _show_history(registry)
    champion = registry.champion()
    if config.promote.rollback:
        return _roll_back(registry, champion, config.promote.reason)
    versions = registry.versions()
    if not versions:
        raise LatencyError(f"{registry.name} has no version; train one with task=train")
    challenger = config.promote.version or versions[-1]
    if challenger == champion:
        show(f"version {challenger} is the champion already", champion=challenger, promoted=False)
        return 0
    registry.tags(challenger)  # there is such a version
    if champion is None:
        why = config.promote.reason or "the first champion"
        registry.promote(promotion(challenger, None, why))
        show(f"version {challenger} is the champion: {why}", champion=challenger, promoted=True, why=why)
        return 0
    scores: tuple[float, ...] = ()
    try:
        better, why, scores = _compare(registry, challenger, champion, config.promote.confidence)
    except LatencyError as error:
        if not config.promote.force:
            raise
        better, why = False, str(error)
    if not better and not config.promote.force:
        show(f"version {champion} stays the champion: {why}", champion=champion, promoted=False, why=why)
        return STATUS_NOT_BETTER
    if config.promote.force:
        why = f"forced: {config.promote.reason} ({why})"
    registry.promote(promotion(challenger, champion, why, *scores))
    show(
        f"version {challenger} is the champion, after version {champion}: {why}",
        champion=challenger,
        promoted=True,
        previous=champion,
        why=why,
    )
    return 0


def _compare(
    registry: Registry, challenger: int, champion: int, confidence: float
) -> tuple[bool, str, tuple[float, float]]:
    """Score both on the rows that the challenger's training held out and the champion's did not train on."""
    with registry.artifacts(challenger, "dataset") as folder:
        rows = read(folder / "test.parquet")
    with registry.artifacts(champion, "dataset") as folder:
        trained_on = _models(folder / "train.parquet")
    unseen = rows.take(~np.isin(rows.model, trained_on))
    if not len(unseen):
        raise LatencyError(
            f"version {champion} was trained on every model that version {challenger} holds out: they cannot be"
            " compared; promote.force=true promote.reason=... decides"
        )
    predicted = [load_version(registry, version).p50_ms(unseen.features) for version in (challenger, champion)]
    errors = [float(relative_error(unseen.p50_ms, each).mean()) for each in predicted]
    result = compare(unseen, predicted[0], predicted[1], confidence)
    interval = f"{confidence:.0%} interval of the difference {result.low:+.2%} to {result.high:+.2%}"
    models = len(np.unique(unseen.model))
    why = (
        f"mean error {errors[0]:.2%} against {errors[1]:.2%} on {len(unseen)} held-out rows of {models} models,"
        f" {interval}: {'better' if result.better else 'not better'} beyond noise"
    )
    return result.better, why, (errors[0], errors[1])


def _models(file: Path) -> list[str]:
    import pandas as pd

    return [str(name) for name in pd.read_parquet(file, columns=["model"])["model"].unique()]


def _roll_back(registry: Registry, champion: int | None, reason: str | None) -> int:
    previous = registry.before(champion) if champion is not None else None
    if previous is None:
        raise LatencyError(f"{registry.name} has no champion before this one to go back to; set promote.version")
    why = f"rollback{f': {reason}' if reason else ''}"
    registry.promote(promotion(previous, champion, why))
    show(
        f"version {previous} is the champion again, after version {champion}",
        champion=previous,
        promoted=True,
        previous=champion,
        why=why,
    )
    return 0


def _show_history(registry: Registry) -> int:
    history = registry.history()
    for entry in history:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.unix_s))
        before = f" after version {entry.previous}" if entry.previous is not None else ""
        show(f"{when}  version {entry.version}{before}, by {entry.who}: {entry.why}")
    champion = registry.champion()
    add_results(champion=champion, history=[asdict(entry) for entry in history])
    if champion is None:
        show(f"{registry.name} has no champion")
    elif not history or history[-1].version != champion:
        show(f"now: version {champion}, put there outside of pepper")
    return 0
