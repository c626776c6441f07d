"""Parts in other precisions: what they compute, what they cost, and what cannot be made."""

from collections.abc import Callable
from pathlib import Path

import models
import numpy as np
import onnx
import pytest
from onnx import TensorProto

from pepper.config.placing import Precision
from pepper.errors import ModelError
from pepper.graph.aligned import ABSENT, aligned
from pepper.graph.borders import find_borders
from pepper.graph.characteristics import FEATURES, Characteristics
from pepper.graph.costs import operator_macs
from pepper.graph.cuts import cut_behind
from pepper.graph.ir import Graph
from pepper.graph.load import load_graph
from pepper.graph.manifest import Manifest, read_manifest
from pepper.graph.precisions import parts_as, whole_as
from pepper.graph.rounding import Values, difference
from pepper.graph.running import random_inputs, run_parts, run_whole
from pepper.graph.split import split

LOWER = (Precision.fp16, Precision.int8)


def residual() -> onnx.ModelProto:
    """A sum of what a border gives and of what is computed from it: two parts read one tensor."""
    b = models.Builder()
    stem = b.conv_bn_relu("x", 3, 8)
    inner = b.conv_bn_relu(b.conv_bn_relu(stem, 8, 8), 8, 8)
    last = b.conv(b.op("Add", stem, inner), 8, 4)
    pooled = b.op("Flatten", b.op("GlobalAveragePool", last))
    b.op("Softmax", b.linear(pooled, 4, 5), axis=-1)
    return b.model([models.value("x", [1, 3, 16, 16])], [models.value(b.nodes[-1].output[0], [1, 5])])


def loaded(make: Callable[[], onnx.ModelProto], folder: Path) -> tuple[Graph, list[Values]]:
    graph = load_graph(models.save(make(), folder / "m.onnx"))
    return graph, [random_inputs(graph, seed) for seed in range(3)]


def cut_everywhere(graph: Graph, folder: Path) -> Manifest:
    positions = find_borders(graph, "frontiers", 4, 200, operator_macs(graph)).positions[1:-1]
    return split(graph, [cut_behind(graph, position) for position in positions], folder)


@pytest.mark.parametrize("precision", LOWER)
def test_parts_of_every_precision_fit_together(precision: Precision, tmp_path: Path) -> None:
    graph, samples = loaded(residual, tmp_path)
    manifest = cut_everywhere(graph, tmp_path / "parts")
    assert len(manifest.parts) > 4
    mixed = [precision if number % 2 else Precision.fp32 for number in range(len(manifest.parts))]
    made = parts_as(manifest, tmp_path / "parts", mixed, samples)
    assert [(part.inputs, part.outputs) for part in made.parts] == [(p.inputs, p.outputs) for p in manifest.parts]
    assert read_manifest(tmp_path / "parts") == made
    assert [part.precision for part in made.parts] == mixed
    assert all(part.is_intact(tmp_path / "parts") for part in made.parts)
    (output,) = (graph.tensors[t].name for t in graph.outputs)
    for feeds in samples:
        whole, got = run_whole(graph, feeds)[output], run_parts(made, tmp_path / "parts", feeds)
        assert 0 < difference(whole, got[output]) < 0.05
    for part in made.parts:
        proto = onnx.load(str(tmp_path / "parts" / part.file))
        onnx.checker.check_model(proto)
        kinds = {node.op_type for node in proto.graph.node}
        weights = {tensor.data_type for tensor in proto.graph.initializer}
        if part.precision == Precision.int8 and "Conv" in kinds:
            assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
            assert TensorProto.INT8 in weights
        if part.precision == Precision.fp16 and weights:
            assert TensorProto.FLOAT not in weights


def test_parts_left_as_they_are_are_not_written_again(tmp_path: Path) -> None:
    graph, _ = loaded(residual, tmp_path)
    manifest = cut_everywhere(graph, tmp_path / "parts")
    assert parts_as(manifest, tmp_path / "parts", [Precision.fp32] * len(manifest.parts), []) is manifest


