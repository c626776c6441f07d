"""Models that a host holds: fetched once by their hash, in pieces, and gone on with where that was cut short."""

import re
import shutil
import socket
import ssl
import threading
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from pepper.caches import cache_folder
from pepper.errors import DeviceError, ModelError, refusal
from pepper.hosts import engine, ports

PIECE_BYTES = 2**18
WAIT_S = 10.0
_HASH = re.compile(r"[0-9a-f]{64}")


def folder(model: str) -> Path:
    """Return where the files of a model are, or will be, by its hash."""
    if not _HASH.fullmatch(model):
        raise ModelError(f"{model[:80]!r} is no model's hash")
    return cache_folder("models") / model


def held(model: str, files: Mapping[str, int]) -> dict[str, int]:
    """Return how many bytes of each file of a model are here already.

    Args:
        model: Its hash.
        files: How many each has, by its name beside the model.
    """
    found = {}
    for name, size in files.items():
        file = _file(model, name)
        part = _part(file)
        found[name] = size if file.is_file() else part.stat().st_size if part.is_file() else 0
        if found[name] > size:
            part.unlink()
            found[name] = 0
        elif found[name] == size and part.is_file():
            part.replace(file)
    return found


def receive(model: str, name: str, size: int) -> int:
    """Wait for a connection that brings what is lacking of a file, over TLS with certificates on both sides.

    Returns:
        The port; one connection is taken, in the next seconds. What it has brought is kept, also if it is cut.

    Raises:
        DeviceError: The file cannot be written, there is no room for it, or no port is free.
    """
    file = _file(model, name)
    part = _part(file)
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        with part.open("ab") as stream:
            missing, free = size - stream.tell(), shutil.disk_usage(part.parent).free
    except OSError as error:
        raise DeviceError(f"{part}: {refusal(error)}; make room there") from error
    if free < missing:
        raise DeviceError(
            f"{part.parent}: {free / 1000:,.0f} kB are free, the model takes {missing / 1000:,.0f} kB more; make room"
            " there"
        )
    server = ports.listening(1)
    server.settimeout(WAIT_S)
    threading.Thread(target=_taken, args=(server, engine.own_listening(), file, size), daemon=True).start()
    return int(server.getsockname()[1])


def _taken(server: socket.socket, tls: ssl.SSLContext, file: Path, size: int) -> None:
    """Take one connection, and add what comes to a file; a word goes back when it is whole."""
    part = _part(file)
    try:
        with server, server.accept()[0] as plain:
            plain.settimeout(WAIT_S)
            with tls.wrap_socket(plain, server_side=True) as peer, part.open("ab", buffering=0) as stream:
                missing, piece = size - stream.tell(), memoryview(bytearray(PIECE_BYTES))
                while missing > 0 and (count := peer.recv_into(piece, min(missing, PIECE_BYTES))):
                    stream.write(piece[:count])
                    missing -= count
                if missing == 0:
                    part.replace(file)
                    peer.sendall(b"\0")
    except OSError:  # cut, no certificate, or no room: what is here is told when it is asked for again
        return


def drop(model: str) -> None:
    """Forget a model that is damaged: it is fetched again."""
    shutil.rmtree(folder(model), ignore_errors=True)


def _file(model: str, name: str) -> Path:
    path = PurePosixPath(name)
    if not path.name or path.is_absolute() or ".." in path.parts or "\0" in name:
        raise ModelError(f"{name!r} is no file beside a model")
    return folder(model) / path


def _part(file: Path) -> Path:
    return file.with_name(f"{file.name}.part")
