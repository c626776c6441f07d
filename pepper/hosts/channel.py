"""Messages of :mod:`pepper.devices.protocol` between two hosts, over a TLS connection."""

import select
import socket
import ssl
import struct

_SIZE = struct.Struct("!Q")
_PIECE_BYTES = 2**18
_SILENT_S, _PROBES = 2, 3  # a peer that is unplugged is found out after some seconds


class HostChannel:
    """One end of a connection, as the protocol's functions use it.

    Args:
        peer: The connection; it is this object's from now on.
        wait_s: How long a message that has begun, or the room for one, is waited for.
    """

    def __init__(self, peer: ssl.SSLSocket, wait_s: float) -> None:
        self._peer = peer
        peer.settimeout(wait_s)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (
            (socket.TCP_KEEPIDLE, _SILENT_S),
            (socket.TCP_KEEPINTVL, _SILENT_S),
            (socket.TCP_KEEPCNT, _PROBES),
            (socket.TCP_USER_TIMEOUT, 1000 * _SILENT_S * (1 + _PROBES)),
        ):
            peer.setsockopt(socket.IPPROTO_TCP, option, value)

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when a message comes, or the other end has gone."""
        return self._peer.fileno()

    def ready(self) -> bool:
        """Return whether a message is there, or the other end has gone."""
        poller = select.poll()
        poller.register(self.fileno(), select.POLLIN)
        return bool(poller.poll(0))

    def send_bytes(self, piece: bytes) -> None:
        """Send a piece of a message."""
        self._peer.sendall(_SIZE.pack(len(piece)))
        self._peer.sendall(piece)

    def recv_bytes(self, most: int) -> bytes:
        """Take a piece of a message.

        Raises:
            EOFError: The other end has gone.
            OSError: The piece is larger than this, or does not come.
        """
        (size,) = _SIZE.unpack(self._taken(_SIZE.size))
        if size > most:
            raise OSError(f"a piece of {size} bytes")
        return self._taken(size)

    def _taken(self, size: int) -> bytes:
        pieces = []
        while size:
            piece = self._peer.recv(min(size, _PIECE_BYTES))
            if not piece:
                raise EOFError
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def await_end(self) -> None:
        """Wait until the other end has gone; what it still sends is dropped."""
        while self._peer.recv(_PIECE_BYTES):
            pass

    def close(self) -> None:
        """Close the connection."""
        self._peer.close()
