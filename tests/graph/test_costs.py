"""Cost rules: none missing, published figures met, and operators fed with ones counting their own MACs."""

import math
import warnings
from pathlib import Path
from typing import Any

import models
import numpy as np
import onnx
import onnxruntime
import pytest
from models import Builder, value
from onnx import TensorProto, helper, parser
from onnx.backend.test.case.node import collect_testcases

from pepper.graph.characteristics import FEATURES, Characteristics, CostWarning
from pepper.graph.cost_kinds import KINDS, MAC_KINDS
from pepper.graph.cost_rules import RULES
from pepper.graph.costs import Cost, Costing
from pepper.graph.load import load_graph

OPSETS = '"": 21, "com.microsoft": 1'
UNTYPED = {"float": np.float32, "uint8": np.uint8, "int8": np.int8, "float16": np.float16}


def whole(model: onnx.ModelProto, folder: Path, **shapes: list[int]) -> dict[str, float]:
    graph = load_graph(models.save(model, folder / "model.onnx"), shapes=shapes)
    return Characteristics(graph).part(0, len(graph.operators))


def parsed(text: str) -> onnx.ModelProto:
    return parser.parse_model(f"<ir_version: 9, opset_import: [{OPSETS}]> {text}")


def test_every_operator_of_the_standard_has_a_rule() -> None:
    missing = {
        f"{schema.domain or 'ai.onnx'}:{schema.name}"
        for schema in onnx.defs.get_all_schemas()
        if (schema.domain, schema.name) not in RULES
    }
    assert not missing


def test_fused_operators_have_rules() -> None:
    fused = """Attention BiasGelu DynamicQuantizeLSTM DynamicQuantizeMatMul EmbedLayerNormalization FastGelu
        FusedConv FusedGemm FusedMatMul Gelu GroupQueryAttention MatMulIntegerToFloat MatMulNBits
        MultiHeadAttention NhwcFusedConv QAttention QEmbedLayerNormalization QGemm QLinearAdd
        QLinearAveragePool QLinearConcat QLinearGlobalAveragePool QLinearLeakyRelu QLinearMul QLinearSigmoid
        QLinearSoftmax QuickGelu RotaryEmbedding SkipLayerNormalization SkipSimplifiedLayerNormalization"""
    assert not [name for name in fused.split() if ("com.microsoft", name) not in RULES]


def test_features_cover_every_kind_once() -> None:
    assert len(set(FEATURES)) == len(FEATURES)
    assert {f"bytes_{kind}" for kind in KINDS} | {f"macs_{kind}" for kind in MAC_KINDS} <= set(FEATURES)


@pytest.mark.parametrize(
    ("name", "published", "source"),
    [
        ("vgg19", 19.6e9, "He et al., CVPR 2016, section 3.3: 19.6 billion multiply-adds"),
        ("resnet50", 4.09e9, "torchvision ResNet50_Weights: 4.09 (stride in the 3x3, as in this file)"),
        ("densenet121", 2.83e9, "torchvision DenseNet121_Weights: 2.83"),
        ("squeezenet", 0.35e9, "torchvision SqueezeNet1_1_Weights: 0.35"),
        ("inception_v1", 1.43e9, "Sze et al., Proc. IEEE 105(12), 2017, table II, GoogLeNet v1: 1.43 G"),
        ("inception_v2", 4.058e9 / 2, "Open Model Zoo, googlenet-v2: 4.058 GFLOPs (two a MAC)"),
    ],
)
def test_published_macs(name: str, published: float, source: str) -> None:
    graph = load_graph(models.LIGHT / f"light_{name}.onnx")
    macs = Characteristics(graph).cumulative_macs[-1]
    assert macs == pytest.approx(published, rel=0.01), source


