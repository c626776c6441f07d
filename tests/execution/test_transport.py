"""Messages, links' clocks and layouts: plain values."""

import contextlib
import json
import multiprocessing
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn
from ladders import WIDTH, Bench

from pepper.devices.protocol import GarbledError
from pepper.errors import ExecutionError
from pepper.execution.clock import LinkClock
from pepper.execution.layout import Layout, check_inputs
from pepper.execution.message import Message, Stamp, decode, encode, plain
from pepper.fleet import Link

arrays = stn.arrays(
    stn.scalar_dtypes().filter(lambda dtype: dtype.kind in "biufc" and dtype.itemsize <= 8),
    stn.array_shapes(min_dims=0, min_side=0, max_side=4),
)
stamps = st.lists(st.builds(Stamp, *[st.integers(0, 2**62)] * 4, stage=st.integers(0, 99)), max_size=3)


def carried(message: Message) -> Message:
    """What arrives of a message."""
    return decode([memoryview(bytes(piece)) for piece in encode(message)])


@given(tensors=st.dictionaries(st.text(), arrays, max_size=3), passed=stamps, error=st.none() | st.text())
def test_what_is_sent_is_received(tensors: dict[str, np.ndarray], passed: list[Stamp], error: str | None) -> None:
    sent = {name: plain(name, tensor) for name, tensor in tensors.items()}
    found = carried(Message(7, sent, tuple(passed), due_ns=3, error=error))
    assert (found.seq, found.stamps, found.due_ns, found.error) == (7, tuple(passed), 3, error)
    assert list(found.tensors) == list(tensors)
    for name, tensor in tensors.items():
        assert found.tensors[name].dtype == tensor.dtype
        np.testing.assert_array_equal(found.tensors[name], tensor)
    assert found.bytes == sum(tensor.nbytes for tensor in tensors.values())


def mangled(pieces: list[bytes], draw: st.DrawFn) -> list[bytes]:
    """The pieces with a few of them, or of their bytes, changed, cut, doubled or left out."""
    for _ in range(draw(st.integers(1, 3))):
        if not pieces:
            break
        where = draw(st.integers(0, len(pieces) - 1))
        piece = pieces[where]
        at = draw(st.integers(0, len(piece)))
        change = draw(st.sampled_from(("bytes", "cut", "double", "drop", "json")))
        if change == "json":
            words = st.recursive(st.none() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=6)
            pieces[where] = json.dumps(draw(words)).encode()
        else:
            new = {"bytes": piece[:at] + draw(st.binary(max_size=9)) + piece[at + 1 :], "cut": piece[:at]}
            pieces[where : where + 1] = {"double": [piece] * 2, "drop": []}.get(change, [new.get(change, b"")])
    return pieces


@given(st.data())
def test_what_is_no_message_is_refused_by_one_error(data: st.DataObject) -> None:
    tensors = data.draw(st.dictionaries(st.text(max_size=3), arrays, max_size=3))
    pieces = [bytes(piece) for piece in encode(Message(7, tensors, (Stamp(1, 2, 3, 4),)))]
    with contextlib.suppress(GarbledError):
        found = decode([memoryview(piece) for piece in mangled(pieces, data.draw)])
        assert isinstance(found.bytes, int)


@pytest.mark.parametrize(
    "header",
    [
        [["x", "|O", [1]]],
        [["x", "(1000000,)f8", [1]]],
        [["x", "<f4", [-1]]],
        [["x", "<f4", [2**62, 2**62]]],
        [["x", "<f4", [0, 2**62]]],
        [["x", "<f4", [True]]],
        [["x", "<f4", 4]],
        [["x", "<f4", []], ["x", "<f4", []]],
        [[None, "<f4", []]],
        {"x": 1},
        7,
    ],
)
def test_headers_of_no_tensors_are_refused(header: object) -> None:
    numbers, _ = encode(Message(0, {}))
    count = len(header) if isinstance(header, list | dict) else 1
    with pytest.raises(GarbledError):
        decode([memoryview(numbers), memoryview(json.dumps([None, header]).encode()), *[memoryview(bytes(4))] * count])


def test_sending_copies_nothing() -> None:
    tensor = np.zeros((3, 5), np.float32)
    *header, piece = encode(Message(0, {"x": plain("x", tensor)}))
    assert np.shares_memory(piece, tensor)
    memory = bytearray(tensor.tobytes())
    found = decode([*map(memoryview, header), memoryview(memory)])
    assert np.shares_memory(found.tensors["x"], np.frombuffer(memory, np.uint8))


def test_strings_are_refused() -> None:
    with pytest.raises(TypeError, match="tensor 't' holds no plain numbers"):
        plain("t", np.array(["a"], dtype=object))