@pytest.mark.parametrize("make", [residual, models.chain, models.unet], ids=lambda make: make.__name__)
@pytest.mark.parametrize("precision", LOWER)
def test_a_run_of_a_form_is_described_as_its_part_is(
    precision: Precision, make: Callable[[], onnx.ModelProto], tmp_path: Path
) -> None:
    graph, samples = loaded(make, tmp_path)
    borders = find_borders(graph, "frontiers", 4, 200, operator_macs(graph))
    form, positions = aligned(graph, whole_as(graph, precision, samples, tmp_path), borders)
    seen = np.zeros(len(form.tensors), bool)
    for operator in form.operators:  # an order in which it can run
        assert all(form.tensors[t].producer is None or seen[t] for t in operator.reads)
        seen[operator.writes] = True
    there = [number for number, position in enumerate(positions) if position != ABSENT]
    assert there[0] == 0
    assert there[-1] == len(positions) - 1
    assert len(there) > 2
    assert (np.diff(positions[there]) > 0).all() or precision == Precision.int8  # a Relu may be gone in 8 bits
    middle = there[len(there) // 2]
    manifest = split(graph, [cut_behind(graph, borders.positions[middle])], tmp_path / "parts")
    made = parts_as(manifest, tmp_path / "parts", [precision] * len(manifest.parts), samples)
    described = Characteristics(form)
    for part, (start, end) in zip(made.parts, ((0, middle), (middle, len(positions) - 1)), strict=True):
        own = Characteristics(load_graph(tmp_path / "parts" / part.file))
        whole = own.part(0, len(own.graph.operators))
        run = dict(zip(FEATURES, described.table([positions[start]], [positions[end]])[0].tolist(), strict=True))
        column = f"macs_{'int8' if precision == Precision.int8 else 'float16'}"
        assert run["macs"] == whole["macs"] > 0
        assert run[column] == whole[column] > 0
        assert run["weight_bytes"] == pytest.approx(whole["weight_bytes"], rel=0.05)


@pytest.mark.parametrize("groups", [2, 8])
def test_convolutions_of_several_channels_a_group_stay_as_they_are(groups: int, tmp_path: Path) -> None:
    b = models.Builder()
    x = b.op("Conv", "x", b.weight(8, 8 // groups, 1, 1), group=groups)
    b.op("Conv", x, b.weight(4, 8, 1, 1))
    model = b.model([models.value("x", [1, 8, 8, 8])], [models.value(b.nodes[-1].output[0], None)])
    graph = load_graph(models.save(model, tmp_path / "m.onnx"))
    form = whole_as(graph, Precision.int8, [random_inputs(graph)], tmp_path)
    found = Characteristics(form).part(0, len(form.operators))
    assert found["macs_int8"] == (found["macs"] if groups == 8 else 4 * 8 * 64)


def test_what_is_in_8_bits_cannot_be_made_so(tmp_path: Path) -> None:
    graph, samples = loaded(residual, tmp_path)
    again = whole_as(graph, Precision.int8, samples, tmp_path)
    with pytest.raises(ModelError, match=r"place\.variants: .* holds QuantizeLinear .* leave int8 out"):
        whole_as(again, Precision.int8, samples, tmp_path)


def test_what_has_no_product_cannot_be_made_8_bits(tmp_path: Path) -> None:
    b = models.Builder()
    b.op("Exp", b.op("Sqrt", "x"))
    graph = load_graph(models.save(b.model([models.value("x", [4])], [models.value("exp_1_0", [4])]), tmp_path / "m"))
    with pytest.raises(ModelError, match="none of the operators Conv, ConvTranspose, Gemm, MatMul"):
        whole_as(graph, Precision.int8, [random_inputs(graph)], tmp_path)


def test_a_sample_of_another_shape_is_named(tmp_path: Path) -> None:
    graph, _ = loaded(residual, tmp_path)
    with pytest.raises(ModelError, match=r"cannot be made int8: .*leave int8 out"):
        whole_as(graph, Precision.int8, [{"x": np.zeros((1, 3, 8), np.float32)}], tmp_path)
