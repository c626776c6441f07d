"""Stages wired to those that read what they give, with the driver at both ends."""

import contextlib
import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pepper.devices.protocol import GarbledError
from pepper.errors import ExecutionError
from pepper.execution.clock import LinkClock
from pepper.execution.layout import Layout
from pepper.execution.message import Message, Stamp, decode, encode, join
from pepper.execution.pool import StageLost, StagePool
from pepper.execution.prompt import prompt_driver
from pepper.execution.queues import TCP, Keys, Sink, Source, anywhere, open_sink, open_source
from pepper.fleet import Fleet, Link
from pepper.hosts import ports
from pepper.interrupts import wait_readable


@dataclass(frozen=True)
class Hop:
    """One transfer of a pipeline.

    Attributes:
        sender: Name of a device, or None where the fleet names no source.
        receiver: Name of a device, or None where the fleet names no sink.
        link: The link between them; None where both are in one place.
    """

    sender: str | None
    receiver: str | None
    link: Link | None


class Arrival(NamedTuple):
    """A message at the end of its way, and when it was there (monotonic clock, ns)."""

    message: Message
    at_ns: int


class Network:
    """Where the queues are, and the clock of the links.

    Args:
        fleet: Whose links.
        folder: An empty folder for sockets and the clock.
        queue: Most messages between two stages.
        port: First TCP port of this machine to use; None uses shared memory, which is faster.
    """

    def __init__(self, fleet: Fleet, folder: Path, queue: int = 16, port: int | None = None) -> None:
        self.fleet, self.queue = fleet, queue
        self.file = folder / "links"
        self.slots = {pair: slot for slot, pair in enumerate(fleet.between)}
        self.clock = LinkClock.create(self.file, len(self.slots))
        self._folder, self._port = folder, port
        spread = any(entry.device and entry.device.host for entry in fleet.devices.values())
        self.keys = Keys.make() if spread or port is not None else None
        self.refused = 0  # connections from outside of the run, of the pipelines that were closed
        self._given = 0
        self._stack = ExitStack()
        self._stack.enter_context(prompt_driver())

    def address(self) -> str:
        """Return an address that no pipeline has had before, so that no message of an earlier one gets in."""
        self._given += 1
        if self._port is None:
            return f"{self._folder}/{self._given}"
        return f"{TCP}127.0.0.1:{self._port + self._given - 1}"

    def hop(self, sender: str | None, receiver: str | None) -> Hop:
        """Return the transfer between two devices.

        Raises:
            ExecutionError: There is no link between them.
        """
        if sender is None or receiver is None or sender == receiver:
            return Hop(sender, receiver, None)
        link = self.fleet.between.get((sender, receiver))
        if link is None:
            raise ExecutionError(f"no link from {sender} to {receiver}: the fleet has none; place the model again")
        return Hop(sender, receiver, link)

    def way(self, devices: Sequence[str]) -> list[Hop]:
        """Return the transfers of a plan on these devices, from the source to the sink.

        Raises:
            ExecutionError: There is no link between two devices.
        """
        places = [self.fleet.source, *devices, self.fleet.sink]
        return [self.hop(a, b) for a, b in pairwise(places)]

    def slot(self, hop: Hop) -> int | None:
        """Return the clock's slot of a hop's link; None where a message takes no time."""
        return None if hop.link is None or hop.link.is_free else self.slots[str(hop.sender), str(hop.receiver)]

    def reset(self) -> None:
        """Take everything off the links, and give each its own properties."""
        for pair, link in self.fleet.between.items():
            self.clock.set(self.slots[pair], link)

    def close(self) -> None:
        """Free the clock."""
        self._stack.close()
        self.clock.close()


