from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from pepper.errors import LatencyError
from pepper.latency import collect
from pepper.latency.baselines import BASELINES
from pepper.latency.dataset import grouped_folds, held_out
from pepper.latency.evaluation import by_group, compare, fastest_picked, leave_one_out, noise_floor, scores
from pepper.latency.model import Hyperparameters
from pepper.latency.training import report, trainer
from tests.latency.measured import measured


def test_scores_by_hand() -> None:
    result = scores(np.array([10.0, 20.0, 40.0, 80.0]), np.array([10.4, 18.0, 46.0, 40.0]))
    assert result["mape"] == pytest.approx((0.04 + 0.1 + 0.15 + 0.5) / 4)
    assert result["median_error"] == pytest.approx(0.125)
    assert (result["within_5"], result["within_10"], result["within_20"]) == (0.25, 0.5, 0.75)
    assert result["spearman"] == pytest.approx(0.8)


@given(st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=60), st.integers(2, 6))
def test_no_group_lies_on_both_sides_and_each_row_is_tested_once(groups: list[str], folds: int) -> None:
    names = np.array(groups)
    parts = grouped_folds(names, folds)
    assert len(parts) == min(folds, len(set(groups)))
    for train, test in parts:
        assert not set(names[train]) & set(names[test])
    assert np.array_equal(np.sum([test for _, test in parts], axis=0), np.ones(len(names)))


def test_whole_models_are_held_out_whatever_their_order() -> None:
    rows = measured(models=10)
    out = held_out(rows)
    assert out.any()
    assert not set(rows.model[out]) & set(rows.model[~out])
    again = rows.take(np.arange(len(rows))[::-1])
    assert set(again.model[held_out(again)]) == set(rows.model[out])
    assert again.digest == rows.digest
    with pytest.raises(LatencyError, match="2 models measured"):
        held_out(measured(models=2))


@given(st.sets(st.text("abcdef", min_size=1), min_size=3, max_size=30), st.floats(0.05, 0.9))
def test_something_is_held_out_and_two_models_are_left(names: set[str], fraction: float) -> None:
    rows = measured(models=len(names), parts=1)
    called = np.array([sorted(names)[int(name[5:])] for name in rows.model])
    rows = replace(rows, model=called, group=called)
    out = held_out(rows, fraction)
    assert out.any()
    assert len(set(rows.model[~out])) >= 2


def test_different_files_of_one_name_are_different_groups() -> None:
    rows = measured(models=4)
    alike = replace(rows, model=np.where(rows.model == "model3", "model3", "model"), group=rows.model)
    assert set(alike.groups("model")) == {"model (model0)", "model (model1)", "model (model2)", "model3"}
    assert set(by_group(alike, alike.p50_ms)["model"]) == set(alike.groups("model"))
    out = held_out(alike)
    assert out.any()
    assert not set(alike.group[out]) & set(alike.group[~out])
    assert alike.digest == rows.digest, "names are for people"


def test_models_are_known_by_their_hash_or_by_the_name_that_older_rows_have() -> None:
    rows = measured(models=3)
    renamed = replace(rows, model=np.char.add("my ", rows.model))
    known = renamed.take(renamed.group == "model1")
    assert np.array_equal(known.holds(rows.model, rows.group), rows.group == "model1")
    older = replace(known, model=rows.model[rows.model == "model1"], group=np.char.add("named ", known.group))
    assert np.array_equal(older.holds(rows.model, rows.group), rows.group == "model1")


def test_rows_are_read_back_also_those_of_before_groups(tmp_path: Path) -> None:
    rows = measured(models=3)
    collect.write(rows, tmp_path / "rows.parquet")
    assert collect.read(tmp_path / "rows.parquet").digest == rows.digest
    table = parquet.read_table(tmp_path / "rows.parquet")
    parquet.write_table(table.drop_columns("group"), tmp_path / "older.parquet")
    older = collect.read(tmp_path / "older.parquet")
    assert set(older.group) == {"named model0", "named model1", "named model2"}


def test_a_model_that_joins_moves_no_other() -> None:
    def chosen(models: int) -> set[str]:
        rows = measured(models=models, parts=1)
        return set(rows.model[held_out(rows)])

    few, many = chosen(20), chosen(60)
    assert few == {name for name in many if int(name[5:]) < 20}
    assert 5 <= len(many) <= 20  # a fifth of 60, by chance


