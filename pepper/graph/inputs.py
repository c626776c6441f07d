"""Values of a model's inputs: given, or drawn by type, shape and seed.

Whatever runs a model feeds it from here: the timed worker (so numpy is all that is imported), the proof of parts, and
the stages of a plan.
"""

import hashlib
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from pepper.errors import ModelError, argument, key_of

Array = np.ndarray[Any, Any]

NUMPY_TYPES = {
    "float": "float32", "double": "float64", "float16": "float16", "bool": "bool", "string": "object",
    "int8": "int8", "int16": "int16", "int32": "int32", "int64": "int64",
    "uint8": "uint8", "uint16": "uint16", "uint32": "uint32", "uint64": "uint64",
}  # fmt: skip
"""Numpy's names of the ONNX element types that can be given and drawn."""

_MOST_BYTES = 2**31  # of a file's arrays: more is a mistake, or meant to fill the memory
_SHOWN = 16  # values of an input that are written out; of more, the hash stands for them


@dataclass(frozen=True)
class InputSpec:
    """An input as it is fed: a given value, or values drawn from a range.

    Attributes:
        name: The ONNX value name.
        dtype: The ONNX element type in lower case.
        shape: Its dimensions.
        low: Least value drawn; None is the type's usual range, see `draw`.
        high: Drawn values are below this.
        value: The given value, of this type and shape; None draws.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    low: float | None = None
    high: float | None = None
    value: Array | None = field(default=None, compare=False)

    def described(self) -> Any:
        """Return what decides its value besides the seed, JSON-able; None where that is its type and shape alone."""
        if self.value is not None:
            return _described(self.value)
        return None if self.low is None else {"low": self.low, "high": self.high}

    def draw(self, rng: "np.random.Generator") -> Array:
        """Return its value.

        Drawn floats lie in [0, 1), which is what square roots and logarithms take too; integers and booleans are 0 or
        1, which are valid as flags, masks, indices and lengths, and a single one is 1; text is ``a``.

        Raises:
            ModelError: Its type is none that pepper can make.
        """
        if self.value is not None:
            return self.value
        if self.dtype not in NUMPY_TYPES:
            raise ModelError(_unmade(self.name, self.dtype))
        dtype = np.dtype(NUMPY_TYPES[self.dtype])
        if dtype.kind == "O":
            return np.full(self.shape, "a", dtype=object)
        if dtype.kind == "f":
            low, high = (0.0, 1.0) if self.low is None or self.high is None else (self.low, self.high)
            return np.asarray(low + (high - low) * rng.random(self.shape)).astype(dtype)
        if self.low is None or self.high is None:
            single = np.prod(self.shape) == 1
            return np.asarray(np.ones(self.shape) if single else rng.integers(0, 2, self.shape)).astype(dtype)
        return np.asarray(rng.integers(int(self.low), int(self.high), self.shape, dtype)).astype(dtype)


def input_spec(name: str, dtype: str, shape: Sequence[int], given: Any = None, size: int | None = None) -> InputSpec:
    """Check a given value of an input, and say how the input is fed.

    Args:
        name: The ONNX value name.
        dtype: The ONNX element type in lower case.
        shape: Its dimensions.
        given: A number, text or truth value (it fills the whole input), a list or an array of the input's shape,
            ``{low: 0, high: 30000}`` to draw from; None draws from the usual range.
        size: Where the input's values are indices: what they index has this many places.

    Raises:
        ModelError: The value does not fit the input.
    """
    shape = tuple(shape)
    if dtype not in NUMPY_TYPES:
        if given is not None:
            raise ModelError(f"{key_of('model.inputs', name)}={_shown(given)}: {_unmade(name, dtype)}")
        return InputSpec(name, dtype, shape)
    if isinstance(given, Mapping):
        low, high = _range(name, dtype, given, size)
        return InputSpec(name, dtype, shape, low, high)
    if given is not None:
        return InputSpec(name, dtype, shape, value=_value(name, dtype, shape, given, size))
    if size is not None and np.dtype(NUMPY_TYPES[dtype]).kind in "iu":
        single = np.prod(shape) == 1 and size > 1
        return InputSpec(name, dtype, shape, int(single), 2 if single else max(size, 1))
    return InputSpec(name, dtype, shape)


def draw_inputs(specs: Sequence[InputSpec], seed: int) -> dict[str, Array]:
    """Return a value for each input by name; the same for the same seed."""
    rng = np.random.default_rng(seed)
    return {spec.name: spec.draw(rng) for spec in specs}


def drawn_hint(specs: Sequence[InputSpec]) -> str:
    """Return what to try where a model refuses its inputs: those that decide what happens cannot be guessed."""
    for spec in specs:
        if spec.value is None and spec.low is None and not spec.dtype.startswith(("float", "double")):
            fix = argument(key_of("model.inputs", spec.name), "...")
            return f"; the value of {spec.name!r} was drawn; if that is why, give {fix}"
    return ""


def packed(specs: Sequence[InputSpec]) -> tuple[list[dict[str, Any]], dict[str, Array]]:
    """Return inputs as JSON-able facts, and the given values by the place of their input."""
    facts = [{"name": s.name, "dtype": s.dtype, "shape": list(s.shape), "low": s.low, "high": s.high} for s in specs]
    values = {f"value_{place}": spec.value for place, spec in enumerate(specs) if spec.value is not None}
    # Text travels as characters of a fixed width: objects have no plain bytes.
    return facts, {key: value.astype(str) if value.dtype.hasobject else value for key, value in values.items()}


def unpacked(facts: Sequence[Mapping[str, Any]], values: Mapping[str, Array]) -> list[InputSpec]:
    """Return the inputs that `packed` took apart."""
    specs = []
    for place, fact in enumerate(facts):
        value = values.get(f"value_{place}")
        dtype = NUMPY_TYPES.get(fact["dtype"], "object")
        given = None if value is None else value.astype(dtype, copy=False)
        specs.append(InputSpec(**{**fact, "shape": tuple(fact["shape"])}, value=given))
    return specs


def read_arrays(file: Path) -> dict[str, Array]:
    """Return the arrays of an ``.npz`` file by name; nothing in it is ever unpickled.

    Raises:
        ValueError: It cannot be read, in one line.
    """
    try:
        if not file.is_file():
            raise ValueError("no such file" if not file.exists() else "it is no regular file")
        with file.open("rb") as stream:
            if stream.read(len(np.lib.format.MAGIC_PREFIX)) == np.lib.format.MAGIC_PREFIX:
                raise ValueError("it holds one array without a name")
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            if sum(entry.file_size for entry in entries) > _MOST_BYTES:
                raise ValueError(f"its arrays take more than {_MOST_BYTES >> 30} GiB")
            for entry in entries:
                with archive.open(entry) as stream:
                    _check_header(entry, stream)
        with np.load(file, allow_pickle=False) as loaded:
            return dict(loaded)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise ValueError(" ".join(str(getattr(error, "strerror", None) or error).split())) from error


def _check_header(entry: zipfile.ZipInfo, stream: Any) -> None:
    """Make sure that an array is as large as its header says, before memory is taken for it."""
    if not entry.filename.endswith(".npy"):
        raise ValueError(f"{entry.filename!r} is no array")
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    places = 1
    for size in shape:
        places *= size
    if not dtype.hasobject and stream.tell() + places * dtype.itemsize != entry.file_size:
        raise ValueError(f"{entry.filename!r} is damaged")


def _range(name: str, dtype: str, given: Mapping[Any, Any], size: int | None) -> tuple[float, float]:
    """Return the least value to draw, and the one below which drawn values stay."""
    key = f"{key_of('model.inputs', name)}={_shown(given)}"
    kind = np.dtype(NUMPY_TYPES[dtype])
    low, high = given.get("low", 0), given.get("high")
    if set(given) - {"low", "high"} or not (_is_number(low) and _is_number(high)):
        fix = argument(key_of("model.inputs", name), "{low: 0, high: 100}")
        raise ModelError(f"{key}: is no range; give two numbers, as {fix} does")
    if kind.kind not in "iuf":
        raise ModelError(f"{key}: the input is of type {dtype}, which has no ranges; give values")
    if low >= high:
        raise ModelError(f"{key}: is empty; high must be above low")
    if kind.kind == "f":
        if not np.isfinite([low, high]).all():
            raise ModelError(f"{key}: has no end; give finite numbers")
        return float(low), float(high)
    info = np.iinfo(kind)
    least, most = (info.min, info.max + 1) if size is None else (-size, size)
    if int(low) != low or int(high) != high or low < least or high > most:
        raise ModelError(f"{key}: must be whole numbers with low at least {least} and high at most {most}")
    return int(low), int(high)


def _value(name: str, dtype: str, shape: tuple[int, ...], given: Any, size: int | None) -> Array:
    """Return a given value in the input's type and shape."""
    key, wanted = f"{key_of('model.inputs', name)}={_shown(given)}", np.dtype(NUMPY_TYPES[dtype])
    try:
        array = np.asarray(given)
    except (ValueError, OverflowError) as error:  # lists of different lengths; numbers beyond all types
        raise ModelError(f"{key}: is no array; give numbers, or lists of one length each") from error
    if array.ndim and array.shape != shape:  # before memory is taken for another type
        raise ModelError(
            f"{key}: has the shape {list(array.shape)}, the input has {list(shape)}; give one value for all,"
            " or values of that shape"
        )
    if wanted.kind == "O":
        fits = array.size == 0 or array.dtype.kind in "UO"
        converted = array.astype(object)
        fits = fits and all(isinstance(item, str) for item in converted.flat)
    else:
        fits = array.dtype.kind in "biuf" or array.size == 0
        with np.errstate(all="ignore"):
            converted = array.astype(wanted) if fits else array
        # A float may be rounded, not become infinite; everything else keeps its value.
        same = np.isfinite(converted) == np.isfinite(array) if wanted.kind == "f" and fits else converted == array
        fits = fits and bool(np.all(same))
    if not fits:
        raise ModelError(f"{key}: does not fit the input's type {dtype}; give values of that type")
    if converted.ndim == 0:
        converted = np.full(shape, converted, dtype=wanted)
    if (
        size is not None
        and wanted.kind in "iu"
        and converted.size
        and not -size <= converted.min() <= converted.max() < size
    ):
        raise ModelError(f"{key}: are indices of {size} places; give values from 0 to {size - 1}")
    return np.ascontiguousarray(converted).reshape(shape)


def _unmade(name: str, dtype: str) -> str:
    return f"input {name!r} is of type {dtype}; pepper makes tensors of numbers, truth values and text"


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(given: Any) -> str:
    """Return a value as an error quotes it, its start if it is long."""
    text = " ".join(str(given.tolist() if isinstance(given, np.ndarray) and given.size <= _SHOWN else given).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def _described(value: Array) -> Any:
    """Return a value itself where it is small, else its shape and hash."""
    if value.size <= _SHOWN:
        return value.tolist()
    content = "\0".join(value.flat).encode() if value.dtype.hasobject else np.ascontiguousarray(value).tobytes()
    return {"shape": list(value.shape), "sha256": hashlib.sha256(content).hexdigest()}
