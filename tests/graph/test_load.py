"""Loading: what counts as an operator, what as a weight; shapes; and models that cannot be used."""

import contextlib
import subprocess
import sys
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import models
import numpy as np
import onnx
import pytest
from models import Builder, value
from onnx import TensorProto, helper

from pepper.config import ModelConfig
from pepper.errors import ModelError
from pepper.graph import infer
from pepper.graph.borders import find_borders
from pepper.graph.ir import Graph, size_bytes
from pepper.graph.load import load_graph
from pepper.graph.model import find_model
from pepper.latency.description import describe_model


def kinds(graph: Graph) -> list[str]:
    return [operator.kind for operator in graph.operators]


@pytest.mark.parametrize("file", models.LIGHT_MODELS, ids=lambda file: file.stem)
def test_real_models_have_all_shapes_and_no_weights_among_the_operators(file: Path) -> None:
    graph = load_graph(file)
    assert not graph.unknown_shapes()
    assert not {"ConstantOfShape", "Unsqueeze"} & set(kinds(graph))
    assert len(graph.inputs) == 1
    for operator in graph.operators:
        for t in operator.reads:
            producer = graph.tensors[t].producer
            assert producer is None or producer < operator.index


@pytest.mark.parametrize("name", models.MODELS)
def test_operators_and_tensors_agree(name: str, tmp_path: Path) -> None:
    graph = load_graph(models.save(models.MODELS[name](), tmp_path / "m.onnx"))
    for operator in graph.operators:
        assert all(operator.index in graph.tensors[t].readers for t in operator.reads)
        assert all(graph.tensors[t].producer == operator.index for t in operator.writes)
    for tensor in graph.tensors:
        assert tensor.readers == tuple(sorted(set(tensor.readers)))
        assert (tensor.producer is None) == (tensor.is_weight or tensor.id in graph.inputs)
    assert len({operator.name for operator in graph.operators}) == len(graph.operators)


def test_weights_in_every_form_are_no_operators(tmp_path: Path) -> None:
    graph = load_graph(models.save(models.odd_weights(), tmp_path / "m.onnx"))
    assert kinds(graph).count("RandomNormal") == 1
    assert not {"Identity", "ConstantOfShape", "Constant", "Exp", "Tanh"} & set(kinds(graph))
    assert [graph.tensors[t].name for t in graph.inputs] == ["x"]


def test_bodies_read_from_outside(tmp_path: Path) -> None:
    graph = load_graph(models.save(models.control_flow(), tmp_path / "m.onnx"))
    branch = next(operator for operator in graph.operators if operator.kind == "If")
    captured = [graph.tensors[t] for t in branch.captures]
    assert [tensor.is_weight for tensor in captured] == [False, True]
    assert branch.index in captured[0].readers


def test_shapes_computed_at_run_time_fold_once_they_are_fixed(tmp_path: Path) -> None:
    file = models.save(models.transformer(length="n", batch="b"), tmp_path / "t.onnx")
    dynamic = load_graph(file, dims={"n": 6})
    assert "Shape" in kinds(dynamic)
    assert not dynamic.fixed
    fixed = load_graph(file, dims={"n": 6}, batch=2)
    assert "Shape" not in kinds(fixed)
    assert not fixed.unknown_shapes()
    assert fixed.tensors[fixed.outputs[0]].shape == (2, 6, 16)


@pytest.mark.parametrize("opset", [11, 12, 13, 17, 21])
def test_sizes_that_are_computed_from_constants_are_known(opset: int, tmp_path: Path) -> None:
    graph = load_graph(models.save(models.computed_shapes(opset), tmp_path / "m.onnx"))
    assert not graph.unknown_shapes()
    assert graph.tensors[graph.outputs[0]].shape == (8, 12)
    assert kinds(graph) == ["Relu", "Reshape", "Reshape", "Gather", "Tile", "MatMul", "Add"]


def test_a_default_size_is_known_but_no_constant(tmp_path: Path) -> None:
    """The batch may be another when the parts run: its shape stays an operator, though its value is known."""
    model = models.computed_shapes()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "n"
    graph = load_graph(models.save(model, tmp_path / "m.onnx"))
    assert not graph.unknown_shapes()
    assert "Shape" in kinds(graph)
    assert not graph.fixed


