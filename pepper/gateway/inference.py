"""Requests and answers as the Open Inference Protocol, version 2, has them.

JSON, and its extension for binary tensors, which Triton's and KServe's clients use: the bytes of tensors stand behind
the JSON, whose length a header says. Sources: the protocol's text (kserve/open-inference-protocol), and Triton's
extension_binary_data.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pepper.documents import parse_json
from pepper.execution.message import Array
from pepper.execution.standing_files import TensorFile

JSON_BYTES = "inference-header-content-length"
"""The header that says where the JSON ends and the bytes begin."""

DATATYPES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
}
"""The protocol's names of types, by numpy's."""

_MOST_DIMENSIONS = 32
_JSON_BYTES_AN_ELEMENT = 32
_UNBOUNDED_BYTES = 2**26
_MOST_ELEMENTS = 2**31


class UnfitRequest(ValueError):  # noqa: N818 - an answer, and no fault of the gateway
    """A request is none that the model can answer; the message says why, in one line."""


def described(tensor: TensorFile) -> dict[str, Any]:
    """Return what the protocol's metadata say of an input or an output."""
    shape = [-1 if size is None else size for size in tensor.shape or []]
    return {"name": tensor.name, "datatype": DATATYPES[tensor.dtype], "shape": shape}


def most_bytes(inputs: Sequence[TensorFile]) -> int:
    """Return the most bytes that a request for these inputs may have."""
    count = 0
    for tensor in inputs:
        if tensor.shape is None or None in tensor.shape:
            return _UNBOUNDED_BYTES
        count += math.prod(size for size in tensor.shape if size is not None)
    return 2**16 + count * _JSON_BYTES_AN_ELEMENT


class InferRequest:
    """A request.

    Args:
        body: Its bytes.
        json_bytes: How many of them are JSON; None is all.
        wanted: What the model takes.
        given: What the model gives.

    Attributes:
        identifier: What its sender calls it; None where it has no name.
        tensors: The inputs by name.
        outputs: Names of the outputs that are wanted, in order, and whether as bytes.

    Raises:
        UnfitRequest: It is none, or not what the model takes.
    """

    def __init__(
        self, body: bytes, json_bytes: int | None, wanted: Sequence[TensorFile], given: Sequence[TensorFile]
    ) -> None:
        size = len(body) if json_bytes is None else json_bytes
        if not 0 <= size <= len(body):
            raise UnfitRequest(f"{JSON_BYTES}: is {size}, of {len(body)} bytes; give the length of the JSON")
        try:
            content = parse_json(body[:size])
        except ValueError as error:
            raise UnfitRequest(f"the request: no JSON ({error}); see the Open Inference Protocol") from error
        self.identifier = content.get("id")
        if self.identifier is not None and not isinstance(self.identifier, str):
            raise UnfitRequest("id: must be text")
        self.tensors = self._inputs(content, memoryview(body)[size:], {tensor.name: tensor for tensor in wanted})
        self.outputs = _outputs(content, [tensor.name for tensor in given])

    @staticmethod
    def _inputs(content: Mapping[str, Any], rest: memoryview, wanted: Mapping[str, TensorFile]) -> dict[str, Array]:
        found: dict[str, Array] = {}
        for entry in _entries(content, "inputs"):
            name = entry["name"]
            if name not in wanted:
                raise UnfitRequest(f"input {name!r:.80}: the model takes {', '.join(wanted)}")
            if name in found:
                raise UnfitRequest(f"input {name!r}: is given twice")
            shape = entry.get("shape")
            tensor = wanted[name]
            if not (isinstance(shape, list) and len(shape) <= _MOST_DIMENSIONS and all(_is_size(n) for n in shape)):
                raise UnfitRequest(f"input {name!r}: shape must be a list of numbers from 0")
            if math.prod(max(size, 1) for size in shape) > _MOST_ELEMENTS:
                raise UnfitRequest(f"input {name!r}: shape is too large")
            if entry.get("datatype") != DATATYPES[tensor.dtype] or not _fits(shape, tensor.shape):
                takes = described(tensor)
                raise UnfitRequest(
                    f"input {name!r}: is {entry.get('datatype')!r:.20} {shape}; the model takes {takes['datatype']}"
                    f" {takes['shape']}"
                )
            count = _parameters(entry).get("binary_data_size")
            if count is None:
                found[name] = _from_json(name, entry.get("data"), tensor.dtype, shape)
                continue
            if not _is_size(count) or count > len(rest):
                raise UnfitRequest(f"input {name!r}: binary_data_size is {count!r:.20}, of {len(rest)} bytes there")
            found[name] = _from_bytes(name, rest[:count], tensor.dtype, shape)
            rest = rest[count:]
        if missing := [name for name in wanted if name not in found]:
            raise UnfitRequest(f"input {missing[0]!r}: is missing; the model takes {', '.join(wanted)}")
        if len(rest):
            raise UnfitRequest(f"{len(rest)} bytes too many stand behind the JSON")
        return found


