"""The timed worker: what it loads, what it feeds, when it stops."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from harness import ROOT, make_model
from onnx import TensorProto, helper, save

from pepper.devices.protocol import Arrays
from pepper.devices.providers.choice import Choice
from pepper.devices.providers.cpu import CpuProvider
from pepper.devices.providers.provider import Run
from pepper.errors import ModelError
from pepper.graph.inputs import InputSpec, input_spec, packed
from pepper.measure import worker as worker_module
from pepper.measure.worker import Worker

FOREIGN = """
import json, sys
sys.argv = ["worker"]
import pepper.measure.worker, pepper.measure.generator
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules} - set(sys.stdlib_module_names))))
"""


def test_it_imports_numpy_and_onnxruntime_only() -> None:
    done = subprocess.run([sys.executable, "-c", FOREIGN], cwd=ROOT, capture_output=True, text=True, check=True)
    alone = [sys.executable, "-c", FOREIGN.replace("pepper.measure.worker, pepper.measure.generator", "onnxruntime")]
    base = subprocess.run(alone, cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout)) - set(json.loads(base.stdout))
    assert loaded - {"__mp_main__"} == {"pepper"}
    assert not set(json.loads(done.stdout)) & {"pandas", "mlflow", "onnx", "psutil", "hydra", "omegaconf", "pyarrow"}


def test_the_generator_does_without_numpy() -> None:
    script = FOREIGN.replace("pepper.measure.worker, ", "")
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not set(json.loads(done.stdout)) & {"numpy", "onnxruntime", "psutil", "omegaconf"}


def opened(file: Path, inputs: list[InputSpec], **changes: Any) -> Worker:
    worker = Worker()
    sent, values = packed(inputs)
    options = {"optimization": "all", "spinning": False, "parallel": False, "provider": Choice().to_json()}
    facts = worker.open(path=str(file), threads=1, inputs=sent, seed=0, **values, **{**options, **changes})
    assert facts["session_create_ms"] > 0
    assert facts["first_inference_ms"] > 0
    return worker


INPUT = [input_spec("input", "float", [1, 16])]


class CapturedSession(ort.InferenceSession):
    """Behaves as CUDA's provider with enable_cuda_graph: the first run is captured, and its addresses with it."""

    captured: Any = None

    def run(self, *given: Any, **named: Any) -> Any:
        raise RuntimeError("captured: inputs and outputs must be bound")

    def run_with_iobinding(self, iobinding: Any, run_options: Any = None) -> None:
        self.captured = self.captured or iobinding
        assert iobinding is self.captured, "other addresses than what was captured"
        super().run_with_iobinding(iobinding, run_options)


class Capturing(CpuProvider):
    name = "CapturingExecutionProvider"
    runs_as = "CPUExecutionProvider"
    graph_option = "enable_cuda_graph"

    def open(self, path: str, options: ort.SessionOptions) -> ort.InferenceSession:
        kind = CapturedSession if self.choice.options.get("enable_cuda_graph") == "1" else ort.InferenceSession
        return kind(path, options, providers=[self.runs_as])


def test_an_inference_is_captured_where_the_provider_can(
    models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "provider_named", lambda **choice: Capturing(Choice(**choice)))
    choice = Choice(Capturing.name).to_json()
    worker = opened(models["tiny"], INPUT, provider=choice, binding="graph")
    timed(worker)
    assert worker.operators(2)["runs"] == 2, "the profile is of a session of its own, which captures nothing"


ARENA = (
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running FusedMatMul node."
    " Name:'a' Status Message: /onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc:376 void*"
    " onnxruntime::BFCArena::AllocateRawInternal(size_t, bool)"
)


class Short(CpuProvider):
    """Behaves as CUDA's provider where the model fits into the device's memory, but not what it computes."""

    name = "CUDAExecutionProvider"
    runs_as = "CPUExecutionProvider"

    def bind(self, session: ort.InferenceSession, inputs: Arrays) -> Run:
        def run() -> list[Any]:
            raise RuntimeError(f"{ARENA} Failed to allocate memory for requested buffer of size 8388608000")

        return run


