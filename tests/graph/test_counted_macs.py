"""The benchmark's own count of MACs, by hand, and pepper's against it on models of every sort."""

import warnings
from pathlib import Path

import models
import numpy as np
import pytest
from models import Builder, value

from benchmarks.counted_macs import counted_macs
from pepper.graph.characteristics import Characteristics, CostWarning
from pepper.graph.load import load_graph
from pepper.graph.running import random_inputs


def test_what_ran_is_counted_by_hand(tmp_path: Path) -> None:
    b = Builder()
    y = b.op("Conv", "x", b.weight(6, 4, 3, 3))
    z = b.op("ConvTranspose", y, b.weight(6, 2, 2, 2))
    flat = b.op("Reshape", z, b.constant([1, -1], np.int64))
    end = b.op("Gemm", flat, b.weight(2 * 49, 5))
    file = models.save(b.model([value("x", [1, 4, 8, 8])], [value(end, None)]), tmp_path / "model.onnx")
    macs, ran = counted_macs(file, {"x": np.ones((1, 4, 8, 8), np.float32)})
    assert macs == 6 * 36 * 4 * 9 + 6 * 36 * 2 * 4 + 98 * 5
    assert ran["Conv"] == ran["Gemm"] == 1


@pytest.mark.parametrize("name", models.MODELS)
def test_what_ran_is_what_pepper_counts(name: str, tmp_path: Path) -> None:
    model = models.MODELS[name]()
    loops = {node.output[0]: [2, 4] for node in model.graph.node if node.op_type == "Loop"}
    graph = load_graph(models.save(model, tmp_path / "model.onnx"), shapes=loops)
    with warnings.catch_warnings():
        warnings.simplefilter("error", CostWarning)
        macs = Characteristics(graph).cumulative_macs[-1]
    try:
        ran, _ = counted_macs(graph.file, random_inputs(graph))
    except LookupError as error:
        pytest.skip(str(error))
    assert macs == ran
