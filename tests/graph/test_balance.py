"""The choice of cuts for parts of equal work, against every choice there is."""

from itertools import accumulate, combinations, pairwise
from pathlib import Path

import models
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pepper.errors import ModelError
from pepper.graph import balance
from pepper.graph.cuts import find_cuts
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
    with pytest.raises(ModelError, match=r"split\.parts=9: the model has 2 cuts.*cuts=frontiers"):
        balance.balanced_cuts(graph, find_cuts(graph), 9, [1.0] * 3)
    assert balance.balanced_cuts(graph, find_cuts(graph), 1, [1.0] * 3) == []
    assert len(balance.balanced_cuts(graph, find_cuts(graph), 2, [0.0] * 3)) == 1
