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

_CUTS_OFF = frozenset({"Clip", "Relu"})

_OPEN, _CLOSED, _INTEGER, _CAST, _SCALED = range(1, 6)


def fused_away(graph: Graph) -> list[bool]:
    """Tell for each operator whether onnxruntime's CPU provider computes it within another.

    A convolution or matrix product takes in the batch normalizations and products with weights, then the sum
    (a bias or a residual), then the activation behind it, as long as nothing else reads what lies between. A product
    of integers takes in the cast, the product with both scales and the bias behind it. An operator with a form of
    8 bits takes in the DequantizeLinear before it that only such read, and the QuantizeLinear behind it, also
    behind a rectifier.
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


def quantized_forms(graph: Graph) -> dict[int, bool]:
    """Tell which operators run in a form of 8 bits though they are written in floats (by index), and whether what they
    write has 8 bits, too."""
    outputs = set(graph.outputs)
    found = {}
    for operator in graph.operators:
        if operator.kind not in _QUANTIZED or operator.domain:
            continue
        if all(_maker(graph, graph.tensors[t]) == "DequantizeLinear" for t in operator.reads):
            behind = _behind(graph, operator, outputs)
            quantized = bool(behind) and behind[-1].kind == "QuantizeLinear"
            if quantized or operator.kind == "MatMul":  # this one has a form that gives floats, too
                found[operator.index] = quantized
    return found


def _within_quantized(graph: Graph) -> set[int]:
    """Indices of what a form of 8 bits takes in: QuantizeLinear, DequantizeLinear, and what cuts off between."""
    outputs = set(graph.outputs)
    inside: set[int] = set()
    forms = quantized_forms(graph)
    for index, quantized in forms.items():
        operator = graph.operators[index]
        if quantized:
            inside.update(each.index for each in _behind(graph, operator, outputs))
        inside.update(
            tensor.producer
            for tensor in (graph.tensors[t] for t in operator.reads)
            if tensor.producer is not None and forms.keys() >= set(tensor.readers) and tensor.id not in outputs
        )
    return inside


def _behind(graph: Graph, operator: Operator, outputs: set[int]) -> list[Operator]:
    """The only reader of what an operator writes; behind what cuts values off, as integers do by themselves, its."""
    chain: list[Operator] = []
    while not chain or chain[-1].kind in _CUTS_OFF:
        last = chain[-1] if chain else operator
        readers = [reader for tensor in last.writes for reader in graph.tensors[tensor].readers]
        if len(readers) != 1 or not outputs.isdisjoint(last.writes):
            break
        chain.append(graph.operators[readers[0]])
    return chain


def _maker(graph: Graph, tensor: Tensor) -> str | None:
    """The kind of what writes a tensor, or computes a weight."""
    if tensor.producer is not None:
        return graph.operators[tensor.producer].kind
    maker = graph.makers.get(tensor.name)
    return None if maker is None else maker.op_type
