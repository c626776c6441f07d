"""What goes into an accelerator's own memory and back: forecast by its calibration, paid within a stage's time."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from harness import QUICK, composed

from pepper.config import DeviceConfig, LoadConfig, SessionConfig
from pepper.devices import host
from pepper.devices.cores import resolve
from pepper.devices.providers.choice import Choice
from pepper.devices.providers.registry import provider_named
from pepper.devices.providers.small_models import products
from pepper.devices.providers.speeds import measure_transfers
from pepper.execution.layout import Layout
from pepper.execution.pipeline import Network
from pepper.execution.pool import StagePool
from pepper.execution.runner import Runner
from pepper.execution.trials import Sample, one_at_a_time, steps
from pepper.fleet import Fleet, FleetDevice, Link, everywhere
from pepper.graph.cuts import cut_behind
from pepper.graph.model import find_model
from pepper.graph.running import random_inputs, run_whole
from pepper.graph.split import split
from pepper.latency.features import Setting, Values
from pepper.measure.launcher import Bench
from pepper.placement.chain import Solution
from pepper.placement.evaluate import Stage
from pepper.placement.objectives import LATENCY
from pepper.placement.plan import Plan
from pepper.planning.branching import branched_problem, single_devices
from pepper.planning.forecast import Forecast
from pepper.planning.posing import chain_problem, origin_of
from pepper.report.placement_tables import LEAST_MOVED_MS, plan_table
from pepper.report.placements import part_lines
from tests.devices.plugins import GGML, OPENVINO, WEBGPU, needs

ROWS, WIDTH, PRODUCTS = 4096, 16, 3
PART_MS = 5.0
CORES = host.allowed_cores()
IDLE = LoadConfig(name="idle", percent=0)


class Constant:
    """A latency model to which all parts are alike."""

    def mean_ms(self, features: Values) -> Values:
        return np.full(len(features), PART_MS)

    def outside(self, features: Values) -> "np.ndarray[tuple[int, int], np.dtype[np.bool_]]":
        return np.zeros(features.shape, bool)


def forecast(folder: Path, monkeypatch: pytest.MonkeyPatch, **speeds: float) -> Forecast:
    """Forecast a chain of products on a core and a device of these speeds."""
    file = folder / "chain.onnx"
    file.write_bytes(products(ROWS, *[WIDTH] * (PRODUCTS + 1)))
    config = composed("model=onnx", f"model.path={file}")
    devices = {
        name: FleetDevice(DeviceConfig(name=name, cores=[core], threads=1), IDLE)
        for name, core in zip(("cores", "gpu"), (CORES[0], CORES[-1]), strict=True)
    }
    runtime = {f"device_runtime_{name}": value for name, value in speeds.items()}
    settings = {"cores": Setting(), "gpu": Setting(**runtime)}
    monkeypatch.setattr(Forecast, "_setting", lambda self, name, load: settings[name])
    fleet = Fleet(devices, everywhere(devices, Link(None, 0.0)), "cores", "cores")
    model = find_model(config.model)
    return Forecast(config, model, model.graph(), fleet, Constant())


def test_each_part_on_an_accelerator_pays_both_ways_within_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = forecast(tmp_path, monkeypatch, in_gbps=2.0, out_gbps=4.0)
    config = composed("model=onnx", f"model.path={found.model.file}")
    problem = chain_problem(config, found)
    way_ms = 4e-6 * ROWS * WIDTH  # at 1 GB/s
    for start in range(PRODUCTS):
        for stop in range(start + 1, PRODUCTS + 1):
            assert problem.part_moved_ms(start, stop, 0) == 0
            assert problem.part_moved_ms(start, stop, 1) == pytest.approx(way_ms / 2 + way_ms / 4)
            assert problem.part_time_ms(start, stop, 1) == PART_MS, "within, not on top"
    solution = Solution((Stage(0, 1, 0), Stage(1, PRODUCTS, 1)), 0, 0, "by hand")
    plan = Plan.of(problem, solution, LATENCY, origin_of(config, found, {}))
    assert [part.moved_ms for part in plan.parts] == pytest.approx([0, 0.75 * way_ms])
    header = [column.header for column in plan_table(part_lines(plan)).columns]
    assert "of it host-device" in header
    plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == plan
    regions = branched_problem(config, found, single_devices(found.fleet)).chain
    np.testing.assert_array_equal(regions.moved_ms, problem.moved_ms)


def test_no_part_pays_more_for_transfers_than_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = forecast(tmp_path, monkeypatch, in_gbps=1e-3, out_gbps=1e-3)
    assert found.moved_ms.max() == PART_MS


def test_what_computes_in_the_hosts_memory_says_nothing_of_transfers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = forecast(tmp_path, monkeypatch, in_gbps=2e4, out_gbps=2e4)
    config = composed("model=onnx", f"model.path={found.model.file}")
    solution = Solution((Stage(0, PRODUCTS, 1),), 0, 0, "by hand")
    plan = Plan.of(chain_problem(config, found), solution, LATENCY, origin_of(config, found, {}))
    assert plan.parts[0].moved_ms < LEAST_MOVED_MS
    assert "of it host-device" not in [column.header for column in plan_table(part_lines(plan)).columns]


@dataclass(frozen=True)
class Paid:
    """What a stage took: its inference at best, and of that what was measured of its transfers (None: nothing)."""

    least_ms: float
    moved_ms: float | None


def executed(device: DeviceConfig, file: Path, folder: Path) -> Paid:
    """Run a chain of products as a stage on a device, its first product on a core."""
    graph = find_model(composed("model=onnx", f"model.path={file}").model).graph()
    (folder / "parts").mkdir()
    manifest = split(graph, [cut_behind(graph, 1)], folder / "parts" / "two")
    layout = Layout.of(manifest, folder / "parts" / "two", ["cores", "gpu"])
    core = DeviceConfig(name="cores", cores=[CORES[0]], threads=1)
    devices = {"cores": FleetDevice(core, IDLE), "gpu": FleetDevice(device, IDLE)}
    fleet = Fleet(devices, everywhere(devices, Link(None, 0.0)), "cores", "cores")
    inputs = random_inputs(graph, 0)
    samples = [Sample(inputs, run_whole(graph, inputs))]
    (folder / "queues").mkdir()
    network = Network(fleet, folder / "queues")
    try:
        with (
            StagePool(fleet, SessionConfig(), 60.0) as pool,
            Runner(pool, network, layout, time_limit_s=60.0) as runner,
        ):
            trial = one_at_a_time(runner, samples, 0.0, 6)
            usage = runner.usage()
    finally:
        network.close()
    assert trial.failures == []
    assert trial.difference < 1e-4
    assert usage[0]["moved_ms"] is None, "cores"
    return Paid(min(steps(answer).compute[1] for answer in trial.answers), usage[1]["moved_ms"])


@pytest.mark.quiet
@pytest.mark.skipif(len(CORES) < 2, reason="each device takes a core")
@pytest.mark.parametrize(
    ("choice", "width"), [(GGML, 256), (OPENVINO, 256), (WEBGPU, 16)], ids=lambda given: getattr(given, "name", "")
)
def test_a_stage_pays_what_a_cell_of_it_measured_and_its_transfers_as_calibrated(
    choice: Choice, width: int, tmp_path: Path
) -> None:
    choice = needs(choice)
    file = tmp_path / "chain.onnx"
    file.write_bytes(products(ROWS, *[width] * 3))
    device = DeviceConfig(
        name="gpu",
        cores=[CORES[-1]],
        threads=1,
        provider=choice.name,
        library=choice.library,
        options=dict(choice.options),
    )
    paid = executed(device, file, tmp_path)
    part = tmp_path / "part.onnx"
    part.write_bytes(products(ROWS, *[width] * 2))
    config = composed("model=onnx", f"model.path={part}", *QUICK)
    with Bench(find_model(config.model), resolve(device), config.measure, None) as bench:
        cell_ms = bench.profile(IDLE).samples["latency_ns"].min() / 1e6
    assert cell_ms / 3 < paid.least_ms < 3 * cell_ms
    speeds = measure_transfers(provider_named(**choice.to_json()), 1, 0.02)
    predicted_ms = sum(4 * ROWS * width / gbps / 1e6 for gbps in speeds.values())
    if choice == WEBGPU:
        assert paid.moved_ms is not None
        assert 0 < paid.moved_ms < paid.least_ms
        assert predicted_ms / 8 < paid.moved_ms < 8 * predicted_ms
    else:
        assert paid.moved_ms is None
        assert predicted_ms < (0.1 if choice == OPENVINO else 1) * cell_ms
