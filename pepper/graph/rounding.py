"""How far two computations of one model may lie apart, and which outputs tell nothing about that."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from pepper.graph.ir import Graph

Values = dict[str, Any]
"""Arrays by tensor name (lists of arrays for sequences)."""

Run = tuple[Values, Values]
"""Inputs, and what the whole makes of them."""

Level = Literal["none", "basic", "extended", "all"]
"""How far onnxruntime optimises."""

Opened = Callable[[Mapping[str, Any]], Values]
"""A loaded model: from inputs to outputs."""

Open = Callable[[Level], Opened]
"""Loads one model at an optimisation level."""

NO_NUMBER = "holds no finite number"
CONSTANT = "is the same whatever the input"
"""Why an output tells nothing about how it was computed."""

_OTHER_LEVELS: tuple[Level, ...] = ("none", "basic", "extended")
_MARGIN = 10  # parts round at other places than any form of the whole
_VAGUE = 0.1  # where more than this would have to be accepted, agreement means nothing
_EPSILONS = 64
_COARSE_FLOOR = 2e-2  # half precision has 11 bits and a quantised tensor 8: fusion decides where these are rounded
_COARSE = ("float16", "bfloat16", "float8", "float4", "float6", "int8", "uint8", "int4", "uint4", "int2", "uint2")
_EXACT = ("int", "uint", "bool", "string")
_SHAPE_READERS = {"Shape", "Size"}


def difference(expected: Any, got: Any) -> float:
    """Return how far a value is from what is expected, relative to the largest magnitude expected (at least 1e-6).

    For numbers with a fraction it is the largest difference of all elements. For integers and truth values, which jump
    where rounding tips a comparison, it is the mean. It is infinite if shapes, types or the places of NaN differ.
    """
    if isinstance(expected, list):
        if not isinstance(got, list) or len(expected) != len(got):
            return float("inf")
        return max((difference(a, b) for a, b in zip(expected, got, strict=True)), default=0.0)
    expected, got = np.asarray(expected), np.asarray(got)
    if expected.shape != got.shape or expected.dtype != got.dtype:
        return float("inf")
    if expected.dtype.kind not in "fiubc":
        return 0.0 if np.array_equal(expected, got) else float("inf")
    wide = np.result_type(expected.dtype, np.float64)
    a, b = expected.astype(wide), got.astype(wide)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    if same.all():
        return 0.0
    if not np.isfinite(a[~same]).all() or not np.isfinite(b[~same]).all():
        return float("inf")
    scale = np.abs(a[np.isfinite(a)]).max(initial=1e-6)
    far = np.abs(a[~same] - b[~same])
    return float((far.sum() / a.size if expected.dtype.kind in "iub" else far.max()) / scale)


def floors(graph: Graph, names: Iterable[str]) -> dict[str, float]:
    """Return the difference that rounding explains at any rate, by tensor.

    It is 64 times the rounding unit of single precision, 2e-2 where half-precision or 8-bit tensors flow, and nothing
    for the integers and truth values of other models.
    """
    coarse = any(_is_coarse(tensor.dtype) for tensor in graph.tensors if not tensor.is_weight)
    fine = _EPSILONS * float(np.finfo(np.float32).eps)
    found = {}
    for name in names:
        dtype = graph.by_name[name].dtype or "float"
        found[name] = _COARSE_FLOOR if coarse else 0.0 if dtype.startswith(_EXACT) else fine
    return found


def explained(runs: Sequence[Run], least: Mapping[str, float], form: Open) -> dict[str, float]:
    """Return the largest difference that rounding explains, by output, relative as in `difference`.

    It is ten times what the whole differs by from itself under onnxruntime's other optimisation levels, and what
    rounding explains at any rate.

    Args:
        runs: Inputs, each with the whole's outputs.
        least: What rounding explains at any rate, see `floors`.
        form: Loads the whole.

    Raises:
        ModelError: onnxruntime cannot run the model at another level.
    """
    noise = dict.fromkeys(least, 0.0)
    for level in _OTHER_LEVELS:
        whole = form(level)
        for inputs, expected in runs:
            again = whole(inputs)
            noise = {name: max(far, difference(expected[name], again[name])) for name, far in noise.items()}
    return {name: least[name] + _MARGIN * far for name, far in noise.items()}


def compare(
    runs: Sequence[Run], values: Sequence[Values], least: Mapping[str, float], tolerance: float | None, form: Open
) -> tuple[dict[str, float], dict[str, float]]:
    """Hold values to the whole's.

    Args:
        runs: Inputs, each with the whole's outputs.
        values: What is held to these.
        least: The outputs to compare, each with what rounding explains at any rate.
        tolerance: The difference accepted in every output; None is what rounding explains: the whole is only run at
            other levels where that matters.
        form: Loads the whole.

    Returns:
        The largest difference and the accepted one, by output.
    """
    far = {
        name: max(difference(run[name], got[name]) for (_, run), got in zip(runs, values, strict=True))
        for name in least
    }
    if tolerance is not None:
        return far, dict.fromkeys(least, tolerance)
    if all(far[name] <= least[name] for name in least):
        return far, dict(least)
    return far, explained(runs, least, form)


def too_vague(limits: Mapping[str, float], far: Mapping[str, float] | None = None) -> dict[str, str]:
    """Return the outputs for which so much would have to be accepted that agreement means nothing, with the reason.

    Args:
        limits: What is accepted, by output.
        far: The differences found: what agrees in every bit is not vague.
    """
    vague = (name for name, limit in limits.items() if limit > _VAGUE and (far is None or far[name]))
    return dict.fromkeys(vague, "differs from itself when the whole runs at another optimisation level")


def excess(far: float, accepted: float) -> float:
    """Return a difference as a multiple of the accepted one: above 1 it is none that rounding explains."""
    if not far:
        return 0.0
    return far / accepted if accepted else float("inf")


def untold(graph: Graph, draws: Sequence[Mapping[str, Any]], runs: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the outputs that tell nothing about how they were computed, by name, each with the reason.

    Args:
        graph: The model.
        draws: Its inputs by name, some times.
        runs: Its outputs on each.
    """
    inputs = [graph.tensors[t] for t in graph.inputs]
    fed = _depending(graph, {tensor.id for tensor in inputs})
    varied = _depending(graph, {t.id for t in inputs if varies([draw[t.name] for draw in draws])})
    reasons = {}
    for tensor in (graph.tensors[t] for t in graph.outputs):
        values = [run[tensor.name] for run in runs]
        if tensor.id in fed and not any(map(has_value, values)):
            reasons[tensor.name] = NO_NUMBER
        elif tensor.id in varied and not varies(values):
            reasons[tensor.name] = CONSTANT
    return reasons


def _is_coarse(dtype: str | None) -> bool:
    return dtype is not None and dtype.startswith(_COARSE)


def has_value(value: Any) -> bool:
    """Whether there is a finite number in it, or any value of another type."""
    if isinstance(value, list):
        return any(map(has_value, value))
    array = np.asarray(value)
    return bool(np.isfinite(array).any()) if array.dtype.kind in "fc" else array.size > 0


def varies(values: Sequence[Any]) -> bool:
    """Whether they are not all the same."""
    return any(difference(values[0], value) > 0 for value in values[1:])


def _depending(graph: Graph, inputs: set[int]) -> set[int]:
    """Tensors that depend on the values of these inputs, not on their shapes alone."""
    found = set(inputs)
    for operator in graph.operators:
        if operator.kind not in _SHAPE_READERS and not found.isdisjoint(operator.reads):
            found.update(operator.writes)
    return found
