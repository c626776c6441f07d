"""The program that measures a device's speed from inside it: ``python -m pepper.devices.calibrator``."""

import time
from typing import Any

import numpy as np

from pepper.devices.protocol import serve
from pepper.devices.spin import cpu_fraction

MATRIX_SIZE = 512
COPY_BYTES = 64 * 2**20  # beyond the last-level cache's share of most machines
LEAST_ROUNDS = 2


def share(seconds: float) -> dict[str, Any]:
    """Return the fraction of wall time in which a busy loop really ran."""
    return {"value": cpu_fraction(seconds)}


def gflops(seconds: float) -> dict[str, Any]:
    """Return the speed of a single-precision matrix product in GFLOP/s (two operations a multiply-add)."""
    rng = np.random.default_rng(0)
    a, b = rng.random((2, MATRIX_SIZE, MATRIX_SIZE), dtype=np.float32)
    out = a @ b
    rounds = 0
    start = time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds or rounds < LEAST_ROUNDS:
        np.matmul(a, b, out=out)
        rounds += 1
    return {"value": 2e-9 * MATRIX_SIZE**3 * rounds / elapsed}


def memory_gbps(seconds: float) -> dict[str, Any]:
    """Return the memory bandwidth of a large copy in GB/s (each byte is read once and written once)."""
    source = np.ones(COPY_BYTES // 8)
    target = np.empty_like(source)
    np.copyto(target, source)
    rounds = 0
    start = time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds or rounds < LEAST_ROUNDS:
        np.copyto(target, source)
        rounds += 1
    return {"value": 2e-9 * COPY_BYTES * rounds / elapsed}


if __name__ == "__main__":
    serve({"share": share, "gflops": gflops, "memory_gbps": memory_gbps})
