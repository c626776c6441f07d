"""The same architectures in less than single precision, as quantisers and converters write them."""

from collections.abc import Sequence
from typing import Any

from onnx import ModelProto, NodeProto, TensorProto, helper

_SCALE = 0.02
_PRODUCTS = ("Conv", "Gemm", "MatMul")
_QUANTIZED = (*_PRODUCTS, "AveragePool", "GlobalAveragePool", "MaxPool")
_FLOAT, _HALF = TensorProto.FLOAT, TensorProto.FLOAT16


def qdq(model: ModelProto) -> ModelProto:
    """Put QuantizeLinear and DequantizeLinear around what has a form of 8 bits ("QDQ" format)."""
    writing = _Writing(model)
    for node in writing.before:
        kind, inputs = node.op_type, list(node.input)
        sums = kind == "Add" and not any(name in writing.weights for name in inputs)
        if kind in _QUANTIZED or sums:
            inputs = [writing.dequantized(name) for name in inputs]
        else:
            inputs = [writing.made.get(name, name) for name in inputs]
        writing.copy(node, inputs)
        readers = [reader.op_type for reader in writing.readers.get(node.output[0], ())]
        if (kind in _PRODUCTS or sums) and readers and readers != ["Relu"]:
            writing.dequantized(node.output[0])
    return writing.done()


def integers(model: ModelProto) -> ModelProto:
    """Write integer operators: convolutions with scales that are known, products with such that each inference finds
    ("QOperator" format, and dynamic quantisation)."""
    writing = _Writing(model)
    for node in writing.before:
        kind, first, output = node.op_type, node.input[0], node.output[0]
        known = writing.made
        if kind == "Conv":
            given = [writing.quantized(first), "scale", "zero", writing.integer_weight(node.input[1])]
            given += ["scale", "zero_weight", "scale", "zero"]
            known[output] = writing.copy(node, given, f"{output}_quantized", "QLinearConv")
        elif kind == "Relu" and first in known:  # 0 is the least that its integers tell
            known[output] = known[first]
        elif kind == "MaxPool" and first in known:
            known[output] = writing.copy(node, [known[first]], f"{output}_quantized")
        elif kind in _PRODUCTS and node.input[1] in writing.weights:
            product = writing.dynamic_product(writing.number(first), node)
            if kind == "Gemm":
                writing.add("Add", [product, node.input[2]], output)
        else:
            writing.copy(node, [writing.number(name) for name in node.input])
    for value in model.graph.output:
        writing.number(value.name)
    return writing.done()


def half(model: ModelProto) -> ModelProto:
    """Write all in half precision, inputs and outputs too."""
    graph = model.graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name == "value" and attribute.t.data_type == _FLOAT:
                attribute.t.CopyFrom(helper.make_tensor("value", _HALF, [1], attribute.t.float_data))
            elif attribute.name == "to" and attribute.i == _FLOAT:
                attribute.i = _HALF
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type == _FLOAT:
            value.type.tensor_type.elem_type = _HALF
    return model


