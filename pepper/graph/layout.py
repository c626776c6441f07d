"""Where data changes its layout: runtimes keep the channels of convolutions in blocks, and all else in plain order.

The rules are those of onnxruntime's blocked layout (NCHWc): a convolution takes and gives blocks, padded where its
channels do not fill the last one, unless it has several groups and their channels do not fill whole blocks. Pooling,
batch normalization, activations and sums keep blocks, a concatenation does if nothing is padded. Everything else is
given plain data, which costs a copy.
"""

from collections.abc import Sequence

from pepper.graph.ir import Graph, Operator, Tensor

BLOCK = 16
_ALIGNED = 4
_KEEPS = frozenset(
    {
        "AveragePool",
        "BatchNormalization",
        "Clip",
        "Dropout",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "HardSigmoid",
        "HardSwish",
        "Identity",
        "LeakyRelu",
        "MaxPool",
        "Mul",
        "Relu",
        "Sigmoid",
        "Tanh",
    }
)
_JOINS = frozenset({"Add", "Concat", "Sum"})


def layout_changes(graph: Graph, fused_away: Sequence[bool]) -> tuple[list[int], set[int]]:
    """Follow the layouts through the graph.

    Args:
        graph: The graph.
        fused_away: What `fusion.fused_away` says of it.

    Returns:
        Bytes that are copied into another layout for each operator (a tensor that several ask for counts once), and
        the ids of the tensors that are written in blocks.
    """
    in_blocks: set[int] = set()
    copied: set[int] = set()
    result = []
    for operator, fused in zip(graph.operators, fused_away, strict=True):
        data = [graph.tensors[t] for t in operator.reads if not graph.tensors[t].is_weight]
        if operator.kind == "Conv":
            wants = _takes_blocks(graph, operator)
            gives = wants is not None
            # An image's few channels are read as they are.
            changed = [t for t in data if (t.id in in_blocks) != bool(wants)]
        else:
            whole = len(data) == len(operator.reads)
            keeps = fused or operator.kind in _KEEPS or (operator.kind in _JOINS and whole)
            fits = operator.kind != "Concat" or all(_fills_blocks(t) for t in data)
            gives = keeps and fits and bool(data) and all(t.id in in_blocks for t in data)
            changed = [] if gives else [t for t in data if t.id in in_blocks]
        result.append(sum(t.bytes or 0 for t in changed if t.id not in copied))
        copied |= {t.id for t in changed}
        if gives:
            in_blocks.update(operator.writes)
    return result, in_blocks


def _takes_blocks(graph: Graph, operator: Operator) -> bool | None:
    """Whether a convolution reads blocks; None if it neither reads nor writes them."""
    weight = graph.tensors[operator.reads[1]].shape if len(operator.reads) > 1 else None
    if weight is None or len(weight) != 4:
        return None
    groups = next((a.i for a in operator.proto.attribute if a.name == "group"), 1)
    width, depth = weight[0] // groups, weight[1]
    if groups == 1:
        return None if depth % _ALIGNED and depth >= BLOCK else depth >= BLOCK
    if depth == 1:
        return None if weight[0] % _ALIGNED else True
    return None if width % BLOCK or depth % BLOCK else True


def _fills_blocks(tensor: Tensor) -> bool:
    return tensor.shape is not None and len(tensor.shape) == 4 and tensor.shape[1] % BLOCK == 0
