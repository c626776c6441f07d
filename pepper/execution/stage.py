"""A stage, a part at work on its device: ``python -m pepper.execution.stage``.

It imports numpy and onnxruntime only (and pyzmq where its queues go over TCP). The parent opens the part and wires the
stage into a pipeline over the channel of :mod:`pepper.devices.protocol`; tensors come from the stages before and
go straight to those behind.
"""

import select
import time
from abc import ABC, abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import Any

from pepper.devices.memory import memory_bytes, peak_memory_bytes
from pepper.devices.protocol import GarbledError, Handler, answer, connect
from pepper.devices.providers.binding import CarriedInference
from pepper.devices.providers.faults import meaning
from pepper.devices.providers.opening import open_checked
from pepper.devices.providers.options import session_options
from pepper.devices.providers.registry import provider_named
from pepper.devices.spin import cpu_fraction
from pepper.execution.clock import LinkClock
from pepper.execution.message import Message, Stamp, decode, encode, join, plain
from pepper.execution.queues import Keys, Sink, Source, open_sink, open_source

NS_PER_MS = 1_000_000


class Outlet:
    """A way out of a stage.

    Args:
        address: Of the stage behind, or of the driver.
        link: The link to it; None is no link: both are in one place.
        carry: Names of the tensors that go there.
        queue: Most messages in between; a full queue holds the stage back.
        away: Whether that is on another host: what it takes to get there, the network itself says.
        keys: The run's; None where no queue goes over TCP.
    """

    def __init__(
        self, address: str, link: int | None, carry: list[str], away: bool, queue: int, keys: Keys | None
    ) -> None:
        self.link, self.carry, self.away = link, carry, away
        self.sink: Sink = open_sink(address, queue, keys)


class Wire:
    """A stage's queues and the links behind it.

    Args:
        number: The stage's number.
        receive: Addresses at which the stage takes requests, one for each stage before it.
        send: Where results go: for each stage behind, see :class:`Outlet`.
        queue: Most messages in each queue.
        links: File of the links' clock; None on a host to which none of them leads.
        name: How errors call this stage.
        keys: The run's; None where no queue goes over TCP.

    Raises:
        OSError: An address is taken.
    """

    def __init__(
        self,
        number: int,
        receive: list[str],
        send: list[dict[str, Any]],
        queue: int,
        links: str | None,
        name: str,
        keys: list[str] | None,
    ) -> None:
        self.number, self.name = number, name
        self._clock = None if links is None else LinkClock(Path(links))
        run_keys = None if keys is None else Keys(*keys)
        self.sources: list[Source] = []
        self.outlets: list[Outlet] = []
        try:
            for address in receive:
                self.sources.append(open_source(address, queue, run_keys))
            for outlet in send:
                self.outlets.append(Outlet(**outlet, queue=queue, keys=run_keys))
        except OSError:
            self.close()
            raise

    @property
    def carry(self) -> dict[str, None]:
        """Names of the tensors that go anywhere."""
        return dict.fromkeys(name for outlet in self.outlets for name in outlet.carry)

    def receive(self) -> Message:
        """Take the messages that are there, as one."""
        return join([decode(source.receive()) for source in self.sources])

    def send(self, message: Message) -> None:
        """Hand the message that was taken on, as it is by now; there must be room for it."""
        whole = message.probe or message.error is not None
        for outlet in self.outlets:
            tensors = message.tensors if whole else {name: message.tensors[name] for name in outlet.carry}
            part = replace(message, tensors=tensors, due_ns=0 if outlet.away else message.stamps[-1].sent)
            if outlet.link is not None and self._clock is not None:
                part.due_ns = self._clock.reserve(outlet.link, part.bytes, part.due_ns)
            outlet.sink.send(encode(part))
        for source in self.sources:
            source.done()

    def close(self) -> int:
        """Leave the pipeline; what waits in the queues is dropped. Returns how many connections were refused."""
        refused = sum(source.refused() for source in self.sources)
        for source in self.sources:
            source.close()
        for outlet in self.outlets:
            outlet.sink.close()
        if self._clock is not None:
            self._clock.close()
        return refused


