"""Models as users have them: dynamic, split over files, damaged."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from harness import Desk, make_model, mlp
from onnx import TensorProto, helper, numpy_helper

from pepper.config import ModelConfig
from pepper.errors import ModelError
from pepper.graph.load import load_graph
from pepper.graph.model import find_model
from pepper.graph.split import split
from pepper.graph.verify import verify


def saved(model: onnx.ModelProto, file: Path) -> Path:
    onnx.save(model, file)
    return file


def with_inputs(**inputs: list[int | str | None]) -> onnx.ModelProto:
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name in inputs]
    return make_model(nodes, dict(inputs), {f"{name}_out": shape for name, shape in inputs.items()})


def shapes(file: Path, **given: Any) -> dict[str, list[int]]:
    return find_model(ModelConfig(path=str(file), **given)).shapes


def test_fixed_shapes_are_taken(models: dict[str, Path]) -> None:
    assert shapes(models["tiny"]) == {"input": [1, 16]}


def test_a_dynamic_first_dimension_is_the_batch(models: dict[str, Path]) -> None:
    assert shapes(models["dynamic"]) == {"input": [1, 16]}
    assert shapes(models["dynamic"], batch=4) == {"input": [4, 16]}
    assert shapes(models["dynamic"], dims={"N": 3}, batch=3) == {"input": [3, 16]}
    assert shapes(models["dynamic"], shapes={"input": [2, 16]}, dims={"N": 2}) == {"input": [2, 16]}


def test_a_named_dimension_holds_for_every_input(tmp_path: Path) -> None:
    file = saved(with_inputs(ids=["N", "L"], mask=["N", "L"], other=[None, 3]), tmp_path / "m.onnx")
    assert shapes(file, dims={"L": 7}, batch=2) == {"ids": [2, 7], "mask": [2, 7], "other": [2, 3]}


def test_a_scalar_input(tmp_path: Path) -> None:
    assert shapes(saved(with_inputs(x=[]), tmp_path / "m.onnx")) == {"x": []}


def test_weights_among_the_inputs_are_not_fed(tmp_path: Path) -> None:
    model = mlp()
    for tensor in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    assert shapes(saved(model, tmp_path / "m.onnx")) == {"input": [1, 16]}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, r"input 'ids': dimension 1 \(L\) is dynamic .*model.dims.L=N or model.shapes.ids=\[...\]"),
        ({"dims": {"L": 4}}, r"input 'x': dimension 2 \(unnamed\) is dynamic .*give model.shapes.x=\[...\]"),
        ({"dims": {"l": 4}}, r"model.dims.l: the model has no such dimension.*dynamic dimensions: L, N"),
        ({"shapes": {"idz": [1, 2]}}, r"model.shapes.idz: the model has no such input; did you mean 'ids'\?"),
        ({"dims": {"L": 4}, "shapes": {"x": [1, 3]}}, r"model.shapes.x=\[1, 3\]: the model wants \[1, 3, \?\]"),
        ({"dims": {"L": 4}, "shapes": {"x": [1, 4, 5]}}, r"model.shapes.x=\[1, 4, 5\]: the model wants"),
        ({"shapes": {"ids": [1, -2]}}, r"model.shapes.ids=\[1, -2\]"),
        ({"dims": {"L": 4}, "shapes": {"x": [1, 3, -1]}}, r"model.shapes.x=\[1, 3, -1\]"),
        (
            {"dims": {"L": 4}, "batch": 2},
            r"model.batch=2: input 'x' has a fixed first dimension of 1",
        ),
    ],
)
def test_shapes_that_do_not_fit(tmp_path: Path, given: dict[str, Any], said: str) -> None:
    file = saved(with_inputs(ids=["N", "L"], x=[1, 3, None]), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=said) as caught:
        shapes(file, **given)
    assert "\n" not in str(caught.value)


def test_sizes_that_mean_unknown(tmp_path: Path) -> None:
    inputs = {"a": [-1, 8], "b": [0, 8], "c": ["?", "None", "None", 3], "d": [2, 0]}
    file = saved(with_inputs(**inputs), tmp_path / "m.onnx")  # type: ignore[arg-type]
    given = {"c": [2, 5, 7, 3]}
    assert shapes(file, shapes=given) == {"a": [1, 8], "b": [1, 8], "c": [2, 5, 7, 3], "d": [2, 0]}
    given = {"a": [3, 8], "b": [0, 8], **given}
    assert shapes(file, shapes=given) == {**given, "d": [2, 0]}


def test_a_past_of_no_length(tmp_path: Path) -> None:
    past = {"ids": ["batch", "sequence"], "past": ["batch", 4, "past", 8]}
    file = saved(with_inputs(**past), tmp_path / "m.onnx")  # type: ignore[arg-type]
    wanted = {"ids": [1, 3], "past": [1, 4, 0, 8]}
    assert shapes(file, dims={"sequence": 3, "past": 0}) == wanted
    assert shapes(file, shapes=wanted) == wanted
    graph = load_graph(file, dims={"sequence": 3, "past": 0})
    assert graph.tensor("past_out").shape == (1, 4, 0, 8)
    assert graph.tensor("past_out").bytes == 0


def test_one_size_for_one_symbol(tmp_path: Path) -> None:
    inputs = {"ids": ["B", "L"], "mask": ["B", "L"], "state": [2, "B", 4], "late": ["L", 3]}
    file = saved(with_inputs(**inputs), tmp_path / "m.onnx")  # type: ignore[arg-type]
    both = {"ids": [2, 7], "mask": [2, 7], "state": [2, 2, 4], "late": [7, 3]}
    assert shapes(file, shapes={"mask": [2, 7]}) == both
    assert shapes(file, dims={"L": 7}, batch=2) == both
    assert shapes(file, dims={"L": 7, "B": 2}) == both
    for given, said in [
        ({"shapes": {"ids": [2, 7], "mask": [2, 8]}}, "ids=[2, 7] and model.shapes.mask=[2, 8]: two sizes, 7 and 8,"),
        ({"shapes": {"ids": [2, 7]}, "dims": {"B": 3}}, "model.dims.B=3 and model.shapes.ids=[2, 7]: two sizes, 3 and"),
        ({"dims": {"B": 3, "L": 7}, "batch": 2}, "model.batch=2 and model.dims.B=3: two sizes, 2 and 3, for the first"),
    ]:
        with pytest.raises(ModelError) as caught:
            shapes(file, **given)
        assert said in str(caught.value)
        with pytest.raises(ModelError):
            load_graph(file, **given)


def test_sizes_beyond_memory_are_refused(tmp_path: Path) -> None:
    for size in (2**31, 2**40, 2**62):
        with pytest.raises(ModelError, match="more than 134,217,728 elements"):
            shapes(saved(with_inputs(x=[1, size]), tmp_path / "m.onnx"))


def test_a_size_that_is_no_constant_does_not_fix_a_graph(tmp_path: Path) -> None:
    file = saved(with_inputs(a=["B", 3], b=[2, "B"]), tmp_path / "m.onnx")
    assert not load_graph(file).fixed
    assert load_graph(file, batch=2).fixed
    assert load_graph(file, shapes={"b": [2, 1]}).fixed


def test_contents_are_the_identity(tmp_path: Path) -> None:
    def digest(file: Path) -> str:
        return find_model(ModelConfig(path=str(file))).content_hash

    first, copy = saved(mlp(), tmp_path / "a.onnx"), saved(mlp(), tmp_path / "b.onnx")
    assert digest(first) == digest(copy)
    assert digest(saved(mlp(17), tmp_path / "c.onnx")) != digest(first)


def external(folder: Path, location: str = "weights.bin") -> Path:
    folder.mkdir(exist_ok=True)
    model = make_model(
        [helper.make_node("MatMul", ["input", "w"], ["output"])],
        {"input": [1, 16]},
        {"output": [1, 16]},
    )
    tensor = numpy_helper.from_array(np.ones((16, 16), dtype=np.float32), "w")
    (folder / "weights.bin").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    model.graph.initializer.append(tensor)
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    return folder / "m.onnx"


def test_external_weights_are_part_of_the_contents(tmp_path: Path) -> None:
    file = external(tmp_path)
    before = find_model(ModelConfig(path=str(file))).content_hash
    (tmp_path / "weights.bin").write_bytes(bytes(16 * 16 * 4))
    assert find_model(ModelConfig(path=str(file))).content_hash != before


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/hostname", "sub/../../weights.bin"])
def test_external_weights_stay_in_the_folder(tmp_path: Path, location: str) -> None:
    (tmp_path / "weights.bin").write_bytes(bytes(1024))
    with pytest.raises(ModelError, match="lies outside the model's folder"):
        find_model(ModelConfig(path=str(external(tmp_path / "inner", location))))


def hub(root: Path) -> Path:
    """A model as the Hugging Face cache lays it out: names that link to contents named by their hash."""
    blobs, snapshot = root / "blobs", root / "snapshots" / "abc" / "onnx"
    snapshot.mkdir(parents=True)
    file = external(blobs)
    for content, name in ((file, "model.onnx"), (blobs / "weights.bin", "weights.bin")):
        blob = content.rename(blobs / f"{len(name)}0d")
        (snapshot / name).symlink_to(Path("../../../blobs") / blob.name)
    return snapshot / "model.onnx"


def test_links_in_the_models_folder_are_followed(desk: Desk, tmp_path: Path) -> None:
    """By every task that reads the weights, and the hash covers them."""
    file = hub(tmp_path / "hub")
    model = ("model=onnx", f"model.path={file}")
    before = find_model(ModelConfig(path=str(file)))
    assert before.file == file
    assert desk(*model, "device=share100").status == 0
    split = desk("task=split", *model, "split.parts=1", f"split.out={tmp_path}/parts")
    assert split.status == 0, split.err
    assert "proved" in split.out
    assert not (tmp_path / "parts" / "part_1.onnx.data").is_symlink()
    (file.parent / "weights.bin").resolve().write_bytes(bytes(1024))
    assert find_model(ModelConfig(path=str(file))).content_hash != before.content_hash


def test_weights_may_be_linked_from_anywhere(tmp_path: Path) -> None:
    """Also from folders that onnxruntime itself would refuse; and parts do not depend on the link."""
    file = external(tmp_path / "mine", "deep/link.bin")
    (tmp_path / "store").mkdir()
    (tmp_path / "mine" / "weights.bin").rename(tmp_path / "store" / "link.bin")
    (tmp_path / "mine" / "deep").symlink_to(tmp_path / "store")
    graph = load_graph(file)
    manifest = split(graph, [], tmp_path / "parts")
    assert verify(graph, manifest, tmp_path / "parts").ok


# What is wrong with where weights are said to lie, and what the error says of it.
MISPLACED: dict[str, tuple[dict[str, str], str]] = {
    "no number": ({"offset": "0x10"}, "offset of weight 'w' is '0x10', no number"),
    "negative": ({"offset": "-4"}, "no number"),
    "empty": ({"offset": ""}, "no number"),
    "digits": ({"length": "9" * 5000}, "no number"),
    "other digits": ({"offset": "\u0663"}, "no number"),
    "beyond": ({"offset": "4"}, "truncated"),
    "far beyond": ({"offset": str(10**17)}, "truncated"),
    "short": ({"length": "1020"}, "said to have 1020 bytes"),
    "long": ({"length": "4096"}, "said to have 4096 bytes"),
    "no name": ({"location": ""}, "no file's name"),
    "a dot": ({"location": "."}, "no file's name"),
    "NUL": ({"location": "weights.bin\0"}, "no file's name"),
    "long name": ({"location": "w" * 300}, "File name too long"),
    "folder": ({"location": "folder"}, "no regular file"),
    "loop": ({"location": "loop"}, "Too many levels of symbolic links"),
    "device": ({"location": "device"}, "no regular file"),
    "below a file": ({"location": "weights.bin/x"}, "Not a directory"),
}


@pytest.mark.parametrize("name", MISPLACED)
def test_places_of_weights_are_checked(name: str, tmp_path: Path) -> None:
    file = external(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "device").symlink_to("/dev/zero")
    proto = onnx.load(file, load_external_data=False)
    entries, said = MISPLACED[name]
    (weight,) = proto.graph.initializer
    kept = {entry.key: entry.value for entry in weight.external_data} | entries
    del weight.external_data[:]
    for key, value in kept.items():
        weight.external_data.add(key=key, value=value)
    with pytest.raises(ModelError, match=re.escape(said)) as caught:
        load_graph(saved(proto, file))
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def _typeless(weight: onnx.TensorProto) -> None:
    weight.data_type = 0


def _of_another_type(weight: onnx.TensorProto) -> None:
    weight.data_type = 77


def _impossible(weight: onnx.TensorProto) -> None:
    weight.dims[0] = -16


def _huge(weight: onnx.TensorProto) -> None:
    weight.dims[:] = [2**40, 2**40]


def _emptied(weight: onnx.TensorProto) -> None:
    weight.ClearField("raw_data")


def _cut_off(weight: onnx.TensorProto) -> None:
    weight.raw_data = weight.raw_data[:-1]


def _wider(weight: onnx.TensorProto) -> None:
    weight.data_type = TensorProto.DOUBLE


@pytest.mark.parametrize("harm", [_typeless, _of_another_type, _impossible, _huge, _emptied, _cut_off, _wider])
def test_weights_hold_what_they_say(harm: Callable[[onnx.TensorProto], None], tmp_path: Path) -> None:
    model = mlp()
    harm(model.graph.initializer[0])
    with pytest.raises(ModelError, match=f"weight {model.graph.initializer[0].name!r}"):
        find_model(ModelConfig(path=str(saved(model, tmp_path / "m.onnx"))))


def _no_body(model: onnx.ModelProto) -> None:
    model.graph.node[0].attribute.append(onnx.AttributeProto(name="body", type=onnx.AttributeProto.GRAPH))


def _number_for_text(model: onnx.ModelProto) -> None:
    model.graph.node[0].CopyFrom(helper.make_node("Gelu", ["input"], list(model.graph.node[0].output), approximate=3))
    model.opset_import[0].version = 20


def _unknown_type(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = 99


def _a_functions_parameter(model: onnx.ModelProto) -> None:
    model.graph.node[0].attribute.append(onnx.AttributeProto(name="alpha", ref_attr_name="slope", type=1))


def _no_branch(model: onnx.ModelProto) -> None:
    model.graph.node[0].CopyFrom(helper.make_node("If", ["input"], list(model.graph.node[0].output)))


def _no_condition(model: onnx.ModelProto) -> None:
    branch = helper.make_graph([], "branch", [], [model.graph.output[0]])
    choice = helper.make_node("If", [], list(model.graph.node[0].output), then_branch=branch, else_branch=branch)
    model.graph.node[0].CopyFrom(choice)


def _no_text(model: onnx.ModelProto) -> None:
    whole = model.SerializeToString()
    kind = model.graph.node[0].op_type.encode()
    model.ParseFromString(whole.replace(kind, b"\xff" + kind[1:], 1))


def _twice(model: onnx.ModelProto) -> None:
    model.graph.input.append(model.graph.input[0])


def _from_the_future(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 2**40


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (_no_body, "attribute 'body'"),
        (_number_for_text, "attribute 'approximate'"),
        (_unknown_type, "99"),
        (_a_functions_parameter, "attribute 'alpha' .* is in no function"),
        (_no_condition, "has too few inputs"),
        (_no_branch, "has no else_branch"),
        (_no_text, "no UTF-8 text"),
        (_twice, "two inputs have the name 'input'"),
        (_from_the_future, f"version {2**40} of the operator set"),
    ],
)
def test_operators_hold_what_they_say(harm: Callable[[onnx.ModelProto], None], said: str, tmp_path: Path) -> None:
    model = mlp()
    harm(model)
    with pytest.raises(ModelError, match=said):
        load_graph(saved(model, tmp_path / "m.onnx"))


def bad_files(folder: Path) -> dict[str, str]:
    """What is wrong, by the path that is given."""
    whole = mlp(64).SerializeToString()
    (folder / "corrupt.onnx").write_bytes(b"\xff" * 100)
    (folder / "empty.onnx").touch()
    (folder / "text.onnx").write_text("<html>404</html>")
    (folder / "truncated.onnx").write_bytes(whole[: len(whole) // 2])
    (folder / "folder.onnx").mkdir()
    with (folder / "large.onnx").open("wb") as stream:
        stream.truncate(2**31 + 1)
    no_outputs = mlp()
    del no_outputs.graph.output[:]
    saved(no_outputs, folder / "no_outputs.onnx")
    (external(folder / "external").parent / "weights.bin").unlink()
    saved(with_inputs(input=["N", "L"]), folder / "dynamic.onnx")
    return {
        "missing.onnx": "no such file",
        "truncatd.onnx": "no such file; did you mean 'truncated.onnx'",
        "folder.onnx": "is a directory",
        "corrupt.onnx": "not a readable ONNX model",
        "text.onnx": "not a",
        "empty.onnx": "not an ONNX model",
        "large.onnx": "larger than 2 GiB",
        "truncated.onnx": "not a readable ONNX model",
        "no_outputs.onnx": "it has no outputs",
        "external/m.onnx": "external data file 'weights.bin' is missing",
        "dynamic.onnx": "give model.dims.L=N or model.shapes.input=[...]",
    }


def test_files_that_cannot_be_used_are_said_in_one_line(desk: Desk) -> None:
    for name, said in bad_files(desk.folder).items():
        outcome = desk("model=onnx", f"model.path={desk.folder / name}")
        assert outcome.status == 2, name
        assert said in outcome.error
        assert name.rpartition("/")[2] in outcome.error or "model.dims" in outcome.error
    outcome = desk("model=onnx", "model.path=pkg://no_such_package/m.onnx")
    assert "no Python package named 'no_such_package'" in outcome.error
    assert desk.runs() == []
    assert not desk.pending


def test_models_that_onnxruntime_refuses_are_failed_runs(desk: Desk, models: dict[str, Path]) -> None:
    future = mlp()
    future.opset_import[0].version = 999
    other = mlp()
    other.graph.node[1].domain = "com.example"
    other.opset_import.append(helper.make_opsetid("com.example", 1))
    files = {
        "opset": (saved(future, desk.folder / "opset.onnx"), "999"),
        "domain": (saved(other, desk.folder / "domain.onnx"), "com.example"),
        "operator": (models["unknown"], "Frobnicate"),
    }
    for name, (file, said) in files.items():
        outcome = desk("model=onnx", f"model.path={file}", f"model.name={name}", "device=share100")
        assert outcome.status == 1
        (line,) = [line for line in outcome.err.splitlines() if line.startswith("FAILED ")]
        assert line.startswith(f"FAILED {name} / share100 / idle / 1t: ")
        assert said in line
        assert "Traceback" not in outcome.err
    assert [run.info.status for run in desk.runs()] == ["FAILED"] * 3


def test_any_model_by_path_with_shapes_of_its_own(desk: Desk) -> None:
    file = saved(with_inputs(image=["N", 3, "H", "W"]), desk.folder / "mine.onnx")
    size = ("model.dims.H=8", "model.dims.W=6", "model.batch=2")
    for given in (["model.shapes.image=[2,3,8,6]"], size):
        assert desk("model=onnx", f"model.path={file}", "device=share100", *given).status == 0
    first, second = desk.runs()
    assert first.data.params["input_shapes"] == second.data.params["input_shapes"] == '{"image": [2, 3, 8, 6]}'
    assert first.data.params["batch"] == "2"
    assert first.data.params["model"] == "mine"
    assert first.data.tags["pepper.cell"] == second.data.tags["pepper.cell"]
