"""The graph that every other module of this room reads: operators and tensors, as plain values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx

from pepper.errors import ModelError, nearest

_BITS = {
    "bool": 8,
    "complex64": 64,
    "complex128": 128,
    "float": 32,
    "double": 64,
    "bfloat16": 16,
    "float16": 16,
    "float8e4m3fn": 8,
    "float8e4m3fnuz": 8,
    "float8e5m2": 8,
    "float8e5m2fnuz": 8,
    "float8e8m0": 8,
    "float4e2m1": 4,
    "float6e2m3": 6,
    "float6e3m2": 6,
} | {f"{sign}int{bits}": bits for sign in ("", "u") for bits in (2, 4, 8, 16, 32, 64)}


@dataclass(frozen=True, slots=True)
class Tensor:
    """A value of the graph.

    Attributes:
        id: Its index in ``Graph.tensors``.
        name: The ONNX value name.
        dtype: The ONNX element type in lower case, such as ``float``; of what is no tensor the whole type, such
            as ``seq(tensor(float))``; None if unknown.
        shape: The dimensions at the shapes that the graph was loaded with, or None if unknown.
        bytes: Its size in bytes, or None if the shape or type is unknown (or a string).
        is_weight: Whether it is an initializer or computed from constants only.
        producer: Index of the operator that writes it; None for an input or a weight.
        readers: Indices of the operators that read it, ascending, each once.
    """

    id: int
    name: str
    dtype: str | None
    shape: tuple[int, ...] | None
    bytes: int | None
    is_weight: bool
    producer: int | None
    readers: tuple[int, ...]

    @property
    def is_open(self) -> bool:
        """Whether its type is unknown, or it is a tensor and its shape is."""
        return self.shape is None and is_tensor(self.dtype)

    @property
    def can_cross(self) -> bool:
        """Whether it can be handed from one part to another: texts and what is no tensor cannot."""
        return is_tensor(self.dtype) and self.dtype != "string"


@dataclass(frozen=True, slots=True)
class Operator:
    """A node of the graph that computes something from the model's inputs.

    Attributes:
        index: Its index in ``Graph.operators``, a topological order.
        name: The node's name; ``Kind_index`` where the model gives none.
        kind: The operator type, such as ``Conv``.
        domain: The operator's domain; ``""`` is ``ai.onnx``.
        proto: The ONNX node.
        inputs: Tensor ids by position; None where an optional input is left out.
        captures: Ids of tensors that the bodies of If, Loop and Scan read from outside.
        outputs: Tensor ids by position; None where an optional output is left out.
    """

    index: int
    name: str
    kind: str
    domain: str
    proto: onnx.NodeProto
    inputs: tuple[int | None, ...]
    captures: tuple[int, ...]
    outputs: tuple[int | None, ...]

    @property
    def reads(self) -> list[int]:
        """Ids of every tensor read, weights too, each once, in order."""
        return [t for t in dict.fromkeys((*self.inputs, *self.captures)) if t is not None]

    @property
    def writes(self) -> list[int]:
        """Ids of the tensors written."""
        return [t for t in self.outputs if t is not None]


@dataclass(frozen=True, slots=True)
class Separator:
    """A tensor that alone connects two sides of the graph.

    Attributes:
        tensor: Its id.
        home: The operator that writes it; for an input, one that reads it.
        far: Its readers away from home, grouped by the component that they lie in.
        near: How many operators lie in the component of its home.
    """

    tensor: int
    home: int
    far: tuple[tuple[int, ...], ...]
    near: int


@dataclass(frozen=True)
class Graph:
    """An ONNX model as operators and tensors.

    Operators that compute weights from constants only, and operators whose results reach no output, are
    not among ``operators``: the first are in ``makers``, the second are left out.

    Attributes:
        file: Where the model was read from.
        proto: The model; external weights are not read.
        operators: The live operators in topological order.
        tensors: Every tensor that they read or write, and the model's inputs and outputs.
        inputs: Ids of the inputs that a caller feeds.
        outputs: Ids of the model's outputs.
        makers: The file's own node that computes each computed weight, by tensor name, in topological order;
            every other weight is an initializer. A Shape or Size of a tensor whose shape is fixed counts as
            one that computes a weight, though it reads an activation: its value is in ``constants``.
        constants: Values of small tensors that are known at these input shapes, by name: of every Shape and
            Size among ``makers``, and of what shape inference had to compute.
        types: The ONNX type of every tensor of the main graph that is known at these input shapes, by name.
        by_run: Names of tensors whose shape no rule gives: a run of the model showed it, or the file says it, and it
            may be another for other values of the inputs.
        fixed: Whether all shapes are fixed by the file or by the caller (not by a default), so that parts
            may hold them as constants.
        separators: The tensors at which the graph falls apart; see `pepper.graph.separators`.
        given: The values that the user gives for inputs, by name.
    """

    file: Path
    proto: onnx.ModelProto
    operators: Sequence[Operator]
    tensors: Sequence[Tensor]
    inputs: Sequence[int]
    outputs: Sequence[int]
    makers: Mapping[str, onnx.NodeProto]
    constants: Mapping[str, npt.NDArray[Any]]
    types: Mapping[str, onnx.TypeProto]
    by_run: frozenset[str]
    fixed: bool
    separators: Sequence[Separator] = ()
    given: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def by_name(self) -> dict[str, Tensor]:
        """Tensors by name."""
        return {tensor.name: tensor for tensor in self.tensors}

    def tensor(self, name: str) -> Tensor:
        """Return the tensor of that name.

        Raises:
            ModelError: There is none.
        """
        try:
            return self.by_name[name]
        except KeyError:
            hint = nearest(name, self.by_name)
            raise ModelError(f"{self.file}: no tensor named {name!r}{hint or '; check the name'}") from None

    def unknown_shapes(self) -> list[Tensor]:
        """Tensors in use that operators write and whose type or shape is unknown, in order."""
        outputs = set(self.outputs)
        return [t for t in self.tensors if t.producer is not None and t.is_open and (t.readers or t.id in outputs)]


def check_operators(graph: Graph) -> None:
    """Make sure that a model computes something from its inputs.

    Raises:
        ModelError: It has no operators.
    """
    if not graph.operators:
        raise ModelError(
            f"{graph.file}: has no operators: its outputs are inputs or constants, so there is nothing to predict or"
            " place; give a model that computes something"
        )


def is_tensor(dtype: str | None) -> bool:
    """Whether a type, as `Tensor.dtype` gives it, is that of a dense tensor, or unknown."""
    return dtype is None or "(" not in dtype


def size_bytes(dtype: str | None, shape: Sequence[int] | None) -> int | None:
    """Return the bytes of a dense tensor (sub-byte types are packed), or None if not known."""
    bits = _BITS.get(dtype or "")
    if bits is None or shape is None:
        return None
    elements = 1
    for dim in shape:
        elements *= dim
    return (elements * bits + 7) // 8
