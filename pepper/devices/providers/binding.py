"""Inputs and outputs in the memory of what computes: brought there and back, or an inference without that."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort

from pepper.devices.protocol import Arrays
from pepper.devices.providers.provider import Run

_MEMORIES = {"Cpu": "cpu", "Cuda": "cuda", "WebGPU_Buf": "webgpu", "DML": "dml", "Cann": "cann"}
"""What onnxruntime calls a memory, and how it is asked for there."""

_TYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int8)": np.int8,
    "tensor(int16)": np.int16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(uint8)": np.uint8,
    "tensor(uint16)": np.uint16,
    "tensor(uint32)": np.uint32,
    "tensor(uint64)": np.uint64,
    "tensor(bool)": np.bool_,
}

_CHECKED_RUNS = 5
_LEAST_TOLD = 0.5
"""Of the time that runs really take together, what their single times must at least add up to."""

_TRIALS = 5


@dataclass(frozen=True)
class Bound:
    """A model bound to its inputs and outputs on a device.

    Attributes:
        run: One inference, complete when it returns; it returns nothing.
        in_ms: How long bringing the inputs there takes.
        out_ms: How long bringing the outputs back takes.
        moved: Whether any of them is in another memory than the host's.
    """

    run: Run
    in_ms: float
    out_ms: float
    moved: bool


class DeviceTensors:
    """Places for a session's inputs and outputs in the memory in which it wants them, for one request after another.

    Args:
        session: An open one.
        inputs: The model's inputs by name: their types and shapes.
        answers: What the model answers to these: its outputs' types and shapes. Without, an output has a place there
            if the model says its shape; onnxruntime brings the others back by itself.

    Attributes:
        moved: Whether any of them is in another memory than the host's.

    Raises:
        ValueError: A memory, an input or an output cannot be bound.
    """

    def __init__(self, session: ort.InferenceSession, inputs: Arrays, answers: Sequence[Any] = ()) -> None:
        self._session, self._binding = session, session.io_binding()
        self._forms = forms(inputs)
        self._values: dict[str, ort.OrtValue] = {}
        self._on_host: list[str] = []
        for tensor, memory in zip(session.get_inputs(), session.get_input_memory_infos(), strict=True):
            array = inputs[tensor.name]
            if (kind := _memory(memory)) == "cpu" or array.dtype == object:
                self._on_host.append(tensor.name)
            else:
                value = _empty(session, array.shape, array.dtype, kind, memory.device_id)
                self._binding.bind_ortvalue_input(tensor.name, value)
                self._values[tensor.name] = value
        self._results: dict[str, ort.OrtValue | None] = {}
        for number, (tensor, memory) in enumerate(
            zip(session.get_outputs(), session.get_output_memory_infos(), strict=True)
        ):
            if answers and not isinstance(answers[number], np.ndarray):
                raise ValueError(f"measure.binding: output {tensor.name!r} is no tensor; give measure.binding=host")
            shape, dtype = _form(answers[number]) if answers else _declared(tensor)
            self._results[tensor.name] = None
            if (kind := _memory(memory)) != "cpu" and dtype.kind != "O":
                value = _empty(session, shape, dtype, kind, memory.device_id)
                self._binding.bind_ortvalue_output(tensor.name, value)
                self._results[tensor.name] = value
        self.moved = bool(self._values or any(self._results.values()))

    def bring(self, inputs: Arrays) -> None:
        """Bring inputs there, of the same types and shapes."""
        for name, value in self._values.items():
            value.update_inplace(inputs[name])
        for name in self._on_host:
            self._binding.bind_cpu_input(name, inputs[name])
        for name, value in self._results.items():
            if value is None:
                self._binding.bind_output(name)  # anew: its shape may be another than last time

    def run(self) -> None:
        """Run the model on the inputs that are there."""
        self._session.run_with_iobinding(self._binding)

    def finish(self) -> None:
        """Wait for the device, as far as the provider does."""
        self._binding.synchronize_outputs()

    def fetch(self) -> None:
        """Bring back the outputs that have a place on the device."""
        for value in self._results.values():
            if value is not None:
                value.numpy()

    def outputs(self) -> list[Any]:
        """Return all outputs of the last run, in the model's order."""
        return [value.numpy() for value in self._binding.get_outputs()]

    def transfers_ms(self) -> tuple[float, float]:
        """Return how long bringing inputs there and bringing the outputs back takes, while the device does nothing.

        Inputs are there once something that was asked for after them has come back.
        """
        given = {name: np.ones(shape, dtype) for name, (shape, dtype) in self._forms.items()}
        self.fetch()
        out_ms = _best_ms(self.fetch)

        def there_and_back() -> None:
            self.bring(given)
            self.fetch()

        return max(0.0, _best_ms(there_and_back) - out_ms), out_ms


