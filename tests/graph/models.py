"""Small models of every kind that people have, with random weights, built on the spot."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LIGHT = Path(onnx.__file__).parent / "backend/test/data/light"
LIGHT_MODELS = sorted(LIGHT.glob("light_*.onnx"))

Value = onnx.ValueInfoProto


def value(name: str, shape: Sequence[int | str | None] | None, elem: int = TensorProto.FLOAT) -> Value:
    return helper.make_tensor_value_info(name, elem, shape)


@dataclass
class Builder:
    """Collects nodes and weights; names nothing that need not be named."""

    seed: int = 0
    prefix: str = ""
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)

    def op(self, kind: str, *inputs: str, outputs: int | Sequence[str] = 1, **attributes: Any) -> str:
        """Add a node; returns its first output's name."""
        if isinstance(outputs, int):
            outputs = [f"{self.prefix}{kind.lower()}_{len(self.nodes)}_{n}" for n in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), list(outputs), **attributes))
        return outputs[0]

    def constant(self, array: Any, dtype: Any = None) -> str:
        name = f"{self.prefix}w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(array, dtype), name))
        return name

    def weight(self, *shape: int) -> str:
        fan_in = int(np.prod(shape[1:])) or 1
        return self.constant(self.rng.standard_normal(shape) / np.sqrt(fan_in), np.float32)

    def conv(self, x: str, into: int, out: int, kernel: int = 3, stride: int = 1) -> str:
        pads = [kernel // 2] * 4
        return self.op("Conv", x, self.weight(out, into, kernel, kernel), strides=[stride] * 2, pads=pads)

    def conv_bn_relu(self, x: str, into: int, out: int, stride: int = 1) -> str:
        x = self.conv(x, into, out, stride=stride)
        ones = np.ones(out, np.float32)
        stats = [self.constant(a) for a in (ones, ones * 0.1, ones * 0.1, ones)]
        return self.op("Relu", self.op("BatchNormalization", x, *stats))

    def linear(self, x: str, into: int, out: int) -> str:
        return self.op("Add", self.op("MatMul", x, self.weight(into, out)), self.weight(out))

    def model(self, inputs: Sequence[Value], outputs: Sequence[Value], **extra: Any) -> onnx.ModelProto:
        opsets = extra.pop("opset_imports", [helper.make_opsetid("", 17)])
        graph = helper.make_graph(self.nodes, "g", list(inputs), list(outputs), self.weights)
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8, **extra)
        model.metadata_props.add(key="trained_on", value="noise")
        return model


def chain(length: int = 4, batch: int | str = 1) -> onnx.ModelProto:
    b = Builder()
    x = "x"
    for _ in range(length):
        x = b.conv_bn_relu(x, 3, 3)
    return b.model([value("x", [batch, 3, 8, 8])], [value(x, None)])


def unet() -> onnx.ModelProto:
    b = Builder()
    x = b.conv_bn_relu("x", 3, 4)
    skips = []
    for width in (4, 8):
        skips.append(x)
        x = b.conv_bn_relu(x, width, 2 * width, stride=2)
    for width in (8, 4):
        up = b.op("Resize", x, "", b.constant([1.0, 1.0, 2.0, 2.0], np.float32), mode="nearest")
        x = b.conv_bn_relu(b.op("Concat", up, skips.pop(), axis=1), 3 * width, width)
    b.conv(x, 4, 2, kernel=1)
    return b.model([value("x", [1, 3, 16, 16])], [value(b.nodes[-1].output[0], None)])


