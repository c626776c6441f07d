"""Requests in, answers out, each exactly once, whatever happens to the stages."""

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

from pepper.errors import ExecutionError
from pepper.execution.layout import Layout
from pepper.execution.message import Array, Message, Stamp
from pepper.execution.pipeline import Arrival, Hop, Network, Pipeline
from pepper.execution.pool import StageHandle, StageLost, StagePool

Replan = Callable[[frozenset[str]], Layout | None]
"""From the names of the lost devices to a layout without them, or None where there is none."""

MOST_ATTEMPTS = 3  # of a request that brings the pipeline to a halt, though all of its stages live

T = TypeVar("T")


@dataclass(frozen=True)
class Answer:
    """What became of a request.

    Attributes:
        seq: The request's number: 0, 1, ... in the order of submission.
        outputs: The model's outputs by name; empty if it failed.
        error: Why it failed, or None.
        submitted_ns: When it arose (monotonic clock).
        answered_ns: When its answer was there.
        stamps: The driver's, then one for each stage.
        layout: Number of the layout that answered it: 0, then one more with each move.
        devices: Of that layout's parts, in order.
        senders: As of `Layout`: whose messages each part, and last the driver, waited for.
        attempts: How often it was sent.
    """

    seq: int
    outputs: Mapping[str, Array]
    error: str | None
    submitted_ns: int
    answered_ns: int
    stamps: tuple[Stamp, ...]
    layout: int
    devices: tuple[str, ...]
    senders: tuple[tuple[int, ...], ...]
    attempts: int

    @property
    def latency_ms(self) -> float:
        """From the request to its answer."""
        return (self.answered_ns - self.submitted_ns) / 1e6


@dataclass(frozen=True)
class Event:
    """Something that happened to the pipeline.

    Attributes:
        at_ns: When (monotonic clock).
        kind: ``lost`` (a device), ``moved`` (to another layout), ``replayed`` or ``failed`` (requests).
        note: What and why, in one line.
    """

    at_ns: int
    kind: str
    note: str


@dataclass
class _Request:
    inputs: Mapping[str, Array]
    submitted_ns: int
    attempts: int = 0


