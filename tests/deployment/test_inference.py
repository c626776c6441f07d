"""The Open Inference Protocol: what a client writes, the gateway reads, and the other way round."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pepper.execution.message import Message
from pepper.execution.standing_files import TensorFile
from pepper.execution.standing_stage import newest
from pepper.gateway.inference import DATATYPES, InferRequest, UnfitRequest, answer, most_bytes

TENSORS = st.sampled_from([np.dtype(name) for name in DATATYPES]).flatmap(
    lambda dtype: arrays.arrays(
        dtype,
        arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
        elements={"allow_nan": False, "allow_infinity": False} if dtype.kind == "f" else None,
    )
)


def of(array: np.ndarray, name: str = "x") -> TensorFile:
    return TensorFile(name=name, dtype=array.dtype.name, shape=list(array.shape))


def written(array: np.ndarray, binary: bool) -> tuple[bytes, int | None]:
    entry: dict[str, Any] = {"name": "x", "datatype": DATATYPES[array.dtype.name], "shape": list(array.shape)}
    if not binary:
        return json.dumps({"inputs": [{**entry, "data": array.tolist()}]}).encode(), None
    head = json.dumps({"inputs": [{**entry, "parameters": {"binary_data_size": array.nbytes}}]}).encode()
    return head + array.tobytes(), len(head)


@settings(deadline=None)
@given(TENSORS, st.booleans(), st.booleans())
def test_what_goes_in_comes_out(array: np.ndarray, binary_in: bool, binary_out: bool) -> None:
    body, size = written(array, binary_in)
    assert len(body) <= most_bytes([of(array)])
    asked = InferRequest(body, size, [of(array)], [of(array, "y")])
    np.testing.assert_array_equal(asked.tensors["x"], array)
    assert asked.tensors["x"].dtype == array.dtype
    asked.outputs = [("y", binary_out)]
    pieces, json_bytes = answer("model", asked, {"y": asked.tensors["x"]})
    whole = b"".join(pieces)
    assert (json_bytes is None) == (not binary_out)
    (output,) = json.loads(whole[:json_bytes])["outputs"]
    found = np.frombuffer(whole[json_bytes:], array.dtype) if binary_out else np.array(output["data"], array.dtype)
    np.testing.assert_array_equal(found.reshape(output["shape"]), array)


@settings(deadline=None)
@given(st.binary(max_size=200), st.none() | st.integers(-1, 300))
def test_whatever_comes_is_a_request_or_refused(body: bytes, size: int | None) -> None:
    with pytest.raises(UnfitRequest):
        InferRequest(body, size, [TensorFile(name="x", dtype="float32", shape=[2])], [])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
FIELDS = ("name", "datatype", "shape", "data", "parameters")


@settings(deadline=None)
@given(st.sampled_from(FIELDS), JSON, JSON)
def test_a_request_with_anything_in_a_field_is_understood_or_refused(field: str, value: object, more: object) -> None:
    entry = {"name": "x", "datatype": "FP32", "shape": [2], "data": [1, 2], field: value}
    body = json.dumps({"inputs": [entry], "outputs": more}).encode()
    said = "understood"
    try:
        found = InferRequest(body, None, [TensorFile(name="x", dtype="float32", shape=[2])], [])
        assert found.tensors["x"].shape == (2,)
    except UnfitRequest as error:
        said = str(error)
    assert len(said.splitlines()) == 1


@settings(deadline=None)
@given(st.dictionaries(st.integers(0, 3), st.integers(0, 5), min_size=1))
def test_of_several_ways_only_the_newest_request_is_kept(heads: dict[int, int]) -> None:
    kept = newest({way: Message(seq, {}) for way, seq in heads.items()})
    assert {way: message.seq for way, message in kept.items()} == {
        way: seq for way, seq in heads.items() if seq == max(heads.values())
    }


@pytest.mark.parametrize("shape", [[0, 10**30], [2**20, 2**20], [0, 2**63]])
def test_a_shape_that_no_array_has_is_refused(shape: list[int]) -> None:
    entry = {"name": "x", "datatype": "FP32", "shape": shape, "data": []}
    body = json.dumps({"inputs": [entry]}).encode()
    with pytest.raises(UnfitRequest, match="input 'x': shape is too large"):
        InferRequest(body, None, [TensorFile(name="x", dtype="float32", shape=[None, None])], [])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_json_has_not_goes_out_as_bytes_only(value: float) -> None:
    array = np.array([1.0, value], np.float32)
    body, size = written(np.zeros(2, np.float32), False)
    asked = InferRequest(body, size, [of(array)], [of(array, "y")])
    with pytest.raises(ValueError, match="output 'y': holds values that JSON has not; ask for it as bytes"):
        answer("model", asked, {"y": array})
    asked.outputs = [("y", True)]
    pieces, json_bytes = answer("model", asked, {"y": array})
    assert np.frombuffer(b"".join(pieces)[json_bytes:], np.float32)[0] == 1.0
