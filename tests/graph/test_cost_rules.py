"""The rule of each operator that optimisers, quantisers and converters write, against a count by hand."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import models
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from models import Builder, value
from onnx import TensorProto, helper

from pepper.graph.characteristics import Characteristics
from pepper.graph.cost_kinds import Call, UnknownCostError, Work
from pepper.graph.cost_rules import RULES
from pepper.graph.costs import Costing
from pepper.graph.ir import Tensor, size_bytes
from pepper.graph.load import load_graph

Shape = Sequence[int] | None

B, S, P, H, D, V = 2, 5, 3, 4, 8, 6  # batch, tokens, past tokens, heads, head size, head size of values
HIDDEN = H * D
SELF = B * H * S * S * (D + D)  # scores and their product with the values
CACHED = B * H * S * (S + P) * (D + D)
PROJECTION = B * S * 10 * 3 * HIDDEN


def work(
    kind: str,
    inputs: Sequence[Shape],
    output: Shape = (1,),
    attributes: Mapping[str, Any] | None = None,
    domain: str = "com.microsoft",
) -> Work:
    """What the operator's rule says of tensors of these shapes; None leaves an input out."""

    def tensor(position: int, shape: Shape) -> Tensor | None:
        size = size_bytes("float", tuple(shape or ()))
        return None if shape is None else Tensor(0, f"t{position}", "float", tuple(shape), size, False, None, ())

    names = [f"t{position}" if shape is not None else "" for position, shape in enumerate(inputs)]
    node = helper.make_node(kind, names, ["y"], domain=domain, **(attributes or {}))
    given_to = [tensor(position, shape) for position, shape in enumerate(inputs)]
    return RULES[domain, kind](Call(node, given_to, [tensor(-1, output)]))


def macs(*arguments: Any, **options: Any) -> int:
    return sum(product.macs for product in work(*arguments, **options).products)


N = None
KEYS, CACHE = (B, S, HIDDEN), (B, H, P, D)
HEADS, GROUPED = {"num_heads": H}, {"num_heads": H, "kv_num_heads": 2}
ATTENTION: dict[str, tuple[str, Sequence[Shape], Mapping[str, Any], int]] = {
    "projected": ("Attention", [(B, S, 10), (10, 3 * HIDDEN), (3 * HIDDEN,)], HEADS, PROJECTION + SELF),
    "with a past": (
        "Attention",
        [(B, S, 10), (10, 3 * HIDDEN), (96,), N, (2, B, H, P, D)],
        HEADS,
        PROJECTION + CACHED,
    ),
    "values of another size": (
        "Attention",
        [(B, S, 10), (10, 2 * HIDDEN + H * V), (1,)],
        {**HEADS, "qkv_hidden_sizes": [HIDDEN, HIDDEN, H * V]},
        B * S * 10 * (2 * HIDDEN + H * V) + B * H * S * S * (D + V),
    ),
    "quantised": (
        "QAttention",
        [(B, S, 10), (10, 3 * HIDDEN), (96,), (), (), N, (), (), (2, B, H, P, D)],
        HEADS,
        PROJECTION + CACHED,
    ),
    "decoder's own": (
        "DecoderMaskedSelfAttention",
        [(B, 1, 10), (10, 3 * HIDDEN), (96,), N, (2, B, H, P, D)],
        HEADS,
        B * 10 * 3 * HIDDEN + B * H * (1 + P) * 2 * D,
    ),
    "without padding": (
        "PackedAttention",
        [(B * S, 10), (10, 3 * HIDDEN), (96,), (B, S + 2), (B + 1,)],
        HEADS,
        PROJECTION + SELF,
    ),
    "multi-head": ("MultiHeadAttention", [KEYS, KEYS, KEYS], HEADS, SELF),
    "multi-head, wide values": (
        "MultiHeadAttention",
        [KEYS, KEYS, (B, S, H * V)],
        HEADS,
        B * H * S * S * (D + V),
    ),
    "multi-head, keys by head": ("MultiHeadAttention", [KEYS, (B, H, 7, D), (B, H, 7, D)], HEADS, SELF // S * 7),
    "multi-head, keys and values packed": ("MultiHeadAttention", [KEYS, (B, 7, H, 2, D)], HEADS, SELF // S * 7),
    "multi-head, all packed": ("MultiHeadAttention", [(B, S, H, 3, D)], HEADS, SELF),
    "multi-head, cached": ("MultiHeadAttention", [KEYS, KEYS, KEYS, N, N, N, CACHE, CACHE], HEADS, CACHED),
    "multi-head, decoding": (
        "DecoderMaskedMultiHeadAttention",
        [(B, 1, HIDDEN), (B, 1, HIDDEN), (B, 1, HIDDEN), N, N, CACHE, CACHE],
        HEADS,
        B * H * (1 + P) * 2 * D,
    ),
    "multi-head, without padding": (
        "PackedMultiHeadAttention",
        [(B * S, HIDDEN), (B * S, HIDDEN), (B * S, H * V), N, (B, S), (B + 1,)],
        HEADS,
        B * H * S * S * (D + V),
    ),
    "grouped": (
        "GroupQueryAttention",
        [KEYS, (B, S, 2 * D), (B, S, 2 * D), (B, 2, P, D), (B, 2, P, D)],
        GROUPED,
        CACHED,
    ),
    "grouped, packed": ("GroupQueryAttention", [(B, S, (H + 4) * D), N, N, (B, 2, P, D)], GROUPED, CACHED),
    "windows": (
        "LongformerAttention",
        [(B, 20, HIDDEN), (HIDDEN, 3 * HIDDEN)],
        {**HEADS, "window": 4},
        B * 20 * HIDDEN * 3 * HIDDEN + B * H * 20 * 9 * 2 * D,
    ),
    "query and key projected": (
        "DecoderAttention",
        [(S, B, HIDDEN), (7, B, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, 2 * HIDDEN)],
        HEADS,
        B * S * HIDDEN**2 + B * 7 * 2 * HIDDEN**2 + SELF // S * 7,
    ),
}


@pytest.mark.parametrize("form", ATTENTION)
def test_attention_in_all_its_forms(form: str) -> None:
    kind, inputs, attributes, expected = ATTENTION[form]
    assert macs(kind, inputs, attributes=attributes) == expected


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("PagedAttention", "depends on the data"),
        ("BeamSearch", "depends on the data"),
        ("EPContext", "not in the graph"),
    ],
)
def test_what_cannot_be_counted_says_why(kind: str, reason: str) -> None:
    with pytest.raises(UnknownCostError, match=reason):
        work(kind, [(1, 4)])


