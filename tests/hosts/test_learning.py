"""Hyperparameters that hosts try beside this machine: the study is what it would be alone."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from harness import MakeDesk, composed
from machines import Machines

from pepper.config import TuningConfig
from pepper.hosts import reach
from pepper.latency.collect import Collected
from pepper.latency.tuning import tune
from pepper.planning import scoring_away
from pepper.planning.scoring_away import scorers_on
from pepper.tasks import train
from tests.latency.measured import measured

pytestmark = pytest.mark.slow
pytest.importorskip("distributed")


def test_a_study_on_hosts_is_the_one_of_this_machine_alone(
    machines: Machines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reach.use(composed(f"hosts.folder={machines.folder}/fleet").hosts)
    rows, config = measured(models=3, parts=2), TuningConfig(trials=4, folds=2, together=3)
    alone = tune(rows, config, tmp_path / "alone.db")
    asked: list[str] = []
    ask = scoring_away._HostScorer.__call__
    monkeypatch.setattr(
        scoring_away._HostScorer, "__call__", lambda self, *given: asked.append(self._host) or ask(self, *given)
    )
    together = tune(rows, config, tmp_path / "together.db", others=partial(scorers_on, ["edge", "twin"]))
    assert together == alone
    assert {*asked} == {"edge", "twin"}


@pytest.fixture
def asked(
    make_desk: MakeDesk, machines: Machines, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., str]:
    """The line in which the command line refuses to train on some rows with these hosts."""
    desk = make_desk(tmp_path / "desk")
    monkeypatch.setattr(train.collect, "collect", lambda *_: Collected(measured(models=3, parts=2), {}))

    def refused(hosts: str) -> str:
        done = desk("task=train", f"tuning.hosts=[{hosts}]", f"hosts.folder={machines.folder}/fleet")
        assert done.status == 2
        return done.error

    return refused


def test_who_does_not_offer_it_is_named(asked: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked("egde") == "error: tuning.hosts=egde: has not joined; did you mean 'edge'?"
    monkeypatch.setattr(scoring_away, "learner", lambda: {"xgboost": "99.0"})
    said = asked("edge")
    assert said.startswith("error: tuning.hosts: edge has xgboost ")
    assert ", this machine has 99.0; install the same there, or leave it out (tuning.hosts=[] trains" in said
