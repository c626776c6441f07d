"""Weights that live beside the model file: found, checked, and copied for each part piece by piece."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import onnx

from pepper.errors import ModelError
from pepper.graph.weights import all_tensors, needed_bytes

_CHUNK_BYTES = 16 * 2**20
_PAGE_BYTES = 4096  # onnxruntime maps weights that start on a page into memory instead of copying them
_MOST_DIGITS = 18


@dataclass(frozen=True)
class Stored:
    """Where a weight's bytes lie.

    Attributes:
        file: The file beside the model; it may be a link, as in the Hugging Face cache.
        offset: Bytes before them.
        length: How many there are.
    """

    file: Path
    offset: int
    length: int


def external_tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield the tensors whose bytes lie in other files."""
    return (tensor for tensor in all_tensors(proto) if tensor.data_location == onnx.TensorProto.EXTERNAL)


def stored(tensor: onnx.TensorProto, model: Path) -> Stored:
    """Return where the bytes of an external tensor lie.

    The name that the model gives stays in the model's folder; what is there may be a link to anywhere: whoever laid
    the folder out put it there.

    Raises:
        ModelError: The name leaves the folder, there is no such file, or it is too short.
    """
    return _stored(tensor, model, {})


def external_files(proto: onnx.ModelProto, file: Path) -> list[Path]:
    """Return the external weight files that the model names, sorted.

    Raises:
        ModelError: A file is missing or too short, or its name leads out of the model's folder.
    """
    sizes: dict[str, tuple[Path, int]] = {}
    return sorted({_stored(tensor, file, sizes).file for tensor in external_tensors(proto)})


def _stored(tensor: onnx.TensorProto, model: Path, sizes: dict[str, tuple[Path, int]]) -> Stored:
    """Return where a tensor's bytes lie; each file is looked at once, and its path and bytes kept by its name."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    name = entries.get("location", "")
    if name not in sizes:
        sizes[name] = _regular(name, tensor, model)
    file, size = sizes[name]
    said = f"{model}: external data {name[:200]!r}"
    offset, length = (_number(entries, key, tensor, said) for key in ("offset", "length"))
    needed = needed_bytes(tensor, model)
    if needed is None:
        raise ModelError(f"{said}: weight {tensor.name!r} holds texts, which lie in no other file; export it again")
    if length not in (None, needed):
        raise ModelError(
            f"{said}: weight {tensor.name!r} is said to have {length} bytes there, its shape {list(tensor.dims)} takes"
            f" {needed}; export the model again"
        )
    if (offset or 0) + needed > size:
        raise ModelError(
            f"{said} is truncated: weight {tensor.name!r} needs {needed} bytes from {offset or 0}, the file has"
            f" {size}; copy it again"
        )
    return Stored(file, offset or 0, needed)


def _regular(name: str, tensor: onnx.TensorProto, model: Path) -> tuple[Path, int]:
    """Return the path of a file beside the model that can be read, and its bytes."""
    said = f"{model}: external data {name[:200]!r}"
    path = PurePosixPath(name)
    if not path.name or "\0" in name:
        raise ModelError(f"{said} of weight {tensor.name!r} is no file's name; export the model again")
    if path.is_absolute() or ".." in path.parts:
        raise ModelError(f"{said} lies outside the model's folder; move it beside the model")
    file = model.parent / path
    try:
        status = file.stat()
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise ModelError(f"{model}: external data file {name!r} is missing; put it beside the model") from None
        raise ModelError(f"{said} cannot be read ({error.strerror}); put it beside the model") from error
    if not stat.S_ISREG(status.st_mode):
        raise ModelError(f"{said} is no regular file; put the weights beside the model")
    if not os.access(file, os.R_OK):
        raise ModelError(f"{said} cannot be read (Permission denied); check its permissions")
    return file, status.st_size


def read_external(tensor: onnx.TensorProto, model: Path) -> onnx.TensorProto:
    """Return an external tensor with its bytes in it.

    Raises:
        ModelError: As of `stored`.
    """
    place = stored(tensor, model)
    with place.file.open("rb") as stream:
        stream.seek(place.offset)
        content = stream.read(place.length)
    return onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims, raw_data=content)


def named_from_root(proto: onnx.ModelProto, model: Path) -> onnx.ModelProto:
    """Return a copy that names its external weights from the root folder on, links followed.

    onnxruntime takes a model's bytes with weights in any folder that it is told, but follows no link that leaves it.

    Raises:
        ModelError: As of `stored`.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for tensor in external_tensors(copy):
        location = str(stored(tensor, model).file.resolve().relative_to("/"))
        next(entry for entry in tensor.external_data if entry.key == "location").value = location
    return copy


def gather_external(model: onnx.ModelProto, source: Path, target: Path) -> str | None:
    """Copy the external weights that ``model`` names from beside ``source`` into the file ``target``.

    The model's references are changed to it. Memory does not grow with the weights.

    Returns:
        The name of ``target``, or None if the model has no external weights (no file is made then).

    Raises:
        ModelError: A weight file is missing, or shorter than the model says.
    """
    tensors = list(external_tensors(model))
    if not tensors:
        return None
    with target.open("wb") as sink:
        for tensor in tensors:
            place = stored(tensor, source)
            offset = -(-sink.tell() // _PAGE_BYTES) * _PAGE_BYTES
            sink.seek(offset)
            with place.file.open("rb") as stream:
                stream.seek(place.offset)
                remaining = place.length
                while remaining:
                    piece = stream.read(min(remaining, _CHUNK_BYTES))
                    if not piece:
                        raise ModelError(f"{place.file}: became shorter while it was read; copy it again")
                    sink.write(piece)
                    remaining -= len(piece)
            del tensor.external_data[:]
            for key, value in (("location", target.name), ("offset", str(offset)), ("length", str(place.length))):
                tensor.external_data.add(key=key, value=value)
    return target.name


def _number(entries: dict[str, str], key: str, tensor: onnx.TensorProto, said: str) -> int | None:
    text = entries.get(key, "")
    if not text and key not in entries:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS):
        raise ModelError(
            f"{said}: the {key} of weight {tensor.name!r} is {text[:40]!r}, no number; export the model again"
        )
    return int(text)
