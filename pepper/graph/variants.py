"""Generated architectures, so that a latency model sees more than the networks at hand.

Variant ``n`` is the same model wherever it is made: all its choices come from one random generator seeded with
its number. Six families take turns; widths, depths, kernels, strides and resolutions are drawn, and of several
networks the one is taken that is closest to a number of multiply-accumulates drawn before. Weights are filled by
ConstantOfShape operators, which runtimes fold: a file takes some kilobytes, and values do not matter for the time.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, save

from pepper.caches import cache_folder

VERSION = 1  # raise it when a number means another model
SCHEME = "variant://"
LEAST_MACS, MOST_MACS = 50e6, 5000e6
_RESOLUTIONS = (64, 96, 128, 160, 192, 224)
_DRAWS = 30


def variant_file(number: int) -> Path:
    """Return the file of a variant, made on first use in the user's cache."""
    file = cache_folder("variants") / f"variant{number}-v{VERSION}.onnx"
    if not file.is_file():
        made = file.with_suffix(f".{os.getpid()}")
        save(variant(number), made)
        made.rename(file)
    return file


def variant(number: int) -> ModelProto:
    """Build the variant with this number; its family is ``number % 6``.

    Args:
        number: At least 0.
    """
    rng = np.random.default_rng([VERSION, number])
    family = FAMILIES[number % len(FAMILIES)]
    wanted = np.exp(rng.uniform(np.log(LEAST_MACS), np.log(MOST_MACS)))
    drawn = (family(rng) for _ in range(_DRAWS))
    closest = min(drawn, key=lambda network: abs(np.log(network.macs / wanted)))
    return closest.model(f"variant{number}_{family.__name__}")


