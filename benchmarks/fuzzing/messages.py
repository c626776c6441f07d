"""Messages between processes: what comes over a channel, a connection, or lies in shared memory."""

import json
import os
import socket
import tempfile
from contextlib import closing
from multiprocessing import Pipe
from pathlib import Path

import numpy as np

from pepper.devices import protocol
from pepper.execution.message import Message, Stamp, decode, encode
from pepper.execution.queues import open_sink, open_source


def make_messages(folder: Path) -> None:
    message = Message(7, {"x": np.ones((2, 3), np.float32), "ids": np.arange(4)}, (Stamp(1, 2, 3, 4),), 5)
    (folder / "stage").mkdir()
    for number, piece in enumerate(encode(message)):
        (folder / "stage" / f"{number}.bin").write_bytes(bytes(piece))
    (folder / "queue").mkdir()
    pieces = [bytes(piece) for piece in encode(message)]
    where = str(folder / "queue" / "q")
    with closing(open_source(where, 2)) as source, closing(open_sink(where, 2)) as sink:
        assert sink.ready()
        sink.send(pieces)
        assert source.ready()
        source.receive()
        (memory,) = source._memory.values()  # type: ignore[attr-defined]
        (folder / "queue" / "memory").write_bytes(bytes(memory))
    (folder / "control").mkdir()
    header = {"result": {"open_ms": 1.0}, "arrays": [["start_ns", "<i8", [4]], ["latency_ns", "<i8", [4]]]}
    (folder / "control" / "0.json").write_text(json.dumps(header))
    for number in (1, 2):
        (folder / "control" / f"{number}.bin").write_bytes(np.arange(4).tobytes())


def _enter_queue(memory: bytes) -> None:
    """Take what another process laid into the memory of a queue."""
    with (
        tempfile.TemporaryDirectory() as home,
        closing(open_source(f"{home}/q", 2)) as source,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer,
    ):
        peer.connect(f"{home}/q")
        descriptor = os.memfd_create("fuzz")
        try:
            os.write(descriptor, memory)
            socket.send_fds(peer, [bytes(8)], [descriptor])
        finally:
            os.close(descriptor)
        if source.ready():
            message = decode(source.receive())
            for tensor in message.tensors.values():
                np.array(tensor)  # all of its memory can be read


def enter_message(folder: Path) -> None:
    if (folder / "memory").exists() or (folder / "memory").is_symlink():
        if (folder / "memory").is_file() and (folder / "memory").stat().st_size < 10**6:
            _enter_queue((folder / "memory").read_bytes())
        return
    files = sorted(file for file in folder.iterdir() if file.is_file() and file.stat().st_size < 10**6)
    pieces = [file.read_bytes() for file in files]
    if not any(file.suffix == ".json" for file in files):
        decode([memoryview(piece) for piece in pieces])
        return
    ours, theirs = Pipe()
    with ours, theirs:
        for piece in pieces:
            theirs.send_bytes(piece)
        theirs.close()
        try:
            protocol.receive(ours)
        except (EOFError, OSError):  # the other side is gone
            return