class Runner:
    """A model being served by a layout, and by the next one when that fails.

    Requests are numbered; one that is in flight when the pipeline changes is sent again, and only its first answer
    counts. So each request has exactly one answer: its outputs, or the reason why it failed.

    Args:
        pool: The stages.
        network: The queues and links.
        layout: What to run first.
        time_limit_s: A pipeline that answers nothing for this long is taken for stalled.
        replan: Finds a layout without the lost devices; None: a lost device ends the run.
        in_flight: Most requests under way at a time.

    Raises:
        ExecutionError: The layout cannot be run, and there is no other.
    """

    def __init__(
        self,
        pool: StagePool,
        network: Network,
        layout: Layout,
        *,
        time_limit_s: float,
        replan: Replan | None = None,
        in_flight: int = 16,
    ) -> None:
        self.events: list[Event] = []
        self.moves = -1
        self.in_flight = in_flight
        self._pool, self._network, self._replan = pool, network, replan
        self.time_limit_s = time_limit_s
        self._pending: dict[int, _Request] = {}
        self._unsent: deque[int] = deque()
        self._answers: deque[Answer] = deque()
        self._next = 0
        self._progress_ns = 0
        self._pipeline: Pipeline | None = None
        self._switch(layout)

    @property
    def layout(self) -> Layout:
        """What runs now."""
        return self._running.layout

    @property
    def hops(self) -> list[Hop]:
        """The transfers of what runs now."""
        return self._running.hops

    @property
    def stages(self) -> list[StageHandle]:
        """The stages of what runs now."""
        return self._running.stages

    @property
    def pending(self) -> int:
        """How many requests have no answer yet."""
        return len(self._pending)

    @property
    def _running(self) -> Pipeline:
        assert self._pipeline is not None
        return self._pipeline

    def submit(self, inputs: Mapping[str, Array], submitted_ns: int | None = None) -> int:
        """Send a request; waits while as many as allowed are in flight.

        Args:
            inputs: The model's inputs by name; their memory must not change until the answer is there.
            submitted_ns: When it arose, if that was earlier.

        Returns:
            Its number.

        Raises:
            ExecutionError: No layout is left to go on with.
        """
        at_ns = time.monotonic_ns() if submitted_ns is None else submitted_ns
        while len(self._pending) >= self.in_flight:
            self._step(time.monotonic_ns() + 1_000_000_000)
        seq, self._next = self._next, self._next + 1
        self._pending[seq] = _Request(inputs, at_ns)
        self._unsent.append(seq)
        self._step(0)
        return seq

    def take(self, until_ns: int) -> Answer | None:
        """Return the next answer, in the order in which they come; None if none comes until then.

        Args:
            until_ns: Monotonic clock.

        Raises:
            ExecutionError: No layout is left to go on with.
        """
        while not self._answers and (self._pending or time.monotonic_ns() < until_ns):
            self._step(until_ns)
            if time.monotonic_ns() >= until_ns:
                break
        return self._answers.popleft() if self._answers else None

    def move(self, layout: Layout, why: str = "asked for") -> None:
        """Go on with another layout: its stages are started, what is in flight is answered, then it takes over.

        Raises:
            ExecutionError: The layout cannot be run, or no layout is left to go on with.
        """
        try:
            self._pool.stages(layout)
        except StageLost as lost:
            return self._recover(lost)
        start_ns, before = time.monotonic_ns(), self.layout
        while self._pending and time.monotonic_ns() < start_ns + round(self.time_limit_s * 1e9):
            self._step(time.monotonic_ns() + 1_000_000_000)
        if self.layout is not before:  # a device was lost meanwhile: what was found without it goes on
            return None
        self._event("moved", f"to {' - '.join(layout.devices)}: {why}")
        return self._switch(layout)

    def _step(self, until_ns: int) -> None:
        """Send what there is room for, and wait for one answer until that time."""
        pipeline = self._running
        while self._unsent and self._send(pipeline):
            pass
        limit_ns = self._progress_ns + round(self.time_limit_s * 1e9)
        if self._pending:
            until_ns = min(until_ns, limit_ns)
        try:
            arrival = pipeline.receive(until_ns, room=bool(self._unsent))
            if arrival is not None:
                self._answer(arrival)
            elif self._pending and time.monotonic_ns() >= limit_ns:
                self._stalled()
        except StageLost as lost:
            self._recover(lost)

    def _send(self, pipeline: Pipeline) -> bool:
        seq = self._unsent[0]
        request = self._pending[seq]
        if not pipeline.send(Message(seq, request.inputs)):
            return False
        if len(self._pending) - len(self._unsent) == 0:
            self._progress_ns = time.monotonic_ns()  # the pipeline was empty
        request.attempts += 1
        self._unsent.popleft()
        return True

    def _answer(self, arrival: Arrival) -> None:
        message = arrival.message
        request = self._pending.pop(message.seq, None)
        self._progress_ns = time.monotonic_ns()
        if request is not None:  # else it has been answered
            self._answers.append(
                Answer(
                    message.seq,
                    message.tensors,
                    message.error,
                    request.submitted_ns,
                    arrival.at_ns,
                    message.stamps,
                    self.moves,
                    self.layout.devices,
                    self.layout.senders,
                    request.attempts,
                )
            )

    def _stalled(self) -> None:
        """Find out who holds everything up; if nobody does, send again, and give a request up after some attempts."""
        for stage in self._running.stages:
            stage.ask("ready", self.time_limit_s)
        for seq in [seq for seq, request in self._pending.items() if request.attempts >= MOST_ATTEMPTS]:
            request = self._pending.pop(seq)
            reason = f"no answer within {self.time_limit_s:g} s, {request.attempts} times, though every stage lives"
            self._event("failed", f"request {seq}: {reason}")
            now = time.monotonic_ns()
            self._answers.append(
                Answer(
                    seq,
                    {},
                    reason,
                    request.submitted_ns,
                    now,
                    (),
                    self.moves,
                    self.layout.devices,
                    self.layout.senders,
                    request.attempts,
                )
            )
        self._event("replayed", f"{len(self._pending)} requests: no answer within {self.time_limit_s:g} s")
        self._switch(self.layout)

    def _recover(self, lost: StageLost) -> None:
        """Go on without a device.

        Raises:
            ExecutionError: No layout is left.
        """
        self._pool.lose(lost.device, lost.reason)
        self._event("lost", str(lost))
        layout = self._replan(frozenset(self._pool.lost)) if self._replan else None
        if layout is None:
            lost_ones = "; ".join(f"{device} ({reason})" for device, reason in self._pool.lost.items())
            raise ExecutionError(
                f"no plan is left without the lost devices: {lost_ones}; {len(self._pending)} requests unanswered"
            )
        self._event("moved", f"to {' - '.join(layout.devices)}: lost {lost.device}")
        if self._pending:
            self._event("replayed", f"{len(self._pending)} requests")
        self._switch(layout)

    def _switch(self, layout: Layout) -> None:
        """Wire a pipeline for the layout, and send everything again that has no answer."""
        if self._pipeline is not None:
            self._pipeline.close()
        self._unsent = deque(self._pending)
        self._progress_ns = time.monotonic_ns()
        self.moves += 1
        try:
            self._pipeline = Pipeline(self._network, self._pool, layout, self.time_limit_s)
            self._pool.pause(self._pipeline.stages)
        except StageLost as lost:
            self._recover(lost)

    def _event(self, kind: str, note: str) -> None:
        self.events.append(Event(time.monotonic_ns(), kind, note))

    def probe(self, count: int) -> Arrival:
        """Send this many bytes through the idle pipeline, of the next layout if a device is lost.

        Raises:
            ExecutionError: They do not arrive in time, or no layout is left to go on with.
        """
        return self._surviving(lambda: self._running.probe(count))

    def usage(self) -> list[dict[str, Any]]:
        """Return CPU time (s) and memory (bytes) of each stage, of the next layout if a device is lost.

        Raises:
            ExecutionError: No layout is left to go on with.
        """
        return self._surviving(lambda: [stage.ask("usage", self.time_limit_s) for stage in self._running.stages])

    def _surviving(self, ask: Callable[[], T]) -> T:
        """Ask the stages, and again those of the next layout where a device is lost."""
        while True:
            try:
                return ask()
            except StageLost as lost:
                self._recover(lost)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # After any other error a stage may be in the middle of an answer.
        if self._pipeline is not None and (error is None or isinstance(error, ExecutionError)):
            self._pipeline.close()
