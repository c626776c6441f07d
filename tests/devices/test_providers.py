"""What every execution provider keeps; one more is one more entry of `PROVIDERS`."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from harness import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy._core import _multiarray_umath as multiarray
from onnx import numpy_helper

from pepper.devices.providers.binding import DeviceTensors, bound_to_device
from pepper.devices.providers.choice import Choice
from pepper.devices.providers.cpu import CpuProvider
from pepper.devices.providers.facts import facts, of_nvidia
from pepper.devices.providers.given import check_options
from pepper.devices.providers.opening import open_checked
from pepper.devices.providers.options import session_options
from pepper.devices.providers.provider import Provider
from pepper.devices.providers.registry import BuiltInProvider, provider_named
from pepper.devices.providers.small_models import products
from tests.devices.plugins import GGML, OPENVINO, WEBGPU, needs

PROVIDERS: dict[str, Callable[[], Provider]] = {
    "cpu": CpuProvider,
    "built in": lambda: BuiltInProvider(Choice("CPUExecutionProvider")),
    "ggml": lambda: provider_named(**needs(GGML).to_json()),
    "webgpu": lambda: provider_named(**needs(WEBGPU).to_json()),
    "openvino": lambda: provider_named(**needs(OPENVINO).to_json()),
}


@pytest.fixture(params=PROVIDERS)
def provider(request: pytest.FixtureRequest) -> Provider:
    return PROVIDERS[request.param]()


def options() -> ort.SessionOptions:
    return session_options(1, "all", spinning=False, parallel=False)


def test_a_model_is_opened_on_it(provider: Provider, models: dict[str, Path]) -> None:
    session, assignment = open_checked(provider, str(models["tiny"]), options())
    assert session.get_providers()[0] == provider.name
    assert assignment is None or (assignment.operators, assignment.elsewhere) == (3, ())


def test_what_is_bound_runs_again_and_again_on_its_own_inputs(provider: Provider, models: dict[str, Path]) -> None:
    session = provider.open(str(models["tiny"]), options())
    rng = np.random.default_rng(0)
    given = [{"input": rng.random((1, 16), dtype=np.float32)} for _ in range(3)]
    runs = [provider.bind(session, inputs) for inputs in given]
    for _ in range(2):
        for inputs, run in zip(given, runs, strict=True):
            np.testing.assert_allclose(run()[0], session.run(None, inputs)[0], rtol=1e-5)


def test_one_request_after_another_is_answered_whatever_its_size(provider: Provider, models: dict[str, Path]) -> None:
    session = provider.open(str(models["dynamic"]), options())
    answer = provider.serving(session)
    rng = np.random.default_rng(0)
    asked = [{"input": rng.random((rows, 16), dtype=np.float32)} for rows in (1, 3, 3, 2)]
    answers = [answer(inputs)[0] for inputs in asked]
    for inputs, got in zip(asked, answers, strict=True):
        np.testing.assert_allclose(got, session.run(None, inputs)[0], rtol=1e-5, err_msg="it is that request's own")


def test_tensors_have_their_places_where_it_wants_them(provider: Provider, models: dict[str, Path]) -> None:
    session = provider.open(str(models["tiny"]), options())
    inputs = {"input": np.random.default_rng(0).random((1, 16), dtype=np.float32)}
    answers = session.run(None, inputs)
    tensors = DeviceTensors(session, inputs, answers)
    tensors.bring(inputs)
    tensors.run()
    tensors.finish()
    np.testing.assert_allclose(tensors.outputs()[0], answers[0], rtol=1e-5)


def test_a_model_that_it_cannot_run_is_refused(provider: Provider, models: dict[str, Path]) -> None:
    with pytest.raises(Exception, match="Frobnicate"):
        provider.open(str(models["unknown"]), options())


@pytest.mark.parametrize("kernel", ["gflops", "memory_gbps"])
def test_it_says_how_fast_it_is(provider: Provider, kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert 0 < provider.probe(kernel, 0.01) < 1e6


def test_a_provider_is_found_by_its_name() -> None:
    assert type(provider_named("CPUExecutionProvider")) is CpuProvider
    assert provider_named("QNNExecutionProvider").name == "QNNExecutionProvider"


def test_one_that_this_onnxruntime_lacks_is_told(models: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match=r"this onnxruntime has .*CPUExecutionProvider.*, not NoSuchProvider"):
        provider_named("NoSuchProvider").open(str(models["tiny"]), options())
    with pytest.raises(ValueError, match=r"not QNNExecutionProvider; pip install onnxruntime-qnn"):
        provider_named("QNNExecutionProvider").open(str(models["tiny"]), options())


class Believed(CpuProvider):
    """What onnxruntime does where a provider's libraries are missing: it opens the model on the CPU, and goes on."""

    name = "CUDAExecutionProvider"

    def open(self, path: str, options: ort.SessionOptions) -> ort.InferenceSession:
        return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def missing(self) -> str:
        return "libcublas.so: cannot open shared object file"


