"""The program that stops and continues others in turn: ``python -m pepper.devices.suspender``.

A process of its own, so that nothing the parent does delays its signals. The kernel ends it, and the
stopped processes, if the parent dies.
"""

import contextlib
import os
import signal
import time

from pepper.devices.protocol import answer, connect

MOST_CORRECTION = 0.5  # of a cycle: a long delay is not made up for by a long unthrottled run


class Suspender:
    """Processes and the cycle in which they run and wait."""

    def __init__(self) -> None:
        self.pids: list[int] = []
        self.share = 1.0
        self.period_s = 0.0

    def add(self, pid: int, share: float, period_ms: float) -> None:
        """Stop and continue one more process from now on."""
        self.pids.append(pid)
        self.share, self.period_s = share, period_ms / 1000

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to every process that still lives."""
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def main() -> None:
    """Cycle until the parent closes the connection, then let every process run."""
    with contextlib.suppress(PermissionError):  # without it, signals come a little later under load
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    suspender = Suspender()
    connection = connect()
    handlers = {"add": suspender.add}
    if not answer(connection, handlers):
        return
    ahead_s = 0.0  # how much longer than their share the processes have run
    while True:
        run_s, stop_s = suspender.share * suspender.period_s, (1 - suspender.share) * suspender.period_s
        resumed = time.perf_counter()
        suspender.pids.append(suspender.pids.pop(0))  # who wakes first runs first: take turns
        suspender.signal(signal.SIGCONT)
        if connection.poll(max(0.0, run_s - ahead_s)) and not answer(connection, handlers):
            break
        suspender.signal(signal.SIGSTOP)
        stopped = time.perf_counter()
        ahead_s += (stopped - resumed) * (1 - suspender.share)
        # While it runs, `ahead_s` grows by 1 - share a second; while it is stopped, it falls by share a second.
        time.sleep(max(0.0, stop_s + (ahead_s - stop_s * suspender.share) / suspender.share))
        ahead_s -= (time.perf_counter() - stopped) * suspender.share
        most = MOST_CORRECTION * run_s
        ahead_s = min(max(ahead_s, -most), most)
    suspender.signal(signal.SIGCONT)


if __name__ == "__main__":
    main()
