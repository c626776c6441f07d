"""Shapes that onnxruntime alone knows: asked once, in a process of its own, within limits."""

from pathlib import Path
from typing import Any

import models
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from models import Builder, value
from onnx import TensorProto, helper

from pepper.graph import observed
from pepper.graph.ir import Graph
from pepper.graph.load import load_graph


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The tensors that onnxruntime was asked for, in a cache of the test's own."""
    asked: list[str] = []
    ask = observed._asked

    def count(model: onnx.ModelProto, *rest: Any) -> Any:
        asked.extend(output.name for output in model.graph.output)
        return ask(model, *rest)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(observed, "_asked", count)
    return asked


def scaler() -> onnx.ModelProto:
    b = Builder()
    scaled = b.op("Scaler", "x", domain="ai.onnx.ml", offset=[0.0] * 8, scale=[1.0] * 8)
    ml = {"domain": "ai.onnx.ml", "coefficients": [0.5] * 16, "intercepts": [0.0, 0.0], "targets": 2}
    y = b.op("LinearRegressor", b.op("Tanh", scaled), **ml)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return b.model([value("x", ["n", 8])], [value(y, None)], opset_imports=opsets)


def foreign() -> onnx.ModelProto:
    """What onnxruntime's optimiser writes: operators of the standard domain that the standard lacks."""
    b = Builder()
    x = b.op("SimplifiedLayerNormalization", b.linear("x", 8, 8), b.weight(8), axis=-1)
    x = b.op("LayerNormalization", b.op("Gelu", x, domain="com.microsoft"), b.weight(8), b.weight(8), axis=-1)
    x = b.op("MurmurHash3", b.op("Cast", x, to=TensorProto.INT32), domain="com.microsoft")
    opsets = [helper.make_opsetid("", 15), helper.make_opsetid("com.microsoft", 1)]
    return b.model([value("x", ["n", 5, 8])], [value(x, None, TensorProto.UINT32)], opset_imports=opsets)


def chosen() -> onnx.ModelProto:
    """Shapes that depend on values: as many columns as elements are not 0."""
    b = Builder()
    places = b.op("NonZero", b.op("Sub", "x", b.constant(0.5, np.float32)), outputs=["places"])
    y = b.op("Cast", b.op("Transpose", places), to=TensorProto.FLOAT, outputs=["y"])
    size = b.op("Shape", places, outputs=["size"])
    return b.model([value("x", [2, 3])], [value(y, ["k", 2]), value(size, [2], TensorProto.INT64)])


def agree(graph: Graph, batch: int) -> None:
    """Every shape is the one that onnxruntime gives."""
    model = onnx.load(str(graph.file))
    names = [tensor.name for tensor in graph.tensors if tensor.producer is not None]
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (fed,) = session.get_inputs()
    results = session.run(names, {fed.name: np.ones((batch, *fed.shape[1:]), np.float32)})
    for name, result in zip(names, results, strict=True):
        tensor = graph.tensor(name)
        assert tensor.shape == result.shape, name
        elem = onnx.TensorProto.DataType.Value((tensor.dtype or "undefined").upper())
        assert helper.tensor_dtype_to_np_dtype(elem) == result.dtype, name


@pytest.mark.parametrize("make", [scaler, foreign])
def test_what_no_rule_infers_is_asked_of_onnxruntime_once(make: Any, tmp_path: Path, asked: list[str]) -> None:
    file = models.save(make(), tmp_path / "m.onnx")
    for batch in (1, 3):
        graph = load_graph(file, batch=batch)
        assert asked
        assert not graph.unknown_shapes()
        agree(graph, batch)
        asked.clear()
        assert load_graph(file, batch=batch).tensors == graph.tensors
        assert not asked, "the answer is kept"
    models.save(models.chain(), file)
    load_graph(file)
    assert not asked


@pytest.mark.parametrize("name", sorted(models.MODELS))
def test_nothing_is_asked_where_rules_know_all(name: str, tmp_path: Path, asked: list[str]) -> None:
    assert not load_graph(models.save(models.MODELS[name](), tmp_path / "m.onnx")).unknown_shapes()
    assert not asked