CUDA_CALL = (
    "/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc:122 std::conditional_t<THRW, void, Status>"
    " onnxruntime::CudaCall(ERRTYPE, const char*, int) [with ERRTYPE = cudaError] CUDA failure {} ; GPU=-1 ;"
    " hostname=edge ; file=cuda_execution_provider.cc ; line=336 ; expr=cudaSetDevice(info_.device_id);"
)


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (
            CUDA_CALL.format("101: invalid device ordinal"),
            "no GPU with the number device.options.device_id=7; give",
        ),
        (
            CUDA_CALL.format("35: CUDA driver version is insufficient for CUDA runtime version"),
            r"driver is older than what onnxruntime [\d.]+ was built for \(CUDA failure 35: .* version\); install",
        ),
        (
            CUDA_CALL.format("222: the provided PTX was compiled with an unsupported toolchain."),
            r"driver is older than .* \(CUDA failure 222: .* toolchain\); install a newer driver",
        ),
        (
            CUDA_CALL.format("803: system has unsupported display driver / cuda driver combination"),
            r"not of one version \(CUDA failure 803: .* combination\); start the machine again",
        ),
        (
            CUDA_CALL.format("209: no kernel image is available for execution on the device"),
            r"holds no code for this GPU \(CUDA failure 209: .* device\); install",
        ),
        (CUDA_CALL.format("2: out of memory"), r"too little device memory \(CUDA failure 2: out of memory\); raise"),
        (
            "bfc_arena.cc:359 Available memory of 1048576 is smaller than requested bytes of 5242880",
            r"4194304 bytes are missing \(5242880 wanted, 1048576 left\); raise device.options.gpu_mem_limit=1048576",
        ),
    ],
)
def test_an_accelerators_own_error_is_told_in_a_line_with_the_fix(
    failure: str, said: str, models: dict[str, Path]
) -> None:
    class Failing(Believed):
        def open(self, path: str, options: ort.SessionOptions) -> ort.InferenceSession:
            raise RuntimeError(failure)

        def missing(self) -> str:
            return ""

    choice = Choice(Failing.name, options={"device_id": "7", "gpu_mem_limit": "1048576"})
    with pytest.raises(RuntimeError, match=f"^CUDAExecutionProvider: .*{said}") as error:
        open_checked(Failing(choice), str(models["tiny"]), options())
    assert "cuda_call.cc" not in str(error.value)


@pytest.mark.parametrize(
    ("provider", "said"),
    [
        (Believed(), "CUDAExecutionProvider did not take the model: .* on CPUExecutionProvider: libcublas"),
        (provider_named("AzureExecutionProvider"), r"AzureExecutionProvider took no operator .* all 3 .*MatMul, Relu"),
    ],
)
def test_what_runs_on_the_cpu_instead_is_refused(provider: Provider, said: str, models: dict[str, Path]) -> None:
    if provider.name not in (*ort.get_available_providers(), Believed.name):
        pytest.skip(f"this onnxruntime has no {provider.name}")
    with pytest.raises(RuntimeError, match=said):
        open_checked(provider, str(models["tiny"]), options())


