"""Layouts at work: right answers, each exactly once, in spite of everything."""

import contextlib
import os
import signal
import socket
import threading
import time
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from ladders import Bench

from pepper.errors import ExecutionError
from pepper.execution.layout import Layout
from pepper.execution.links import measure_hops
from pepper.execution.message import Message, Stamp, encode
from pepper.execution.pipeline import Network
from pepper.execution.pool import StagePool
from pepper.execution.runner import Answer, Replan, Runner
from pepper.execution.trials import Sample, at_rate, one_at_a_time, poisson_times, saturated
from pepper.fleet import Fleet, Link, connected
from pepper.graph.rounding import Values, difference

SLOW_S = 0.005
OUTPUTS = {"y": np.zeros(1)}


@pytest.fixture(autouse=True)
def _whole(pool: StagePool) -> None:
    """What one test loses is back for the next."""
    pool.lost.clear()


def running(pool: StagePool, network: Network, layout: Layout, replan: Replan | None = None, **options: int) -> Runner:
    return Runner(pool, network, layout, time_limit_s=1.0, replan=replan, **options)


def all_answers(runner: Runner) -> list[Answer]:
    found = []
    while runner.pending:
        answer = runner.take(time.monotonic_ns() + 1_000_000_000)
        if answer is not None:
            found.append(answer)
    while (answer := runner.take(0)) is not None:
        found.append(answer)
    return found


def assert_right(bench: Bench, answers: list[Answer], requests: int) -> None:
    """Each request has one answer, and it is its own."""
    assert sorted(answer.seq for answer in answers) == list(range(requests))
    for answer in answers:
        assert answer.error is None
        for name, value in bench.samples[answer.seq % 3].expected.items():
            assert difference(value, answer.outputs[name]) < 1e-5


@pytest.mark.parametrize("ends", [0, 1, 2])
def test_garbage_between_stages_is_said_in_a_line_and_the_run_goes_on(
    ends: int, bench: Bench, pool: StagePool, network: Network
) -> None:
    """Of whoever sends it: the driver (0), or a stage, to the next one or to the driver."""
    with running(pool, network, bench.layout("a", "b"), lambda lost: bench.layout("c")) as runner:
        pipeline = runner._running
        if ends == 0:
            pipeline._pushes[0][0].send([b"garbage", b"more"])
        else:
            message = Message(0, {"y": np.zeros(3)}, (Stamp(0, 0, 0, 0),) * (3 if ends == 1 else 1))
            pipeline._pulls[0].receive = lambda: [memoryview(bytes(piece)) for piece in encode(message)]  # type: ignore[method-assign]
        submit(bench, runner, 4)
        assert_right(bench, all_answers(runner), 4)
        (lost,) = [event.note for event in runner.events if event.kind == "lost"]
    assert ("stage 1 on a: what came is no message (2 pieces" if ends == 0 else "is no answer (") in lost
    assert "\n" not in lost


def submit(bench: Bench, runner: Runner, requests: int) -> None:
    for _ in range(requests):
        runner.submit(bench.samples[runner._next % 3].inputs)


@pytest.mark.parametrize("devices", ["a", "ab", "abc", "abca", "cbab"])
@pytest.mark.parametrize(("in_flight", "direct"), [(1, False), (16, False), (1, True), (16, True)])
def test_a_layout_computes_what_the_whole_does(
    bench: Bench, pool: StagePool, network: Network, devices: str, in_flight: int, direct: bool
) -> None:
    layout = replace(bench.layout(*devices), direct=direct)
    with running(pool, network, layout, in_flight=in_flight) as runner:
        submit(bench, runner, 30)
        answers = all_answers(runner)
    assert_right(bench, answers, 30)
    assert [answer.seq for answer in answers] == list(range(30)), "in order"
    assert runner.events == []
    for answer in answers:
        times = [moment for stamp in answer.stamps for moment in (stamp.arrived, stamp.start, stamp.end, stamp.sent)]
        assert times == sorted(times)
        assert answer.submitted_ns <= times[0]
        assert times[-1] <= answer.answered_ns
        assert len(answer.stamps) == len(devices) + 1


