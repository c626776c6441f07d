"""Plans for the branched problem: neighbourhood search for a good one, then all that could be better.

Parts are added in order. Of two ways to have placed the same first steps, the one that is nowhere later, no fuller and
no longer dominates; what cannot become better than the best known is dropped. When nothing is left, the best known is
proven; at the deadline the bounds of `branched_bounds` say how far from optimal it can be.
"""

import math
import time
from collections.abc import Iterator
from functools import cached_property
from itertools import pairwise
from random import Random

from pepper.placement.branched import OUTSIDE, BranchedProblem, Play, evaluate_branched, whole_on
from pepper.placement.branched_bounds import Bounds
from pepper.placement.chain import Solution
from pepper.placement.evaluate import Stage, Stages
from pepper.placement.objectives import LATENCY, Objective

SEARCH_SHARE = 0.5
"""Share of the time for neighbourhood search."""

PATIENCE = 12
"""Restarts of that search without a better plan before it ends."""

MOST_ENDS = 24
"""Borders that one round of it looks at, beside those where a branch begins or ends."""


def solve_branched(
    problem: BranchedProblem,
    objective: Objective = LATENCY,
    time_limit_s: float = 30.0,
    start: Stages | None = None,
    seed: int = 0,
) -> Solution | None:
    """Return the best plan that was found, with its bound; None where none that keeps to the rules was.

    Args:
        problem: The steps, devices and limits.
        objective: What is minimised.
        time_limit_s: When to stop.
        start: A plan to begin with, such as the best one of the chain.
        seed: Of the search.
    """
    return _BranchedSearch(problem, objective, time_limit_s, Random(seed)).run(start)