def test_operators_that_run_on_the_cpu_are_counted_and_named(models: dict[str, Path]) -> None:
    _, assignment = open_checked(provider_named(**needs(WEBGPU).to_json()), str(models["mixed"]), options())
    assert assignment is not None
    assert (assignment.operators, len(assignment.elsewhere)) == (4, 2)
    assert assignment.said() == "2 of 4 operators run on the CPU: 1 NonZero, 1 Cast"


def test_what_is_of_a_size_that_nobody_knows_before_is_brought_back(models: dict[str, Path]) -> None:
    provider = provider_named(**needs(WEBGPU).to_json())
    session = provider.open(str(models["mixed"]), options())
    answer = provider.serving(session)
    (tensor,) = session.get_inputs()
    for ones in (1, 5, 2):
        given = np.zeros(tensor.shape, np.float32)
        given.flat[:ones] = 1
        for got, expected in zip(answer({tensor.name: given}), session.run(None, {tensor.name: given}), strict=True):
            np.testing.assert_array_equal(got, expected)


def test_operators_may_be_kept_from_the_cpu(models: dict[str, Path]) -> None:
    provider = provider_named(**replace(needs(WEBGPU), fallback="refuse").to_json())
    with pytest.raises(RuntimeError, match=r"device.fallback=refuse: 2 of 4 operators .*NonZero.*; set"):
        open_checked(provider, str(models["mixed"]), options())
    open_checked(provider, str(models["tiny"]), options())


def test_a_second_session_may_have_the_same_options(models: dict[str, Path]) -> None:
    provider, shared = provider_named(**needs(GGML).to_json()), options()
    for _ in range(2):
        open_checked(provider, str(models["tiny"]), shared)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"library": "no/such.so"}, "device.library=no/such.so: no such file"),
        ({"library": "no_such_module"}, "no such Python module; pip install no-such-module"),
        ({"library": "numpy"}, "device.library=numpy: this module does not say where its library is"),
        ({"library": multiarray.__file__, "name": "Other"}, r"no plug-in that onnxruntime [\d.]+ can load"),
        ({"accelerator": "gpu"}, "device.accelerator=gpu: ggml can use cpu; give one"),
        ({"accelerator": "cpu:3"}, "device.accelerator=cpu:3: ggml can use cpu; give one"),
    ],
)
def test_a_plug_in_that_is_not_there_is_told(changes: dict[str, str], said: str, models: dict[str, Path]) -> None:
    provider = provider_named(**replace(needs(GGML), **changes).to_json())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=said):
        provider.open(str(models["tiny"]), options())