class _Writing:
    """A model in the making, of the operators of another one.

    Attributes:
        before: The other one's operators, without normalizations: quantisers work them into the weights first.
        weights: The operators that fill its weights, by weight.
        readers: What reads a tensor.
        made: What stands for a tensor: what was dequantized, or integers.
    """

    def __init__(self, model: ModelProto) -> None:
        self._model, self._nodes = model, list[NodeProto]()
        self._written = {value.name for value in model.graph.input}
        self.before: list[NodeProto] = []
        self.weights: dict[str, NodeProto] = {}
        self.readers: dict[str, list[NodeProto]] = {}
        self.made: dict[str, str] = {}
        renamed: dict[str, str] = {}
        for node in model.graph.node:
            node.input[:] = [renamed.get(name, name) for name in node.input]
            if node.op_type == "BatchNormalization":
                renamed[node.output[0]] = node.input[0]
            elif node.op_type == "ConstantOfShape":
                self.weights[node.output[0]] = node
            else:
                self.before.append(node)
                for name in node.input:
                    self.readers.setdefault(name, []).append(node)

    def done(self) -> ModelProto:
        """Return what was made."""
        graph = self._model.graph
        used = {name for node in self._nodes for name in node.input}
        kept = [node for name, node in self.weights.items() if name in used]
        del graph.node[:]
        graph.node.extend((*kept, *self._nodes))
        for name, elem, value in (
            ("scale", _FLOAT, _SCALE),
            ("zero", TensorProto.UINT8, 0),
            ("zero_weight", TensorProto.INT8, 0),
        ):
            if name in used:
                graph.initializer.append(helper.make_tensor(name, elem, [], [value]))
        return self._model

    def add(self, kind: str, inputs: Sequence[str], *outputs: str, **attributes: Any) -> str:
        """Add an operator; return its first output."""
        self._nodes.append(helper.make_node(kind, list(inputs), list(outputs), outputs[0], **attributes))
        self._written.update(outputs)
        return outputs[0]

    def copy(self, node: NodeProto, inputs: Sequence[str], output: str = "", kind: str = "") -> str:
        """Add an operator like another, on other inputs."""
        copied = NodeProto()
        copied.CopyFrom(node)
        copied.input[:] = inputs
        copied.op_type = kind or node.op_type
        if output:
            copied.output[:], copied.name = [output], output
        self._nodes.append(copied)
        self._written.update(copied.output)
        return str(copied.output[0])

    def integer_weight(self, name: str, shape: str = "") -> str:
        """Return a weight in 8 bits, of its own shape or that which a tensor names."""
        output = f"{name}_int8"
        if output not in self._written:
            value = helper.make_tensor("value", TensorProto.INT8, [1], [1])
            self.add("ConstantOfShape", [shape or self.weights[name].input[0]], output, value=value)
        return output

    def dequantized(self, name: str) -> str:
        """Return what 8 bits leave of a tensor, in single precision."""
        if name not in self.made:
            weight = name in self.weights
            scales = ["scale", "zero_weight" if weight else "zero"]
            small = self.integer_weight(name) if weight else f"{name}_quantized"
            if not weight:
                self.add("QuantizeLinear", [name, *scales], small)
            self.made[name] = self.add("DequantizeLinear", [small, *scales], f"{name}_dequantized")
        return self.made[name]

    def quantized(self, name: str) -> str:
        """Return a tensor's integers."""
        if name not in self.made:
            self.made[name] = self.add("QuantizeLinear", [name, "scale", "zero"], f"{name}_quantized")
        return self.made[name]

    def number(self, name: str) -> str:
        """Return a tensor in single precision."""
        if name in self.made and name not in self._written:
            self.add("DequantizeLinear", [self.made[name], "scale", "zero"], name)
        return name

    def dynamic_product(self, name: str, node: NodeProto) -> str:
        """Multiply by a weight of 8 bits, the other operand's scale found on the way."""
        output = node.output[0] if node.op_type == "MatMul" else f"{node.output[0]}_product"
        parts = [f"{output}_{part}" for part in ("integers", "input_scale", "input_zero")]
        self.add("DynamicQuantizeLinear", [name], *parts)
        shape = "" if node.op_type == "MatMul" else self._turned(self.weights[node.input[1]].input[0])
        weight = self.integer_weight(node.input[1], shape)
        self.add("MatMulInteger", [parts[0], weight, parts[2], "zero_weight"], f"{output}_sums")
        self.add("Cast", [f"{output}_sums"], f"{output}_cast", to=_FLOAT)
        self.add("Mul", [parts[1], "scale"], f"{output}_scale")
        return self.add("Mul", [f"{output}_cast", f"{output}_scale"], output)

    def _turned(self, shape: str) -> str:
        """Return the name of a matrix's shape the other way round."""
        graph, name = self._model.graph, f"{shape}_turned"
        sizes = {each.name: list(each.int64_data) for each in graph.initializer}
        if name not in sizes:
            graph.initializer.append(helper.make_tensor(name, TensorProto.INT64, [2], sizes[shape][::-1]))
        return name