def test_what_is_left_out_is_not_trained_on() -> None:
    rows = measured(models=3, parts=2)
    seen = []

    def train(known):  # type: ignore[no-untyped-def]
        seen.append(set(known.device))
        return lambda features: np.ones(len(features))

    leave_one_out(rows, "device", train)
    assert seen in ([{"fast"}, {"slow"}], [{"slow"}, {"fast"}])
    with pytest.raises(LatencyError, match="only one load"):
        leave_one_out(rows.take(rows.load == "idle"), "load", train)


def test_the_noise_floor_is_what_the_same_cell_differs_by() -> None:
    assert np.isnan(noise_floor(measured()))
    twice = measured(twice=True, noise=0.02)
    assert 0.01 < noise_floor(twice) < 0.04  # |N(0, 0.02 sqrt 2)| has the mean 0.0226


def test_the_fastest_device_counts_only_beyond_noise() -> None:
    rows = measured(models=2, parts=1, noise=0)
    right = fastest_picked(rows, rows.p50_ms)
    assert (right.cases, right.right) == (6, 1.0)
    assert fastest_picked(rows, -rows.p50_ms).right == 0
    assert fastest_picked(rows, rows.p50_ms, noise=10).cases == 0


def test_a_comparison_tells_better_from_noise() -> None:
    rows = measured(models=12)
    rng = np.random.default_rng(0)
    good, bad, as_good = (rows.p50_ms * np.exp(size * rng.standard_normal(len(rows))) for size in (0.05, 0.2, 0.05))
    assert compare(rows, good, bad).better
    assert not compare(rows, bad, good).better
    assert not compare(rows, good, as_good).better
    assert not compare(rows, good, good).better


def test_the_interval_of_a_comparison_holds_its_confidence() -> None:
    """Equally good predictions are called better in about half of 5 % of the cases."""
    rows, calls = measured(models=20, parts=2), 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        first, second = (rows.p50_ms * np.exp(0.1 * rng.standard_normal(len(rows))) for _ in range(2))
        calls += compare(rows, first, second, resamples=400, seed=seed).better
    assert calls <= 16  # 8 % of 200; the expected 2.5 % and the small sample's excess


def test_models_that_chance_favours_do_not_promote() -> None:
    """With six models, each better or worse as a whole by chance, few challengers seem better; good ones do."""
    rows, calls = measured(models=6, parts=2), {0.0: 0, -0.1: 0}
    of = np.array([int(name[5:]) for name in rows.model])
    for seed in range(200):
        rng = np.random.default_rng(seed)
        gain = 0.04 * rng.standard_normal(6)[of] + 0.03 * rng.standard_normal(len(rows))
        for truth in calls:
            challenger = rows.p50_ms * (1.3 + truth + gain)
            calls[truth] += compare(rows, challenger, rows.p50_ms * 1.3, resamples=2000, seed=seed).better
    assert calls[0.0] <= 12  # 6 % of 200; the expected 2.5 % and the small sample's excess
    assert calls[-0.1] >= 180


def test_one_part_says_nothing() -> None:
    rows = measured(models=1, parts=1)
    assert not compare(rows, rows.p50_ms, rows.p50_ms * 2).better


def test_what_leaves_nothing_to_learn_from_is_not_left_out() -> None:
    rows = measured(models=6)
    one = np.flatnonzero(rows.device == "slow")[:1]
    lopsided = rows.take(np.isin(np.arange(len(rows)), [*np.flatnonzero(rows.device == "fast"), *one]))
    result = report(lopsided, Hyperparameters(rounds=5, bags=1))
    assert set(result.table["held_out"]) == {"model", "load"}


def test_every_predictor_is_scored_on_every_hold_out() -> None:
    result = report(measured(models=6), Hyperparameters(rounds=20, bags=1))
    assert len(result.table) == 3 * (1 + len(BASELINES))
    by_model = result.table[result.table["held_out"] == "model"].set_index("predictor")["mape"]
    assert by_model["pepper"] < by_model["paper"]
    assert by_model["pepper"] < by_model["device mean"]
    for by, found in result.evidence.items():
        line = result.table[(result.table["held_out"] == by) & (result.table["predictor"] == "pepper")]
        assert line["inside"].item() == pytest.approx(found.inside.mean())
        assert 0.6 < found.inside.mean() <= 1


def test_baselines_answer_for_a_device_never_seen() -> None:
    rows = measured()
    for name, train in {**BASELINES, "pepper": trainer(Hyperparameters(rounds=10))}.items():
        predicted = leave_one_out(rows, "device", train)
        assert np.all(np.isfinite(predicted) & (predicted > 0)), name
