"""Loads as they are seen, and a pipeline that gets out of their way."""

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from harness import undisturbed
from ladders import Bench

from pepper.config import DeviceConfig, LoadConfig, SessionConfig
from pepper.devices import host
from pepper.execution.adapting import Adapter, Loads, Outlook
from pepper.execution.layout import Layout
from pepper.execution.loads import LoadMeter
from pepper.execution.pipeline import Network
from pepper.execution.pool import IDLE, StagePool
from pepper.execution.runner import Runner
from pepper.execution.trials import at_rate
from pepper.execution.watch import Watch
from pepper.fleet import FleetDevice

SHARE = 0.3
HEAVY = LoadConfig(percent=90)

pytestmark = [pytest.mark.slow, pytest.mark.quiet]


@pytest.fixture(scope="module")
def shares(bench: Bench) -> Iterator[StagePool]:
    """Three devices that have shares of one core."""
    core = host.allowed_cores()[-1]
    devices = {
        name: FleetDevice(DeviceConfig(name=name, kind="emulated", cores=[core], threads=1, share=SHARE), IDLE)
        for name in bench.fleet.devices
    }
    with StagePool(replace(bench.fleet, devices=devices), SessionConfig(), 60.0) as made:
        yield made


@pytest.fixture
def network(bench: Bench, tmp_path: Path) -> Iterator[Network]:
    with closing(bench.network(tmp_path)) as made:
        yield made


def loads_of(meter: LoadMeter) -> Loads:
    meter.read()
    time.sleep(1.0)
    return {name: load.percent for name, load in meter.read().items()}


def test_a_load_is_seen_on_its_device(bench: Bench, shares: StagePool, network: Network) -> None:
    with Runner(shares, network, bench.layout("a", "b"), time_limit_s=20):
        meter = LoadMeter(shares)
        for percent in (60.0, 0.0):
            shares.put("a", LoadConfig(percent=percent))
            time.sleep(0.1)

            def excess(meter: LoadMeter = meter) -> float:
                loads = loads_of(meter)  # what other work takes of the core counts on every device
                return loads["a"] - max(loads["b"], loads["c"])

            assert undisturbed(excess, pytest.approx(percent, abs=12)) == pytest.approx(percent, abs=12)


def test_the_pipeline_leaves_a_loaded_device(bench: Bench, shares: StagePool, network: Network) -> None:
    layouts = {devices: bench.layout(*devices) for devices in ("ab", "cb")}

    def foresee(layout: Layout, loads: Loads, lost: frozenset[str]) -> Outlook:
        assert not lost
        costs = {devices: 100 + loads[devices[0]] + loads[devices[1]] for devices in layouts}
        best = min(costs, key=lambda devices: costs[devices])
        return Outlook(costs["".join(layout.devices)], costs[best], lambda: layouts[best])

    shares.put("a", IDLE)
    with Runner(shares, network, layouts["ab"], time_limit_s=20) as runner:
        watch = Watch(margin=0.1, patience_s=1.0)
        with Adapter(runner, shares, foresee, watch, {"a": HEAVY}, after_s=1.0) as adapter:
            started_ns = time.monotonic_ns()
            trial = at_rate(runner, bench.samples, 8.0, 20.0, 0, adapter.attend)
        assert runner.layout is layouts["cb"]
        silent = undisturbed(lambda: round(loads_of(LoadMeter(shares))["a"] / 30), 0)
    assert sorted(answer.seq for answer in trial.answers) == list(range(len(trial.answers)))
    assert trial.failures == []
    assert trial.difference < 1e-5
    assert {answer.attempts for answer in trial.answers} == {1}, "a move repeats no request"
    (move,) = adapter.moves
    assert (move.before, move.after) == (("a", "b"), ("c", "b"))
    assert move.loads["a"] > move.loads["c"]
    assert move.best_ms < 0.9 * move.current_ms
    assert started_ns + 1e9 < move.since_ns < move.at_ns - 1e9
    assert {answer.layout for answer in trial.answers} == {0, 1}
    assert [event.kind for event in runner.events] == ["moved"]
    assert "at loads of a" in runner.events[0].note
    assert silent == 0, "the load of a run ends with it"


def test_what_goes_wrong_in_the_background_ends_the_run(bench: Bench, shares: StagePool, network: Network) -> None:
    def foresee(layout: Layout, loads: Loads, lost: frozenset[str]) -> Outlook:
        raise ZeroDivisionError

    with (
        Runner(shares, network, bench.layout("a", "b"), time_limit_s=20) as runner,
        pytest.raises(ZeroDivisionError),
        Adapter(runner, shares, foresee, Watch(0.1, 1.0)) as adapter,
    ):
        at_rate(runner, bench.samples, 3.0, 20.0, 0, adapter.attend)


def test_stages_that_the_background_started_serve(bench: Bench, shares: StagePool, network: Network) -> None:
    shares.background.submit(shares.stages, bench.layout("b", "c")).result()
    with Runner(shares, network, bench.layout("b", "c"), time_limit_s=20) as runner:
        trial = at_rate(runner, bench.samples, 0.5, 20.0, 0)
    assert trial.failures == []
    assert runner.events == []