def test_too_little_device_memory_is_told_with_what_is_missing(
    models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "provider_named", lambda **choice: Short(Choice(**choice)))
    said = r"^CUDAExecutionProvider: too little device memory: 8388608000 bytes more .*; end .*\(model.part\)$"
    with pytest.raises(RuntimeError, match=said):
        opened(models["tiny"], INPUT, provider=Choice(Short.name).to_json())


def test_no_inference_is_captured_where_the_provider_cannot(models: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match=r"measure.binding=graph: CPUExecutionProvider captures no inference; give"):
        opened(models["tiny"], INPUT, binding="graph")


@pytest.fixture
def worker(models: dict[str, Path]) -> Worker:
    return opened(models["tiny"], INPUT)


RULE = {"min_seconds": 0.0, "min_samples": 5, "ci_percent": 1e9, "max_seconds": 0.05, "max_samples": 10**6}


def timed(worker: Worker, **changes: float) -> tuple[dict[str, Any], np.ndarray]:
    span, arrays = worker.time(**{**RULE, **changes})  # type: ignore[arg-type]
    assert len(arrays["start_ns"]) == len(arrays["latency_ns"])
    assert (arrays["latency_ns"] > 0).all()
    ends = arrays["start_ns"] + arrays["latency_ns"]
    assert (arrays["start_ns"][1:] >= ends[:-1]).all(), "one after another"
    assert ends[-1] / 1e9 <= span["timed_s"]
    return span, arrays["latency_ns"]


@pytest.mark.parametrize("least", [1, 5, 37])
def test_it_stops_at_the_least_once_all_is_met(worker: Worker, least: int) -> None:
    assert len(timed(worker, min_samples=least)[1]) == least


def test_it_lasts_the_least_time(worker: Worker) -> None:
    span, samples = timed(worker, min_seconds=0.1, max_seconds=10)
    assert span["timed_s"] >= 0.1
    assert len(samples) > 5


def test_it_goes_on_until_the_median_is_known(worker: Worker) -> None:
    span, _ = timed(worker, ci_percent=1e-12, max_seconds=0.2)
    # A clock's steps can make the interval empty: then the median is known.
    _, samples = timed(worker, ci_percent=1e9)
    assert len(samples) == 5
    assert span["timed_s"] <= 0.2 + 1


def test_it_stops_at_the_cap_of_time(models: dict[str, Path]) -> None:
    worker = opened(models["conv"], [input_spec("input", "float", [1, 32, 64, 64])])
    span, samples = timed(worker, min_samples=1, min_seconds=0.2, max_seconds=0.2, ci_percent=1e-9)
    assert span["timed_s"] >= 0.2
    before_the_last = span["timed_s"] - samples[-1] / 1e9
    assert before_the_last < 0.25, "at most one inference beyond the cap"


@pytest.mark.parametrize("most", [5, 6, 100, 1001])
def test_it_stops_at_the_cap_of_samples(worker: Worker, most: int) -> None:
    assert len(timed(worker, min_seconds=100, max_seconds=100, max_samples=most)[1]) == most


def test_it_takes_the_least_samples_even_beyond_the_cap_of_time(worker: Worker) -> None:
    assert len(timed(worker, min_samples=50, max_seconds=0)[1]) == 50


def test_the_pace_is_looked_at_amid_the_samples_and_counts_as_none_of_their_time(worker: Worker) -> None:
    assert min(worker.pace()["kernel"]) > 0
    worker_time_s = time.perf_counter()
    span, arrays = worker.time(**{**RULE, "min_seconds": 2.5, "max_seconds": 2.5})  # type: ignore[arg-type]
    worker_time_s = time.perf_counter() - worker_time_s
    assert len(arrays["kernel_us"]) == 2
    assert 2.5 <= span["timed_s"] <= worker_time_s - span["pace_cpu_s"] + 0.01
    assert span["pace_cpu_s"] > 1e-6 * arrays["kernel_us"].sum()


