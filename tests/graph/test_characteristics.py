"""Characteristics of parts: every one against its definition, for every part of random graphs."""

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import models
import numpy as np
import onnx
import pytest
import random_models
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from models import Builder, value

from pepper.errors import ModelError
from pepper.graph.characteristics import FEATURES, PAPER_FEATURES, Characteristics, every_part, in_kinds
from pepper.graph.costs import Costing
from pepper.graph.fusion import fused_away
from pepper.graph.ir import Graph, Operator, Tensor
from pepper.graph.layout import layout_changes
from pepper.graph.load import load_graph

per_folder = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def networks(draw: st.DrawFn) -> onnx.ModelProto:
    """Draw a small network: shared weights, skips, every layer that the paper counts, several borders."""
    b = Builder(seed=1)
    filters, square = b.weight(4, 4, 1, 1), b.weight(4, 4)
    inputs = ["in0", "in1"]
    known, flat, ends = list(inputs), [], []
    for number in range(draw(st.integers(2, 8))):
        kind = draw(st.sampled_from(["Relu", "Add", "Conv", "Pool", "Dense", "Score", "Made"]))
        x = draw(st.sampled_from(known[-3:] if draw(st.booleans()) else known))
        if kind == "Add":
            known.append(b.op("Add", x, draw(st.sampled_from(known))))
        elif kind == "Conv":
            known.append(b.op("Conv", x, draw(st.sampled_from([filters, b.weight(4, 4, 3, 3)])), pads=[0] * 4))
            if b.nodes[-1].input[1] != filters:
                b.nodes[-1].attribute[0].ints[:] = [1] * 4
        elif kind == "Pool":
            known.append(b.op("GlobalAveragePool", x))
        elif kind == "Dense":
            flat.append(b.op("Flatten", b.op("GlobalAveragePool", x)))
            flat.append(b.op("MatMul", flat[-1], square))
        elif kind == "Score" and flat:
            column = b.op("Reshape", draw(st.sampled_from(flat)), b.constant([4, 1], np.int64))
            ends.append(b.op("MatMul", draw(st.sampled_from(flat)), column))
        elif kind == "Made":
            shape = b.constant([4, 1, 1], np.int64)
            known.append(b.op("Mul", x, b.op("ConstantOfShape", shape)))
        else:
            known.append(b.op("Relu", x, outputs=[f"relu{number}"]))
    written = [name for node in b.nodes for name in node.output if node.op_type != "ConstantOfShape"]
    read = {name for node in b.nodes for name in node.input}
    ends = [name for name in written if name not in read]
    ends += draw(st.lists(st.sampled_from(written), max_size=2, unique=True)) if written else []
    ends = list(dict.fromkeys(ends)) or [known[-1]]
    if not written:
        ends = [b.op("Relu", "in0")]
    return b.model([value(name, [1, 4, 3, 3]) for name in inputs], [value(name, None) for name in ends])


def parts(graph: Graph) -> Iterator[tuple[int, int]]:
    count = len(graph.operators)
    return ((start, end) for start in range(count) for end in range(start + 1, count + 1))


def depth(graph: Graph, operators: list[Operator]) -> int:
    levels: dict[int, int] = {}
    for operator in operators:
        before = [levels.get(p, 0) for t in operator.reads if (p := graph.tensors[t].producer) is not None]
        levels[operator.index] = 1 + max(before, default=0)
    return max(levels.values())