@given(m=st.integers(1, 40), k=st.sampled_from([16, 32, 64]), n=st.integers(1, 40), batch=st.integers(1, 3))
def test_all_forms_of_a_matrix_product_count_alike(m: int, k: int, n: int, batch: int) -> None:
    a, b, scale = (batch, m, k), (k, n), ()
    expected = batch * m * k * n
    packed = {"K": k, "N": n, "bits": 4, "block_size": 16}
    assert expected == macs("MatMul", [a, b], domain="")
    assert expected == macs("MatMulInteger", [a, b], domain="")
    assert expected == macs("QLinearMatMul", [a, scale, scale, b], domain="")
    assert expected == macs("DynamicQuantizeMatMul", [a, b, scale])
    assert expected == macs("MatMulIntegerToFloat", [a, b, scale, scale])
    assert expected == macs("MatMulNBits", [a, (n, k // 16, 8), (n * k // 16,)], attributes=packed)
    assert expected == macs("MatMulFpQ4", [a, (n * k // 2,), (2,)], (batch, m, n))
    assert expected == macs("FusedMatMul", [a, (n, k)], attributes={"transB": 1})
    assert expected == batch * macs("Gemm", [(m, k), (n, k)], attributes={"transB": 1}, domain="")
    assert expected == batch * macs("QGemm", [(m, k), scale, scale, (n, k)], attributes={"transB": 1})
    assert expected == macs("Einsum", [a, b], attributes={"equation": "bmk,kn->bmn"}, domain="")


@given(
    group=st.sampled_from([1, 2, 4]),
    into=st.sampled_from([4, 8]),
    out=st.sampled_from([4, 8, 12]),
    side=st.integers(1, 4),
    size=st.integers(4, 9),
)
def test_all_forms_of_a_convolution_count_alike(group: int, into: int, out: int, side: int, size: int) -> None:
    x, w, scale = (1, into, size, size), (out, into // group, side, side), ()
    y = (1, out, size - side + 1, size - side + 1)
    last = (1, *y[2:], out)
    attributes = {"group": group}
    expected = math.prod(y) * math.prod(w[1:])
    assert expected == macs("Conv", [x, w], y, attributes, "")
    assert expected == macs("ConvInteger", [x, w], y, attributes, "")
    assert expected == macs("QLinearConv", [x, scale, scale, w], y, attributes, "")
    assert expected == macs("FusedConv", [x, w], y, attributes)
    assert expected == macs("NhwcFusedConv", [x, w], last, attributes)
    assert expected == macs("Conv", [x, w], y, attributes, "com.microsoft.nchwc")
    assert expected == macs("QLinearConv", [x, scale, scale, w], last, attributes, "com.ms.internal.nhwc")
    back = (into, out // group, side, side)
    assert macs("ConvTranspose", [x, back], y, attributes, "") == macs(
        "QLinearConvTranspose", [x, scale, scale, back], last, attributes, "com.ms.internal.nhwc"
    )


@given(steps=st.integers(1, 9), batch=st.integers(1, 3), into=st.integers(1, 9), hidden=st.integers(1, 9))
def test_all_forms_of_an_lstm_count_alike(steps: int, batch: int, into: int, hidden: int) -> None:
    """The quantiser transposes both weights; two directions, four gates."""
    attributes = {"hidden_size": hidden, "direction": "bidirectional"}
    expected = steps * batch * 2 * 4 * hidden * (into + hidden)
    x, gates = (steps, batch, into), 4 * hidden
    assert expected == macs("LSTM", [x, (2, gates, into), (2, gates, hidden)], (1,), attributes, "")
    assert expected == macs("DynamicQuantizeLSTM", [x, (2, into, gates), (2, hidden, gates)], (1,), attributes)
    swapped = {**attributes, "layout": 1}
    assert expected == macs("LSTM", [(batch, steps, into), (2, gates, into), (2, gates, hidden)], (1,), swapped, "")


def test_mixtures_count_the_chosen_experts() -> None:
    expected = 2 * 3 * (16 * 64 + 32 * 16)  # experts of a token, tokens, both matrices (the first is gated)
    assert expected == macs("MoE", [(3, 16), (3, 8), (8, 64, 16), N, (8, 16, 32)], (1,), {"k": 2})
    packed = [(3, 16), (3, 8), (8, 64, 8), N, N, (8, 16, 16)]  # two of 4 bits in a byte
    assert expected == macs("QMoE", packed, (1,), {"k": 2, "expert_weight_bits": 4})


def test_weights_of_a_few_bits_multiply_what_their_accuracy_says() -> None:
    attributes = {"K": 32, "N": 16, "bits": 4, "block_size": 32}
    assert work("MatMulNBits", [(2, 32)], attributes=attributes).precision is None
    assert work("MatMulNBits", [(2, 32)], attributes={**attributes, "accuracy_level": 4}).precision == "int8"


def test_support_vectors_and_linear_models() -> None:
    ml = "ai.onnx.ml"
    linear = {"coefficients": [0.5] * 24, "intercepts": [0.0] * 3}
    assert macs("LinearClassifier", [(10, 8)], (1,), linear, ml) == 10 * 8 * 3
    vectors = {"support_vectors": [0.5] * 8 * 6, "coefficients": [1.0] * 12, "vectors_per_class": [2, 2, 2]}
    assert macs("SVMClassifier", [(10, 8)], (1,), vectors, ml) == 10 * 8 * 6 + 10 * 6 * 2
    assert macs("SVMRegressor", [(10, 8)], (1,), {"coefficients": [1.0] * 8}, ml) == 10 * 8


def single(node: onnx.NodeProto, inputs: Sequence[Any], outputs: Sequence[Any], folder: Path) -> Costing:
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("ai.onnx.ml", 5)]
    model = helper.make_model(helper.make_graph([node], "g", inputs, outputs), opset_imports=opsets, ir_version=10)
    return Costing(load_graph(models.save(model, folder / "model.onnx")))


def test_trees_cost_the_nodes_that_they_hold(tmp_path: Path) -> None:
    """A split on feature 0 at 0.5, its leaves 1 and 2; in attributes that are lists of numbers or tensors."""
    node = helper.make_node(
        "TreeEnsemble",
        ["x"],
        ["y"],
        domain="ai.onnx.ml",
        nodes_featureids=[0],
        nodes_splits=helper.make_tensor("s", TensorProto.DOUBLE, [1], [0.5]),
        nodes_modes=helper.make_tensor("m", TensorProto.UINT8, [1], [0]),
        nodes_truenodeids=[0],
        nodes_trueleafs=[1],
        nodes_falsenodeids=[1],
        nodes_falseleafs=[1],
        leaf_targetids=[0, 0],
        leaf_weights=helper.make_tensor("w", TensorProto.DOUBLE, [2], [1.0, 2.0]),
        tree_roots=[0],
        n_targets=1,
    )
    elem = TensorProto.DOUBLE
    costing = single(node, [value("x", [7, 3], elem)], [value("y", [7, 1], elem)], tmp_path)
    ((cost,),) = costing
    assert not costing.gaps
    assert cost.read_bytes == 7 * 3 * 8 + 8 * (5 + 1 + 2) + 3 * 8 + 1
    assert cost.written_bytes == 7 * 8


def test_strings_have_a_size(tmp_path: Path) -> None:
    node = helper.make_node(
        "LabelEncoder", ["x"], ["y"], domain="ai.onnx.ml", keys_int64s=[0, 1], values_strings=["cat", "dog"]
    )
    costing = single(node, [value("x", [5], TensorProto.INT64)], [value("y", [5], TensorProto.STRING)], tmp_path)
    ((cost,),) = costing
    assert not costing.gaps
    assert cost.written_bytes == 5 * 32


@pytest.mark.parametrize(("both", "precision"), [(True, "int8"), (False, "float32")])
def test_a_product_is_of_8_bits_where_both_operands_are(both: bool, precision: str, tmp_path: Path) -> None:
    """Of weights alone that are stored in 8 bits, runtimes make floats again."""
    b = Builder()
    scale, zero = b.constant(0.1, np.float32), b.constant(0, np.int8)
    x = b.op("DequantizeLinear", b.op("QuantizeLinear", "x", scale, zero), scale, zero) if both else "x"
    weight = b.op("DequantizeLinear", b.constant(np.ones((8, 4)), np.int8), scale, zero)
    y = b.op("MatMul", x, weight)
    graph = load_graph(models.save(b.model([value("x", [2, 8])], [value(y, None)]), tmp_path / "model.onnx"))
    part = Characteristics(graph).part(0, len(graph.operators))
    assert part["macs"] == 2 * 8 * 4
    assert part["macs_int8"] == (part["macs"] if precision == "int8" else 0)
