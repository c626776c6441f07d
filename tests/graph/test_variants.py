import hashlib
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from pepper.config import ModelConfig
from pepper.errors import ModelError
from pepper.graph.characteristics import Characteristics
from pepper.graph.costs import operator_macs
from pepper.graph.cuts import find_cuts
from pepper.graph.ir import Graph
from pepper.graph.load import load_graph
from pepper.graph.model import find_model
from pepper.graph.variants import CLASSIFIERS, FAMILIES, REFUSED, variant, variant_file

TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int64)": np.int64}
SHA256 = {
    0: "617f63db9669",
    1: "02a060f4bb0b",
    2: "0a4e8cdd2895",
    3: "1fee1488f22e",
    4: "961e74d94aa7",
    5: "3ea6387ca655",
}
"""Of the serialised classifiers, as their numbers were measured on other machines."""


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def counted(file: Path) -> Graph:
    """Load a model of which everything is known: its types, its shapes, and what each operator costs."""
    onnx.checker.check_model(str(file), full_check=True)
    graph = load_graph(file)
    assert [tensor.name for tensor in graph.tensors if tensor.shape is None] == []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Characteristics(graph).gaps == ()
    return graph


def run(file: Path) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return session.run(None, {each.name: np.ones(each.shape, TYPES[each.type]) for each in session.get_inputs()})


@pytest.mark.parametrize("number", range(len(CLASSIFIERS)))
def test_a_classifier_is_a_valid_model_that_runs_and_can_be_cut(number: int) -> None:
    graph = counted(variant_file(str(number)))
    family = FAMILIES[CLASSIFIERS[number].__name__]
    assert family.least_macs / 2 < sum(operator_macs(graph)) < family.most_macs * 2
    assert len(find_cuts(graph)) >= 5
    (output,) = run(variant_file(str(number)))
    assert output.shape == (1, 1000)
    assert np.isfinite(output).all()


@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in {each.__name__ for each in CLASSIFIERS}])
def test_a_family_is_fully_costed_and_runs(family: str) -> None:
    file = variant_file(f"{family}-0")
    graph = counted(file)
    outputs = run(file)
    assert all(np.isfinite(output).all() for output in outputs)
    assert [output.shape for output in outputs] == [graph.tensors[t].shape for t in graph.outputs]
    part = Characteristics(graph).part(0, len(graph.operators))
    assert (part["macs_int8"] > 0.8 * part["macs"]) == (family in ("qdq", "int8"))
    assert (part["macs_float16"] > 0) == (family == "float16")


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(sorted(FAMILIES)), st.integers(0, 10**6))
def test_any_number_of_any_family_is_fully_costed(family: str, number: int) -> None:
    file = variant_file(f"{family}-{number}")
    graph = counted(file)
    least, most = FAMILIES[family].least_macs, FAMILIES[family].most_macs
    assert least / 20 < sum(operator_macs(graph)) < most * 20
    file.unlink()


def test_a_number_always_means_the_same_model_and_another_another() -> None:
    bytes_ = [variant(number).SerializeToString() for number in (7, 7, 13)]
    assert bytes_[0] == bytes_[1] != bytes_[2]
    assert variant(7, "gru").SerializeToString() == variant(7, "gru").SerializeToString()
    assert {n: hashlib.sha256(variant(n).SerializeToString()).hexdigest()[:12] for n in SHA256} == SHA256


def test_variants_are_found_by_number_and_have_parts() -> None:
    whole = find_model(ModelConfig(path="variant://3", name="variant3"))
    part = find_model(ModelConfig(path="variant://3", name="variant3", part=0))
    assert whole.shapes["input"][:2] == [1, 3]
    assert part.name.startswith("variant3[")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("x", "a variant is a number .*; give model.path=variant://N or variant://FAMILY-N, such as variant://lstm-0"),
        ("lstn-1", "no family 'lstn'; did you mean 'lstm'"),
        ("bfloat16-2", "onnxruntime's CPU provider has no kernels for bfloat16; take float16-2 or int8-2"),
    ],
)
def test_what_is_no_variant_is_said(address: str, said: str) -> None:
    with pytest.raises(ModelError, match=f"model.path=variant://{address}: .*{said}"):
        find_model(ModelConfig(path=f"variant://{address}"))


@pytest.mark.parametrize("family", REFUSED)
def test_what_is_refused_is_what_onnxruntime_does_not_run(family: str) -> None:
    """When it does, the family can be made."""
    elem = TensorProto.DataType.Value(family.upper())
    ends = [helper.make_tensor_value_info(name, elem, [4, 4]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "x"], ["y"])], "product", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    with pytest.raises(Exception, match="NOT_IMPLEMENTED"):
        onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