class _BranchedSearch:
    def __init__(self, problem: BranchedProblem, objective: Objective, time_limit_s: float, random: Random) -> None:
        self._problem, self._objective, self._random = problem, objective, random
        begun = time.monotonic()
        self._deadline, self._half = begun + time_limit_s, begun + SEARCH_SHARE * time_limit_s
        self._best: Stages | None = None
        self._value = math.inf
        self._bounds = Bounds(problem)
        if objective.bottleneck:
            self._bounds.sharpen(self._half)

    def run(self, start: Stages | None) -> Solution | None:
        bound = min(self._bounds.of(self._objective), math.inf)
        starts = [whole_on(self._problem, device) for device in self._problem.able]
        for stages in (start, *starts):
            if stages is not None:
                self._cost(stages)
        for stages in (self._listed(), start or starts[0]):
            self._climb(stages)
        stale = 0
        while stale < PATIENCE and bound < self._value and time.monotonic() < self._half:
            before = self._value
            self._climb(self._shaken(self._best or self._random.choice(starts)))
            stale = 0 if self._value < before else stale + 1
        proved = "neighbourhood search"
        if bound < self._value and self._exhaust():
            bound, proved = self._value, "exhaustive search"
        if self._best is None:
            return None
        return Solution(self._best, self._value, min(bound, self._value), proved)

    def _listed(self) -> Stages:
        """Give each run of steps without a branch, in order, to the device that is done with it first."""
        seams = [border for border in self._problem.allowed if border in self._seams]
        play = Play(self._problem)
        for begin, end in pairwise((0, *seams, self._problem.n_steps)):
            choices = []
            for device in self._problem.able:
                child = play.copy()
                child.add(Stage(begin, end, device))
                loads = max(child.load_ms.values()) if self._objective.bottleneck else 0.0
                choices.append((loads, child.done_ms[-1], device, child))
            play = min(choices, key=lambda choice: choice[:3])[3]
        return tuple(play.stages)

    def _cost(self, stages: Stages) -> tuple[float, float, int, float]:
        """How good a plan is: the rules first; of equals, the one of fewer parts and less latency."""
        cost = evaluate_branched(self._problem, stages)
        value = self._objective.value(cost)
        if not cost.violations and (value < self._value * (1 - 1e-12) or self._fewer(stages, value)):
            self._best, self._value = stages, value
        return (0.0 if not cost.violations else max(cost.excess, 1e-12), value, len(stages), cost.latency_ms)

    def _fewer(self, stages: Stages, value: float) -> bool:
        return self._best is not None and value <= self._value and len(stages) < len(self._best)

    def _climb(self, stages: Stages) -> None:
        """Change a plan for the better as long as one change does so."""
        current = self._cost(stages)
        improved = True
        while improved:
            improved = False
            for changed in self._changes(stages):
                if time.monotonic() > self._half:
                    return
                cost = self._cost(changed)
                if cost < current:
                    stages, current, improved = changed, cost, True
                    break

    def _changes(self, stages: Stages) -> Iterator[Stages]:
        """Yield plans that differ in the device of a part, in a border, or in steps that go to another device."""
        changes = [
            *((k, device, None) for k in range(len(stages)) for device in self._problem.able),
            *((k, None, border) for k in range(len(stages)) for border in self._ends(stages, k)),
        ]
        self._random.shuffle(changes)
        for k, device, border in changes:
            stage = stages[k]
            before, after = stages[:k], stages[k + 1 :]
            if device is not None:
                if device != stage.device:
                    yield (*before, Stage(stage.start, stage.stop, device), *after)
                    yield joined((*before, Stage(stage.start, stage.stop, device), *after))
                    others = [end for end in self._ends(stages, k) if end < stage.stop]
                    for first in [stage.start, *others]:
                        for last in [*others, stage.stop]:
                            if first < last and (first, last) != (stage.start, stage.stop):
                                yield tuple(
                                    part
                                    for part in (
                                        *before,
                                        Stage(stage.start, first, stage.device),
                                        Stage(first, last, device),
                                        Stage(last, stage.stop, stage.device),
                                        *after,
                                    )
                                    if part.start < part.stop
                                )
                continue
            assert border is not None
            if border == stage.stop:  # joins the next part
                if after:
                    yield (*before, Stage(stage.start, after[0].stop, stage.device), *after[1:])
                    yield (*before, Stage(stage.start, after[0].stop, after[0].device), *after[1:])
                continue
            yield (*before, Stage(stage.start, border, stage.device), Stage(border, stage.stop, stage.device), *after)
            if after:
                moved = Stage(border, after[0].stop, after[0].device)
                yield (*before, Stage(stage.start, border, stage.device), moved, *after[1:])
            if before:
                moved = Stage(before[-1].start, border, before[-1].device)
                yield (*before[:-1], moved, Stage(border, stage.stop, stage.device), *after)

    def _ends(self, stages: Stages, k: int) -> list[int]:
        """Return borders within a part to look at, and its end."""
        stage = stages[k]
        inner = [border for border in self._problem.allowed if stage.start < border < stage.stop]
        if len(inner) > MOST_ENDS:
            seams = [border for border in inner if border in self._seams]
            some = self._random.sample(inner, MOST_ENDS // 2)
            more = self._random.sample(seams, min(len(seams), MOST_ENDS // 2))
            inner = sorted({*some, *more})
        return [*inner, stage.stop]

    @cached_property
    def _seams(self) -> frozenset[int]:
        """Borders where a branch begins or ends: the steps beside it read and give more than one the other's result."""
        n = self._problem.n_steps
        reads, read_by = [0] * (n + 1), [0] * (n + 1)
        for flow in self._problem.flows:
            for reader in flow.readers:
                reads[reader] += 1
                read_by[flow.writer] += 1  # OUTSIDE counts at the end, which none asks for
        straight = {
            flow.readers[0]
            for flow in self._problem.flows
            if flow.readers == (flow.writer + 1,) and read_by[flow.writer] == 1 == reads[flow.readers[0]]
        }
        return frozenset(range(1, n)) - straight

    def _shaken(self, stages: Stages) -> Stages:
        """Change a plan at random in a few places."""
        for _ in range(self._random.randint(2, 4)):
            options = self._changes(stages)
            for _ in range(self._random.randint(0, 5)):
                stages = next(options, stages)
        return stages

    def _exhaust(self) -> bool:
        """Look at all plans that may be better; tell whether it came to an end."""
        pool: dict[object, list[tuple[float, ...]]] = {}
        waiting = [Play(self._problem)]
        while waiting:
            if time.monotonic() > self._deadline:
                return False
            play = waiting.pop()
            position = len(play.owner)
            if position == self._problem.n_steps:
                self._cost(tuple(play.stages))
                continue
            children = []
            for stage in self._next(play, position):
                child = play.copy()
                child.add(stage)
                least = self._least(child)
                if least < self._value * (1 - 1e-9) and not self._dominated(pool, child):
                    children.append((least, len(child.stages), child))
            children.sort(key=lambda entry: entry[:2], reverse=True)
            waiting += [child for _, _, child in children]
        return True

    def _next(self, play: Play, position: int) -> Iterator[Stage]:
        chain = self._problem.chain
        for device in self._problem.able:
            name = chain.devices[device].name
            for stop in self._problem.allowed:
                if stop <= position:
                    continue
                if any(chain.pinned.get(step, name) != name for step in range(position, stop)):
                    break
                yield Stage(position, stop, device)

    def _least(self, play: Play) -> float:
        """Return what the value is at least, however the rest is placed; infinite where a limit is passed."""
        position, bounds = len(play.owner), self._bounds
        latency_ms = max(play.done_ms)
        for flow in self._problem.flows:
            begun = (
                0.0
                if flow.writer == OUTSIDE
                else play.done_ms[play.owner[flow.writer]]
                if flow.writer < position
                else None
            )
            if begun is not None:
                for reader in flow.readers:
                    if position <= reader < self._problem.n_steps:
                        latency_ms = max(latency_ms, begun + float(bounds.ahead_ms[reader]))
        work_ms = sum(play.load_ms.get(device, 0.0) for device in self._problem.able) + float(bounds.work_ms[position])
        period_ms = max(*play.load_ms.values(), work_ms / len(self._problem.able))
        energy_j = play.energy_j + float(bounds.work_j[position]) if self._energy_counts else 0.0
        if math.isinf(latency_ms) or not play.keeps_limits(latency_ms, period_ms, energy_j):
            return math.inf
        if self._objective.bottleneck:
            return period_ms
        joules = self._objective.per_joule * energy_j if self._energy_counts else 0.0
        return self._objective.per_ms * latency_ms + self._objective.per_part * len(play.stages) + joules

    def _dominated(self, pool: dict[object, list[tuple[float, ...]]], play: Play) -> bool:
        """Tell whether another play of the same steps is as good in all that matters from here on; else keep it."""
        position, devices = len(play.owner), range(len(self._problem.chain.devices))
        live = dict.fromkeys(
            play.owner[flow.writer] for flow in self._problem.flows if 0 <= flow.writer < position <= flow.readers[-1]
        )
        number = {part: k for k, part in enumerate(live)}
        places = tuple(
            (number[play.owner[flow.writer]], play.stages[play.owner[flow.writer]].device)
            for flow in self._problem.flows
            if 0 <= flow.writer < position <= flow.readers[-1]
        )
        here = (
            max(play.done_ms),
            *(play.done_ms[part] for part in live),
            *(play.free_ms.get(device, 0.0) for device in devices),
            *(play.link_ms.get((a, b), 0.0) for a in devices for b in devices if a != b),
            *(self._loads(play) if self._loads_count else ()),
            play.energy_j if self._energy_counts else 0.0,
            play.sent_bytes if math.isfinite(self._problem.chain.limits.sent_bytes) else 0.0,
            *(play.memory_bytes.get(device, 0.0) for device in devices if self._tight[device]),
            float(len(play.stages)),
        )
        known = pool.setdefault((position, places), [])
        if any(all(a <= b for a, b in zip(other, here, strict=True)) for other in known):
            return True
        known.append(here)
        return False

    def _loads(self, play: Play) -> Iterator[float]:
        devices = range(len(self._problem.chain.devices))
        yield from (play.load_ms.get(device, 0.0) for device in devices)
        yield from (play.load_ms.get((a, b), 0.0) for a in devices for b in devices if a != b)

    @cached_property
    def _loads_count(self) -> bool:
        return self._objective.bottleneck or math.isfinite(self._problem.chain.limits.period_ms)

    @cached_property
    def _energy_counts(self) -> bool:
        return bool(self._objective.per_joule) or math.isfinite(self._problem.chain.limits.energy_j)

    @cached_property
    def _tight(self) -> list[bool]:
        """Which devices could not hold all parts at their largest."""
        chain = self._problem.chain
        most = float(chain.part_bytes.sum()) if chain.part_bytes.ndim == 1 else math.inf
        return [most > device.memory_bytes for device in chain.devices]


def joined(stages: Stages) -> Stages:
    """Join neighbouring parts on one device."""
    parts = [stages[0]]
    for before, after in pairwise(stages):
        if after.device == before.device:
            parts[-1] = Stage(parts[-1].start, after.stop, after.device)
        else:
            parts.append(after)
    return tuple(parts)
