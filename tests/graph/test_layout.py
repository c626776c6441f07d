from pathlib import Path

import onnx
import onnxruntime
import pytest
from models import LIGHT, Builder, value
from random_models import saved

from pepper.graph.fusion import fused_away
from pepper.graph.layout import layout_changes
from pepper.graph.load import load_graph
from pepper.graph.variants import variant


def changes(file: Path) -> tuple[list[int], set[int]]:
    graph = load_graph(file)
    return layout_changes(graph, fused_away(graph))


def copies_by_the_runtime(file: Path, tmp_path: Path) -> int:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    nodes = onnx.load(options.optimized_model_filepath).graph.node
    if not any(node.domain.endswith("nchwc") for node in nodes):
        pytest.skip("the runtime has no blocked layout for this processor")
    return sum("Reorder" in node.op_type for node in nodes)


@pytest.mark.parametrize("name", ["densenet121", "resnet50", "shufflenet", "squeezenet"])
def test_real_models_change_layout_where_the_runtime_does(name: str, tmp_path: Path) -> None:
    file = LIGHT / f"light_{name}.onnx"
    changed, _ = changes(file)
    copies = copies_by_the_runtime(file, tmp_path)
    assert sum(bytes_ > 0 for bytes_ in changed) == pytest.approx(copies, rel=0.15, abs=1)


@pytest.mark.parametrize("number", [1, 4, 7, 10])
def test_generated_models_too(number: int, tmp_path: Path) -> None:
    file = saved(variant(number), tmp_path)
    changed, _ = changes(file)
    assert abs(sum(bytes_ > 0 for bytes_ in changed) - copies_by_the_runtime(file, tmp_path)) <= 3


def test_a_tensor_is_copied_once_for_all_that_ask(tmp_path: Path) -> None:
    b = Builder()
    x = b.conv("x", 4, 16)
    first, second = b.op("Erf", x), b.op("Erf", x)
    model = b.model([value("x", [1, 4, 8, 8])], [value(b.op("Add", first, second), None)])
    changed, in_blocks = changes(saved(model, tmp_path))
    assert changed == [0, 16 * 64 * 4, 0, 0]
    assert len(in_blocks) == 1
