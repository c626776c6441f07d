"""Signals: each ends what runs, wherever it falls, and never in the middle of what must be whole."""

import contextlib
import ctypes
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from random import Random

import pytest
from harness import ROOT

from pepper import interrupts
from pepper.interrupts import Interrupted, check, listening, signals_deferred, wait_readable

COMPARE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int))


@pytest.fixture(autouse=True)
def _short_grace(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(interrupts, "GRACE_S", 0.05)
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)]
    yield
    after = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)]
    assert before == after


def ended_by(work: Callable[[], object]) -> Interrupted:
    """What ends the work while signals are heeded."""
    with pytest.raises(Interrupted) as stop, listening():
        work()
    return stop.value


def sort_with_a_callback() -> None:
    """A C library that calls back into Python most of the time."""
    numbers = (ctypes.c_int * 300)(*range(300, 0, -1))
    compare = COMPARE(lambda a, b: sum(range(200)) * 0 + a[0] - b[0])
    ctypes.CDLL(None).qsort(numbers, len(numbers), ctypes.sizeof(ctypes.c_int), compare)


def query_with_a_callback() -> None:
    connection = sqlite3.connect(":memory:")
    connection.set_progress_handler(lambda: sum(range(200)) * 0, 20)
    connection.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200) SELECT max(i) FROM n"
    )
    connection.close()


class Dropped:
    def __del__(self) -> None:
        sum(range(3000))


@pytest.mark.parametrize("work", [sort_with_a_callback, query_with_a_callback, Dropped])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_none_gets_lost_in_a_callback(
    work: Callable[[], object], number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    rng = Random(number)

    def keep_working() -> None:
        threading.Timer(rng.uniform(0, 0.02), os.kill, (os.getpid(), number)).start()
        end = time.monotonic() + 10
        while time.monotonic() < end:
            with contextlib.suppress(sqlite3.Error):  # what was raised inside came out as another error
                work()

    for _ in range(8):
        assert ended_by(keep_working).number == number
    assert "ignored" not in capfd.readouterr().err


def test_a_signal_waits_for_a_safe_point(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "GRACE_S", 60)
    done = []

    def work() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        done.append("up to there")
        check()
        done.append("beyond")

    stop = ended_by(work)
    assert done == ["up to there"]
    assert (stop.word, stop.status) == ("terminated", 143)


def test_a_signal_after_the_last_safe_point_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "GRACE_S", 60)
    assert ended_by(lambda: os.kill(os.getpid(), signal.SIGINT)).status == 130


def test_whoever_waits_wakes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "GRACE_S", 60)
    read, write = os.pipe()

    def work() -> None:
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
        wait_readable([read])

    ended_by(work)
    with listening():
        assert wait_readable([read], 1) == []
        os.write(write, b"x")
        assert wait_readable([read]) == [read]
    os.close(read)
    os.close(write)


def test_another_thread_that_waits_ends_too() -> None:
    read, write = os.pipe()
    ended = []

    def wait() -> None:
        try:
            wait_readable([read])
        except Interrupted as stop:
            ended.append(stop)

    def work() -> None:
        waiting = threading.Thread(target=wait)
        waiting.start()
        os.kill(os.getpid(), signal.SIGTERM)
        try:
            check()
        finally:
            waiting.join(10)

    ended_by(work)
    assert len(ended) == 1
    os.close(read)
    os.close(write)


def test_what_cleans_up_is_left_in_peace_unless_asked_again() -> None:
    done = []

    def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            check()
        finally:
            time.sleep(4 * interrupts.GRACE_S)
            assert wait_readable([], 1) == []
            done.append("cleaned up")
            os.kill(os.getpid(), signal.SIGTERM)
            done.append("not reached")

    ended_by(work)
    assert done == ["cleaned up"]


def test_what_became_another_error_is_an_interrupt_all_the_same() -> None:
    def work() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        try:
            check()
        except KeyboardInterrupt:
            raise RuntimeError("a library's") from None

    ended_by(work)


def test_what_is_ignored_stays_so() -> None:
    program = (
        "import os, signal; from pepper.interrupts import *\n"
        "with listening():\n  os.kill(os.getpid(), signal.SIGHUP); check(); print('on')"
    )
    done = subprocess.run(
        ["nohup", sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout == "on\n"


def test_an_interrupt_comes_at_the_end_of_what_is_held() -> None:
    done = []

    def interrupted() -> None:
        with signals_deferred():
            os.kill(os.getpid(), signal.SIGINT)
            done.append("the block")

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert done == ["the block"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_error_in_what_is_held_comes_out() -> None:
    with pytest.raises(ZeroDivisionError), signals_deferred():
        raise ZeroDivisionError
