import sqlite3
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import optuna
import pytest

from pepper.config import TuningConfig
from pepper.errors import HostLostError, LatencyError
from pepper.latency import tuning
from pepper.latency.folds import Folds, Scorer
from pepper.latency.model import Hyperparameters, LatencyModel
from pepper.latency.training import train
from tests.latency.measured import measured

QUICK = TuningConfig(trials=3, folds=2)


def test_trials_are_counted_in_total(tmp_path: Path) -> None:
    rows, storage = measured(), tmp_path / "tuning.db"
    told: list[tuning.TrialResult] = []
    first = tuning.tune(rows, QUICK, storage, told.append)
    assert [trial.number for trial in told] == [0, 1, 2]
    assert first.error == min(trial.error for trial in first.trials if trial.error is not None)
    again = tuning.tune(rows, QUICK, storage, told.append)
    assert len(told) == 3
    assert again == first
    assert len(tuning.tune(rows, TuningConfig(trials=5, folds=2), storage).trials) == 5


def test_the_same_seed_searches_the_same(tmp_path: Path) -> None:
    rows = measured()
    first, second = (tuning.tune(rows, QUICK, tmp_path / name) for name in ("a.db", "b.db"))
    assert first == second


def test_trials_side_by_side_are_those_that_one_machine_tries_alone(tmp_path: Path) -> None:
    """Whoever scores them, however fast, and though one is lost meanwhile."""
    rows, three = measured(models=3, parts=2), TuningConfig(trials=5, folds=2, together=3)
    asked: list[int] = []

    def others(folds: Folds) -> list[Scorer]:
        def slow(chosen: Hyperparameters, number: int) -> float:
            time.sleep(0.02)
            asked.append(number)
            return folds.error(chosen, number)

        def lost(chosen: Hyperparameters, number: int) -> float:
            raise HostLostError("host lost: edge was away for 1 s")

        return [slow, lost]

    alone = tuning.tune(rows, three, tmp_path / "a.db")
    assert tuning.tune(rows, three, tmp_path / "b.db", others=others) == alone
    assert asked


def test_other_rows_are_another_study(tmp_path: Path) -> None:
    tuning.tune(measured(), QUICK, tmp_path / "tuning.db")
    assert len(tuning.tune(measured(seed=1), QUICK, tmp_path / "tuning.db").trials) == 3


def test_a_trial_left_running_is_tried_again(tmp_path: Path) -> None:
    rows, storage = measured(), tmp_path / "tuning.db"
    tuning.tune(rows, QUICK, storage)
    with sqlite3.connect(storage) as database:
        database.execute("UPDATE trials SET state = 'RUNNING' WHERE number = 1")
    interrupted = optuna.load_study(study_name=None, storage=f"sqlite:///{storage}").get_trials()[1].params
    result = tuning.tune(rows, QUICK, storage)
    trials = optuna.load_study(study_name=None, storage=f"sqlite:///{storage}").get_trials()
    assert [trial.state.name for trial in trials].count("RUNNING") == 0
    assert len(result.trials) == 3
    assert trials[-1].params == interrupted


def test_an_interrupted_study_goes_on(tmp_path: Path) -> None:
    rows, storage = measured(), tmp_path / "tuning.db"

    def interrupt(trial: tuning.TrialResult) -> None:
        if trial.number == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tuning.tune(rows, QUICK, storage, interrupt)
    told: list[tuning.TrialResult] = []
    assert len(tuning.tune(rows, QUICK, storage, told.append).trials) == 3
    assert [trial.number for trial in told] == [2]


def test_the_defaults_are_tried_though_the_first_trial_was_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, storage = measured(), tmp_path / "tuning.db"

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(LatencyModel, "fit", interrupt)
        with pytest.raises(KeyboardInterrupt):
            tuning.tune(rows, QUICK, storage)
    trials = tuning.tune(rows, QUICK, storage).trials
    defaults = asdict(Hyperparameters())
    assert [trial.params.items() <= defaults.items() for trial in trials] == [True, False, False]
    again = tuning.tune(rows, TuningConfig(trials=4, folds=2), storage).trials
    assert [trial.params.items() <= defaults.items() for trial in again].count(True) == 1


def test_two_trainings_on_one_store_are_refused(tmp_path: Path) -> None:
    rows, storage = measured(), tmp_path / "tuning.db"

    def second(_: tuning.TrialResult) -> None:
        with pytest.raises(LatencyError, match="in use by another training"):
            tuning.tune(rows, QUICK, storage)

    tuning.tune(rows, QUICK, storage, second)


def _cut(storage: Path) -> None:
    storage.write_bytes(storage.read_bytes()[:-9000])


def _no_database(storage: Path) -> None:
    storage.write_bytes(b"nonsense" * 1000)


def _a_folder(storage: Path) -> None:
    storage.unlink()
    storage.mkdir()


def _a_link(storage: Path) -> None:
    storage.unlink()
    storage.symlink_to("/dev/zero")


def _said(statement: str) -> Callable[[Path], None]:
    def harm(storage: Path) -> None:
        with sqlite3.connect(storage) as database:
            database.execute(statement)

    harm.__name__ = statement
    return harm


@pytest.mark.parametrize(
    "harm",
    [
        _cut,
        _no_database,
        _a_folder,
        _a_link,
        _said("UPDATE alembic_version SET version_num = 'v99'"),
        _said("UPDATE study_directions SET direction = 'MAXIMIZE'"),
        _said("UPDATE trial_params SET distribution_json = '{' WHERE param_name = 'rounds'"),
        _said("UPDATE trial_params SET param_value = 1e12 WHERE param_name = 'rounds'"),
        _said("UPDATE trial_params SET param_name = 'moons' WHERE param_name = 'rounds'"),
        _said("UPDATE trial_values SET value = 9e999"),
        _said("ALTER TABLE trials RENAME COLUMN state TO status"),
    ],
    ids=lambda harm: harm.__name__,
)
def test_a_damaged_study_is_set_aside_and_begun_again(
    harm: Callable[[Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, storage, one = measured(models=2, parts=2), tmp_path / "tuning.db", TuningConfig(trials=1, folds=2)
    tuning.tune(rows, one, storage)
    harm(storage)
    assert len(tuning.tune(rows, one, storage).trials) == 1
    (line,) = capsys.readouterr().err.splitlines()
    (aside,) = tmp_path.glob("tuning.db.damaged-*")
    assert f"{storage}: damaged (" in line
    assert f": set aside as {aside.name}, and begun again" in line
    tuning.tune(rows, one, storage)
    assert not capsys.readouterr().err


def test_training_needs_rows_and_models(tmp_path: Path) -> None:
    with pytest.raises(LatencyError, match="12 rows to learn from"):
        train(measured(models=2, parts=1), QUICK, tmp_path / "tuning.db")
    with pytest.raises(LatencyError, match="2 models measured"):
        train(measured(models=2), QUICK, tmp_path / "tuning.db")


def test_training_holds_out_what_no_trial_saw(tmp_path: Path) -> None:
    trained = train(measured(models=8), QUICK, tmp_path / "tuning.db")
    assert not set(trained.train.model) & set(trained.test.model)
    assert trained.test_scores["mape"] < 0.15
    assert trained.model.interval.low < 1 < trained.model.interval.high