def transformer(layers: int = 2, length: int | str = 6, batch: int | str = 1) -> onnx.ModelProto:
    """Encoder whose mask every layer reads, in the style of exporters: shapes computed at run time."""
    width, heads = 16, 2
    b = Builder()
    mask = b.op("Cast", b.op("Unsqueeze", "mask", b.constant([1, 2], np.int64)), to=TensorProto.FLOAT)
    mask = b.op("Mul", b.op("Sub", b.constant(1.0, np.float32), mask), b.constant(-1e4, np.float32))
    x = b.op("Gather", b.weight(10, width), "ids")

    def norm(x: str) -> str:
        centred = b.op("Sub", x, b.op("ReduceMean", x, axes=[-1]))
        variance = b.op("ReduceMean", b.op("Pow", centred, b.constant(2.0, np.float32)), axes=[-1])
        root = b.op("Sqrt", b.op("Add", variance, b.constant(1e-5, np.float32)))
        return b.op("Add", b.op("Mul", b.op("Div", centred, root), b.weight(width)), b.weight(width))

    def split_heads(x: str, perm: list[int]) -> str:
        dims = [b.op("Gather", b.op("Shape", x), b.constant([axis], np.int64)) for axis in (0, 1)]
        shape = b.op("Concat", *dims, b.constant([heads, width // heads], np.int64), axis=0)
        return b.op("Transpose", b.op("Reshape", x, shape), perm=perm)

    for _ in range(layers):
        q, v = (split_heads(b.linear(x, width, width), [0, 2, 1, 3]) for _ in range(2))
        k = split_heads(b.linear(x, width, width), [0, 2, 3, 1])
        scores = b.op("Softmax", b.op("Add", b.op("MatMul", q, k), mask), axis=-1)
        joined = b.op("Transpose", b.op("MatMul", scores, v), perm=[0, 2, 1, 3])
        joined = b.op("Reshape", joined, b.constant([0, 0, width], np.int64))
        x = norm(b.op("Add", x, b.linear(joined, width, width)))
        hidden = b.linear(x, width, 2 * width)
        gelu = b.op("Erf", b.op("Div", hidden, b.constant(np.sqrt(2), np.float32)))
        gelu = b.op("Mul", hidden, b.op("Add", gelu, b.constant(1.0, np.float32)))
        hidden = b.op("Mul", gelu, b.constant(0.5, np.float32))
        x = norm(b.op("Add", x, b.linear(hidden, 2 * width, width)))
    shape = [batch, length]
    inputs = [value("ids", shape, TensorProto.INT64), value("mask", shape, TensorProto.INT64)]
    return b.model(inputs, [value(x, None)])


def two_tower() -> onnx.ModelProto:
    b = Builder()
    towers = []
    for name, depth in (("query", 2), ("item", 3)):
        x = name
        for _ in range(depth):
            x = b.op("Relu", b.linear(x, 8, 8))
        towers.append(x)
    score = b.op("ReduceSum", b.op("Mul", *towers), b.constant([1], np.int64), outputs=["score"])
    return b.model([value("query", [2, 8]), value("item", [2, 8])], [value(score, None)])


def control_flow() -> onnx.ModelProto:
    """An If and a Loop whose bodies read a tensor and a weight from outside, behind a chain."""
    b = Builder()
    x = b.op("Relu", b.linear("x", 4, 4))
    late = b.op("Tanh", b.linear(x, 4, 4))
    scale = b.weight(4)
    branches = {}
    for branch, kind in (("then_branch", "Mul"), ("else_branch", "Add")):
        inner = Builder(prefix=branch)
        out = inner.op(kind, late, scale)
        branches[branch] = helper.make_graph(inner.nodes, branch, [], [value(out, [2, 4])])
    chosen = b.op("If", "flag", **branches)
    body = Builder(prefix="body_")
    body.op("Add", "carried", x, outputs=["next"])
    body.op("Identity", "going", outputs=["still"])
    loop = helper.make_graph(
        body.nodes,
        "body",
        [value("i", [], TensorProto.INT64), value("going", [], TensorProto.BOOL), value("carried", [2, 4])],
        [value("still", [], TensorProto.BOOL), value("next", [2, 4])],
    )
    repeated = b.op("Loop", b.constant(3, np.int64), b.constant(True, bool), chosen, body=loop)
    y = b.op("Relu", b.linear(repeated, 4, 4))
    return b.model([value("x", [2, 4]), value("flag", [], TensorProto.BOOL)], [value(y, None)])


def two_rates() -> onnx.ModelProto:
    """A branch for each sampling rate, as speech models hold them: at sizes that fit one, the other could not run."""

    def branch(name: str, width: int) -> onnx.GraphProto:
        inner = Builder(prefix=name)
        z = inner.op("MatMul", "x", inner.weight(width, 4))
        return helper.make_graph(inner.nodes, name, [], [value(z, None)], inner.weights)

    b = Builder()
    is_wide = b.op("Equal", "rate", b.constant(16000, np.int64))
    y = b.op("If", is_wide, then_branch=branch("wide", 6), else_branch=branch("narrow", 8))
    return b.model([value("x", ["n", "k"]), value("rate", [], TensorProto.INT64)], [value(y, None)])


def scan() -> onnx.ModelProto:
    b = Builder()
    x = b.op("Relu", b.linear("x", 4, 4))
    body = Builder(prefix="body_")
    total = body.op("Add", "state", "item", outputs=["total"])
    body.op("Identity", total, outputs=["copy"])
    graph = helper.make_graph(
        body.nodes,
        "body",
        [value("state", [4]), value("item", [4])],
        [value("total", [4]), value("copy", [4])],
    )
    b.op("Scan", b.constant(np.zeros(4), np.float32), x, outputs=["last", "all"], body=graph, num_scan_inputs=1)
    y = b.op("Tanh", b.linear("all", 4, 4))
    return b.model([value("x", [3, 4])], [value("last", None), value(y, None)])


def shared_embedding() -> onnx.ModelProto:
    """The table that looks tokens up at the start scores them at the end."""
    b = Builder()
    table = b.weight(10, 8)
    x = b.op("Gather", table, "ids")
    for _ in range(3):
        x = b.op("Relu", b.linear(x, 8, 8))
    logits = b.op("MatMul", x, b.op("Transpose", table, perm=[1, 0]))
    return b.model([value("ids", [1, 5], TensorProto.INT64)], [value(logits, None)])


def quantized() -> onnx.ModelProto:
    """QDQ: activations and weights quantised around each convolution."""
    b = Builder()
    scale, zero = b.constant(0.05, np.float32), b.constant(0, np.int8)
    x = "x"
    for _ in range(3):
        x = b.op("DequantizeLinear", b.op("QuantizeLinear", x, scale, zero), scale, zero)
        raw = b.constant(b.rng.integers(-20, 20, (3, 3, 3, 3)), np.int8)
        weight = b.op("DequantizeLinear", raw, b.constant(0.01, np.float32), zero)
        x = b.op("Relu", b.op("Conv", x, weight, pads=[1, 1, 1, 1]))
    model = b.model([value("x", [1, 3, 8, 8])], [value(x, None)])
    note = model.graph.quantization_annotation.add(tensor_name=b.nodes[0].output[0])
    note.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value=scale)
    return model


def integer_operators() -> onnx.ModelProto:
    """Operator-level int8: QLinearConv, DynamicQuantizeLinear + MatMulInteger."""
    b = Builder()
    scale, zero = b.constant(0.05, np.float32), b.constant(128, np.uint8)
    x = b.op("QuantizeLinear", "x", scale, zero)
    for _ in range(2):
        weight = b.constant(b.rng.integers(100, 150, (3, 3, 3, 3)), np.uint8)
        x = b.op("QLinearConv", x, scale, zero, weight, scale, zero, scale, zero, pads=[1, 1, 1, 1])
    x = b.op("Flatten", b.op("DequantizeLinear", x, scale, zero))
    b.op("DynamicQuantizeLinear", x, outputs=["q", "q_scale", "q_zero"])
    weight = b.constant(b.rng.integers(100, 150, (192, 4)), np.uint8)
    product = b.op("Cast", b.op("MatMulInteger", "q", weight, "q_zero", zero), to=TensorProto.FLOAT)
    y = b.op("Mul", product, b.op("Mul", "q_scale", scale))
    return b.model([value("x", [1, 3, 8, 8])], [value(y, None)])


def detector() -> onnx.ModelProto:
    """Two heads on a backbone, whose feature map is an output too; one head is early."""
    b = Builder()
    x = b.conv_bn_relu("x", 3, 4)
    x = b.op("Relu", b.conv(x, 4, 4), outputs=["features"])
    boxes = b.op("Sigmoid", b.conv(b.conv_bn_relu(x, 4, 4), 4, 4), outputs=["boxes"])
    for _ in range(2):
        x = b.conv_bn_relu(x, 4, 4)
    scores = b.op("Softmax", b.conv(x, 4, 2), axis=1, outputs=["scores"])
    return b.model([value("x", [1, 3, 8, 8])], [value(name, None) for name in (boxes, "features", scores)])


def late_input() -> onnx.ModelProto:
    b = Builder()
    x = b.op("Relu", b.linear("x", 4, 4))
    x = b.op("Relu", b.linear(x, 4, 4))
    late = b.op("Tanh", "late")
    b.nodes.insert(0, b.nodes.pop())  # first in the file, read last
    y = b.op("Relu", b.linear(b.op("Add", late, x), 4, 4))
    return b.model([value("x", [2, 4]), value("late", [2, 4])], [value(y, None)])


def local_functions() -> onnx.ModelProto:
    b = Builder()
    x = "x"
    for _ in range(3):
        x = b.op("Block", b.linear(x, 4, 4), domain="mine")
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    half = helper.make_function(
        "mine",
        "Half",
        ["a"],
        ["b"],
        [
            helper.make_node("Constant", [], ["h"], value_float=0.5),
            helper.make_node("Mul", ["a", "h"], ["b"]),
        ],
        opsets[:1],
    )
    block = helper.make_function(
        "mine",
        "Block",
        ["a"],
        ["c"],
        [helper.make_node("Relu", ["a"], ["r"]), helper.make_node("Half", ["r"], ["c"], domain="mine")],
        opsets,
    )
    return b.model([value("x", [2, 4])], [value(x, None)], functions=[half, block], opset_imports=opsets)


def microsoft() -> onnx.ModelProto:
    """Operators of com.microsoft, as an optimised transformer has them."""
    b = Builder()
    ms = {"domain": "com.microsoft"}
    x = "x"
    for _ in range(2):
        hidden = b.op("FusedMatMul", x, b.weight(16, 8), transB=1, **ms)
        hidden = b.op("BiasGelu", hidden, b.weight(16), **ms)
        back = b.op("MatMul", hidden, b.weight(16, 8))
        x = b.op("SkipLayerNormalization", back, x, b.weight(8), b.weight(8), **ms)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return b.model([value("x", [1, 5, 8])], [value(x, None)], opset_imports=opsets)


def unranked() -> onnx.ModelProto:
    """Shapes that no rule tells: of an operator of com.microsoft behind a dynamic dimension, and of a Reshape to a
    shape that is fed; the file says that of the output."""
    b = Builder()
    x = b.op("FusedMatMul", "x", b.weight(8, 4), domain="com.microsoft")
    x = b.op("Abs", b.op("Reshape", b.op("Relu", x), "to"))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    inputs = [value("x", ["n", 8]), value("to", [2], TensorProto.INT64)]
    return b.model(inputs, [value(x, ["p", "q"])], opset_imports=opsets)


def affine_grid() -> onnx.ModelProto:
    """A Range whose length comes out of an If that looks at the size of an input: what onnxruntime takes as long as
    it cannot tell the branch beforehand."""
    b = Builder()
    whole = helper.make_node("Split", ["size"], ["n", "w"], num_outputs=2)
    then = helper.make_graph(
        [whole], "t", [], [value("n", None, TensorProto.INT64), value("w", None, TensorProto.INT64)]
    )
    parts = helper.make_node("Split", ["size"], ["a", "b", "c"], num_outputs=3)
    other = helper.make_graph(
        [parts], "e", [], [value("a", None, TensorProto.INT64), value("c", None, TensorProto.INT64)]
    )
    flat = b.op("Equal", b.op("Size", "size"), b.constant(2, np.int64))
    b.op("If", flat, outputs=["rows", "columns"], then_branch=then, else_branch=other)
    steps = b.op("Range", b.constant(0, np.int64), "columns", b.constant(1, np.int64))
    x = b.op("Add", "x", b.op("Cast", steps, to=TensorProto.FLOAT))
    inputs = [value("x", [2, 5]), value("size", [2], TensorProto.INT64)]
    return b.model(inputs, [value(b.op("Relu", x), [2, 5])], opset_imports=[helper.make_opsetid("", 18)])


def odd_weights() -> onnx.ModelProto:
    """An old model: weights listed as inputs, one unused; ConstantOfShape, Identity chain, Constant; a dead
    branch; a random operator; outputs that are an input and a weight."""
    b = Builder()
    x = b.linear("x", 4, 4)
    made = b.op("ConstantOfShape", b.constant([4], np.int64), value=helper.make_tensor("v", 1, [1], [0.5]))
    x = b.op("Relu", b.op("Mul", x, b.op("Identity", b.op("Identity", made))))
    b.op("Tanh", b.op("Exp", x), outputs=["dead"])
    x = b.op("Add", x, b.op("Constant", value=numpy_helper.from_array(np.ones(4, np.float32))))
    zero = b.op("Mul", b.op("RandomNormal", shape=[4]), b.constant(0.0, np.float32))
    x = b.op("Relu", b.op("Add", x, zero))
    unused, first = b.weight(3, 3), b.weights[0]
    return b.model(
        [value("x", [2, 4]), value(first.name, list(first.dims)), value(unused, [3, 3])],
        [value(x, None), value(first.name, list(first.dims))],
    )


def computed_shapes(opset: int = 17) -> onnx.ModelProto:
    """Reshape, Slice, Tile, Expand and Resize by sizes that operators of every kind compute from [2, 12, 8]."""
    b = Builder()

    def integers(*values: int) -> str:
        return b.constant(np.array(values), np.int64)

    def unsqueezed(x: str) -> str:
        return b.op("Unsqueeze", x, integers(0)) if opset >= 13 else b.op("Unsqueeze", x, axes=[0])

    x = b.op("Relu", "x")
    shape = b.op("Shape", x)
    rows, channels, width = (b.op("Gather", shape, b.constant(axis, np.int64), axis=0) for axis in range(3))
    flat = b.op("Concat", unsqueezed(rows), unsqueezed(b.op("Mul", channels, width)), axis=0)
    x = b.op("Reshape", x, flat)  # [2, 96]
    half = b.op("Cast", b.op("Floor", b.op("Div", b.op("Cast", width, to=1), b.constant(2.0, np.float32))), to=7)
    ones = b.op("ConstantOfShape", integers(3), value=helper.make_tensor("v", TensorProto.INT64, [1], [1]))
    is_two = b.op("Equal", shape, b.op("Expand", integers(2), integers(3)))
    chosen = b.op("Where", is_two, ones, shape)  # [1, 12, 8]
    total = b.op("ReduceProd", chosen, keepdims=0)
    again = b.op("Concat", integers(-1), unsqueezed(b.op("Sub", b.op("Add", total, half), half)), axis=0)
    x = b.op("Reshape", x, again)  # [2, 96]
    steps = b.op("Range", b.constant(0, np.int64), half, b.constant(1, np.int64))  # 0, 1, 2, 3
    x = b.op("Gather", x, steps, axis=1)  # [2, 4]
    last = b.op("Slice", b.op("Shape", x), integers(1), integers(2), integers(0))
    x = b.op("Tile", x, b.op("Concat", last, integers(3), axis=0))  # [8, 12]
    x = b.op("Add", x, b.op("MatMul", x, b.weight(12, 12)))
    return b.model(
        [value("x", [2, 12, 8])],
        [value(x, [None, None])],
        opset_imports=[helper.make_opsetid("", opset)],
    )


MODELS: dict[str, Callable[[], onnx.ModelProto]] = {
    function.__name__: function
    for function in (
        chain,
        unet,
        transformer,
        two_tower,
        control_flow,
        scan,
        shared_embedding,
        quantized,
        integer_operators,
        detector,
        late_input,
        local_functions,
        microsoft,
        odd_weights,
        computed_shapes,
    )
}


def save(model: onnx.ModelProto, file: Path, external: bool = False) -> Path:
    """Write the model; ``external`` puts every weight into a file beside it."""
    onnx.save_model(model, str(file), save_as_external_data=external, location=f"{file.name}.data", size_threshold=0)
    return file
