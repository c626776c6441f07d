"""How fast a provider computes and moves data, measured through onnxruntime with small models, whatever it runs on.

All are made of matrix products, which every provider has. A speed is told from two models that differ in one thing:
what both have (the call, transfers of inputs and outputs, waiting for the device) is not in their difference.
"""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

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
LEAST_ROUNDS = 1
LEAST_S = 1e-9
"""What a difference within the clock's noise counts as."""


@dataclass(frozen=True)
class Speeds:
    """What a provider does here.

    Attributes:
        gflops: Single-precision product of large matrices, GFLOP/s, as precise as the provider's options have it.
        small_gflops: The same of small ones (128).
        memory_gbps: Weights read for a product with a vector, GB/s.
        launch_ms: One operator more in a model, however small.
        call_ms: A whole inference of one operator, however small.
        in_gbps: Inputs brought to where it computes, GB/s.
        out_gbps: Outputs brought back.
    """

    gflops: float
    small_gflops: float
    memory_gbps: float
    launch_ms: float
    call_ms: float
    in_gbps: float
    out_gbps: float


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
        file = Path(folder) / "model.onnx"

        def best_s(rows: int, *widths: int) -> float:
            file.write_bytes(products(rows, *widths))
            session, _ = open_checked(
                provider, str(file), session_options(threads, "all", spinning=False, parallel=False)
            )
            run = provider.bind(session, {"input": np.ones((rows, widths[0]), np.float32)})
            run()
            best, rounds, end = float("inf"), 0, time.perf_counter() + seconds
            while rounds < LEAST_ROUNDS or time.perf_counter() < end:
                start = time.perf_counter()
                run()
                best = min(best, time.perf_counter() - start)
                rounds += 1
            return best

        def product_s(rows: int, size: int, more: int) -> float:
            """Return how long each product takes, of this many more than one."""
            one, all_s = best_s(rows, size, size), best_s(rows, *[size] * (more + 2))
            return max(LEAST_S, (all_s - one) / more)

        gflops = 0.0
        for size in LARGE:
            took_s = product_s(size, size, 2)
            gflops = max(gflops, 2e-9 * size**3 / took_s)
            if took_s > QUICK_S:
                break
        call_s = best_s(1, NARROW, NARROW)
        moved_gb = 4e-9 * NARROW * MOVED_ROWS
        return Speeds(
            gflops=gflops,
            small_gflops=2e-9 * SMALL**3 / product_s(SMALL, SMALL, 8),
            memory_gbps=4e-9 * STREAMED**2 / product_s(1, STREAMED, 2),
            launch_ms=1000 * product_s(1, NARROW, LAUNCHES),
            call_ms=1000 * call_s,
            in_gbps=moved_gb / max(LEAST_S, best_s(MOVED_ROWS, NARROW, 1) - call_s),
            out_gbps=moved_gb / max(LEAST_S, best_s(MOVED_ROWS, 1, NARROW) - call_s),
        )
