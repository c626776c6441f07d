"""Hyperparameters of the latency model, searched by Optuna; an interrupted study goes on where it stopped."""

import math
import os
import socket
import sqlite3
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np

from pepper.config import TuningConfig
from pepper.errors import HostLostError, LatencyError
from pepper.interrupts import check
from pepper.latency.dataset import Rows
from pepper.latency.features import digest
from pepper.latency.folds import Folds, Scorer
from pepper.latency.model import Hyperparameters
from pepper.latency.model_schema import FORMAT

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import BaseTrial, FrozenTrial

_LOOK_S = 0.2
Others = Callable[[Folds], Sequence[Scorer]]
"""Returns who scores these folds beside this process."""


def nobody(folds: Folds) -> Sequence[Scorer]:
    """Return no one: this process tries all by itself."""
    return ()


@dataclass(frozen=True)
class TrialResult:
    """One trial of a study.

    Attributes:
        number: Its number, from 0.
        state: ``COMPLETE``, ``PRUNED`` or ``FAIL``.
        error: Mean relative error of its folds; None unless complete.
        params: What it tried.
    """

    number: int
    state: str
    error: float | None
    params: dict[str, Any]


@dataclass(frozen=True)
class Tuned:
    """What a study found.

    Attributes:
        hyperparameters: The best ones.
        error: Their mean relative error over the folds.
        trials: Every trial, oldest first.
    """

    hyperparameters: Hyperparameters
    error: float
    trials: list[TrialResult]


def tune(
    rows: Rows,
    config: TuningConfig,
    storage: Path,
    progress: Callable[[TrialResult], None] | None = None,
    others: Others = nobody,
) -> Tuned:
    """Search hyperparameters by cross-validation grouped by model.

    The study is named after the rows and the features, so that the same command resumes it: trials are
    counted in total. Trials that a killed process left running are marked as failed and tried again.

    What a trial tries follows from the seed, the trials before and how many are drawn at a time (`config.together`),
    and not from who scores it, or how fast.

    Args:
        rows: What to train and validate on; the test's rows are not among them.
        config: How many trials, and how they are drawn.
        storage: SQLite file that keeps the study; a damaged one is set aside, and that is said on stderr.
        progress: Told of each trial that ends.
        others: Who scores folds beside this process.

    Raises:
        LatencyError: The rows hold fewer than two models, another process runs this study, or none can be kept there.
    """
    import optuna
    from optuna.trial import TrialState

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage.parent.mkdir(parents=True, exist_ok=True)
    folds = Folds.of(rows, config.folds, config.seed)
    team = _Team([folds.error, *others(folds)])
    with _alone(storage):
        study = _sound_study(storage, f"{FORMAT}-{digest()}-{rows.digest}-{config.seed}-{config.folds}")
        _close_left_running(study)
        finished = len(study.get_trials(deepcopy=False, states=_ended()))
        # A sampler's draws depend on its seed and on the trials before; the offset keeps a resumed study from
        # repeating the random ones.
        study.sampler = optuna.samplers.TPESampler(seed=config.seed + finished, multivariate=True)
        study.pruner = (
            optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=1)
            if config.prune
            else optuna.pruners.NopPruner()
        )
        _queue_defaults(study)

        while finished < config.trials:
            count = min(config.together or team.size, config.trials - finished)
            batch = []
            for _ in range(count):
                trial = study.ask()
                batch.append((trial, _hyperparameters(_suggest(trial), config.seed)))
            for (trial, _), error in zip(batch, _tried(team, folds.count, batch), strict=True):
                state = TrialState.PRUNED if error is None else TrialState.COMPLETE
                told = study.tell(trial, error, state)
                if progress is not None:
                    progress(_result(told))
            finished += count
        trials = [_result(trial) for trial in study.get_trials(deepcopy=False, states=_ended())]
        if not any(trial.state == "COMPLETE" for trial in trials):
            raise LatencyError(f"tuning.trials={config.trials}: no trial was completed; set it to at least 1")
        best = study.best_trial
    return Tuned(_hyperparameters(best.params, config.seed), float(best.value or 0.0), trials)


class _Team:
    """Those who score folds, each one at a time, this machine among them; who is lost leaves.

    Args:
        scorers: All of them; the first is here.
    """

    def __init__(self, scorers: Sequence[Scorer]) -> None:
        self.size = len(scorers)
        self._free: SimpleQueue[Scorer] = SimpleQueue()
        for scorer in scorers:
            self._free.put(scorer)

    def error(self, chosen: Hyperparameters, number: int) -> float:
        """Return the error in a fold, scored by whoever is free."""
        while True:
            scorer, is_lost = self._free.get(), False
            try:
                return scorer(chosen, number)
            except HostLostError as error:
                is_lost = True
                print(f"warning: {error}; its trials are tried elsewhere", file=sys.stderr, flush=True)
            finally:
                if not is_lost:
                    self._free.put(scorer)


def _tried(team: _Team, folds: int, batch: "Sequence[tuple[Trial, Hyperparameters]]") -> list[float | None]:
    """Return the mean error of each trial over the folds, None where it is given up; they are tried side by side."""
    lock = threading.Lock()

    def tried(trial: "Trial", chosen: Hyperparameters) -> float | None:
        errors: list[float] = []
        for number in range(folds):
            errors.append(team.error(chosen, number))
            check()
            with lock:
                trial.report(float(np.mean(errors)), number)
                if trial.should_prune() and number < folds - 1:
                    return None
        return float(np.mean(errors))

    if team.size == 1:
        return [tried(*each) for each in batch]
    with ThreadPoolExecutor(team.size, "pepper-trial") as pool:
        under_way = [pool.submit(tried, *each) for each in batch]
        while wait(under_way, _LOOK_S).not_done:
            check()
        return [each.result() for each in under_way]