class CarriedInference:
    """Runs a model on one request after another, through tensors that stay on its device.

    Args:
        session: An open one, whose inputs or outputs are in a memory that is not the host's.
    """

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session
        self._forms: dict[str, Any] = {}
        self._tensors: DeviceTensors | None = None

    def __call__(self, inputs: Arrays) -> list[Any]:
        """Return the model's outputs, complete and in the host's memory."""
        found = forms(inputs)
        if self._tensors is None or found != self._forms:
            self._tensors, self._forms = DeviceTensors(self._session, inputs), found
        self._tensors.bring(inputs)
        self._tensors.run()
        return self._tensors.outputs()

    def moved_ms(self) -> float | None:
        """Return how long the transfers there and back of a request like the last take; None where there was none."""
        return None if self._tensors is None else sum(self._tensors.transfers_ms())


def forms(inputs: Arrays) -> dict[str, Any]:
    """Return shapes and types of arrays by name."""
    return {name: _form(array) for name, array in inputs.items()}


def has_own_memory(session: ort.InferenceSession) -> bool:
    """Return whether a session's inputs and outputs can be bound to a memory that is not the host's."""
    if not hasattr(session, "get_input_memory_infos"):  # onnxruntime before 1.23
        return False
    memories = {_kind(info) for info in (*session.get_input_memory_infos(), *session.get_output_memory_infos())}
    types = {tensor.type for tensor in (*session.get_inputs(), *session.get_outputs())}
    return memories != {"cpu"} and None not in memories and types <= set(_TYPES)


def bound_to_device(session: ort.InferenceSession, inputs: Arrays, answers: Sequence[Any]) -> Bound:
    """Bind inputs and outputs to the memory in which the session wants them.

    onnxruntime is asked to wait for the device before a run returns. Not every provider does then; a clock that is read
    too early tells nothing, so the runs are checked against a stretch that ends with an output on the host.

    Args:
        session: An open one.
        inputs: The model's inputs by name.
        answers: What the model answers to them: its outputs' types and shapes.

    Raises:
        ValueError: A memory, an input or an output cannot be bound, or the device cannot be waited for.
    """
    tensors = DeviceTensors(session, inputs, answers)
    tensors.bring(inputs)

    def run() -> tuple[Any, ...]:
        tensors.run()
        tensors.finish()
        return ()

    run()
    tensors.fetch()
    if tensors.moved:
        _check_waits(run, tensors.fetch)
    in_ms, out_ms = tensors.transfers_ms()
    return Bound(run, in_ms, out_ms, tensors.moved)


def _kind(info: "ort.OrtMemoryInfo") -> str | None:
    """Return how onnxruntime is asked for a memory; None if that is not known.

    What the host can use as it is, such as the places that OpenVINO shares with it, is the host's.
    """
    if info.device_mem_type == ort.OrtDeviceMemoryType.HOST_ACCESSIBLE:
        return "cpu"
    return _MEMORIES.get(info.name)


def _memory(info: "ort.OrtMemoryInfo") -> str:
    kind = _kind(info)
    if kind is None:
        raise ValueError(f"measure.binding: unknown memory {info.name!r}; give measure.binding=host")
    return kind


def _form(array: "np.ndarray[Any, Any]") -> "tuple[Sequence[int], np.dtype[Any]]":
    return array.shape, array.dtype


def _declared(tensor: Any) -> "tuple[Sequence[int], np.dtype[Any]]":
    """Return an output's shape and type; of objects, where the model does not say its shape."""
    known = all(isinstance(size, int) for size in tensor.shape)
    return tensor.shape, np.dtype(_TYPES.get(tensor.type, object) if known else object)


def _empty(session: ort.InferenceSession, shape: Sequence[int], dtype: Any, kind: str, number: int) -> "ort.OrtValue":
    if hasattr(session, "create_ortvalue_from_shape_and_type"):  # onnxruntime 1.32
        return session.create_ortvalue_from_shape_and_type(shape, dtype, kind, number)
    return ort.OrtValue.ortvalue_from_shape_and_type(shape, dtype, kind, number)


def _check_waits(run: Run, fetch: Callable[[], None]) -> None:
    """Make sure that single runs take as long as they really do.

    Raises:
        ValueError: They end before the device does.
    """
    single_s = 0.0
    start = time.perf_counter()
    for _ in range(_CHECKED_RUNS):
        before = time.perf_counter()
        run()
        single_s += time.perf_counter() - before
    fetch()
    all_s = time.perf_counter() - start
    start = time.perf_counter()
    fetch()
    all_s -= time.perf_counter() - start
    if single_s < _LEAST_TOLD * all_s:
        raise ValueError(
            f"measure.binding: the provider does not wait for its device ({1000 * single_s:.3g} ms were told of"
            f" {1000 * all_s:.3g}); give measure.binding=host"
        )


def _best_ms(work: Callable[[], object]) -> float:
    best_s = float("inf")
    for _ in range(_TRIALS):
        start = time.perf_counter()
        work()
        best_s = min(best_s, time.perf_counter() - start)
    return 1000 * best_s
