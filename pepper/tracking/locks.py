"""Locks between processes that share a tracking folder: each ends with its process, however that ends."""

import contextlib
import fcntl
import os
import struct
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
_LEASES = "leases"
_FLOCK = "hhqqi"  # struct flock of fcntl(2): type, whence, start, length, process


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold the folder's lock: only one process at a time makes the database or logs what waits.

    Raises:
        TrackingError: The lock's file cannot be opened, or another process holds it for longer than a minute.
    """
    file = folder / ".lock"
    with _opened(file) as stream:
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


def _opened(file: Path) -> IO[str]:
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


class Leases:
    """Cells under way: a locked byte of one file each.

    The kernel takes a lease back when its process ends. It is the whole process's: its threads share it.

    Args:
        folder: The tracking folder.

    Raises:
        TrackingError: The file cannot be opened.
    """

    def __init__(self, folder: Path) -> None:
        self._file = _opened(folder / _LEASES)

    def close(self) -> None:
        """Give everything back."""
        self._file.close()

    def take(self, identity: str) -> bool:
        """Take a cell, and return whether that could be done: nobody else has it.

        Args:
            identity: The cell's identity (hex).
        """
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _place(identity))
        except OSError:
            return False
        return True

    def give_back(self, identity: str) -> None:
        """Let others have a cell."""
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _place(identity))

    def holder(self, identity: str) -> int | None:
        """Return the process that has a cell; None if nobody has it any more."""
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, _place(identity), 1, 0)
        kind, *_, pid = struct.unpack(_FLOCK, fcntl.fcntl(self._file, fcntl.F_GETLK, asked))
        return None if kind == fcntl.F_UNLCK else int(pid)


def _place(identity: str) -> int:
    return int(identity[:15], 16)  # 60 bits: no two cells of a store share them