def test_warm_up_keeps_to_its_limits(worker: Worker) -> None:
    assert worker.warm_up(0, 0) == {"warmup_samples": 0, "warmup_s": 0}
    span = worker.warm_up(0.05, 5)
    assert 0.05 <= span["warmup_s"] < 5
    assert span["warmup_samples"] >= 6


def test_peak_memory_and_cpu_time_are_plausible(worker: Worker) -> None:
    span, _ = timed(worker, min_seconds=0.1, max_seconds=1)
    assert span["peak_memory_bytes"] > 10 * 2**20
    assert 0 < span["cpu_s"] <= span["timed_s"] * 1.1


@pytest.mark.parametrize("optimization", ["disabled", "basic", "extended", "all"])
@pytest.mark.parametrize("parallel", [False, True])
def test_every_session_option_opens(models: dict[str, Path], optimization: str, parallel: bool) -> None:
    options = {"optimization": optimization, "parallel": parallel, "spinning": parallel}
    opened(models["tiny"], INPUT, **options).warm_up(0, 0.01)


def test_an_unknown_provider_is_told(models: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match=r"this onnxruntime has .*CPUExecutionProvider.*, not NoSuchProvider"):
        opened(models["tiny"], INPUT, provider={"name": "NoSuchProvider"})


TYPES = ("FLOAT", "DOUBLE", "FLOAT16", "BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64")


def test_inputs_of_every_type(tmp_path: Path) -> None:
    types = (*TYPES, "STRING")
    model = make_model([helper.make_node("Identity", [f"in{i}"], [f"out{i}"]) for i in range(len(types))], {}, {})
    for i, name in enumerate(types):
        kind = getattr(TensorProto, name)
        model.graph.input.append(helper.make_tensor_value_info(f"in{i}", kind, [2, 3]))
        model.graph.output.append(helper.make_tensor_value_info(f"out{i}", kind, [2, 3]))
    save(model, tmp_path / "types.onnx")
    inputs = [input_spec(f"in{i}", name.lower(), [2, 3]) for i, name in enumerate(types)]
    worker = opened(tmp_path / "types.onnx", inputs)
    timed(worker)
    for name, value in zip(types, worker._inputs.values(), strict=True):
        assert value.dtype == helper.tensor_dtype_to_np_dtype(getattr(TensorProto, name))


def test_a_type_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    model = make_model([helper.make_node("Identity", ["x"], ["out"])], {}, {})
    model.graph.input.append(helper.make_tensor_value_info("x", TensorProto.BFLOAT16, [1]))
    model.graph.output.append(helper.make_tensor_value_info("out", TensorProto.BFLOAT16, [1]))
    save(model, tmp_path / "half.onnx")
    with pytest.raises(ModelError, match=r"input 'x' is of type bfloat16; pepper makes tensors of numbers"):
        opened(tmp_path / "half.onnx", [input_spec("x", "bfloat16", [1])])


def test_a_model_that_refuses_what_was_drawn_says_what_to_give(tmp_path: Path) -> None:
    file = tmp_path / "resize.onnx"
    model = make_model([helper.make_node("Reshape", ["x", "to"], ["y"])], {"x": [6, 4]}, {"y": ["a", "b"]})
    model.graph.input.append(helper.make_tensor_value_info("to", TensorProto.INT64, [2]))
    save(model, file)
    x = input_spec("x", "float", [6, 4])
    with pytest.raises(RuntimeError, match=r"onnxruntime cannot run it: .*give model\.inputs\.to=\.\.\."):
        opened(file, [x, input_spec("to", "int64", [2])])
    assert opened(file, [x, input_spec("to", "int64", [2], [8, 3])]).warm_up(0, 0)
