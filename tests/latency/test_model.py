import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pepper.errors import LatencyError
from pepper.latency.evaluation import scores
from pepper.latency.features import COLUMN, FEATURES, rows
from pepper.latency.intervals import Interval
from pepper.latency.model import FILE, Hyperparameters, LatencyModel
from pepper.latency.ranges import in_short
from tests.latency.measured import measured, random_parts, setting

SMALL = Hyperparameters(rounds=60, learning_rate=0.1)


@pytest.fixture(scope="module")
def model() -> LatencyModel:
    known = measured(models=10)
    model = LatencyModel.fit(known.features, known.p50_ms, known.p95_ms, SMALL)
    return replace(model, interval=Interval.around(np.linspace(0.8, 1.2, 101)))


def test_it_predicts_parts_never_seen(model: LatencyModel) -> None:
    unseen = measured(models=10, seed=7)
    assert scores(unseen.p50_ms, model.p50_ms(unseen.features))["mape"] < 0.1


def test_the_tail_lies_above_the_median_and_the_interval_around_it(model: LatencyModel) -> None:
    result = model.predict(measured(seed=3).features)
    assert np.all(result.p95_ms >= result.p50_ms)
    assert np.median(result.p95_ms / result.p50_ms) == pytest.approx(1.1, rel=0.02)
    assert result.low_ms == pytest.approx(result.p50_ms * 0.82)
    assert result.high_ms == pytest.approx(result.p50_ms * 1.18)


def test_without_tails_there_is_no_95th_percentile() -> None:
    known = measured()
    result = LatencyModel.fit(known.features, known.p50_ms, None, SMALL).predict(known.features)
    assert np.isnan(result.p95_ms).all()


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    less=st.floats(0, 100),
    more=st.floats(0, 100),
    share=st.sampled_from([1.0, 0.5, 0.25]),
    slices_ms=st.one_of(st.just(np.nan), st.floats(0.5, 20)),
)
def test_more_load_is_never_faster(
    model: LatencyModel, seed: int, less: float, more: float, share: float, slices_ms: float
) -> None:
    parts = random_parts(4, seed)
    slices = {"device_cycle_ms": slices_ms, "device_slice_ms": slices_ms, "load_period_ms": slices_ms / 2}
    where = (replace(setting(50, load), device_share=share, **slices) for load in sorted((less, more)))
    low, high = (rows(parts, each) for each in where)
    assert np.all(model.p50_ms(high) >= model.p50_ms(low) * (1 - 1e-6))


def test_loading_gives_back_what_was_saved(model: LatencyModel, tmp_path: Path) -> None:
    model.save(tmp_path)
    again = LatencyModel.load(tmp_path)
    unseen = measured(seed=5).features
    before, after = model.predict(unseen), again.predict(unseen)
    for name, values in vars(before).items():
        assert np.array_equal(values, getattr(after, name), equal_nan=values.dtype != bool), name
    assert again.hyperparameters == model.hyperparameters
    assert not [file for file in tmp_path.iterdir() if file.suffix not in (".ubj", ".json")]
    json.loads((tmp_path / FILE).read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_another_format_is_refused_with_the_fix(model: LatencyModel, tmp_path: Path) -> None:
    model.save(tmp_path)
    content = json.loads((tmp_path / FILE).read_text())
    (tmp_path / FILE).write_text(json.dumps({**content, "format": 2}))
    with pytest.raises(LatencyError, match=r"format 2, but this pepper reads \d; train again with task=train"):
        LatencyModel.load(tmp_path)


def test_another_feature_list_is_refused_with_the_fix(model: LatencyModel, tmp_path: Path) -> None:
    model.save(tmp_path)
    content = json.loads((tmp_path / FILE).read_text())
    content.update(features=[*FEATURES[:-1], "moon_phase"], features_digest="other")
    (tmp_path / FILE).write_text(json.dumps(content))
    with pytest.raises(LatencyError, match=r"another feature list \(load_slowdown, moon_phase\).*task=train"):
        LatencyModel.load(tmp_path)


def test_what_is_no_model_is_refused(model: LatencyModel, tmp_path: Path) -> None:
    with pytest.raises(LatencyError, match="no latency model that can be read"):
        LatencyModel.load(tmp_path)
    model.save(tmp_path)
    (tmp_path / "median_0.ubj").write_bytes(b"nonsense")
    with pytest.raises(LatencyError, match="missing or corrupt"):
        LatencyModel.load(tmp_path)


def test_trees_that_are_not_those_that_were_saved_are_never_parsed(model: LatencyModel, tmp_path: Path) -> None:
    model.save(tmp_path)
    for name in ("median_1.ubj", "tail_0.ubj"):
        trees = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(trees[:100] + bytes([trees[100] ^ 1]) + trees[101:])  # some flips crash XGBoost
        with pytest.raises(LatencyError, match=rf"{name}: missing or corrupt \(not what was saved\)"):
            LatencyModel.load(tmp_path)
        (tmp_path / name).write_bytes(trees)
    content = json.loads((tmp_path / FILE).read_text())
    del content["files"]  # as of versions that were saved without
    (tmp_path / FILE).write_text(json.dumps(content))
    features = measured(seed=5).features
    assert np.array_equal(LatencyModel.load(tmp_path).p50_ms(features), model.p50_ms(features))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("roofline", None, "base is roofline, but there is no roofline"),
        ("roofline", {"inference": 1.0}, "roofline: does not hold what it should"),
        ("roofline", [1], "roofline is"),
        ("constant_ms", 0, "constant_ms is 0: .*greater than 0"),
        ("constant_ms", float("nan"), "NaN is no number"),
        ("lows", [1.0], "lows is .*at least"),
        ("highs", ["x"] * len(FEATURES), "highs.0 is 'x'"),
        ("interval", [0.0, 1.0], "interval.0"),
        ("tails", 10**12, "tails is"),
        ("adaptations", {}, "adaptations is"),
        ("files", {"../median_0.ubj": "0" * 64}, "files are not those of its trees"),
        ("hyperparameters", {"bags": -1}, "hyperparameters"),
        ("more", 1, "more is 1"),
    ],
)
def test_a_description_is_checked_whole(
    key: str, value: object, said: str, model: LatencyModel, tmp_path: Path
) -> None:
    model.save(tmp_path)
    content = json.loads((tmp_path / FILE).read_text())
    (tmp_path / FILE).write_text(json.dumps({**content, key: value}))
    with pytest.raises(LatencyError, match=rf"{FILE}: no latency model that can be read \(.*{said}") as refused:
        LatencyModel.load(tmp_path)
    assert "\n" not in str(refused.value)


