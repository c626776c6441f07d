from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pepper.graph import characteristics
from pepper.latency.features import COLUMN, Setting, rows
from pepper.latency.roofline import MAC_TERMS, REDUCED, TERMS, Roofline
from tests.latency.measured import measured, random_parts, setting


def test_it_recovers_the_factors_that_made_the_latencies() -> None:
    known = measured(models=20, noise=0.01)
    factors = Roofline.fit(known.features, known.p50_ms).to_json()
    assert abs(factors["macs_conv_dense_k3"] - 1 / 0.6) < 0.05
    assert abs(factors["bytes_activation"] - 1) < 0.1
    assert abs(factors["operators"] - 20) < 4  # an overhead of 1 is 1e5 FLOP: 1 us at 100 GFLOP/s


def test_a_kind_never_seen_costs_what_its_class_does() -> None:
    known = measured(models=20)
    factors = Roofline.fit(known.features, known.p50_ms).to_json()
    assert 0.5 < factors["macs_gemm"] / factors["macs_conv_dense_k3"] < 2


def test_gross_errors_in_some_rows_hardly_matter() -> None:
    known = measured(models=20, noise=0.02)
    wrong = known.p50_ms.copy()
    wrong[::10] *= 3
    clean, dirty = (Roofline.fit(known.features, values).latency_ms(known.features) for values in (known.p50_ms, wrong))
    assert np.median(np.abs(dirty / clean - 1)) < 0.03


@pytest.mark.parametrize("times", [1e-4, 1e4])
def test_a_row_that_is_off_beyond_measure_does_not_bend_the_others(times: float) -> None:
    """As where a runtime leaves out all that a model does, or a unit was mistaken."""
    known = measured(models=20, noise=0.02)
    wrong = known.p50_ms.copy()
    wrong[7] *= times
    clean, dirty = (Roofline.fit(known.features, values).latency_ms(known.features) for values in (known.p50_ms, wrong))
    assert np.median(np.abs(dirty / clean - 1)) < 0.03


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), factor=st.floats(1.1, 100))
def test_twice_the_work_never_takes_less(seed: int, factor: float) -> None:
    known = measured(seed=seed % 3)
    roofline = Roofline.fit(known.features, known.p50_ms)
    assert np.all(roofline.factors >= 0)
    assert len(roofline.factors) == len(TERMS)
    few = rows(random_parts(5, seed), setting())
    many = few.copy()
    for name in ("macs_conv_dense_k3", "bytes_activation", "operators"):
        many[:, COLUMN[name]] *= factor
    assert np.all(roofline.latency_ms(many) >= roofline.latency_ms(few))


def test_json_keeps_it() -> None:
    known = measured()
    roofline = Roofline.fit(known.features, known.p50_ms)
    again = Roofline.from_json(roofline.to_json())
    assert np.array_equal(roofline.latency_ms(known.features), again.latency_ms(known.features))


def test_shared_cores_are_shared_fairly_and_slices_decide_the_median() -> None:
    roofline = Roofline.fit(measured().features, measured().p50_ms)
    part = random_parts(1)
    whole = replace(setting(), device_share=1.0)
    work_ms = float(roofline.work_ms(rows(part, whole))[0])
    loaded = replace(whole, device_share=0.5, load_percent=90.0, load_cores=1.0)
    assert roofline.mean_ms(rows(part, loaded))[0] == pytest.approx(4 * roofline.work_ms(rows(part, loaded))[0])
    unknown = roofline.latency_ms(rows(part, loaded))[0]
    assert unknown == pytest.approx(roofline.mean_ms(rows(part, loaded))[0]), "slices of unknown length"
    longer = replace(loaded, device_cycle_ms=20 * work_ms)
    assert roofline.latency_ms(rows(part, longer))[0] < unknown / 2, "most inferences meet no end of a slice"
    shorter = replace(loaded, device_cycle_ms=work_ms / 20)
    assert roofline.latency_ms(rows(part, shorter))[0] == pytest.approx(unknown)


def test_a_provider_of_its_own_is_estimated_by_what_it_does() -> None:
    """Its products, weights, launches, calls and transfers; what the cores that feed it do no longer counts."""
    parts = random_parts(20, seed=3)
    cores = setting(100.0)
    model = Roofline(np.ones(len(TERMS)))
    quick = {"gflops": 1e4, "small_gflops": 1e3, "memory_gbps": 1e3, "launch_ms": 1e-4, "call_ms": 1e-4}
    runtime = {f"device_runtime_{name}": value for name, value in quick.items()}
    ways = {"device_runtime_in_gbps": 10.0, "device_runtime_out_gbps": 5.0}
    alone, moved = (replace(cores, **runtime, **extra) for extra in ({}, ways))
    on_cores, on_it = (model.work_ms(rows(parts, each)) for each in (cores, alone))
    assert (on_it < on_cores).all()
    slower = replace(alone, device_gflops=1.0, device_gflops_single=1.0, device_memory_gbps=1.0)
    np.testing.assert_allclose(model.work_ms(rows(parts, slower)), on_it)
    features = rows(parts, moved)
    transfers = features[:, COLUMN["input_bytes"]] / 10e6 + features[:, COLUMN["output_bytes"]] / 5e6
    np.testing.assert_allclose(model.work_ms(features) - on_it, transfers)


def test_products_of_integers_take_what_the_device_does_in_8_bits() -> None:
    """Where that is not known, they take as long as others; what is in single precision takes the same either way."""
    model = Roofline(np.ones(len(TERMS)))
    cores = setting(100.0)
    fast = replace(cores, device_int8_gops=400.0)
    part = rows(random_parts(1, seed=4), cores)
    single, integer = part.copy(), part.copy()
    macs = sum(part[0, COLUMN[name]] for name in MAC_TERMS if name not in REDUCED)
    for features, share in ((single, 0.0), (integer, 1.0)):
        features[:, [COLUMN[name] for name in ("macs", *REDUCED)]] = macs, share * macs, 0

    def on(device: Setting, features: np.ndarray) -> float:
        return float(model.work_ms(rows(features[:, : len(characteristics.FEATURES)], device))[0])

    assert on(cores, integer) == pytest.approx(on(cores, single)) == pytest.approx(on(fast, single))
    assert on(cores, integer) - on(fast, integer) == pytest.approx(2 * macs * (1 / 100 - 1 / 400) / 1e6)
