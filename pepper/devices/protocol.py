"""The one interface to a device: a JSON-able request in, a JSON-able result and arrays out.

A message is a JSON text, then the raw bytes of each array that it announces. Only the standard library and
numpy are needed, so that a timed worker stays light; the framing is :mod:`multiprocessing.connection`'s.
"""

import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

Json = dict[str, Any]
Arrays = Mapping[str, "np.ndarray[Any, Any]"]
Handler = Callable[..., Any]

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def send(connection: Connection, message: Json, arrays: Arrays | None = None) -> None:
    """Send a message with its arrays."""
    arrays = arrays or {}
    header = [[name, array.dtype.str, list(array.shape)] for name, array in arrays.items()]
    connection.send_bytes(json.dumps({**message, "arrays": header}).encode())
    for array in arrays.values():
        connection.send_bytes(array.tobytes())


def receive(connection: Connection) -> tuple[Json, dict[str, "np.ndarray[Any, Any]"]]:
    """Wait for a message and its arrays.

    Raises:
        EOFError: The other side is gone.
    """
    message = json.loads(connection.recv_bytes())
    arrays = {}
    for name, dtype, shape in message.pop("arrays"):
        import numpy as np

        arrays[name] = np.frombuffer(connection.recv_bytes(), dtype=dtype).reshape(shape)
    return message, arrays


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


def answer(connection: Connection, handlers: Mapping[str, Handler]) -> bool:
    """Wait for one request, call its handler and send back what it returns.

    A handler takes the request's fields as keyword arguments and returns a dictionary, or a pair of a
    dictionary and arrays. Whatever it raises goes back as an error: the program lives on.

    Returns:
        False once the parent has closed the connection.
    """
    try:
        message, arrays = receive(connection)
    except EOFError:
        return False
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
