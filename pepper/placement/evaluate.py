"""What a plan for a chain costs, computed part by part, apart from any solver."""

import math
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from pepper.placement.objectives import Costed
from pepper.placement.problem import ChainProblem

TOLERANCE = 1e-9
"""Relative slack of every comparison with a limit: sums of doubles differ in their last digits."""


@dataclass(frozen=True, order=True)
class Stage:
    """The part from boundary `start` to boundary `stop` at work on the kind of device at index `device`."""

    start: int
    stop: int
    device: int


Stages = tuple[Stage, ...]


@dataclass(frozen=True)
class Transfer:
    """A transfer between two parts, or from the source, or to the sink.

    Attributes:
        move: Boundary crossed and the indices of the two devices.
        sent_bytes: Bytes moved.
        time_ms: Delay of one request.
        occupied_ms: Time for which the link is taken.
        energy_j: What sending takes.
    """

    move: tuple[int, int, int]
    sent_bytes: float
    time_ms: float
    occupied_ms: float
    energy_j: float = 0.0


class CostedParts(Costed, Protocol):
    """What a plan and each of its parts is predicted to cost."""

    @property
    def stage_ms(self) -> tuple[float, ...]:
        """Time of each part."""

    @property
    def pickup_ms(self) -> tuple[float, ...]:
        """Time before that, until its device has taken it up."""

    @property
    def stage_bytes(self) -> tuple[float, ...]:
        """Memory of each part."""

    @property
    def stage_j(self) -> tuple[float, ...]:
        """Energy of each part; infinite where its device's power is not known."""

    @property
    def links_j(self) -> float:
        """Energy of one request's transfers."""

    @property
    def sent_bytes(self) -> float:
        """Bytes of one request over all links."""


@dataclass(frozen=True)
class Evaluation:
    """The cost of a plan; lists run along the stages.

    Attributes:
        stage_ms: Time of each stage.
        pickup_ms: Before that, the wait for each stage's device and the handling of its messages.
        stage_bytes: Memory of each stage.
        stage_j: Energy of each stage above idle; infinite where its device's power is not known.
        hops: Transfers; ``hops[k]`` precedes stage k and ``hops[-1]`` leads to the sink; None moves nothing.
        latency_ms: Time of one request.
        period_ms: Largest load of a device or link.
        sent_bytes: Bytes of one request over all links.
        violations: What the plan breaks, one line each.
    """

    stage_ms: tuple[float, ...]
    pickup_ms: tuple[float, ...]
    stage_bytes: tuple[float, ...]
    stage_j: tuple[float, ...]
    hops: tuple[Transfer | None, ...]
    latency_ms: float
    period_ms: float
    sent_bytes: float
    violations: tuple[str, ...]

    @property
    def part_count(self) -> int:
        """How many parts the plan has."""
        return len(self.stage_ms)

    @property
    def links_j(self) -> float:
        """Energy of one request's transfers."""
        return sum(hop.energy_j for hop in self.hops if hop is not None)

    @property
    def energy_j(self) -> float:
        """Energy of one request above idle."""
        return sum(self.stage_j) + self.links_j


def instances(problem: ChainProblem, stages: Stages) -> tuple[int, ...]:
    """Return which of its kind's devices runs each stage: 0, 1, ... in turn; always 0 with `reuse`."""
    seen: dict[int, int] = defaultdict(int)
    numbers = []
    for stage in stages:
        numbers.append(0 if problem.reuse else seen[stage.device] % problem.devices[stage.device].count)
        seen[stage.device] += 1
    return tuple(numbers)


def unit(problem: ChainProblem, device: int, number: int) -> str:
    """Name one device: of a kind of several it is ``name#0``, ``name#1``, ..."""
    kind = problem.devices[device]
    return kind.name if kind.count == 1 else f"{kind.name}#{number}"


