"""Queues between stages: the pieces of a message go in at one end and come out at the other.

On one machine they are in shared memory; an address with a port is served by ZeroMQ over TCP, as between machines.
Both ends are looked at with `ready`; whoever has nothing else to do sleeps until there is something to read at
`fileno`, and looks again.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from pepper.execution.shared_queue import SharedSink, SharedSource

TCP = "tcp://"
Pieces = Sequence[Any]
"""Objects with a buffer: the header, then the bytes of each tensor."""


class Source(Protocol):
    """Where messages come out."""

    def fileno(self) -> int:
        """Something is to be read here when a message may have come."""

    def ready(self) -> bool:
        """Return whether a message is there."""

    def receive(self) -> list[memoryview]:
        """Take the message that is there; its pieces may be looked at until `done`."""

    def done(self) -> None:
        """Give back the memory of the message received last."""

    def close(self) -> None:
        """Drop what is there; no more messages come."""


class Sink(Protocol):
    """Where messages go in."""

    def fileno(self) -> int | None:
        """Something is to be read here when there may be room; None: there will be none, nobody is at the other end."""

    def ready(self) -> bool:
        """Return whether there is room."""

    def send(self, pieces: Pieces) -> None:
        """Put a message in; there must be room."""

    def close(self) -> None:
        """Leave; what the other end has not taken may be dropped."""


def open_source(address: str, most: int) -> Source:
    """Open the end at which messages come out.

    Args:
        address: A path for a socket, or ``tcp://HOST:PORT``.
        most: Most messages between the two ends.

    Raises:
        OSError: The address is taken.
    """
    if address.startswith(TCP):
        from pepper.execution.tcp_queue import TcpSource

        return TcpSource(address, most)
    return SharedSource(address)


def open_sink(address: str, most: int) -> Sink:
    """Open the end at which messages go in; the other one must be open."""
    if address.startswith(TCP):
        from pepper.execution.tcp_queue import TcpSink

        return TcpSink(address, most)
    return SharedSink(address, most)
