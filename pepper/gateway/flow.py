"""Requests into a standing pipeline, answers out: each has exactly one, which may be that it was lost."""

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace

import numpy as np

from pepper.devices.protocol import GarbledError
from pepper.errors import ExecutionError
from pepper.execution.message import Array, Message, Stamp, decode, encode, join, newest
from pepper.execution.queues import TCP, Keys, Sink, Source, open_sink, open_source
from pepper.execution.standing_files import GatewayFile

PROBE_S = 1.0
"""How often the way through all stages is tried."""
_SILENCE_S = 3.0
_DAY_NS, _LEAP, _FARTHEST_NS = 86_400 * 10**9, 16, 180 * 366 * 86_400 * 10**9
_PROBE = {"probe": np.zeros(1, np.uint8)}


class Lost(Exception):  # noqa: N818 - an answer, and no fault of the gateway
    """A request has no answer.

    Args:
        reason: Why, in one line.
    """


class Late(Lost):
    """It has none in time."""


class Full(Lost):
    """It is not taken: as many as may be are under way."""


class Away(Lost):
    """It is not taken: nothing comes through the pipeline."""


@dataclass
class Passage:
    """A request under way.

    Attributes:
        answer: What comes of it.
        at_ns: When it was taken (monotonic clock).
    """

    answer: asyncio.Future[Message]
    at_ns: int