def test_a_stage_is_kept_for_the_next_layout(bench: Bench, pool: StagePool, network: Network) -> None:
    with running(pool, network, bench.layout("a", "b")) as runner:
        first = [stage.program.pid for stage in runner.stages]
        runner.move(bench.layout("a", "c"))
        second = [stage.program.pid for stage in runner.stages]
        submit(bench, runner, 5)
        assert_right(bench, all_answers(runner), 5)
    assert first[0] == second[0]
    assert first[1] != second[1]


def test_links_delay_as_they_should(bench: Bench, pool: StagePool, tmp_path: Path) -> None:
    links = {("a", "b"): Link(20, 30), ("b", "a"): Link(80, 5)}
    network = bench.network(tmp_path, fleet=replace(bench.fleet, links=connected(links)))
    try:
        with Runner(pool, network, bench.layout("a", "b"), time_limit_s=10) as runner:
            same, there, back = measure_hops(runner)
            trial = one_at_a_time(runner, bench.samples, 0, 5)
    finally:
        network.close()
    # Other work can only delay: what is measured is never better than what was wanted.
    assert same.hop.link is None
    assert there.latency_ms >= 30
    assert 10 < there.bandwidth_mbit_s < 24
    assert back.latency_ms >= 5
    assert 40 < back.bandwidth_mbit_s < 96
    assert trial.steps().transfer[1] >= links["a", "b"].transfer_ms(2 * 32 * 4)
    assert np.median(trial.latency_ms) >= 35


