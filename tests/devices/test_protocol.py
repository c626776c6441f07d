"""Messages and arrays between a parent and a program on a device."""

import contextlib
import json
import multiprocessing
import os
import struct

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn

from pepper.devices.protocol import GarbledError, answer, receive, send

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
arrays = stn.arrays(
    stn.scalar_dtypes().filter(lambda dtype: dtype.kind in "biufc" and dtype.itemsize <= 8),
    stn.array_shapes(min_dims=0, min_side=0, max_side=4),
)


@given(message=st.dictionaries(st.text().filter(lambda key: key != "arrays"), json_values), sent=st.lists(arrays))
def test_what_is_sent_is_received(message: dict[str, object], sent: list[np.ndarray]) -> None:
    ours, theirs = multiprocessing.Pipe()
    with ours, theirs:
        named = {f"array {index}": array for index, array in enumerate(sent)}
        send(ours, message, named)
        received, back = receive(theirs)
        assert received == message
        assert list(back) == list(named)
        for name, array in named.items():
            assert back[name].dtype == array.dtype
            np.testing.assert_array_equal(back[name], array)


def test_arrays_that_are_not_contiguous() -> None:
    ours, theirs = multiprocessing.Pipe()
    with ours, theirs:
        array = np.arange(12).reshape(3, 4).T[::2]
        send(ours, {}, {"a": array})
        np.testing.assert_array_equal(receive(theirs)[1]["a"], array)


@given(st.lists(st.binary(max_size=40) | json_values.map(lambda value: json.dumps(value).encode()), max_size=3))
@example([json.dumps({"arrays": [["x", "<f8", [2**40]]]}).encode()])
@example([json.dumps({"arrays": [["x", "<f8", [2]]]}).encode(), bytes(15)])
@example([json.dumps({"arrays": [["x", "|O", [1]]]}).encode(), bytes(8)])
@example([b"[" * 100_000])
def test_what_is_no_message_is_refused_by_one_error(pieces: list[bytes]) -> None:
    ours, theirs = multiprocessing.Pipe()
    with theirs:
        with ours:
            for piece in pieces:
                ours.send_bytes(piece)
        with contextlib.suppress(GarbledError, EOFError, ConnectionError):
            receive(theirs)


def test_a_header_of_more_than_there_is_asks_for_no_memory() -> None:
    ours, theirs = multiprocessing.Pipe()
    with ours, theirs:
        os.write(ours.fileno(), struct.pack("!iQ", -1, 2**50))
        with pytest.raises(GarbledError, match="more than"):
            receive(theirs)


def test_the_end_of_the_other_side() -> None:
    ours, theirs = multiprocessing.Pipe()
    theirs.close()
    with ours, pytest.raises(EOFError):
        receive(ours)


def test_an_error_goes_back_and_the_program_lives_on() -> None:
    ours, theirs = multiprocessing.Pipe()
    handlers = {"divide": lambda a, b: {"quotient": a / b}, "nothing": lambda: None}
    with ours, theirs:
        for request in ({"op": "divide", "a": 1, "b": 0}, {"op": "no such"}, {"op": "divide", "wrong": 1}):
            send(ours, request)
            assert answer(theirs, handlers)
            assert "Error: " in receive(ours)[0]["error"]
        send(ours, {"op": "divide", "a": 1, "b": 2})
        assert answer(theirs, handlers)
        assert receive(ours)[0] == {"result": {"quotient": 0.5}}
        send(ours, {"op": "nothing"})
        assert answer(theirs, handlers)
        assert receive(ours)[0] == {"result": {}}
        ours.close()
        assert not answer(theirs, handlers)