def by_definition(graph: Graph, start: int, end: int) -> dict[str, float]:
    """Every characteristic, straight from its definition, in quadratic time."""
    operators = graph.operators[start:end]
    tensors, outputs = graph.tensors, set(graph.outputs)
    read = {t for operator in operators for t in operator.reads}
    written = {t for operator in operators for t in operator.writes}
    weights = [tensors[t] for t in read if tensors[t].is_weight]
    entering = [tensors[t] for t in read - written if not tensors[t].is_weight]
    leaving = [tensors[t] for t in written if t in outputs or any(r >= end for r in tensors[t].readers)]

    def alive(tensor: Tensor, at: int) -> bool:
        born = 0 if tensor.producer is None else tensor.producer
        last = max((len(graph.operators) if tensor.id in outputs else 0, *tensor.readers, born))
        used = tensor.id in outputs or tensor.readers or tensor.producer is not None
        return bool(used) and born <= at <= last

    touched = [tensors[t] for t in read | written if not tensors[t].is_weight]
    costs = [cost for entry in list(Costing(graph))[start:end] for cost in entry]
    result: Counter[str] = Counter()
    for cost in costs:
        result["macs"] += cost.macs
        result["read_bytes"] += cost.read_bytes
        result["written_bytes"] += cost.written_bytes
        if cost.macs:
            result[f"macs_{cost.kind}"] += cost.macs
        result[f"bytes_{cost.kind}"] += cost.read_bytes + cost.written_bytes
        result[f"operators_{cost.kind}"] += cost.operators
    for number, side in enumerate("mkn", 1):
        total = sum(p.macs * math.log(p[number]) for cost in costs for p in cost.products)
        result[f"product_{side}"] = math.exp(total / result["macs"]) if result["macs"] else 0
    for name, (one, other) in {"mk": (1, 2), "kn": (2, 3), "mn": (1, 3)}.items():
        result[f"product_{name}"] = sum(p.times * p[one] * p[other] for cost in costs for p in cost.products)
    changed, in_blocks = layout_changes(graph, fused_away(graph))
    moved = result["read_bytes"] + result["written_bytes"]
    expected = {
        "operators": len(operators),
        "depth": depth(graph, operators),
        "arithmetic_intensity": result["macs"] / moved if moved else 0,
        "reordered_bytes": sum(changed[start:end])
        + sum(t.bytes or 0 for t in (*entering, *leaving) if t.id in in_blocks),
        "parameters": sum(math.prod(t.shape or ()) for t in weights if t.dtype == "float"),
        "weight_bytes": sum(t.bytes or 0 for t in weights),
        "input_tensors": len(entering),
        "input_bytes": sum(t.bytes or 0 for t in entering),
        "output_tensors": len(leaving),
        "output_bytes": sum(t.bytes or 0 for t in leaving),
        "activation_peak_bytes": max(sum(t.bytes or 0 for t in touched if alive(t, at)) for at in range(start, end)),
        "widest_layer": max(math.prod(tensors[t].shape or ()) for o in operators for t in o.writes),
        "largest_operator_macs": max(sum(cost.macs for cost in entry) for entry in list(Costing(graph))[start:end]),
        **paper_features(graph, operators),
    }
    return dict.fromkeys(FEATURES, 0) | result | expected


def paper_features(graph: Graph, operators: list[Operator]) -> dict[str, float]:
    """The paper's five, on a part as on a model file of its own."""
    tensors = graph.tensors
    writer = {t: operator.kind for operator in operators for t in operator.writes}

    def is_weight(operator: Operator, position: int) -> bool:
        number = operator.inputs[position]
        return number is not None and tensors[number].is_weight

    def shape(operator: Operator) -> tuple[int, ...]:
        return tensors[operator.inputs[1] or 0].shape or ()

    convs = [o for o in operators if o.kind == "Conv" and is_weight(o, 1)]
    dense = [
        o
        for o in operators
        if o.kind == "Gemm"
        or (o.kind == "MatMul" and (writer.get(o.inputs[0] or 0) == "Flatten" or is_weight(o, 1)))
        or (o.kind == "Conv" and writer.get(o.inputs[0] or 0) == "GlobalAveragePool")
    ]
    weights = {t for o in operators for t in o.reads if tensors[t].is_weight}
    return {
        "conv_layers": len(convs),
        "filter_details": sum(shape(o)[0] for o in convs),
        "pool_layers": sum(o.kind in ("MaxPool", "AveragePool", "GlobalAveragePool") for o in operators),
        "fully_conn_layers": len(dense),
        "total_parameters": sum(math.prod(tensors[t].shape or ()) for t in weights),
    }


@per_folder
@given(model=st.one_of(networks(), random_models.models()))
def test_every_part_matches_the_definitions(model: onnx.ModelProto, tmp_path: Path) -> None:
    graph = load_graph(random_models.saved(model, tmp_path))
    starts, ends = zip(*parts(graph), strict=True)
    table = Characteristics(graph).table(starts, ends)
    for row, start, end in zip(table, starts, ends, strict=True):
        expected = by_definition(graph, start, end)
        assert dict(zip(FEATURES, row.tolist(), strict=True)) == pytest.approx(expected, rel=1e-9), (start, end)


@per_folder
@given(model=random_models.models(), seed=st.integers(0, 99))
def test_parts_asked_together_or_alone_are_the_same(model: onnx.ModelProto, seed: int, tmp_path: Path) -> None:
    graph = load_graph(random_models.saved(model, tmp_path))
    characteristics = Characteristics(graph)
    starts, ends = (np.array(side) for side in zip(*parts(graph), strict=True))
    chosen = np.random.default_rng(seed).integers(0, len(starts), 5)
    together = characteristics.table(starts[chosen], ends[chosen])
    for row, start, end in zip(together, starts[chosen], ends[chosen], strict=True):
        alone = characteristics.part(start, end)
        assert list(alone) == list(FEATURES)
        assert row == pytest.approx(list(alone.values()), rel=1e-9)


@per_folder
@given(model=st.one_of(networks(), random_models.models()))
def test_crossing_bytes(model: onnx.ModelProto, tmp_path: Path) -> None:
    graph = load_graph(random_models.saved(model, tmp_path))
    crossing = Characteristics(graph).crossing_bytes
    for position in range(len(graph.operators) + 1):
        there = random_models.crossing(graph, set(range(position)))
        assert crossing[position] == sum(graph.tensors[t].bytes or 0 for t in there)


