"""The chain problem's costs as arrays, with ``inf`` where a part may not be."""

import math

import numpy as np

from pepper.placement.evaluate import TOLERANCE
from pepper.placement.objectives import Objective
from pepper.placement.problem import ChainProblem, Floats


class Costs:
    """Costs of parts and hops under one objective.

    Attributes:
        combine: ``np.add`` or ``np.maximum``.
        per_part: Cost added to every part of a plan whose costs add up, so that equal plans go to fewer parts; far
            below the tolerance of a proof.
        entry: (D,) cost of getting the input to each device.
        exit: (D,) cost of getting the output from each device.
        additive: Whether parts cost the sum over their steps and nothing limits a part by its extent.
    """

    def __init__(self, problem: ChainProblem, objective: Objective) -> None:
        self.problem = problem
        self.objective = objective
        self.combine = np.maximum if objective.bottleneck else np.add
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
        if objective.per_joule or math.isfinite(problem.limits.energy_j):
            blocked |= np.isinf(problem.power_w)  # what is not known keeps to no limit
        self._single = np.array([device.count == 1 for device in problem.devices])
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

        scale_ms = self._scale_ms()
        self.per_part = 0.0 if objective.bottleneck else 1e-10 * objective.per_ms * scale_ms / n
        # Where neither time nor energy counts, all of a plan's latency weighs less than one part.
        self._per_ms = objective.per_ms or (0.5 * objective.per_part / max(scale_ms, 1e-300) if objective.counts else 0)
        joules = np.nan_to_num(problem.power_w / 1000, posinf=0.0) * objective.per_joule
        self._busy = self._per_ms + joules  # what a millisecond of work costs on each device
        self._wait = problem.wait_ms * (0.0 if objective.bottleneck else self._per_ms)
        self.entry = self._end(problem.source, 0, outwards=False) + self._wait
        self.exit = self._end(problem.sink, n, outwards=True)
        self.additive = (
            additive_ms
            and not objective.bottleneck
            and objective.per_ms == 1
            and not objective.per_joule
            and not objective.per_part
            and math.isinf(problem.limits.period_ms)
            and bool(np.isinf(self._memory).all())
        )

    def parts_from(self, start: int) -> Floats:
        """Return (n - start, D): the cost of the parts from `start` to start + 1, ..., n, handling included."""
        problem = self.problem
        if problem.part_ms.ndim == 2:
            time_ms = self._time_before[start + 1 :] - self._time_before[start]
        else:
            time_ms = problem.part_ms[start, start + 1 :]
        time_ms = time_ms + problem.handling_ms[start]
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
        with np.errstate(invalid="ignore"):  # a time that is inf, at no cost
            cost = self.objective.per_part + time_ms * self._busy
        return np.where(bad, math.inf, cost + self.per_part)

    def hop(self, boundary: int) -> Floats:
        """Return (D, D): the cost of handing over at a boundary, [from, to].

        From a kind to itself it is free with `reuse`, and impossible where the kind has one device.
        """
        hop = self._move(boundary) + self._wait
        own = np.arange(len(hop))
        if self.problem.reuse:
            hop[own, own] = 0.0 if math.isfinite(self.problem.boundary_bytes[boundary]) else math.inf
        else:
            hop[own[self._single], own[self._single]] = math.inf
        return hop

    def _move(self, boundary: int) -> Floats:
        links, size = self.problem.links, float(self.problem.boundary_bytes[boundary])
        if math.isinf(size):
            return np.full(links.latency_ms.shape, math.inf)
        # A missing link may be priced inf in any of the matrices; 0 bytes do not cross it either.
        missing = np.isinf(links.latency_ms) | np.isinf(links.ms_per_byte)
        with np.errstate(invalid="ignore"):
            occupied = size * links.occupied_ms_per_byte
            waits_ms = self.problem.link_waits_ms(boundary)
            delay = (waits_ms + links.latency_ms + size * links.ms_per_byte) * self._per_ms
        missing |= np.isnan(occupied) | (occupied > self._period_ms)
        sending = self.objective.per_joule * size * links.joules_per_byte
        cost = occupied if self.objective.bottleneck else delay + sending
        return np.where(missing, math.inf, cost)

    def _end(self, name: str | None, boundary: int, outwards: bool) -> Floats:
        if name is None:
            return np.zeros(len(self.problem.devices))
        end = self.problem.index(name)
        move = self._move(boundary)
        cost = move[:, end] if outwards else move[end]
        cost[end] = 0.0
        return cost

    def _scale_ms(self) -> float:
        """Return an upper bound on the latency of any plan, up to the transfers that none would make."""
        problem = self.problem
        times = np.where(np.isfinite(problem.part_ms), problem.part_ms, 0.0)
        if times.ndim == 2:
            parts_ms = float(times.max(axis=1).sum())
        else:
            parts_ms = float(times[np.triu_indices(problem.n_steps + 1, 1)].max())
            if self.objective.counts:
                parts_ms *= problem.n_steps
        links = problem.links
        pickups_ms = problem.n_steps * float(problem.wait_ms.max() + problem.handling_ms.max())
        if parts_ms > 0.0 and not self.objective.counts:
            return parts_ms
        latency, rate = (float(m[np.isfinite(m)].max(initial=0.0)) for m in (links.latency_ms, links.ms_per_byte))
        sizes = problem.boundary_bytes[np.isfinite(problem.boundary_bytes)]
        return parts_ms + float((latency + sizes * rate).sum()) + pickups_ms
