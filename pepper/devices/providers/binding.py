"""Inputs and outputs in the memory of what computes: an inference without the transfers there and back."""

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
    binding = session.io_binding()
    values = {}
    for tensor, memory in zip(session.get_inputs(), session.get_input_memory_infos(), strict=True):
        array = inputs[tensor.name]
        if (kind := _memory(memory)) == "cpu" or array.dtype == object:
            binding.bind_cpu_input(tensor.name, array)
        else:
            value = _empty(session, array, kind, memory.device_id)
            value.update_inplace(array)
            binding.bind_ortvalue_input(tensor.name, value)
            values[tensor.name] = value
    results = []
    for tensor, memory, answer in zip(session.get_outputs(), session.get_output_memory_infos(), answers, strict=True):
        if not isinstance(answer, np.ndarray):
            raise ValueError(f"measure.binding: output {tensor.name!r} is no tensor; give measure.binding=host")
        if (kind := _memory(memory)) == "cpu" or answer.dtype == object:
            binding.bind_output(tensor.name)
        else:
            results.append(_empty(session, answer, kind, memory.device_id))
            binding.bind_ortvalue_output(tensor.name, results[-1])

    def run() -> tuple[Any, ...]:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return ()

    def fetch() -> None:
        for value in results:
            value.numpy()

    run()
    fetch()
    if results:
        _check_waits(run, fetch)
    bring = [(value, inputs[name]) for name, value in values.items()]
    return Bound(
        run=run,
        in_ms=_best_ms(lambda: [value.update_inplace(array) for value, array in bring]),
        out_ms=_best_ms(fetch),
        moved=bool(values or results),
    )


def _memory(info: "ort.OrtMemoryInfo") -> str:
    if info.name not in _MEMORIES:
        raise ValueError(f"measure.binding: unknown memory {info.name!r}; give measure.binding=host")
    return _MEMORIES[info.name]


def _empty(session: ort.InferenceSession, like: "np.ndarray[Any, Any]", kind: str, number: int) -> "ort.OrtValue":
    if hasattr(session, "create_ortvalue_from_shape_and_type"):  # onnxruntime 1.32
        return session.create_ortvalue_from_shape_and_type(like.shape, like.dtype, kind, number)
    return ort.OrtValue.ortvalue_from_shape_and_type(like.shape, like.dtype, kind, number)


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
