"""A stage, a part at work on its device: ``python -m pepper.execution.stage``.

It imports numpy and onnxruntime only (and pyzmq where its queues go over TCP). The parent opens the part and wires the
stage into a pipeline over the channel of :mod:`pepper.devices.protocol`; tensors come from the stage before and go
straight to the one behind.
"""

import select
import time
from pathlib import Path
from typing import Any

from pepper.devices.memory import memory_bytes, peak_memory_bytes
from pepper.devices.protocol import GarbledError, Handler, answer, connect
from pepper.devices.providers.opening import open_checked
from pepper.devices.providers.options import session_options
from pepper.devices.providers.registry import provider_named
from pepper.devices.spin import cpu_fraction
from pepper.execution.clock import LinkClock
from pepper.execution.message import Message, Stamp, decode, encode, plain
from pepper.execution.queues import Keys, Sink, Source, open_sink, open_source

NS_PER_MS = 1_000_000


class Wire:
    """A stage's two queues and the link behind it.

    Args:
        receive: Address at which the stage takes requests.
        send: Address of the stage behind, or of the driver.
        queue: Most messages in each of the two; a full one holds its sender back.
        links: File of the links' clock.
        link: The link to the stage behind; None is no link: both are in one place.
        carry: Names of the tensors that the stages behind need.
        name: How errors call this stage.
        keys: The run's; None where no queue goes over TCP.

    Raises:
        OSError: The address is taken.
    """

    def __init__(
        self,
        receive: str,
        send: str,
        queue: int,
        links: str,
        link: int | None,
        carry: list[str],
        name: str,
        keys: list[str] | None,
    ) -> None:
        self.carry, self.name = carry, name
        self._link = link
        self._clock = LinkClock(Path(links))
        run_keys = None if keys is None else Keys(*keys)
        self.source: Source = open_source(receive, queue, run_keys)
        self.sink: Sink = open_sink(send, queue, run_keys)

    def receive(self) -> Message:
        """Take the message that is there."""
        return decode(self.source.receive())

    def send(self, message: Message) -> None:
        """Hand the message that was taken on, as it is by now; there must be room for it."""
        message.due_ns = message.stamps[-1].sent
        if self._link is not None:
            message.due_ns = self._clock.reserve(self._link, message.bytes, message.due_ns)
        self.sink.send(encode(message))
        self.source.done()

    def close(self) -> int:
        """Leave the pipeline; what waits in the queues is dropped. Returns how many connections were refused."""
        refused = self.source.refused()
        self.source.close()
        self.sink.close()
        self._clock.close()
        return refused


class StageServer:
    """One part, the requests that pass through it, and the parent's wishes."""

    def __init__(self) -> None:
        self._connection = connect()
        self._wire: Wire | None = None
        self._handlers: dict[str, Handler] = {
            name: getattr(self, name) for name in ("ready", "open", "wire", "unwire", "usage", "share")
        }

    def ready(self) -> None:
        """Answer: the process lives, and does what it is asked."""

    def open(
        self, path: str, provider: dict[str, Any], threads: int, options: dict[str, Any], host: str
    ) -> dict[str, Any]:
        """Open the part; returns how long that took and the memory after it."""
        start = time.perf_counter()
        self._host = host
        self._provider = provider_named(**provider)
        self._session, _ = open_checked(self._provider, path, session_options(threads, **options))
        self._reads = [value.name for value in self._session.get_inputs()]
        self._gives = [value.name for value in self._session.get_outputs()]
        return {"open_ms": 1000 * (time.perf_counter() - start), **self.usage()}

    def wire(self, **wiring: Any) -> None:
        """Join a pipeline; see :class:`Wire`."""
        self.unwire()
        self._wire = Wire(**wiring)

    def unwire(self) -> dict[str, Any]:
        """Leave the pipeline; a request that is being worked on is dropped."""
        refused = 0 if self._wire is None else self._wire.close()
        self._wire = None
        return {"refused": refused}

    def usage(self) -> dict[str, Any]:
        """Return CPU time used so far, memory now and at its peak."""
        return {
            "cpu_s": time.process_time(),
            "memory_bytes": memory_bytes(),
            "peak_memory_bytes": peak_memory_bytes(),
        }

    def share(self, seconds: float) -> dict[str, Any]:
        """Return the fraction of wall time in which a busy loop really ran here."""
        return {"share": cpu_fraction(seconds)}

    def serve(self) -> None:
        """Work until the parent is gone.

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
        """Wait for a request, and pass it on."""
        ready = self._attend(wire.source, timeout_ms=0)
        waited = not ready
        while not ready and self._wire is wire:
            ready = self._attend(wire.source)
        if self._wire is wire:
            self._pass(wire, waited)

    def _pass(self, wire: Wire, waited: bool) -> None:
        """Take a request, work on it and hand it on, unless the parent takes the stage out of the pipeline."""
        message = wire.receive()
        arrived = max(message.due_ns, time.monotonic_ns() if waited else 0)
        while (left_ns := message.due_ns - time.monotonic_ns()) > 0:
            if left_ns < NS_PER_MS:
                time.sleep(left_ns / 1e9)
            elif self._attend(timeout_ms=left_ns // NS_PER_MS) or self._wire is not wire:
                return
        start = time.monotonic_ns()
        self._run(wire, message)
        end = time.monotonic_ns()
        while not self._attend(wire.sink):
            if self._wire is not wire:
                return
        message.stamps = (*message.stamps, Stamp(arrived, start, end, time.monotonic_ns(), self._host))
        wire.send(message)

    def _run(self, wire: Wire, message: Message) -> None:
        """Put the tensors that go on in place of those that came, or the reason why there are none."""
        if message.probe or message.error is not None:
            return
        try:
            inputs = {name: message.tensors[name] for name in self._reads}
            outputs = self._provider.bind(self._session, inputs)()
            known = {**message.tensors, **dict(zip(self._gives, outputs, strict=True))}
            message.tensors = {name: plain(name, known[name]) for name in wire.carry}
        except KeyError as error:
            message.fail(f"{wire.name}: tensor {error} is missing")
        except Exception as error:  # whatever onnxruntime raises: it has no common base
            message.fail(f"{wire.name}: {' '.join(str(error).split())[:300]}")

    def _attend(self, end: Source | Sink | None = None, timeout_ms: int | None = None) -> bool:
        """Wait for a queue's end and for the parent; answer the parent, who may change the wiring.

        Returns:
            Whether the end is ready; False once the parent has been answered, whatever the wiring is then.

        Raises:
            SystemExit: The parent is gone.
        """
        ready = end is not None and end.ready()
        parent = self._connection.fileno()
        poller = select.poll()
        poller.register(parent, select.POLLIN)
        if end is not None and (more := end.fileno()) is not None:
            poller.register(more, select.POLLIN)
        if parent not in dict(poller.poll(0 if ready else timeout_ms)):
            return ready or (end is not None and end.ready())
        if not answer(self._connection, self._handlers):
            raise SystemExit
        return False


if __name__ == "__main__":
    StageServer().serve()
