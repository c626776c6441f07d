"""The program that stops and continues others in turn: ``python -m pepper.devices.suspender``.

A process of its own, so that nothing the parent does delays its signals. The kernel ends it, and the
stopped processes, if the parent dies.
"""

import contextlib
import os
import random
import signal
import time

from pepper.devices.protocol import Handler, answer, connect

CYCLE_RANGE = (0.5, 1.5)  # of the mean length
CYCLE_RANGE = (0.5, 1.5)  # of the mean length
MOST_CORRECTION = 0.5  # of a cycle: a long delay is not made up for by a long unthrottled run


class Suspender:
    """Processes and the cycle in which they run and wait, and those that run while they wait."""

    def __init__(self) -> None:
        self.pids: list[int] = []
        self.fillers: list[int] = []
        self.share = 1.0
        self.period_s = 0.0

    def add(self, pid: int, share: float, period_ms: float) -> None:
        """Stop and continue one more process from now on."""
        self.pids.append(pid)
        self.share, self.period_s = share, period_ms / 1000

    def fill(self, pids: list[int]) -> None:
        """Let these processes run whenever the others wait."""
        self.fillers = pids

    def switch(self, stopped: list[int], running: list[int]) -> None:
        """Stop some processes and continue others, those that still live."""
        for pids, number in ((stopped, signal.SIGSTOP), (running, signal.SIGCONT)):
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)


def main() -> None:
    """Cycle until the parent closes the connection, then let every process run."""
    with contextlib.suppress(PermissionError):  # without it, signals come a little later under load
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    suspender = Suspender()
    connection = connect()
    handlers: dict[str, Handler] = {"add": suspender.add, "fill": suspender.fill}
    while not suspender.pids:
        if not answer(connection, handlers):
            return
    rng = random.Random(0)
    # How much longer than their share the processes have run: grows by 1 - share a second while they run,
    # falls by share a second while they are stopped.
    ahead_s = 0.0
    while True:
        # A cycle of constant length would lock in step with the inferences and bias their median.
        cycle_s = suspender.period_s * rng.uniform(*CYCLE_RANGE)
        run_s = suspender.share * cycle_s
        resumed = time.perf_counter()
        suspender.pids.append(suspender.pids.pop(0))  # who wakes first runs first: take turns
        suspender.switch(suspender.fillers, suspender.pids)
        if connection.poll(max(0.0, run_s - ahead_s / (1 - suspender.share))) and not answer(connection, handlers):
            break
        suspender.switch(suspender.pids, suspender.fillers)
        stopped = time.perf_counter()
        ahead_s += (stopped - resumed) * (1 - suspender.share)
        time.sleep(max(0.0, ahead_s / suspender.share))
        ahead_s -= (time.perf_counter() - stopped) * suspender.share
        most = MOST_CORRECTION * run_s
        ahead_s = min(max(ahead_s, -most), most)
    suspender.switch(suspender.fillers, suspender.pids)


if __name__ == "__main__":
    main()
