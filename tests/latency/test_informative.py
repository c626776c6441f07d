from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pepper.latency.dataset import Rows
from pepper.latency.evaluation import relative_error
from pepper.latency.features import COLUMN
from pepper.latency.informative import LEAST, choose, disagreement
from pepper.latency.medoids import medoids
from pepper.latency.model import Hyperparameters, LatencyModel
from tests.latency.measured import measured

QUICK = Hyperparameters(rounds=100, bags=1)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 7), st.integers(0, 2))
def test_the_first_medoid_is_the_best_one_and_the_others_never_make_it_worse(
    seed: int, total: int, before: int
) -> None:
    rng = np.random.default_rng(seed)
    points, weight = rng.normal(size=(total, 2)), rng.random(total)
    known = rng.permutation(total)[: min(before, total - 1)]
    parts = np.array([str(number) for number in range(total)])
    chosen = medoids(points, parts, total, weight, known)
    assert sorted([*chosen, *known]) == list(range(total))
    distance = np.sqrt(((points[:, None] - points) ** 2).sum(axis=2))

    def cost(taken: list[int]) -> float:
        return float(weight @ distance[:, taken].min(axis=1))

    best = min((place for place in range(total) if place not in known), key=lambda place: cost([*known, place]))
    assert cost([*known, chosen[0]]) == pytest.approx(cost([*known, best]))
    assert np.all(np.diff([cost([*known, *chosen[: n + 1]]) for n in range(len(chosen))]) <= 1e-9)


def test_no_part_is_chosen_twice_before_each_was_once() -> None:
    points = np.random.default_rng(0).normal(size=(12, 3))
    parts = np.repeat(["a", "b", "c"], 4)
    chosen = medoids(points, parts, 6, None, np.array([0]))
    assert sorted(parts[chosen[:2]]) == ["b", "c"]
    assert sorted(parts[chosen[2:5]]) == ["a", "b", "c"]


def unlike() -> Rows:
    """Convolutions, and beside them products that take five times as long as their work says."""
    rows = measured(models=10, parts=4, noise=0.01)
    other = np.isin(rows.model, ["model7", "model8", "model9"])
    features, p50_ms = rows.features.copy(), rows.p50_ms.copy()
    features[np.ix_(other, [COLUMN["macs_gemm"], COLUMN["macs_conv_dense_k3"]])] = np.column_stack(
        (features[other, COLUMN["macs_conv_dense_k3"]], np.zeros(other.sum()))
    )
    p50_ms[other] *= 5
    return replace(rows, features=features, p50_ms=p50_ms)


def test_models_disagree_most_about_what_was_never_measured_and_it_is_chosen() -> None:
    rows = unlike()
    known = np.flatnonzero(np.isin(rows.model, ["model0", "model1", "model2", "model3", "model7"]))
    before = rows.take(known[::2])
    says = disagreement(before, rows.features)
    assert says.shape == (len(rows),)
    assert np.median(says[rows.model == "model8"]) > np.median(says[rows.model == "model4"])
    chosen = choose(rows.features, rows.part, known, before, 12)
    assert not set(chosen) & set(known)
    assert np.isin(rows.model[chosen[:6]], ["model8", "model9"]).mean() > 0.4, "of 20 % of the cells"
    assert choose(rows.features, rows.part, known, before, 12) == chosen
    assert choose(rows.features, rows.part, known, before, 12, seed=1)[:6] == chosen[:6]
    everything = choose(rows.features, rows.part, known, before, 10_000)
    assert sorted([*everything, *known]) == list(range(len(rows)))


def test_chosen_cells_teach_more_than_whole_parts_do() -> None:
    rows = unlike()
    whole = np.flatnonzero(np.isin(rows.part, [f"part{number}" for number in range(8)]))
    count = len(whole)
    nothing = np.array([], int)
    first = np.array(choose(rows.features, rows.part, nothing, None, count // 2))
    assert count // 2 > LEAST
    then = choose(rows.features, rows.part, first, rows.take(first), count - len(first))

    def error(chosen: np.ndarray) -> float:
        learned = rows.take(chosen)
        model = LatencyModel.fit(learned.features, learned.p50_ms, None, QUICK)
        rest = np.setdiff1d(np.arange(len(rows)), chosen)
        return float(np.mean(relative_error(rows.p50_ms[rest], model.p50_ms(rows.features[rest]))))

    assert error(np.append(first, then)) < error(whole) / 2
