"""onnxruntime's own provider: the cores that the process runs on."""

import time
from collections.abc import Callable
from functools import partial

import numpy as np
import onnxruntime as ort

from pepper.devices.protocol import Arrays
from pepper.devices.providers.provider import Provider, Run

MATRIX_SIZE = 512
COPY_BYTES = 64 * 2**20  # beyond the last-level cache's share of most machines
LEAST_ROUNDS = 2


class CpuProvider(Provider):
    """Inputs and outputs are where the cores work on them: there is nothing to bind."""

    name = "CPUExecutionProvider"

    def open(self, path: str, options: ort.SessionOptions) -> ort.InferenceSession:
        """Open a model on this provider alone."""
        return ort.InferenceSession(path, options, providers=[self.name])

    def bind(self, session: ort.InferenceSession, inputs: Arrays) -> Run:
        """Return what runs the model on these inputs."""
        return partial(session.run, None, inputs)

    def probe(self, kernel: str, seconds: float) -> float:
        """Measure the cores with numpy."""
        return {"gflops": gflops, "memory_gbps": memory_gbps}[kernel](seconds)


def gflops(seconds: float) -> float:
    """Return the speed of a single-precision matrix product, GFLOP/s."""
    rng = np.random.default_rng(0)
    a, b = rng.random((2, MATRIX_SIZE, MATRIX_SIZE), dtype=np.float32)
    out = a @ b
    return 2e-9 * MATRIX_SIZE**3 * _rate_per_s(lambda: np.matmul(a, b, out=out), seconds)


def memory_gbps(seconds: float) -> float:
    """Return the memory bandwidth of a large copy, GB/s."""
    source = np.ones(COPY_BYTES // 8)
    target = np.empty_like(source)
    np.copyto(target, source)
    return 2e-9 * COPY_BYTES * _rate_per_s(lambda: np.copyto(target, source), seconds)


def _rate_per_s(kernel: Callable[[], object], seconds: float) -> float:
    rounds = 0
    start = time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds or rounds < LEAST_ROUNDS:
        kernel()
        rounds += 1
    return rounds / elapsed
