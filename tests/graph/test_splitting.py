"""Parts: run one after the other they give what the whole gives, whatever the model and the cuts."""

import json
import re
import warnings
from pathlib import Path
from typing import Any

import models
import numpy as np
import onnx
import pytest
import random_models
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pepper.errors import ConfigError, ModelError
from pepper.graph.cuts import cut_at, find_cuts
from pepper.graph.load import load_graph
from pepper.graph.manifest import MANIFEST, Manifest, read_manifest
from pepper.graph.rounding import difference
from pepper.graph.running import random_inputs, run_parts, run_whole
from pepper.graph.split import part_operators, split
from pepper.graph.verify import accepted, prove, verify


def part_protos(manifest: Manifest, folder: Path) -> list[onnx.ModelProto]:
    return [onnx.load(str(folder / part.file), load_external_data=False) for part in manifest.parts]


LIKE_ALEXNET = ("light_vgg19", "light_zfnet512")  # chains, and of hundreds of megabytes


@pytest.mark.parametrize(
    "file", [file for file in models.LIGHT_MODELS if file.stem not in LIKE_ALEXNET], ids=lambda file: file.stem
)
def test_real_models_in_parts_give_the_whole_output(file: Path, tmp_path: Path) -> None:
    graph = load_graph(file)
    cuts = find_cuts(graph)
    manifest = split(graph, cuts[:: max(1, len(cuts) // 4)], tmp_path / "parts")
    result = verify(graph, manifest, tmp_path / "parts", threads=1)
    assert result.ok, result


@pytest.mark.parametrize("kind", ["tensors", "frontiers"])
@pytest.mark.parametrize("name", models.MODELS)
def test_every_kind_of_model_cut_everywhere_gives_the_whole_output(name: str, kind: str, tmp_path: Path) -> None:
    graph = load_graph(models.save(models.MODELS[name](), tmp_path / "m.onnx"))
    cuts = find_cuts(graph, kind, max_tensors=5)
    manifest = split(graph, cuts, tmp_path / "parts")
    assert len(manifest.parts) >= 2
    result = verify(graph, manifest, tmp_path / "parts", threads=1)
    assert result.ok, result
    own = {node.SerializeToString() for node in graph.proto.graph.node}
    for part, model in zip(manifest.parts, part_protos(manifest, tmp_path / "parts"), strict=True):
        if all(spec.shape is not None for spec in (*part.inputs, *part.outputs)):
            onnx.checker.check_model(model)
        elsewhere = {name for node in graph.makers.values() if node.op_type == "Shape" for name in node.output}
        here = (node for node in model.graph.node if not (node.op_type == "Constant" and node.output[0] in elsewhere))
        assert {node.SerializeToString() for node in here} <= own, "parts are cut, not changed"
        assert {p.key: p.value for p in model.metadata_props} == {"trained_on": "noise"}


def test_a_model_without_operators_is_one_part(tmp_path: Path) -> None:
    b = models.Builder()
    b.op("Shape", "x", outputs=["size"])
    outputs = [
        models.value("size", [2], onnx.TensorProto.INT64),
        models.value(b.weight(3), [3]),
        models.value("x", [1, 3]),
    ]
    graph = load_graph(models.save(b.model([models.value("x", [1, 3])], outputs), tmp_path / "m.onnx"))
    assert not graph.operators
    manifest = split(graph, [], tmp_path / "parts")
    (part,) = part_protos(manifest, tmp_path / "parts")
    onnx.checker.check_model(part)
    assert verify(graph, manifest, tmp_path / "parts", threads=1).boundary is None


@given(model=random_models.models(), data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_cuts_of_any_graph_give_the_whole_output(
    model: onnx.ModelProto, data: st.DataObject, tmp_path: Path
) -> None:
    graph = load_graph(random_models.saved(model, tmp_path))
    every = find_cuts(graph, "frontiers", 9)
    cuts = data.draw(st.lists(st.sampled_from(every), unique=True)) if every else []
    groups = part_operators(graph, cuts)
    assert sorted(index for group in groups for index in group) == list(range(len(graph.operators)))
    manifest = split(graph, cuts, tmp_path / "parts")
    result = verify(graph, manifest, tmp_path / "parts", tolerance=1e-5, threads=1)
    assert result.ok, result


def test_operators_that_read_shapes_are_written_as_they_are(tmp_path: Path) -> None:
    graph = load_graph(models.save(models.affine_grid(), tmp_path / "g.onnx"))
    assert graph.constants
    manifest = split(graph, [cut_at(graph, "add_5_0")], tmp_path / "parts")
    first, _ = part_protos(manifest, tmp_path / "parts")
    assert "Size" in [node.op_type for node in first.graph.node]
    feeds = {"x": np.zeros((2, 5), np.float32), "size": np.array([2, 5])}
    assert run_parts(manifest, tmp_path / "parts", feeds, threads=1)["relu_6_0"].tolist() == [[0, 1, 2, 3, 4]] * 2


def test_a_shape_of_what_another_part_holds_is_a_constant(tmp_path: Path) -> None:
    b = models.Builder()
    rows = b.op("Gather", b.op("Shape", b.op("Exp", "x")), b.constant([0], np.int64))
    b.nodes.append(onnx.helper.make_node("Relu", ["exp_0_0"], ["r"]))
    flat = b.op("Reshape", b.op("Tanh", "r"), b.op("Concat", rows, b.constant([-1], np.int64), axis=0))
    model = b.model([models.value("x", [2, 3, 4])], [models.value(flat, [2, 12])])
    graph = load_graph(models.save(model, tmp_path / "m.onnx"))
    manifest = split(graph, [cut_at(graph, "r")], tmp_path / "parts")
    assert verify(graph, manifest, tmp_path / "parts", threads=1).ok
    _, second = part_protos(manifest, tmp_path / "parts")
    assert [node.op_type for node in second.graph.node] == ["Tanh", "Constant", "Gather", "Concat", "Reshape"]
    one = split(graph, [], tmp_path / "one")
    (whole,) = part_protos(one, tmp_path / "one")
    assert {n.SerializeToString() for n in whole.graph.node} == {n.SerializeToString() for n in model.graph.node}


def test_borders_have_a_rank_wherever_one_is_known(tmp_path: Path) -> None:
    graph = load_graph(models.save(models.unranked(), tmp_path / "u.onnx"))
    manifest = split(graph, find_cuts(graph), tmp_path / "parts")
    assert manifest.outputs[0].shape == ("p", "q")
    ranks = {spec.name: spec.shape for part in manifest.parts for spec in part.outputs}
    assert ranks["fusedmatmul_0_0"] == (None, None)


def test_a_rank_that_nobody_knows_is_no_scalar(tmp_path: Path) -> None:
    b = models.Builder()
    x = b.op("Relu", b.op("Relu", b.op("Squeeze", "x", "axes")))
    inputs = [models.value("x", [1, 1, 4]), models.value("axes", [1], onnx.TensorProto.INT64)]
    file = models.save(b.model(inputs, [models.value(x, None)]), tmp_path / "m.onnx")
    shown = split(graph := load_graph(file), find_cuts(graph)[-1:], tmp_path / "shown")
    assert shown.outputs[0].shape == (None, None), "onnxruntime shows two sizes, which may change"
    graph = load_graph(file, inputs={"axes": 2})  # onnxruntime cannot run that
    manifest = split(graph, find_cuts(graph)[-1:], tmp_path / "parts")
    assert manifest.outputs[0].shape is None
    assert read_manifest(tmp_path / "parts") == manifest


def test_dynamic_dimensions_survive(tmp_path: Path) -> None:
    file = models.save(models.transformer(length="n", batch="b"), tmp_path / "t.onnx")
    graph = load_graph(file, dims={"n": 6})
    manifest = split(graph, find_cuts(graph, "frontiers", 3), tmp_path / "parts")
    feeds = {"ids": np.ones((3, 9), np.int64), "mask": np.ones((3, 9), np.int64)}
    values = run_parts(manifest, tmp_path / "parts", feeds, threads=1)
    assert values[manifest.outputs[0].name].shape == (3, 9, 16)


def test_external_weights_stay_external_and_go_where_they_are_read(tmp_path: Path) -> None:
    inside = models.save(models.shared_embedding(), tmp_path / "inside.onnx")
    file = models.save(models.shared_embedding(), tmp_path / "outside.onnx", external=True)
    graph = load_graph(file)
    manifest = split(graph, find_cuts(graph), tmp_path / "parts")
    assert verify(graph, manifest, tmp_path / "parts", threads=1).ok
    parts = part_protos(manifest, tmp_path / "parts")
    readers = [number for number, part in enumerate(parts) if "w0" in {w.name for w in part.graph.initializer}]
    assert readers == [0, len(parts) - 1]  # the shared table
    for spec, model in zip(manifest.parts, parts, strict=True):
        outside = [w for w in model.graph.initializer if w.data_location == onnx.TensorProto.EXTERNAL]
        assert len(outside) == len(model.graph.initializer)
        assert (spec.weights_file is not None) == bool(outside)
    whole = load_graph(inside)
    assert verify(whole, manifest, tmp_path / "parts", threads=1).ok


def test_opsets_functions_and_quantisation_survive(tmp_path: Path) -> None:
    graph = load_graph(models.save(models.local_functions(), tmp_path / "f.onnx"))
    cuts = find_cuts(graph)
    manifest = split(graph, cuts[:1], tmp_path / "parts")
    first, second = part_protos(manifest, tmp_path / "parts")
    assert [f.name for f in first.functions] == []
    assert sorted(f.name for f in second.functions) == ["Block", "Half"]
    assert {o.domain: o.version for o in second.opset_import} == {"": 17, "mine": 1}
    graph = load_graph(models.save(models.quantized(), tmp_path / "q.onnx"))
    manifest = split(graph, find_cuts(graph)[3:4], tmp_path / "parts")
    first, second = part_protos(manifest, tmp_path / "parts")
    assert len(first.graph.quantization_annotation) == 1
    assert any(w.data_type == onnx.TensorProto.INT8 and len(w.dims) == 4 for w in second.graph.initializer)


def test_the_manifest_says_how_parts_fit(tmp_path: Path) -> None:
    graph = load_graph(models.save(models.detector(), tmp_path / "d.onnx"))
    cuts = [cut for cut in find_cuts(graph) if cut.in_order]
    manifest = split(graph, cuts[3::6], tmp_path / "parts")
    assert read_manifest(tmp_path / "parts") == manifest
    known = {spec.name for spec in manifest.inputs}
    for part in manifest.parts:
        assert {spec.name for spec in part.inputs} <= known
        known |= {spec.name for spec in part.outputs}
    assert {spec.name for spec in manifest.outputs} <= known
    for part, model in zip(manifest.parts, part_protos(manifest, tmp_path / "parts"), strict=True):
        assert [value.name for value in model.graph.input] == [spec.name for spec in part.inputs]
        onnx.checker.check_model(model, full_check=True)


def test_an_earlier_split_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    graph = load_graph(models.save(models.chain(), tmp_path / "c.onnx"))
    out = tmp_path / "parts"
    split(graph, find_cuts(graph), out)
    split(graph, find_cuts(graph)[:1], out)
    assert sorted(path.name for path in out.iterdir()) == [MANIFEST, "part_1.onnx", "part_2.onnx"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match=r"split\.out=.*mine"):
        split(graph, find_cuts(graph), tmp_path / "mine")
    assert (tmp_path / "mine/thesis.txt").is_file()


def test_a_failed_split_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    file = models.save(models.chain(), folder / "c.onnx", external=True)
    graph = load_graph(file)
    weights = folder / "c.onnx.data"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(ModelError, match="truncated"):
        split(graph, find_cuts(graph), tmp_path / "parts")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_part_that_computes_something_else_is_found(tmp_path: Path) -> None:
    graph = load_graph(models.save(models.chain(), tmp_path / "c.onnx"))
    cuts = [cut for cut in find_cuts(graph) if cut.position in (3, 6, 9)]
    manifest = split(graph, cuts, tmp_path / "parts")
    file = tmp_path / "parts" / manifest.parts[1].file
    part = onnx.load(str(file))
    weight = part.graph.initializer[0]
    weight.raw_data = (onnx.numpy_helper.to_array(weight) * 1.5).tobytes()
    onnx.save(part, str(file))
    result = verify(graph, manifest, tmp_path / "parts", threads=1)
    assert not result.ok
    assert result.boundary == manifest.parts[1].outputs[0].name


def saturated() -> onnx.ModelProto:
    """A detector that sees nothing: onnxruntime's sigmoid is off by 1e-7, which is much of what comes out."""
    b = models.Builder()
    x = "x"
    for _ in range(4):
        ones = np.ones(16, np.float32)
        stats = [b.constant(array) for array in (ones, 0 * ones, 0 * ones, ones)]
        x = b.op("Tanh", b.op("BatchNormalization", b.conv(x, 16, 16), *stats))
    bias = b.constant([-11], np.float32)
    b.op("Sigmoid", b.op("Conv", x, b.weight(1, 16, 1, 1), bias, outputs=["logit"]), outputs=["p"])
    return b.model([models.value("x", [1, 16, 32, 32])], [models.value("p", [1, 1, 32, 32])])


def test_rounding_of_saturated_outputs_is_no_difference(tmp_path: Path) -> None:
    graph = load_graph(models.save(saturated(), tmp_path / "m.onnx"))
    cuts = [cut_at(graph, name) for name in ("conv_0_0", "conv_3_0", "conv_6_0", "logit")]
    manifest = split(graph, cuts, tmp_path / "parts")
    result = verify(graph, manifest, tmp_path / "parts", threads=1)
    assert result.ok, result
    feeds = random_inputs(graph)
    expected = run_whole(graph, feeds)
    assert result.tolerance <= accepted(graph, [(feeds, expected)])["p"] * 10
    assert difference(expected["p"], 1.5 * expected["p"]) > result.tolerance, "what is wrong is found still"


def test_infinities_at_the_same_places_are_no_difference() -> None:
    values = np.array([np.inf, -np.inf, np.nan, 2.0], np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert difference(values, values.copy()) == 0
        assert difference(values, np.array([np.inf, -np.inf, np.nan, 1.0], np.float32)) == 0.5
        assert difference(values, values[::-1].copy()) == np.inf


@given(
    values=hnp.arrays(np.float32, (5,), elements=st.floats(-100, 100, width=32)),
    off=st.floats(1e-3, 10),
)
def test_differences_are_relative_to_the_largest_value(values: np.ndarray, off: float) -> None:
    largest = max(1e-6, float(np.abs(values).max()))
    moved = values.astype(np.float64)
    moved[0] += off
    assert difference(values.astype(np.float64), moved) == pytest.approx(off / largest, rel=1e-6)
    assert difference(values, values) == 0
    assert difference(values, values[:4]) == difference(values, values.astype(np.float64)) == np.inf


def test_one_class_of_many_that_tips_is_a_small_difference() -> None:
    classes = np.arange(10_000) % 21
    tipped = classes.copy()
    tipped[7] = 20
    assert 0 < difference(classes, tipped) < 1e-4
    assert difference(classes, classes[::-1].copy()) > 0.1


def test_parts_are_marked_proved_only_when_they_are(tmp_path: Path) -> None:
    graph = load_graph(models.save(models.chain(), tmp_path / "c.onnx"))
    manifest = split(graph, find_cuts(graph)[3:4], tmp_path / "parts")
    assert read_manifest(tmp_path / "parts").proof.startswith("not proved")
    assert prove(graph, manifest, tmp_path / "parts").ok
    assert read_manifest(tmp_path / "parts").proof.startswith("proved: ")
    second = tmp_path / "parts" / manifest.parts[1].file
    part = onnx.load(second)
    part.graph.input[0].type.tensor_type.ClearField("shape")
    whole = onnx.load(graph.file)
    whole.graph.output[0].type.tensor_type.shape.SetInParent()
    for size in graph.tensors[graph.outputs[0]].shape or ():
        whole.graph.output[0].type.tensor_type.shape.dim.add(dim_value=size)
    onnx.save(whole, graph.file)
    onnx.save(part, second)
    assert f"{manifest.parts[1].file} is no valid ONNX" in str(prove(graph, manifest, tmp_path / "parts"))
    assert read_manifest(tmp_path / "parts").proof.startswith("not proved: part_2.onnx is no valid ONNX")


def test_inputs_are_the_same_for_the_same_seed(tmp_path: Path) -> None:
    graph = load_graph(models.save(models.transformer(), tmp_path / "t.onnx"))
    first, again, other = (random_inputs(graph, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert any(not np.array_equal(first[name], other[name]) for name in first)


def test_a_manifest_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="task=split"):
        read_manifest(tmp_path)
    (tmp_path / MANIFEST).write_text(json.dumps({"format": 99}))
    with pytest.raises(ModelError, match="not a manifest"):
        read_manifest(tmp_path)


def test_parts_load_though_a_branch_could_not_run_at_these_sizes(tmp_path: Path) -> None:
    file = models.save(models.two_rates(), tmp_path / "m.onnx")
    graph = load_graph(file, shapes={"x": [1, 6]}, inputs={"rate": 16000})
    manifest = split(graph, find_cuts(graph, "frontiers"), tmp_path / "parts")
    assert len(manifest.parts) == 2
    assert verify(graph, manifest, tmp_path / "parts", threads=1).ok


# What is changed in a manifest, and what the error says of it.
EDITS: list[tuple[list[str | int], Any, str]] = [
    (["parts", 0, "file"], "../part_1.onnx", "parts.0.file is '../part_1.onnx': is no plain file name"),
    (["parts", 0, "file"], "/etc/hostname", "is no plain file name"),
    (["parts", 0, "file"], "..", "is no plain file name"),
    (["parts", 0, "file"], "", "is no plain file name"),
    (["parts", 0, "file"], "a\0", "is no plain file name"),
    (["parts", 0, "file"], None, "parts.0.file is None"),
    (["parts", 0, "weights_file"], "../w", "is no plain file name"),
    (["parts", 0, "sha256"], "0", "parts.0.sha256 is '0'"),
    (["parts", 0, "inputs", 0, "shape"], [1.5], "shape"),
    (["parts", 0, "inputs", 0, "dtype"], "object", "is no element type"),
    (["parts"], [], "parts is"),
    (["cuts"], {}, "cuts is {}"),
    (["shapes"], {"x": [-1]}, "shapes.x.0 is -1"),
    (["format"], [], "format []"),
]


@pytest.mark.parametrize(("where", "value", "said"), EDITS)
def test_an_edited_manifest_is_refused_in_a_line(where: list[Any], value: Any, said: str, tmp_path: Path) -> None:
    graph = load_graph(models.save(models.chain(), tmp_path / "c.onnx"))
    split(graph, find_cuts(graph)[:1], tmp_path / "parts")
    file = tmp_path / "parts" / MANIFEST
    content = json.loads(file.read_text())
    home = content
    for step in where[:-1]:
        home = home[step]
    home[where[-1]] = value
    file.write_text(json.dumps(content))
    with pytest.raises(ModelError, match=re.escape(said)) as caught:
        read_manifest(tmp_path / "parts")
    assert "\n" not in str(caught.value)


def test_a_part_that_is_a_link_out_of_the_folder_is_not_taken(tmp_path: Path) -> None:
    graph = load_graph(models.save(models.chain(), tmp_path / "c.onnx"))
    manifest = split(graph, find_cuts(graph)[:1], tmp_path / "parts")
    assert manifest.parts[0].is_intact(tmp_path / "parts")
    file = tmp_path / "parts" / manifest.parts[0].file
    file.rename(tmp_path / "elsewhere.onnx")
    file.symlink_to(tmp_path / "elsewhere.onnx")
    assert not manifest.parts[0].is_intact(tmp_path / "parts")