def test_a_name_that_the_library_does_not_have_is_told() -> None:
    """In a process of its own: a library is registered once."""
    look = (
        "from pepper.devices.providers.plugin import devices_of\n"
        "from pepper.devices.providers.choice import Choice\n"
        f"devices_of(Choice('Other', {needs(WEBGPU).library!r}))"
    )
    done = subprocess.run([sys.executable, "-c", look], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (
        "device.provider=Other: libonnxruntime_providers_webgpu.so brings WebGpuExecutionProvider; give that name"
        in done.stderr
    )


def test_a_gpu_is_told_by_what_its_driver_says(tmp_path: Path) -> None:
    (tmp_path / "version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  Thu Jan 2026\n")
    for bus, model in (("0000:01:00.0", "NVIDIA L4"), ("0000:41:00.0", "NVIDIA H200")):
        (tmp_path / "gpus" / bus).mkdir(parents=True)
        text = f"Model: \t\t {model}\nIRQ:   \t 62\nGPU UUID: \t GPU-{bus}\nBus Location: \t {bus}\n"
        (tmp_path / "gpus" / bus / "information").write_text(text)
    assert of_nvidia(tmp_path, 1) == {"driver": "570.86.15", "hardware": "NVIDIA H200", "uuid": "GPU-0000:41:00.0"}
    assert of_nvidia(tmp_path, 2) == {"driver": "570.86.15"}
    assert of_nvidia(tmp_path / "none", 0) == {}


def test_a_plug_in_says_what_it_computes_on() -> None:
    found = facts(needs(GGML))
    assert (found["kind"], found["library"], found["backend"]) == ("cpu", "libonnxruntime_ggml.so", "ggml")
    assert found["provider_version"]
    assert not any("/" in value for value in found.values()), "where it is installed does not count"


@given(st.integers(1, 5), st.lists(st.integers(1, 40), min_size=2, max_size=5))
@settings(max_examples=20, deadline=None)
def test_small_models_are_what_onnx_reads_and_onnxruntime_runs(rows: int, widths: list[int]) -> None:
    content = products(rows, *widths)
    onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
    given = np.random.default_rng(1).random((rows, widths[0]), dtype=np.float32)
    (answer,) = ort.InferenceSession(content, providers=["CPUExecutionProvider"]).run(None, {"input": given})
    expected = given
    for weight in onnx.load_from_string(content).graph.initializer:
        expected = expected @ numpy_helper.to_array(weight)
    np.testing.assert_allclose(answer, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("choice", [Choice("CPUExecutionProvider"), GGML], ids=lambda choice: choice.name)
def test_inputs_and_outputs_can_be_where_the_provider_computes(choice: Choice, models: dict[str, Path]) -> None:
    provider = provider_named(**(needs(choice) if choice.library else choice).to_json())
    session, _ = open_checked(provider, str(models["tiny"]), options())
    given = {"input": np.ones((1, 16), np.float32)}
    bound = bound_to_device(session, given, session.run(None, given))
    assert bound.run() == ()
    assert not bound.moved, "the host's memory is its own"
    assert bound.in_ms < 1


def test_a_device_that_is_not_waited_for_is_refused(tmp_path: Path) -> None:
    """WebGPU's runs return before their end, whatever onnxruntime is asked: their times tell nothing."""
    provider = provider_named(**needs(WEBGPU).to_json())
    file = tmp_path / "large.onnx"
    file.write_bytes(products(64, 256, 256, 256))
    session, _ = open_checked(provider, str(file), options())
    given = {"input": np.ones((64, 256), np.float32)}
    answers = session.run(None, given)
    with pytest.raises(ValueError, match=r"does not wait for its device \(.*\); give measure.binding=host"):
        bound_to_device(session, given, answers)


class Telling:
    """A session that tells of its providers' options what CUDA's does."""

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        return {"CUDAExecutionProvider": {"device_id": "0", "use_tf32": "1", "gpu_mem_limit": "1024"}}


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("CPUExecutionProvider", {"device_id": "1"}, "device.options.device_id=1: CPUExecutionProvider has no options"),
        ("CUDAExecutionProvider", {"tf32": "0"}, "device.options.tf32=0: .* no such option; it has device_id, gpu_mem"),
        ("CUDAExecutionProvider", {"use_tf32": "0"}, "device.options.use_tf32=0: .* works with 1 all the same; give"),
    ],
)
def test_options_that_have_no_effect_are_refused(name: str, options: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_options(Choice(name, options=options), Telling())


def test_options_that_are_taken_pass_however_they_are_written(models: dict[str, Path]) -> None:
    written = {"device_id": "0", "use_tf32": "True", "gpu_mem_limit": "1024.0"}
    check_options(Choice("CUDAExecutionProvider", options=written), Telling())
    with pytest.raises(ValueError, match="has no options; drop it"):
        open_checked(CpuProvider(Choice(options={"x": "1"})), str(models["tiny"]), options())


def test_options_that_a_plug_in_does_not_speak_of_are_told() -> None:
    assert "options_unknown" not in facts(needs(GGML))
    assert facts(replace(GGML, options={"weights": "f32", "frobnicate": "1"}))["options_unknown"] == "frobnicate"
