"""Models on providers other than the CPU's own, from the command line to the run."""

from dataclasses import replace

import pytest
from harness import Desk, composed

from pepper.config.composing import compose
from pepper.devices.cores import resolve
from pepper.errors import ConfigError
from tests.devices.plugins import GGML, WEBGPU, needs, overrides

CORE = ("device=share100", "load=idle")


def test_a_cell_on_a_plug_in_holds_what_it_ran_on(desk: Desk) -> None:
    done = desk("model=tiny", *CORE, *overrides(needs(GGML)))
    assert done.status == 0, done.err
    (run,) = desk.runs()
    assert run.data.tags["pepper.verdict"] == "VALID"
    assert run.data.metrics["operators_on_cpu"] == 0
    assert run.data.params["provider"] == "ggml"
    assert '"weights": "f32"' in run.data.params["provider_options"]
    assert "cpu" in run.data.params["accelerator"]


@pytest.mark.parametrize("provider", ["AzureExecutionProvider", "CUDAExecutionProvider"])
def test_what_the_provider_does_not_run_fails(desk: Desk, provider: str) -> None:
    done = desk("model=tiny", *CORE, f"device.provider={provider}", "device.share=1")
    assert done.status == 1
    (run,) = desk.runs()
    assert run.info.status == "FAILED"
    assert "latency_p50_ms" not in run.data.metrics
    assert provider in run.data.tags["pepper.reasons"]


def test_operators_on_the_cpu_are_a_note_of_the_verdict(desk: Desk) -> None:
    done = desk("model=mixed", *CORE, *overrides(needs(WEBGPU)))
    assert done.status == 0, done.err
    assert "VALID: 2 of 4 operators run on the CPU: 1 NonZero, 1 Cast" in done.err
    (run,) = desk.runs()
    assert run.data.metrics["operators_on_cpu"] == 2
    assert run.data.tags["pepper.notes"] == "2 of 4 operators run on the CPU: 1 NonZero, 1 Cast"


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
