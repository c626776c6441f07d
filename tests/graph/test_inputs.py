"""Values of inputs: given, drawn within what the graph allows, the same wherever a model runs."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from harness import make_model
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from pepper.config import ModelConfig
from pepper.errors import ModelError
from pepper.graph.inputs import InputSpec, draw_inputs, input_spec, packed, read_arrays, unpacked
from pepper.graph.model import find_model, load_configured
from pepper.graph.running import random_inputs, run_whole
from tests.graph.models import save, value


def branches() -> onnx.ModelProto:
    """Runs with ``sr`` of 16000 only, as detectors of speech do."""
    one = helper.make_graph([helper.make_node("MatMul", ["x", "A"], ["t"])], "one", [], [value("t", None)])
    two = helper.make_graph([helper.make_node("MatMul", ["x", "B"], ["e"])], "two", [], [value("e", None)])
    nodes = [
        helper.make_node("Equal", ["sr", "k"], ["c"]),
        helper.make_node("If", ["c"], ["i"], then_branch=one, else_branch=two),
        helper.make_node("Relu", ["i"], ["y"]),
    ]
    weights = {"A": np.ones((6, 4), np.float32), "B": np.ones((3, 4), np.float32)}
    model = make_model(nodes, {"x": ["batch", "samples"]}, {}, weights)
    model.graph.initializer.append(numpy_helper.from_array(np.array(16000), "k"))
    model.graph.input.append(value("sr", [], TensorProto.INT64))
    model.graph.output.append(value("y", None))
    return model


def embedding(kind: str = "Gather") -> onnx.ModelProto:
    """Looks up ids in a table of 50 rows, by way of operators that keep their values, and types in one of 2."""
    nodes = [
        helper.make_node("Cast", ["ids"], ["wide"], to=TensorProto.INT64),
        helper.make_node("Unsqueeze", ["wide", "axes"], ["one"]),
        helper.make_node("Gather", ["table", "one"], ["words"]),
        helper.make_node("Gather", ["kinds", "types"], ["kind"]),
        helper.make_node("Add", ["words", "kind"], ["y"]),
    ]
    weights = {"table": np.ones((50, 4), np.float32), "kinds": np.ones((2, 4), np.float32)}
    model = make_model(nodes, {}, {}, {**weights, "axes": np.array([0])})
    model.graph.input.append(value("ids", ["batch", "length"], TensorProto.INT32))
    model.graph.input.append(value("types", ["batch", "length"], TensorProto.INT64))
    model.graph.output.append(value("y", [1, "batch", "length", 4]))
    return model


def config(model: onnx.ModelProto, folder: Path, **fields: Any) -> ModelConfig:
    return ModelConfig(str(save(model, folder / "m.onnx")), **fields)


def test_a_model_runs_on_the_values_that_decide_what_it_does(tmp_path: Path) -> None:
    shapes = {"x": [1, 6]}
    given_rate = config(branches(), tmp_path, inputs={"sr": 16000}, shapes=shapes)
    graph = load_configured(given_rate)
    assert run_whole(graph, random_inputs(graph), threads=1)["y"].shape == (1, 4)
    assert find_model(given_rate).described_inputs() == {"sr": 16000}
    graph = load_configured(config(branches(), tmp_path, shapes=shapes))
    with pytest.raises(ModelError, match=r"the value of 'sr' was drawn; if that is why, give model\.inputs\.sr=\.\.\."):
        run_whole(graph, random_inputs(graph), threads=1)


def test_indices_stay_in_what_they_index(tmp_path: Path) -> None:
    found = find_model(config(embedding(), tmp_path, shapes={"ids": [3, 99], "types": [3, 99]}))
    drawn = draw_inputs(found.inputs, seed=1)
    assert (drawn["ids"].min(), drawn["ids"].max()) == (0, 49)
    assert (drawn["types"].min(), drawn["types"].max()) == (0, 1)
    assert found.described_inputs() == {"ids": {"low": 0, "high": 50}, "types": {"low": 0, "high": 2}}
    proof = random_inputs(found.graph(), seed=1)
    assert all(np.array_equal(drawn[name], proof[name]) for name in drawn), "the worker and the proof draw alike"


def test_given_arrays_fix_dynamic_dimensions(tmp_path: Path) -> None:
    np.savez(tmp_path / "feeds.npz", ids=np.array([[7, 8, 9]], np.int32), types=np.zeros((1, 3), np.int64))
    file = str(tmp_path / "feeds.npz")
    found = find_model(config(embedding(), tmp_path, inputs_file=file, inputs={"types": [[1, 1, 1]]}))
    assert found.shapes == {"ids": [1, 3], "types": [1, 3]}
    drawn = draw_inputs(found.inputs, seed=0)
    assert drawn["ids"].tolist() == [[7, 8, 9]]
    assert drawn["types"].tolist() == [[1, 1, 1]], "what stands on the command line wins over the file"


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"idz": 1}, r"model\.inputs\.idz: the model has no such input; did you mean 'ids'\? \(inputs: ids, types\)"),
        ({"ids": 1.5}, r"model\.inputs\.ids=1\.5: does not fit the input's type int32"),
        ({"ids": "word"}, r"model\.inputs\.ids=word: does not fit"),
        ({"ids": 2**40}, r"model\.inputs\.ids=1099511627776: does not fit"),
        ({"ids": 10**30}, r"model\.inputs\.ids=10+: does not fit"),
        ({"ids": [1, 2]}, r"model\.inputs\.ids=\[1, 2\]: has the shape \[2\], the input has \[2, 5\]"),
        ({"ids": [[1, 2], [3]]}, r"model\.inputs\.ids=.*: is no array; give numbers, or lists of one length each"),
        ({"ids": 50}, r"model\.inputs\.ids=50: are indices of 50 places; give values from 0 to 49"),
        (
            {"ids": {"high": 51}},
            r"model\.inputs\.ids=.*: must be whole numbers with low at least -50 and high at.*50",
        ),
        ({"ids": {"low": 3, "high": 3}}, r"model\.inputs\.ids=.*: is empty; high must be above low"),
        ({"ids": {"from": 0}}, r"model\.inputs\.ids=.*: is no range; give two numbers, as .* does"),
    ],
)
def test_values_that_do_not_fit_are_refused_in_one_line(inputs: dict[str, Any], message: str, tmp_path: Path) -> None:
    made = config(embedding(), tmp_path, inputs=inputs, shapes={"ids": [2, 5], "types": [2, 5]})
    with pytest.raises(ModelError, match=message) as caught:
        find_model(made)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut off"])
def test_a_file_that_holds_no_arrays_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "feeds.npz").write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.inputs_file=.*feeds\.npz: cannot be read \(.+\); give an \.npz file"):
        find_model(config(embedding(), tmp_path, inputs_file=str(tmp_path / "feeds.npz")))


def test_nothing_is_unpickled_and_no_header_is_believed(tmp_path: Path) -> None:
    file = tmp_path / "objects.npz"
    np.savez(file, x=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle"):
        read_arrays(file)
    huge = tmp_path / "huge.npz"
    header = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little")
    header += b"{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,)}".ljust(117) + b"\n"
    import zipfile

    with zipfile.ZipFile(huge, "w") as archive:
        archive.writestr("x.npy", header)
    with pytest.raises(ValueError, match="damaged"):
        read_arrays(huge)


NUMBERS = ("float", "double", "float16", "int8", "int32", "int64", "uint8", "uint64", "bool")


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(NUMBERS), st.lists(st.integers(0, 3), max_size=3), st.sampled_from([None, 0, 1, True])
        )
    ),
    st.integers(0, 2**32),
)
def test_what_travels_to_the_worker_is_drawn_alike_there(inputs: list[tuple[str, list[int], Any]], seed: int) -> None:
    specs = [input_spec(f"input:{n}", *described) for n, described in enumerate(inputs)]
    facts, values = packed(specs)
    here, there = draw_inputs(specs, seed), draw_inputs(unpacked(facts, values), seed)
    for spec, (name, drawn) in zip(specs, here.items(), strict=True):
        assert drawn.shape == spec.shape
        assert drawn.dtype == there[name].dtype == helper.tensor_dtype_to_np_dtype(_number(spec))
        assert np.array_equal(drawn, there[name])
        assert ((drawn >= 0) & (drawn <= 1)).all()


def _number(spec: InputSpec) -> int:
    return TensorProto.DataType.Value(spec.dtype.upper())


def test_text_is_given_or_drawn() -> None:
    specs = [input_spec("a", "string", [2]), input_spec("b", "string", [1, 2], [["hello", "world"]])]
    facts, values = packed(specs)
    drawn = draw_inputs(unpacked(facts, values), 0)
    assert drawn["a"].tolist() == ["a", "a"]
    assert drawn["b"].tolist() == [["hello", "world"]]
    assert drawn["b"].dtype == object
    assert specs[1].described() == [["hello", "world"]]
    with pytest.raises(ModelError, match=r"does not fit the input's type string"):
        input_spec("b", "string", [1], 3)


def test_a_range_is_drawn_from() -> None:
    values = draw_inputs(
        [input_spec("x", "float", [999], {"low": -2, "high": 3}), input_spec("n", "int64", [999], {"high": 7})], 0
    )
    assert -2 <= values["x"].min() < -1.9 < 2.9 < values["x"].max() < 3
    assert (values["n"].min(), values["n"].max()) == (0, 6)


def test_large_values_are_known_by_their_hash() -> None:
    one, two = (input_spec("x", "float", [99], np.full(99, number)) for number in (1, 2))
    assert one.described()["shape"] == [99]
    assert one.described() != two.described()
