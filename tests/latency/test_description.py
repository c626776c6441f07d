"""Descriptions of models belong to the hash of what was measured, whatever lies at its path now."""

import json
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
from harness import Desk, mlp
from hypothesis import given
from hypothesis import strategies as st

from pepper.config import ModelConfig
from pepper.errors import ModelError
from pepper.graph import characteristics
from pepper.graph.model import find_model
from pepper.graph.source import model_hash
from pepper.latency import collect, description

SHAPES = '{"input": [1, 16]}'


@pytest.fixture
def model(tmp_path: Path) -> Path:
    file = tmp_path / "model.onnx"
    onnx.save(mlp(), file)
    return file


def cell(model: Path, **more: str) -> pd.DataFrame:
    row = {"model_sha256": model_hash(model), "input_shapes": SHAPES, "model_path": str(model), **more}
    return pd.DataFrame([row]).add_prefix("params.")


def with_branches() -> onnx.ModelProto:
    """A model for two sampling rates, one of which takes eight times the arithmetic of the other."""

    def branch(name: str, width: int) -> onnx.GraphProto:
        weight = onnx.numpy_helper.from_array(np.ones((8, width), np.float32), f"w_{name}")
        node = onnx.helper.make_node("MatMul", ["x", weight.name], [f"y_{name}"])
        output = onnx.helper.make_tensor_value_info(f"y_{name}", onnx.TensorProto.FLOAT, [1, width])
        return onnx.helper.make_graph([node], name, [], [output], [weight])

    nodes = [
        onnx.helper.make_node("Equal", ["rate", "high"], ["is_high"]),
        onnx.helper.make_node("If", ["is_high"], ["y"], then_branch=branch("high", 64), else_branch=branch("low", 8)),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "net",
        [
            onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 8]),
            onnx.helper.make_tensor_value_info("rate", onnx.TensorProto.INT64, []),
        ],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, None])],
        [onnx.numpy_helper.from_array(np.array(16000), "high")],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)


def export_another(model: Path) -> None:
    onnx.save(mlp(), model)
    proto = onnx.load(model)
    proto.graph.node.append(onnx.helper.make_node("Relu", ["h"], ["unused"]))
    onnx.save(proto, model)


@given(st.lists(st.floats(0, 1e18), min_size=len(characteristics.FEATURES), max_size=len(characteristics.FEATURES)))
def test_what_a_run_keeps_is_read_back(values: list[float]) -> None:
    text = description.encode(np.array(values))
    assert len(text) < 6000, "MLflow takes no longer parameters"
    read = description.decode(text)
    assert read is not None
    assert read.tolist() == values


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"version": "older"}', "{", float("nan")])
def test_what_is_damaged_or_of_another_version_describes_nothing(text: object) -> None:
    assert description.decode(text) is None
    good = json.loads(description.encode(np.ones(len(characteristics.FEATURES))))
    for wrong in ({"macs": "many"}, {"macs": [1]}, {"macs": float("nan")}, {"sprockets": 1}, {"macs": None}):
        assert description.decode(json.dumps({**good, **wrong})) is None


def test_another_model_at_the_path_is_no_description_of_what_was_measured(model: Path, tmp_path: Path) -> None:
    measured, cache = cell(model), tmp_path / "characteristics.parquet"
    export_another(model)
    left_out: dict[str, int] = {}
    for _ in range(2):  # what was refused is not kept either
        left_out.clear()
        assert collect._characteristics(measured, pd.Series(True, measured.index), cache, left_out, iter).empty
        assert not cache.exists()
        ((reason, count),) = left_out.items()
        assert count == 1
        assert f"{model} no longer tells what was measured: " in reason
        assert "another model is there now" in reason


def test_one_file_is_described_as_each_of_its_runs_says(model: Path, tmp_path: Path) -> None:
    """Values given for inputs may decide what a model costs: hash and shapes alone do not tell."""
    told = [np.full(len(characteristics.FEATURES), float(size)) for size in (1, 2)]
    cells = pd.concat([cell(model, characteristics=description.encode(values)) for values in told], ignore_index=True)
    kept, known = collect._described(cells, tmp_path, {}, iter)
    assert len(kept) == 2
    assert known[:, : len(told[0])].tolist() == [values.tolist() for values in told]


