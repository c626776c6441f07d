"""A queue over TCP, for stages that share no memory: ZeroMQ moves the pieces in a thread of its own.

All is encrypted with CURVE (CurveZMQ, rfc.zeromq.org/spec/26): what comes from anyone who is not of the run ends at the
handshake, and no message of it gets in. ZeroMQ encrypts a frame whole before any of it is sent, and decrypts it when
all of it is there: so large pieces go in several frames, of which one is encrypted while another is on its way.
"""

import contextlib
import errno
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import zmq
from zmq.utils.monitor import parse_monitor_message

from pepper.devices.protocol import GarbledError
from pepper.execution.prompt import prefer
from pepper.execution.queues import Keys

_WATCHED = zmq.EVENT_ACCEPTED | zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
_TRANSPORT = "ZMQbg"  # what libzmq calls its threads
_FRAME_BYTES = 2**17


class _End:
    """One end: a ZeroMQ socket whose descriptor says only that something has changed."""

    def __init__(self, kind: int, event: int, most: int, keys: Keys) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(kind)
        self._socket.set_hwm(-(-most // 2))  # both ends have a half of the queue
        self._socket.linger = 0
        self._socket.ipv6 = True  # beside IPv4
        self._socket.curve_publickey, self._socket.curve_secretkey = keys.public.encode(), keys.secret.encode()
        self._event = event
        _prefer_transport()

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when the state may have changed."""
        return int(self._socket.fd)

    def ready(self) -> bool:
        """Return whether there is a message, or room for one."""
        return bool(int(self._socket.get(zmq.EVENTS)) & self._event)

    def close(self) -> None:
        """Leave; what was not taken is dropped."""
        self._context.destroy(linger=0)


class TcpSource(_End):
    """Where messages come out.

    Args:
        address: ``tcp://HOST:PORT`` of this machine; a port of ``*`` is any that is free, ``LOW-HIGH`` one of these.
        most: Most messages between the two ends, besides those that the kernel's buffers hold.
        keys: The run's.

    Raises:
        OSError: The port is taken, or all of them are.
    """

    def __init__(self, address: str, most: int, keys: Keys) -> None:
        super().__init__(zmq.PULL, zmq.POLLIN, most, keys)
        self._socket.curve_server = True
        self._events = self._socket.get_monitor_socket(_WATCHED)
        self._seen: Counter[int] = Counter()
        try:
            self._bind(address)
        except OSError:
            self.close()
            raise
        self.address = self._socket.get_string(zmq.LAST_ENDPOINT).rstrip("\0")

    def _bind(self, address: str) -> None:
        host, _, ports = address.rpartition(":")
        low, _, high = ports.partition("-")
        for port in range(int(low), int(high) + 1) if high else [ports]:
            try:
                self._socket.bind(f"{host}:{port}")
                return
            except zmq.ZMQError as error:
                if not (high and error.errno == errno.EADDRINUSE):
                    raise OSError(error.errno, error.strerror) from error
        raise OSError(errno.EADDRINUSE, f"none of the ports {low} to {high} is free")

    def receive(self) -> list[memoryview]:
        """Return views of the message that is there; only what came in several frames is copied."""
        sizes, *frames = [frame.buffer for frame in self._socket.recv_multipart(copy=False)]
        if len(sizes) % 8:
            raise GarbledError(f"{len(sizes)} bytes of sizes: no message")
        pieces, first = [], 0
        for size in struct.unpack(f"={len(sizes) // 8}Q", sizes):
            last = first + max(1, -(-size // _FRAME_BYTES))
            pieces.append(_whole(size, frames[first:last]))
            first = last
        if first != len(frames):
            raise GarbledError(f"{len(frames)} frames, {first} announced")
        return pieces

    def done(self) -> None:
        """Do nothing: each message has memory of its own."""

    def refused(self) -> int:
        """Return how many connections ended at the handshake so far."""
        while self._events.poll(0):
            self._seen[parse_monitor_message(self._events.recv_multipart())["event"]] += 1
        strange = self._seen[zmq.EVENT_ACCEPTED] - self._seen[zmq.EVENT_HANDSHAKE_SUCCEEDED]
        return min(strange, self._seen[zmq.EVENT_DISCONNECTED])  # one that is still there may succeed yet


class TcpSink(_End):
    """Where messages go in; see `TcpSource`."""

    def __init__(self, address: str, most: int, keys: Keys) -> None:
        super().__init__(zmq.PUSH, zmq.POLLOUT, most, keys)
        self._socket.curve_serverkey = keys.public.encode()
        self._socket.connect(address)

    def send(self, pieces: Any) -> None:
        """Hand a message over; its pieces must not change until they are sent."""
        views = [memoryview(piece) for piece in pieces]
        sizes = struct.pack(f"={len(views)}Q", *map(len, views))
        frames = [view[at : at + _FRAME_BYTES] for view in views for at in range(0, max(len(view), 1), _FRAME_BYTES)]
        self._socket.send_multipart([sizes, *frames], copy=False)


def _whole(size: int, frames: list[memoryview]) -> memoryview:
    """Return a piece that came in some frames.

    Raises:
        GarbledError: They are of another size.
    """
    if sum(map(len, frames)) != size:
        raise GarbledError(f"{sum(map(len, frames))} bytes, {size} announced")
    if len(frames) == 1:
        return frames[0]
    whole, at = np.empty(size, np.uint8), 0
    for frame in frames:
        whole[at : at + len(frame)] = frame
        at += len(frame)
    return whole.data


def _prefer_transport() -> None:
    """Run ZeroMQ's own threads before all others of the machine."""
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            if (task / "comm").read_text().startswith(_TRANSPORT):
                prefer(int(task.name))