def test_values_outside_of_what_was_trained_on_are_named(model: LatencyModel) -> None:
    row = rows(random_parts(1), setting())
    assert not model.predict(row).outside.any()
    assert model.out_of_range(row) == []
    row[0, COLUMN["macs"]] = model.ranges.highs[COLUMN["macs"]] * 8
    row[0, COLUMN["macs_attention"]] = 1e6
    assert model.predict(row).outside.all()
    by_name = {value.feature: str(value) for value in model.out_of_range(row)}
    assert set(by_name) == {"macs", "macs_attention"}
    assert "8 times above what was trained on" in by_name["macs"]
    assert "far above" in by_name["macs_attention"]


def test_what_lies_outside_is_said_in_short_the_farthest_first(model: LatencyModel) -> None:
    row = rows(random_parts(1), setting())
    for times, name in ((2, "operators"), (9, "macs"), (5, "read_bytes"), (3, "device_gflops")):
        row[0, COLUMN[name]] = model.ranges.highs[COLUMN[name]] * times
    row[0, COLUMN["pool_layers"]] = 1
    lines = in_short(model.out_of_range(row))
    assert [line.split("=")[0] for line in lines[:3]] == ["macs", "read_bytes", "device_gflops"]
    assert lines[3:] == ["and 2 more outside of what was trained on"]


def test_rows_and_latencies_are_checked(model: LatencyModel) -> None:
    with pytest.raises(LatencyError, match=f"must have {len(FEATURES)} features"):
        model.predict(np.zeros((2, 3)))
    known = measured()
    with pytest.raises(LatencyError, match="above 0"):
        LatencyModel.fit(known.features, np.zeros(len(known)), None, SMALL)
    with pytest.raises(LatencyError, match="0 rows"):
        LatencyModel.fit(known.features[:0], known.p50_ms[:0], None, SMALL)


def test_training_is_reproducible_and_bags_differ() -> None:
    known = measured()
    first, second = (LatencyModel.fit(known.features, known.p50_ms, None, SMALL) for _ in range(2))
    assert np.array_equal(first.p50_ms(known.features), second.p50_ms(known.features))
    other = LatencyModel.fit(known.features, known.p50_ms, None, replace(SMALL, seed=1))
    assert not np.array_equal(first.p50_ms(known.features), other.p50_ms(known.features))


@pytest.mark.parametrize("objective", ["huber", "squared"])
@pytest.mark.parametrize("base", ["roofline", "constant"])
def test_every_loss_and_base_learns(objective: str, base: str) -> None:
    known = measured(models=10)
    chosen = Hyperparameters(
        objective=objective, base=base, rounds=150, learning_rate=0.1, reg_lambda=1, least_leaf=0.001
    )
    model = LatencyModel.fit(known.features, known.p50_ms, None, chosen)
    assert scores(known.p50_ms, model.p50_ms(known.features))["median_error"] < 0.15
    assert sum(model.importance.values()) == pytest.approx(1)


def test_means_add_up_and_are_never_below_the_median_of_short_parts(model: LatencyModel) -> None:
    shared = measured(seed=3).features
    shared[:, COLUMN["device_share"]] = 0.5
    doubled = shared.copy()
    doubled[:, : COLUMN["device_gflops"]] *= 2  # the part; what follows is the setting
    assert model.roofline is not None
    once, twice = model.roofline.mean_ms(shared), model.roofline.mean_ms(doubled)
    assert np.all((twice <= 2 * once) & (twice >= 1.5 * once))  # but for the overhead of one more inference
    short = model.roofline.work_ms(shared) < 0.5
    assert short.any()
    rounded = 1 - 1e-12
    assert np.all(model.mean_ms(shared)[short] >= rounded * model.p50_ms(shared)[short])
