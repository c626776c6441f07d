"""onnxruntime's own provider: the cores that the process runs on."""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import onnxruntime as ort

from pepper.devices.protocol import Arrays
from pepper.devices.providers.options import session_options
from pepper.devices.providers.provider import Provider, Run
from pepper.devices.providers.small_models import integer_product

MATRIX_SIZE = 512
SMALL_SIZE = 64
COPY_BYTES, MOST_COPY_BYTES = 64 * 2**20, 256 * 2**20
L2_BYTES = 2**19  # where the system does not tell
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
        """Measure the cores with numpy, which has no product of integers: that is onnxruntime's."""
        return KERNELS[kernel](seconds)


def gflops(seconds: float, size: int = MATRIX_SIZE) -> float:
    """Return the speed of a single-precision matrix product, GFLOP/s."""
    rng = np.random.default_rng(0)
    a, b = rng.random((2, size, size), dtype=np.float32)
    out = a @ b
    return 2e-9 * size**3 * _rate_per_s(lambda: np.matmul(a, b, out=out), seconds)


def int8_gops(seconds: float) -> float:
    """Return the speed of a product of matrices of 8 bits, billions of operations (two a multiply-add) a second."""
    options = session_options(_threads(), "all", spinning=False, parallel=False)
    session = ort.InferenceSession(integer_product(MATRIX_SIZE), options, providers=[CpuProvider.name])
    inputs = {"input": np.random.default_rng(0).integers(0, 9, (MATRIX_SIZE, MATRIX_SIZE)).astype(np.uint8)}
    session.run(None, inputs)
    return 2e-9 * MATRIX_SIZE**3 * _rate_per_s(lambda: session.run(None, inputs), seconds)


def memory_gbps(seconds: float) -> float:
    """Return the bandwidth of copies beyond all caches, by as many threads as this process may use, GB/s."""
    threads = _threads()
    size = min(max(COPY_BYTES, 2 * _cache_bytes("SC_LEVEL3_CACHE_SIZE")), MOST_COPY_BYTES)
    source = np.ones((threads, size // threads // 8))
    target = np.empty_like(source)
    with ThreadPoolExecutor(threads) as pool:

        def copy() -> None:
            list(pool.map(np.copyto, target, source))  # each lets the others run

        copy()
        return 2e-9 * source.nbytes * _rate_per_s(copy, seconds)


def cache_gbps(seconds: float) -> float:
    """Return the bandwidth of a copy by one thread that lies within half of the second-level cache, GB/s."""
    source = np.ones((_cache_bytes("SC_LEVEL2_CACHE_SIZE") or L2_BYTES) // 4 // 8)
    target = np.empty_like(source)
    return 2e-9 * source.nbytes * _rate_per_s(lambda: np.copyto(target, source), seconds)


KERNELS: dict[str, Callable[[float], float]] = {
    "gflops": gflops,
    "int8_gops": int8_gops,
    "memory_gbps": memory_gbps,
    "small_gflops": partial(gflops, size=SMALL_SIZE),
    "cache_gbps": cache_gbps,
}


def _threads() -> int:
    """Return how many threads this process may use."""
    return min(len(os.sched_getaffinity(0)), int(os.environ["OMP_NUM_THREADS"]))


def _cache_bytes(name: str) -> int:
    """Return a cache's size; 0 where the system does not tell."""
    try:
        return max(0, os.sysconf(name))
    except (OSError, ValueError):
        return 0


def _rate_per_s(kernel: Callable[[], object], seconds: float) -> float:
    rounds = 0
    start = time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds or rounds < LEAST_ROUNDS:
        kernel()
        rounds += 1
    return rounds / elapsed
