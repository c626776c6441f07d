"""Label search: every rule of the chain problem, by branch and bound with dominance."""

import math
import time
from dataclasses import dataclass, replace

import numpy as np

from pepper.placement.costs import Costs
from pepper.placement.evaluate import TOLERANCE, Stage, Stages, evaluate
from pepper.placement.objectives import ENERGY, LATENCY, Objective
from pepper.placement.problem import ChainProblem, Floats
from pepper.placement.relaxed import Completion, Found, lower_bound

WIDTHS = (20, 500, math.inf)
"""Labels kept at a boundary in each pass: quick answers first, the proof last."""


@dataclass(frozen=True)
class _Label:
    """A plan for the steps before a boundary.

    Attributes:
        value: Its cost so far.
        least: Least cost of any plan that begins so.
        used: What it has used of each resource; a label dominates another that used no less of anything.
        parts: Number of parts.
        last: Its last part.
        before: The label without it.
    """

    value: float
    least: float
    used: Floats
    parts: int
    last: Stage | None
    before: "_Label | None"

    def stages(self) -> Stages:
        return () if self.last is None or self.before is None else (*self.before.stages(), self.last)


class _Resources:
    """Which sums a label must remember, and their limits: only those that can bind."""

    def __init__(self, problem: ChainProblem, objective: Objective) -> None:
        self.problem = problem
        n_devices, limits = len(problem.devices), problem.limits
        paced = objective.bottleneck or math.isfinite(limits.period_ms)
        sizes = {
            "latency": int(math.isfinite(limits.latency_ms)),
            "energy": int(math.isfinite(limits.energy_j)),
            "sent": int(math.isfinite(limits.sent_bytes)),
            "parts": int(limits.parts < problem.n_steps),
            "taken": 0 if problem.reuse else n_devices,
            "memory": n_devices if problem.reuse else 0,
            "load": n_devices if problem.reuse and paced else 0,
            # Without reuse, only the links to and from the ends can serve twice.
            "links": n_devices**2 if paced and (problem.reuse or (problem.source and problem.sink)) else 0,
        }
        stops = np.cumsum(list(sizes.values()))
        self._at = {name: slice(stop - size, stop) for (name, size), stop in zip(sizes.items(), stops, strict=True)}
        self.limit = np.full(int(stops[-1]), math.inf)
        for name, limit in (
            ("latency", limits.latency_ms),
            ("energy", limits.energy_j),
            ("sent", limits.sent_bytes),
            ("parts", limits.parts),
            ("taken", [device.count for device in problem.devices]),
            ("memory", [device.memory_bytes for device in problem.devices]),
            ("load", limits.period_ms),
            ("links", limits.period_ms),
        ):
            if sizes[name]:
                self.limit[self._at[name]] = limit
        self.limit *= 1 + TOLERANCE
        self._sizes = sizes

    def add_part(self, used: Floats, stage: Stage, time_ms: float) -> None:
        for name, amount, offset in (
            ("latency", time_ms, 0),
            ("energy", self.problem.devices[stage.device].work_j(time_ms), 0),
            ("parts", 1.0, 0),
            ("taken", 1.0, stage.device),
            ("load", time_ms, stage.device),
        ):
            if self._sizes[name]:
                used[self._at[name].start + offset] += amount
        if self._sizes["memory"]:
            used[self._at["memory"].start + stage.device] += self.problem.part_memory_bytes(stage.start, stage.stop)

    def add_wait(self, used: Floats, device: int) -> None:
        if self._sizes["latency"]:
            used[self._at["latency"]] += self.problem.devices[device].wait_ms

    def add_hop(self, used: Floats, boundary: int, source: int, target: int) -> None:
        links = self.problem.links
        size = float(self.problem.boundary_bytes[boundary])
        wait_ms = self.problem.devices[target].wait_ms
        delay = links.latency_ms[source, target] + size * links.ms_per_byte[source, target] + wait_ms
        delay += self.problem.link_waits_ms(boundary)[source, target]
        pair = source * len(self.problem.devices) + target
        for name, amount, offset in (
            ("latency", delay, 0),
            ("energy", size * links.joules_per_byte[source, target], 0),
            ("sent", size, 0),
            ("links", size * links.occupied_ms_per_byte[source, target], pair),
        ):
            if self._sizes[name]:
                used[self._at[name].start + offset] += amount

    def sum_of(self, used: Floats, name: str) -> float:
        """Return what was used of something, such as ``latency``, that is limited."""
        return float(used[self._at[name].start])

    def busiest(self, used: Floats) -> float:
        """Largest load of a device or link that the label remembers."""
        loads = np.concatenate([used[self._at["load"]], used[self._at["links"]]])
        return float(loads.max(initial=0.0))


