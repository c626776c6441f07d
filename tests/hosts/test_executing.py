"""Plans whose stages are on other hosts: the answers are the model's, and what is lost is said."""

import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from harness import composed, running, wait_until
from machines import PORTS, Machines

from pepper.config import DeviceConfig, SessionConfig
from pepper.errors import ConfigError, ExecutionError
from pepper.execution.conditions import ConditionMeter
from pepper.execution.links import measure_hops
from pepper.execution.pipeline import Network
from pepper.execution.pool import IDLE, StagePool
from pepper.execution.runner import Runner
from pepper.execution.trials import one_at_a_time
from pepper.fleet import Fleet, FleetDevice, Link, everywhere
from pepper.hosts import reach
from tests.execution.ladders import NAMES, Bench

pytestmark = pytest.mark.slow
pytest.importorskip("distributed")
LIMIT_S = 10.0


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"))


def spread(machines: Machines, *hosts: str | None) -> Fleet:
    """Devices a, b and c on these hosts."""
    reach.use(composed(f"hosts.folder={machines.folder}/fleet", "hosts.patience_seconds=1").hosts)
    devices = {
        name: FleetDevice(DeviceConfig(name=name, threads=1, cores=[0], host=host), IDLE)
        for name, host in zip(NAMES, hosts, strict=True)
    }
    return Fleet(devices, everywhere(NAMES, Link()), "a", "a")


def stages(machines: Machines, name: str) -> list[int]:
    """The stages that run on a host."""
    return [each.pid for each in running("pepper.execution.stage", machines.programs[name].pid)]


def test_tensors_go_from_host_to_host_and_answers_are_the_models(
    bench: Bench, machines: Machines, tmp_path: Path
) -> None:
    fleet = spread(machines, None, "edge", "other")
    layouts = [bench.layout("a", "b", "c"), replace(bench.layout("c", "b", "b", "a"), direct=True)]
    with (
        closing(Network(fleet, tmp_path)) as network,
        StagePool(fleet, SessionConfig(), LIMIT_S) as pool,
        Runner(pool, network, layouts[0], time_limit_s=LIMIT_S) as runner,
    ):
        assert len(measure_hops(runner)) == 4
        meter = ConditionMeter(pool)
        for layout in layouts:
            if layout is not runner.layout:
                runner.move(layout)
            trial = one_at_a_time(runner, bench.samples, 0.0, 20)
            assert trial.failures == []
            assert trial.difference < 1e-4
            for answer in trial.answers:
                stamps = [at for stamp in answer.stamps for at in stamp[1:4]]
                if not layout.direct:
                    assert [stamp.host for stamp in answer.stamps[2:]] == ["edge", "other"]
                    assert answer.submitted_ns <= min(stamps) <= max(stamps) <= answer.answered_ns + 10_000_000
        assert {condition.device for condition in meter.read(NAMES)} == {*NAMES}
        assert network.refused == 0
        assert stages(machines, "edge")
        if "other" in machines.spaces:
            (low, high), found = PORTS["other"], machines.listens_at("other")
            assert found <= {*range(low, high + 1)}
            assert len(found) >= 3  # the engine's, the loan's, a stage's
    for name in ("edge", "other"):
        wait_until(lambda name=name: not stages(machines, name), 20)
        assert len(list((machines.cache(name) / "pepper" / "models").glob("*/*.onnx"))) >= 1


def lose(bench: Bench, machines: Machines, tmp_path: Path, act: str) -> tuple[str, float]:
    """Run, lose the host in the middle, and return what is said, and after how long."""
    fleet = spread(machines, None, "edge", "other")
    with (
        closing(Network(fleet, tmp_path)) as network,
        StagePool(fleet, SessionConfig(), LIMIT_S) as pool,
        Runner(pool, network, bench.layout("a", "b", "c"), time_limit_s=LIMIT_S) as runner,
    ):
        one_at_a_time(runner, bench.samples, 0.0, 5)
        if act == "stage":
            psutil.Process(stages(machines, "other")[0]).kill()
        else:
            machines.gone("other")
        at_s = time.monotonic()
        with pytest.raises(ExecutionError) as caught:
            one_at_a_time(runner, bench.samples, 0.0, 50)
    return str(caught.value), time.monotonic() - at_s


def test_a_stage_that_dies_on_its_host_is_said_to(bench: Bench, machines: Machines, tmp_path: Path) -> None:
    said, _ = lose(bench, machines, tmp_path, "stage")
    assert "lost devices: c (host other: pepper.execution.stage: crashed" in said
    assert "killed by SIGKILL" in said
    wait_until(lambda: not stages(machines, "edge"), 20)


def test_a_host_that_vanishes_ends_the_run_in_a_line(bench: Bench, machines: Machines, tmp_path: Path) -> None:
    said, took_s = lose(bench, machines, tmp_path, "host")
    machines.join("other")
    assert "lost devices: c (pepper.execution.stage: host lost: other does not answer" in said
    assert took_s < LIMIT_S
    wait_until(lambda: not stages(machines, "edge"), 20)


def test_any_of_a_kind_is_refused_in_a_line(machines: Machines) -> None:
    fleet = spread(machines, None, "kind:board", "other")
    with pytest.raises(ConfigError, match=r"fleet.devices.b: kind:board is any one of several hosts"):
        StagePool(fleet, SessionConfig(), LIMIT_S).__enter__()
