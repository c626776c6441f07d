"""Links in software: when would a link have delivered this?

A link is busy while bytes go over it; its latency delays them and takes none of its bandwidth. Whoever sends
reserves the link's time and writes on the message when it is due; whoever receives holds it until then. So
tensors still go straight from stage to stage, and all stages of a device share its links.
"""

import fcntl
import mmap
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pepper.units import NS_PER_MS

if TYPE_CHECKING:
    from pepper.fleet import Link

_SLOT = struct.Struct("=qddq")  # free again at (ns), ns a byte, ns a byte when it is forwarded, latency (ns)
_PATIENCE_S = 0.05
_RETRY_S = 1e-4


class LinkClock:
    """The links between devices, one slot each, in a file that all stages map.

    A process that dies leaves no lock behind; one that is stopped while it holds a lock delays others by
    `_PATIENCE_S` at most.

    Args:
        file: An existing file of `LinkClock.create`.
    """

    def __init__(self, file: Path) -> None:
        self._stream = file.open("r+b")
        self._map = mmap.mmap(self._stream.fileno(), 0)

    @classmethod
    def create(cls, file: Path, links: int) -> "LinkClock":
        """Make the file for this many links, all of them free."""
        file.write_bytes(bytes(_SLOT.size * max(links, 1)))
        return cls(file)

    def set(self, slot: int, link: "Link") -> None:
        """Give a slot a link's properties, from now on; nothing is under way on it."""
        occupied_ns = link.occupied_ms_per_byte * NS_PER_MS
        forwarded_ns = link.ms_per_byte * NS_PER_MS - occupied_ns
        self._lock(slot)
        delay_ns = round(link.latency_ms * NS_PER_MS)
        _SLOT.pack_into(self._map, slot * _SLOT.size, 0, occupied_ns, forwarded_ns, delay_ns)
        self._unlock(slot)

    def reserve(self, link: int, count: int, now_ns: int) -> int:
        """Send this many bytes over a link; returns when the last of them arrives, ns."""
        self._lock(link)
        free_ns, ns_per_byte, forwarded, latency_ns = _SLOT.unpack_from(self._map, link * _SLOT.size)
        free_ns = max(now_ns, free_ns) + round(count * ns_per_byte)
        _SLOT.pack_into(self._map, link * _SLOT.size, free_ns, ns_per_byte, forwarded, latency_ns)
        self._unlock(link)
        return int(free_ns + round(count * forwarded) + latency_ns)

    def close(self) -> None:
        """Unmap the file."""
        self._map.close()
        self._stream.close()

    def _lock(self, link: int) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline:
            try:
                fcntl.lockf(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB, _SLOT.size, link * _SLOT.size)
            except BlockingIOError:
                time.sleep(_RETRY_S)
            else:
                return

    def _unlock(self, link: int) -> None:
        fcntl.lockf(self._stream, fcntl.LOCK_UN, _SLOT.size, link * _SLOT.size)