def answer(
    model: str, request: InferRequest, tensors: Mapping[str, Array]
) -> tuple[list[bytes | memoryview], int | None]:
    """Return an answer's pieces, and the length of its JSON where bytes stand behind that.

    Args:
        model: The model's name.
        request: What was asked.
        tensors: What the model gave.

    Raises:
        ValueError: An output that is wanted as JSON holds what JSON has not, an infinity or no number.
    """
    entries, pieces = [], []
    for name, binary in request.outputs:
        tensor = tensors[name]
        entry: dict[str, Any] = {"name": name, "datatype": DATATYPES[tensor.dtype.name], "shape": list(tensor.shape)}
        if binary:
            entry["parameters"] = {"binary_data_size": tensor.nbytes}
            pieces.append(np.ascontiguousarray(tensor).data.cast("B") if tensor.size else b"")
        else:
            if tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
                raise ValueError(f"output {name!r}: holds values that JSON has not; ask for it as bytes (binary_data)")
            entry["data"] = tensor.reshape(-1).tolist()
        entries.append(entry)
    said: dict[str, Any] = {"model_name": model, "model_version": "1", "outputs": entries}
    if request.identifier is not None:
        said["id"] = request.identifier
    head = json.dumps(said).encode()
    return [head, *pieces], len(head) if any(binary for _, binary in request.outputs) else None


def _entries(content: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    entries = content.get(key) or []
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and isinstance(entry.get("name"), str) for entry in entries
    ):
        raise UnfitRequest(f"{key}: must be a list of tensors, each with a name")
    return entries


def _parameters(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    found = entry.get("parameters") or {}
    if not isinstance(found, dict):
        raise UnfitRequest("parameters: must be values by name")
    return found


def _outputs(content: Mapping[str, Any], given: Sequence[str]) -> list[tuple[str, bool]]:
    everywhere = _parameters(content).get("binary_data_output") is True
    entries = _entries(content, "outputs")
    if not entries:
        return [(name, everywhere) for name in given]
    for entry in entries:
        if entry["name"] not in given:
            raise UnfitRequest(f"output {entry['name']!r:.80}: the model gives {', '.join(given)}")
        if _parameters(entry).get("classification"):
            raise UnfitRequest(f"output {entry['name']!r}: classification is not served; take the whole tensor")
    return [(entry["name"], _parameters(entry).get("binary_data", everywhere) is True) for entry in entries]


def _is_size(value: object) -> bool:
    return type(value) is int and value >= 0


def _fits(shape: Sequence[int], wanted: Sequence[int | None] | None) -> bool:
    if wanted is None:
        return True
    return len(shape) == len(wanted) and all(size in (None, given) for size, given in zip(wanted, shape, strict=True))


def _from_bytes(name: str, piece: memoryview, dtype: str, shape: Sequence[int]) -> Array:
    kind = np.dtype(dtype)
    count = math.prod(shape)
    if len(piece) != count * kind.itemsize:
        raise UnfitRequest(f"input {name!r}: {len(piece)} bytes are not {DATATYPES[dtype]} {list(shape)}")
    array = np.frombuffer(piece, kind).reshape(shape)
    return array if array.flags.aligned else array.copy()


def _from_json(name: str, data: object, dtype: str, shape: Sequence[int]) -> Array:
    try:
        array = np.asarray(data)
        array = array if array.size else array.astype(dtype)  # of nothing, numpy cannot tell the type
        if array.dtype.kind not in ("b" if dtype == "bool" else "biuf") or array.size != math.prod(shape):
            raise ValueError
        cast = array.astype(dtype)
        if np.dtype(dtype).kind in "iu" and not np.array_equal(cast, array):
            raise ValueError
    except (ValueError, TypeError, OverflowError) as error:
        raise UnfitRequest(f"input {name!r}: data are not {DATATYPES[dtype]} {list(shape)}") from error
    return cast.reshape(shape)
