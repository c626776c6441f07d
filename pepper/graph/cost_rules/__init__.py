"""What one operator computes: its kind, and its arithmetic as matrix products, by operator type.

Every multiply-accumulate (MAC) of a convolution, matrix product, attention or recurrent layer is part of a
matrix product of ``m x k`` by ``k x n``, so a rule returns such products and nothing else: their sizes say
how much work there is and how well a device's kernels are used. Element-wise arithmetic, pooling and
normalisation are bound by memory and cost bytes, not MACs; published MAC counts leave them out too.

The operator sets: https://onnx.ai/onnx/operators and ONNX Runtime's ContribOperators.md.
"""

from pepper.graph.cost_kinds import LOOKUPS, MEMORY_BOUND, VIEWS, Rule
from pepper.graph.cost_rules import attention, convolutions, products, recurrent, signals, tables

_SEARCHES = """com.microsoft:BeamSearch com.microsoft:GreedySearch com.microsoft:Sampling
    com.microsoft:WhisperBeamSearch"""

RULES: dict[tuple[str, str], Rule] = {}
"""The rule of each operator by (domain, type); the domain ``""`` is ``ai.onnx``."""


def _register(names: str, rule: Rule) -> None:
    for name in names.split():
        domain, _, kind = name.rpartition(":")
        RULES[domain, kind] = rule


for _kind, _names in MEMORY_BOUND.items():
    _register(_names, tables.moves(_kind))
for _names, _rule in (
    (VIEWS, tables.view),
    ("DynamicSlice Slice", tables.run),
    (LOOKUPS + " com.microsoft:TorchEmbedding", tables.lookup),
    (MEMORY_BOUND["sequence"], tables.sequence),
    ("com.microsoft:EmbedLayerNormalization com.microsoft:QEmbedLayerNormalization", tables.embed),
    ("If Loop Scan SequenceMap", tables.moves("control")),
    (_SEARCHES, tables.opaque("how often its bodies run depends on the data")),
    (
        "ai.onnx.preview.training:Gradient com.microsoft:EPContext com.microsoft:Snpe",
        tables.opaque("what it runs is not in the graph"),
    ),
    (
        """Conv ConvInteger DeformConv com.microsoft:FusedConv com.microsoft:NhwcConv
        com.microsoft:NhwcFusedConv com.microsoft.nchwc:Conv com.ms.internal.nhwc:Conv""",
        convolutions.convolution(1),
    ),
    ("QLinearConv com.microsoft:QLinearConv com.ms.internal.nhwc:QLinearConv", convolutions.convolution(3)),
    (
        """ConvTranspose com.microsoft:ConvTransposeWithDynamicPads
        com.ms.internal.nhwc:ConvTranspose""",
        convolutions.transposed(1),
    ),
    ("com.ms.internal.nhwc:QLinearConvTranspose", convolutions.transposed(3)),
    ("CausalConvWithState com.microsoft:CausalConvWithState", convolutions.causal),
    (
        """MatMul MatMulInteger com.microsoft:MatMulInteger16 com.microsoft:MatMulIntegerToFloat
        com.microsoft:DynamicQuantizeMatMul com.microsoft:GemmFastGelu""",
        products.matmul(1),
    ),
    ("com.microsoft:QOrderedMatMul", products.matmul(2)),
    ("QLinearMatMul", products.matmul(3)),
    (
        """com.microsoft:FusedMatMul com.microsoft:FusedMatMulActivation com.microsoft:TransposeMatMul
        com.microsoft:SparseToDenseMatMul""",
        products.fused_matmul,
    ),
    ("Gemm com.microsoft:FusedGemm com.microsoft:GemmFloat8", products.gemm(1)),
    ("com.microsoft:QGemm", products.gemm(3)),
    (
        """com.microsoft:MatMulBnb4 com.microsoft:MatMulFpQ4 com.microsoft:MatMulNBits
        com.microsoft:MatMulPacked""",
        products.packed_matmul,
    ),
    ("Einsum", products.einsum),
    ("com.microsoft:MoE", products.mixture),
    ("com.microsoft:QMoE", products.packed_mixture),
    ("Det com.microsoft:Inverse", products.elimination),
    ("com.microsoft:CDist", products.distances),
    ("Attention ai.onnx.preview:FlexAttention", attention.attention),
    ("LinearAttention com.microsoft:LinearAttention", attention.linear_attention),
    ("com.microsoft:Attention com.microsoft:DecoderMaskedSelfAttention", attention.projected(4)),
    ("com.microsoft:PackedAttention", attention.packed),
    ("com.microsoft:QAttention", attention.projected(8)),
    ("com.microsoft:GroupQueryAttention com.microsoft:SparseAttention", attention.multi_head(3)),
    ("com.microsoft:DecoderMaskedMultiHeadAttention", attention.multi_head(5)),
    ("com.microsoft:MultiHeadAttention", attention.multi_head(6)),
    ("com.microsoft:PackedMultiHeadAttention", attention.packed_multi_head),
    ("com.microsoft:LongformerAttention", attention.longformer),
    ("com.microsoft:DecoderAttention", attention.decoder),
    ("com.microsoft:PagedAttention com.microsoft:SparsePagedAttention", attention.paged),
    ("GRU LSTM RNN com.microsoft:DynamicQuantizeLSTM", recurrent.recurrent),
    ("DFT", signals.fourier(signals.dft_axes)),
    ("STFT", signals.fourier(signals.stft_axes)),
    ("com.microsoft:Irfft com.microsoft:Rfft", signals.fourier(signals.rfft_axes)),
    ("ai.onnx.ml:LinearClassifier ai.onnx.ml:LinearRegressor", tables.linear),
    ("ai.onnx.ml:SVMClassifier ai.onnx.ml:SVMRegressor", tables.support_vectors),
):
    _register(_names, _rule)