def branching(condition: onnx.NodeProto) -> onnx.ModelProto:
    b = Builder()
    size = b.op("Gather", b.op("Shape", "x"), b.constant(0, np.int64))
    b.nodes.append(condition)
    branches = {}
    for branch, axes in (("then_branch", [0]), ("else_branch", [])):
        inner = Builder(prefix=branch)
        kind = ("Squeeze", inner.constant(axes, np.int64)) if axes else ("Identity",)
        out = inner.op(kind[0], "x", *kind[1:])
        branches[branch] = helper.make_graph(inner.nodes, branch, [], [value(out, None)], inner.weights)
    condition.input.extend([size, b.constant(1, np.int64)])
    y = b.op("Tanh", b.op("If", condition.output[0], **branches))
    return b.model([value("x", [1, 4])], [value(y, None)])


def test_a_branch_whose_condition_is_known_gives_its_shape(tmp_path: Path) -> None:
    for kind, shape in (("Equal", (4,)), ("Greater", (1, 4))):
        model = branching(helper.make_node(kind, [], ["flag"]))
        graph = load_graph(models.save(model, tmp_path / "m.onnx"))
        assert graph.tensors[graph.outputs[0]].shape == shape


def test_values_inside_local_functions_are_computed(tmp_path: Path) -> None:
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    flatten = helper.make_function(
        "mine",
        "Flat",
        ["a"],
        ["b"],
        [
            helper.make_node("Shape", ["a"], ["s"]),
            helper.make_node("Constant", [], ["zero"], value_ints=[0]),
            helper.make_node("ReduceProd", ["s"], ["n"], keepdims=1),
            helper.make_node("Reshape", ["a", "n"], ["b"]),
        ],
        opsets[:1],
    )
    b = Builder()
    y = b.op("Tanh", b.op("Flat", "x", domain="mine"))
    model = b.model([value("x", [2, 3])], [value(y, None)], functions=[flatten], opset_imports=opsets)
    graph = load_graph(models.save(model, tmp_path / "m.onnx"))
    assert graph.tensors[graph.outputs[0]].shape == (6,)
    assert kinds(graph) == ["Flat", "Tanh"]


def test_what_is_random_or_large_is_not_computed(tmp_path: Path) -> None:
    b = Builder()
    shape = b.op("Cast", b.op("RandomUniform", shape=[1], low=1.0, high=9.0), to=TensorProto.INT64)
    noise = b.op("Expand", "x", shape)
    huge = b.op("ConstantOfShape", b.op("Mul", b.constant([2**20], np.int64), b.constant([2**20], np.int64)))
    last = b.op("Slice", huge, b.constant([0], np.int64), b.constant([5], np.int64))
    fine = b.op("Add", "x", b.op("Expand", last, b.constant([5], np.int64)))
    model = b.model([value("x", [1])], [value(noise, None), value(fine, None)])
    graph = load_graph(models.save(model, tmp_path / "m.onnx"))
    assert shape not in graph.constants
    assert huge not in graph.constants
    assert graph.tensor(fine).shape == (5,)


def test_com_microsoft_shapes_are_inferred_and_checking_is_unharmed(tmp_path: Path) -> None:
    model = models.microsoft()
    graph = load_graph(models.save(model, tmp_path / "m.onnx"))
    assert not graph.unknown_shapes()
    assert graph.tensors[graph.outputs[0]].shape == (1, 5, 8)
    model.graph.output[0].CopyFrom(value(model.graph.output[0].name, [1, 5, 8]))
    onnx.checker.check_model(model)


def test_a_shape_that_no_rule_gives_can_be_given(tmp_path: Path) -> None:
    b = Builder()
    x = b.op("Tanh", b.op("CropAndResize", "x", domain="com.microsoft", outputs=["cropped"]))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    file = models.save(b.model([value("x", [1, 4])], [value(x, None)], opset_imports=opsets), tmp_path / "m.onnx")
    assert [tensor.name for tensor in load_graph(file).unknown_shapes()] == ["cropped", x]
    assert load_graph(file, shapes={"cropped": [1, 2]}).tensor(x).shape == (1, 2)