@pytest.mark.parametrize("file", models.LIGHT_MODELS, ids=lambda file: file.stem.removeprefix("light_"))
def test_the_papers_five_on_real_models(file: Path) -> None:
    """By the paper's definitions on the file itself; ConstantOfShape stands for the weight that it makes."""
    graph = load_graph(file)
    features = Characteristics(graph).part(0, len(graph.operators))
    proto = onnx.load(file).graph
    arrays = {t.name: onnx.numpy_helper.to_array(t) for t in proto.initializer}
    writer = {name: node for node in proto.node for name in node.output}
    sizes = {name: array.shape for name, array in arrays.items()}
    made = [node for node in proto.node if node.op_type == "ConstantOfShape"]
    sizes |= {node.output[0]: tuple(arrays[node.input[0]].tolist()) for node in made}
    read = {name for node in proto.node if node not in made for name in node.input}

    def kind_before(node: onnx.NodeProto) -> str:
        return writer[node.input[0]].op_type if node.input[0] in writer else ""

    convs = [node for node in proto.node if node.op_type == "Conv" and node.input[1] in sizes]
    expected = {
        "conv_layers": len(convs),
        "filter_details": sum(sizes[node.input[1]][0] for node in convs),
        "pool_layers": sum(node.op_type in ("MaxPool", "AveragePool", "GlobalAveragePool") for node in proto.node),
        "fully_conn_layers": sum(
            node.op_type == "Gemm"
            or (node.op_type == "MatMul" and (kind_before(node) == "Flatten" or node.input[1] in sizes))
            or (node.op_type == "Conv" and kind_before(node) == "GlobalAveragePool")
            for node in proto.node
        ),
        "total_parameters": sum(math.prod(size) for name, size in sizes.items() if name in read),
    }
    assert {name: features[name] for name in PAPER_FEATURES} == expected


def test_paper_figures_published_for_the_same_networks() -> None:
    """As the paper's code reports them for its own exports of AlexNet and DenseNet-121."""
    figures = {}
    for name in ("bvlc_alexnet", "densenet121"):
        graph = load_graph(models.LIGHT / f"light_{name}.onnx")
        figures[name] = Characteristics(graph).part(0, len(graph.operators))
    alexnet, densenet = figures["bvlc_alexnet"], figures["densenet121"]
    assert [alexnet[name] for name in PAPER_FEATURES[:4]] == [5, 1376, 3, 3]
    assert alexnet["parameters"] == 60_965_224
    assert densenet["total_parameters"] == 8_146_152
    assert (densenet["filter_details"], densenet["fully_conn_layers"]) == (11_240, 1)


def test_a_weight_shared_by_operators_counts_once_a_part(tmp_path: Path) -> None:
    b = Builder()
    shared, own = b.weight(8, 8), b.weight(8, 8)
    y = b.op("MatMul", b.op("MatMul", b.op("MatMul", "x", shared), own), shared)
    graph = load_graph(models.save(b.model([value("x", [2, 8])], [value(y, None)]), tmp_path / "m.onnx"))
    characteristics = Characteristics(graph)
    assert characteristics.part(0, 3)["parameters"] == 128
    starts, ends = every_part([0, 1, 3])
    assert list(zip(starts, ends, strict=True)) == [(0, 1), (0, 3), (1, 3)]
    weights = characteristics.table(starts, ends)[:, FEATURES.index("weight_bytes")]
    assert weights.tolist() == [256, 512, 512]


@pytest.mark.parametrize(("start", "end"), [(0, 0), (3, 2), (-1, 2), (0, 99)])
def test_a_part_lies_inside_the_graph(start: int, end: int, tmp_path: Path) -> None:
    graph = load_graph(models.save(models.chain(), tmp_path / "m.onnx"))
    with pytest.raises(ModelError, match="between 0 and 12"):
        Characteristics(graph).part(start, end)


def test_no_parts(tmp_path: Path) -> None:
    graph = load_graph(models.save(models.chain(), tmp_path / "m.onnx"))
    assert Characteristics(graph).table([], []).shape == (0, len(FEATURES))


def test_a_graph_without_operators(tmp_path: Path) -> None:
    b = Builder()
    made = b.op("Identity", b.weight(4))
    graph = load_graph(models.save(b.model([], [value(made, None)]), tmp_path / "m.onnx"))
    assert Characteristics(graph).crossing_bytes.tolist() == [0]


def test_gaps_of_one_kind_are_one_line() -> None:
    gaps = [f"n{n} (MatMul): the size of 't{n}' is unknown" for n in range(500)]
    gaps.append("alone (Foo): pepper has no cost rule for it")
    assert in_kinds(gaps) == [
        "cost not known of n0, n1, n2 and 497 more (MatMul): the size of a tensor is unknown",
        "cost not known of alone (Foo): pepper has no cost rule for it",
    ]
    gaps += [f"k{n} (Kind{n}): pepper has no cost rule for it" for n in range(100)]
    said = in_kinds(gaps)
    assert said[0].startswith("cost not known of n0, n1, n2 and 497 more")
    assert said[5:] == ["cost not known of 97 operators more, of 97 kinds"]
