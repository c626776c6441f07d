"""Both kinds of queues hold what `pepper.execution.queues` says of them."""

import os
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from pepper.config.executing import MOST_QUEUED
from pepper.devices.protocol import GarbledError
from pepper.execution.queues import Keys, Sink, Source, open_sink, open_source

MOST = 3
Open = Callable[[], tuple[Source, Sink]]


def address(kind: str, folder: Path) -> str:
    if kind == "shared":
        return str(folder / "queue")
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"tcp://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture(params=["shared", "tcp"])
def ends(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Source, Sink]]:
    where = address(request.param, tmp_path)
    with ExitStack() as stack:
        keys = Keys.make()
        source = stack.enter_context(closing(open_source(where, MOST, keys)))
        yield source, stack.enter_context(closing(open_sink(where, MOST, keys)))


def wait(end: Source | Sink, ms: int = 30_000) -> bool:
    """Sleep until an end is ready, as stages do."""
    while not end.ready():
        poller = select.poll()
        if (number := end.fileno()) is not None:
            poller.register(number, select.POLLIN)
        if not poller.poll(ms):
            return end.ready()
    return True


def put(sink: Sink, *pieces: bytes) -> None:
    assert wait(sink)
    sink.send([np.frombuffer(piece, np.uint8) for piece in pieces])


def get(source: Source) -> list[bytes]:
    assert wait(source)
    found = [bytes(piece) for piece in source.receive()]
    source.done()
    return found


def test_messages_arrive_in_order_and_whole(ends: tuple[Source, Sink]) -> None:
    source, sink = ends
    sizes = (0, 1, 63, 64, 65, 5000, 2**17 - 1, 2**17, 2**17 + 1, 2**18, 3_000_000, 7)
    sent = [[b"a", bytes(size), os.urandom(size), b"z"] for size in sizes]
    assert not source.ready()
    for pieces in sent:
        put(sink, *pieces)
        assert get(source) == pieces
    assert not source.ready()
    assert not wait(source, 1)
    assert source.refused() == 0


@given(sizes=st.lists(st.lists(st.integers(0, 300), min_size=1, max_size=4), min_size=1, max_size=12), data=st.data())
def test_a_shared_queue_keeps_what_is_looked_at(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[list[int]], data: st.DataObject
) -> None:
    where = str(tmp_path_factory.mktemp("queue") / "q")
    with closing(open_source(where, MOST)) as source, closing(open_sink(where, MOST)) as sink:
        sent, taken, looked = 0, 0, None  # looked: views of the message that is not given back yet
        while taken < len(sizes):
            held = sent - taken + (looked is not None)
            assert sink.ready() == (held < MOST)
            assert source.ready() == (sent > taken)
            if looked is None and sent > taken and (sent == len(sizes) or not sink.ready() or data.draw(st.booleans())):
                looked, taken = source.receive(), taken + 1
            elif sent < len(sizes) and sink.ready() and (looked is None or data.draw(st.booleans())):
                sink.send([np.full(size, sent, np.uint8) for size in sizes[sent]])
                sent += 1
            elif looked is not None:
                assert [bytes(piece) for piece in looked] == [bytes([taken - 1]) * size for size in sizes[taken - 1]]
                source.done()
                looked = None


def test_a_full_queue_has_room_again_once_the_receiver_is_done(ends: tuple[Source, Sink]) -> None:
    source, sink = ends
    sent = 0
    while sink.ready() and sent < 1000:
        sink.send([np.full(300_000, sent % 256, np.uint8)])
        sent += 1
    assert 1 <= sent < 1000, "a queue that never fills holds nobody back"
    for number in range(sent):
        assert get(source) == [bytes([number % 256]) * 300_000]
    assert wait(sink)


def test_the_longest_shared_queue_is_filled_without_waiting(tmp_path: Path) -> None:
    where = address("shared", tmp_path)
    with closing(open_source(where, MOST_QUEUED)) as source, closing(open_sink(where, MOST_QUEUED)) as sink:
        for number in range(MOST_QUEUED):
            assert sink.ready()
            sink.send([np.full(10, number, np.uint8)] * 1000)
        assert not sink.ready()
        for number in range(MOST_QUEUED):
            assert get(source) == [bytes([number]) * 10] * 1000


def test_what_was_sent_before_the_sender_left_is_there(tmp_path: Path) -> None:
    where = address("shared", tmp_path)
    with closing(open_source(where, MOST)) as source:
        with closing(open_sink(where, MOST)) as sink:
            put(sink, b"last words")
        assert get(source) == [b"last words"]
        assert not wait(source, 1), "nobody will send any more, and nothing keeps the receiver awake"


def test_only_members_of_the_run_get_something_in(tmp_path: Path) -> None:
    """Neither plain bytes, nor a peer without keys, nor one with keys of its own; and the queue goes on."""
    where, keys, strange = address("tcp", tmp_path), Keys.make(), Keys.make()
    host, port = where.removeprefix("tcp://").split(":")
    with closing(open_source(where, MOST, keys)) as source, zmq.Context() as context:
        with socket.create_connection((host, int(port))) as plain, context.socket(zmq.PUSH) as unkeyed:
            plain.sendall(os.urandom(4096))
            unkeyed.linger = 0
            unkeyed.connect(where)
            unkeyed.send_multipart([b"forged", b"answer"])
            with closing(open_sink(where, MOST, strange)) as stranger:
                put(stranger, b"forged")
                assert not wait(source, 500)
            with closing(open_sink(where, MOST, keys)) as sink:
                put(sink, b"mine")
                assert get(source) == [b"mine"]
        assert not wait(source, 50)
        assert source.refused() >= 3, "who is refused tries again"
    with pytest.raises(ValueError, match="without keys"):
        open_sink(where, MOST)


@pytest.mark.parametrize("frames", [[b"x"], [bytes(8), b"x"], [bytes(8)], [bytes(8), b"", b""], [b"\xff" * 8, b"x"]])
def test_what_is_no_message_is_refused(tmp_path: Path, frames: list[bytes]) -> None:
    where, keys = address("tcp", tmp_path), Keys.make()
    with closing(open_source(where, MOST, keys)) as source, zmq.Context() as context, context.socket(zmq.PUSH) as sink:
        sink.curve_publickey, sink.curve_secretkey = keys.public.encode(), keys.secret.encode()
        sink.curve_serverkey = keys.public.encode()
        sink.connect(where)
        sink.send_multipart(frames)
        assert wait(source)
        with pytest.raises(GarbledError):
            source.receive()


def test_nobody_waits_for_room_at_a_queue_whose_receiver_has_left(tmp_path: Path) -> None:
    where = address("shared", tmp_path)
    with closing(open_source(where, MOST)) as source, closing(open_sink(where, MOST)) as sink:
        put(sink, b"a")
        source.close()
        sink.send([b"b"])
        assert not sink.ready()
        assert sink.fileno() is None


def test_nothing_is_left_of_a_queue(tmp_path: Path) -> None:
    before = set(Path("/proc/self/fd").iterdir())
    where = address("shared", tmp_path)
    with closing(open_source(where, MOST)) as source, closing(open_sink(where, MOST)) as sink:
        for size in (10, 10_000, 100_000):
            put(sink, bytes(size))
            assert get(source) == [bytes(size)]
    assert set(Path("/proc/self/fd").iterdir()) == before
    assert list(tmp_path.iterdir()) == []
    mapped = Path("/proc/self/maps").read_text()
    assert "memfd:pepper" not in mapped
