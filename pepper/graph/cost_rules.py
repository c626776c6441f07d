"""What one operator computes: its kind, and its arithmetic as matrix products, by operator type.

Every multiply-accumulate (MAC) of a convolution, matrix product, attention or recurrent layer is part of a
matrix product of ``m x k`` by ``k x n``, so a rule returns such products and nothing else: their sizes say
how much work there is and how well a device's kernels are used. Element-wise arithmetic, pooling and
normalisation are bound by memory and cost bytes, not MACs; published MAC counts leave them out too.

The operator sets: https://onnx.ai/onnx/operators and ONNX Runtime's ContribOperators.md.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from pepper.graph.cost_kinds import LOOKUPS, MEMORY_BOUND, VIEWS, Call, Product, UnknownCostError, Work
from pepper.graph.layout import BLOCK

Rule = Callable[[Call], Work]


def _moves(kind: str) -> Rule:
    work = Work(kind)
    return lambda _: work


def _view(_: Call) -> Work:
    return Work("view", read_bytes=0, written_bytes=0)


def _lookup(call: Call) -> Work:
    """Only the rows that are asked for are read, not the whole table."""
    return Work("gather", read_bytes=call.sizes(*call.inputs[1:], *call.outputs[:1]))


def _embed(call: Call) -> Work:
    """Three tables (word, position, segment) are read at the given indices."""
    rows = call.outputs[0]
    return Work("normalization", read_bytes=call.sizes(*call.inputs[:2], rows, rows, rows))


def _opaque(_: Call) -> Work:
    raise UnknownCostError("what it runs is not in the graph")


def _conv(weight_at: int) -> Rule:
    def rule(call: Call) -> Work:
        weight, output = call.shape(weight_at), call.output_shape()
        filters, group = weight[0], int(call.attribute("group", 1))
        form = _form(group, weight[1], filters // group)
        taps, axes = math.prod(weight[2:]), max(len(weight) - 2, 1)
        side = next((s for s in (1, 3, 5) if taps <= s**axes), 7)
        positions = math.prod(output) // max(filters, 1)
        product = Product(group, positions, math.prod(weight[1:]), filters // group)
        return Work(f"conv_{form}_k{side}", (product,))

    return rule


def _form(groups: int, depth: int, width: int) -> str:
    """Form of a convolution from ``depth`` to ``width`` channels a group."""
    if groups == 1:
        return "dense"
    if depth == 1:
        return "depthwise"
    return "narrow" if depth % BLOCK or width % BLOCK else "grouped"


def _conv_transpose(call: Call) -> Work:
    data, weight = call.shape(0), call.shape(1)
    group, channels = int(call.attribute("group", 1)), weight[0]
    positions = math.prod(data) // max(channels, 1)
    product = Product(group, positions, channels // group, math.prod(weight[1:]))
    return Work("conv_transpose", (product,))


def _causal_conv(call: Call) -> Work:
    """Depthwise, one-dimensional: a filter of ``weight.shape[-1]`` taps for each channel."""
    channels, taps = call.shape(1)[0], call.shape(1)[-1]
    side = next((s for s in (1, 3, 5) if taps <= s), 7)
    positions = math.prod(call.output_shape()) // max(channels, 1)
    return Work(f"conv_depthwise_k{side}", (Product(channels, positions, taps, 1),))


def _by_weight(call: Call, *positions: int) -> str:
    operands = [call.inputs[p] for p in positions if p < len(call.inputs)]
    return "gemm" if any(t is not None and t.is_weight for t in operands) else "matmul"


def _product(a: Sequence[int], b: Sequence[int]) -> Product:
    """The product of two stacks of matrices, as ``numpy.matmul`` has it."""
    m, k = (a[-2] if len(a) > 1 else 1), a[-1]
    n = b[-1] if len(b) > 1 else 1
    if len(b) <= 2:
        return Product(1, math.prod(a[:-1]), k, n)
    return Product(math.prod(np.broadcast_shapes(tuple(a[:-2]), tuple(b[:-2]))), m, k, n)


def _matmul(b_at: int) -> Rule:
    def rule(call: Call) -> Work:
        return Work(_by_weight(call, 0, b_at), (_product(call.shape(0), call.shape(b_at)),))

    return rule


def _fused_matmul(call: Call) -> Work:
    def arranged(position: int, letter: str) -> list[int]:
        shape = list(call.shape(position))
        if call.attribute(f"transBatch{letter}", 0) and len(shape) > 1:
            shape = [*shape[1:-1], shape[0], shape[-1]]
        if call.attribute(f"trans{letter}", 0) and len(shape) > 1:
            shape[-2:] = shape[:-3:-1]
        return shape

    return Work(_by_weight(call, 0, 1), (_product(arranged(0, "A"), arranged(1, "B")),))


def _gemm(b_at: int) -> Rule:
    def rule(call: Call) -> Work:
        a, b = call.shape(0), call.shape(b_at)
        m, k = a[::-1] if call.attribute("transA", 0) else a
        n = b[0] if call.attribute("transB", 0) else b[1]
        return Work(_by_weight(call, 0, b_at), (Product(1, m, k, n),))

    return rule


def _packed_matmul(call: Call) -> Work:
    """Weights of a few bits, packed: only the attributes K and N tell their sizes."""
    k, n = call.attribute("K"), call.attribute("N")
    return Work("gemm", (Product(1, math.prod(call.shape(0)[:-1]), k, n),))


def _einsum(call: Call) -> Work:
    """Operands are contracted from left to right, as the equation lists them."""
    equation = call.attribute("equation", b"").decode().replace(" ", "")
    terms, _, result = equation.partition("->")
    sizes: dict[str, int] = {}
    operands: list[set[str]] = []
    for position, term in enumerate(terms.split(",")):
        shape = call.shape(position)
        head, dots, tail = term.partition("...")
        hidden = [f"...{i}" for i in range(len(shape) - len(head) - len(tail), 0, -1)] if dots else []
        labels = [*head, *hidden, *tail]
        sizes |= {label: max(dim, sizes.get(label, 1)) for label, dim in zip(labels, shape, strict=True)}
        operands.append(set(labels))
    if not result:
        joined = terms.replace("...", "")
        result = "".join(c for c in joined if joined.count(c) == 1 and c != ",") + "..."
    kept = set(result.replace("...", "")) | {label for label in sizes if label.startswith("...")}
    products, left = [], operands[0]
    for position, right in enumerate(operands[1:], 1):
        needed = kept.union(*operands[position + 1 :])

        def size(labels: set[str]) -> int:
            return math.prod(sizes[label] for label in labels)

        both, summed = left & right & needed, (left | right) - needed
        products.append(
            Product(
                size(both),
                size((left - right) & needed),
                size(summed),
                size((right - left) & needed),
            )
        )
        left = (left | right) & needed
    return Work(_by_weight(call, *range(len(operands))) if products else "reduction", products)


def _scores(batch: int, heads: int, q: int, kv: int, size: int, value_size: int) -> tuple[Product, Product]:
    """``Q K^T`` and the scores times ``V``."""
    return Product(batch * heads, q, size, kv), Product(batch * heads, q, kv, value_size)


def _attention(call: Call) -> Work:
    """Scaled dot-product attention of ``ai.onnx`` (and FlexAttention): 4-D, or 3-D with packed heads."""
    q, k, v = (call.shape(i) for i in range(3))
    past = call.shape(4)[2] if call.has(4) else 0
    if len(q) == 4:
        return Work("attention", _scores(q[0], q[1], q[2], k[2] + past, q[3], v[3]))
    heads = call.attribute("q_num_heads", 1)
    value_size = v[2] // call.attribute("kv_num_heads", heads)
    return Work("attention", _scores(q[0], heads, q[1], k[1] + past, q[2] // heads, value_size))


def _linear_attention(call: Call) -> Work:
    """A state of key size by value size per head is updated and read at each token, twice by delta rules."""
    q, v = call.shape(0), call.shape(2)
    heads, kv_heads = call.attribute("q_num_heads", 1), call.attribute("kv_num_heads", 1)
    tokens, key_size, value_size = q[0] * q[1], q[2] // heads, v[2] // kv_heads
    products = [
        Product(tokens * kv_heads, key_size, 1, value_size),
        Product(tokens * heads, 1, key_size, value_size),
    ]
    if b"delta" in call.attribute("update_rule", b"gated_delta"):
        products.append(Product(tokens * kv_heads, 1, key_size, value_size))
    return Work("attention", products)


def _fused_attention(past_at: int) -> Rule:
    """Attention with its input projection: weights hold Q, K and V side by side."""

    def rule(call: Call) -> Work:
        data, weight = call.shape(0), call.shape(1)
        tokens, (batch, length) = math.prod(data[:-1]), ((1, *data)[-3:-1])
        heads = call.attribute("num_heads", 1)
        hidden = call.attribute("qkv_hidden_sizes") or [weight[1] // 3] * 3
        past = call.shape(past_at)[3] if call.has(past_at) else 0
        scores = _scores(batch, heads, length, length + past, hidden[0] // heads, hidden[2] // heads)
        return Work("attention", (Product(1, tokens, weight[0], weight[1]), *scores))

    return rule


def _multi_head_attention(past_at: int) -> Rule:
    """Attention over projected queries; keys may be packed, 3-D or 4-D, cached, and shared by heads."""

    def rule(call: Call) -> Work:
        q, heads = call.shape(0), call.attribute("num_heads", 1)
        past = call.shape(past_at)[2] if call.has(past_at) else 0
        if len(q) == 5:  # (batch, length, heads, 3, size)
            return Work("attention", _scores(q[0], q[2], q[1], q[1] + past, q[4], q[4]))
        packed = not call.has(1)
        key = q if packed else call.shape(1)
        width = q[2] * heads // (heads + 2 * call.attribute("kv_num_heads", heads)) if packed else q[2]
        length = key[2] if len(key) == 4 else key[1]
        return Work("attention", _scores(q[0], heads, q[1], length + past, width // heads, width // heads))

    return rule


def _recurrent(call: Call) -> Work:
    """LSTM, GRU and RNN: the input product at once, the recurrent one step by step."""
    data, weight, recurrence = call.shape(0), call.shape(1), call.shape(2)
    steps, batch = data[:2] if not call.attribute("layout", 0) else data[1::-1]
    hidden = call.attribute("hidden_size") or min(recurrence[1:])
    products = (
        Product(1, steps * batch, data[2], math.prod(weight) // max(data[2], 1)),
        Product(steps, batch, hidden, math.prod(recurrence) // hidden),
    )
    return Work("recurrent", products)


def _mixture(call: Call) -> Work:
    """Each token runs through ``k`` experts of two or three matrices."""
    tokens, chosen = math.prod(call.shape(0)[:-1]), call.attribute("k", 1)
    weights = [call.shape(i) for i in (2, 4, 6) if call.has(i)]
    return Work("gemm", [Product(chosen, tokens, w[1], w[2]) for w in weights])


def _fourier(signal_axes: Callable[[Call], tuple[int, int]]) -> Rule:
    """A fast transform of length L: ``L/2 log2 L`` complex products of 4 MACs."""

    def rule(call: Call) -> Work:
        transforms, length = signal_axes(call)
        return Work("spectral", (Product(transforms, 2, length, max(length - 1, 1).bit_length()),))

    return rule


def _dft_axes(call: Call) -> tuple[int, int]:
    shape = call.output_shape()
    axis = call.attribute("axis", -2)  # an input since opset 20; its default is -2
    length = max(shape[axis], call.shape(0)[axis])
    return math.prod(shape[:-1]) // max(shape[axis], 1), length


def _stft_axes(call: Call) -> tuple[int, int]:
    batch, frames, bins, _ = call.output_shape()
    return batch * frames, 2 * (bins - 1) if call.attribute("onesided", 1) else bins


def _rfft_axes(call: Call) -> tuple[int, int]:
    shape, axes = call.shape(0), call.attribute("signal_ndim", 1)
    length = math.prod(shape[-axes:])
    return math.prod(shape) // max(length, 1), length


def _elimination(call: Call) -> Work:
    """Gaussian elimination of ``n x n`` matrices: about ``n^3 / 3`` MACs for Det, ``n^3`` for Inverse."""
    shape = call.shape(0)
    depth = shape[-1] if call.proto.op_type == "Inverse" else max(shape[-1] // 3, 1)
    return Work("spectral", (Product(math.prod(shape[:-2]), shape[-2], depth, shape[-1]),))


def _distances(call: Call) -> Work:
    (m, k), n = call.shape(0), call.shape(1)[0]
    return Work("matmul", (Product(1, m, k, n),))


def _table_product(table: str) -> Rule:
    """``ai.onnx.ml``: rows of features times a table that is held in an attribute."""

    def rule(call: Call) -> Work:
        shape = call.shape(0)
        rows, features = (1, *shape)[-2:]
        columns = len(call.attribute(table, ())) // max(features, 1)
        return Work("classical", (Product(1, rows, features, columns),))

    return rule


RULES: dict[tuple[str, str], Rule] = {}
"""The rule of each operator by (domain, type); the domain ``""`` is ``ai.onnx``."""


def _register(names: str, rule: Rule) -> None:
    for name in names.split():
        domain, _, kind = name.rpartition(":")
        RULES[domain, kind] = rule


for _kind, _names in MEMORY_BOUND.items():
    _register(_names, _moves(_kind))
for _names, _rule in (
    (VIEWS, _view),
    (LOOKUPS + " com.microsoft:TorchEmbedding", _lookup),
    ("com.microsoft:EmbedLayerNormalization com.microsoft:QEmbedLayerNormalization", _embed),
    ("If Loop Scan SequenceMap", _moves("control")),
    (
        """ai.onnx.preview.training:Gradient com.microsoft:BeamSearch com.microsoft:EPContext
        com.microsoft:GreedySearch com.microsoft:Sampling com.microsoft:Snpe
        com.microsoft:WhisperBeamSearch""",
        _opaque,
    ),
    (
        """Conv ConvInteger DeformConv com.microsoft:FusedConv com.microsoft:NhwcConv
        com.microsoft:NhwcFusedConv com.microsoft.nchwc:Conv com.ms.internal.nhwc:Conv""",
        _conv(1),
    ),
    ("QLinearConv com.microsoft:QLinearConv com.ms.internal.nhwc:QLinearConv", _conv(3)),
    (
        """ConvTranspose com.microsoft:ConvTransposeWithDynamicPads
        com.ms.internal.nhwc:ConvTranspose""",
        _conv_transpose,
    ),
    ("CausalConvWithState com.microsoft:CausalConvWithState", _causal_conv),
    (
        """MatMul MatMulInteger com.microsoft:MatMulInteger16 com.microsoft:MatMulIntegerToFloat
        com.microsoft:DynamicQuantizeMatMul com.microsoft:GemmFastGelu""",
        _matmul(1),
    ),
    ("com.microsoft:QOrderedMatMul", _matmul(2)),
    ("QLinearMatMul", _matmul(3)),
    (
        """com.microsoft:FusedMatMul com.microsoft:FusedMatMulActivation com.microsoft:TransposeMatMul
        com.microsoft:SparseToDenseMatMul""",
        _fused_matmul,
    ),
    ("Gemm com.microsoft:FusedGemm com.microsoft:GemmFloat8", _gemm(1)),
    ("com.microsoft:QGemm", _gemm(3)),
    (
        """com.microsoft:MatMulBnb4 com.microsoft:MatMulNBits com.microsoft:MatMulPacked""",
        _packed_matmul,
    ),
    ("Einsum", _einsum),
    ("Attention ai.onnx.preview:FlexAttention", _attention),
    ("LinearAttention com.microsoft:LinearAttention", _linear_attention),
    (
        """com.microsoft:Attention com.microsoft:DecoderMaskedSelfAttention""",
        _fused_attention(4),
    ),
    ("com.microsoft:PackedAttention", _fused_attention(6)),
    ("com.microsoft:QAttention", _fused_attention(8)),
    ("com.microsoft:GroupQueryAttention com.microsoft:SparseAttention", _multi_head_attention(3)),
    ("com.microsoft:DecoderMaskedMultiHeadAttention", _multi_head_attention(5)),
    ("com.microsoft:MultiHeadAttention", _multi_head_attention(6)),
    ("GRU LSTM RNN com.microsoft:DynamicQuantizeLSTM", _recurrent),
    ("com.microsoft:MoE", _mixture),
    ("DFT", _fourier(_dft_axes)),
    ("STFT", _fourier(_stft_axes)),
    ("com.microsoft:Irfft com.microsoft:Rfft", _fourier(_rfft_axes)),
    ("Det com.microsoft:Inverse", _elimination),
    ("com.microsoft:CDist", _distances),
    ("ai.onnx.ml:LinearClassifier ai.onnx.ml:LinearRegressor", _table_product("coefficients")),
    ("ai.onnx.ml:SVMClassifier ai.onnx.ml:SVMRegressor", _table_product("support_vectors")),
):
    _register(_names, _rule)
