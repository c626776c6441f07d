from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from pepper.config import ModelConfig
from pepper.errors import ModelError
from pepper.graph.costs import operator_macs
from pepper.graph.cuts import find_cuts
from pepper.graph.load import load_graph
from pepper.graph.model import find_model
from pepper.graph.variants import FAMILIES, LEAST_MACS, MOST_MACS, variant, variant_file


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.mark.parametrize("number", range(2 * len(FAMILIES)))
def test_a_variant_is_a_valid_model_that_runs_and_can_be_cut(number: int) -> None:
    model = variant(number)
    onnx.checker.check_model(model, full_check=True)
    file = variant_file(number)
    graph = load_graph(file)
    assert LEAST_MACS / 2 < sum(operator_macs(graph)) < MOST_MACS * 2
    assert len(find_cuts(graph)) >= 5
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    session = onnxruntime.InferenceSession(file)
    (output,) = session.run(None, {"input": np.ones(shape, np.float32)})
    assert output.shape == (1, 1000)
    assert np.isfinite(output).all()


def test_a_number_always_means_the_same_model_and_another_another() -> None:
    bytes_ = [variant(number).SerializeToString() for number in (7, 7, 13)]
    assert bytes_[0] == bytes_[1] != bytes_[2]


def test_variants_are_found_by_number_and_have_parts() -> None:
    whole = find_model(ModelConfig(path="variant://3", name="variant3"))
    part = find_model(ModelConfig(path="variant://3", name="variant3", part=0))
    assert whole.shapes["input"][:2] == [1, 3]
    assert part.name.startswith("variant3[")
    with pytest.raises(ModelError, match=r"variant://x: a variant is a number .*; give model.path=variant://N"):
        find_model(ModelConfig(path="variant://x"))
