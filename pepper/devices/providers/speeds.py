"""How fast a provider computes and moves data, measured through onnxruntime with small models, whatever it runs on.

All are made of matrix products, which every provider has. A speed is told from two models that differ in one thing:
what both have (the call, transfers of inputs and outputs, waiting for the device) is not in their difference.
"""

import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime as ort

from pepper.devices.providers.binding import DeviceTensors, has_own_memory
from pepper.devices.providers.opening import open_checked
from pepper.devices.providers.options import session_options
from pepper.devices.providers.provider import Provider
from pepper.devices.providers.small_models import products

LARGE = (256, 512, 2048, 4096)
"""Sizes of the large product: as long as one is quick, the next is tried; a large accelerator needs large ones."""
QUICK_S = 0.002
SMALL = 128
STREAMED = 2048  # 16 MB of weights a product: beyond most caches
LAUNCHES = 32
NARROW, MOVED_ROWS = 16, 2**18  # 16 MiB
LEAST_ROUNDS, LEAST_MOVED_ROUNDS = 1, 5
LEAST_S = 1e-9
"""What a difference within the clock's noise counts as."""
LEAST_MOVED_S = 1e-6
"""The same of a transfer: where there is none, a computation that varies hides it."""


@dataclass(frozen=True)
class Speeds:
    """What a provider does here.

    Attributes:
        gflops: Single-precision product of large matrices, GFLOP/s, as precise as the provider's options have it.
        small_gflops: The same of small ones (128).
        memory_gbps: Weights read for a product with a vector, GB/s.
        launch_ms: One operator more in a model, however small.
        call_ms: A whole inference of one operator, however small.
        in_gbps: Inputs brought to where it computes, GB/s; thousands where that is the host's memory.
        out_gbps: Outputs brought back.
    """

    gflops: float
    small_gflops: float
    memory_gbps: float
    launch_ms: float
    call_ms: float
    in_gbps: float
    out_gbps: float


class _Timer:
    """Times small models on a provider."""

    def __init__(self, provider: Provider, threads: int, seconds: float, folder: str) -> None:
        self._provider, self._threads, self._seconds = provider, threads, seconds
        self._file = Path(folder) / "model.onnx"

    def opened(self, rows: int, *widths: int) -> ort.InferenceSession:
        """Open a chain of products; see :func:`pepper.devices.providers.small_models.products`."""
        self._file.write_bytes(products(rows, *widths))
        options = session_options(self._threads, "all", spinning=False, parallel=False)
        return open_checked(self._provider, str(self._file), options)[0]

    def best_s(self, rows: int, *widths: int, rounds: int = LEAST_ROUNDS) -> float:
        """Return the least time of an inference of such a chain, of this many at least."""
        run = self._provider.bind(self.opened(rows, *widths), {"input": np.ones((rows, widths[0]), np.float32)})
        run()
        best, done, end = float("inf"), 0, time.perf_counter() + self._seconds
        while done < rounds or time.perf_counter() < end:
            start = time.perf_counter()
            run()
            best = min(best, time.perf_counter() - start)
            done += 1
        return best

    def product_s(self, rows: int, size: int, more: int) -> float:
        """Return how long each product takes, of this many more than one."""
        one, all_s = self.best_s(rows, size, size), self.best_s(rows, *[size] * (more + 2))
        return max(LEAST_S, (all_s - one) / more)

    def moved_s(self, rows: int, width: int) -> tuple[float, float]:
        """Return how long it takes to bring a wide input there, and a wide output back.

        A provider that takes the host's memory may still copy what is in it: then calls take longer than they compute
        (a product with a wide result computes at least as long as one with a narrow result).
        """
        session = self.opened(rows, width, width)
        if has_own_memory(session):
            in_ms, out_ms = DeviceTensors(session, {"input": np.ones((rows, width), np.float32)}).transfers_ms()
            return in_ms / 1000, out_ms / 1000
        best_s = partial(self.best_s, rounds=LEAST_MOVED_ROUNDS)
        wide_s, narrow_s = best_s(rows, width, width), best_s(rows, width, 1)
        computing_s = best_s(rows, width, width, width) - wide_s
        return narrow_s - best_s(1, width, width) - computing_s, wide_s - narrow_s - computing_s


def measure_speeds(provider: Provider, threads: int, seconds: float) -> Speeds:
    """Measure a provider.

    Args:
        provider: What is measured.
        threads: onnxruntime's threads.
        seconds: How long each of a dozen models is run.

    Raises:
        ValueError: The provider is not there.
        RuntimeError: It does not run a product of matrices.
    """
    with tempfile.TemporaryDirectory() as folder:
        timer = _Timer(provider, threads, seconds, folder)
        gflops = 0.0
        for size in LARGE:
            took_s = timer.product_s(size, size, 2)
            gflops = max(gflops, 2e-9 * size**3 / took_s)
            if took_s > QUICK_S:
                break
        return Speeds(
            gflops=gflops,
            small_gflops=2e-9 * SMALL**3 / timer.product_s(SMALL, SMALL, 8),
            memory_gbps=4e-9 * STREAMED**2 / timer.product_s(1, STREAMED, 2),
            launch_ms=1000 * timer.product_s(1, NARROW, LAUNCHES),
            call_ms=1000 * timer.best_s(1, NARROW, NARROW),
            **measure_transfers(provider, threads, seconds),
        )


def measure_transfers(provider: Provider, threads: int, seconds: float) -> dict[str, float]:
    """Measure ``in_gbps`` and ``out_gbps`` alone; see :func:`measure_speeds`."""
    with tempfile.TemporaryDirectory() as folder:
        moved = _Timer(provider, threads, seconds, folder).moved_s(MOVED_ROWS, NARROW)
    moved_gb = 4e-9 * NARROW * MOVED_ROWS
    return {
        f"{way}_gbps": moved_gb / max(LEAST_MOVED_S, took_s) for way, took_s in zip(("in", "out"), moved, strict=True)
    }
