"""What a link between two hosts carries, probed over a plain TCP connection: one end listens, the other connects.

Round trips of an empty message, then messages of several sizes each way, in turn: a median of some is told, and how far
they lie apart. A message's time is from its first byte to the word that its last one is there, less a round trip.
"""

import secrets
import socket
import statistics
import struct
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from pepper.errors import DeviceError, refusal
from pepper.hosts import ports

SIZES = (50_000, 400_000, 3_200_000)
"""Bytes of messages, as tensors have them."""
TRIPS, ROUNDS = 25, 5
WAIT_S = 10.0
_HEADER = struct.Struct("!cQ")  # which way, how many bytes
_TOKEN_BYTES = 16
_CHUNK = bytes(2**16)


def listen() -> dict[str, Any]:
    """Wait for one probe for some seconds, beside what else is done; return the port, and the word that is asked.

    Raises:
        DeviceError: No port is free.
    """
    server = ports.listening(1)
    server.settimeout(WAIT_S)
    token = secrets.token_bytes(_TOKEN_BYTES)
    threading.Thread(target=_answer, args=(server, token), daemon=True).start()
    return {"port": server.getsockname()[1], "token": token.hex()}


def probe(address: str, port: int, token: str) -> dict[str, Any]:
    """Probe the link to another host, which listens.

    Returns:
        ``round_trip_ms``, and for each way (``there``, ``back``) megabits a second by the messages' size: their
        median, and half of the range that the middle half of them spans, percent.

    Raises:
        DeviceError: It cannot be reached.
    """
    try:
        with socket.create_connection((address, port), timeout=WAIT_S) as peer:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer.sendall(bytes.fromhex(token))
            trips = [_timed(partial(_there, peer, 0)) for _ in range(TRIPS)]
            trip_s = statistics.median(trips)
            found: dict[str, Any] = {"round_trip_ms": 1000 * trip_s}
            ways: dict[str, Callable[[socket.socket, int], None]] = {"there": _there, "back": _back}
            for way, send in ways.items():
                rates = {}
                for size in SIZES:
                    times = [_timed(partial(send, peer, size)) for _ in range(ROUNDS)]
                    rates[str(size)] = _rate(size, [max(each - trip_s, 1e-6) for each in times])
                found[way] = rates
            return found
    except OSError as error:
        said = refusal(error) if error.strerror else str(error)
        raise DeviceError(
            f"{address}:{port} cannot be reached from here ({said}); open the way between the hosts"
        ) from error


def _rate(size: int, times_s: list[float]) -> dict[str, float]:
    low, middle, high = statistics.quantiles(times_s, n=4)
    return {"mbit_s": 8 * size / 1e6 / middle, "spread_percent": 50 * (high - low) / middle}


def _timed(act: Callable[[], None]) -> float:
    begun_s = time.perf_counter()
    act()
    return time.perf_counter() - begun_s


def _there(peer: socket.socket, size: int) -> None:
    peer.sendall(_HEADER.pack(b"t", size))
    _send(peer, size)
    _receive(peer, 1)


def _back(peer: socket.socket, size: int) -> None:
    peer.sendall(_HEADER.pack(b"b", size))
    _receive(peer, size)


def _answer(server: socket.socket, token: bytes) -> None:
    """Serve one probe, to its end."""
    try:
        with server, server.accept()[0] as peer:
            peer.settimeout(WAIT_S)
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if not secrets.compare_digest(_receive(peer, _TOKEN_BYTES), token):
                return
            while True:
                way, size = _HEADER.unpack(_receive(peer, _HEADER.size))
                if way == b"t" and size <= max(SIZES):
                    _receive(peer, size)
                    peer.sendall(b"\0")
                elif way == b"b" and size <= max(SIZES):
                    _send(peer, size)
                else:
                    return
    except OSError:  # it is over, or nobody came
        return


def _send(peer: socket.socket, size: int) -> None:
    while size:
        size -= peer.send(_CHUNK[:size])


def _receive(peer: socket.socket, size: int) -> bytes:
    """Return what comes, of a short message; of a long one its end."""
    kept = b""
    while size:
        piece = peer.recv(min(size, len(_CHUNK)))
        if not piece:
            raise ConnectionResetError("the other end has closed")
        size -= len(piece)
        kept = (kept + piece)[-_TOKEN_BYTES:]
    return kept
