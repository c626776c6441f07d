"""Cuts: what the real models offer, and brute force on random graphs."""

from pathlib import Path

import models
import numpy as np
import pytest
import random_models
from advice import advised
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pepper.errors import ModelError
from pepper.graph.balance import balanced_cuts
from pepper.graph.costs import operator_work
from pepper.graph.cuts import Cut, before, cut_at, find_cuts, how_to_cut, why_no_cut
from pepper.graph.ir import Graph
from pepper.graph.load import load_graph

per_folder = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def near(graph: Graph, cut: Cut) -> set[int]:
    return set(np.flatnonzero(before(graph, cut)).tolist())


@pytest.mark.parametrize(
    ("name", "bridges", "tensors"),
    [
        ("resnet50", 22, 38),
        ("densenet121", 26, 84),
        ("squeezenet", 24, 32),
        ("inception_v1", 15, 24),
        ("shufflenet", 22, 38),
        ("bvlc_alexnet", 21, 21),
    ],
)
def test_real_models_offer_at_least_these_cuts(name: str, bridges: int, tensors: int) -> None:
    graph = load_graph(models.LIGHT / f"light_{name}.onnx")
    assert len(find_cuts(graph, "bridges")) >= bridges
    assert len(find_cuts(graph, "tensors")) >= tensors


@given(model=random_models.models())
@per_folder
def test_no_single_tensor_cut_is_missed_and_every_cut_is_one(model: object, tmp_path: Path) -> None:
    graph = load_graph(random_models.saved(model, tmp_path))
    possible: dict[tuple[int, ...], list[set[int]]] = {}
    for tensors, side in random_models.all_cuts(graph):
        possible.setdefault(tensors, []).append(side)
    found = find_cuts(graph, "tensors")
    assert {cut.tensors for cut in found} == {tensors for tensors in possible if len(tensors) == 1}
    for cut in found:
        assert near(graph, cut) in possible[cut.tensors]
        assert cut.position == len(near(graph, cut))
        assert cut.bytes == graph.tensors[cut.tensors[0]].bytes


@given(model=random_models.models())
@per_folder
def test_frontiers_are_all_the_narrow_positions_of_the_order(model: object, tmp_path: Path) -> None:
    graph = load_graph(random_models.saved(model, tmp_path))
    listed = {cut.position: cut.tensors for cut in find_cuts(graph, "frontiers", 2) if cut.in_order}
    for position in range(1, len(graph.operators)):
        tensors = random_models.crossing(graph, set(range(position)))
        assert listed.get(position) == (tensors if len(tensors) <= 2 else None)


@given(model=random_models.models())
@per_folder
def test_bridges_are_the_edges_that_hold_the_operator_graph_together(model: object, tmp_path: Path) -> None:
    graph = load_graph(random_models.saved(model, tmp_path))
    edges = [
        (("input", t.id) if t.producer is None else t.producer, reader, t.id)
        for t in graph.tensors
        if not t.is_weight
        for reader in t.readers
    ]

    def connected(left: object, right: object, without: object) -> bool:
        seen, pending = {left}, [left]
        while pending:
            here = pending.pop()
            for edge in edges:
                if edge != without and here in edge[:2]:
                    other = edge[1] if edge[0] == here else edge[0]
                    if other not in seen:
                        seen.add(other)
                        pending.append(other)
        return right in seen

    expected = {e[2] for e in edges if isinstance(e[0], int) and not connected(e[0], e[1], e)}
    found = {cut.tensors[0] for cut in find_cuts(graph, "bridges")}
    assert {t for t in found if graph.tensors[t].producer is not None} == expected


def test_a_mask_that_every_layer_reads_leaves_frontiers(tmp_path: Path) -> None:
    graph = load_graph(models.save(models.transformer(layers=4), tmp_path / "t.onnx"))
    single = [cut.position for cut in find_cuts(graph, "tensors") if cut.in_order]
    double = [cut.position for cut in find_cuts(graph, "frontiers", 2) if len(cut.tensors) == 2]
    layer = (len(graph.operators) - 10) // 4
    for boundary in (1, 2, 3):
        near_boundary = range(10 + boundary * layer - 5, 10 + boundary * layer + 5)
        assert not set(single) & set(near_boundary)
        assert set(double) & set(near_boundary)


def test_both_towers_are_cut_everywhere(tmp_path: Path) -> None:
    graph = load_graph(models.save(models.two_tower(), tmp_path / "t.onnx"))
    assert {t for cut in find_cuts(graph) for t in cut.tensors} == {
        t.id for t in graph.tensors if t.producer is not None and t.readers
    }


