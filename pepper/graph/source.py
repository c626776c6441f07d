"""Where a model comes from: its file, its identity and the tensors that it takes and gives."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import onnx

from pepper.errors import ModelError, nearest
from pepper.graph import variants
from pepper.graph.expansion import check_expansion
from pepper.graph.external import external_files
from pepper.graph.onnx_types import tensor_type
from pepper.graph.weights import check_weights
from pepper.graph.wellformed import check_operators, check_text

_NAMELESS = {"", "?", "None", "none", "unknown", "-1"}

MOST_FILE_BYTES = 2**31
"""Of an ``.onnx`` file: protobuf holds no more."""
PACKAGE_SCHEME = "pkg://"
"""``pkg://onnx/backend/...`` names a file inside an installed Python package."""


@dataclass(frozen=True)
class TensorSpec:
    """A tensor at a model's border.

    Attributes:
        name: The ONNX value name.
        dtype: The ONNX element type in lower case, such as ``float`` or ``int64``; of what is no tensor the whole
            type, such as ``seq(tensor(float))``.
        shape: The dimensions; a string is a symbolic dimension, None an unknown one. None in place of all of
            them: even their number is unknown.
    """

    name: str
    dtype: str
    shape: tuple[int | str | None, ...] | None


def resolve_path(path: str) -> Path:
    """Return the file that ``path`` names: a plain path, or a ``pkg://package/file`` or ``variant://...`` address.

    Raises:
        ModelError: There is no such package or file, or it is a directory.
    """
    if path.startswith(variants.SCHEME):
        return variants.variant_file(path.removeprefix(variants.SCHEME))
    if path.startswith(PACKAGE_SCHEME):
        package, _, inside = path.removeprefix(PACKAGE_SCHEME).partition("/")
        spec = find_spec(package) if package.isidentifier() else None
        if spec is None or not spec.submodule_search_locations:
            raise ModelError(f"model.path={path}: no Python package named {package!r} is installed; pip install it")
        file = Path(spec.submodule_search_locations[0]) / inside
    else:
        file = Path(path).expanduser()
    if file.is_dir():
        raise ModelError(f"model.path={path}: is a directory; name the .onnx file in it")
    if not file.is_file():
        siblings = [p.name for p in file.parent.glob("*.onnx")] if file.parent.is_dir() else []
        raise ModelError(f"model.path={path}: no such file{nearest(file.name, siblings) or '; check the path'}")
    return file


def read_proto(file: Path) -> onnx.ModelProto:
    """Read the model without its external weights.

    Raises:
        ModelError: The file is unreadable or is not an ONNX model.
    """
    try:
        large = file.stat().st_size > MOST_FILE_BYTES
        proto = onnx.ModelProto() if large else onnx.load(str(file), load_external_data=False)
    except OSError as error:
        raise ModelError(f"{file}: cannot be read ({error.strerror}); check its permissions") from error
    except Exception as error:  # protobuf raises its own DecodeError, onnx others: all mean the same here
        raise ModelError(f"{file}: not a readable ONNX model (corrupt or truncated); export it again") from error
    if large:
        raise ModelError(f"{file}: larger than 2 GiB, which no ONNX file can be; keep its weights in external files")
    if not proto.graph.output:
        raise ModelError(f"{file}: not an ONNX model (it has no outputs); export it again")
    check_text(proto, file)
    check_weights(proto, file)
    check_operators(proto, file)
    try:
        check_expansion(proto)
    except ModelError as error:
        raise ModelError(f"{file}: {error}") from error
    return proto


def content_hash(files: Sequence[Path]) -> str:
    """Return the SHA-256 (hex) of the model file and its external weight files, in the given order."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def model_hash(file: Path) -> str:
    """Return the hash of the model that a file holds now, its external weights included.

    Raises:
        ModelError: It is no model that can be read.
    """
    return content_hash([file, *external_files(read_proto(file), file)])


def tensor_spec(value: onnx.ValueInfoProto) -> TensorSpec:
    """Describe a graph input or output."""
    tensor = value.type.tensor_type
    dtype, shape = tensor_type(value.type)[0] or "undefined", None
    if tensor.HasField("shape"):
        shape = tuple(map(_size, tensor.shape.dim))
    return TensorSpec(value.name, dtype, shape)


def _size(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    """A size, or the name of a symbolic one; None where some exporters write -1, ``?`` or ``None``."""
    if dim.HasField("dim_value"):
        return dim.dim_value if dim.dim_value >= 0 else None
    return None if dim.dim_param in _NAMELESS else dim.dim_param


def real_inputs(graph: onnx.GraphProto) -> list[TensorSpec]:
    """Return the inputs that a caller must feed; old models list their weights among the inputs too.

    A first dimension of 0, which some exporters write for a batch of any size, is an unknown one.
    """
    weights = {tensor.name for tensor in graph.initializer}
    weights |= {tensor.values.name for tensor in graph.sparse_initializer}
    specs = [tensor_spec(value) for value in graph.input if value.name not in weights]
    return [replace(s, shape=(None, *s.shape[1:])) if s.shape and s.shape[0] == 0 else s for s in specs]
