"""Shape rules for the com.microsoft operators that optimisers and quantisers emit.

ONNX knows nothing of these; the rules follow the operators' documentation in onnxruntime's
``docs/ContribOperators.md``. An operator without a rule leaves its outputs' shapes unknown.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
from onnx import defs

DOMAIN = "com.microsoft"

Rule = Callable[[Any], None]
_Shape = list[int] | None


def _shape(ctx: Any, index: int) -> _Shape:
    """Return the fixed shape of an input, or None."""
    if index >= ctx.get_num_inputs() or (kind := ctx.get_input_type(index)) is None:
        return None
    tensor = kind.tensor_type
    if not tensor.HasField("shape") or not all(d.HasField("dim_value") for d in tensor.shape.dim):
        return None
    return [d.dim_value for d in tensor.shape.dim]


def _elem(ctx: Any, index: int) -> int:
    kind = ctx.get_input_type(index) if index < ctx.get_num_inputs() else None
    return kind.tensor_type.elem_type if kind is not None else onnx.TensorProto.FLOAT


def _attribute(ctx: Any, name: str, default: Any = None) -> Any:
    attribute = ctx.get_attribute(name)
    return default if attribute is None else onnx.helper.get_attribute_value(attribute)


def _give(ctx: Any, index: int, elem: int, shape: _Shape) -> None:
    if index < ctx.get_num_outputs():
        ctx.set_output_type(index, onnx.helper.make_tensor_type_proto(elem, shape))


def _like(source: int = 0, elem: int | None = None, elem_from: int | None = None) -> Rule:
    """First output like input ``source``; its element type may be fixed or taken from another input."""

    def rule(ctx: Any) -> None:
        kind = elem if elem is not None else _elem(ctx, source if elem_from is None else elem_from)
        _give(ctx, 0, kind, _shape(ctx, source))

    return rule


def _broadcast(left: int, right: int) -> Rule:
    def rule(ctx: Any) -> None:
        a, b = _shape(ctx, left), _shape(ctx, right)
        shape = None if a is None or b is None else [int(dim) for dim in np.broadcast_shapes(a, b)]
        _give(ctx, 0, _elem(ctx, left), shape)

    return rule


def _matmul(left: int, right: int, elem: int | None = None) -> Rule:
    def rule(ctx: Any) -> None:
        a, b = _shape(ctx, left), _shape(ctx, right)
        if a is not None and _attribute(ctx, "transA", 0):
            a[-2:] = a[-1], a[-2]
        if b is not None and _attribute(ctx, "transB", 0):
            b[-2:] = b[-1], b[-2]
        shape = None
        if a and b and min(len(a), len(b)) >= 2:
            shape = [*(int(dim) for dim in np.broadcast_shapes(a[:-2], b[:-2])), a[-2], b[-1]]
        _give(ctx, 0, _elem(ctx, left) if elem is None else elem, shape)

    return rule


def _matmul_nbits(ctx: Any) -> None:
    a = _shape(ctx, 0)
    _give(ctx, 0, _elem(ctx, 0), None if a is None else [*a[:-1], _attribute(ctx, "N")])


def _conv(weight: int, elem: int | None = None) -> Rule:
    """Convolution whose weight has the usual [M, C/group, *kernel] layout."""

    def rule(ctx: Any) -> None:
        x, w = _shape(ctx, 0), _shape(ctx, weight)
        shape = None
        if x is not None and w is not None:
            space = len(w) - 2
            shape = [x[0], w[0], *_window(ctx, x[2 : 2 + space], _attribute(ctx, "kernel_shape", w[2:]))]
        _give(ctx, 0, _elem(ctx, 0) if elem is None else elem, shape)

    return rule


def _window(ctx: Any, sizes: list[int], kernel: list[int]) -> list[int]:
    """Output sizes of a sliding window, as ONNX's Conv and pooling define them."""
    rank = len(kernel)
    strides = _attribute(ctx, "strides", [1] * rank)
    dilations = _attribute(ctx, "dilations", [1] * rank)
    pads = _attribute(ctx, "pads", [0] * 2 * rank)
    auto_pad = _attribute(ctx, "auto_pad", b"NOTSET")
    result = []
    for axis, size in enumerate(sizes):
        reach = dilations[axis] * (kernel[axis] - 1) + 1
        if auto_pad in (b"SAME_UPPER", b"SAME_LOWER"):
            result.append(-(-size // strides[axis]))
            continue
        padded = size + pads[axis] + pads[axis + rank] - reach
        step = strides[axis]
        result.append((-(-padded // step) if _attribute(ctx, "ceil_mode", 0) else padded // step) + 1)
    return result


def _pool(ctx: Any) -> None:
    x = _shape(ctx, 0)
    last = bool(_attribute(ctx, "channels_last", 0))
    shape = None
    if x is not None:
        space = x[1:-1] if last else x[2:]
        space = _window(ctx, space, _attribute(ctx, "kernel_shape"))
        shape = [x[0], *space, x[-1]] if last else [*x[:2], *space]
    _give(ctx, 0, _elem(ctx, 0), shape)


def _global_pool(ctx: Any) -> None:
    x = _shape(ctx, 0)
    shape = None
    if x is not None:
        ones = [1] * (len(x) - 2)
        shape = [x[0], *ones, x[-1]] if _attribute(ctx, "channels_last", 0) else [*x[:2], *ones]
    _give(ctx, 0, _elem(ctx, 0), shape)


def _concat(ctx: Any) -> None:
    # Inputs: scale and zero point of the output, then (tensor, scale, zero point) of each piece.
    shapes = [_shape(ctx, index) for index in range(2, ctx.get_num_inputs(), 3)]
    shape = None
    if all(shape is not None for shape in shapes) and shapes:
        shape = list(shapes[0] or [])
        axis = _attribute(ctx, "axis")
        shape[axis] = sum((piece or [])[axis] for piece in shapes)
    _give(ctx, 0, _elem(ctx, 2), shape)


def _skip_norm(ctx: Any) -> None:
    _give(ctx, 0, _elem(ctx, 0), _shape(ctx, 0))
    _give(ctx, 3, _elem(ctx, 0), _shape(ctx, 0))


def _attention(ctx: Any) -> None:
    x, weight = _shape(ctx, 0), _shape(ctx, 1)
    shape = None
    if x is not None and weight is not None:
        sizes = _attribute(ctx, "qkv_hidden_sizes")
        shape = [*x[:2], sizes[2] if sizes else weight[-1] // 3]
    _give(ctx, 0, _elem(ctx, 0), shape)


def _multi_head_attention(ctx: Any) -> None:
    query, value = _shape(ctx, 0), _shape(ctx, 2)
    shape = None
    if query is not None and len(query) == 3:
        shape = query if value is None or len(value) != 3 else [*query[:2], value[2]]
    _give(ctx, 0, _elem(ctx, 0), shape)


def _quantize(ctx: Any) -> None:
    _give(ctx, 0, _elem(ctx, 2) if ctx.get_num_inputs() > 2 else onnx.TensorProto.UINT8, _shape(ctx, 0))


def _embed_norm(ctx: Any) -> None:
    ids, table = _shape(ctx, 0), _shape(ctx, 2)
    shape = None if ids is None or table is None else [*ids, table[-1]]
    _give(ctx, 0, _elem(ctx, 2), shape)
    _give(ctx, 1, onnx.TensorProto.INT32, None if ids is None else ids[:1])
    _give(ctx, 2, _elem(ctx, 2), shape)


def _nhwc_pool(ctx: Any) -> None:
    x = _shape(ctx, 0)
    shape = None if x is None else [x[0], *_window(ctx, x[1:-1], _attribute(ctx, "kernel_shape")), x[-1]]
    _give(ctx, 0, _elem(ctx, 0), shape)


_FLOAT = onnx.TensorProto.FLOAT

_LIKE_INPUT = [
    "BiasAdd",
    "BiasDropout",
    "BiasGelu",
    "BiasSoftmax",
    "FastGelu",
    "Gelu",
    "GemmaRotaryEmbedding",
    "GroupNorm",
    "Inverse",
    "LayerNormalization",
    "QLinearLeakyRelu",
    "QLinearSigmoid",
    "QLinearSoftmax",
    "QOrderedGelu",
    "QuickGelu",
    "RotaryEmbedding",
    "SimplifiedLayerNormalization",
]

RULES: dict[str, Rule] = {
    **dict.fromkeys(
        _LIKE_INPUT,
        _like(),
    ),
    "SkipLayerNormalization": _skip_norm,
    "SkipSimplifiedLayerNormalization": _skip_norm,
    "SkipGroupNorm": _skip_norm,
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _like(elem_from=1),
    "FusedMatMul": _matmul(0, 1),
    "FusedGemm": _matmul(0, 1),
    "DynamicQuantizeMatMul": _matmul(0, 1),
    "MatMulIntegerToFloat": _matmul(0, 1, _FLOAT),
    "MatMulInteger16": _matmul(0, 1, onnx.TensorProto.INT32),
    "MatMulNBits": _matmul_nbits,
    "QGemm": _matmul(0, 3),
    "QLinearAdd": _broadcast(0, 3),
    "QLinearMul": _broadcast(0, 3),
    "QLinearConcat": _concat,
    "QLinearAveragePool": _pool,
    "NhwcMaxPool": _nhwc_pool,
    "QLinearGlobalAveragePool": _global_pool,
    "FusedConv": _conv(1),
    "Attention": _attention,
    "QAttention": _attention,
    "MultiHeadAttention": _multi_head_attention,
    "EmbedLayerNormalization": _embed_norm,
}


@contextmanager
def registered() -> Iterator[None]:
    """Make the rules known to ``onnx.shape_inference`` for the duration of the block.

    They are withdrawn afterwards: the stubs say nothing of attributes, which ``onnx.checker`` would take
    for a ban on them.
    """
    single, several = defs.OpSchema.FormalParameter, defs.OpSchema.FormalParameterOption.Variadic
    anything = sorted(defs.get_schema("Identity", 13).type_constraints[0].allowed_type_strs)
    mine = [kind for kind in RULES if not defs.has(kind, DOMAIN)]
    for kind in mine:
        schema = defs.OpSchema(
            kind,
            DOMAIN,
            1,
            inputs=[single("X", "T", param_option=several, is_homogeneous=False)],
            outputs=[single("Y", "T", param_option=several, is_homogeneous=False)],
            type_constraints=[("T", anything, "")],
        )
        schema.set_type_and_shape_inference_function(RULES[kind])
        defs.register_schema(schema)
    try:
        yield
    finally:
        for kind in mine:
            defs.deregister_schema(kind, 1, DOMAIN)