@given(
    sends=st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**6)), min_size=1, max_size=8),
    bandwidth=st.floats(0.1, 1e5) | st.none(),
    latency_ms=st.floats(0, 100),
    forwarded=st.floats(0.1, 1e5) | st.none(),
)
def test_a_link_carries_one_after_the_other(
    tmp_path_factory: pytest.TempPathFactory,
    sends: list[tuple[int, int]],
    bandwidth: float | None,
    latency_ms: float,
    forwarded: float | None,
) -> None:
    clock = LinkClock.create(tmp_path_factory.mktemp("clock") / "links", 2)
    clock.set(1, Link(bandwidth, latency_ms, forwarded))
    free = 0.0
    for now, count in sorted(sends):
        due = clock.reserve(1, count, now)
        free = max(free, now) + (count * 8000 / bandwidth if bandwidth else 0)
        onward = count * 8000 / forwarded if forwarded else 0
        assert due == pytest.approx(free + onward + latency_ms * 1e6, abs=len(sends) + 2, rel=1e-9)
        assert clock.reserve(0, count, now) == now, "the other link is free"
    clock.close()


def test_a_link_takes_what_the_formula_says() -> None:
    assert Link(100, 5).transfer_ms(1_250_000) == pytest.approx(105)
    assert Link(None, 5).transfer_ms(1_250_000) == 5
    assert Link(100, 5, forwarded_mbit_s=200).transfer_ms(1_250_000) == pytest.approx(155)


def _reserve(file: Path, times: int) -> None:
    clock = LinkClock(file)
    for _ in range(times):
        clock.reserve(0, 1000, 0)


def test_two_senders_share_a_link(tmp_path: Path) -> None:
    clock = LinkClock.create(tmp_path / "links", 1)
    clock.set(0, Link(8))
    context = multiprocessing.get_context("fork")
    senders = [context.Process(target=_reserve, args=(tmp_path / "links", 50)) for _ in range(2)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    assert clock.reserve(0, 0, 0) == 100 * 1_000_000
    clock.close()


def test_a_lock_that_is_never_freed_delays_only(tmp_path: Path) -> None:
    clock = LinkClock.create(tmp_path / "links", 1)
    context = multiprocessing.get_context("fork")
    holding = context.Event()
    holder = context.Process(target=_hold, args=(tmp_path / "links", holding), daemon=True)
    holder.start()
    assert holding.wait(30)
    start = time.monotonic()
    clock.reserve(0, 0, 0)
    assert 0.04 < time.monotonic() - start < 10
    holder.kill()
    holder.join()
    clock.close()


def _hold(file: Path, holding: "multiprocessing.synchronize.Event") -> None:
    clock = LinkClock(file)
    clock._lock(0)
    holding.set()
    time.sleep(3600)


def test_what_crosses_several_borders_is_carried_along(bench: Bench) -> None:
    layout = bench.layout("a", "b", "c", "a")
    assert layout.devices == ("a", "b", "c", "a")
    assert [set(layout.carried(border)) for border in range(5)] == [
        {"x"},
        {"first"},
        {"first", "second"},
        {"first", "third"},
        {"first", "y"},
    ]


def test_a_missing_part_is_named(bench: Bench, tmp_path: Path) -> None:
    from pepper.graph.cuts import cut_behind
    from pepper.graph.split import split

    manifest = split(bench.graph, [cut_behind(bench.graph, 2)], tmp_path / "parts")
    with pytest.raises(ExecutionError, match="2 parts, but 1 devices"):
        Layout.of(manifest, tmp_path / "parts", ["a"])
    (tmp_path / "parts" / manifest.parts[1].file).unlink()
    with pytest.raises(ExecutionError, match=r"part_2.onnx: no such part; split the model again"):
        Layout.of(manifest, tmp_path / "parts", ["a", "b"])


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, rf"input 'x': is missing; give it \(float32 2x{WIDTH}\)"),
        ({"x": np.zeros((2, 3), np.float32)}, rf"input 'x': is float32 2x3; the model takes float32 2x{WIDTH}"),
        ({"x": np.zeros((2, WIDTH))}, "input 'x': is float64"),
        ({"x": np.zeros((2, WIDTH, 1), np.float32)}, "input 'x': is float32 2x32x1"),
        ({"x": np.zeros((2, WIDTH), np.float32), "z": np.zeros(1)}, "input 'z': the model has none of that name"),
    ],
)
def test_wrong_inputs_are_refused(bench: Bench, inputs: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(ExecutionError, match=message):
        check_inputs(bench.layout("a").inputs, inputs)
