"""A pipeline that moves to another plan when the load on the devices calls for it."""

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import wait
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from pepper.config import LoadConfig
from pepper.execution.layout import Layout
from pepper.execution.loads import LoadMeter
from pepper.execution.pool import StageLost, StagePool
from pepper.execution.runner import Runner
from pepper.execution.watch import Watch

INTERVAL_S = 0.5
"""Between readings of the loads: fifty of the kernel's ticks."""

Loads = Mapping[str, float]
"""Percent by device's name."""


@dataclass(frozen=True)
class Outlook:
    """What is predicted at the loads of a moment; values are of what the plan minimises.

    Attributes:
        current_ms: The value of the layout at work.
        best_ms: The lowest of any; infinite where there is no plan.
        best: Returns that layout, its parts written; may take seconds.
    """

    current_ms: float
    best_ms: float
    best: Callable[[], Layout]


Foresee = Callable[[Layout, Loads, frozenset[str]], Outlook]
"""From the layout at work, the devices' loads and the names of the lost devices to what is predicted."""


@dataclass(frozen=True)
class Move:
    """A move to another layout.

    Attributes:
        since_ns: Since when that was predicted to be better (monotonic clock, as below).
        at_ns: When it took over.
        number: Its number among the runner's layouts.
        before: The devices of the layout before.
        after: Its devices.
        loads: Loads that decided, percent by device.
        current_ms: Predicted value of the layout before, at these loads.
        best_ms: The same of this one.
    """

    since_ns: int
    at_ns: int
    number: int
    before: tuple[str, ...]
    after: tuple[str, ...]
    loads: Loads
    current_ms: float
    best_ms: float


@dataclass(frozen=True)
class _Proposal:
    """A layout to move to, its stages started, in place of the one that it is better than."""

    since_s: float
    current: Layout
    best: Layout
    outlook: Outlook
    loads: Loads


class Adapter:
    """Watches the loads while it is entered, and prepares moves in the background; requests wait for the switch only.

    Args:
        runner: What runs.
        pool: Its devices and stages.
        foresee: What is predicted.
        watch: When to move.
        changes: Loads to put on devices in mid-run, by device's name.
        after_s: When to do so.
    """

    def __init__(
        self,
        runner: Runner,
        pool: StagePool,
        foresee: Foresee,
        watch: Watch,
        changes: Mapping[str, LoadConfig] | None = None,
        after_s: float = 0.0,
    ) -> None:
        self.moves: list[Move] = []
        self._runner, self._pool, self._foresee, self._watch = runner, pool, foresee, watch
        self._changes, self._after_s = dict(changes or {}), after_s
        self._proposal: _Proposal | None = None
        self._stop = threading.Event()

    def __enter__(self) -> Self:
        for name in self._changes:  # its generator is up before the first request
            self._pool.put(name, self._pool.planned(name))
        self._watching = self._pool.background.submit(self._observe)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        wait([self._watching])
        if kind is None:
            self._watching.result()
            self._pool.load(running=True)

    def attend(self) -> None:
        """Move, if it is time; to be called between requests.

        Raises:
            ExecutionError: No layout is left to go on with.
        """
        if self._watching.done():
            self._watching.result()  # it ends early only if something went wrong
        proposal, runner = self._proposal, self._runner
        if proposal is None:
            return
        if runner.layout is proposal.current:  # else a device was lost meanwhile
            outlook = proposal.outlook
            loads = ", ".join(f"{name} {percent:.0f} %" for name, percent in proposal.loads.items())
            gain = f"predicted {outlook.current_ms:.2f} -> {outlook.best_ms:.2f} ms"
            runner.move(proposal.best, f"{gain} at loads of {loads}, for {self._watch.patience_s:g} s")
        if runner.layout is proposal.best:
            self.moves.append(
                Move(
                    round(proposal.since_s * 1e9),
                    time.monotonic_ns(),
                    runner.moves,
                    proposal.current.devices,
                    proposal.best.devices,
                    proposal.loads,
                    proposal.outlook.current_ms,
                    proposal.outlook.best_ms,
                )
            )
        self._proposal = None

    def _observe(self) -> None:
        """Read the loads, change them when it is time, and propose moves, until told to stop."""
        meter = LoadMeter(self._pool)
        changes, begun_s = self._changes, time.monotonic()
        while not self._stop.wait(INTERVAL_S):
            now_s = time.monotonic()
            loads = {name: load.percent for name, load in meter.read().items()}
            if now_s - begun_s >= self._after_s:
                for name, load in changes.items():
                    self._pool.put(name, load)
                changes = {}
            if self._proposal is None:
                self._proposal = self._propose(now_s, loads)

    def _propose(self, now_s: float, loads: Loads) -> _Proposal | None:
        current = self._runner.layout
        outlook = self._foresee(current, loads, frozenset(self._pool.lost))
        since_s = self._watch.note(now_s, outlook.current_ms, outlook.best_ms)
        if since_s is None:
            return None
        best = outlook.best()
        with contextlib.suppress(StageLost):  # the move meets it again, and goes on without that device
            self._pool.stages(best)
        return _Proposal(since_s, current, best, outlook, loads)
