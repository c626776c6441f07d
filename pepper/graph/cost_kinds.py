"""The words that cost rules are written in: kinds of operators, matrix products, calls.

A kind is what a latency model can tell apart, whatever the model file calls it.

Operators of one kind cost alike for alike sizes. Those listed here are bound by memory: they read and write
bytes and do no multiply-accumulates (MACs); the rules of operators that do are in ``cost_rules``.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import onnx

from pepper.graph.ir import Tensor

CONV_KINDS = tuple(
    f"conv_{form}_k{side}" for form in ("dense", "grouped", "narrow", "depthwise") for side in (1, 3, 5, 7)
)
"""Convolutions by form and kernel side (the geometric mean of the sides, rounded up; 7 means 7 and more).

``narrow`` is grouped, with channels of a group that do not fill whole blocks (see `layout`)."""

MAC_KINDS = (*CONV_KINDS, "conv_transpose", "gemm", "matmul", "attention", "recurrent", "spectral")
"""Kinds of operators that do MACs; ``gemm`` multiplies by a weight, ``matmul`` two activations."""

MEMORY_BOUND = {
    "rectifier": """Clip HardSigmoid LeakyRelu PRelu Relu Shrink ThresholdedRelu
        com.microsoft:QLinearLeakyRelu""",
    "activation": """Abs Acos Acosh Asin Asinh Atan Atanh Celu Cos Cosh Elu Erf Exp Gelu HardSwish Log Mish
        ParametricSoftplus ScaledTanh Selu Sigmoid Sin Sinh Softplus Softsign Sqrt SwiGLU Swish Tan Tanh
        com.microsoft:BiasGelu
        com.microsoft:BiasSplitGelu com.microsoft:FastGelu com.microsoft:Gelu com.microsoft:QLinearSigmoid
        com.microsoft:QOrderedGelu com.microsoft:QuickGelu com.microsoft:ScaledSiLU com.microsoft:SwiGLU""",
    "elementwise": """Add Affine And BitCast BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast CastLike Ceil
        Div Equal Floor Greater GreaterOrEqual ImageScaler IsInf IsNaN Less LessOrEqual Max Mean Min Mod Mul Neg Not Or
        Pow Reciprocal RotaryEmbedding Round Scale Sign Sub Sum Where Xor ai.onnx.preview.training:Adagrad
        ai.onnx.preview.training:Adam ai.onnx.preview.training:Momentum com.microsoft:BiasAdd
        com.microsoft:BiasDropout com.microsoft:BitmaskBiasDropout com.microsoft:BitmaskDropout
        com.microsoft:ComplexMul com.microsoft:ComplexMulConj com.microsoft:GatedAdd
        com.microsoft:GemmaRotaryEmbedding com.microsoft:IsAllFinite com.microsoft:LinearAttentionGate
        com.microsoft:MRotaryEmbedding com.microsoft:MulInteger com.microsoft:QLinearAdd
        com.microsoft:QLinearMul com.microsoft:QLinearWhere com.microsoft:RotaryEmbedding""",
    "softmax": """Hardmax LogSoftmax Softmax SoftmaxCrossEntropyLoss com.microsoft:BiasSoftmax
        com.microsoft:QLinearSoftmax""",
    "batch_normalization": """BatchNormalization com.ms.internal.nhwc:BatchNormalization""",
    "local_response_normalization": """LRN com.ms.internal.nhwc:LRN""",
    "normalization": """GroupNormalization InstanceNormalization LayerNormalization LpNormalization
        MeanVarianceNormalization RMSNormalization SimplifiedLayerNormalization ai.onnx.ml:Normalizer
        com.microsoft:BranchwiseRMSNorm com.microsoft:GatedRMSNorm com.microsoft:GroupNorm
        com.microsoft:QOrderedLayerNormalization com.microsoft:RMSNormRotary com.microsoft:SkipGroupNorm
        com.microsoft:SkipLayerNormalization com.microsoft:SkipSimplifiedLayerNormalization
        com.ms.internal.nhwc:InstanceNormalization""",
    "pooling": """AveragePool GlobalAveragePool GlobalLpPool GlobalMaxPool LpPool MaxPool MaxRoiPool MaxUnpool
        RoiAlign com.microsoft:CropAndResize com.microsoft:MaxpoolWithMask com.microsoft:NhwcMaxPool
        com.microsoft:QLinearAveragePool com.microsoft:QLinearGlobalAveragePool
        com.microsoft.nchwc:AveragePool com.microsoft.nchwc:GlobalAveragePool
        com.microsoft.nchwc:GlobalMaxPool com.microsoft.nchwc:MaxPool com.ms.internal.nhwc:AveragePool
        com.ms.internal.nhwc:GlobalAveragePool com.ms.internal.nhwc:GlobalLpPool
        com.ms.internal.nhwc:GlobalMaxPool com.ms.internal.nhwc:LpPool com.ms.internal.nhwc:MaxPool
        com.ms.internal.nhwc:MaxUnpool com.ms.internal.nhwc:QLinearAveragePool""",
    "reduction": """ArgMax ArgMin CumProd CumSum NegativeLogLikelihoodLoss ReduceL1 ReduceL2 ReduceLogSum
        ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare
        com.microsoft:QLinearReduceMean com.microsoft:ReduceSumInteger""",
    "copy": """CenterCropPad Concat Crop Expand MemcpyFromHost MemcpyToHost Pad Split Tile Trilu
        ai.onnx.ml:FeatureVectorizer
        com.microsoft:Pad com.microsoft:QLinearConcat com.microsoft:RemovePadding
        com.microsoft:RestorePadding com.microsoft:Trilu""",
    "transpose": """Col2Im DepthToSpace ReverseSequence SpaceToDepth Transpose com.microsoft:UnfoldTensor
        com.microsoft.nchwc:ReorderInput com.microsoft.nchwc:ReorderOutput com.ms.internal.nhwc:DepthToSpace
        com.ms.internal.nhwc:SpaceToDepth""",
    "gather": """OneHot Scatter ScatterElements ScatterND TensorScatter com.microsoft:RelativePositionBias""",
    "resize": """AffineGrid GridSample Resize Upsample com.microsoft:GridSample com.microsoft.nchwc:Upsample
        com.ms.internal.nhwc:GridSample com.ms.internal.nhwc:Resize""",
    "quantize": """DequantizeLinear DynamicQuantizeLinear QuantizeLinear com.microsoft:DequantizeBFP
        com.microsoft:DequantizeLinear com.microsoft:DequantizeWithOrder com.microsoft:QuantizeBFP
        com.microsoft:QuantizeLinear com.microsoft:QuantizeWithOrder""",
    "sort": """Compress Multinomial NonMaxSuppression NonZero TopK Unique com.microsoft:DynamicTimeWarping
        com.microsoft:NGramRepeatBlock com.microsoft:SampleOp com.microsoft:Unique""",
    "constant": """Bernoulli BlackmanWindow Constant ConstantOfShape EyeLike GivenTensorFill HammingWindow HannWindow
        MelWeightMatrix RandomNormal RandomNormalLike RandomUniform RandomUniformLike Range Shape Size
        com.microsoft:Range""",
    "text": """ImageDecoder RegexFullMatch StringConcat StringNormalizer StringSplit TfIdfVectorizer
        com.microsoft:BifurcationDetector com.microsoft:MurmurHash3 com.microsoft:Tokenizer""",
    "sequence": """ConcatFromSequence Optional OptionalGetElement OptionalHasElement SequenceAt
        SequenceConstruct SequenceEmpty SequenceErase SequenceInsert SequenceLength SplitToSequence
        ai.onnx.ml:CastMap ai.onnx.ml:DictVectorizer ai.onnx.ml:ZipMap""",
    "classical": """ai.onnx.ml:Binarizer ai.onnx.ml:CategoryMapper ai.onnx.ml:Imputer ai.onnx.ml:LabelEncoder
        ai.onnx.ml:OneHotEncoder ai.onnx.ml:Scaler ai.onnx.ml:TreeEnsemble
        ai.onnx.ml:TreeEnsembleClassifier ai.onnx.ml:TreeEnsembleRegressor""",
}

VIEWS = "Dropout Flatten Identity Reshape Squeeze Unsqueeze com.microsoft:ExpandDims"

LOOKUPS = """Gather GatherElements GatherND ai.onnx.ml:ArrayFeatureExtractor
    com.microsoft:GatherBlockQuantized com.microsoft:GatherND com.microsoft:GatherPacked"""

KINDS = (*MAC_KINDS, *MEMORY_BOUND, "fused", "view", "control", "other")
"""Every kind, in the order of the feature columns; ``fused`` is computed within another operator (see
`fusion.fused_away`), ``other`` has no rule."""


class UnknownCostError(Exception):
    """The cost of one operator cannot be told; the message says why."""


class Product(NamedTuple):
    """``times`` matrix products of ``m x k`` by ``k x n``."""

    times: int
    m: int
    k: int
    n: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return self.times * self.m * self.k * self.n


class Work(NamedTuple):
    """What a rule says of an operator.

    Attributes:
        kind: One of ``cost_kinds.KINDS``.
        products: Its arithmetic.
        read_bytes: Bytes read; None for all that it is given.
        written_bytes: Bytes written; None for all that it returns.
        precision: What its MACs multiply, where its tensors do not tell.
        launches: How many kernels it runs, each of which waits for the one before.
    """

    kind: str
    products: Sequence[Product] = ()
    read_bytes: int | None = None
    written_bytes: int | None = None
    precision: str | None = None
    launches: int = 1


class Call(NamedTuple):
    """An operator with the tensors that it reads and writes, by position."""

    proto: onnx.NodeProto
    inputs: Sequence[Tensor | None]
    outputs: Sequence[Tensor | None]

    def has(self, position: int) -> bool:
        """Whether the optional input is given."""
        return position < len(self.inputs) and self.inputs[position] is not None

    def shape(self, position: int) -> tuple[int, ...]:
        """Shape of an input; UnknownCostError if it is not known."""
        return _shape(self.inputs, position, "input")

    def output_shape(self, position: int = 0) -> tuple[int, ...]:
        """Shape of an output; UnknownCostError if it is not known."""
        return _shape(self.outputs, position, "output")

    def sizes(self, *tensors: Tensor | None) -> int:
        """Bytes of the given tensors together; UnknownCostError if one is not known."""
        total = 0
        for tensor in tensors:
            if tensor is not None:
                size = bytes_of(tensor)
                if size is None:
                    raise UnknownCostError(f"the size of {tensor.name!r} is unknown")
                total += size
        return total

    def attribute(self, name: str, default: Any = None) -> Any:
        """Value of an attribute."""
        for attribute in self.proto.attribute:
            if attribute.name == name:
                return onnx.helper.get_attribute_value(attribute)
        return default


Rule = Callable[[Call], Work]
"""What an operator of some type computes when it is called so."""


STRING_BYTES = 32
"""What a string takes (a ``std::string``); what a long one holds elsewhere is only known as the model runs."""


def bytes_of(tensor: Tensor) -> int | None:
    """Bytes of a tensor, one of strings too; None if they are not known."""
    if tensor.dtype == "string" and tensor.shape is not None:
        return STRING_BYTES * math.prod(tensor.shape)
    return tensor.bytes


def _shape(tensors: Sequence[Tensor | None], position: int, side: str) -> tuple[int, ...]:
    tensor = tensors[position] if position < len(tensors) else None
    if tensor is None:
        raise UnknownCostError(f"it has no {side} {position}")
    if tensor.shape is None:
        raise UnknownCostError(f"the shape of {tensor.name!r} is unknown")
    return tensor.shape