class GatewayFlow:
    """The gateway's end of a standing pipeline, in an event loop.

    Stages hand requests on in their order. So whatever comes out says that what went in before it, and has not come
    out, is lost; each second something that is no request goes through, too.

    Requests are numbered by the wall clock, so that those of a gateway that is started again are beyond all earlier
    ones. Where the clock was set back they are not, and a stage with several ways in may hold an earlier one and drop
    them as lost: as long as nothing comes out, the numbers leap ahead, by a day, then ever farther.

    Args:
        told: The gateway's file.
        keys: The pipeline's.

    Raises:
        ExecutionError: An address is taken.
    """

    def __init__(self, told: GatewayFile, keys: Keys) -> None:
        self._most, self._time_limit_s = told.in_flight, told.time_limit_s
        self._silence_s = _SILENCE_S + 2 * told.latency_s
        self._outputs = {tensor.name for tensor in told.outputs}
        self._carries = [outlet.carry for outlet in told.send]
        self._passages: dict[int, Passage] = {}  # the oldest first
        self._unsent: deque[Message] = deque()
        self._heads: dict[int, Message] = {}
        self._last, self._ahead_ns = time.time_ns(), 0
        self._heard_s = self._probed_s = -np.inf
        self._stack = ExitStack()
        self._pulls: list[Source] = []
        try:
            for place in told.receive:
                self._pulls.append(self._stack.enter_context(closing(open_source(TCP + place, told.queue, keys))))
        except OSError as error:
            self._stack.close()
            places = ", ".join(told.receive)
            raise ExecutionError(f"receive={places}: cannot be listened at ({error.strerror})") from error
        self._pushes: list[Sink] = [
            self._stack.enter_context(closing(open_sink(TCP + outlet.address, told.queue, keys)))
            for outlet in told.send
        ]

    @property
    def under_way(self) -> int:
        """How many requests have no answer yet."""
        return len(self._passages)

    @property
    def is_full(self) -> bool:
        """Whether as many requests are under way as may be."""
        return len(self._passages) >= self._most

    @property
    def is_ready(self) -> bool:
        """Whether something came through all stages of late."""
        return time.monotonic() - self._heard_s < self._silence_s

    async def run(self) -> None:
        """Carry messages until it is cancelled."""
        loop = asyncio.get_running_loop()
        for pull in self._pulls:
            loop.add_reader(pull.fileno(), self._drain)
        for push in self._pushes:
            if (number := push.fileno()) is not None:
                loop.add_reader(number, self._send_waiting)
        try:
            while True:
                self._probe()
                self._send_waiting()
                self._drain()
                await asyncio.sleep(PROBE_S)
        finally:
            numbers = [*(pull.fileno() for pull in self._pulls), *(push.fileno() for push in self._pushes)]
            for number in filter(None, numbers):
                loop.remove_reader(number)
            self._stack.close()

    async def infer(self, tensors: Mapping[str, Array]) -> Message:
        """Send a request and wait for its answer; it may say that a stage failed.

        Raises:
            Full: As many as may be are under way.
            Away: Nothing comes through the pipeline at present.
            Late: It has no answer in time.
            Lost: A stage ended while the request was in it.
        """
        if self.is_full:
            raise Full(f"{self._most} requests are under way, which is the most")
        if not self.is_ready:
            raise Away(f"nothing has come through the stages for {self._silence_s:.3g} s")
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        seq = self._number()
        self._passages[seq] = Passage(answer, time.monotonic_ns())
        self._unsent.append(Message(seq, tensors))
        self._send_waiting()
        try:
            async with asyncio.timeout(self._time_limit_s):
                return await answer
        except TimeoutError as error:
            raise Late(f"no answer within {self._time_limit_s:g} s") from error
        finally:
            self._passages.pop(seq, None)
            self._unsent = deque(message for message in self._unsent if message.seq != seq)

    def _number(self) -> int:
        self._last += 1
        return self._last

    def _probe(self) -> None:
        """Try the way, unless something has just come, or the last try may still come."""
        now = time.monotonic()
        waited = now - self._probed_s
        tried = self._heard_s < self._probed_s and waited < self._silence_s
        if tried or any(message.probe for message in self._unsent):
            return
        if now - self._heard_s >= PROBE_S or self._passages:
            if self._heard_s < self._probed_s:
                self._ahead_ns = min(max(_LEAP * self._ahead_ns, _DAY_NS), _FARTHEST_NS)
                self._last = max(self._last, time.time_ns() + self._ahead_ns)
            self._probed_s = now
            self._unsent.append(Message(self._number(), _PROBE, probe=True))

    def _has_room(self) -> bool:
        """Look at all ends: a descriptor stays readable until its end has been looked at, wanted or not."""
        rooms = [push.ready() for push in self._pushes]
        return all(rooms)

    def _send_waiting(self) -> None:
        """Send what waits, as far as there is room."""
        while self._has_room() and self._unsent:
            message = self._unsent.popleft()
            now = time.monotonic_ns()
            message.stamps = (Stamp(now, now, now, now),)
            for push, carry in zip(self._pushes, self._carries, strict=True):
                named = message.tensors if message.probe else {name: message.tensors[name] for name in carry}
                push.send(encode(replace(message, tensors=named)))

    def _drain(self) -> None:
        """Take what has come."""
        try:
            while True:
                there = [number for number, pull in enumerate(self._pulls) if pull.ready()]
                wanted = [number for number in there if number not in self._heads]
                came = {number: decode(self._pulls[number].receive()) for number in wanted}
                self._heads |= {number: message for number, message in came.items() if message.seq <= self._last}
                if self._heads:
                    self._heads = newest(self._heads)
                if len(self._heads) == len(self._pulls):
                    message = join([self._heads[number] for number in range(len(self._pulls))])
                    self._heads = {}
                    self._settle(message)
                elif not wanted:
                    return
        except GarbledError as error:
            self._heads = {}
            for passage in self._passages.values():
                _fail(passage, Lost(f"what came out of the last stage is no answer ({error})"))

    def _settle(self, message: Message) -> None:
        self._heard_s = time.monotonic()
        for seq, passage in self._passages.items():
            if seq >= message.seq:
                break
            _fail(passage, Lost("a stage ended while the request was in it"))
        found = self._passages.get(message.seq)
        if found is None or found.answer.done():
            return
        if message.error is None and message.tensors.keys() != self._outputs:
            _fail(found, Lost("what came out of the last stage is not what the model gives"))
        else:
            found.answer.set_result(message)


def _fail(passage: Passage, reason: Lost) -> None:
    if not passage.answer.done():
        passage.answer.set_exception(reason)
