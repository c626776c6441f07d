"""NAS-Bench-201 networks as ONNX models (Dong and Yang, ICLR 2020, arXiv:2001.00326)."""

import math
from pathlib import Path
from typing import Any

from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

CLASSES, CELLS = 10, 5
STAGES = ((16, 32), (32, 16), (64, 8))
"""Channels and image side of each stage."""
WEIGHTS = "weights.bin"

Cell = list[list[tuple[str, int]]]
"""For each node after the first, its incoming edges: operation and source node."""


def parse(architecture: str) -> Cell:
    """Read an architecture string such as ``|none~0|+|skip_connect~0|none~1|+|...|``."""
    return [
        [(edge.split("~")[0], int(edge.split("~")[1])) for edge in node.strip("|").split("|")]
        for node in architecture.split("+")
    ]


def fold_zeros(cell: Cell) -> Cell:
    """Replace each ``none``, a product with zero, by what a converter makes of it.

    A product with zero is zero and falls out of the sum that it is a term of. One exception: behind a
    convolution whose result goes nowhere else, the factor is folded into the convolution's weights, as any
    factor is. That convolution then runs, with zeros for weights, and its result is added. A sum times zero
    is zero, and what only such a sum reads is dead.
    """
    last = len(cell)
    terms: Cell = [[], *([edge for edge in node if edge[0] != "none"] for node in cell)]
    readers: list[list[tuple[str, int]]] = [
        [(kind, node) for node, edges in enumerate(cell, 1) for kind, origin in edges if origin == source]
        for source in range(last)
    ]
    folded = set()
    for node in range(1, last):
        only_conv = len(terms[node]) == 1 and terms[node][0][0].startswith("nor_conv")
        if only_conv and all(kind == "none" for kind, _ in readers[node]):
            folded.add(node)
            for _, reader in readers[node]:
                terms[reader].append(("skip_connect", node))
    live = {last}
    for node in range(last, 0, -1):
        if node in live:
            live |= {source for _, source in terms[node]}
    for node in folded:
        if any(reader not in live and len(terms[reader]) > 1 for _, reader in readers[node]):
            for _, reader in readers[node]:
                terms[reader].remove(("skip_connect", node))
    return terms[1:]


class _Builder:
    """Collects the nodes of one model. All weights lie in one shared file, whose values do not matter."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []
        self.inputs: list[ValueInfoProto] = []
        self.largest_bytes = 0

    def weight(self, *shape: int) -> str:
        """Add a weight."""
        name = f"weight_{len(self.weights)}"
        size = 4 * math.prod(shape)
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape, data_location=TensorProto.EXTERNAL)
        for key, value in (("location", WEIGHTS), ("offset", 0), ("length", size)):
            tensor.external_data.add(key=key, value=str(value))
        self.weights.append(tensor)
        self.largest_bytes = max(self.largest_bytes, size)
        return name

    def input(self, *shape: int) -> str:
        """Add an input of the model."""
        name = f"input_{len(self.inputs)}"
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        return name

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add an operator and return the name of its result."""
        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def conv(self, data: str, channels: int, filters: int, kernel: int, stride: int = 1) -> str:
        """Add a convolution, its batch normalisation folded in as every converter does."""
        return self.add(
            "Conv",
            data,
            self.weight(filters, channels, kernel, kernel),
            self.weight(filters),
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[kernel // 2] * 4,
        )

    def pool(self, data: str, kernel: int, stride: int) -> str:
        """Add an average pooling."""
        pads = [(kernel - stride) // 2] * 4
        return self.add("AveragePool", data, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=pads)


def build(architecture: str, file: Path, keep_dead: bool) -> None:
    """Write the network of an architecture as an ONNX model, and its weights' file beside it.

    A node without a term is a tensor of zeros that the network is given, as operators that read it do run.

    Args:
        architecture: The architecture string.
        file: Where to write the model.
        keep_dead: Whether every operator runs (``none`` as a product with zero), or those only that the
            output needs once products with zero are folded away.
    """
    cell = parse(architecture)
    if not keep_dead:
        cell = fold_zeros(cell)
    builder = _Builder()
    channels, side = STAGES[0]
    data = builder.conv(builder.input(1, 3, side, side), 3, channels, 3)
    for filters, side in STAGES:
        if filters != channels:
            data, channels = _reduction(builder, data, channels, filters), filters
        for _ in range(CELLS):
            data = _cell(builder, cell, data, channels, side)
    data = builder.add("BatchNormalization", data, *(builder.weight(channels) for _ in range(4)))
    data = builder.add("Relu", data)
    data = builder.add("Flatten", builder.add("GlobalAveragePool", data))
    data = builder.add("Gemm", data, builder.weight(CLASSES, channels), builder.weight(CLASSES), transB=1)
    file.write_bytes(_model(builder, data, keep_dead).SerializeToString())
    with (file.parent / WEIGHTS).open("ab") as stream:
        stream.truncate(max(builder.largest_bytes, stream.tell()))


def _cell(builder: _Builder, cell: Cell, data: str, channels: int, side: int) -> str:
    nodes = [data]
    for edges in cell:
        terms = []
        for kind, source in edges:
            given = nodes[source]
            if kind == "none":
                terms.append(builder.add("Mul", given, builder.weight(1)))
            elif kind == "skip_connect":
                terms.append(given)
            elif kind == "avg_pool_3x3":
                terms.append(builder.pool(given, 3, 1))
            else:
                terms.append(builder.conv(builder.add("Relu", given), channels, channels, int(kind[-1])))
        total = terms[0] if terms else builder.input(1, channels, side, side)
        for term in terms[1:]:
            total = builder.add("Add", total, term)
        nodes.append(total)
    return nodes[-1]


def _reduction(builder: _Builder, data: str, channels: int, filters: int) -> str:
    """Add the residual block that halves the image."""
    straight = builder.conv(data, channels, filters, 3, stride=2)
    straight = builder.conv(builder.add("Relu", straight), filters, filters, 3)
    shortcut = builder.conv(builder.pool(data, 2, 2), channels, filters, 1)
    return builder.add("Add", straight, shortcut)


def _model(builder: _Builder, output: str, keep_dead: bool) -> ModelProto:
    read = {name for node in builder.nodes for name in node.input}
    outputs = [output]
    if keep_dead:
        outputs += [name for node in builder.nodes for name in node.output if name not in {*read, output}]
    graph = helper.make_graph(
        builder.nodes,
        "nasbench201",
        [value for value in builder.inputs if value.name in read],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        initializer=builder.weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
