"""Sweeps whose devices are on hosts that joined: measured there, recorded here, whatever becomes of the hosts."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from harness import Desk, MakeDesk, Outcome, composed, lasting, running, wait_until
from machines import NAMES, Machines

import pepper
from pepper.config import ModelConfig
from pepper.graph.model import ModelFile
from pepper.hosts.reach import bundle_of
from pepper.hosts.remote import Joined
from pepper.sweep import axes

pytestmark = pytest.mark.slow
pytest.importorskip("distributed")

SWEEP = """# Everywhere.
name: everywhere
axes:
  model: [{models}]
  device.host: [{hosts}]
  load: [idle, cpu50]
"""


@pytest.fixture
def desk(make_desk: MakeDesk, machines: Machines, tmp_path: Path) -> Desk:
    return make_desk(tmp_path / "desk")


def sweep(desk: Desk, machines: Machines, hosts: str, *overrides: str, models: str = "tiny, small") -> Outcome:
    desk.sweep("everywhere", SWEEP.format(hosts=hosts, models=models))
    given = [f"hosts.folder={machines.folder}/fleet", "device=local", "device.threads=1", *overrides]
    return desk("+sweep=everywhere", "sweep.retest=0", *given)


@contextmanager
def once_measuring(machines: Machines, name: str, act: Callable[[], None]) -> Iterator[None]:
    """Do something, beside the block, when a worker runs on a host."""

    def watch() -> None:
        wait_until(lambda: measures(machines, name), 60)
        act()

    thread = Thread(target=watch)
    thread.start()
    yield
    thread.join()


def measures(machines: Machines, name: str) -> list[int]:
    """The workers that run on a host."""
    return [each.pid for each in running("pepper.measure.worker", machines.programs[name].pid)]


def test_cells_are_measured_on_their_hosts_and_recorded_here(desk: Desk, machines: Machines) -> None:
    outcome = sweep(desk, machines, "null, edge, other", models="tiny")
    assert outcome.status == 0, outcome.err
    by_host: dict[str, list[Any]] = {}
    for each in desk.runs():
        by_host.setdefault(each.data.params.get("host", "None"), []).append(each)
    assert {host: len(found) for host, found in by_host.items()} == {"None": 2, "edge": 2, "other": 2}
    for each in by_host["edge"]:
        assert each.data.params["device"] == "local@edge"
        assert each.data.tags["pepper.verdict"] == "VALID"
        assert float(each.data.params["device_gflops"]) > 0
    for name in ("edge", "other"):
        assert len(list((machines.cache(name) / "pepper" / "models").glob("*/tiny.onnx"))) == 1


def test_any_of_a_kind_will_do_and_a_finished_sweep_is_finished(desk: Desk, machines: Machines) -> None:
    first = sweep(desk, machines, "kind:board", models="tiny")
    assert first.status == 0, first.err
    assert "2 cells, 0 finished before" in first.out
    assert "2 cells, 2 finished before" in sweep(desk, machines, "kind:board", models="tiny").out


def test_a_block_whose_host_vanishes_is_measured_on_its_return(desk: Desk, machines: Machines) -> None:
    def vanish() -> None:
        machines.gone("other")
        machines.join("other")

    with once_measuring(machines, "other", vanish):
        outcome = sweep(desk, machines, "other", *lasting(1), models="tiny")
    assert outcome.status == 0, outcome.err
    assert len(desk.runs()) == 2


def test_what_a_host_measures_while_the_head_is_away_arrives_once(desk: Desk, machines: Machines) -> None:
    workers: set[int] = set()

    def restart() -> None:
        machines.gone("head")
        workers.update(measures(machines, "other"))
        machines.head()
        workers.update(measures(machines, "other"))

    with once_measuring(machines, "other", restart):
        outcome = sweep(desk, machines, "other", *lasting(1), models="tiny")
    assert outcome.status == 0, outcome.err
    assert len(desk.runs()) == 2
    assert len(workers) == 1


def test_a_head_that_stays_away_is_a_host_lost(desk: Desk, machines: Machines) -> None:
    with once_measuring(machines, "other", lambda: machines.gone("head")):
        outcome = sweep(desk, machines, "other", *lasting(1), "hosts.patience_seconds=1", models="tiny")
    machines.head()
    assert outcome.status == 1
    assert "Traceback" not in outcome.err
    assert {each.info.status for each in desk.runs()} == {"FAILED"}
    machines.await_joined(*NAMES)
    wait_until(lambda: not measures(machines, "other"))  # it could not be told that nobody waits any more


def test_a_host_that_stays_away_is_lost_and_what_it_sent_is_kept_as_the_rest_is(desk: Desk, machines: Machines) -> None:
    """Frozen in its second block: it says nothing, and its connections stay."""

    def ended() -> list[tuple[str, str]]:
        return sorted((each.data.params["host"], each.info.status) for each in desk.runs() if each.data.params)

    def freeze() -> None:
        wait_until(lambda: ("other", "FINISHED") in ended(), 60)
        wait_until(lambda: measures(machines, "other"), 60)
        machines.signal("other", signal.SIGSTOP)

    with once_measuring(machines, "other", freeze):
        outcome = sweep(desk, machines, "edge, other", *lasting(1), "hosts.patience_seconds=1")
    machines.signal("other", signal.SIGCONT)
    assert outcome.status == 1
    assert "host lost: other was away for 1 s" in outcome.err
    assert ended() == [("edge", "FINISHED")] * 4 + [("other", "FAILED")] * 2 + [("other", "FINISHED")] * 2
    machines.await_joined("other")


def test_a_host_that_is_lost_while_a_sweep_is_planned_fails_its_own_cells(
    desk: Desk, machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, frozen = axes.find_model, list[str]()

    def freeze(config: ModelConfig) -> ModelFile:
        if not frozen:
            frozen.append("other")
            machines.signal("other", signal.SIGSTOP)
        return found(config)

    monkeypatch.setattr(axes, "find_model", freeze)
    outcome = sweep(desk, machines, "edge, other", "hosts.patience_seconds=1", models="tiny")
    machines.signal("other", signal.SIGCONT)
    assert outcome.status == 1, outcome.err
    assert "FAILED: host lost: other was away for 1 s" in outcome.err
    ended = sorted((each.data.params["host"], each.info.status) for each in desk.runs())
    assert ended == [("edge", "FINISHED")] * 2 + [("other", "FAILED")] * 2
    machines.await_joined("other")


def test_a_host_says_what_it_measures_and_ctrl_c_ends_that(desk: Desk, machines: Machines) -> None:
    said: list[str] = []
    config = composed(f"hosts.folder={machines.folder}/fleet").hosts

    def end() -> None:
        with Joined(bundle_of(config), 20) as joined:
            said.extend(joined.ask("edge", "describe")["runs"])
        signal.raise_signal(signal.SIGINT)

    with once_measuring(machines, "edge", end):
        outcome = sweep(desk, machines, "edge", *lasting(2), models="tiny")
    assert said == ["measure tiny"]
    assert outcome.status == 128 + signal.SIGINT
    assert [each.info.status for each in desk.runs()] == ["KILLED"]
    wait_until(lambda: not measures(machines, "edge"), 25)


def test_another_version_of_pepper_is_refused_in_a_line(
    desk: Desk, machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pepper, "__version__", "9.9")
    outcome = desk(f"hosts.folder={machines.folder}/fleet", "model=tiny", "device.host=edge")
    assert outcome.status == 2
    assert "host edge: has pepper " in outcome.error
    assert "install the same on both" in outcome.error


def test_a_provider_that_a_host_lacks_is_said_before_anything_is_brought(desk: Desk, machines: Machines) -> None:
    outcome = sweep(desk, machines, "edge", "device.provider=DmlExecutionProvider", models="tiny")
    assert outcome.status == 1
    assert "FAILED: host edge: " in outcome.err
    assert "not DmlExecutionProvider; pip" in outcome.err
    assert {each.info.status for each in desk.runs()} == {"FAILED"}


@pytest.mark.parametrize("override", ["device.cores=[4096]", "device.threads=4096"])
def test_what_a_host_does_not_have_it_says_itself(desk: Desk, machines: Machines, override: str) -> None:
    outcome = desk(f"hosts.folder={machines.folder}/fleet", "model=tiny", "device.host=edge", override)
    assert outcome.status == 2
    assert f"host edge: {override.partition('=')[0]}=" in outcome.error


def test_an_unknown_host_is_named_in_a_line(desk: Desk, machines: Machines) -> None:
    outcome = desk(f"hosts.folder={machines.folder}/fleet", "model=tiny", "device.host=egde")
    assert outcome.status == 2
    assert outcome.error == "error: device.host=egde: has not joined; did you mean 'edge'?"


def test_the_roll_says_what_is_there(desk: Desk, machines: Machines) -> None:
    outcome = desk("task=fleet", f"hosts.folder={machines.folder}/fleet", "output=json")
    assert outcome.status == 0, outcome.err
    hosts = {host["name"]: host for host in json.loads(outcome.out)["hosts"]}
    assert {name: host["kind"] for name, host in hosts.items()} == {"edge": "board", "twin": "board", "other": None}
    for host in hosts.values():
        assert abs(host["clock_ms"]) <= 1000 * host["seen_s"] + host["clock_within_ms"] + 50
        assert host["onnxruntime"]
        assert "CPUExecutionProvider" in {each["name"] for each in host["providers"]}
        assert host["runs"] == []


def test_what_measures_on_a_host_needs_no_store_and_learns_nothing() -> None:
    code = (
        "import sys, importlib; from pepper.hosts import engine, operations;"
        "[importlib.import_module(name) for name in {*operations.OPERATIONS.values(), 'pepper.tasks.hosts'}];"
        "engine._engine();"
        "print({'mlflow', 'xgboost', 'optuna', 'pandas', 'matplotlib', 'pyarrow', 'scipy'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
