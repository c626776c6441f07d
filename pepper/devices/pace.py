"""The reference kernel: how fast do the cores compute and reach memory right now? Told in a few milliseconds a core."""

import os
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

MATRIX_SIZE = 48  # so small that no library shares a product among threads
PRODUCTS = 40
TABLE_BYTES = 8 * 2**20  # beyond what a core has of caches for itself
READS = 8192
SPELLS, LEAST_SPELLS, SPELLS_IN_ALL = 16, 6, 64


class KernelTime(NamedTuple):
    """CPU time that the reference kernel's halves took, microseconds.

    Attributes:
        arithmetic_us: Matrix products within the first cache: tells the core's clock, and its other half's work.
        memory_us: Reads at random places: tells the traffic in shared caches and memory, and is much less steady.
    """

    arithmetic_us: float
    memory_us: float


class ReferenceKernel:
    """Two halves, each in spells of about 0.1 ms: small matrix products, and reads at random places.

    A spell is timed by the CPU time of its thread and the median of many counts, so that neither being stopped, nor a
    neighbour's turn, nor what either does to the caches of a few spells reads as slowness. What remains is what the
    core does while it runs: its clock, its other half's work, the traffic in shared caches and memory.
    """

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self._left, self._right = rng.random((2, MATRIX_SIZE, MATRIX_SIZE), dtype=np.float32)
        self._product = np.empty_like(self._left)
        self._table = rng.random(TABLE_BYTES // 4, dtype=np.float32)
        self._places = rng.integers(0, len(self._table) // 2, READS)
        self._read = np.empty(READS, np.float32)

    def time(self) -> KernelTime:
        """Return the CPU time that the kernel takes: the mean over the cores that this thread may use.

        Raises:
            OSError: A core cannot be used any more, or CPU time is counted too coarsely here.
        """
        cores = sorted(os.sched_getaffinity(0))
        spells = min(SPELLS, max(LEAST_SPELLS, SPELLS_IN_ALL // len(cores)))
        try:
            found = []
            for core in cores:
                if len(cores) > 1:
                    os.sched_setaffinity(0, [core])
                found.append(self._spells(spells))
        finally:
            if len(cores) > 1:
                os.sched_setaffinity(0, cores)
        if np.min(found) <= 0:
            raise OSError("the clock of CPU time is too coarse")
        return KernelTime(*np.mean(found, axis=0).tolist())

    def _spells(self, spells: int) -> KernelTime:
        arithmetic, memory = [], []
        for spell in range(-2, spells):  # the first two bring the code and the matrices into the caches
            arithmetic.append(_cpu_ns(self._compute))
            memory.append(_cpu_ns(partial(self._reach, spell + 2)))
        return KernelTime(float(np.median(arithmetic[2:])) / 1000, float(np.median(memory[2:])) / 1000)

    def _compute(self) -> None:
        for _ in range(PRODUCTS):
            np.matmul(self._left, self._right, out=self._product)

    def _reach(self, spell: int) -> None:
        start = spell * len(self._table) // (2 * (SPELLS + 2))  # other places each time
        self._table[start:].take(self._places, out=self._read, mode="clip")


def _cpu_ns(work: Callable[[], None]) -> int:
    start = time.thread_time_ns()
    work()
    return time.thread_time_ns() - start
