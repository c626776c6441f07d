"""Which operators runtimes compute as part of another, so that their data never goes through memory."""

from pepper.graph.ir import Graph, Operator

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
_OPEN, _CLOSED = 1, 2


def fused_away(graph: Graph) -> list[bool]:
    """Tell for each operator whether onnxruntime's CPU provider computes it within a product that feeds it.

    A convolution or matrix product takes in the batch normalizations and products with weights, then the sum
    (a bias or a residual), then the activation behind it, as long as nothing else reads what lies between.
    """
    outputs = set(graph.outputs)
    state = [0] * len(graph.operators)  # of the product that an operator belongs to: may more follow?
    for operator in graph.operators:
        if operator.kind in _ROOTS:
            state[operator.index] = _OPEN
            continue
        feeding = [
            graph.operators[tensor.producer]
            for tensor in (graph.tensors[t] for t in operator.reads)
            if tensor.producer is not None and len(tensor.readers) == 1 and tensor.id not in outputs
        ]
        if not any(state[feeder.index] == _OPEN for feeder in feeding):
            continue
        if operator.kind in ("Add", "Sum", "BatchNormalization") or _scales(graph, operator):
            state[operator.index] = _OPEN
        elif operator.kind in _ACTIVATIONS:
            state[operator.index] = _CLOSED
    return [bool(found) and operator.kind not in _ROOTS for found, operator in zip(state, graph.operators, strict=True)]


def _scales(graph: Graph, operator: Operator) -> bool:
    """Whether the operator multiplies by a weight."""
    return operator.kind == "Mul" and any(graph.tensors[t].is_weight for t in operator.reads)