def test_published_macs_of_the_grouped_alexnet(tmp_path: Path) -> None:
    """Published for 227 x 227 (Sze et al., 2017, table II: 724 M); the file takes 224 x 224."""
    model = onnx.load(models.LIGHT / "light_bvlc_alexnet.onnx")
    image = next(v for v in model.graph.input if v.name == "data_0")
    for axis in (2, 3):
        image.type.tensor_type.shape.dim[axis].dim_value = 227
    for node in model.graph.node:  # its poolings pad to make up for the smaller image
        if node.op_type == "MaxPool":
            for attribute in node.attribute:
                if attribute.name == "pads":
                    attribute.ints[:] = [0, 0, 0, 0]
    features = whole(model, tmp_path)
    assert features["macs"] == pytest.approx(724e6, rel=0.01)
    assert features["macs_conv_grouped_k5"] == pytest.approx(224e6, rel=0.01)


# With every input and weight 1 (and no padding), an operator's outputs sum up to its MACs.
COUNTED: dict[str, tuple[str, dict[str, tuple[int, ...]], dict[str, str]]] = {
    "conv": ("Conv(x, w)", {"x": (2, 4, 9, 8), "w": (6, 4, 3, 2)}, {}),
    "conv strided": ("Conv<strides = [2, 3], dilations = [2, 1]>(x, w)", {"x": (1, 3, 9, 8), "w": (5, 3, 3, 3)}, {}),
    "conv grouped": ("Conv<group = 2>(x, w)", {"x": (1, 4, 7, 7), "w": (6, 2, 5, 5)}, {}),
    "conv depthwise": ("Conv<group = 4>(x, w)", {"x": (1, 4, 7, 7), "w": (8, 1, 3, 3)}, {}),
    "conv 1-D": ("Conv(x, w)", {"x": (2, 4, 9), "w": (6, 4, 3)}, {}),
    "conv 3-D": ("Conv(x, w)", {"x": (1, 2, 5, 5, 5), "w": (3, 2, 3, 3, 3)}, {}),
    "conv transpose": ("ConvTranspose<group = 2, strides = [2, 2]>(x, w)", {"x": (1, 4, 5, 5), "w": (4, 3, 3, 3)}, {}),
    "fused conv": ('com.microsoft.FusedConv<activation = "Relu">(x, w)', {"x": (1, 3, 6, 6), "w": (4, 3, 3, 3)}, {}),
    "conv integer": ("ConvInteger(x, w)", {"x": (1, 3, 6, 6), "w": (4, 3, 3, 3)}, {"dtype": "uint8"}),
    "matmul": ("MatMul(x, w)", {"x": (2, 3, 4, 5), "w": (3, 5, 6)}, {}),
    "matmul weight": ("MatMul(x, w)", {"x": (2, 3, 5), "w": (5, 6)}, {}),
    "matmul vector": ("MatMul(x, w)", {"x": (3, 5), "w": (5,)}, {}),
    "matmul from vector": ("MatMul(x, w)", {"x": (5,), "w": (5, 4)}, {}),
    "matmul integer": ("MatMulInteger(x, w)", {"x": (2, 3, 5), "w": (5, 6)}, {"dtype": "uint8"}),
    "fused matmul": (
        "com.microsoft.FusedMatMul<transA = 1, transB = 1>(x, w)",
        {"x": (2, 5, 3), "w": (2, 6, 5)},
        {},
    ),
    "gemm": ("Gemm<transA = 1, transB = 1>(x, w)", {"x": (5, 3), "w": (6, 5)}, {}),
    "fused gemm": ('com.microsoft.FusedGemm<activation = "Relu">(x, w)', {"x": (3, 5), "w": (5, 6)}, {}),
    "einsum": ('Einsum<equation = "bij, bjk -> bik">(x, w)', {"x": (2, 3, 4), "w": (2, 4, 5)}, {}),
    "einsum implicit": ('Einsum<equation = "ij, jk">(x, w)', {"x": (3, 4), "w": (4, 5)}, {}),
    "einsum ellipsis": (
        'Einsum<equation = "...ij, ...kj -> ...ik">(x, w)',
        {"x": (2, 3, 4), "w": (2, 5, 4)},
        {},
    ),
}