class WorkingStage(ABC):
    """One part, the requests that pass through it, and whoever asks meanwhile."""

    def __init__(self) -> None:
        self._wire: Wire | None = None

    @abstractmethod
    def fileno(self) -> int:
        """Something is to be read here when somebody asks."""

    @abstractmethod
    def answer(self) -> None:
        """Answer who asks, which may change the wiring.

        Raises:
            SystemExit: There is nobody left to work for.
        """

    def load(self, path: str, provider: dict[str, Any], threads: int, options: dict[str, Any], host: str) -> None:
        """Open the part."""
        self._host = host
        chosen = provider_named(**provider)
        session, _ = open_checked(chosen, path, session_options(threads, **options))
        self._infer, self._choice = chosen.serving(session), chosen.choice
        self._reads = [value.name for value in session.get_inputs()]
        self._gives = [value.name for value in session.get_outputs()]

    def serve(self) -> None:
        """Work until there is nobody left to work for.

        Raises:
            SystemExit: So it is; or what came from another stage is no message, so there is nothing to go on with.
        """
        while True:
            wire = self._wire
            if wire is None:
                self._attend()
                continue
            try:
                self._take(wire)
            except GarbledError as error:
                raise SystemExit(f"{wire.name}: what came is no message ({error})") from error

    def _take(self, wire: Wire) -> None:
        """Wait for all that there is of a request, and pass it on."""
        waited = False
        for source in wire.sources:
            came = self._await(wire, source)
            if came is None:
                return
            waited = waited or came
        self._pass(wire, wire.receive(), waited)

    def _await(self, wire: Wire, source: Source) -> bool | None:
        """Wait for a message; returns whether it was not there yet, None where the wiring has changed meanwhile."""
        ready = self._attend(source, timeout_ms=0)
        waited = not ready
        while not ready and self._wire is wire:
            ready = self._attend(source)
        return waited if self._wire is wire else None

    def _pass(self, wire: Wire, message: Message, waited: bool) -> None:
        """Work on a request and hand it on, unless the stage is taken out of the pipeline meanwhile."""
        arrived = max(message.due_ns, time.monotonic_ns() if waited or not message.due_ns else 0)
        while (left_ns := message.due_ns - time.monotonic_ns()) > 0:
            if left_ns < NS_PER_MS:
                time.sleep(left_ns / 1e9)
            elif self._attend(timeout_ms=left_ns // NS_PER_MS) or self._wire is not wire:
                return
        start = time.monotonic_ns()
        self._run(wire, message)
        end = time.monotonic_ns()
        for outlet in wire.outlets:
            while not self._attend(outlet.sink):
                if self._wire is not wire:
                    return
        message.stamps = (*message.stamps, Stamp(arrived, start, end, time.monotonic_ns(), self._host, wire.number))
        wire.send(message)

    def _run(self, wire: Wire, message: Message) -> None:
        """Put the tensors that go on in place of those that came, or the reason why there are none."""
        if message.probe or message.error is not None:
            return
        try:
            inputs = {name: message.tensors[name] for name in self._reads}
            outputs = self._infer(inputs)
            known = {**message.tensors, **dict(zip(self._gives, outputs, strict=True))}
            message.tensors = {name: plain(name, known[name]) for name in wire.carry}
        except KeyError as error:
            message.fail(f"{wire.name}: tensor {error} is missing")
        except Exception as error:  # whatever onnxruntime raises: it has no common base
            told = meaning(error, self._choice) or " ".join(str(error).split())[:300]
            message.fail(f"{wire.name}: {told}")

    def _attend(self, end: Source | Sink | None = None, timeout_ms: int | None = None) -> bool:
        """Wait for a queue's end and for whoever asks; answer them, which may change the wiring.

        Returns:
            Whether the end is ready; False once somebody has been answered, whatever the wiring is then.

        Raises:
            SystemExit: There is nobody left to work for.
        """
        ready = end is not None and end.ready()
        asking = self.fileno()
        poller = select.poll()
        poller.register(asking, select.POLLIN)
        if end is not None and (more := end.fileno()) is not None:
            poller.register(more, select.POLLIN)
        if asking not in dict(poller.poll(0 if ready else timeout_ms)):
            return ready or (end is not None and end.ready())
        self.answer()
        return False


class StageServer(WorkingStage):
    """A stage that its parent opens and wires."""

    def __init__(self) -> None:
        super().__init__()
        self._connection = connect()
        self._handlers: dict[str, Handler] = {
            name: getattr(self, name) for name in ("ready", "open", "wire", "unwire", "usage", "share")
        }

    def fileno(self) -> int:
        """Something is to be read here when the parent asks."""
        return self._connection.fileno()

    def answer(self) -> None:
        """Answer the parent.

        Raises:
            SystemExit: It is gone.
        """
        if not answer(self._connection, self._handlers):
            raise SystemExit

    def ready(self) -> None:
        """Answer: the process lives, and does what it is asked."""

    def open(self, **opening: Any) -> dict[str, Any]:
        """Open the part, see :meth:`load`; returns how long that took and the memory after it."""
        start = time.perf_counter()
        self.load(**opening)
        return {"open_ms": 1000 * (time.perf_counter() - start), **self.usage()}

    def wire(self, **wiring: Any) -> dict[str, Any]:
        """Join a pipeline, see :class:`Wire`; returns where its sources are."""
        self.unwire()
        self._wire = Wire(**wiring)
        return {"receive": [source.address for source in self._wire.sources]}

    def unwire(self) -> dict[str, Any]:
        """Leave the pipeline; a request that is being worked on is dropped."""
        refused = 0 if self._wire is None else self._wire.close()
        self._wire = None
        return {"refused": refused}

    def usage(self) -> dict[str, Any]:
        """Return CPU time used so far, memory now and at its peak; and how long a request's inputs and outputs take to
        the accelerator and back, with nothing else under way: None where they stay in the host's memory."""
        return {
            "moved_ms": self._infer.moved_ms() if isinstance(self._infer, CarriedInference) else None,
            "cpu_s": time.process_time(),
            "memory_bytes": memory_bytes(),
            "peak_memory_bytes": peak_memory_bytes(),
        }

    def share(self, seconds: float) -> dict[str, Any]:
        """Return the fraction of wall time in which a busy loop really ran here."""
        return {"share": cpu_fraction(seconds)}


if __name__ == "__main__":
    StageServer().serve()
