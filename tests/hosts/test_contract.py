"""What every host, its devices and their programs keep; one more implementation is one more entry of `HOSTS`."""

import json
import select
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from harness import wait_until

from pepper.config import DeviceConfig
from pepper.devices.device import Command, Device, DeviceSpec, Program
from pepper.errors import ConfigError, MeasureError
from pepper.hosts.host import RunningHost
from pepper.hosts.local import LocalHost

HOSTS: dict[str, Callable[[], RunningHost]] = {"local": LocalHost}
GENERATOR, CALIBRATOR = "pepper.measure.generator", "pepper.devices.calibrator"


@pytest.fixture(params=HOSTS, scope="module")
def host(request: pytest.FixtureRequest) -> RunningHost:
    return HOSTS[request.param]()


@pytest.fixture
def spec(host: RunningHost) -> DeviceSpec:
    return host.resolve(DeviceConfig(name="some", threads=1))


@pytest.fixture
def device(host: RunningHost, spec: DeviceSpec) -> Iterator[Device]:
    (device,) = host.devices([spec])
    with device:
        yield device


@pytest.fixture
def half(host: RunningHost, spec: DeviceSpec) -> Iterator[Device]:
    (device,) = host.devices([replace(spec, kind="emulated", share=0.5)])
    with device:
        yield device


def used_s(program: Program) -> float:
    return float(program.request("usage", timeout_s=20)[0]["cpu_s"])


def spins(device: Device) -> Program:
    """A program that would always work."""
    program = device.start(GENERATOR)
    program.request("set", timeout_s=20, fraction=1.0, period_ms=2.0)
    return program


def test_it_says_what_it_is_in_plain_values(host: RunningHost) -> None:
    facts, state = host.facts(), host.state()
    assert json.loads(json.dumps([facts, state])) == [facts, state]
    assert {"cpu_model", "instruction_sets", "caches", "frequency_mhz", "cores", "memory_bytes", "system"} <= {*facts}
    assert host.cores() == sorted(set(host.cores()))
    assert host.name
    assert host.installed("sh")
    assert not host.installed("no-such-command")


def test_a_specification_is_whole_and_its_machine_is_the_hosts(host: RunningHost) -> None:
    spec = host.resolve(DeviceConfig(name="some"))
    assert (spec.cores, spec.threads) == (tuple(host.cores()), len(host.cores()))
    assert spec == host.resolve(DeviceConfig(name="some"))
    assert spec.machine
    assert replace(spec, machine="another").identity != spec.identity
    with pytest.raises(ConfigError, match=r"device.cores=\[99999\]"):
        host.resolve(DeviceConfig(name="some", cores=[99999]))


def test_cores_are_given_once(host: RunningHost, spec: DeviceSpec) -> None:
    with pytest.raises(ConfigError, match="wanted 2 times"):
        host.devices([spec, replace(spec, name="other")])


def test_a_program_answers_and_refuses_and_lives_on(device: Device) -> None:
    program = device.start(GENERATOR)
    assert program.module == GENERATOR
    assert device.host
    assert used_s(program) > 0
    for op, fields in (("no such", {}), ("set", {"unknown": 1})):
        with pytest.raises(MeasureError):
            program.request(op, timeout_s=20, **fields)
    assert program.alive
    assert used_s(program) > 0


def test_one_that_hangs_is_ended_and_said_to_be(device: Device) -> None:
    program = device.start(CALIBRATOR)
    program.request("share", timeout_s=20, seconds=0.001)
    with pytest.raises(MeasureError, match=r"no answer to 'share' within 0.2 s"):
        program.request("share", timeout_s=0.2, seconds=60)
    assert not program.alive


def test_one_that_is_not_there_says_so_at_the_first_request(device: Device) -> None:
    with pytest.raises(MeasureError, match="no_such_module"):
        device.start("no_such_module").request("usage", timeout_s=20)


def test_the_end_of_a_program_is_seen_without_asking(half: Device) -> None:
    program, other = half.start(GENERATOR), half.start(GENERATOR)
    for each in (program, other):
        used_s(each)
        each.confine()
    assert not select.select(program.ends(), [], [], 0)[0]
    program.end()
    program.end()
    assert not program.alive
    program.pause()
    with pytest.raises(MeasureError):
        program.request("usage", timeout_s=20)
    used_s(other)


@pytest.mark.quiet
def test_a_confined_program_gets_the_share_and_a_paused_one_nothing(half: Device) -> None:
    program = spins(half)
    assert half.throttle_method == "none" or half.given() is None
    program.confine()
    before, at_s = used_s(program), time.perf_counter()
    time.sleep(0.5)
    assert (used_s(program) - before) / (time.perf_counter() - at_s) < 0.6
    assert half.throttle_method != "none"
    if (given := half.given()) is not None:
        assert given[0] / given[1] == pytest.approx(0.5, rel=0.2)
    program.pause()
    time.sleep(0.2)
    program.confine()  # it takes up its work: what it did not do meanwhile is at most its backlog
    assert used_s(program) > before


def test_leaving_a_device_ends_its_programs(host: RunningHost, spec: DeviceSpec) -> None:
    (device,) = host.devices([replace(spec, kind="emulated", share=0.5)])
    with device:
        programs = [spins(device) for _ in range(3)]
        programs[0].confine()
        programs[1].confine()
        programs[1].pause()
        command = device.run(["sleep", "60"], 1)
    device.close()
    assert not any(program.alive for program in programs)
    assert not command.confine(1, 0.5)


def test_a_command_and_what_it_starts_are_held_and_ended(half: Device) -> None:
    def started(script: str) -> Command:
        return half.run(["sh", "-c", script], 1)

    command = started("sh -c 'while :; do :; done' & wait")
    assert command.confine(1, 20)
    wait_until(lambda: command.cpu_s() > 0, timeout_s=20)
    command.end()
    command.end()
    assert not started("exit 1").confine(1, 20)
    with pytest.raises(MeasureError, match="no-such-command"):
        half.run(["no-such-command"], 1)


def test_one_core_of_a_device(host: RunningHost) -> None:
    (device,) = host.devices([host.resolve(DeviceConfig(name="all"))])
    with device:
        programs = [device.start(GENERATOR, core) for core in range(len(device.spec.cores))]
        assert all(used_s(program) > 0 for program in programs)


def test_what_runs_on_a_device_is_seen_and_told_from_others(host: RunningHost, device: Device) -> None:
    program, meter = spins(device), host.meter([device.spec], own=True)
    before = used_s(program)
    wait_until(lambda: used_s(program) - before > 0.1, timeout_s=20)
    use = meter.read()[device.spec.name]
    assert use.busy_s > 0.05
    assert use.own_s > 0.05
    assert use.wall_s > 0
    assert use.foreign_s <= use.busy_s
    assert host.meter([device.spec]).read()[device.spec.name].own_s == 0
    assert 0 < host.busy_percent(device.spec, seconds=0.2) <= 100


@pytest.mark.slow
def test_a_calibration_is_kept(host: RunningHost, spec: DeviceSpec) -> None:
    found = host.calibrate(spec)
    assert found == host.calibrate(replace(spec, name="other"))
    assert min(found.gflops, found.memory_gbps, found.share) > 0
