"""Cells under way, leased by the process that measures them: two sweeps at once measure each cell once."""

import fcntl
import os
import struct
from pathlib import Path
from typing import Self

from pepper.tracking.locks import opened

_FILE = "leases"
_PRESENCE = 2**61  # behind the places of all cells
_FLOCK = "hhqqi"  # struct flock of fcntl(2): type, whence, start, length, process


class Leases:
    """Locked bytes of one file, one a cell: the kernel takes them back when their process ends, however it ends.

    They are the whole process's: its threads share them.

    Args:
        folder: The tracking folder.

    Raises:
        TrackingError: The file cannot be opened.
    """

    def __init__(self, folder: Path) -> None:
        self._file = opened(folder / _FILE)
        fcntl.lockf(self._file, fcntl.LOCK_SH, 1, _PRESENCE)
        os.write(self._file.fileno(), b".")  # whoever is at work learns that another has come
        self._size = self._size_now()
        self._alone = self._holder(_PRESENCE) is None

    def _size_now(self) -> int:
        return os.fstat(self._file.fileno()).st_size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()  # and gives everything back

    @property
    def alone(self) -> bool:
        """Whether no other process has had leases since this one began."""
        self._alone = self._alone and self._size_now() == self._size
        return self._alone

    def take(self, identity: str) -> bool:
        """Take a cell, and return whether that could be done: no other process has it.

        Args:
            identity: The cell's identity (hex).
        """
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _place(identity))
        except (BlockingIOError, PermissionError):  # which of them depends on the system
            return False
        return True

    def give_back(self, identity: str) -> None:
        """Let others have a cell."""
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _place(identity))

    def holder(self, identity: str) -> int | None:
        """Return the other process that has a cell; None if none has it any more."""
        return self._holder(_place(identity))

    def _holder(self, place: int) -> int | None:
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, place, 1, 0)
        kind, *_, pid = struct.unpack(_FLOCK, fcntl.fcntl(self._file, fcntl.F_GETLK, asked))
        return None if kind == fcntl.F_UNLCK else int(pid)


def _place(identity: str) -> int:
    return int(identity[:15], 16)  # of 60 bits: no two cells share one
