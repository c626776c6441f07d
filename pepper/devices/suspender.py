"""The program that stops and continues others in turn: ``python -m pepper.devices.suspender``.

A process of its own, so that nothing the parent does delays its signals. The kernel ends it, and the
stopped processes, if the parent dies.
"""

import contextlib
import os
import random
import signal
import time
from dataclasses import dataclass, field
from typing import Any

from pepper.devices.protocol import Handler, answer, connect

CYCLE_RANGE = (0.5, 1.5)  # of the mean length
MOST_CORRECTION = 0.5  # of a turn: a long delay is not made up for by a long unthrottled run
LEAST_REST = 1e-6  # of a cycle: with less, the turns fill it


class Held:
    """A process that is stopped and continued: by a descriptor, since its number may be another's once it has ended.

    Args:
        pid: Its number.

    Raises:
        ProcessLookupError: It has ended.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._descriptor = os.pidfd_open(pid)

    def signal(self, number: int) -> None:
        """Send a signal, if the process is there."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._descriptor, number)

    def forget(self) -> None:
        """Send no more."""
        os.close(self._descriptor)


@dataclass(eq=False)
class Turn:
    """The processes of one device, and the share of the time in which they run.

    Attributes:
        share: Part of each cycle, 0 < share <= 1.
        processes: Those that run in it.
        ahead_s: How much longer than their share they have run: grows by 1 - share a second while they run,
            falls by share a second while they are stopped.
        ran_s: For how long they were not stopped.
        joined_s: Since when they take turns.
    """

    share: float
    processes: list[Held] = field(default_factory=list)
    ahead_s: float = 0.0
    ran_s: float = 0.0
    joined_s: float = field(default_factory=time.perf_counter)


class Suspender:
    """The turns that devices take on the same cores, and the processes that run in the time that they leave."""

    def __init__(self) -> None:
        self.turns: dict[int, Turn] = {}
        self._fillers: list[Held] = []
        self._period_s = 0.0
        self._current: Turn | None = None  # the fillers' time
        self._since_s = 0.0
        self._rng = random.Random(0)

    def start(self, fillers: list[int], period_ms: float) -> None:
        """Say what runs in the time that no turn takes, and how long a cycle is on average."""
        self._fillers, self._period_s = [Held(pid) for pid in fillers], period_ms / 1000

    def add(self, turn: int, share: float, pid: int) -> None:
        """Stop and continue one more process from now on, together with those of the same turn."""
        if not self.turns:
            self._since_s = time.perf_counter()
        joined = self.turns.setdefault(turn, Turn(share))
        with contextlib.suppress(ProcessLookupError):  # its parent will find out
            joined.processes.append(Held(pid))
            joined.processes[-1].signal(signal.SIGCONT if joined is self._current else signal.SIGSTOP)

    def pause(self, turn: int, pid: int) -> None:
        """Leave a process stopped, and out of the turns, until it is added again."""
        processes = self.turns[turn].processes
        for held in [held for held in processes if held.pid == pid]:
            processes.remove(held)
            held.signal(signal.SIGSTOP)
            held.forget()

    def leave(self, turn: int) -> None:
        """Let the processes of a turn run on their own."""
        left = self.turns.pop(turn)
        if left is self._current:
            self._current = None
        _signal(left.processes, signal.SIGCONT)
        for held in left.processes:
            held.forget()
        if not self.turns:
            _signal(self._fillers, signal.SIGSTOP)

    def given(self, turn: int) -> dict[str, Any]:
        """Return for how long a turn's processes were not stopped, and since when that counts, in seconds."""
        asked = self.turns[turn]
        return {"ran_s": asked.ran_s, "wall_s": time.perf_counter() - asked.joined_s}

    @property
    def share(self) -> float:
        """The part of each cycle that the turns take together."""
        return sum(turn.share for turn in self.turns.values())

    @property
    def rests(self) -> bool:
        """Whether the turns leave time to the fillers."""
        return self.share < 1 - LEAST_REST

    def plan(self) -> list[tuple[Turn, float]]:
        """Return who runs in the next cycle and for how long, so that all shares come out even at its end."""
        # A cycle of constant length would lock in step with the inferences and bias their median.
        cycle_s = self._period_s * self._rng.uniform(*CYCLE_RANGE)
        turns = list(self.turns.values())
        for turn in turns:
            most = MOST_CORRECTION * turn.share * cycle_s
            turn.ahead_s = min(max(turn.ahead_s, -most), most)
        if self.rests:
            cycle_s -= sum(turn.ahead_s for turn in turns) / (1 - self.share)
        self._rng.shuffle(turns)
        return [(turn, max(0.0, turn.share * cycle_s - turn.ahead_s)) for turn in turns]

    def hand_over(self, turn: Turn | None) -> None:
        """Stop who runs and let another turn run, or the fillers; the switching counts as the turn's time."""
        before = self._current
        if before is None:
            self.account()
        if turn is not None and turn.processes:
            turn.processes.append(turn.processes.pop(0))  # who wakes first runs first: take turns
        _signal(self._fillers if before is None else before.processes, signal.SIGSTOP)
        _signal(self._fillers if turn is None else turn.processes, signal.SIGCONT)
        if before is not None:
            self.account()
        self._current = turn

    def account(self) -> None:
        """Put the time since the last call down to who had it."""
        now = time.perf_counter()
        elapsed_s, self._since_s = now - self._since_s, now
        for turn in self.turns.values():
            turn.ahead_s -= elapsed_s * turn.share
        if self._current is not None:
            self._current.ahead_s += elapsed_s
            self._current.ran_s += elapsed_s

    def rest(self) -> None:
        """Let the fillers run until all shares are even."""
        if self.turns and self.rests:
            self.hand_over(None)
            time.sleep(max(0.0, sum(turn.ahead_s for turn in self.turns.values()) / self.share))
        self.account()

    def end(self) -> None:
        """Let every process run, and no filler."""
        _signal(self._fillers, signal.SIGSTOP)
        for turn in self.turns.values():
            _signal(turn.processes, signal.SIGCONT)


def _signal(processes: list[Held], number: int) -> None:
    for held in processes:
        held.signal(number)


def main() -> None:
    """Cycle until the parent closes the connection, then let every process run."""
    with contextlib.suppress(PermissionError):  # without it, signals come a little later under load
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    suspender = Suspender()
    connection = connect()
    handlers: dict[str, Handler] = {
        name: getattr(suspender, name) for name in ("start", "add", "pause", "leave", "given")
    }
    connected = True
    while connected:
        if not suspender.turns:
            connected = answer(connection, handlers)
            continue
        for turn, run_s in suspender.plan():
            if connected and turn in suspender.turns.values():
                suspender.hand_over(turn)
                connected = not connection.poll(run_s) or answer(connection, handlers)
        if connected:
            suspender.rest()
    suspender.end()


if __name__ == "__main__":
    main()
