"""Weights that live beside the model file: each part gets a file with its own, copied piece by piece."""

from pathlib import Path

import onnx

from pepper.errors import ModelError

_CHUNK_BYTES = 16 * 2**20
_PAGE_BYTES = 4096  # onnxruntime maps weights that start on a page into memory instead of copying them


def gather_external(model: onnx.ModelProto, source: Path, target: Path) -> str | None:
    """Copy the external weights that ``model`` names from beside ``source`` into the file ``target``.

    The model's references are changed to it. Memory does not grow with the weights.

    Returns:
        The name of ``target``, or None if the model has no external weights (no file is made then).

    Raises:
        ModelError: A weight file is shorter than the model says.
    """
    tensors = [
        tensor
        for tensor in onnx.external_data_helper._get_all_tensors(model)
        if tensor.data_location == onnx.TensorProto.EXTERNAL
    ]
    if not tensors:
        return None
    with target.open("wb") as sink:
        for tensor in tensors:
            entries = {entry.key: entry.value for entry in tensor.external_data}
            weight_file = source.parent / entries["location"]
            start = int(entries.get("offset", 0))
            available = weight_file.stat().st_size - start
            length = int(entries.get("length", available))
            if length > available:
                raise ModelError(
                    f"{weight_file}: truncated: weight {tensor.name!r} needs {length} bytes from {start};"
                    " copy the file again"
                )
            offset = -(-sink.tell() // _PAGE_BYTES) * _PAGE_BYTES
            sink.seek(offset)
            with weight_file.open("rb") as stream:
                stream.seek(start)
                remaining = length
                while remaining:
                    piece = stream.read(min(remaining, _CHUNK_BYTES))
                    sink.write(piece)
                    remaining -= len(piece)
            del tensor.external_data[:]
            for key, value in (("location", target.name), ("offset", str(offset)), ("length", str(length))):
                tensor.external_data.add(key=key, value=value)
    return target.name
