"""Which operators runtimes compute as part of another, so that their data never goes through memory."""

from pepper.graph.ir import Graph, Operator, Tensor

FOLLOWERS = frozenset(
    [
        "Add",
        "BatchNormalization",
        "BiasGelu",
        "Clip",
        "Div",
        "Dropout",
        "Elu",
        "Erf",
        "FastGelu",
        "Gelu",
        "HardSigmoid",
        "HardSwish",
        "Identity",
        "LeakyRelu",
        "Mish",
        "Mul",
        "PRelu",
        "Pow",
        "QuantizeLinear",
        "QuickGelu",
        "Relu",
        "Selu",
        "Sigmoid",
        "Softplus",
        "Sqrt",
        "Sub",
        "Sum",
        "Tanh",
        "ThresholdedRelu",
    ]
)
"""Element-wise operators that some runtime fuses into what feeds them."""

PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization"})
"""Operators into which a sum with another tensor is fused."""

_ROOTS = frozenset({"Conv", "ConvTranspose", "FusedConv", "Gemm", "MatMul"})
_ACTIVATIONS = frozenset({"Clip", "HardSigmoid", "LeakyRelu", "Relu", "Sigmoid", "Tanh"})
_QUANTIZED = frozenset(
    [
        "Add",
        "AveragePool",
        "Conv",
        "Gemm",
        "GlobalAveragePool",
        "LeakyRelu",
        "MatMul",
        "MaxPool",
        "Mul",
        "Sigmoid",
        "Softmax",
        "Transpose",
    ]
)
"""Operators that have a form of 8 bits, or need none, between DequantizeLinear and QuantizeLinear."""

_OPEN, _CLOSED, _INTEGER, _CAST, _SCALED = range(1, 6)


def fused_away(graph: Graph) -> list[bool]:
    """Tell for each operator whether onnxruntime's CPU provider computes it within another.

    A convolution or matrix product takes in the batch normalizations and products with weights, then the sum
    (a bias or a residual), then the activation behind it, as long as nothing else reads what lies between. A product
    of integers takes in the cast, the product with both scales and the bias behind it. An operator with a form of
    8 bits takes in the DequantizeLinear before it that nothing else reads, and the QuantizeLinear behind it.
    """
    outputs = set(graph.outputs)
    state = [0] * len(graph.operators)  # of the product that an operator belongs to: may more follow?
    inside = _within_quantized(graph)
    for operator in graph.operators:
        if operator.kind in _ROOTS:
            state[operator.index] = _OPEN
        elif operator.kind == "MatMulInteger":
            state[operator.index] = _INTEGER
        else:
            feeding = [
                graph.operators[tensor.producer]
                for tensor in (graph.tensors[t] for t in operator.reads)
                if tensor.producer is not None and len(tensor.readers) == 1 and tensor.id not in outputs
            ]
            state[operator.index] = _joined(graph, operator, {state[feeder.index] for feeder in feeding})
            if state[operator.index] == _SCALED:
                inside.update(feeder.index for feeder in feeding if feeder.kind == "Mul")
    return [
        operator.index in inside or (bool(found) and operator.kind not in (*_ROOTS, "MatMulInteger"))
        for found, operator in zip(state, graph.operators, strict=True)
    ]


def _joined(graph: Graph, operator: Operator, before: set[int]) -> int:
    """Return the state behind an operator that follows products in these states; 0 if it joins none."""
    if _OPEN in before:
        if operator.kind in ("Add", "Sum", "BatchNormalization") or _has_weight(graph, operator, "Mul"):
            return _OPEN
        return _CLOSED if operator.kind in _ACTIVATIONS else 0
    if _INTEGER in before and operator.kind == "Cast":
        return _CAST
    if _CAST in before and operator.kind == "Mul":
        return _SCALED
    return _CLOSED if _SCALED in before and _has_weight(graph, operator, "Add") else 0


def _has_weight(graph: Graph, operator: Operator, kind: str) -> bool:
    """Whether the operator is of the kind, and one of its operands is a weight."""
    return operator.kind == kind and any(graph.tensors[t].is_weight for t in operator.reads)


def _within_quantized(graph: Graph) -> set[int]:
    """Indices of each QuantizeLinear and DequantizeLinear that a form of 8 bits takes in."""
    outputs = set(graph.outputs)
    inside: set[int] = set()
    for operator in graph.operators:
        if operator.kind not in _QUANTIZED or operator.domain:
            continue
        operands = [graph.tensors[t] for t in operator.reads]
        makers = [_maker(graph, tensor) for tensor in operands]
        if any(maker != "DequantizeLinear" for maker in makers):
            continue
        results = [graph.tensors[t] for t in operator.writes]
        behind = [graph.operators[reader] for tensor in results for reader in tensor.readers]
        quantized = [reader.kind for reader in behind] == ["QuantizeLinear"] and outputs.isdisjoint(operator.writes)
        if quantized:
            inside.add(behind[0].index)
        if quantized or operator.kind == "MatMul":  # this one has a form that gives floats, too
            inside.update(
                tensor.producer
                for tensor in operands
                if tensor.producer is not None and len(tensor.readers) == 1 and tensor.id not in outputs
            )
    return inside


def _maker(graph: Graph, tensor: Tensor) -> str | None:
    """The kind of what writes a tensor, or computes a weight."""
    if tensor.producer is not None:
        return graph.operators[tensor.producer].kind
    maker = graph.makers.get(tensor.name)
    return None if maker is None else maker.op_type
