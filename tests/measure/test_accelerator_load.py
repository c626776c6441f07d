"""A neighbour that infers on the device's accelerator."""

from pathlib import Path

import numpy as np
import pytest
from harness import composed

from pepper.config import LoadConfig
from pepper.devices.cores import resolve
from pepper.devices.providers.small_models import products
from pepper.errors import ConfigError
from pepper.graph.model import find_model
from pepper.latency.features import Setting
from pepper.measure import inferring
from pepper.measure.inferring import Inferring
from pepper.measure.launcher import Bench
from pepper.measure.loads import check_load
from pepper.sweep.axes import single_cell
from pepper.sweep.orders import _is_harder
from tests.devices.plugins import WEBGPU, needs


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(inferring.time, "perf_counter", lambda: now[0])
    return now


@pytest.mark.parametrize("fraction", [0.25, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("inference_s", [0.001, 0.02])
def test_it_infers_for_as_much_of_the_time_as_it_is_told(
    fraction: float, inference_s: float, clock: list[float]
) -> None:
    neighbour = Inferring()
    neighbour._alone_s = inference_s

    def run() -> list[object]:
        clock[0] += inference_s
        return []

    neighbour._run = run
    neighbour.set(fraction, 2.0)
    start_s = clock[0]
    while clock[0] < start_s + 4:
        wait_s = neighbour.work()  # which moves the clock, too
        clock[0] += wait_s
    assert neighbour.usage()["inferring_s"] / (clock[0] - start_s) == pytest.approx(fraction, abs=0.02)


def test_beside_others_it_asks_for_the_same_work_and_drops_what_waits_too_long(clock: list[float]) -> None:
    neighbour = Inferring()
    neighbour._alone_s = 0.01
    runs = []

    def run() -> list[object]:
        runs.append(clock[0])
        clock[0] += 0.05  # others have the accelerator, too
        return []

    neighbour._run = run
    neighbour.set(0.1, 2.0)
    while clock[0] < 110:
        wait_s = neighbour.work()  # which moves the clock, too
        clock[0] += wait_s
    assert len(runs) == pytest.approx(100, rel=0.05), "as many as alone: it has time enough"
    neighbour.set(0.5, 2.0)
    while clock[0] < 120:
        wait_s = neighbour.work()  # which moves the clock, too
        clock[0] += wait_s
    assert neighbour._due_s <= inferring.LONGEST_BACKLOG_S


def test_a_device_that_computes_on_cores_has_no_accelerator() -> None:
    with pytest.raises(ConfigError, match=r"load.accelerator_percent=50: CPUExecutionProvider .* load.percent=50"):
        check_load(composed("load=gpu50").load, resolve(composed("device=share100").device))


def test_loads_of_the_cores_are_what_they_were_and_those_of_an_accelerator_others() -> None:
    assert LoadConfig(percent=0, accelerator_percent=30).name == "gpu30"
    assert LoadConfig(percent=20, accelerator_percent=30).name == "cpu20gpu30"
    assert LoadConfig(percent=0).is_silent
    cells = [
        single_cell(composed("model=squeezenet", "device=share100", load))
        for load in ("load=idle", "load=cpu50", "load=cpu75")
    ]
    assert all("accelerator" not in str(cell.load.name) for cell in cells)
    assert {cell.params()["load_accelerator_percent"] for cell in cells} == {None}
    idle, half, most = cells
    object.__setattr__(most, "load", LoadConfig(percent=0, accelerator_percent=50))
    assert len({cell.identity for cell in cells}) == 3
    assert _is_harder(most, idle)
    assert not _is_harder(most, half)
    assert not _is_harder(half, most)
    assert Setting.from_params(most.params()).load_accelerator_percent == 50


@pytest.mark.quiet
def test_it_is_verified_alone_and_told_while_timing(tmp_path: Path) -> None:
    needs(WEBGPU)
    file = tmp_path / "small.onnx"
    file.write_bytes(products(64, 128, 128, 128))
    config = composed("model=onnx", f"model.path={file}", "device=webgpu", "measure=quick")
    device = resolve(config.device)
    assert not device.on_cores
    with Bench(find_model(config.model), device, config.measure, "pepper") as bench:
        idle, loaded, both = (
            bench.profile(composed(*load).load)
            for load in (["load=idle"], ["load=gpu50"], ["load=gpu50", "load.percent=25"])
        )
    assert "load_accelerator_alone_percent" not in idle.metrics
    assert loaded.metrics["load_alone_percent"] == 0
    assert loaded.metrics["load_accelerator_alone_percent"] == pytest.approx(50, abs=20)
    assert loaded.metrics["load_accelerator_timed_percent"] > 0
    assert both.metrics["load_accelerator_alone_percent"] > 0
    assert both.metrics["load_alone_percent"] == pytest.approx(25, abs=10)
    assert np.isfinite([*loaded.metrics.values()]).all()
