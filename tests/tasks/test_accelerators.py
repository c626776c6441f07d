"""Models on providers other than the CPU's own, from the command line to the run."""

import json
import re
from dataclasses import replace

import onnxruntime as ort
import pytest
from harness import Desk, composed

from pepper.config.composing import compose
from pepper.config.measuring import Binding
from pepper.devices.cores import resolve
from pepper.devices.providers.small_models import products
from pepper.errors import ConfigError
from pepper.sweep.axes import single_cell
from tests.devices.plugins import GGML, at_hand, needs, overrides
from tests.tasks.plans import CORES

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


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("device.library=numpy", "device.library=numpy: this module does not say where its library is; give"),
        ("device.accelerator=cpu:3", "device.accelerator=cpu:3: ggml can use cpu; give one"),
    ],
)
def test_what_a_provider_cannot_do_fails_with_the_fix_and_no_figures(desk: Desk, change: str, said: str) -> None:
    done = desk("model=tiny", *CORE, *overrides(needs(GGML)), change)
    assert done.status == 1
    assert said in done.err + done.out
    (run,) = desk.runs()
    assert (run.info.status, run.data.tags.get("pepper.verdict", "")) == ("FAILED", "")
    assert "latency_p50_ms" not in run.data.metrics
    assert said in run.data.tags["pepper.reasons"]


def test_what_is_not_here_is_not_predicted_as_the_cores_beside_it(desk: Desk) -> None:
    if "QNNExecutionProvider" in ort.get_available_providers():
        pytest.skip("this onnxruntime has QNNExecutionProvider")
    done = desk("task=predict", "model=tiny", "device.provider=QNNExecutionProvider")
    assert done.status == 2
    assert re.search(r"onnxruntime has .*, not QNNExecutionProvider; pip install onnxruntime-qnn", done.err)


def test_inputs_and_outputs_may_stay_on_the_device(desk: Desk) -> None:
    done = desk("model=tiny", *CORE, "measure.binding=device")
    assert done.status == 0, done.err
    (run,) = desk.runs()
    assert run.data.params["binding"] == "device"
    assert {"input_transfer_ms", "output_transfer_ms", "feeding_percent"} <= set(run.data.metrics)
    host, *others = (single_cell(composed("model=squeezenet", *CORE, f"measure.binding={b}")) for b in Binding)
    assert len({cell.identity for cell in (host, *others)}) == len(Binding)
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


def test_a_graph_is_asked_for_as_a_binding() -> None:
    device = composed("model=squeezenet", "device=cuda", "+device.options.enable_cuda_graph=1").device
    with pytest.raises(ConfigError, match=r"device.options.enable_cuda_graph: .*; give measure.binding=graph"):
        resolve(device)


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


CHAINS = {"wide": (64, *[384] * 6), "narrow": (64, *[128] * 10), "thin": (8, *[512] * 7), "last": (64, *[256] * 8)}
"""Products of matrices in a row, which every provider has: rows, and widths."""


@pytest.mark.slow
@pytest.mark.skipif(len(CORES) < 2, reason="each device takes a core")
def test_cores_and_a_plug_in_are_measured_learned_placed_and_run_together(desk: Desk) -> None:
    choice = at_hand()
    for name, sizes in CHAINS.items():
        file = desk.folder / f"{name}.onnx"
        file.write_bytes(products(*sizes))
        (desk.options / "model" / f"{name}.yaml").write_text(f"# A test's.\nname: {name}\npath: {file}\n")
    (desk.options / "device").mkdir()
    options = ", ".join(f"{key}: '{value}'" for key, value in choice.options.items())
    plug = f"name: plug\nprovider: {choice.name}\nlibrary: {choice.library}\noptions: {{{options}}}\nthreads: 1\n"
    (desk.options / "device" / "plug.yaml").write_text(f"# A test's.\n{plug}")
    axes = "{model: [wide, narrow, thin], model.part: [0, 1, 2, 3], device: [share100, plug], load: [idle]}"
    desk.sweep("both", f"name: both\naxes: {axes}\n")
    for task in (("+sweep=both",), ("task=train", "tuning.trials=1", "tuning.folds=2"), ("task=promote",)):
        done = desk(*task)
        assert done.status == 0, done.err

    said = json.loads(desk("task=predict", "model=last", "device=plug", "output=json").out)
    assert said["p50_ms"] > 0

    fleet = ("fleet=cores_and_gpu", "fleet.devices.gpu.device=plug")
    pinned = ("place.pinned.cores=[0,3]", "place.pinned.gpu=[3,7]")
    quickly = ("execute.trials.seconds=0.1", "execute.trials.min_requests=5")
    done = desk("task=place", "model=last", *fleet, *pinned, "place.execute=true", *quickly)
    assert done.status == 0, done.err
    assert "stage 2" in done.out
    assert "largest difference to the whole model" in done.out