def test_an_input_that_enters_late_hides_no_cut(tmp_path: Path) -> None:
    graph = load_graph(models.save(models.late_input(), tmp_path / "m.onnx"))
    in_order = [cut for cut in find_cuts(graph) if cut.in_order]
    assert len(in_order) == len(graph.operators) - 2


def test_why_no_cut_names_what_crosses_beside(tmp_path: Path) -> None:
    graph = load_graph(models.save(models.unet(), tmp_path / "u.onnx"))
    skipping = next(t for t in graph.tensors if len(t.readers) == 2)
    hidden = graph.operators[skipping.producer + 1].outputs[0]
    reason = why_no_cut(graph, graph.tensors[hidden].name)
    assert skipping.name in reason
    assert "cuts=frontiers" in reason
    assert "is a cut" in why_no_cut(graph, skipping.name)
    assert "weight" in why_no_cut(graph, next(t.name for t in graph.tensors if t.is_weight))


@given(model=random_models.models(), parts=st.integers(2, 9))
@settings(per_folder, max_examples=100)
def test_what_is_advised_for_too_few_cuts_is_enough(model: object, parts: int, tmp_path: Path) -> None:
    graph = load_graph(random_models.saved(model, tmp_path))
    given = dict(word.split("=") for word in advised(f"too few; {how_to_cut(graph, parts)}")[0].split())
    parts, most = int(given.get("split.parts", parts)), int(given.get("cuts.max_tensors", 0))
    assert len(balanced_cuts(graph, find_cuts(graph, "frontiers", most), parts, operator_work(graph))) == parts - 1


def test_a_cut_that_does_not_exist_suggests_the_nearest(tmp_path: Path) -> None:
    graph = load_graph(models.save(models.chain(), tmp_path / "c.onnx"))
    with pytest.raises(ModelError, match=r"relu_9.*did you mean 'relu_2_0'|did you mean"):
        cut_at(graph, "relu_9")
    with pytest.raises(ModelError, match=r"cuts\.kind=colour"):
        find_cuts(graph, "colour")


def test_a_cut_at_a_tensor_is_the_position_behind_it_if_it_does_not_cross_alone(tmp_path: Path) -> None:
    graph = load_graph(models.save(models.unet(), tmp_path / "u.onnx"))
    hidden = next(t for t in graph.tensors if t.producer and t.readers and "cross behind" in why_no_cut(graph, t.name))
    cut = cut_at(graph, hidden.name)
    assert hidden.id in cut.tensors
    assert len(cut.tensors) > 1
    with pytest.raises(ModelError, match="tensors cross behind"):
        cut_at(graph, hidden.name, max_tensors=1)


def test_what_cannot_cross_a_border_is_no_cut(tmp_path: Path) -> None:
    b = models.Builder()
    parts = b.op("SplitToSequence", b.op("Relu", "x"), axis=0, outputs=["parts"])
    y = b.op("Relu", b.op("ConcatFromSequence", parts, axis=0, outputs=["joined"]))
    file = models.save(b.model([models.value("x", [2, 3])], [models.value(y, None)]), tmp_path / "m.onnx")
    graph = load_graph(file)
    assert graph.tensor("parts").dtype == "seq(tensor(float))"
    assert [graph.tensors[t].name for cut in find_cuts(graph) for t in cut.tensors] == ["relu_0_0", "joined"]
    assert not graph.unknown_shapes()
    assert "is of type seq(tensor(float))" in why_no_cut(graph, "parts")
    with pytest.raises(ModelError, match=r"'parts' is of type seq\(tensor\(float\)\).*cut elsewhere"):
        cut_at(graph, "parts")


@given(model=random_models.models(), distance=st.integers(2, 8))
@per_folder
def test_cuts_keep_their_distance_and_none_is_left_out_for_nothing(
    model: object, distance: int, tmp_path: Path
) -> None:
    graph = load_graph(random_models.saved(model, tmp_path))
    for kind in ("tensors", "bridges", "frontiers"):
        every, kept = find_cuts(graph, kind), find_cuts(graph, kind, bridge_dist=distance)
        assert [cut for cut in every if cut in kept] == kept
        for number, cut in enumerate(every):
            before_it = [near(graph, other) for other in every[:number] if other in kept]
            assert (cut in kept) == all(len(near(graph, cut) ^ other) >= distance for other in before_it)


def test_the_distance_of_bridges_in_a_real_model() -> None:
    graph = load_graph(models.LIGHT / "light_resnet50.onnx")
    cuts = find_cuts(graph, "bridges", bridge_dist=6)
    assert 2 < len(cuts) < len(find_cuts(graph, "bridges"))
    assert min(np.diff([cut.position for cut in cuts if cut.in_order])) >= 6
