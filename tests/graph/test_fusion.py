from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from models import LIGHT, Builder, value
from onnx import TensorProto
from random_models import saved

from pepper.graph.fusion import fused_away
from pepper.graph.load import load_graph


def fused(builder: Builder, tmp_path: Path, *outputs: str) -> list[str]:
    model = builder.model([value("x", [1, 4, 8, 8])], [value(name, None) for name in outputs])
    graph = load_graph(saved(model, tmp_path))
    return [operator.kind for operator, away in zip(graph.operators, fused_away(graph), strict=True) if away]


def test_normalization_sum_and_activation_go_into_the_convolution(tmp_path: Path) -> None:
    b = Builder()
    side = b.op("Tanh", "x")
    x = b.conv_bn_relu("x", 4, 4)
    y = b.op("Relu", b.op("Add", b.conv(x, 4, 4), side))
    assert fused(b, tmp_path, y) == ["BatchNormalization", "Relu", "Add", "Relu"]


def test_what_others_read_is_not_fused_nor_what_follows_an_activation(tmp_path: Path) -> None:
    b = Builder()
    x = b.conv("x", 4, 4)
    first = b.op("Relu", x)
    second = b.op("Add", b.op("Tanh", first), x)
    alone = b.op("Relu", b.op("MaxPool", second, kernel_shape=[2, 2]))
    assert fused(b, tmp_path, alone) == []


def test_a_model_output_is_not_fused_away(tmp_path: Path) -> None:
    b = Builder()
    x = b.conv("x", 4, 4)
    y = b.op("Relu", x)
    assert fused(b, tmp_path, x, y) == []


@pytest.mark.parametrize(("name", "kinds"), [("resnet50", {"BatchNormalization": 53, "Relu": 49, "Sum": 16})])
def test_real_models(name: str, kinds: dict[str, int]) -> None:
    graph = load_graph(LIGHT / f"light_{name}.onnx")
    away = [operator.kind for operator, is_away in zip(graph.operators, fused_away(graph), strict=True) if is_away]
    assert {kind: away.count(kind) for kind in set(away)} == kinds


def left_over(model: onnx.ModelProto, folder: Path) -> tuple[list[str], int]:
    """The operators that are not fused away, and how many onnxruntime leaves."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 4
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    graph = load_graph(saved(model, folder))
    left = [operator.kind for operator, away in zip(graph.operators, fused_away(graph), strict=True) if not away]
    return left, len(onnx.load(str(folder / "optimised.onnx")).graph.node)


def between_quantizers(kind: str, quantized: bool, forked: bool, dtype: type) -> onnx.ModelProto:
    b = Builder()
    scale, zero = b.constant(0.05, np.float32), b.constant(0, dtype)
    weight_scale, weight_zero = b.constant(0.01, np.float32), b.constant(0, np.int8)

    def round_trip(x: str) -> str:
        return b.op("DequantizeLinear", b.op("QuantizeLinear", x, scale, zero), scale, zero)

    shape, attributes = [1, 4, 8, 8], {}
    operands = [round_trip("x")]
    if kind in ("Conv", "MatMul", "Gemm"):
        shape = shape if kind == "Conv" else [8, 16]
        raw = b.constant(b.rng.integers(-20, 20, (4, 4, 3, 3) if kind == "Conv" else (16, 4)), np.int8)
        operands.append(b.op("DequantizeLinear", raw, weight_scale, weight_zero))
    elif kind in ("Add", "Mul"):
        operands.append(round_trip(b.op("Cos", "x")))
    elif kind in ("MaxPool", "AveragePool"):
        attributes["kernel_shape"] = [2, 2]
    y = b.op(kind, *operands, **attributes)
    outputs = [b.op("Cos", round_trip(y) if quantized else y)]
    if forked:
        outputs.append(b.op("Sin", operands[0]))
    return b.model([value("x", shape)], [value(name, None) for name in outputs])


KINDS = ("Conv", "MatMul", "Gemm", "Add", "Mul", "AveragePool", "GlobalAveragePool", "MaxPool", "Sigmoid", "Softmax")


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
@pytest.mark.parametrize("kind", [*KINDS, "Transpose", "Elu"])
def test_as_many_operators_between_quantizers_are_left_as_onnxruntime_leaves(
    kind: str, dtype: type, tmp_path: Path
) -> None:
    left, count = left_over(between_quantizers(kind, True, False, dtype), tmp_path)
    assert len(left) == count, left
    assert left.count("DequantizeLinear") == (2 if kind == "Elu" else 1)


@pytest.mark.parametrize("kind", ["Conv", "Add"])
def test_integers_are_rectified_as_they_are_cut_off_and_each_form_takes_in_its_inputs(
    kind: str, tmp_path: Path
) -> None:
    """As in a residual block: what was dequantized is read by two, and both are followed by a rectifier."""
    b = Builder()
    scale, zero = b.constant(0.05, np.float32), b.constant(0, np.uint8)

    def round_trip(x: str) -> str:
        return b.op("DequantizeLinear", b.op("QuantizeLinear", x, scale, zero), scale, zero)

    def conv(x: str) -> str:
        raw = b.constant(b.rng.integers(-20, 20, (4, 4, 3, 3)), np.int8)
        weight = b.op("DequantizeLinear", raw, scale, b.constant(0, np.int8))
        return b.op("Conv", x, weight, pads=[1] * 4)

    x = round_trip("x")
    y = round_trip(b.op("Relu", conv(x)))
    if kind == "Add":
        y = round_trip(b.op("Relu", b.op("Add", round_trip(conv(y)), x)))
    left, count = left_over(b.model([value("x", [1, 4, 8, 8])], [value(b.op("Cos", y), None)]), tmp_path)
    assert "Relu" not in left
    assert len(left) == count, left


def test_dequantized_tensors_that_others_read_are_computed(tmp_path: Path) -> None:
    left, count = left_over(between_quantizers("Conv", True, True, np.uint8), tmp_path)
    assert len(left) == count
    left, count = left_over(between_quantizers("MatMul", False, False, np.uint8), tmp_path)
    assert left == ["QuantizeLinear", "MatMul", "Cos"]
    assert count == 3


@pytest.mark.parametrize("bias", [True, False])
def test_scales_and_bias_go_into_a_product_of_integers(bias: bool, tmp_path: Path) -> None:
    b = Builder()
    b.op("DynamicQuantizeLinear", "x", outputs=["q", "q_scale", "q_zero"])
    outputs = []
    for scale in (0.02, 0.03):  # the quantised input of two products, as queries and keys read it
        weight = b.constant(b.rng.integers(-50, 50, (16, 4)), np.int8)
        product = b.op("MatMulInteger", "q", weight, "q_zero", b.constant(0, np.int8))
        scales = b.op("Mul", "q_scale", b.constant(scale, np.float32))
        y = b.op("Mul", b.op("Cast", product, to=TensorProto.FLOAT), scales)
        outputs.append(b.op("Relu", b.op("Add", y, b.weight(4)) if bias else y))
    model = b.model([value("x", [1, 8, 16])], [value(name, None) for name in outputs])
    left, count = left_over(model, tmp_path)
    assert left.count("MatMulInteger") == left.count("Relu") == 2
    assert len(left) == count, left
