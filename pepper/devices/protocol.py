"""The one interface to a device: a JSON-able request in, a JSON-able result and arrays out.

A message is a JSON text, then the raw bytes of each array that it announces. Only the standard library and
numpy are needed, so that a timed worker stays light; the framing is :mod:`multiprocessing.connection`'s.
"""

import ctypes
import json
import math
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np

Json = dict[str, Any]
Arrays = Mapping[str, "np.ndarray[Any, Any]"]
Handler = Callable[..., Any]

Described = list[tuple[str, "np.dtype[Any]", tuple[int, ...]]]
"""Name, type and shape of each array of a message."""

MOST_BYTES = 2**30
"""Of a text, and of each array: more is no message of pepper's, and no memory is asked for it."""

_NUMBERS = re.compile(r"[<>|][biufcV]\d{1,3}")  # types without references, as `numpy.dtype.str` writes them
PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Channel(Protocol):
    """What carries the pieces of messages, as a :class:`multiprocessing.connection.Connection` does."""

    def send_bytes(self, piece: bytes, /) -> None:
        """Send a piece."""

    def recv_bytes(self, most: int, /) -> bytes:
        """Wait for a piece of at most this many bytes; raises an EOFError where the other side is gone."""


class GarbledError(ValueError):
    """What came over a channel is no message."""


def send(connection: Channel, message: Json, arrays: Arrays | None = None) -> None:
    """Send a message with its arrays."""
    arrays = arrays or {}
    header = [[name, array.dtype.str, list(array.shape)] for name, array in arrays.items()]
    connection.send_bytes(json.dumps({**message, "arrays": header}).encode())
    for array in arrays.values():
        connection.send_bytes(array.tobytes())


def receive(connection: Channel) -> tuple[Json, dict[str, "np.ndarray[Any, Any]"]]:
    """Wait for a message and its arrays.

    Raises:
        EOFError: The other side is gone.
        GarbledError: What came is no message; nothing more can be understood.
    """
    try:
        message = json.loads(_piece(connection, MOST_BYTES))
        header = message.pop("arrays")
    except (ValueError, RecursionError, AttributeError, LookupError, TypeError) as error:
        raise GarbledError(f"no message: {error}") from error
    arrays = {}
    for name, dtype, shape in described(header) if header else ():
        count = math.prod(shape) * dtype.itemsize
        if count > MOST_BYTES:
            raise GarbledError(f"array {name!r}: {count} bytes are announced")
        arrays[name] = shaped(name, dtype, shape, _piece(connection, count))
    return message, arrays


def _piece(connection: Channel, most: int) -> bytes:
    try:
        return connection.recv_bytes(most)
    except ConnectionError:
        raise
    except OSError as error:  # it announces more than that; the connection is then closed
        raise GarbledError(f"a piece of more than {most} bytes") from error


def described(header: Any) -> Described:
    """Return what a message says of its arrays.

    Raises:
        GarbledError: It describes no arrays of numbers.
    """
    import numpy as np

    found: Described = []
    try:
        for name, kind, shape in header:
            if not (isinstance(name, str) and _NUMBERS.fullmatch(kind)):
                raise ValueError(f"array {name!r} of {kind!r}")
            if not all(type(size) is int and size >= 0 for size in shape):
                raise ValueError(f"array {name!r} of shape {shape!r}")
            found.append((name, np.dtype(kind), tuple(shape)))
    except (ValueError, TypeError) as error:
        raise GarbledError(f"no arrays: {error}") from error
    if len({name for name, _, _ in found}) < len(found):
        raise GarbledError("two arrays of one name")
    return found


def shaped(name: str, dtype: "np.dtype[Any]", shape: tuple[int, ...], piece: Any) -> "np.ndarray[Any, Any]":
    """Return an array that looks at these bytes.

    Raises:
        GarbledError: They are not as many as the array has.
    """
    import numpy as np

    if len(piece) != math.prod(shape) * dtype.itemsize:
        raise GarbledError(f"array {name!r}: {len(piece)} bytes are not {dtype} {shape}")
    try:
        return np.ndarray(shape, dtype, piece)
    except ValueError as error:  # more dimensions, or an empty one times larger others, than numpy has
        raise GarbledError(f"array {name!r}: {error}") from error


def die_with_parent(parent_pid: int) -> None:
    """Ask the kernel to kill this process when its parent dies, even by ``kill -9`` (Linux, prctl(2)).

    A stopped process is killed too, which no check inside the process itself could do.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:  # it died before the request was in place
        os._exit(1)


def connect() -> Connection:
    """Join the parent that started this program with ``python -m MODULE FD PARENT_PID``."""
    die_with_parent(int(sys.argv[2]))
    return Connection(int(sys.argv[1]))


def answer(connection: Channel, handlers: Mapping[str, Handler]) -> bool:
    """Wait for one request, call its handler and send back what it returns.

    A handler takes the request's fields as keyword arguments and returns a dictionary, or a pair of a
    dictionary and arrays. Whatever it raises goes back as an error: the program lives on.

    Returns:
        False once the parent has closed the connection.

    Raises:
        SystemExit: What came is no request, so there is nothing to go on with.
    """
    try:
        message, arrays = receive(connection)
    except (EOFError, ConnectionError):
        return False
    except GarbledError as error:
        raise SystemExit(f"no request: {error}") from error
    try:
        outcome = handlers[message.pop("op")](**message, **arrays)
    except Exception as error:  # the parent decides what a failure means
        send(connection, {"error": f"{type(error).__name__}: {error}"})
    else:
        result, arrays = outcome if isinstance(outcome, tuple) else (outcome, {})
        send(connection, {"result": result or {}}, arrays)
    return True


def serve(handlers: Mapping[str, Handler]) -> None:
    """Answer requests until the parent is gone."""
    connection = connect()
    while answer(connection, handlers):
        pass