@pytest.mark.parametrize("case", COUNTED)
def test_ones_count_macs(case: str, tmp_path: Path) -> None:
    expression, shapes, options = COUNTED[case]
    dtype = options.get("dtype", "float")
    given = ", ".join(f"{dtype}[{','.join(map(str, shape))}] {name}" for name, shape in shapes.items())
    result = "int32" if dtype == "uint8" else "float"
    model = parsed(f"g ({given}) => ({result} y) {{ y = {expression} }}")
    features = whole(model, tmp_path)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    ones = {name: np.ones(shape, UNTYPED[dtype]) for name, shape in shapes.items()}
    assert features["macs"] == session.run(None, ones)[0].sum()
    assert features["macs_int8"] == (features["macs"] if dtype == "uint8" else 0)


def only(model: onnx.ModelProto, folder: Path) -> Cost:
    (costs,) = Costing(load_graph(models.save(model, folder / "model.onnx")))
    return costs[0]


@pytest.mark.parametrize(
    ("group", "into", "out", "kernel", "kind"),
    [
        (1, 4, 6, (1, 1), "conv_dense_k1"),
        (1, 4, 6, (3, 3), "conv_dense_k3"),
        (1, 1, 6, (3, 3), "conv_dense_k3"),
        (1, 4, 6, (1, 7), "conv_dense_k3"),
        (1, 4, 6, (7, 7), "conv_dense_k7"),
        (1, 4, 6, (11, 11), "conv_dense_k7"),
        (2, 4, 6, (5, 5), "conv_narrow_k5"),
        (2, 32, 32, (5, 5), "conv_grouped_k5"),
        (4, 4, 4, (3, 3), "conv_depthwise_k3"),
        (4, 4, 8, (5,), "conv_depthwise_k5"),
    ],
)
def test_kinds_of_convolution(
    group: int, into: int, out: int, kernel: tuple[int, ...], kind: str, tmp_path: Path
) -> None:
    b = Builder()
    y = b.op("Conv", "x", b.weight(out, into // group, *kernel), group=group)
    model = b.model([value("x", [1, into] + [12] * len(kernel))], [value(y, None)])
    assert only(model, tmp_path).kind == kind


def attention(kind: str, shapes: dict[str, list[int] | None], domain: str = "", **attributes: Any) -> Any:
    """A model of one operator; None leaves an input out."""
    names = [name if shape is not None else "" for name, shape in shapes.items()]
    node = helper.make_node(kind, names, ["y"], domain=domain, **attributes)
    inputs = [value(name, shape) for name, shape in shapes.items() if shape is not None]
    opsets = [helper.make_opsetid("", 25), helper.make_opsetid("com.microsoft", 1)]
    graph = helper.make_graph([node], "g", inputs, [value("y", None)])
    return helper.make_model(graph, opset_imports=opsets, ir_version=11)


B, S, T, H, D = 2, 5, 7, 4, 8  # batch, queries, keys, heads, head size
SCORES = 2 * B * H * S * T * D  # QK^T and its product with V


@pytest.mark.parametrize(
    ("model", "macs"),
    [
        (attention("Attention", {"q": [B, H, S, D], "k": [B, H, T, D], "v": [B, H, T, D]}), SCORES),
        (
            attention(
                "Attention",
                {"q": [B, S, H * D], "k": [B, T, 2 * D], "v": [B, T, 2 * D]},
                q_num_heads=H,
                kv_num_heads=2,
            ),
            SCORES,
        ),
        (
            attention(
                "MultiHeadAttention",
                {"q": [B, S, H * D], "k": [B, T, H * D], "v": [B, T, H * D]},
                "com.microsoft",
                num_heads=H,
            ),
            SCORES,
        ),
        (
            attention(
                "GroupQueryAttention",
                {
                    "qkv": [B, S, (H + 2 * 2) * D],
                    "none": None,
                    "no": None,
                    "k": [B, 2, T - S, D],
                    "v": [B, 2, T - S, D],
                },
                "com.microsoft",
                num_heads=H,
                kv_num_heads=2,
            ),
            SCORES,
        ),
        (
            attention("Attention", {"x": [B, S, 6], "w": [6, 3 * H * D], "b": [96]}, "com.microsoft", num_heads=H),
            B * S * 6 * 3 * H * D + 2 * B * H * S * S * D,
        ),
        (
            attention("MatMulNBits", {"a": [B, S, 32]}, "com.microsoft", K=32, N=16, bits=4, block_size=32),
            B * S * 32 * 16,
        ),
    ],
    ids=["onnx 4-D", "onnx 3-D grouped", "multi-head", "group-query packed", "projected", "4-bit weights"],
)
def test_attention_and_packed_weights(model: onnx.ModelProto, macs: int, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CostWarning)  # sizes of outputs that no shape rule gives
        assert whole(model, tmp_path)["macs"] == macs


@pytest.mark.slow
def test_attention_costs_what_its_definition_does(tmp_path: Path) -> None:
    """ONNX defines attention as a function of simpler operators: their MACs must be the operator's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # onnx computes every operator's example on the way
        cases = {case.name: case.model for case in collect_testcases() if "attention" in case.name}
    compared = 0
    for name, model in cases.items():
        expanded = next((cases[f"{name}_expanded{v}"] for v in ("", "_ver26") if f"{name}_expanded{v}" in cases), None)
        if expanded is None or "nonpad" in name:  # padding is only known when the model runs
            continue
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", CostWarning)
            simple = Characteristics(load_graph(models.save(expanded, tmp_path / "model.onnx")))
        if any("MatMul" in gap for gap in simple.gaps):
            assert caught
            continue
        fused = whole(model, tmp_path)
        assert fused["macs"] == fused["macs_attention"] == simple.cumulative_macs[-1], name
        compared += 1
    assert compared > 50


@pytest.mark.parametrize(("kind", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_recurrent(kind: str, gates: int, tmp_path: Path) -> None:
    steps, batch, size, hidden = 3, 2, 5, 4
    b = Builder()
    weights = [b.weight(2, gates * hidden, size), b.weight(2, gates * hidden, hidden)]
    y = b.op(kind, "x", *weights, hidden_size=hidden, direction="bidirectional")
    features = whole(b.model([value("x", [steps, batch, size])], [value(y, None)]), tmp_path)
    assert features["macs_recurrent"] == steps * batch * 2 * gates * hidden * (size + hidden)


def test_bytes_of_views_and_lookups(tmp_path: Path) -> None:
    b = Builder()
    rows = b.op("Gather", b.weight(1000, 16), "ids")
    flat = b.op("Reshape", rows, b.constant([-1], np.int64))
    features = whole(b.model([value("ids", [3], TensorProto.INT64)], [value(flat, None)]), tmp_path)
    assert features["bytes_view"] == 0
    assert features["bytes_gather"] == 3 * 8 + 2 * 3 * 16 * 4  # indices, the rows read and written
    assert features["weight_bytes"] == 1000 * 16 * 4 + 8


def test_precision_of_quantized_macs(tmp_path: Path) -> None:
    for model in (models.quantized(), models.integer_operators()):
        features = whole(model, tmp_path)
        assert features["macs_int8"] == features["macs"] > 0


def test_a_form_of_8_bits_moves_bytes_as_integers_do(tmp_path: Path) -> None:
    """What is written between quantizers reads and writes what QLinearConv does."""
    b = Builder()
    scale, zero, zero_weight = b.constant(0.05, np.float32), b.constant(0, np.uint8), b.constant(0, np.int8)
    raw = b.constant(b.rng.integers(-20, 20, (4, 4, 3, 3)), np.int8)
    x = b.op("DequantizeLinear", "x", scale, zero)
    y = b.op("Relu", b.op("Conv", x, b.op("DequantizeLinear", raw, scale, zero_weight)))
    y = b.op("QuantizeLinear", y, scale, zero)
    ends = [value("x", [1, 4, 8, 8], TensorProto.UINT8)], [value(y, None, TensorProto.UINT8)]
    features = whole(b.model(*ends), tmp_path)
    assert features["bytes_conv_dense_k3"] == 4 * 8 * 8 + 4 * 4 * 9 + 4 * 6 * 6
    assert features["bytes_quantize"] == 0


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_a_recurrent_layer_runs_step_by_step(kind: str, tmp_path: Path) -> None:
    """Twice the steps are twice the launches, and the recurrent matrix is read anew in each."""

    def layer(steps: int) -> dict[str, float]:
        b = Builder()
        gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]
        y = b.op(kind, "x", b.weight(1, gates * 16, 8), b.weight(1, gates * 16, 16), hidden_size=16)
        return whole(b.model([value("x", [steps, 1, 8])], [value(y, None)]), tmp_path)

    one, ten = layer(1), layer(10)
    assert (one["operators_recurrent"], ten["operators_recurrent"]) == (1, 10)
    matrix = one["weight_bytes"] * 16 / (16 + 8)
    assert ten["bytes_recurrent"] - one["bytes_recurrent"] == 9 * (matrix + 4 * (8 + 16))


def test_a_run_of_a_tensor_is_copied_and_rows_of_a_table_are_gathered(tmp_path: Path) -> None:
    b = Builder()
    part = b.op("Slice", "x", *(b.constant([place], np.int64) for place in (0, 4, 1)))
    rows = b.op("Gather", part, b.constant([0, 2, 5], np.int64), axis=1)
    features = whole(b.model([value("x", [8, 8])], [value(rows, None)]), tmp_path)
    assert features["bytes_copy"] == 2 * 8 * 4 * 4 + 3 * 8
    assert features["bytes_gather"] == 2 * 8 * 3 * 4 + 3 * 8


def test_weights_count_as_stored(tmp_path: Path) -> None:
    """A dequantised weight takes its int8 bytes; a transposed table is the table."""
    assert whole(models.quantized(), tmp_path)["weight_bytes"] == 3 * (81 + 4) + 4 + 1
    features = whole(models.shared_embedding(), tmp_path)
    assert features["total_parameters"] == 10 * 8 + 3 * (64 + 8)


IF = """g (float[1,8] x, bool c) => (float[1,4] y) {
    w = Constant<value = float[8,4] {%s}>()
    y = If (c) <
        then_branch = t () => (float[1,4] z) { q = MatMul(x, w) z = Relu(q) },
        else_branch = e () => (float[1,4] z) { h = Constant<value = float[8,4] {%s}>() a = Relu(x)
                                               q = MatMul(a, h) r = Relu(q) s = Relu(r) z = Relu(s) }>
}"""
ONES = ",".join(["1"] * 32)


def test_if_costs_its_costliest_branch(tmp_path: Path) -> None:
    features = whole(parsed(IF % (ONES, ONES)), tmp_path)
    assert (features["macs"], features["operators"], features["operators_rectifier"]) == (32, 1, 4)
    assert features["parameters"] == 64  # one weight captured, one held by a branch


LOOP = """g (float[4,4] x) => (float[4,4] y) {
    m = Constant<value = int64 {%s}>() c = Constant<value = bool {1}>()
    y = Loop (m, c, x) <body = b (int64 i, bool k, float[4,4] s) => (bool k2, float[4,4] t)
        { k2 = Identity(k) t = MatMul(s, x) }>
}"""


def test_loop_costs_its_trips(tmp_path: Path) -> None:
    assert whole(parsed(LOOP % 5), tmp_path)["macs"] == 5 * 64
    with pytest.warns(CostWarning, match=r"Loop.*how often its body runs is unknown"):
        assert whole(parsed(LOOP % (2**62)), tmp_path)["macs"] == 64


def test_scan_costs_its_steps(tmp_path: Path) -> None:
    features = whole(models.scan(), tmp_path)
    assert features["operators_elementwise"] == 3  # one Add a step
    assert features["operators_fused"] == 4  # biases and activations outside
    assert features["operators_control"] == 1


def test_functions_cost_their_bodies(tmp_path: Path) -> None:
    features = whole(models.local_functions(), tmp_path)
    assert features["operators_rectifier"] == 3
    assert features["operators_elementwise"] == 3  # the Mul inside each function
    assert features["operators_fused"] == 3  # biases


def test_unknown_costs_are_named(tmp_path: Path) -> None:
    b = Builder()
    x = b.op("Relu", "x")
    y = b.op("RouterGateUpProj", x, b.weight(4, 4), domain="com.microsoft", outputs=["y"])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = b.model([value("x", [2, 4])], [value(y, [2, 4])], opset_imports=opsets)
    with pytest.warns(CostWarning, match=r"RouterGateUpProj.*no cost rule"):
        features = whole(model, tmp_path)
    assert features["operators_other"] == 1
    assert features["bytes_other"] >= math.prod((2, 4)) * 4


@pytest.mark.parametrize("name", models.MODELS)
def test_models_of_every_sort_are_fully_costed(name: str, tmp_path: Path) -> None:
    model = models.MODELS[name]()
    loops = {node.output[0]: [2, 4] for node in model.graph.node if node.op_type == "Loop"}
    with warnings.catch_warnings():
        warnings.simplefilter("error", CostWarning)
        features = whole(model, tmp_path, **loops)
    assert features["macs"] == sum(features[f"macs_{kind}"] for kind in MAC_KINDS)
    moved = sum(features[f"bytes_{kind}"] for kind in KINDS)
    assert moved == features["read_bytes"] + features["written_bytes"] > 0


BRANCHES = """g (float[1,8] x, int64 rate) => (float[1,4] y) {
    w = Constant<value = float[8,4] {%s}>() wide = Constant<value = int64 {16000}>()
    c = Equal (rate, wide)
    y = If (c) <
        then_branch = t () => (float[1,4] z) { z = MatMul(x, w) },
        else_branch = e () => (float[1,4] z) { no = Constant<value = bool {0}>()
            z = If (no) <
                then_branch = u () => (float[1,4] v) { v = MatMul(x, w) },
                else_branch = f () => (float[1,4] v) { a = Concat<axis = 0>(x, x, x) b = MatMul(a, w)
                                                       v = ReduceMean<keepdims = 1>(b) }> }>
}"""


@pytest.mark.parametrize(("given", "macs"), [({}, 96), ({"rate": 16000}, 32), ({"rate": 8000}, 96)])
def test_if_costs_the_branch_that_a_given_value_takes(given: dict[str, int], macs: int, tmp_path: Path) -> None:
    """Speech models choose by their sampling rate; an inner condition that is constant is known, too."""
    file = models.save(parsed(BRANCHES % ONES), tmp_path / "model.onnx")
    graph = load_graph(file, inputs=given)
    assert Characteristics(graph).cumulative_macs[-1] == macs


def test_what_is_no_tensor_passes_through_branches_for_nothing(tmp_path: Path) -> None:
    model = parsed("""
        g (bool flag, float[4] x) => (seq(float[4]) y) {
            y = If (flag) <
                then_branch = a () => (seq(float[4]) one) { one = SequenceConstruct (x) },
                else_branch = b () => (seq(float[4]) two) { two = SequenceConstruct (x, x) }
            >
        }
    """)
    costing = Costing(load_graph(models.save(model, tmp_path / "m.onnx")))
    (entries,) = costing
    assert not costing.gaps
    assert sum(entry.written_bytes for entry in entries) == 32, "what the costlier branch puts together"


def test_what_a_branch_gives_is_known_in_other_bodies(tmp_path: Path) -> None:
    model = parsed("""
        g (float[2, 6] x, bool flag) => (y) {
            count = Size (x)
            twelve = Constant <value_int = 12> ()
            known = Equal (count, twelve)
            sizes = If (known) <
                then_branch = a () => (wide) { wide = Constant <value_ints = [3, 4]> () },
                else_branch = b () => (long) { long = Constant <value_ints = [4, 3]> () }
            >
            y = If (flag) <
                then_branch = c () => (one) { there = Reshape (x, sizes)  one = Tanh (there) },
                else_branch = d () => (two) { back = Reshape (x, sizes)  two = Abs (back) }
            >
        }
    """)
    costing = Costing(load_graph(models.save(model, tmp_path / "m.onnx")))
    list(costing)
    assert not costing.gaps
