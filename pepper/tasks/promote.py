"""``task=promote``: make a latency model the champion, if it is better than the one that is."""

import time
from dataclasses import asdict, dataclass

import numpy as np

from pepper.config.composing import Composition
from pepper.console.output import add_results
from pepper.console.tables import show
from pepper.errors import LatencyError
from pepper.latency.collect import read
from pepper.latency.evaluation import compare, relative_error
from pepper.latency.model import LatencyModel
from pepper.planning.latency_models import load_version, open_registry
from pepper.tasks.result import Result
from pepper.tracking.registry import Registry, promotion

STATUS_NOT_BETTER = 3


@dataclass(frozen=True)
class Promoted(Result):
    """What came of a promotion.

    Attributes:
        champion: The version that is the champion now; None if there is none.
    """

    champion: int | None = None


def promote(composition: Composition) -> Promoted:
    """Move the champion's alias if the scores or a person say so.

    Returns:
        Its status is 0, or 3 if the challenger is not better.

    Raises:
        LatencyError: There is no version, or it cannot be judged.
    """
    config = composition.config
    registry = open_registry(config)
    if config.promote.history:
        return _show_history(registry)
    champion = registry.champion()
    if config.promote.rollback:
        return _roll_back(registry, champion, config.promote.version, config.promote.reason)
    versions = registry.versions()
    if not versions:
        raise LatencyError(f"{registry.name} has no version; train one with task=train")
    challenger = config.promote.version or versions[-1]
    if challenger == champion:
        show(f"version {challenger} is the champion already", champion=challenger, promoted=False)
        return Promoted(champion=champion)
    forced, reason = config.promote.force, config.promote.reason
    scores: tuple[float, ...] = ()
    try:
        better, why, scores = _judge(registry, challenger, champion, config.promote.confidence)
    except LatencyError as error:
        if not forced:
            raise
        better, why = False, str(error)
    if not better and not forced:
        show(f"version {champion} stays the champion: {why}", champion=champion, promoted=False, why=why)
        return Promoted(STATUS_NOT_BETTER, champion)
    if reason:
        why = f"{'forced: ' if forced else ''}{reason} ({why})"
    registry.promote(promotion(challenger, champion, why, *scores))
    after = f", after version {champion}" if champion is not None else ""
    show(
        f"version {challenger} is the champion{after}: {why}",
        champion=challenger,
        promoted=True,
        previous=champion,
        why=why,
    )
    return Promoted(champion=challenger)


def _judge(
    registry: Registry, challenger: int, champion: int | None, confidence: float
) -> tuple[bool, str, tuple[float, ...]]:
    """Return whether the challenger is to be the champion, why, and the errors of both where they were compared.

    Raises:
        LatencyError: The challenger cannot be used with this pepper, or the two cannot be compared.
    """
    model = load_version(registry, challenger)
    if champion is None:
        return True, "the first champion", ()
    try:
        current = load_version(registry, champion)
    except LatencyError as error:
        unusable, _, _ = str(error).partition("; ")  # what it advises is being done
        return True, f"the champion cannot be used: {unusable}", ()
    return _compare(registry, (challenger, model), (champion, current), confidence)


def _compare(
    registry: Registry, challenger: tuple[int, LatencyModel], champion: tuple[int, LatencyModel], confidence: float
) -> tuple[bool, str, tuple[float, float]]:
    """Score both on the rows that the challenger's training held out and the champion's did not train on."""
    with registry.artifacts(challenger[0], "dataset") as folder:
        rows = read(folder / "test.parquet")
    with registry.artifacts(champion[0], "dataset") as folder:
        known = read(folder / "train.parquet")
    unseen = rows.take(~known.holds(rows.model, rows.group))
    if not len(unseen):
        raise LatencyError(
            f"version {champion[0]} was trained on every model that version {challenger[0]} holds out: they cannot be"
            " compared; promote.force=true promote.reason=... decides"
        )
    predicted = [model.p50_ms(unseen.features) for _, model in (challenger, champion)]
    errors = [float(relative_error(unseen.p50_ms, each).mean()) for each in predicted]
    result = compare(unseen, predicted[0], predicted[1], confidence)
    interval = f"{confidence:.0%} interval of the difference {result.low:+.2%} to {result.high:+.2%}"
    models = len(np.unique(unseen.group))
    why = (
        f"mean error {errors[0]:.2%} against {errors[1]:.2%} on {len(unseen)} held-out rows of {models} models,"
        f" {interval}: {'better' if result.better else 'not better'} beyond noise"
    )
    return result.better, why, (errors[0], errors[1])


def _roll_back(registry: Registry, champion: int | None, version: int | None, reason: str | None) -> Promoted:
    previous = version if version is not None or champion is None else registry.before(champion)
    if previous is None:
        raise LatencyError(f"{registry.name} has no champion before this one to go back to; set promote.version")
    versions = registry.versions()
    if previous not in versions:
        gone = f"version {previous} of {registry.name}, the champion before version {champion}, was deleted"
        said = gone if version is None else f"{registry.name} has no version {version}"
        known = ", ".join(map(str, versions))
        raise LatencyError(f"{said}; choose another with promote.version=... (versions: {known})")
    why = f"rollback{f': {reason}' if reason else ''}"
    registry.promote(promotion(previous, champion, why, rollback=True))
    show(
        f"version {previous} is the champion again, after version {champion}",
        champion=previous,
        promoted=True,
        previous=champion,
        why=why,
    )
    return Promoted(champion=previous)


def _show_history(registry: Registry) -> Promoted:
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
    return Promoted(champion=champion)
