"""The program that stops and continues others in turn: ``python -m pepper.devices.suspender``.

A device's turn goes to its programs or to their neighbour, as on a slow processor whose scheduler is fair: the
neighbour has what it wants, but no more than the programs do where both want all. The system's own scheduler has no say
in it, so that no habit of its (who wakes runs first, who was stopped for long runs longer) is measured as the device's.

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
LEAST_DUE = 0.5  # of a turn: with less due, a neighbour waits, so that it has what it wants on average
MOST_DUE = 4.0  # turns: what a neighbour wants beyond, and cannot have, is not made up for


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
        programs: Those that run in it, whenever the neighbours do not.
        neighbours: Those that run in it by themselves, as much as they want.
        wants: Part of the turns that the neighbours want, 0 to 1.
        due_s: For how long the neighbours still want to run.
        lead_s: How much longer the neighbours have run than the programs, while both wanted to.
        running: Those that run if it is this turn.
        ahead_s: How much longer than their share they have run: grows by 1 - share a second while they run,
            falls by share a second while they are stopped.
        ran_s: How long the turns were in all.
        turns: How many there were.
        joined_s: Since when they take turns.
    """

    share: float
    programs: list[Held] = field(default_factory=list)
    neighbours: list[Held] = field(default_factory=list)
    wants: float = 0.0
    due_s: float = 0.0
    lead_s: float = 0.0
    running: list[Held] = field(default_factory=list)
    ahead_s: float = 0.0
    ran_s: float = 0.0
    turns: int = 0
    joined_s: float = field(default_factory=time.perf_counter)

    @property
    def members(self) -> list[Held]:
        """All that take part."""
        return [*self.programs, *self.neighbours]

    def choose(self, turn_s: float) -> None:
        """Decide who runs in the next turn, of about this length."""
        self.turns += 1
        self.due_s = min(self.due_s, MOST_DUE * turn_s)
        wanted = bool(self.neighbours) and self.due_s >= LEAST_DUE * turn_s
        if not self.programs:
            self.lead_s = 0.0
        if not wanted:
            self.lead_s = max(0.0, self.lead_s)  # who does not want to run has nothing to make up for
        self.running = self.neighbours if wanted and self.lead_s <= 0 else self.programs

    def ran(self, seconds: float) -> None:
        """Put the time of a turn down to who had it."""
        self.ahead_s += seconds
        self.ran_s += seconds
        self.due_s = self.due_s + self.wants * seconds if self.neighbours else 0.0
        if self.running is self.neighbours:
            self.due_s -= seconds
            self.lead_s += seconds
        else:
            self.lead_s -= seconds


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

    def add(self, turn: int, share: float, pid: int, wants: float | None = None) -> None:
        """Stop and continue one more process from now on, together with those of the same turn.

        Args:
            turn: The device's.
            share: Part of each cycle that the turn takes.
            pid: The process.
            wants: Part of the turns that it wants for itself, as a neighbour, the same as other neighbours there; None
                is all that it can get. Who wants nothing is let run.
        """
        if not self.turns:
            self._since_s = time.perf_counter()
        joined = self.turns.setdefault(turn, Turn(share))
        self._drop(joined, pid, signal.SIGCONT)
        with contextlib.suppress(ProcessLookupError):  # its parent will find out
            held = Held(pid)
            if wants == 0:
                held.signal(signal.SIGCONT)  # it may have been paused
                held.forget()
                return
            members = joined.programs
            if wants is not None:
                members, joined.wants = joined.neighbours, wants
            members.append(held)
            runs = joined is self._current and members is joined.running
            held.signal(signal.SIGCONT if runs else signal.SIGSTOP)

    def pause(self, turn: int, pid: int) -> None:
        """Leave a process stopped, and out of the turns, until it is added again."""
        self._drop(self.turns[turn], pid, signal.SIGSTOP)

    def _drop(self, turn: Turn, pid: int, last: int) -> None:
        """Take a process out of the turns with a last signal."""
        for members in (turn.programs, turn.neighbours):
            for held in [held for held in members if held.pid == pid]:
                members.remove(held)
                held.signal(last)
                held.forget()

    def leave(self, turn: int) -> None:
        """Let the processes of a turn run on their own."""
        left = self.turns.pop(turn)
        if left is self._current:
            self._current = None
        _signal(left.members, signal.SIGCONT)
        for held in left.members:
            held.forget()
        if not self.turns:
            _signal(self._fillers, signal.SIGSTOP)

    def given(self, turn: int) -> dict[str, Any]:
        """Return how long a turn was in all, and since when that counts, in seconds; and how often it came."""
        asked = self.turns[turn]
        return {"ran_s": asked.ran_s, "wall_s": time.perf_counter() - asked.joined_s, "turns": asked.turns}

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
        if before is None or before is turn:
            self.account()
        _signal(self._fillers if before is None else before.running, signal.SIGSTOP)
        if turn is not None:
            turn.choose(turn.share * self._period_s)
            if turn.running:
                turn.running.append(turn.running.pop(0))  # who wakes first runs first: take turns
        _signal(self._fillers if turn is None else turn.running, signal.SIGCONT)
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
            self._current.ran(elapsed_s)

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
            _signal(turn.members, signal.SIGCONT)


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