class Pipeline:
    """The stages of one layout at work; a new one for each layout, and for each replay.

    Args:
        network: Its queues and links.
        pool: Where its stages come from.
        layout: The parts and devices.
        time_limit_s: Longest wait for a stage to join.

    Raises:
        ExecutionError: A device or link is missing, or an address is taken.
        StageLost: A stage does not join.
    """

    def __init__(self, network: Network, pool: StagePool, layout: Layout, time_limit_s: float) -> None:
        self.layout, self.stages = layout, pool.stages(layout)
        self._network, self._pool, self._time_limit_s = network, pool, time_limit_s
        self.ways = layout.ways
        places = [network.fleet.source, *layout.devices, network.fleet.sink]
        self.hops = [network.hop(places[way.sender], places[way.receiver]) for way in self.ways]
        hosts = [None, *(pool.lender(name) for name in layout.devices), None]
        self._ends = [(hosts[way.sender], hosts[way.receiver]) for way in self.ways]
        network.reset()
        self._stack = ExitStack()
        self._held: deque[Arrival] = deque()  # answers under way on the last links
        self._pulls: list[Source] = []
        self._pushes: list[tuple[Sink, int]] = []  # with the number of its way
        try:
            self._ahead_ns = pool.ahead_ns(layout.devices)
            self._join()
        except BaseException:
            self.close()
            raise

    def _join(self) -> None:
        """Wire the stages from the last to the first: each connects to addresses that are there."""
        network, last = self._network, len(self.stages) + 1
        most = network.queue
        addresses = [
            anywhere(receiver.ports if receiver else ports.allowed()) if sender or receiver else network.address()
            for sender, receiver in self._ends
        ]
        into = {number: [k for k, way in enumerate(self.ways) if way.receiver == number] for number in range(last + 1)}
        out_of = {number: [k for k, way in enumerate(self.ways) if way.sender == number] for number in range(last)}
        for way in into[last]:
            try:
                pull = self._stack.enter_context(closing(open_source(addresses[way], most, network.keys)))
            except OSError as error:
                raise _address_taken(addresses[way], error.strerror or str(error)) from error
            self._pulls.append(pull)
            addresses[way] = self._announced(way, pull.address)
        self._stack.callback(self._count_refused)
        for number in range(last - 1, 0, -1):
            stage = self.stages[number - 1]
            try:
                wired = stage.ask(
                    "wire",
                    self._time_limit_s,
                    number=number,
                    receive=[addresses[way] for way in into[number]],
                    send=[
                        {
                            "address": addresses[way],
                            "link": self._slot(way),
                            "carry": list(self.ways[way].carry),
                            "away": self._is_away(way),
                        }
                        for way in out_of[number]
                    ],
                    queue=most,
                    links=None if self._pool.lender(stage.part.device) else str(network.file),
                    name=f"stage {number} on {stage.part.device}",
                    keys=network.keys,
                )
            except StageLost as lost:
                if lost.reason.startswith("OSError"):
                    raise _address_taken(addresses[into[number][0]], lost.reason) from lost
                raise
            for way, address in zip(into[number], wired["receive"], strict=True):
                addresses[way] = self._announced(way, address)
        for way in out_of[0]:
            push = self._stack.enter_context(closing(open_sink(addresses[way], most, network.keys)))
            self._pushes.append((push, way))

    def _announced(self, way: int, address: str) -> str:
        """Return where the sender of a way finds the end that was opened at an address."""
        sender, receiver = self._ends[way]
        if sender is None and receiver is None:
            return address
        reached = receiver.address if receiver else sender.own_address if sender else ""
        return f"{TCP}{f'[{reached}]' if ':' in reached else reached}:{address.rpartition(':')[2]}"

    def _is_away(self, way: int) -> bool:
        """Return whether the ends of a way are on different hosts, each of which has a clock of its own."""
        sender, receiver = self._ends[way]
        return sender is not receiver

    def _slot(self, way: int) -> int | None:
        """Return the links' clock's slot; None where there is a real link, or none is needed."""
        return self._network.slot(self.hops[way]) if self._ends[way] == (None, None) else None

    def send(self, message: Message) -> bool:
        """Hand a request, or what probes the way, to the first stages; returns whether there was room."""
        if not all(push.ready() for push, _ in self._pushes):
            return False
        now = time.monotonic_ns()
        message.stamps = (Stamp(now, now, now, now),)
        for push, way in self._pushes:
            named = message.tensors if message.probe else {n: message.tensors[n] for n in self.ways[way].carry}
            part = replace(message, tensors=named, due_ns=0 if self._is_away(way) else now)
            slot = self._slot(way)
            if slot is not None:
                part.due_ns = self._network.clock.reserve(slot, part.bytes, now)
            push.send(encode(part))
        return True

    def receive(self, until_ns: int, *, room: bool = False) -> Arrival | None:
        """Wait for an answer until that time (monotonic clock); return it, or None.

        Args:
            until_ns: When to give up.
            room: Whether to return, without an answer, as soon as there is room to send.

        Raises:
            StageLost: A stage died, or sent what is no answer.
        """
        while True:
            now = time.monotonic_ns()
            due = self._held[0].at_ns if self._held else until_ns
            if self._held and due <= now:
                return self._held.popleft()
            missing = self._missing()
            if not missing:
                message = self._taken()
                self._held.append(Arrival(message, max(message.due_ns, time.monotonic_ns())))
                continue
            full = [push for push, _ in self._pushes if not push.ready()] if room else []
            if room and not full:
                return None
            # Where something is there already, more of it must not wake the driver: all of a request is wanted.
            ends = [*(pull.fileno() for pull in missing), *(push.fileno() for push in full)]
            for stage in self.stages:
                ends += stage.program.ends()
            left_ns = max(0, min(due, until_ns) - now)
            events = wait_readable([end for end in ends if end is not None], left_ns // 1_000_000)
            for stage in self.stages:
                if not set(stage.program.ends()).isdisjoint(events):
                    stage.ask("ready", self._time_limit_s)  # it cannot answer: this says how it ended
            if until_ns <= time.monotonic_ns():
                return None
            if not events and left_ns < 1_000_000:
                time.sleep(left_ns / 1e9)

    def _missing(self) -> list[Source]:
        """Return the ends at which nothing of the next answer is there yet.

        Raises:
            StageLost: What came there is no message.
        """
        try:
            return [pull for pull in self._pulls if not pull.ready()]
        except GarbledError as error:
            raise self._no_answer(error) from error

    def _taken(self) -> Message:
        """Take the answer that is there.

        Raises:
            StageLost: What the last stages handed on is no answer.
        """
        try:
            message = join([decode(pull.receive()) for pull in self._pulls])
            if len(message.stamps) != len(self.stages) + 1:
                raise GarbledError(f"{len(message.stamps)} stamps of {len(self.stages) + 1}")
            wanted = {name for way in self.ways if way.receiver > len(self.stages) for name in way.carry}
            if not message.probe and message.error is None and message.tensors.keys() != wanted:
                raise GarbledError(f"tensors {', '.join(message.tensors)[:80]!r}, not the model's outputs")
        except GarbledError as error:
            raise self._no_answer(error) from error
        message.tensors = {name: tensor.copy() for name, tensor in message.tensors.items()}
        message.stamps = tuple(stamp.by_clock_behind(self._ahead_ns.get(stamp.host, 0)) for stamp in message.stamps)
        for pull in self._pulls:
            pull.done()
        return message

    def _no_answer(self, error: GarbledError) -> StageLost:
        return StageLost(self.layout.devices[-1], f"what came from its stage is no answer ({error})")

    def probe(self, count: int) -> Arrival:
        """Send this many bytes through all stages, without any inference; returns what arrived.

        Raises:
            StageLost: A stage died, or hangs.
            ExecutionError: Every stage lives, but the bytes do not arrive in time.
        """
        self.send(Message(-1, {"probe": np.zeros(count, np.uint8)}, probe=True))
        arrived = self.receive(time.monotonic_ns() + round(self._time_limit_s * 1e9))
        if arrived is None:
            for stage in self.stages:
                stage.ask("ready", self._time_limit_s)
            limit_s = self._time_limit_s
            if away := dict.fromkeys(end.name for ends in self._ends for end in ends if end is not None):
                raise ExecutionError(
                    f"hosts {', '.join(away)}: {count} bytes do not come through within {limit_s:g} s, though every"
                    " stage lives; open the ways between them and this machine (hosts.ports), or raise"
                    " execute.time_limit_seconds"
                )
            slow = max(self.hops, key=lambda hop: hop.link.transfer_ms(count) if hop.link else 0.0)
            raise ExecutionError(
                f"link from {slow.sender} to {slow.receiver}: {count} bytes do not come through within {limit_s:g} s,"
                " though every stage lives; raise execute.time_limit_seconds, or place the model over a faster link"
            )
        return arrived

    def _count_refused(self) -> None:
        self._network.refused += sum(pull.refused() for pull in self._pulls)

    def close(self) -> None:
        """Take the pipeline apart; the stages live on. What is under way is dropped."""
        self._stack.close()
        for stage in self.stages:
            if stage.program.alive:
                with contextlib.suppress(StageLost):  # whoever wants it next will notice
                    self._network.refused += stage.ask("unwire", self._time_limit_s)["refused"]


def _address_taken(address: str, reason: str) -> ExecutionError:
    if not address.startswith(TCP):
        return ExecutionError(f"{address}: no socket can be made there ({reason}); let TMPDIR name another folder")
    port = address.rpartition(":")[2]
    if "-" in port:
        return ExecutionError(f"hosts.ports: {reason}; give a wider range, on that host and in its firewall")
    return ExecutionError(
        f"execute.transport.port: {address} cannot be used ({reason}); choose another than {port}, or leave it out"
    )