class _Network:
    """One model in the making; follows the shape of its last tensor, without the batch of 1.

    Attributes:
        last: Name of the last tensor.
        shape: Channels, height and width; or tokens and width.
        macs: Multiply-accumulates so far.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        self.last, self.shape, self.macs = "input", tuple(shape), 0
        self._input = tuple(shape)
        self._nodes: list[NodeProto] = []
        self._initializers: dict[str, TensorProto] = {}

    def model(self, name: str) -> ModelProto:
        """Return what was built; the last tensor is its output."""
        ends = [
            helper.make_tensor_value_info(tensor, TensorProto.FLOAT, [1, *shape])
            for tensor, shape in (("input", self._input), (self.last, self.shape))
        ]
        graph = helper.make_graph(self._nodes, name, ends[:1], ends[1:], list(self._initializers.values()))
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)

    def add(self, kind: str, *inputs: str, shape: Sequence[int] | None = None, **attributes: Any) -> str:
        """Add an operator on the given tensors (the last one by default)."""
        name = f"{kind.lower()}{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs or [self.last]), [name], name, **attributes))
        self.last, self.shape = name, tuple(shape or self.shape)
        return name

    def at(self, tensor: str, shape: Sequence[int]) -> "_Network":
        """Go on from another tensor."""
        self.last, self.shape = tensor, tuple(shape)
        return self

    def conv(self, width: int, kernel: int = 3, stride: int = 1, groups: int = 1, act: str = "Relu") -> str:
        """Add a convolution, its normalization and its activation (none if empty)."""
        depth, *sides = self.shape
        sides = [(side + 2 * (kernel // 2) - kernel) // stride + 1 for side in sides]
        self.macs += width * (depth // groups) * kernel**2 * sides[0] * sides[1]
        filters = self._weight((width, depth // groups, kernel, kernel), 1 / (depth // groups * kernel**2))
        pads = [kernel // 2] * 4
        shape = (width, *sides)
        self.add(
            "Conv",
            self.last,
            filters,
            shape=shape,
            kernel_shape=[kernel] * 2,
            strides=[stride] * 2,
            pads=pads,
            group=groups,
        )
        self.normalize()
        return self.add(act) if act else self.last

    def normalize(self) -> str:
        """Add a batch normalization."""
        ones, zeros = (self._weight((self.shape[0],), value) for value in (1.0, 0.0))
        return self.add("BatchNormalization", self.last, ones, zeros, zeros, ones)

    def pool(self, kind: str = "MaxPool", kernel: int = 3, stride: int = 2) -> str:
        """Add a pooling."""
        pads = [(kernel - 1) // 2] * 2 + [kernel // 2] * 2 if kernel % 2 else [0] * 4
        sides = [(side + pads[0] + pads[2] - kernel) // stride + 1 for side in self.shape[1:]]
        return self.add(kind, shape=(self.shape[0], *sides), kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=pads)

    def shuffle(self, groups: int) -> str:
        """Let the groups' channels take turns."""
        width, *sides = self.shape
        self.add("Reshape", self.last, self._shape((1, groups, width // groups, *sides)))
        self.add("Transpose", perm=(0, 2, 1, 3, 4))
        return self.add("Reshape", self.last, self._shape((1, width, *sides)))

    def concat(self, tensors: Sequence[str], widths: Sequence[int]) -> str:
        """Join tensors of equal sides along the channels."""
        return self.add("Concat", *tensors, shape=(sum(widths), *self.shape[1:]), axis=1)

    def classify(self, hidden: Sequence[int] = (), classes: int = 1000) -> "_Network":
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
        weight, bias = self._weight((width, depth), 1 / depth), self._weight((width,), 0.0)
        return self.add("Gemm", self.last, weight, bias, shape=(width,), transB=1)

    def project(self, width: int) -> str:
        """Multiply each token by a weight, and add a bias."""
        tokens, depth = self.shape
        self.macs += tokens * depth * width
        self.add("MatMul", self.last, self._weight((depth, width), 1 / depth), shape=(tokens, width))
        return self.add("Add", self.last, self._weight((width,), 0.1))

    def layer_norm(self) -> str:
        """Normalize each token."""
        ones, zeros = (self._weight((self.shape[-1],), value) for value in (1.0, 0.0))
        return self.add("LayerNormalization", self.last, ones, zeros, axis=-1)

    def attention(self, heads: int) -> str:
        """Add multi-head self-attention over the tokens, from its projections to its output's."""
        tokens, width = self.shape
        start, size = self.last, width // heads
        split = self._shape((1, tokens, heads, size))
        sides = []
        for transposed in ((0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3)):
            self.at(start, (tokens, width)).project(width)
            self.add("Reshape", self.last, split, shape=(tokens, heads, size))
            sides.append(self.add("Transpose", perm=transposed))
        self.macs += 2 * tokens * tokens * width
        self.add("MatMul", sides[0], sides[1], shape=(heads, tokens, tokens))
        self.add("Mul", self.last, self._weight((1,), size**-0.5))
        self.add("Softmax", axis=-1)
        self.add("MatMul", self.last, sides[2], shape=(heads, tokens, size))
        self.add("Transpose", perm=(0, 2, 1, 3), shape=(tokens, heads, size))
        self.add("Reshape", self.last, self._shape((1, tokens, width)), shape=(tokens, width))
        return self.project(width)

    def gelu(self) -> str:
        """Add x * (1 + erf(x / sqrt(2))) / 2, as exporters write it."""
        x = self.last
        self.add("Div", x, self._weight((1,), 2**0.5))
        self.add("Erf")
        self.add("Add", self.last, self._weight((1,), 1.0))
        self.add("Mul", x, self.last)
        return self.add("Mul", self.last, self._weight((1,), 0.5))

    def patches(self, width: int, side: int) -> str:
        """Project patches of ``side`` x ``side`` pixels."""
        depth, *sides = self.shape
        sides = [extent // side for extent in sides]
        self.macs += width * depth * side**2 * sides[0] * sides[1]
        filters = self._weight((width, depth, side, side), 1 / (depth * side**2))
        return self.add("Conv", self.last, filters, shape=(width, *sides), kernel_shape=[side] * 2, strides=[side] * 2)

    def tokens(self) -> str:
        """Turn an image into tokens, one a pixel."""
        width, height, breadth = self.shape
        self.add("Reshape", self.last, self._shape((1, width, height * breadth)), shape=(width, height * breadth))
        return self.add("Transpose", perm=(0, 2, 1), shape=(height * breadth, width))

    def _weight(self, shape: Sequence[int], value: float) -> str:
        name = f"weight{len(self._nodes)}"
        filler = helper.make_tensor("value", TensorProto.FLOAT, [1], [value])
        self._nodes.append(helper.make_node("ConstantOfShape", [self._shape(shape)], [name], name, value=filler))
        return name

    def _shape(self, shape: Sequence[int]) -> str:
        name = "shape_" + "x".join(map(str, shape))
        self._initializers[name] = helper.make_tensor(name, TensorProto.INT64, [len(shape)], list(shape))
        return name


def _start(rng: np.random.Generator) -> _Network:
    side = int(rng.choice(_RESOLUTIONS))
    return _Network((3, side, side))


def _width(rng: np.random.Generator, low: float, high: float) -> int:
    """Draw a width, evenly on a log scale, most often a multiple of 16 as in published networks, else of 8."""
    unit = int(rng.choice((8, 16, 16)))
    return unit * max(1, round(float(np.exp(rng.uniform(np.log(low), np.log(high)))) / unit))


def plain(rng: np.random.Generator) -> _Network:
    """Convolutions and poolings in a row, dense layers at the end (as AlexNet, VGG)."""
    net, width = _start(rng), _width(rng, 16, 96)
    net.conv(width, int(rng.choice((3, 5, 7, 11))), int(rng.choice((1, 2, 4))))
    for _ in range(int(rng.integers(2, 5))):
        net.pool("MaxPool", int(rng.choice((2, 3))))
        width = min(2 * width, 512) if rng.random() < 0.8 else width
        groups = int(rng.choice((1, 1, 2)))
        for _ in range(int(rng.integers(1, 4))):
            net.conv(width, int(rng.choice((1, 3, 3, 5))), groups=groups)
        if rng.random() < 0.3:
            net.add("LRN", size=5, alpha=1e-4, beta=0.75)
        if net.shape[1] < 8:
            break
    hidden = [_width(rng, 128, 4096) for _ in range(int(rng.integers(0, 3)))]
    while hidden and net.shape[1] > 8:
        net.pool()
    return net.classify(hidden)


def residual(rng: np.random.Generator) -> _Network:
    """Blocks with a sum around them, plain or with a bottleneck (as ResNet)."""
    net, width = _start(rng), _width(rng, 16, 96)
    bottleneck = int(rng.choice((1, 4)))
    groups = int(rng.choice((1, 1, 8)))
    net.conv(width, 7, 2)
    net.pool()
    for stage in range(int(rng.integers(2, 5))):
        for block in range(int(rng.integers(1, 4))):
            stride = 2 if stage and not block else 1
            start, shape = net.last, net.shape
            if bottleneck > 1:
                net.conv(width, 1)
                net.conv(width, 3, stride, groups)
                end = net.conv(width * bottleneck, 1, act="")
            else:
                net.conv(width, 3, stride)
                end = net.conv(width, 3, act="")
            if shape != net.shape:
                after = net.shape
                start = net.at(start, shape).conv(after[0], 1, stride, act="")
            net.add("Add", end, start)
            net.add("Relu")
        width *= 2
    return net.classify()


def inverted(rng: np.random.Generator) -> _Network:
    """Wide depthwise convolutions between narrow ends (as MobileNet, EfficientNet, ShuffleNet)."""
    net, width = _start(rng), _width(rng, 8, 32)
    act, kernel = str(rng.choice(("Relu", "HardSwish", "Sigmoid"))), int(rng.choice((3, 5)))
    expand, groups = int(rng.choice((1, 3, 4, 6))), int(rng.choice((1, 1, 4)))
    net.conv(width, 3, 2)
    for _ in range(int(rng.integers(3, 6))):
        for block in range(int(rng.integers(1, 5))):
            stride = 1 if block else 2
            start, shape = net.last, net.shape
            wide = shape[0] * expand
            if expand > 1:
                net.conv(wide, 1, groups=groups, act=act)
            if groups > 1:
                net.shuffle(groups)
            net.conv(wide, kernel, stride, wide, act=act)
            end = net.conv(width, 1, groups=groups, act="")
            if shape == net.shape:
                net.add("Add", end, start)
        width = min(8 * round(width * float(rng.uniform(1.2, 2)) / 8), 320)
    net.conv(4 * net.shape[0], 1)
    return net.classify()


def inception(rng: np.random.Generator) -> _Network:
    """Branches of unlike kernels side by side, joined along the channels (as GoogLeNet, SqueezeNet)."""
    net, width = _start(rng), _width(rng, 16, 96)
    net.conv(width, int(rng.choice((3, 7))), 2)
    net.pool()
    for stage in range(int(rng.integers(2, 4))):
        if stage:
            net.pool()
        for _ in range(int(rng.integers(1, 4))):
            start, shape = net.last, net.shape
            ends, widths = [], []
            for kernel in (1, 3, 5)[: int(rng.integers(2, 4))]:
                widths.append(_width(rng, 16, 4 * width))
                net.at(start, shape)
                if kernel > 1:
                    net.conv(_width(rng, 16, 2 * width), 1)
                ends.append(net.conv(widths[-1], kernel))
            if rng.random() < 0.5:
                net.at(start, shape).pool(str(rng.choice(("MaxPool", "AveragePool"))), 3, 1)
                widths.append(_width(rng, 16, width))
                ends.append(net.conv(widths[-1], 1))
            net.concat(ends, widths)
        width *= 2
    return net.classify()


def dense(rng: np.random.Generator) -> _Network:
    """Every layer reads all before it in its block, normalized first (as DenseNet)."""
    net, growth = _start(rng), _width(rng, 8, 40)
    net.conv(2 * growth, 7, 2)
    net.pool()
    for stage in range(int(rng.integers(2, 4))):
        if stage:
            net.conv(net.shape[0] // 2, 1)
            net.pool("AveragePool", 2)
        for _ in range(int(rng.integers(2, 7))):
            start, shape = net.last, net.shape
            net.normalize()
            net.add("Relu")
            net.conv(4 * growth, 1)
            net.conv(growth, 3, act="")
            net.concat([start, net.last], [shape[0], growth])
    net.normalize()
    net.add("Relu")
    return net.classify()


def transformer(rng: np.random.Generator) -> _Network:
    """Attention and two-layer perceptrons over an image's patches (as ViT)."""
    net, heads = _start(rng), int(rng.choice((2, 4, 8)))
    width, patch = heads * int(rng.choice((16, 32, 64))), int(rng.choice((8, 16)))
    net.patches(width, patch)
    net.tokens()
    for _ in range(int(rng.integers(1, 5))):
        start, shape = net.last, net.shape
        net.layer_norm()
        start = net.add("Add", net.attention(heads), start)
        net.layer_norm()
        net.project(int(rng.choice((2, 4))) * width)
        net.gelu()
        net.add("Add", net.project(width), start, shape=shape)
    net.layer_norm()
    net.add("ReduceMean", axes=[1], keepdims=0, shape=(width,))
    net.dense(1000)
    return net


FAMILIES: tuple[Callable[[np.random.Generator], _Network], ...] = (
    plain,
    residual,
    inverted,
    inception,
    dense,
    transformer,
)
"""In the order in which they take turns."""