def labels(problem: ChainProblem, objective: Objective, deadline: float) -> Found:
    """Search all plans, boundary by boundary, dropping those that cannot win.

    A label is dropped when its `Completion` bound reaches the best plan known or when another at the same
    boundary and device has used no more of anything. Earlier passes keep only the most promising labels; what
    they drop still bounds the optimum, so each pass ends with a bound, also past the deadline.
    """
    search = _Search(problem, objective)
    if math.isinf(search.completion.value):
        return Found(None, math.inf)
    bound = 0.0
    for width in WIDTHS:
        bound = max(bound, search.run(width, deadline))
        if bound >= search.best_value or time.monotonic() > deadline:
            break
    bound = min(bound, search.best_value)
    return Found(search.best, bound if math.isinf(bound) else lower_bound(bound, search.costs))


class _Search:
    def __init__(self, problem: ChainProblem, objective: Objective) -> None:
        self.problem, self.objective = problem, objective
        self.costs = Costs(problem, objective)
        self.completion = Completion(self.costs)
        unlimited = replace(problem, limits=replace(problem.limits, parts=math.inf))
        sums = {"latency": (problem.limits.latency_ms, LATENCY), "energy": (problem.limits.energy_j, ENERGY)}
        self._least_after = {
            name: (limit * (1 + 2 * TOLERANCE), Completion(Costs(unlimited, objective)).after[0])
            for name, (limit, objective) in sums.items()
            if math.isfinite(limit)
        }
        self.resources = _Resources(problem, objective)
        self.hop = [self.costs.hop(boundary) for boundary in range(problem.n_steps)]
        self.parts = [self.costs.parts_from(start) for start in range(problem.n_steps)]
        self.ends = [None if name is None else problem.index(name) for name in (problem.source, problem.sink)]
        self.best: Stages | None = None
        self.best_value = math.inf

    def run(self, width: float, deadline: float) -> float:
        """Do one pass; return a bound on the plans that are not better than the best found."""
        n, n_devices = self.problem.n_steps, len(self.problem.devices)
        dropped = math.inf
        root = _Label(0.0, self.completion.value, np.zeros(self.resources.limit.size), 0, None, None)
        at: list[list[list[_Label]]] = [[[] for _ in range(n_devices)] for _ in range(n)]
        for start in range(n):
            here = [root] if start == 0 else sorted((x for row in at[start] for x in row), key=_least)
            at[start] = []
            for k, label in enumerate(here):
                if label.least >= self.best_value:
                    break
                if k >= width or time.monotonic() > deadline:
                    dropped = min(dropped, label.least)
                    break
                for child in self._children(label):
                    stage = child.last
                    assert stage is not None
                    if stage.stop == n:
                        self._finish(child)
                    else:
                        _insert(at[stage.stop][stage.device], child)
        return min(dropped, self.best_value)

    def _children(self, label: _Label) -> list[_Label]:
        start = 0 if label.last is None else label.last.stop
        previous = self.ends[0] if label.last is None else label.last.device
        combine = self.costs.combine
        hop = self.costs.entry if label.last is None else self.hop[start][previous]
        value = combine(combine(label.value, hop), self.parts[start])
        after = self.completion.after_parts(label.parts + 1)[start + 1 :]
        least = combine(value, after)
        children = []
        for offset, device in np.argwhere(least < self.best_value):
            stage = Stage(start, start + 1 + int(offset), int(device))
            used = label.used.copy()
            if previous is not None and (previous != stage.device or self._own_hop(label, stage)):
                self.resources.add_hop(used, start, previous, stage.device)
            elif label.last is None:
                self.resources.add_wait(used, stage.device)
            time_ms = self.problem.part_time_ms(stage.start, stage.stop, stage.device)
            time_ms += float(self.problem.handling_ms[stage.start, stage.device])
            self.resources.add_part(used, stage, time_ms)
            if (used > self.resources.limit).any() or self._too_much(used, stage):
                continue
            worth = float(value[offset, device])
            bound = float(least[offset, device])
            if self.objective.bottleneck:
                worth = max(worth, self.resources.busiest(used))
                bound = max(bound, worth)
            if bound < self.best_value:
                children.append(_Label(worth, bound, used, label.parts + 1, stage, label))
        return children

    def _own_hop(self, label: _Label, stage: Stage) -> bool:
        """Whether two parts on one kind are on two devices (the input arises on the source itself)."""
        return label.last is not None and not self.problem.reuse

    def _too_much(self, used: Floats, stage: Stage) -> bool:
        """Whether what is left cannot be had within a limit, at the least."""
        return any(
            self.resources.sum_of(used, name) + float(after[stage.stop, stage.device]) > limit
            for name, (limit, after) in self._least_after.items()
        )

    def _finish(self, label: _Label) -> None:
        stages = label.stages()
        cost = evaluate(self.problem, stages)
        value = max(label.least, self.objective.value(cost))
        if not self.objective.bottleneck:
            value = label.least
        if not cost.violations and value < self.best_value:
            self.best, self.best_value = stages, value


def _least(label: _Label) -> float:
    return label.least


def _insert(row: list[_Label], label: _Label) -> None:
    """Add a label unless one there dominates it; drop those that it dominates."""
    if any(o.value <= label.value and o.parts <= label.parts and (o.used <= label.used).all() for o in row):
        return
    row[:] = [
        o for o in row if not (label.value <= o.value and label.parts <= o.parts and (label.used <= o.used).all())
    ]
    row.append(label)
