from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pepper.errors import LatencyError
from pepper.latency.adaptation import Adaptation, choose, composition, left_out
from pepper.latency.dataset import Rows
from pepper.latency.evaluation import scores
from pepper.latency.features import COLUMN, rows
from pepper.latency.model import Hyperparameters, LatencyModel
from pepper.latency.roofline import TERMS, Roofline
from pepper.tasks.adapt import joined
from tests.latency.measured import measured, random_parts, setting


@pytest.fixture(scope="module")
def champion() -> LatencyModel:
    known = measured(models=10)
    return LatencyModel.fit(known.features, known.p50_ms, known.p95_ms, Hyperparameters(rounds=30))


def device(slower: float, gflops: float = 60.0, noise: float = 0.02) -> Rows:
    """A device never trained on whose arithmetic is slower than its calibration promises."""
    base = measured(models=12, seed=5, noise=noise)
    rows = base.take(base.device == "fast")
    there = rows.features.copy()
    for name in ("device_gflops", "device_gflops_single"):
        there[:, COLUMN[name]] = gflops
    there[:, COLUMN["device_memory_gbps"]] = gflops / 5
    work = there[:, COLUMN["macs"]] * 2 / 0.6 / gflops / 1e6 * slower
    work += there[:, COLUMN["bytes_activation"]] / (gflops / 5) / 1e6
    work += there[:, COLUMN["operators"]] * 0.02 * 100 / gflops
    noisy = np.exp(noise * np.random.default_rng(1).standard_normal(len(work)))
    return replace(rows, features=there, p50_ms=work * there[:, COLUMN["load_slowdown"]] * noisy)


def adapted(champion: LatencyModel, there: Rows, count: int = 10) -> tuple[LatencyModel, Rows]:
    """The champion adapted to chosen rows, and the rows left."""
    chosen = choose(there.features, there.part, champion.roofline, count)
    some = there.take(np.array(chosen))
    ratios = some.p50_ms / champion.p50_ms(some.features)
    model = champion.adapted(Adaptation.fit(some.features, ratios, champion.roofline))
    return model, there.take(np.setdiff1d(np.arange(len(there)), chosen))


def test_ten_measurements_teach_a_device(champion: LatencyModel) -> None:
    model, rest = adapted(champion, device(slower=3.0))
    before, after = (scores(rest.p50_ms, each.p50_ms(rest.features))["mape"] for each in (champion, model))
    assert before > 0.25
    assert after < before / 2


def test_other_devices_are_predicted_as_before(champion: LatencyModel) -> None:
    model, _ = adapted(champion, device(slower=3.0))
    elsewhere = measured(models=10)
    assert np.array_equal(model.p50_ms(elsewhere.features), champion.p50_ms(elsewhere.features))
    assert np.array_equal(model.outside(elsewhere.features), champion.outside(elsewhere.features))


def test_a_device_that_is_as_predicted_is_left_alone(champion: LatencyModel) -> None:
    there = device(slower=1.0)
    model, rest = adapted(champion, there)
    before, after = (scores(rest.p50_ms, each.p50_ms(rest.features))["mape"] for each in (champion, model))
    assert after < before + 0.03


def test_one_wild_measurement_does_not_decide(champion: LatencyModel) -> None:
    there = device(slower=1.0)
    some = there.take(np.array(choose(there.features, there.part, champion.roofline, 10)))
    ratios = some.p50_ms / champion.p50_ms(some.features)
    ratios[3] *= 20
    model = champion.adapted(Adaptation.fit(some.features, ratios, champion.roofline))
    assert scores(there.p50_ms, model.p50_ms(there.features))["mape"] < 0.25


def test_adaptations_are_kept_and_replaced(champion: LatencyModel, tmp_path: Path) -> None:
    first, rest = adapted(champion, device(slower=3.0))
    other, _ = adapted(first, device(slower=2.0, gflops=10.0))
    again, _ = adapted(other, device(slower=2.0))
    assert [len(model.adaptations) for model in (first, other, again)] == [1, 2, 2]
    again.save(tmp_path)
    loaded = LatencyModel.load(tmp_path)
    assert np.array_equal(loaded.p50_ms(rest.features), again.p50_ms(rest.features))


def test_a_device_that_was_adapted_to_is_no_longer_outside(champion: LatencyModel) -> None:
    there = device(slower=3.0, gflops=1000.0)
    model, rest = adapted(champion, there)
    assert "device_gflops" in {value.feature for value in champion.out_of_range(rest.features)}
    assert "device_gflops" not in {value.feature for value in model.out_of_range(rest.features)}


def test_no_part_is_chosen_twice_before_each_was_chosen_once(champion: LatencyModel) -> None:
    there = device(slower=1.0)
    chosen = choose(there.features, there.part, champion.roofline, 50)
    assert len(set(chosen)) == 50
    assert len(set(there.part[chosen[:48]])) == 48
    assert sorted(choose(there.features, there.part, champion.roofline, 10**6)) == list(range(len(there)))


@given(st.integers(0, 1000))
def test_the_first_choice_is_the_most_central_row(seed: int) -> None:
    candidates = rows(random_parts(12, seed), setting(load=50.0))
    first = choose(candidates, np.arange(12).astype(str), None, 1)[0]
    size = np.log(Roofline(np.ones(len(TERMS))).latency_ms(candidates))
    points = np.column_stack((composition(candidates, None), size))
    points = points / np.maximum(points.std(axis=0), 1e-9)
    cost = [float(np.linalg.norm(points - point, axis=1).sum()) for point in points]
    assert cost[first] == pytest.approx(min(cost))


def test_left_out_corrections_do_not_know_their_row(champion: LatencyModel) -> None:
    there = device(slower=3.0).take(np.arange(8))
    ratios = there.p50_ms / champion.p50_ms(there.features)
    other = ratios * np.where(np.arange(8) == 2, 5.0, 1.0)
    first, second = (left_out(there.features, each, champion.roofline) for each in (ratios, other))
    assert first[2] == pytest.approx(second[2])


def test_measurements_must_suffice_and_be_of_one_device(champion: LatencyModel) -> None:
    there = device(slower=1.0)
    with pytest.raises(LatencyError, match="2 VALID measurements to adapt to; at least 3"):
        Adaptation.fit(there.features[:2], np.ones(2), champion.roofline)
    both = measured()
    with pytest.raises(LatencyError, match="measurements of 2 devices"):
        Adaptation.fit(both.features, np.ones(len(both)), champion.roofline)


def test_no_row_is_learned_or_held_out_twice() -> None:
    everything = measured()
    train, test = (everything.take(np.isin(everything.model, names)) for names in (["model0", "model1"], ["model2"]))
    rows = Rows.join(train.take(np.arange(3)), everything.take(everything.model == "model3"))
    again = replace(test.take(np.arange(2)), p50_ms=test.p50_ms[:2] * 1.01)  # measured anew
    rest = Rows.join(test.take(np.arange(4)), again, everything.take(everything.model == "model4"))
    first = joined(train, test, rows, rest)
    assert [len(part) for part in first] == [len(train) + 24, len(test) + 2]
    for part in first:
        assert len(part) == len(np.unique(np.column_stack((part.features, part.p50_ms)), axis=0))
    assert [part.digest for part in joined(*first, rows, rest)] == [part.digest for part in first]
    assert [part.digest for part in joined(*first, rows, None)] == [part.digest for part in first]