def _sound_study(storage: Path, name: str) -> "Study":
    """Open a study all of whose trials can be used; a file that is damaged is set aside first.

    Raises:
        LatencyError: No study can be kept there.
    """
    for attempt in range(2):
        try:
            return _study(storage, name)
        except Exception as error:  # SQLAlchemy's, Alembic's, Optuna's, sqlite3's, json's: they have no common base
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            if attempt or "locked" in reason:
                raise LatencyError(
                    f"{storage}: no study can be kept there ({reason}); mend that, or set tracking.folder"
                ) from error
            _set_aside(storage, reason)
    raise AssertionError


def _study(storage: Path, name: str) -> "Study":
    import optuna

    if storage.is_symlink() or storage.exists():
        if not storage.is_file():
            raise ValueError("no regular file")
        with closing(sqlite3.connect(f"{storage.absolute().as_uri()}?mode=ro", uri=True)) as database:
            (found,) = database.execute("PRAGMA integrity_check(1)").fetchone()
        if found != "ok":
            raise ValueError(found)
    study = optuna.create_study(
        storage=f"sqlite:///{storage}", study_name=name, load_if_exists=True, direction="minimize"
    )
    if study.direction.name != "MINIMIZE":
        raise ValueError(f"direction {study.direction.name}")
    for trial in study.get_trials(deepcopy=False):
        _check_trial(trial)
    return study


def _check_trial(trial: "FrozenTrial") -> None:
    """Make sure that a trial that was kept tried, or will try, what a trial can.

    Raises:
        Exception: It did not: of whatever kind Optuna has for it.
    """
    import optuna

    params = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
    possible = optuna.trial.FixedTrial({**_defaults(), **params})
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of a value that is out of its range
        known = _suggest(possible)
    complete = trial.state.name == "COMPLETE"
    if not params.keys() <= known.keys() or (complete and trial.params.keys() != known.keys()):
        raise ValueError(f"trial {trial.number} has other hyperparameters")
    if any(possible.distributions[name] != kept for name, kept in trial.distributions.items()):
        raise ValueError(f"trial {trial.number} was drawn from another space")
    if complete and not math.isfinite(trial.value or 0.0):
        raise ValueError(f"trial {trial.number} has no error that is a number")


def _set_aside(storage: Path, reason: str) -> None:
    """Move a damaged study, with what SQLite keeps beside it, out of the way.

    Raises:
        LatencyError: It cannot be moved.
    """
    mark = f".damaged-{time.strftime('%Y%m%d-%H%M%S')}"
    try:
        for file in [storage, *storage.parent.glob(f"{storage.name}-*")]:
            file.rename(file.with_name(f"{file.name}{mark}"))
    except OSError as error:
        raise LatencyError(f"{storage}: damaged ({reason}), and cannot be moved ({error.strerror})") from error
    print(f"{storage}: damaged ({reason}): set aside as {storage.name}{mark}, and begun again", file=sys.stderr)


def _suggest(trial: "BaseTrial") -> dict[str, Any]:
    return {
        "objective": trial.suggest_categorical("objective", ["huber", "squared"]),
        "base": trial.suggest_categorical("base", ["roofline", "constant"]),
        "freedom": trial.suggest_categorical("freedom", [1.0, 3.0, 10.0, 30.0]),
        "rounds": trial.suggest_int("rounds", 50, 400, step=50),
        "learning_rate": trial.suggest_float("learning_rate", 0.01, 0.2, log=True),
        "max_depth": trial.suggest_int("max_depth", 2, 7),
        "least_leaf": trial.suggest_float("least_leaf", 0.001, 0.15, log=True),
        "subsample": trial.suggest_float("subsample", 0.5, 1.0),
        "colsample": trial.suggest_float("colsample", 0.2, 1.0),
        "reg_lambda": trial.suggest_float("reg_lambda", 0.1, 100, log=True),
    }


def _defaults() -> dict[str, Any]:
    """The hyperparameters that the first trial has: a study never ends worse than without it."""
    return {key: value for key, value in asdict(Hyperparameters()).items() if key not in ("bags", "seed")}


def _hyperparameters(params: dict[str, Any], seed: int) -> Hyperparameters:
    return Hyperparameters(**params, seed=seed)


def _ended() -> tuple[Any, ...]:
    from optuna.trial import TrialState

    return (TrialState.COMPLETE, TrialState.PRUNED)


def _close_left_running(study: "Study") -> None:
    """Mark trials that a killed process left running as failed, and queue what they tried again."""
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        if trial.params:
            study.enqueue_trial(trial.params)


def _queue_defaults(study: "Study") -> None:
    """Queue the default hyperparameters, unless they wait already or were tried to the end.

    Optuna's ``skip_if_exists`` takes a trial that was interrupted for one that was tried.
    """
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.WAITING))
    # What a waiting trial will try is known from its attributes only.
    if not any(trial.system_attrs.get("fixed_params", trial.params) == _defaults() for trial in trials):
        study.enqueue_trial(_defaults())


def _result(trial: "FrozenTrial") -> TrialResult:
    complete = trial.state.name == "COMPLETE"
    return TrialResult(trial.number, trial.state.name, float(trial.value or 0.0) if complete else None, trial.params)


@contextmanager
def _alone(storage: Path) -> Iterator[None]:
    """Hold the study's lock, so that two processes never share its trials; it ends with the process.

    Raises:
        LatencyError: Another process holds it.
    """
    import fcntl

    with storage.with_suffix(".lock").open("a+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            raise LatencyError(
                f"{storage}: in use by another training ({stream.read().strip()}); wait for it, or set tracking.folder"
            ) from None
        stream.truncate(0)
        stream.write(f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%H:%M:%S')}")
        stream.flush()
        yield