def test_external_weights_are_not_read(tmp_path: Path) -> None:
    """Four gigabytes of them, on a sparse file: loading stays below 500 MB."""
    b = Builder()
    x = b.op("MatMul", "x", "big")
    model = b.model([value("x", [1, 32768])], [value(x, None)])
    big = model.graph.initializer.add(name="big", dims=[32768, 32768], data_type=TensorProto.FLOAT)
    big.data_location = TensorProto.EXTERNAL
    big.external_data.add(key="location", value="big.bin")
    onnx.save(model, str(tmp_path / "m.onnx"))
    with (tmp_path / "big.bin").open("wb") as stream:
        stream.truncate(4 * 32768**2)
    code = (
        "import sys\n"
        "from pepper.graph.load import load_graph\nfrom pepper.graph.cuts import find_cuts\n"
        "graph = load_graph(sys.argv[1]); find_cuts(graph)\n"
        "peak = next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM'))\n"
        "print(graph.tensor('big').bytes, peak)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "m.onnx")], capture_output=True, text=True, check=True
    )
    weight_bytes, peak_kib = map(int, done.stdout.split())
    assert weight_bytes == 4 * 2**30
    assert peak_kib < 500 * 1000


def doubling(levels: int, cyclic: bool = False) -> onnx.ModelProto:
    """Local functions each of which calls the one below twice."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    first = helper.make_node(f"f{levels}", ["a"], ["b"], domain="mine") if cyclic else None
    functions = [
        helper.make_function("mine", "f0", ["a"], ["b"], [first or helper.make_node("Relu", ["a"], ["b"])], opsets)
    ]
    for level in range(1, levels + 1):
        calls = [helper.make_node(f"f{level - 1}", [a], [b], domain="mine") for a, b in (("a", "m"), ("m", "b"))]
        functions.append(helper.make_function("mine", f"f{level}", ["a"], ["b"], calls, opsets))
    b = Builder()
    y = b.op(f"f{levels}", "x", domain="mine")
    return b.model([value("x", [1, 4])], [value(y, None)], functions=functions, opset_imports=opsets)


def doubling_bodies(levels: int) -> onnx.ModelProto:
    """Local functions each of which calls the one below in both branches of an If."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    functions = [
        helper.make_function("mine", "f0", ["c", "a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], opsets)
    ]
    for level in range(1, levels + 1):
        call = helper.make_node(f"f{level - 1}", ["c", "a"], ["b"], domain="mine")
        branch = helper.make_graph([call], "branch", [], [value("b", None)])
        choice = helper.make_node("If", ["c"], ["b"], then_branch=branch, else_branch=branch)
        functions.append(helper.make_function("mine", f"f{level}", ["c", "a"], ["b"], [choice], opsets))
    b = Builder()
    y = b.op(f"f{levels}", "c", "x", domain="mine")
    inputs = [value("c", [], TensorProto.BOOL), value("x", [1, 4])]
    return b.model(inputs, [value(y, None)], functions=functions, opset_imports=opsets)


def test_functions_that_expand_without_bound_are_refused_before(tmp_path: Path) -> None:
    assert load_graph(models.save(doubling(5), tmp_path / "m.onnx")).tensors[-1].shape == (1, 4)
    for model, said in [
        (doubling(40), r"expand to 1,099,511,627,776 operators, more than the 100,000"),
        (doubling(400), r"expand to over 10\^15 operators"),
        (doubling(3, cyclic=True), "calls itself"),
        (doubling_bodies(40), r"If, Loop and Scan hold [\d,]+ operators, .*more than the 50,000"),
        (doubling_bodies(12), r"If, Loop and Scan hold [\d,]+ operators"),
    ]:
        with pytest.raises(ModelError, match=said) as caught:
            load_graph(models.save(model, tmp_path / "m.onnx"))
        assert "\n" not in str(caught.value)


def looping(states: Mapping[str, str], trips: str, ends: bool = False) -> onnx.ModelProto:
    """A Loop that carries x through an operator for each of these inputs of the body, and collects it."""
    b = Builder()
    body = Builder(prefix="body_")
    body.op("Less", "i", body.constant(1, np.int64), outputs=["less"])
    body.op("Identity", "less" if ends else "going", outputs=["still"])
    for name, kind in states.items():
        body.op(
            kind,
            *[f"{name}_in"] * (2 if kind in ("Add", "Concat") else 1),
            outputs=[f"{name}_out"],
            **({"axis": 0} if kind == "Concat" else {}),
        )
        body.op("Identity", f"{name}_in", outputs=[f"{name}_seen"])
    loop = helper.make_graph(
        body.nodes,
        "body",
        [
            value("i", [], TensorProto.INT64),
            value("going", [], TensorProto.BOOL),
            *(value(f"{n}_in", None) for n in states),
        ],
        [
            value("still", [], TensorProto.BOOL),
            *(value(f"{n}_out", None) for n in states),
            *(value(f"{n}_seen", None) for n in states),
        ],
        body.weights,
    )
    outputs = [*states, *(f"{name}_all" for name in states)]
    count = b.constant(3, np.int64) if trips == "known" else "count"
    b.op("Loop", count, b.constant(True, bool), *["x"] * len(states), body=loop, outputs=outputs)
    inputs = [value("x", [2, 4])] + ([] if trips == "known" else [value("count", [], TensorProto.INT64)])
    return b.model(inputs, [value(name, None) for name in outputs])


def dims(model: onnx.ModelProto, folder: Path) -> dict[str, list[int | None] | None]:
    """Sizes of the outputs by rules alone; None is open."""
    types = infer.infer_types(model, folder / "m.onnx", {})
    found = {}
    for output in model.graph.output:
        kind = types[output.name].tensor_type
        known = [dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim]
        found[output.name] = known if kind.HasField("shape") else None
    return found


def test_what_a_loop_carries_keeps_the_sizes_that_its_body_keeps(tmp_path: Path) -> None:
    same = {"same": [2, 4], "same_all": [3, 2, 4]}
    assert dims(looping({"same": "Add"}, "known"), tmp_path) == same
    assert dims(looping({"same": "Add"}, "known", ends=True), tmp_path) == same | {"same_all": [None, 2, 4]}
    assert dims(looping({"same": "Add"}, "fed"), tmp_path) == same | {"same_all": [None, 2, 4]}
    found = dims(looping({"same": "Add", "grows": "Concat", "turns": "Transpose"}, "known"), tmp_path)
    assert found == same | {
        "grows": [None, 4],
        "grows_all": [3, None, 4],
        "turns": [None, None],
        "turns_all": [3, None, None],
    }


def test_sizes_and_values_come_out_of_branches(tmp_path: Path) -> None:
    b = Builder()
    branches = {}
    for name, width in (("then_branch", 2), ("else_branch", 3)):
        inner = Builder(prefix=name)
        shape = inner.op("Concat", inner.op("Shape", "x", end=1), inner.constant([width, -1], np.int64), axis=0)
        cut = inner.op("Reshape", "x", shape)
        branches[name] = helper.make_graph(inner.nodes, name, [], [value(shape, None), value(cut, None)], inner.weights)
    is_wide = b.op("Equal", b.op("Gather", b.op("Shape", "x"), b.constant(1, np.int64)), b.constant(6, np.int64))
    b.op("If", is_wide, outputs=["shape", "known"], **branches)
    b.op("Reshape", "y", "shape", outputs=["again"])
    b.op("If", "flag", outputs=["_", "either"], **branches)
    inputs = [value("x", ["n", 6]), value("y", ["n", 6]), value("flag", [], TensorProto.BOOL)]
    model = b.model(inputs, [value(name, None) for name in ("known", "again", "either")])
    file = models.save(model, tmp_path / "m.onnx")
    graph = load_graph(file, dims={"n": 5})
    assert [graph.tensor(name).shape for name in ("known", "again")] == [(5, 2, 3)] * 2
    assert "again" not in graph.by_run
    types = infer.infer_types(model, file, {"x": [5, 6], "y": [5, 6]})
    assert [dim.dim_value for dim in types["either"].tensor_type.shape.dim] == [5, 0, 0]


def test_a_model_without_operators(tmp_path: Path) -> None:
    for b, output in ((Builder(), "x"), (Builder(), "")):
        model = b.model([value("x", [2, 3])], [value(output or b.weight(2, 3), [2, 3])])
        graph = load_graph(models.save(model, tmp_path / "m.onnx"))
        assert not graph.operators
        assert not graph.unknown_shapes()
        with pytest.raises(ModelError, match=r"m\.onnx: has no operators: .*give a model that computes") as caught:
            find_borders(graph, "tensors", 4, 100, [])
        config = ModelConfig(str(tmp_path / "m.onnx"))
        with pytest.raises(ModelError) as described:
            describe_model(find_model(config))
        with pytest.raises(ModelError) as part:
            find_model(replace(config, part=0))
        said = {str(raised.value) for raised in (caught, described, part)}
        assert len(said) == 1, "the same line whatever is asked of it"


def test_operators_may_come_in_any_order(tmp_path: Path) -> None:
    model = models.chain()
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    graph = load_graph(models.save(model, tmp_path / "m.onnx"))
    assert kinds(graph) == ["Conv", "BatchNormalization", "Relu"] * 4


def test_sizes() -> None:
    assert size_bytes("float", (2, 3)) == 24
    assert size_bytes("int4", (3,)) == 2
    assert size_bytes("float", None) is None
    assert size_bytes("string", (1,)) is None


def broken(tmp_path: Path, change: object) -> Path:
    model = models.chain()
    change(model.graph)  # type: ignore[operator]
    return models.save(model, tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: g.node[0].input.__setitem__(0, g.node[-1].output[0]), "cycle"),
        (lambda g: g.node[3].input.__setitem__(0, "nowhere"), "'nowhere', which nothing writes"),
        (lambda g: g.node[3].output.__setitem__(0, g.node[0].output[0]), "written twice"),
        (lambda g: setattr(g.output[0], "name", "nowhere"), "nothing writes the output 'nowhere'"),
        (lambda g: setattr(g.node[2], "domain", "com.acme"), "unknown domain 'com.acme'"),
    ],
)
def test_models_that_cannot_be_used(change: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        load_graph(broken(tmp_path, change))
    assert "\n" not in str(caught.value)


def test_not_a_model(tmp_path: Path) -> None:
    file = tmp_path / "m.onnx"
    file.write_text("hello")
    with pytest.raises(ModelError, match=r"m\.onnx"):
        load_graph(file)
    whole = models.LIGHT_MODELS[0].read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="truncated"):
        load_graph(file)
    with pytest.raises(ModelError, match="no such file"):
        load_graph(tmp_path / "absent.onnx")