def test_a_full_queue_holds_the_sender_back(pool: StagePool, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    bench = Bench(tmp_path / "model", rows=4096)  # 0.5 MB: a system's own buffers hold a part of one
    slow = replace(bench.fleet, links=connected({("a", "b"): Link(None, 200), ("b", "a"): Link(None, 0)}))
    (tmp_path / "network").mkdir()
    network = bench.network(tmp_path / "network", queue=1, fleet=slow)
    try:
        with running(pool, network, bench.layout("a", "b"), in_flight=24) as runner:
            submit(bench, runner, 24)
            unsent = len(runner._unsent)
            answers = all_answers(runner)
    finally:
        network.close()
    assert unsent > 12, "the queues hold a few messages only"
    assert_right(bench, answers, 24)


def test_trials_measure(bench: Bench, pool: StagePool, network: Network) -> None:
    with running(pool, network, bench.layout("a", "b")) as runner:
        for trial in (
            one_at_a_time(runner, bench.samples, 0.1, 10),
            saturated(runner, bench.samples, 0.1, 10),
            at_rate(runner, bench.samples, 0.2, 100, 0),
        ):
            assert len(trial.answers) == len(trial.latency_ms) > 0
            assert trial.difference < 1e-5
            assert trial.throughput_per_s > 0
            assert len(trial.steps().compute) == 2
            assert len(trial.steps().transfer) == 3


class Bursting:
    """A runner that is slow while it is full, and answers all that is left at once."""

    in_flight = 4

    def __init__(self) -> None:
        self.pending: deque[int] = deque()
        self.there: deque[Answer] = deque()
        self.sent = 0

    def submit(self, inputs: Values, at_ns: int) -> int:
        if len(self.pending) == self.in_flight:
            time.sleep(SLOW_S)
            self._answer()
        self.pending.append(self.sent)
        self.sent += 1
        return self.pending[-1]

    def take(self, until_ns: int) -> Answer | None:
        if until_ns:
            while self.pending:
                self._answer()
        return self.there.popleft() if self.there else None

    def _answer(self) -> None:
        self.there.append(Answer(self.pending.popleft(), OUTPUTS, None, 0, time.monotonic_ns(), (), 0, (), (), 1))


def test_the_end_of_a_stream_does_not_count() -> None:
    runner = Bursting()
    trial = saturated(cast(Runner, runner), [Sample({}, OUTPUTS)], 0.0, 10)
    assert len(trial.answers) == runner.sent == 14
    assert 0 < trial.throughput_per_s <= 1 / SLOW_S


def test_arrivals_are_poisson_and_seeded() -> None:
    times = np.array(list(poisson_times(100, 50, 3)))
    assert times.tolist() == list(poisson_times(100, 50, 3))
    gaps_s = np.diff(times) / 1e9
    assert gaps_s.mean() == pytest.approx(0.01, rel=0.1)
    assert gaps_s.std() == pytest.approx(0.01, rel=0.1)


def test_a_wrong_tensor_fails_alone(bench: Bench, pool: StagePool, network: Network) -> None:
    with running(pool, network, bench.layout("a", "b", "c")) as runner:
        submit(bench, runner, 3)
        wrong = runner.submit({"x": np.zeros((2, 5), np.float32)})
        submit(bench, runner, 3)
        answers = {answer.seq: answer for answer in all_answers(runner)}
    failed = answers.pop(wrong)
    assert failed.error is not None
    assert failed.error.startswith("stage 1 on a: ")
    assert all(answer.error is None for answer in answers.values())
    assert len(answers) == 6


@pytest.mark.parametrize("victim", [0, 1, 2])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_the_run_goes_on_without_a_lost_device(
    bench: Bench, pool: StagePool, network: Network, victim: int, number: signal.Signals
) -> None:
    asked = []

    def replan(lost: frozenset[str]) -> Layout:
        asked.append(lost)
        return bench.layout(*[name for name in "abc" if name not in lost])

    with running(pool, network, bench.layout("a", "b", "c"), replan) as runner:
        submit(bench, runner, 10)
        os.kill(runner.stages[victim].program.pid, number)
        submit(bench, runner, 10)
        answers = all_answers(runner)
        assert runner.layout.devices == tuple(name for name in "abc" if name != "abc"[victim])
    assert_right(bench, answers, 20)
    assert asked == [frozenset("abc"[victim])]
    assert [event.kind for event in runner.events][:2] == ["lost", "moved"]


def test_with_no_plan_left_that_is_said(bench: Bench, pool: StagePool, network: Network) -> None:
    runner = running(pool, network, bench.layout("a", "b"))
    submit(bench, runner, 1)
    os.kill(runner.stages[1].program.pid, signal.SIGKILL)
    with pytest.raises(ExecutionError, match=r"no plan is left without the lost devices: b \(.*SIGKILL.*unanswered"):
        submit(bench, runner, 50)


def test_a_pause_is_waited_for(bench: Bench, pool: StagePool, network: Network) -> None:
    with running(pool, network, bench.layout("a", "b")) as runner:
        pid = runner.stages[0].program.pid
        os.kill(pid, signal.SIGSTOP)
        threading.Timer(0.3, os.kill, (pid, signal.SIGCONT)).start()
        submit(bench, runner, 5)
        assert_right(bench, all_answers(runner), 5)
        assert runner.events == []


def test_a_request_that_cannot_be_delivered_fails_in_time(bench: Bench, pool: StagePool, tmp_path: Path) -> None:
    dead = replace(bench.fleet, links=connected({("a", "b"): Link(1e-6, 0), ("b", "a"): Link()}))
    network = bench.network(tmp_path, fleet=dead)
    try:
        with Runner(pool, network, bench.layout("a", "b"), time_limit_s=0.3) as runner:
            submit(bench, runner, 2)
            answers = all_answers(runner)
    finally:
        network.close()
    assert [answer.seq for answer in answers] == [0, 1]
    assert all("no answer within 0.3 s, 3 times, though every stage lives" in str(a.error) for a in answers)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_stage_that_is_lost_between_requests_is_replaced(
    bench: Bench, pool: StagePool, network: Network, number: signal.Signals
) -> None:
    """What asks the stages, outside of requests, goes on with the next layout too."""
    layouts = {frozenset("b"): bench.layout("a", "c", "a"), frozenset("bc"): bench.layout("a")}
    with running(pool, network, bench.layout("a", "b"), layouts.get) as runner:
        os.kill(runner.stages[1].program.pid, number)
        assert [hop.hop.receiver for hop in measure_hops(runner)] == ["a", "c", "a", "a"]
        os.kill(runner.stages[1].program.pid, number)
        assert [usage["memory_bytes"] > 0 for usage in runner.usage()] == [True]
        assert runner.layout.devices == ("a",)
        submit(bench, runner, 3)
        assert_right(bench, all_answers(runner), 3)
    assert [event.kind for event in runner.events] == ["lost", "moved"] * 2


def test_probes_of_a_slow_link_are_small(bench: Bench, pool: StagePool, tmp_path: Path) -> None:
    slow = replace(bench.fleet, links=connected({("a", "b"): Link(0.05, 0), ("b", "a"): Link()}))
    network = bench.network(tmp_path, fleet=slow)  # 16 KB would take 2.6 s
    try:
        with Runner(pool, network, bench.layout("a", "b"), time_limit_s=2) as runner:
            there = measure_hops(runner)[1]
    finally:
        network.close()
    assert 0.025 < there.bandwidth_mbit_s < 0.06


def test_a_link_too_slow_for_the_time_limit_is_named(bench: Bench, pool: StagePool, tmp_path: Path) -> None:
    dead = replace(bench.fleet, links=connected({("a", "b"): Link(1e-6, 0), ("b", "a"): Link()}))
    network = bench.network(tmp_path, fleet=dead)
    try:
        with Runner(pool, network, bench.layout("a", "b"), time_limit_s=0.3) as runner:
            message = r"link from a to b: 128 bytes .* within 0\.3 s.* raise execute\.time_limit_seconds"
            with pytest.raises(ExecutionError, match=message):
                measure_hops(runner)
            assert runner.events == []
    finally:
        network.close()
    assert pool.lost == {}


def test_moving_loses_and_repeats_nothing(bench: Bench, pool: StagePool, network: Network) -> None:
    with running(pool, network, bench.layout("a", "b")) as runner:
        for devices in ("ba", "abc", "c", "ab"):
            submit(bench, runner, 6)
            runner.move(bench.layout(*devices))
        submit(bench, runner, 6)
        answers = all_answers(runner)
    assert_right(bench, answers, 30)
    assert [event.kind for event in runner.events] == ["moved"] * 4


def test_a_device_that_is_lost_before_a_move_is_lost_once(bench: Bench, pool: StagePool, network: Network) -> None:
    def replan(lost: frozenset[str]) -> Layout:
        return bench.layout("c")

    with running(pool, network, bench.layout("a", "b"), replan) as runner:
        pool.stages(bench.layout("b", "a"))  # they are there: the move finds out while it waits for answers
        submit(bench, runner, 6)
        os.kill(runner.stages[1].program.pid, signal.SIGKILL)
        runner.move(bench.layout("b", "a"))
        assert runner.layout.devices == ("c",)
        submit(bench, runner, 6)
        answers = all_answers(runner)
    assert_right(bench, answers, 12)
    assert [event.kind for event in runner.events][:2] == ["lost", "moved"]
    assert [event.kind for event in runner.events].count("lost") == 1
    assert [event.kind for event in runner.events].count("moved") == 1


def test_what_the_fleet_lacks_is_named(bench: Bench, pool: StagePool, tmp_path: Path) -> None:
    network = bench.network(tmp_path, fleet=Fleet(bench.fleet.devices, (), "a", "a"))
    try:
        with pytest.raises(ExecutionError, match="no link from a to b: the fleet has none"):
            running(pool, network, bench.layout("a", "b"))
        with pytest.raises(ExecutionError, match=r"device 'z': not in the fleet \(a, b, c\)"):
            running(pool, network, bench.layout("z"))
    finally:
        network.close()


def test_a_port_in_use_is_named(bench: Bench, pool: StagePool, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for first, name in ((port, "the driver's"), (port - 1, "a stage's")):
            folder = tmp_path / name
            folder.mkdir()
            network = bench.network(folder, port=first)
            try:
                with pytest.raises(ExecutionError, match=rf"execute.transport.port: .*:{port} cannot be used"):
                    running(pool, network, bench.layout("a"))
            finally:
                network.close()


def test_tcp_does_as_well(bench: Bench, pool: StagePool, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = min(free.getsockname()[1], 60000)
    network = bench.network(tmp_path, port=port)
    try:
        with running(pool, network, bench.layout("a", "b")) as runner:
            for knocked in (port, port + 1):  # the driver's, and a stage's
                with socket.create_connection(("127.0.0.1", knocked)) as stranger:
                    stranger.sendall(b"GET / HTTP/1.1\r\n" * 100)
                    stranger.settimeout(10)
                    with contextlib.suppress(ConnectionResetError):
                        while stranger.recv(4096):  # until it is shown the door
                            pass
            submit(bench, runner, 5)
            assert_right(bench, all_answers(runner), 5)
        assert network.refused == 2
    finally:
        network.close()
