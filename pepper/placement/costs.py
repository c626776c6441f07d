"""The chain problem's costs as arrays, with ``inf`` where a part may not be."""

import math

import numpy as np

from pepper.placement.evaluate import TOLERANCE, Evaluation
from pepper.placement.problem import ChainProblem, Floats


class Costs:
    """Costs of parts and hops under one objective.

    Objectives are ``latency`` and ``throughput``, whose costs combine along a plan by sum and by maximum, and
    ``parts``: the number of parts, with latency to break ties.

    Attributes:
        combine: ``np.add`` or ``np.maximum``.
        per_part: Cost added to every part of a ``latency`` plan so that equal plans go to fewer parts; far
            below the tolerance of a proof.
        hop: (n + 1, D, D) cost of handing over at a boundary, [boundary, from, to].
        entry: (D,) cost of getting the input to each device.
        exit: (D,) cost of getting the output from each device.
        additive: Whether parts cost the sum over their steps and nothing limits a part by its extent.
    """

    def __init__(self, problem: ChainProblem, objective: str) -> None:
        self.problem = problem
        self.objective = objective
        self.combine = np.maximum if objective == "throughput" else np.add
        n, n_devices = problem.n_steps, len(problem.devices)
        self._period_ms = problem.limits.period_ms * (1 + TOLERANCE)
        self._memory = np.array([device.memory_bytes for device in problem.devices])
        self._memory *= 1 + TOLERANCE

        # Steps before each boundary that a device cannot run or must not hold.
        blocked = np.zeros((n, n_devices), dtype=bool)
        for d, device in enumerate(problem.devices):
            blocked[:, d] = device.name in problem.excluded
        for step, name in problem.pinned.items():
            blocked[step] |= np.arange(n_devices) != problem.index(name)
        additive_ms = problem.part_ms.ndim == 2
        if additive_ms:
            blocked |= np.isinf(problem.part_ms)
            self._time_before = np.zeros((n + 1, n_devices))
            np.cumsum(np.where(blocked, 0.0, problem.part_ms), axis=0, out=self._time_before[1:])
        self.blocked = blocked
        self._blocked_before = np.zeros((n + 1, n_devices), dtype=np.int64)
        np.cumsum(blocked, axis=0, out=self._blocked_before[1:])
        if problem.part_bytes.ndim == 1:
            self._bytes_before = np.concatenate([[0.0], np.cumsum(problem.part_bytes)])

        latency_hop, throughput_hop = self._hops()
        self.hop = throughput_hop if objective == "throughput" else latency_hop
        top = problem.part_ms[np.isfinite(problem.part_ms)]
        hops = latency_hop[np.isfinite(latency_hop)]
        scale_ms = n * (top.max() if top.size else 0.0) + (n + 1) * (hops.max() if hops.size else 0.0)
        self.per_part = 1e-12 * scale_ms if objective == "latency" else 0.0
        # In ``parts``, all of a plan's latency weighs less than one part.
        self._per_ms = 0.5 / max(scale_ms, 1e-300) if objective == "parts" else 1.0
        self.hop = self.hop * self._per_ms
        self.entry = self._end(problem.source, 0, outwards=False)
        self.exit = self._end(problem.sink, n, outwards=True)
        self._mask_own_hops()
        self.additive = (
            additive_ms
            and objective == "latency"
            and math.isinf(problem.limits.period_ms)
            and bool(np.isinf(self._memory).all())
        )

    @staticmethod
    def value(cost: Evaluation, objective: str) -> float:
        """Return what `objective` minimises of an evaluated plan."""
        return float(len(cost.stage_ms)) if objective == "parts" else cost.value(objective)

    def parts_from(self, start: int) -> Floats:
        """Return (n - start, D): the cost of the parts from `start` to start + 1, ..., n."""
        problem = self.problem
        if problem.part_ms.ndim == 2:
            time_ms = self._time_before[start + 1 :] - self._time_before[start]
        else:
            time_ms = problem.part_ms[start, start + 1 :]
        bad = self._blocked_before[start + 1 :] > self._blocked_before[start]
        if np.isfinite(self._memory).any():
            if problem.part_bytes.ndim == 1:
                size = self._bytes_before[start + 1 :] - self._bytes_before[start]
            else:
                size = problem.part_bytes[start, start + 1 :]
            bad |= size[:, None] > self._memory
        if math.isfinite(self._period_ms):
            bad |= time_ms > self._period_ms
        bad |= np.isinf(time_ms)
        if self.objective == "parts":
            time_ms = 1.0 + time_ms * self._per_ms
        return np.where(bad, math.inf, time_ms + self.per_part)

    def _hops(self) -> tuple[Floats, Floats]:
        links, size = self.problem.links, self.problem.boundary_bytes[:, None, None]
        missing = np.isinf(links.latency_ms) | np.isinf(links.ms_per_byte) | np.isinf(size)
        with np.errstate(invalid="ignore"):
            delay = links.latency_ms + size * links.ms_per_byte
            occupied = size * links.occupied_ms_per_byte
        missing = missing | np.isnan(occupied) | (occupied > self._period_ms)
        return np.where(missing, math.inf, delay), np.where(missing, math.inf, occupied)

    def _end(self, name: str | None, boundary: int, outwards: bool) -> Floats:
        if name is None:
            return np.zeros(len(self.problem.devices))
        end = self.problem.index(name)
        cost = (self.hop[boundary, :, end] if outwards else self.hop[boundary, end]).copy()
        cost[end] = 0.0
        return cost

    def _mask_own_hops(self) -> None:
        """Price a hop from a kind to itself: free with reuse, impossible where the kind has one device."""
        cut = np.where(np.isinf(self.problem.boundary_bytes), math.inf, 0.0)
        for d, device in enumerate(self.problem.devices):
            if self.problem.reuse:
                self.hop[:, d, d] = cut
            elif device.count == 1:
                self.hop[:, d, d] = math.inf
