"""Values of small tensors that follow from constants and known shapes, computed as they are asked for."""

import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx.reference import ReferenceEvaluator  # here: it looks at all operators, pepper's own must not be there yet

from pepper.graph.onnx_types import DTYPES, tensor_type
from pepper.graph.topology import bodies

Value = npt.NDArray[Any]

MOST_ELEMENTS = 4096
"""Larger tensors are not computed: they hold weights or activations, not shapes."""

_RANDOM = {
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
    "Multinomial",
    "Bernoulli",
}
_SHAPE_READERS = {"Shape", "Size"}
_STANDARD = ("", "ai.onnx")


def single(value: Value | None) -> Any:
    """Return the only element of a value; None if it is not known, or has none or several."""
    return value.item() if value is not None and value.size == 1 else None


class Folding:
    """Computes tensors on demand, each node at most once, with ONNX's reference implementation.

    Attributes:
        values: What has been computed, by name.
    """

    def __init__(
        self,
        nodes: Iterable[onnx.NodeProto],
        weights: Iterable[onnx.TensorProto],
        types: Mapping[str, onnx.TypeProto],
        opsets: Iterable[onnx.OperatorSetIdProto],
    ) -> None:
        """Prepare; ``types`` may grow while values are asked for.

        Args:
            nodes: The nodes of the graph.
            weights: Small initializers.
            types: Types by tensor name. Only a tensor of known type and at most `MOST_ELEMENTS` elements is
                computed, so nothing large is ever allocated.
            opsets: Operator sets of the model.
        """
        self.values: dict[str, Value] = {}
        self._types = types
        self._opsets = list(opsets)
        self._makers = {name: node for node in nodes for name in node.output if name}
        self._weights = {tensor.name: tensor for tensor in weights}
        self._hopeless: set[str] = set()

    def value(self, name: str) -> Value | None:
        """Return the tensor's value, or None if it depends on inputs, is random, large or of no standard operator."""
        if name in self.values or name in self._hopeless:
            return self.values.get(name)
        pending = [name]
        opened: set[str] = set()
        while pending:
            wanted = pending[-1]
            if wanted in self.values or wanted in self._hopeless or self._stored(wanted):
                pending.pop()
                continue
            node = self._makers.get(wanted)
            if node is None or not self._may_compute(node):
                self._hopeless.add(wanted)
                continue
            needs = [given for given in node.input if given and given not in self.values]
            if node.op_type in _SHAPE_READERS:
                needs = []
            if self._hopeless.intersection(needs):
                self._hopeless.update(filter(None, node.output))
            elif needs and wanted not in opened:
                opened.add(wanted)
                pending.extend(needs)
            elif needs:  # it waits for itself
                self._hopeless.add(wanted)
            else:
                self._compute(node)
        return self.values.get(name)

    def learn(self, name: str, value: Value | None) -> None:
        """Take a value that was found elsewhere, if there is one."""
        if name and value is not None:
            self.values[name] = value

    def _stored(self, name: str) -> bool:
        tensor = self._weights.get(name)
        if tensor is None or math.prod(tensor.dims) > MOST_ELEMENTS:
            return False
        if onnx.external_data_helper.uses_external_data(tensor):  # it lies beside a file that is not known here
            return False
        try:
            self.values[name] = onnx.numpy_helper.to_array(tensor)
        except (TypeError, ValueError):  # fewer bytes than its sizes say
            return False
        return True

    def _may_compute(self, node: onnx.NodeProto) -> bool:
        return (
            node.domain in _STANDARD
            and not bodies(node)
            and not is_random(node)
            and all(self._is_small(name) for name in node.output if name)
        )

    def _is_small(self, name: str) -> bool:
        dtype, shape = tensor_type(self._types.get(name))
        return dtype is not None and shape is not None and math.prod(shape) <= MOST_ELEMENTS

    def _compute(self, node: onnx.NodeProto) -> None:
        """Compute a node whose inputs are known; outputs that are not as their types say are left out."""
        results: Iterable[Any]
        if node.op_type in _SHAPE_READERS:
            results = [shape_value(node, self._types)]
        else:
            results = evaluate(node, self._opsets, {name: self.values[name] for name in node.input if name})
        for name, result in zip(node.output, results, strict=False):
            if name and isinstance(result, np.ndarray | np.generic) and self._fits(name, np.asarray(result)):
                self.values[name] = np.asarray(result)
        self._hopeless.update(name for name in node.output if name and name not in self.values)

    def _fits(self, name: str, value: Value) -> bool:
        dtype, shape = tensor_type(self._types.get(name))
        try:
            elem = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
        except (KeyError, ValueError):
            return False
        return DTYPES.get(elem) == dtype and value.shape == shape


def evaluate(node: onnx.NodeProto, opsets: Iterable[onnx.OperatorSetIdProto], inputs: Mapping[str, Value]) -> list[Any]:
    """Run one node with ONNX's reference implementation; an empty list if that cannot run it."""
    graph = onnx.GraphProto(name="one", node=[node])
    graph.input.extend(onnx.ValueInfoProto(name=name) for name in inputs)
    names = [name for name in node.output if name]
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    model = onnx.ModelProto(ir_version=10, graph=graph, opset_import=opsets)
    try:
        with np.errstate(all="ignore"):
            found = dict(zip(names, ReferenceEvaluator(model).run(None, dict(inputs)), strict=True))
    except Exception:  # the reference implementation raises whatever its NumPy code does
        return []
    return [found.get(name) for name in node.output]


def shape_value(node: onnx.NodeProto, types: Mapping[str, onnx.TypeProto]) -> npt.NDArray[np.int64] | None:
    """Return what a Shape or Size gives if its input's shape is known; None for every other node."""
    if node.op_type not in _SHAPE_READERS or node.domain not in _STANDARD:
        return None
    _, shape = tensor_type(types.get(node.input[0]))
    if shape is None:
        return None
    if node.op_type == "Size":
        return np.array(math.prod(shape), np.int64)
    bounds = {a.name: a.i for a in node.attribute}
    return np.array(shape[slice(bounds.get("start", 0), bounds.get("end"))], np.int64)


def is_random(node: onnx.NodeProto, functions: Collection[tuple[str, str]] = ()) -> bool:
    """Whether the node draws random numbers, itself, in a body, or by one of these functions."""
    drops = node.op_type == "Dropout" and len(node.input) > 2  # its third input turns training on
    return (
        (node.domain in _STANDARD and (node.op_type in _RANDOM or drops))
        or (node.domain, node.op_type) in functions
        or any(is_random(inner, functions) for graph in bodies(node) for inner in graph.node)
    )


def random_functions(proto: onnx.ModelProto) -> set[tuple[str, str]]:
    """Local functions that draw random numbers, themselves or through others."""
    random: set[tuple[str, str]] = set()
    while True:
        found = {
            (function.domain, function.name)
            for function in proto.functions
            if any(is_random(node, random) for node in function.node)
        }
        if found == random:
            return random
        random = found
