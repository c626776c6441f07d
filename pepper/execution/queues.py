"""Queues between stages: the pieces of a message go in at one end and come out at the other.

On one machine they are in shared memory; an address with a port is served by ZeroMQ over TCP, as between machines.
Both ends are looked at with `ready`; whoever has nothing else to do sleeps until there is something to read at
`fileno`, and looks again.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from pepper.execution.shared_queue import SharedSink, SharedSource

TCP = "tcp://"


Pieces = Sequence[Any]
"""Objects with a buffer: the header, then the bytes of each tensor."""


class Source(Protocol):
    """Where messages come out; looking and taking raise a `GarbledError` where what came is no message.

    Attributes:
        address: Where it is, with the port that the system has chosen where that was left to it.
    """

    address: str

    def fileno(self) -> int:
        """Something is to be read here when a message may have come."""

    def ready(self) -> bool:
        """Return whether a message is there."""

    def receive(self) -> list[memoryview]:
        """Take the message that is there; its pieces may be looked at until `done`."""

    def done(self) -> None:
        """Give back the memory of the message received last."""

    def refused(self) -> int:
        """Return how many connections from outside of the run were refused so far."""

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


class Keys(NamedTuple):
    """What the members of a run prove to one another that they belong to it: a CURVE key pair, made for the run.

    Nobody can connect who does not know the public key: it is never sent, but handed to each member over the channel
    to its process.
    """

    public: str
    secret: str

    @classmethod
    def make(cls) -> "Keys":
        """Return a pair that nobody else has."""
        import zmq  # where no queue goes over TCP, it is not needed

        public, secret = zmq.curve_keypair()
        return cls(public.decode(), secret.decode())


def anywhere(ports: tuple[int, int]) -> str:
    """Return all of a machine's addresses, and the first free port of some, the first and the last; (0, 0) is any."""
    return f"{TCP}*:*" if ports == (0, 0) else f"{TCP}*:{ports[0]}-{ports[1]}"


def open_source(address: str, most: int, keys: Keys | None = None) -> Source:
    """Open the end at which messages come out.

    Args:
        address: A path for a socket, ``tcp://HOST:PORT``, or `anywhere`.
        most: Most messages between the two ends.
        keys: The run's, for TCP: whoever has none gets nothing in.

    Raises:
        OSError: The address is taken.
    """
    if address.startswith(TCP):
        from pepper.execution.tcp_queue import TcpSource

        return TcpSource(address, most, _needed(keys))
    return SharedSource(address)


def open_sink(address: str, most: int, keys: Keys | None = None) -> Sink:
    """Open the end at which messages go in; the other one must be open. See `open_source`."""
    if address.startswith(TCP):
        from pepper.execution.tcp_queue import TcpSink

        return TcpSink(address, most, _needed(keys))
    return SharedSink(address, most)


def _needed(keys: Keys | None) -> Keys:
    if keys is None:
        raise ValueError("no queue over TCP without keys")
    return keys
