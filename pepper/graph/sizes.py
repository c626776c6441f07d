"""A fixed size for each dimension of a model's inputs: given by the user, or said by the model."""

import math
from collections.abc import Mapping, Sequence

from pepper.errors import ModelError, argument, key_of, nearest
from pepper.graph.ir import is_tensor
from pepper.graph.source import TensorSpec

MOST_ELEMENTS = 2**27
"""Larger inputs are refused: a file may say any size, and inputs are drawn in memory."""

_Bound = dict[str, tuple[int, str]]
"""Sizes by symbolic dimension, each with the setting that gives it."""


def concrete_shapes(
    inputs: Sequence[TensorSpec],
    shapes: Mapping[str, Sequence[int]],
    dims: Mapping[str, int],
    batch: int | None,
) -> dict[str, list[int]]:
    """Give every input that is a tensor a fixed shape.

    A symbolic dimension has one size wherever it occurs: given by name, or by the shape of any input. A dynamic
    *first* dimension left over is the batch and defaults to 1, and its symbol stands for the batch in other inputs
    too. Any other dynamic dimension must be given.

    Args:
        inputs: The model's inputs.
        shapes: Whole shapes by input name (``model.shapes.NAME``).
        dims: Sizes by symbolic dimension name (``model.dims.NAME``).
        batch: Size of a dynamic first dimension (``model.batch``); None means 1.

    Raises:
        ModelError: A dimension has no value or two of them, or a given one contradicts the model, or an input is
            larger than `MOST_ELEMENTS`.
    """
    _check_names(inputs, shapes, dims)
    bound = _bound(inputs, shapes, dims)
    _check_batch(inputs, shapes, bound, batch)
    for spec in _batched(inputs, shapes, bound):
        if isinstance(symbol := (spec.shape or (None,))[0], str):
            bound[symbol] = (1 if batch is None else batch, f"model.batch={batch}")
    result = {}
    for spec in inputs:
        if spec.name in shapes:
            result[spec.name] = list(shapes[spec.name])
        elif is_tensor(spec.dtype):
            result[spec.name] = _shape(spec, bound, batch)
        if math.prod(result.get(spec.name, ())) > MOST_ELEMENTS:
            raise ModelError(
                f"input {spec.name!r}: {result[spec.name]} has more than {MOST_ELEMENTS:,} elements, the most that"
                " pepper feeds; give smaller sizes, or export the model with a smaller input"
            )
    return result


def batch_is_assumed(
    inputs: Sequence[TensorSpec],
    shapes: Mapping[str, Sequence[int]],
    dims: Mapping[str, int],
    batch: int | None,
) -> bool:
    """Whether a size of `concrete_shapes` is the default batch of 1, said by neither the user nor the model."""
    return batch is None and bool(_batched(inputs, shapes, _bound(inputs, shapes, dims)))


def _check_names(inputs: Sequence[TensorSpec], shapes: Mapping[str, Sequence[int]], dims: Mapping[str, int]) -> None:
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


def _bound(inputs: Sequence[TensorSpec], shapes: Mapping[str, Sequence[int]], dims: Mapping[str, int]) -> _Bound:
    """Sizes of the symbolic dimensions that the user gives."""
    bound = {name: (size, f"{key_of('model.dims', name)}={size}") for name, size in dims.items()}
    for spec in inputs:
        if spec.name not in shapes:
            continue
        said = f"{key_of('model.shapes', spec.name)}={list(shapes[spec.name])}"
        _check_shape(spec, shapes[spec.name], said)
        for size, dim in zip(shapes[spec.name], spec.shape or (), strict=False):
            if isinstance(dim, str):
                other, before = bound.setdefault(dim, (size, said))
                if other != size:
                    both = said if before == said else f"{before} and {said}"
                    raise ModelError(
                        f"{both}: two sizes, {other} and {size}, for the one dimension {dim!r}; make them equal"
                    )
    return bound


def _check_shape(spec: TensorSpec, shape: Sequence[int], said: str) -> None:
    if not is_tensor(spec.dtype):
        raise ModelError(f"{said}: the input is of type {spec.dtype}, which has no shape; drop it")
    known = (None,) * len(shape) if spec.shape is None else spec.shape
    fits = len(shape) == len(known) and all(
        given >= 0 and (not isinstance(fixed, int) or fixed == given) for given, fixed in zip(shape, known, strict=True)
    )
    if not fits:
        wanted = ", ".join("?" if dim is None else str(dim) for dim in known)
        raise ModelError(f"{said}: the model wants [{wanted}]; give a shape that fits")


def _batched(inputs: Sequence[TensorSpec], shapes: Mapping[str, Sequence[int]], bound: _Bound) -> list[TensorSpec]:
    """The inputs whose first dimension is left to the batch."""
    return [
        spec
        for spec in inputs
        if spec.name not in shapes and spec.shape and not isinstance(spec.shape[0], int) and spec.shape[0] not in bound
    ]


def _check_batch(
    inputs: Sequence[TensorSpec], shapes: Mapping[str, Sequence[int]], bound: _Bound, batch: int | None
) -> None:
    """Make sure that a batch that is given is one of some input."""
    if batch is None:
        return
    for spec in inputs:
        if spec.name not in shapes and spec.shape and len(spec.shape) > 1:
            first = spec.shape[0]
            if isinstance(first, int) and first != batch:
                raise ModelError(
                    f"model.batch={batch}: input {spec.name!r} has a fixed first dimension of {first}; drop it"
                )
    if _batched(inputs, shapes, bound):
        return
    sizes = {spec.name: _given_first(spec, shapes, bound) for spec in inputs}
    others = [(name, *given) for name, given in sizes.items() if given is not None]
    if others and all(size != batch for _, size, _ in others):
        name, size, said = others[0]
        raise ModelError(
            f"model.batch={batch} and {said}: two sizes, {batch} and {size}, for the first dimension of {name!r};"
            " drop one of them"
        )


def _given_first(spec: TensorSpec, shapes: Mapping[str, Sequence[int]], bound: _Bound) -> tuple[int, str] | None:
    """The size that the user gives of an input's first dimension, and how."""
    if spec.name in shapes:
        shape = list(shapes[spec.name])
        return (shape[0], f"{key_of('model.shapes', spec.name)}={shape}") if shape else None
    first = spec.shape[0] if spec.shape else None
    return bound[first] if isinstance(first, str) and first in bound else None


def _shape(spec: TensorSpec, bound: _Bound, batch: int | None) -> list[int]:
    if spec.shape is None:
        fix = argument(key_of("model.shapes", spec.name), "[...]")
        raise ModelError(f"input {spec.name!r}: the model does not say its shape; give {fix}")
    sizes = []
    for axis, dim in enumerate(spec.shape):
        if isinstance(dim, int):
            sizes.append(dim)
        elif dim in bound:
            sizes.append(bound[dim][0])
        elif axis == 0:
            sizes.append(1 if batch is None else batch)
        else:
            fix = f"{argument(key_of('model.dims', dim), 'N')} or " if dim else ""
            raise ModelError(
                f"input {spec.name!r}: dimension {axis} ({dim or 'unnamed'}) is dynamic and has no value;"
                f" give {fix}{argument(key_of('model.shapes', spec.name), '[...]')}"
            )
    return sizes
