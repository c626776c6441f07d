"""Models on providers other than the CPU's own, from the command line to the run."""

from dataclasses import replace
from pathlib import Path

import pytest
from harness import Desk, composed

from pepper.config import DeviceConfig, LoadConfig
from pepper.config.composing import compose
from pepper.config.measuring import Binding
from pepper.devices.cores import resolve
from pepper.errors import ConfigError
from pepper.fleet import FleetDevice
from pepper.sweep.axes import single_cell
from tests.devices.plugins import GGML, needs, overrides
from tests.tasks.plans import CORES, make_plan, save

CORE = ("device=share100", "load=idle")


def test_cells_on_a_plug_in_hold_what_they_ran_on_and_what_did_not(desk: Desk) -> None:
    desk.sweep("plug", "name: plug\naxes: {model: [tiny, positions, unknown]}\n")
    done = desk("+sweep=plug", *CORE, *overrides(needs(GGML)), "device.options.partial=1")
    assert done.status == 1, "one of the models has an operator that nobody knows"
    runs = {run.data.params["model"]: run for run in desk.runs() if "model" in run.data.params}
    assert runs["unknown"].info.status == "FAILED"
    tiny, positions = runs["tiny"].data, runs["positions"].data
    assert (tiny.tags["pepper.verdict"], tiny.metrics["operators_on_cpu"]) == ("VALID", 0)
    assert tiny.params["provider"] == "ggml"
    assert '"weights": "f32"' in tiny.params["provider_options"]
    assert "cpu" in tiny.params["accelerator"]
    for speed in ("gflops", "memory_gbps", "launch_ms", "call_ms", "in_gbps", "out_gbps"):
        assert float(tiny.params[f"device_runtime_{speed}"]) > 0
    assert (positions.tags["pepper.verdict"], positions.metrics["operators_on_cpu"]) == ("VALID", 1)
    assert positions.tags["pepper.notes"] == "1 of 2 operators run on the CPU: 1 NonZero"


@pytest.mark.parametrize("provider", ["AzureExecutionProvider", "CUDAExecutionProvider"])
def test_what_the_provider_does_not_run_fails(desk: Desk, provider: str) -> None:
    done = desk("model=tiny", *CORE, f"device.provider={provider}", "device.share=1")
    assert done.status == 1
    (run,) = desk.runs()
    assert run.info.status == "FAILED"
    assert "latency_p50_ms" not in run.data.metrics
    assert provider in run.data.tags["pepper.reasons"]


def test_inputs_and_outputs_may_stay_on_the_device(desk: Desk) -> None:
    done = desk("model=tiny", *CORE, "measure.binding=device")
    assert done.status == 0, done.err
    (run,) = desk.runs()
    assert run.data.params["binding"] == "device"
    assert {"input_transfer_ms", "output_transfer_ms", "feeding_percent"} <= set(run.data.metrics)
    host, device = (single_cell(composed("model=squeezenet", *CORE, f"measure.binding={b}")) for b in Binding)
    assert host.identity != device.identity
    assert host.params()["binding"] is None, "as before there was a choice"


def identity(*changes: str) -> str:
    return resolve(composed("model=squeezenet", *CORE, *changes).device).identity


def test_a_device_is_another_with_another_provider_option_or_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, cuda = identity(), ["device.provider=CUDAExecutionProvider"]
    made = [plain, identity(*cuda), identity(*cuda, "+device.options.use_tf32=0")]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    made.append(identity(*cuda))
    assert len(set(made)) == len(made)
    assert identity() == plain, "what chooses an accelerator is nothing to the CPU"


def test_an_accelerator_has_no_share() -> None:
    device = replace(composed("model=squeezenet", "device=share50").device, provider="CUDAExecutionProvider")
    with pytest.raises(ConfigError, match=r"device.share=0.5: CUDAExecutionProvider computes on an accelerator"):
        resolve(device)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["device.fallback=never"], "device.fallback=never: must be one of allow, refuse"),
        (["device.accelerator=gpu"], "device.accelerator=gpu: only a plug-in .* device.options.device_id=1"),
        (["device.library=x", "device.accelerator=fpga"], "device.accelerator=fpga: give cpu, gpu or npu"),
    ],
)
def test_what_no_provider_takes_is_refused(changes: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        compose(["model=squeezenet", *changes])


@pytest.mark.slow
def test_a_plan_over_cores_and_a_plug_in_is_run_and_answers_like_the_whole(
    desk: Desk, models: dict[str, Path], tmp_path: Path
) -> None:
    ggml = needs(GGML)
    idle = LoadConfig(percent=0, name="idle")
    cores = DeviceConfig(name="cores", cores=[CORES[0]], threads=1)
    other = replace(
        cores, name="other", cores=[CORES[-1]], provider=ggml.name, library=ggml.library, options=dict(ggml.options)
    )
    fleet = {device.name: FleetDevice(device, idle) for device in (cores, other)}
    plan = save(make_plan(str(models["small"]), ["cores", "other"], fleet), tmp_path)
    quickly = ("execute.trials.seconds=0.1", "execute.trials.min_requests=5")
    done = desk("task=execute", f"execute.plan={plan}", *quickly)
    assert done.status == 0, done.err
    assert "stage 2" in done.out
    assert "largest difference to the whole model" in done.out
