"""The lock of a tracking folder: it ends with its process, however that ends."""

import contextlib
import fcntl
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from pepper.errors import TrackingError
from pepper.interrupts import wait_readable

LIMIT_S = 60.0
"""Longest wait for the folder's lock: making a database, or logging what waits, takes less."""
WORD_AFTER_S = 2.0
"""After that long, a wait is spoken of."""
LOOK_MS = 100


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold the folder's lock: only one process at a time makes the database or logs what waits.

    Raises:
        TrackingError: The lock's file cannot be opened, or another process holds it for longer than a minute.
    """
    file = folder / ".lock"
    with opened(file) as stream:
        started, told = time.monotonic(), False
        while not _taken(stream):
            waited_s = time.monotonic() - started
            if waited_s > LIMIT_S:
                raise TrackingError(
                    f"{file}: held by {_holder(stream)} for {waited_s:.0f} s; wait for its end or end it, and run again"
                )
            if waited_s > WORD_AFTER_S and not told:
                told = True
                print(f"waiting for {file}, held by {_holder(stream)}", file=sys.stderr, flush=True)
            wait_readable([], LOOK_MS)
        with contextlib.suppress(OSError):  # a full disk: then nobody learns who holds it
            stream.truncate(0)
            stream.write(f"{os.getpid()}")
            stream.flush()
        yield


def opened(file: Path) -> IO[str]:
    """Open a file that locks are put on.

    Raises:
        TrackingError: It cannot be opened.
    """
    try:
        return file.open("a+")
    except OSError as error:
        raise TrackingError(
            f"{file}: cannot be locked ({error.strerror}); make it writable or set tracking.folder"
        ) from error


def _taken(stream: IO[str]) -> bool:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(stream: IO[str]) -> str:
    stream.seek(0)
    return f"process {stream.read(20).strip() or 'unknown'}"
