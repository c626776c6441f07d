"""Where a model comes from: its file, its identity and the tensors that it takes and gives."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import onnx

from pepper.errors import ModelError, key_of, nearest
from pepper.graph import variants
from pepper.graph.external import external_files
from pepper.graph.weights import check_weights

PACKAGE_SCHEME = "pkg://"
"""``pkg://onnx/backend/...`` names a file inside an installed Python package."""


@dataclass(frozen=True)
class TensorSpec:
    """A tensor at a model's border.

    Attributes:
        name: The ONNX value name.
        dtype: The ONNX element type in lower case, such as ``float`` or ``int64``.
        shape: The dimensions; a string is a symbolic dimension, None an unknown one. None in place of all of
            them: even their number is unknown.
    """

    name: str
    dtype: str
    shape: tuple[int | str | None, ...] | None


def resolve_path(path: str) -> Path:
    """Return the file that ``path`` names: a plain path, or a ``pkg://package/file`` or ``variant://number`` address.

    Raises:
        ModelError: There is no such package or file, or it is a directory.
    """
    if path.startswith(variants.SCHEME):
        number = path.removeprefix(variants.SCHEME)
        if not number.isdecimal():
            raise ModelError(f"model.path={path}: a variant is a number of at least 0; give model.variant=N")
        return variants.variant_file(int(number))
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
        proto = onnx.load(str(file), load_external_data=False)
    except OSError as error:
        raise ModelError(f"{file}: cannot be read ({error.strerror}); check its permissions") from error
    except Exception as error:  # protobuf raises its own DecodeError, onnx others: all mean the same here
        raise ModelError(f"{file}: not a readable ONNX model (corrupt or truncated); export it again") from error
    if not proto.graph.node or not proto.graph.output:
        raise ModelError(f"{file}: not an ONNX model (it has no operators or no outputs); export it again")
    check_weights(proto, file)
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
    shape = None
    if tensor.HasField("shape"):
        dims = tensor.shape.dim
        shape = tuple(dim.dim_value if dim.HasField("dim_value") else (dim.dim_param or None) for dim in dims)
    return TensorSpec(value.name, onnx.TensorProto.DataType.Name(tensor.elem_type).lower(), shape)


def real_inputs(graph: onnx.GraphProto) -> list[TensorSpec]:
    """Return the inputs that a caller must feed; old models list their weights among the inputs too."""
    weights = {tensor.name for tensor in graph.initializer}
    weights |= {tensor.values.name for tensor in graph.sparse_initializer}
    return [tensor_spec(value) for value in graph.input if value.name not in weights]


def concrete_shapes(
    inputs: Sequence[TensorSpec],
    shapes: Mapping[str, Sequence[int]],
    dims: Mapping[str, int],
    batch: int | None,
) -> dict[str, list[int]]:
    """Give every input a fixed shape.

    A shape named for the input wins, then a value for a symbolic dimension; a dynamic *first* dimension
    left over is the batch and defaults to 1. Any other dynamic dimension must be given.

    Args:
        inputs: The model's inputs.
        shapes: Whole shapes by input name (``model.shapes.NAME``).
        dims: Sizes by symbolic dimension name (``model.dims.NAME``).
        batch: Size of a dynamic first dimension (``model.batch``); None means 1.

    Raises:
        ModelError: A dimension has no value, or a given one contradicts the model.
    """
    known = [spec.name for spec in inputs]
    for name in shapes:
        if name not in known:
            raise ModelError(
                f"{key_of('model.shapes', name)}: the model has no such input{nearest(name, known)}"
                f" (inputs: {', '.join(known)})"
            )
    symbols = {dim for spec in inputs for dim in spec.shape or () if isinstance(dim, str)}
    for name in dims:
        if name not in symbols:
            raise ModelError(
                f"{key_of('model.dims', name)}: the model has no such dimension{nearest(name, symbols)}"
                f" (dynamic dimensions: {', '.join(sorted(symbols)) or 'none'})"
            )
    result = {}
    for spec in inputs:
        if spec.name in shapes:
            result[spec.name] = _checked_shape(spec, list(shapes[spec.name]))
        elif spec.shape is None:
            raise ModelError(
                f"input {spec.name!r}: the model does not say its shape; give {key_of('model.shapes', spec.name)}=[...]"
            )
        else:
            result[spec.name] = [_dimension(spec, dim, axis, dims, batch) for axis, dim in enumerate(spec.shape)]
    return result


def _checked_shape(spec: TensorSpec, shape: list[int]) -> list[int]:
    known = (None,) * len(shape) if spec.shape is None else spec.shape
    fits = len(shape) == len(known) and all(
        given >= 1 and (not isinstance(fixed, int) or fixed == given) for given, fixed in zip(shape, known, strict=True)
    )
    if not fits:
        wanted = ", ".join("?" if dim is None else str(dim) for dim in known)
        raise ModelError(
            f"{key_of('model.shapes', spec.name)}={shape}: the model wants [{wanted}]; give a shape that fits"
        )
    return shape


def _dimension(spec: TensorSpec, dim: int | str | None, axis: int, dims: Mapping[str, int], batch: int | None) -> int:
    if isinstance(dim, int):
        if axis == 0 and batch not in (None, dim) and len(spec.shape or ()) > 1:
            raise ModelError(f"model.batch={batch}: input {spec.name!r} has a fixed first dimension of {dim}; drop it")
        return dim
    if isinstance(dim, str) and dim in dims:
        return dims[dim]
    if axis == 0:
        return 1 if batch is None else batch
    fix = f"{key_of('model.dims', dim)}=N or " if isinstance(dim, str) else ""
    raise ModelError(
        f"input {spec.name!r}: dimension {axis} ({dim or 'unnamed'}) is dynamic and has no value;"
        f" give {fix}{key_of('model.shapes', spec.name)}=[...]"
    )