def test_shapes_that_depend_on_values_are_marked_and_never_taken_for_constants(tmp_path: Path) -> None:
    file = models.save(chosen(), tmp_path / "m.onnx")
    graph = load_graph(file, inputs={"x": [[0.5, 0.5, 1.0], [1.0, 0.5, 1.0]]})
    assert graph.fixed
    assert graph.tensor("places").shape == (2, 3)
    assert graph.tensor("y").shape == (3, 2)
    assert {"places", "y"} <= graph.by_run
    assert "Shape" in [operator.kind for operator in graph.operators]
    assert load_graph(file, inputs={"x": 0.5}).tensor("y").shape == (0, 2)


def test_a_model_that_onnxruntime_refuses_keeps_its_gaps(tmp_path: Path, asked: list[str]) -> None:
    b = Builder()
    y = b.op("Tanh", b.op("NoSuchOperator", "x", domain="com.microsoft", outputs=["made"]))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    file = models.save(b.model([value("x", [1, 4])], [value(y, None)], opset_imports=opsets), tmp_path / "m.onnx")
    for _ in range(2):
        assert [tensor.name for tensor in load_graph(file).unknown_shapes()] == ["made", y]
    assert asked == ["made", y], "a refusal is kept, too"


def endless() -> onnx.ModelProto:
    b = Builder()
    body = Builder(prefix="body_")
    body.op("Identity", "going", outputs=["still"])
    body.op("Compress", "carried", body.op("Cast", "carried", to=TensorProto.BOOL), outputs=["next"])
    loop = helper.make_graph(
        body.nodes,
        "body",
        [value("i", [], TensorProto.INT64), value("going", [], TensorProto.BOOL), value("carried", None)],
        [value("still", [], TensorProto.BOOL), value("next", None)],
    )
    y = b.op("Loop", "", b.constant(True, bool), "x", body=loop)
    return b.model([value("x", [1])], [value(y, None)])


def large() -> onnx.ModelProto:
    b = Builder()
    size = b.op("Mul", b.op("Cast", "x", to=TensorProto.INT64), b.constant([2**36], np.int64))
    return b.model([value("x", [1])], [value(b.op("ConstantOfShape", size), None)])


def test_a_run_without_end_or_beyond_the_memory_tells_nothing(
    tmp_path: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observed, "SECONDS", 3)
    for make, kept in ((endless, False), (large, True)):
        file = models.save(make(), tmp_path / f"{make.__name__}.onnx")
        assert load_graph(file, inputs={"x": 1.0}).unknown_shapes()
        assert asked
        asked.clear()
        assert load_graph(file, inputs={"x": 1.0}).unknown_shapes()
        assert bool(asked) != kept


def test_damaged_answers_are_asked_for_again(tmp_path: Path, asked: list[str]) -> None:
    file = models.save(scaler(), tmp_path / "m.onnx")
    load_graph(file)
    (kept,) = (tmp_path / "cache").rglob("*.json")
    whole = kept.read_bytes()
    for damaged in (b"", whole[:20], b"[]", b"{}", b'{"types": {"a": 1}, "shapes": {}}', b'{"types": [], "shapes": 3}'):
        kept.write_bytes(damaged)
        asked.clear()
        assert not load_graph(file).unknown_shapes()
        assert asked
        assert kept.read_bytes() == whole


def test_a_branch_that_cannot_run_at_these_sizes_is_no_obstacle(tmp_path: Path) -> None:
    file = models.save(models.two_rates(), tmp_path / "model.onnx")
    graph = load_graph(file, shapes={"x": [1, 6]}, inputs={"rate": 16000})
    assert graph.tensors[graph.outputs[0]].shape == (1, 4)


@pytest.mark.parametrize("first", [3, "n"])
def test_where_no_run_tells_the_file_is_believed_at_its_own_sizes(first: int | str, tmp_path: Path) -> None:
    b = Builder()
    b.op("Expand", "x", "shape", outputs=["y"])
    b.op("Relu", "y", outputs=["z"])
    model = b.model([value("x", [first, 1]), value("shape", [2], TensorProto.INT64)], [value("z", [3, 4])])
    model.graph.value_info.append(value("y", [3, 4]))
    file = models.save(model, tmp_path / "m.onnx")
    graph = load_graph(file, batch=None if first == 3 else 3, inputs={"shape": [2, 5]})  # onnxruntime refuses these
    assert [graph.tensor(name).shape for name in "yz"] == [(3, 4) if first == 3 else None] * 2
    assert {"y", "z"} & graph.by_run == ({"y", "z"} if first == 3 else set())
    graph = load_graph(file, batch=None if first == 3 else 3, inputs={"shape": [3, 5]})
    assert graph.tensor("z").shape == (3, 5)