def test_given_values_decide_what_is_described(tmp_path: Path) -> None:
    """The branch that is taken is the one that counts."""
    file = tmp_path / "branches.onnx"
    onnx.save(with_branches(), file)
    macs = characteristics.FEATURES.index("macs")
    for rate, wanted in ((16000, 512.0), (8000, 64.0)):
        found = find_model(ModelConfig(path=str(file), inputs={"rate": rate}))
        assert description.describe_model(found)[macs] == wanted


def test_a_model_that_changes_while_it_is_read_is_refused(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured, read = model_hash(model), description.load_graph

    def slowly(*args: object, **options: object) -> object:
        export_another(model)
        return read(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(description, "load_graph", slowly)
    with pytest.raises(ModelError, match="changed while it was read"):
        description.describe(str(model), measured, SHAPES)


def test_what_the_run_keeps_counts_whatever_became_of_the_file(model: Path, tmp_path: Path) -> None:
    values = description.describe(str(model), model_hash(model), SHAPES)
    measured = cell(model, characteristics=description.encode(values))
    export_another(model)
    left_out: dict[str, int] = {}
    for _ in range(2):
        _, known = collect._described(measured, tmp_path, left_out, iter)
        assert known[:, : len(values)].tolist() == [values.tolist()]
        model.unlink(missing_ok=True)
    assert not left_out


def test_runs_without_a_description_of_this_version_are_described_by_their_file(model: Path, tmp_path: Path) -> None:
    old = cell(model, characteristics='{"version": "older", "macs": 1}')
    values = description.describe(str(model), model_hash(model), SHAPES)
    cache, left_out = tmp_path / "characteristics.parquet", {}
    for _ in range(2):
        known = collect._characteristics(old, pd.Series(True, old.index), cache, left_out, iter)
        assert known[list(characteristics.FEATURES)].to_numpy().tolist() == [values.tolist()]
        model.unlink(missing_ok=True)  # kept by hash: the file is not needed again
    assert not left_out


def test_what_an_earlier_pepper_described_counts_where_the_file_is_gone(model: Path, tmp_path: Path) -> None:
    values = description.describe(str(model), model_hash(model), SHAPES)
    text = json.dumps({**json.loads(description.encode(values)), "version": "older"})
    old = cell(model, characteristics=text)
    model.unlink()
    left_out: dict[str, int] = {}
    _, known = collect._described(old, tmp_path, left_out, iter)
    assert known[:, : len(values)].tolist() == [values.tolist()]
    assert not left_out


@pytest.mark.parametrize("damage", ["truncated", "flipped", "other", "gone"])
def test_damaged_descriptions_are_made_again(model: Path, tmp_path: Path, damage: str) -> None:
    file = tmp_path / "characteristics.parquet"
    wanted = {(model_hash(model), SHAPES): str(model)}
    (expected,) = description.describe_all(wanted, file)[0].values()
    content = file.read_bytes()
    if damage == "truncated":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        file.write_bytes(content[:60] + bytes([content[60] ^ 255]) + content[61:])
    elif damage == "other":
        pd.DataFrame({"a": [1]}).to_parquet(file)
    else:
        file.unlink()
    (again,) = description.describe_all(wanted, file)[0].values()
    assert again.tolist() == expected.tolist()
    assert description._kept(file).keys() == wanted.keys()


def test_a_measured_cell_is_described_where_it_is_logged(desk: Desk) -> None:
    assert desk("model=tiny").status == 0
    (run,) = desk.runs()
    path, sha256, shapes = (run.data.params[key] for key in ("model_path", "model_sha256", "input_shapes"))
    values = description.decode(run.data.params["characteristics"])
    assert values is not None
    assert values.tolist() == description.describe(path, sha256, shapes).tolist()
