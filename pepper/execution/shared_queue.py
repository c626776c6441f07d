"""A queue in memory that two processes of one machine share.

The sender copies a message into a free slot of memory, behind the sizes of its pieces, and says over a socket which
slot that is; the receiver looks at it there, and says when it has done so. That is the only copy, and no thread is
needed at either end: neither has to be awake for the other to go on. The memory has no name (memfd_create(2)), its
descriptor goes over the socket (unix(7), SCM_RIGHTS), so the kernel frees it with the last of the two processes,
however they end.
"""

import contextlib
import mmap
import os
import socket
import struct
import sys
from itertools import accumulate
from pathlib import Path
from typing import Any

from pepper.devices.protocol import GarbledError

_ALIGNMENT = 64  # of each piece: a cache line, and more than any element needs
_NUMBER = struct.Struct("=q")  # all that is said: a slot; new memory for it may come with that
_CONTROL_BYTES = socket.CMSG_SPACE(4)  # of a descriptor


def _socket() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def _places(sizes: list[int]) -> list[int]:
    """Return where each piece begins, and where the last one ends."""
    return list(accumulate((-(-size // _ALIGNMENT) * _ALIGNMENT for size in sizes), initial=0))


class SharedSink:
    """Where messages go in.

    Args:
        address: Path of the source's socket.
        most: Most messages that are under way or being looked at.
    """

    def __init__(self, address: str, most: int) -> None:
        self._most = most
        self._memory: list[mmap.mmap] = []
        self._free: list[int] = []  # the one freed last is used first: it is in the caches
        self._socket: socket.socket | None = _socket()
        try:
            self._socket.connect(address)
            self._socket.setblocking(False)
        except ConnectionError:  # whoever opened the source has ended: its parent will say so
            self.close()

    def fileno(self) -> int | None:
        """Return the socket over which room is announced; None once the source is gone."""
        return None if self._socket is None else self._socket.fileno()

    def ready(self) -> bool:
        """Return whether there is room."""
        while self._socket is not None:
            try:
                freed = self._socket.recv(_NUMBER.size)
            except BlockingIOError:
                return bool(self._free) or len(self._memory) < self._most
            except ConnectionError:
                freed = b""
            if freed:
                self._free.extend(_NUMBER.unpack(freed))
            else:
                self.close()
        return False

    def send(self, pieces: Any) -> None:
        """Copy a message to where the source sees it."""
        sizes = [len(piece) for piece in pieces]
        head = struct.pack(f"={1 + len(sizes)}q", len(sizes), *sizes)
        *places, count = _places([len(head), *sizes])
        slot = self._free.pop() if self._free else len(self._memory)
        with contextlib.suppress(ConnectionError):  # the source is gone, as the next look for room will find
            if slot == len(self._memory) or len(self._memory[slot]) < count:
                self._enlarge(slot, count)
            memory = self._memory[slot]
            for piece, place in zip((head, *pieces), places, strict=True):
                memory[place : place + len(piece)] = piece
            if self._socket is not None:
                self._socket.send(_NUMBER.pack(slot))

    def _enlarge(self, slot: int, count: int) -> None:
        """Give a slot memory of this many bytes, and the source access to it."""
        descriptor = os.memfd_create("pepper")
        try:
            os.truncate(descriptor, max(1, count))
            self._memory[slot : slot + 1] = [mmap.mmap(descriptor, 0)]
            if self._socket is not None:
                socket.send_fds(self._socket, [_NUMBER.pack(slot)], [descriptor])
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Leave."""
        if self._socket is not None:
            self._socket.close()
        self._socket = None
        self._memory.clear()


class SharedSource:
    """Where messages come out.

    Args:
        address: Path of its socket, to be made.

    Raises:
        OSError: There is something of that name.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._listener = _socket()
        self._listener.bind(address)
        self._listener.listen(1)
        self._listener.setblocking(False)
        self._peer: socket.socket | None = None
        self._memory: dict[int, mmap.mmap] = {}
        self._next: int | None = None  # slot of the message that is there
        self._slot = 0

    def fileno(self) -> int:
        """Return the socket over which messages are announced."""
        return (self._peer or self._listener).fileno()

    def ready(self) -> bool:
        """Return whether a message is there."""
        if self._next is None:
            self._next = self._announced()
        return self._next is not None

    def _announced(self) -> int | None:
        while True:
            try:
                if self._peer is None:
                    self._peer, _ = self._listener.accept()
                    self._peer.setblocking(False)
                said, control, _, _ = self._peer.recvmsg(_NUMBER.size, _CONTROL_BYTES)
            except BlockingIOError:
                return None
            except ConnectionError:
                said = b""
            if not said:
                self._leave()
                return None
            if len(said) != _NUMBER.size:
                raise GarbledError(f"{len(said)} bytes: no slot")
            slot: int = _NUMBER.unpack(said)[0]
            if not control:
                return slot
            descriptor = int.from_bytes(control[0][2], sys.byteorder)
            try:
                self._memory[slot] = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
            except (OSError, ValueError) as error:
                raise GarbledError(f"no memory for slot {slot}: {error}") from error
            finally:
                os.close(descriptor)

    def receive(self) -> list[memoryview]:
        """Return views of the message that is there, read-only; the sender leaves them alone until `done`."""
        assert self._next is not None
        self._slot, self._next = self._next, None
        if self._slot not in self._memory or len(self._memory[self._slot]) < _NUMBER.size:
            raise GarbledError(f"slot {self._slot} has no memory")
        view = memoryview(self._memory[self._slot])
        (count,) = _NUMBER.unpack_from(view)
        head_bytes = (1 + count) * _NUMBER.size
        if not 0 <= count < len(view) // _NUMBER.size:
            raise GarbledError(f"{count} pieces are announced")
        sizes = view[_NUMBER.size : head_bytes].cast("q").tolist()
        _, *places, _ = _places([head_bytes, *sizes])
        if any(size < 0 or place + size > len(view) for place, size in zip(places, sizes, strict=True)):
            raise GarbledError("pieces lie outside of the memory")
        return [view[place : place + size] for place, size in zip(places, sizes, strict=True)]

    def done(self) -> None:
        """Let the sender use the memory of the message received last."""
        if self._peer is not None:
            with contextlib.suppress(OSError):  # the sender is gone
                self._peer.send(_NUMBER.pack(self._slot))

    def refused(self) -> int:
        """Return 0: only who may use the folder finds its socket."""
        return 0

    def _leave(self) -> None:
        if self._peer is not None:
            self._peer.close()
        self._peer = None

    def close(self) -> None:
        """Drop what is there."""
        self._leave()
        self._listener.close()
        self._memory.clear()
        with contextlib.suppress(OSError):
            Path(self.address).unlink()
