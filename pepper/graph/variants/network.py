"""Building blocks of generated architectures: one model in the making, and the layers that are added to it."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

_HEADS = ((0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3))
"""How queries, keys and values are transposed, with the heads in front."""


class Architecture:
    """One model in the making; follows the shape of its last tensor, without the batch of 1.

    Attributes:
        last: Name of the last tensor.
        shape: Channels and sides; or tokens and width.
        macs: Multiply-accumulates so far.

    Args:
        shape: Of the first input.
        elem: Its type.
    """

    def __init__(self, shape: Sequence[int], elem: int = TensorProto.FLOAT) -> None:
        self.last, self.shape, self.macs = "input", tuple(shape), 0
        self._inputs = [helper.make_tensor_value_info("input", elem, [1, *shape])]
        self._outputs: list[ValueInfoProto] = []
        self._nodes: list[NodeProto] = []
        self._initializers: dict[str, TensorProto] = {}

    def model(self, name: str) -> ModelProto:
        """Return what was built; the last tensor is its first output."""
        last = helper.make_tensor_value_info(self.last, TensorProto.FLOAT, [1, *self.shape])
        ends = (self._inputs, [last, *self._outputs])
        graph = helper.make_graph(self._nodes, name, *ends, list(self._initializers.values()))
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)

    def add(self, kind: str, *inputs: str, shape: Sequence[int] | None = None, **attributes: Any) -> str:
        """Add an operator on the given tensors (the last one by default)."""
        name = f"{kind.lower()}{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs or [self.last]), [name], name, **attributes))
        self.last, self.shape = name, tuple(shape or self.shape)
        return name

    def input(self, name: str, shape: Sequence[int], elem: int = TensorProto.FLOAT) -> str:
        """Add an input, and go on from it."""
        self._inputs.append(helper.make_tensor_value_info(name, elem, [1, *shape]))
        return self.at(name, shape).last

    def output(self) -> str:
        """Let the last tensor be an output, too."""
        self._outputs.append(helper.make_tensor_value_info(self.last, TensorProto.FLOAT, [1, *self.shape]))
        return self.last

    def at(self, tensor: str, shape: Sequence[int]) -> "Architecture":
        """Go on from another tensor."""
        self.last, self.shape = tensor, tuple(shape)
        return self

    def conv(
        self, width: int, kernel: int = 3, stride: int = 1, groups: int = 1, act: str = "Relu", dilation: int = 1
    ) -> str:
        """Add a convolution, its normalization and its activation (none if empty)."""
        depth, *sides = self.shape
        axes, pad = len(sides), dilation * (kernel // 2)
        sides = [(side + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1 for side in sides]
        self.macs += width * (depth // groups) * kernel**axes * math.prod(sides)
        taps = depth // groups * kernel**axes
        filters = self.weight((width, depth // groups, *[kernel] * axes), 1 / taps)
        self.add(
            "Conv",
            self.last,
            filters,
            shape=(width, *sides),
            kernel_shape=[kernel] * axes,
            strides=[stride] * axes,
            pads=[pad] * 2 * axes,
            group=groups,
            **({"dilations": [dilation] * axes} if dilation > 1 else {}),
        )
        self.normalize()
        return self.act(act) if act else self.last

    def act(self, kind: str) -> str:
        """Add an activation; ``Silu`` is x * sigmoid(x), as exporters write it."""
        if kind != "Silu":
            return self.add(kind)
        x = self.last
        return self.add("Mul", x, self.add("Sigmoid"))

    def normalize(self) -> str:
        """Add a batch normalization."""
        ones, zeros = (self.weight((self.shape[0],), value) for value in (1.0, 0.0))
        return self.add("BatchNormalization", self.last, ones, zeros, zeros, ones)

    def pool(self, kind: str = "MaxPool", kernel: int = 3, stride: int = 2) -> str:
        """Add a pooling."""
        pads = [(kernel - 1) // 2] * 2 + [kernel // 2] * 2 if kernel % 2 else [0] * 4
        sides = [(side + pads[0] + pads[2] - kernel) // stride + 1 for side in self.shape[1:]]
        return self.add(kind, shape=(self.shape[0], *sides), kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=pads)

    def transposed_conv(self, width: int) -> str:
        """Double the sides by a transposed convolution."""
        depth, *sides = self.shape
        self.macs += width * depth * 4 * math.prod(sides)
        filters = self.weight((depth, width, 2, 2), 1 / depth)
        shape = (width, *(2 * side for side in sides))
        return self.add("ConvTranspose", self.last, filters, shape=shape, kernel_shape=[2, 2], strides=[2, 2])

    def resize(self, side: int, mode: str = "nearest") -> str:
        """Scale an image to this side."""
        shape = (self.shape[0], side, side)
        asymmetric = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        how = asymmetric if mode == "nearest" else {}
        return self.add("Resize", self.last, "", "", self.ints((1, *shape)), shape=shape, mode=mode, **how)

    def slice(self, begin: int, end: int) -> str:
        """Take a run of the last axis."""
        places = [self.ints((place,)) for place in (begin, end, -1)]
        return self.add("Slice", self.last, *places, shape=(*self.shape[:-1], end - begin))

    def top(self, count: int) -> str:
        """Tell where the greatest values are along the last axis."""
        name = f"topk{len(self._nodes)}"
        values, places = f"{name}_values", f"{name}_places"
        self._nodes.append(helper.make_node("TopK", [self.last, self.ints((count,))], [values, places], name))
        return self.at(places, (*self.shape[:-1], count)).last

    def shuffle(self, groups: int) -> str:
        """Let the groups' channels take turns."""
        width, *sides = self.shape
        self.add("Reshape", self.last, self.ints((1, groups, width // groups, *sides)))
        self.add("Transpose", perm=(0, 2, 1, 3, 4))
        return self.add("Reshape", self.last, self.ints((1, width, *sides)))

    def concat(self, tensors: Sequence[str], widths: Sequence[int]) -> str:
        """Join tensors of equal sides along the channels."""
        return self.add("Concat", *tensors, shape=(sum(widths), *self.shape[1:]), axis=1)

    def classify(self, hidden: Sequence[int] = (), classes: int = 1000) -> "Architecture":
        """Add the head of a classifier."""
        if not hidden:
            self.add("GlobalAveragePool", shape=(self.shape[0], 1, 1))
        self.add("Flatten", shape=(int(np.prod(self.shape)),))
        for width in hidden:
            self.dense(width)
            self.add("Relu")
        self.dense(classes)
        self.add("Softmax", axis=-1)
        return self

    def dense(self, width: int) -> str:
        """Add a fully connected layer."""
        (depth,) = self.shape
        self.macs += depth * width
        weight, bias = self.weight((width, depth), 1 / depth), self.weight((width,), 0.0)
        return self.add("Gemm", self.last, weight, bias, shape=(width,), transB=1)

    def project(self, width: int) -> str:
        """Multiply each token by a weight, and add a bias."""
        tokens, depth = self.shape
        self.macs += tokens * depth * width
        self.add("MatMul", self.last, self.weight((depth, width), 1 / depth), shape=(tokens, width))
        return self.add("Add", self.last, self.weight((width,), 0.1))

    def layer_norm(self) -> str:
        """Normalize each token."""
        ones, zeros = (self.weight((self.shape[-1],), value) for value in (1.0, 0.0))
        return self.add("LayerNormalization", self.last, ones, zeros, axis=-1)

    def attention(self, heads: int, memory: tuple[str, Sequence[int]] | None = None, mask: str = "") -> str:
        """Add multi-head attention, from its projections to its output's.

        Args:
            heads: Their number.
            memory: Tokens that are attended to, with their shape; the last tensor's own by default.
            mask: What is added to the scores.
        """
        (tokens, width), size = self.shape, self.shape[1] // heads
        own = self.last, self.shape
        there = memory or own
        split = [self.ints((1, shape[0], heads, size)) for _, shape in (own, there, there)]
        sides = []
        for (start, shape), into, transposed in zip((own, there, there), split, _HEADS, strict=True):
            self.at(start, shape).project(width)
            self.add("Reshape", self.last, into, shape=(shape[0], heads, size))
            sides.append(self.add("Transpose", perm=transposed))
        return self.attend(heads, tokens, there[1][0], width, sides, mask)

    def attend(self, heads: int, tokens: int, others: int, width: int, sides: Sequence[str], mask: str = "") -> str:
        """Add what follows queries, transposed keys and values, from their products to the projection of what comes."""
        size = width // heads
        self.macs += 2 * tokens * others * width
        self.add("MatMul", sides[0], sides[1], shape=(heads, tokens, others))
        self.add("Mul", self.last, self.weight((1,), size**-0.5))
        if mask:
            self.add("Add", self.last, mask)
        self.add("Softmax", axis=-1)
        self.add("MatMul", self.last, sides[2], shape=(heads, tokens, size))
        self.add("Transpose", perm=(0, 2, 1, 3), shape=(tokens, heads, size))
        self.add("Reshape", self.last, self.ints((1, tokens, width)), shape=(tokens, width))
        return self.project(width)

    def gelu(self) -> str:
        """Add x * (1 + erf(x / sqrt(2))) / 2, as exporters write it."""
        x = self.last
        self.add("Div", x, self.weight((1,), 2**0.5))
        self.add("Erf")
        self.add("Add", self.last, self.weight((1,), 1.0))
        self.add("Mul", x, self.last)
        return self.add("Mul", self.last, self.weight((1,), 0.5))

    def root_mean_square(self) -> str:
        """Divide each token by the root of its mean square, as exporters write it."""
        x, width = self.last, self.shape[-1]
        square = self.add("Pow", x, self.weight((1,), 2.0))
        self.add("ReduceMean", square, axes=[-1], keepdims=1)
        self.add("Add", self.last, self.weight((1,), 1e-6))
        self.add("Div", x, self.add("Sqrt"))
        return self.add("Mul", self.last, self.weight((width,), 1.0))

    def rotate(self) -> str:
        """Turn each head by its position: x * cos + (-second half, first half) * sin."""
        x, shape = self.last, self.shape
        half = shape[-1] // 2
        first = self.slice(0, half)
        self.at(x, shape).slice(half, 2 * half)
        self.add("Concat", self.add("Neg"), first, shape=shape, axis=-1)
        turned = self.add("Mul", self.last, self.weight((1, 1, 1, shape[-1]), 0.6))
        return self.add("Add", self.add("Mul", x, self.weight((1, 1, 1, shape[-1]), 0.8)), turned)

    def recurrent(self, kind: str, hidden: int, directions: int) -> str:
        """Add a recurrent layer over steps, which come first, and join its directions."""
        steps, depth = self.shape
        gates = {"GRU": 3, "LSTM": 4}[kind]
        self.macs += steps * directions * gates * hidden * (depth + hidden)
        weights = [self.weight((directions, gates * hidden, side), 1 / side) for side in (depth, hidden)]
        bias = self.weight((directions, 2 * gates * hidden), 0.0)
        how = {"hidden_size": hidden, "direction": "forward" if directions == 1 else "bidirectional"}
        self.add(kind, self.last, *weights, bias, shape=(directions, steps, hidden), **how)
        self.add("Transpose", perm=(0, 2, 1, 3))
        wide = directions * hidden
        return self.add("Reshape", self.last, self.ints((steps, 1, wide)), shape=(steps, wide))

    def perceptron(self, hidden: int) -> str:
        """Add the two layers that follow attention."""
        width = self.shape[1]
        self.project(hidden)
        self.gelu()
        return self.project(width)

    def embed(self, ids: str, count: int, rows: int, width: int) -> str:
        """Look up rows of a table, and go on from them."""
        table = self.weight((rows, width), 0.02)
        return self.add("Gather", table, ids, shape=(count, width), axis=0)

    def patches(self, width: int, side: int) -> str:
        """Project patches of ``side`` x ``side`` pixels."""
        depth, *sides = self.shape
        sides = [extent // side for extent in sides]
        self.macs += width * depth * side**2 * sides[0] * sides[1]
        filters = self.weight((width, depth, side, side), 1 / (depth * side**2))
        return self.add("Conv", self.last, filters, shape=(width, *sides), kernel_shape=[side] * 2, strides=[side] * 2)

    def tokens(self) -> str:
        """Turn an image into tokens, one a pixel."""
        width, height, breadth = self.shape
        self.add("Reshape", self.last, self.ints((1, width, height * breadth)), shape=(width, height * breadth))
        return self.add("Transpose", perm=(0, 2, 1), shape=(height * breadth, width))

    def weight(self, shape: Sequence[int], value: float) -> str:
        """Return a weight of this shape that holds the value everywhere."""
        name = f"weight{len(self._nodes)}"
        filler = helper.make_tensor("value", TensorProto.FLOAT, [1], [value])
        self._nodes.append(helper.make_node("ConstantOfShape", [self.ints(shape)], [name], name, value=filler))
        return name

    def ints(self, shape: Sequence[int]) -> str:
        """Return a constant list of integers: a shape, axes, indices."""
        name = "shape_" + "x".join(map(str, shape))
        self._initializers[name] = helper.make_tensor(name, TensorProto.INT64, [len(shape)], list(shape))
        return name


def drawn_width(rng: np.random.Generator, low: float, high: float) -> int:
    """Draw a width, evenly on a log scale, most often a multiple of 16 as in published networks, else of 8."""
    unit = int(rng.choice((8, 16, 16)))
    return unit * max(1, round(float(np.exp(rng.uniform(np.log(low), np.log(high)))) / unit))
