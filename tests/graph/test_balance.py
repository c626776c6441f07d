"""The choice of cuts for parts of equal work, against every choice there is."""

from collections.abc import Sequence
from itertools import accumulate, combinations, pairwise
from pathlib import Path

import models
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pepper.errors import ModelError
from pepper.graph import balance
from pepper.graph.costs import operator_work
from pepper.graph.cuts import find_cuts
from pepper.graph.ir import Graph
from pepper.graph.load import load_graph


@given(
    costs=st.lists(st.sampled_from([0.0, 0.3, 1.0, 2.0, 5.0]), min_size=2, max_size=8).filter(any),
    data=st.data(),
)
@settings(deadline=None)
def test_no_choice_is_better(costs: list[float], data: st.DataObject) -> None:
    ends, total = list(accumulate(costs))[:-1], sum(costs)
    parts = data.draw(st.integers(2, len(costs)))
    penalty = [(data.draw(st.integers(0, 1)), data.draw(st.integers(0, 9))) for _ in ends]

    def bottleneck(choice: tuple[int, ...]) -> float:
        borders = [0.0, *(ends[i] for i in choice), total]
        return max(b - a for a, b in pairwise(borders))

    def price(choice: list[int] | tuple[int, ...]) -> tuple[int, int]:
        return sum(penalty[i][0] for i in choice), sum(penalty[i][1] for i in choice)

    choices = list(combinations(range(len(ends)), parts - 1))
    least = balance._least_bottleneck(ends, total, parts)
    assert least == pytest.approx(min(map(bottleneck, choices)), rel=1e-5)
    limit = 1.1 * least
    chosen = balance._cheapest(ends, total, parts, limit, penalty)
    assert bottleneck(tuple(chosen)) <= limit
    assert price(chosen) == min(price(choice) for choice in choices if bottleneck(choice) <= limit)


def test_borders_keep_fused_operators_together(tmp_path: Path) -> None:
    graph = load_graph(models.save(models.chain(8), tmp_path / "c.onnx"))
    cost = [1.0 if operator.kind == "Conv" else 0.0 for operator in graph.operators]
    chosen = balance.balanced_cuts(graph, find_cuts(graph), 4, cost)
    assert [graph.operators[cut.position].kind for cut in chosen] == ["Conv"] * 3
    assert [cut.position for cut in chosen] == [6, 12, 18]
    assert not any(balance.breaks_fusion(graph, cut) for cut in chosen)


def test_quantised_operators_stay_with_what_feeds_them(tmp_path: Path) -> None:
    graph = load_graph(models.save(models.quantized(), tmp_path / "q.onnx"))
    kept = [cut for cut in find_cuts(graph) if not balance.breaks_fusion(graph, cut)]
    assert {graph.operators[cut.position - 1].kind for cut in kept} == {"QuantizeLinear"}


def test_too_few_cuts_says_so(tmp_path: Path) -> None:
    graph = load_graph(models.save(models.chain(1), tmp_path / "c.onnx"))
    with pytest.raises(ModelError, match=r"split\.parts=9: the model has 2 cuts.*give split\.parts=3"):
        balance.balanced_cuts(graph, find_cuts(graph), 9, [1.0] * 3)
    assert balance.balanced_cuts(graph, find_cuts(graph), 1, [1.0] * 3) == []
    assert len(balance.balanced_cuts(graph, find_cuts(graph), 2, [0.0] * 3)) == 1


def pyramid(folder: Path) -> Graph:
    """All MACs in one Gemm, behind and before it what only moves bytes."""
    b = models.Builder()
    x = b.op("Relu", "x")
    y = b.op("Gemm", x, b.weight(512, 1000))
    z = b.op("Softmax", b.op("Sqrt", b.op("Abs", y)))
    return load_graph(models.save(b.model([models.value("x", [1, 512])], [models.value(z, None)]), folder / "p.onnx"))


def test_no_part_costs_nothing_while_there_are_other_cuts(tmp_path: Path) -> None:
    graph = load_graph(models.save(models.chain(4), tmp_path / "c.onnx"))
    cost = [1.0 if operator.kind == "Conv" else 0.0 for operator in graph.operators]
    for parts in (2, 3, 4):
        positions = [0, *(c.position for c in balance.balanced_cuts(graph, find_cuts(graph), parts, cost)), len(cost)]
        assert all(sum(cost[a:b]) for a, b in pairwise(positions))
    assert len(balance.balanced_cuts(graph, find_cuts(graph), 6, cost)) == 5  # more than there is work for


def test_a_share_is_never_nothing(tmp_path: Path) -> None:
    graph = pyramid(tmp_path)
    work = operator_work(graph)
    assert all(work)
    (cut,) = balance.balanced_cuts(graph, find_cuts(graph), 2, work)
    assert 0 < sum(work[: cut.position]) < sum(work)


@given(
    costs=st.lists(st.sampled_from([0.1, 1.0, 100.0]), min_size=3, max_size=8),
    data=st.data(),
)
@settings(deadline=None)
def test_least_parts_are_kept_to_where_that_can_be(costs: list[float], data: st.DataObject) -> None:
    ends, total = list(accumulate(costs))[:-1], sum(costs)
    parts = data.draw(st.integers(2, len(costs)))
    penalty = [(data.draw(st.integers(0, 1)), data.draw(st.integers(0, 9))) for _ in ends]
    least, limit = 0.05 * total, 0.95 * total

    def shares(choice: Sequence[int]) -> list[float]:
        return [b - a for a, b in pairwise([0.0, *(ends[i] for i in choice), total])]

    allowed = [
        choice
        for choice in combinations(range(len(ends)), parts - 1)
        if all(least <= s <= limit for s in shares(choice))
    ]
    chosen = balance._cheapest(ends, total, parts, limit, penalty, least)
    if not allowed:
        assert chosen == []
        return
    price = [tuple(map(sum, zip(*(penalty[i] for i in choice), strict=True))) for choice in (*allowed, chosen)]
    assert all(least <= share <= limit for share in shares(chosen))
    assert price[-1] == min(price)
