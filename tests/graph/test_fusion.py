from pathlib import Path

import pytest
from models import LIGHT, Builder, value
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