def evaluate(problem: ChainProblem, stages: Stages) -> Evaluation:
    """Cost `stages` under `problem`, and list every rule that they break."""
    units = list(zip((s.device for s in stages), instances(problem, stages), strict=True))
    source = None if problem.source is None else (problem.index(problem.source), 0)
    sink = None if problem.sink is None else (problem.index(problem.sink), 0)
    boundaries = [s.start for s in stages] + [problem.n_steps]
    hops = tuple(
        _hop(problem, boundary, before, after)
        for boundary, before, after in zip(boundaries, [source, *units], [*units, sink], strict=True)
    )
    stage_ms = tuple(problem.part_time_ms(s.start, s.stop, s.device) for s in stages)
    handling_ms = tuple(float(problem.handling_ms[s.start, s.device]) for s in stages)
    arrives = [before != after for before, after in pairwise([None, *units])]
    pickup_ms = tuple(
        busy_ms + problem.devices[s.device].wait_ms * new
        for s, busy_ms, new in zip(stages, handling_ms, arrives, strict=True)
    )
    stage_bytes = tuple(problem.part_memory_bytes(s.start, s.stop) for s in stages)
    stage_j = tuple(
        problem.devices[s.device].work_j(time_ms + busy_ms)
        for s, time_ms, busy_ms in zip(stages, stage_ms, handling_ms, strict=True)
    )

    load: dict[tuple[object, ...], float] = defaultdict(float)
    memory: dict[tuple[int, int], float] = defaultdict(float)
    for unit, time_ms, busy_ms, size in zip(units, stage_ms, handling_ms, stage_bytes, strict=True):
        load[unit] += time_ms + busy_ms
        memory[unit] += size
    for hop, before, after in zip(hops, [source, *units], [*units, sink], strict=True):
        if hop is not None:
            load[before, after] += hop.occupied_ms
    moved = [hop for hop in hops if hop is not None]
    latency_ms = sum(stage_ms) + sum(pickup_ms) + sum(hop.time_ms for hop in moved)
    period_ms = max(load.values())
    sent_bytes = sum(hop.sent_bytes for hop in moved)

    broken = list(_structure(problem, stages))
    for (device, _), used in memory.items():
        kind = problem.devices[device]
        if _exceeds(used, kind.memory_bytes):
            broken.append(f"{kind.name}: {used:.0f} bytes in {kind.memory_bytes:.0f}")
    if math.isinf(latency_ms):
        broken.append("a part cannot run where it is, or a link is missing")
    limits = problem.limits
    energy_j = sum(stage_j) + sum(hop.energy_j for hop in moved)
    for name, value, limit in (
        ("latency_ms", latency_ms, limits.latency_ms),
        ("period_ms", period_ms, limits.period_ms),
        ("energy_j", energy_j, limits.energy_j),
        ("sent_bytes", sent_bytes, limits.sent_bytes),
        ("parts", len(stages), limits.parts),
    ):
        if _exceeds(value, limit):
            broken.append(f"{name} {value:g} is over the limit of {limit:g}")
    return Evaluation(stage_ms, pickup_ms, stage_bytes, stage_j, hops, latency_ms, period_ms, sent_bytes, tuple(broken))


def _exceeds(value: float, limit: float) -> bool:
    return value > limit and value - limit > TOLERANCE * abs(limit)


def _hop(
    problem: ChainProblem, boundary: int, before: tuple[int, int] | None, after: tuple[int, int] | None
) -> Transfer | None:
    if before is None or after is None or before == after:
        return None
    move = (boundary, before[0], after[0])
    pair = move[1:]
    size, links = float(problem.boundary_bytes[boundary]), problem.links
    if math.isinf(size) or math.isinf(links.latency_ms[pair]) or math.isinf(links.ms_per_byte[pair]):
        return Transfer(move, size, math.inf, math.inf)
    return Transfer(
        move,
        size,
        float(problem.link_waits_ms(boundary)[pair] + links.latency_ms[pair] + size * links.ms_per_byte[pair]),
        float(size * links.occupied_ms_per_byte[pair]),
        float(size * links.joules_per_byte[pair]),
    )


def _structure(problem: ChainProblem, stages: Stages) -> list[str]:
    broken = []
    ends = [0, *(s.stop for s in stages)]
    if [s.start for s in stages] != ends[:-1] or ends[-1] != problem.n_steps:
        broken.append(f"parts do not cover steps 0 to {problem.n_steps} in order")
    broken += [f"part {s.start}..{s.stop} is empty" for s in stages if s.stop <= s.start]
    broken += [
        f"cut at boundary {s.start} is not allowed" for s in stages[1:] if math.isinf(problem.boundary_bytes[s.start])
    ]
    if not problem.reuse:
        for device, kind in enumerate(problem.devices):
            used = sum(s.device == device for s in stages)
            if used > kind.count:
                broken.append(f"{kind.name}: {used} parts on {kind.count} devices")
    for stage in stages:
        name = problem.devices[stage.device].name
        if name in problem.excluded:
            broken.append(f"{name} is excluded")
        broken += [
            f"{problem.step(step)} is pinned to {pin}, not {name}"
            for step, pin in problem.pinned.items()
            if stage.start <= step < stage.stop and pin != name
        ]
    return broken