def test_external_data_must_be_there_and_inside_the_folder(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    file = models.save(models.chain(), inside / "m.onnx", external=True)
    weights = inside / "m.onnx.data"
    weights.rename(tmp_path / "m.onnx.data")
    with pytest.raises(ModelError, match="missing"):
        load_graph(file)
    model = onnx.load(str(file), load_external_data=False)
    for tensor in model.graph.initializer:
        tensor.external_data[0].value = "../m.onnx.data"
    onnx.save(model, str(file))
    with pytest.raises(ModelError, match="outside the model's folder"):
        load_graph(file)


def test_dynamic_dimensions_need_a_value(tmp_path: Path) -> None:
    file = models.save(models.transformer(length="n", batch="b"), tmp_path / "t.onnx")
    with pytest.raises(ModelError, match=r"model\.dims\.n=N"):
        load_graph(file)
    with pytest.raises(ModelError, match=r"model\.dims\.m.*no such dimension"):
        load_graph(file, dims={"m": 3})
    with pytest.raises(ModelError, match=r"model\.shapes\.idz.*did you mean 'ids'"):
        load_graph(file, shapes={"idz": [1, 2]})


def broken_control_flow() -> dict[str, onnx.ModelProto]:
    """Models whose If or Loop does not keep to what its body takes and gives."""
    broken = {}

    def case(name: str) -> tuple[onnx.ModelProto, dict[str, onnx.NodeProto]]:
        broken[name] = model = models.control_flow()
        return model, {node.op_type: node for node in model.graph.node}

    def body(node: onnx.NodeProto, name: str) -> onnx.GraphProto:
        return next(attribute.g for attribute in node.attribute if attribute.name == name)

    _, nodes = case("the body takes more than it is given")
    body(nodes["Loop"], "body").input.add().CopyFrom(body(nodes["Loop"], "body").input[2])
    _, nodes = case("the body takes nothing")
    del body(nodes["Loop"], "body").input[:]
    _, nodes = case("the body gives nothing")
    del body(nodes["Loop"], "body").output[:]
    _, nodes = case("no body")
    del nodes["Loop"].attribute[:]
    _, nodes = case("no inputs")
    del nodes["Loop"].input[:]
    _, nodes = case("one branch")
    del nodes["If"].attribute[1]
    _, nodes = case("a branch that gives nothing")
    del body(nodes["If"], "else_branch").output[:]
    model, nodes = case("a condition of two values, and as many counts")
    for name, kind in (("flags", np.bool_), ("counts", np.int64)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 0], kind), name))
    nodes["If"].input[0] = "flags"
    nodes["Loop"].input[0], nodes["Loop"].input[1] = "counts", "flags"
    return broken


@pytest.mark.parametrize("name", broken_control_flow())
def test_control_flow_that_breaks_its_contract_is_refused_or_has_no_known_sizes(name: str, tmp_path: Path) -> None:
    file = tmp_path / "broken.onnx"
    file.write_bytes(broken_control_flow()[name].SerializeToString())
    with contextlib.suppress(ModelError):
        infer.analyse(onnx.load(file), file, None)
    with contextlib.suppress(ModelError), warnings.catch_warnings(action="ignore"):
        describe_model(find_model(ModelConfig(str(file))))
