"""The DAG problem: give each operator a device, where branches may run on different devices.

The model of Tarnawski et al., "Efficient Algorithms for Device Placement of DNN Graph Operators" (NeurIPS
2020): accelerators exchange outputs through the host's memory, so an output costs its writer and each of its
readers the same time once; host devices (CPUs) read and write for nothing. A device's share is
*contiguous*: the devices can be put in an order in which all precedence points forwards.

In one request, a share off the host starts when all that it reads is in the host's memory, reads, computes
and writes, while the host runs any number of items side by side; there, contiguity is asked of the
accelerators alone.

The problem has no links between devices, no source or sink, no pinned items, no limits besides memory and no Pareto
front: what needs those is a chain (`pepper.placement.problem`) or has branches (`pepper.placement.branched`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from graphlib import TopologicalSorter

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pepper.errors import PlacementError
from pepper.placement.evaluate import TOLERANCE
from pepper.placement.problem import Floats

Ints = NDArray[np.int64]


Place = tuple[int, int]
"""The index of a kind, and which of its devices."""


@dataclass(frozen=True)
class Kind:
    """Devices that differ in nothing.

    Attributes:
        name: Unique name.
        count: Number of devices.
        item_ms: (n,) time of each item; ``inf`` where it cannot run.
        memory_bytes: What one device's items may take together.
        host: Whether the device works in the host's memory: it moves nothing, and in one request it runs any
            number of items side by side.
    """

    name: str
    count: int
    item_ms: Floats
    memory_bytes: float = math.inf
    host: bool = False


@dataclass(frozen=True)
class Output:
    """What one item writes for others.

    Attributes:
        writer: The item.
        readers: The items that read it.
        cost_ms: Time of moving it between a device and the host's memory.
    """

    writer: int
    readers: tuple[int, ...]
    cost_ms: float


@dataclass(frozen=True)
class DagProblem:
    """Which device runs each of `n` items.

    Attributes:
        kinds: The devices.
        item_bytes: (n,) memory of each item.
        outputs: What is moved when writer and reader are apart.
        precedence: Pairs (before, after) that contiguity respects. Usually writer to reader; in a training
            graph the forward part only, as backward items share the device of their forward item.
        group: (n,) items of one number must share a device.

    Raises:
        PlacementError: On negative, missing or contradictory numbers.
    """

    kinds: tuple[Kind, ...]
    item_bytes: Floats
    outputs: tuple[Output, ...]
    precedence: tuple[tuple[int, int], ...]
    group: Ints

    def __post_init__(self) -> None:
        n = self.n_items
        if n < 1 or not any(kind.count for kind in self.kinds):
            raise PlacementError("dag: no items or no devices; give at least one of each")
        for kind in self.kinds:
            if kind.count < 0 or math.isnan(kind.memory_bytes) or kind.memory_bytes < 0:
                raise PlacementError(
                    f"{kind.name}: count {kind.count} and memory_bytes {kind.memory_bytes}; give numbers of at least 0"
                )
        for name, values, size in (
            ("item_bytes", self.item_bytes, n),
            ("group", self.group, n),
            *((f"{kind.name}: item_ms", kind.item_ms, n) for kind in self.kinds),
            ("outputs: cost_ms", np.array([o.cost_ms for o in self.outputs]), len(self.outputs)),
        ):
            if values.shape != (size,) or np.isnan(values).any() or (name != "group" and (values < 0).any()):
                raise PlacementError(f"{name} must hold {size} numbers of at least 0")
        used = [i for o in self.outputs for i in (o.writer, *o.readers)]
        used += [i for pair in self.precedence for i in pair]
        if used and not 0 <= min(used) <= max(used) < n:
            raise PlacementError(f"dag: an edge names item {max(used)}; items are 0 to {n - 1}")

    @property
    def n_items(self) -> int:
        """Number of items."""
        return int(self.item_bytes.size)

    @cached_property
    def blocks(self) -> Ints:
        """(n,) block of each item, numbered in an order of precedence.

        A block is what must share a device: a group, or groups that precede one another in a circle.
        """
        _, block = np.unique(self.group, return_inverse=True)
        return condense(block.astype(np.int64), self.precedence)


def condense(block: Ints, precedence: Sequence[tuple[int, int]]) -> Ints:
    """Merge blocks that precede one another in a circle; number the result topologically."""
    n_blocks = int(block.max()) + 1
    pairs = block[np.array(precedence, dtype=np.int64).reshape(-1, 2)]
    edges = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(n_blocks, n_blocks))
    n_components, component = connected_components(edges, directed=True, connection="strong")
    before: dict[int, set[int]] = {number: set() for number in range(n_components)}
    for a, b in component[pairs].tolist():
        if a != b:
            before[b].add(a)
    position = np.empty(n_components, dtype=np.int64)
    position[list(TopologicalSorter(before).static_order())] = np.arange(n_components)
    numbered: Ints = position[component][block]
    return numbered


@dataclass(frozen=True)
class DagCost:
    """The cost of a placement; lists run along its devices.

    Attributes:
        load_ms: Time of each device for one request, with transfers.
        memory_bytes: Memory of each device.
        period_ms: The largest load; ``inf`` if the devices cannot be put in order (shares not contiguous).
        latency_ms: Time of one request; ``inf`` if a share must wait for itself.
        violations: What the placement breaks, one line each.
    """

    load_ms: tuple[float, ...]
    memory_bytes: tuple[float, ...]
    period_ms: float
    latency_ms: float
    violations: tuple[str, ...]


class GaveUpError(Exception):
    """The deadline passed within a pass, or the pass would need too much memory."""


@dataclass(frozen=True)
class DagSolution:
    """An answer and how far from optimal it can be.

    Attributes:
        places: The place of each item.
        value: What was minimised, in ms.
        bound: No placement is below this.
        gap: Relative distance from the bound to the value; 0 when proven.
    """

    places: tuple[Place, ...]
    value: float
    bound: float

    @property
    def gap(self) -> float:
        """Relative distance from the bound to the value; 0 when proven."""
        distance = self.value - self.bound
        return 0.0 if distance <= 1e-7 * self.value else distance / self.value

    @property
    def proven(self) -> bool:
        """Whether no placement is better."""
        return self.gap == 0.0


def evaluate_dag(problem: DagProblem, places: Sequence[Place]) -> DagCost:
    """Cost a placement (the place of each item) item by item, and list every rule that it breaks."""
    devices = sorted(set(places))
    load = dict.fromkeys(devices, 0.0)
    memory = dict.fromkeys(devices, 0.0)
    broken = []
    for item, place in enumerate(places):
        kind = problem.kinds[place[0]]
        load[place] += float(kind.item_ms[item])
        memory[place] += float(problem.item_bytes[item])
        if math.isinf(kind.item_ms[item]):
            broken.append(f"item {item} cannot run on {kind.name}")
        if not 0 <= place[1] < kind.count:
            broken.append(f"{kind.name} {place[1]} does not exist")
    for output in problem.outputs:
        touched = {places[i] for i in (output.writer, *output.readers)}
        if len(touched) > 1:
            for place in touched:
                if not problem.kinds[place[0]].host:
                    load[place] += output.cost_ms
    for place, used in memory.items():
        limit = problem.kinds[place[0]].memory_bytes
        if used > limit * (1 + TOLERANCE):
            broken.append(f"{problem.kinds[place[0]].name} {place[1]}: {used:.0f} bytes in {limit:.0f}")
    by_group: dict[int, set[Place]] = {}
    for number, place in zip(problem.group.tolist(), places, strict=True):
        by_group.setdefault(number, set()).add(place)
    broken += [f"group {number} is apart" for number, where in by_group.items() if len(where) > 1]
    order = {device: k for k, device in enumerate(devices)}
    share = np.array([order[place] for place in places], dtype=np.int64)
    contiguous = len(np.unique(condense(share, problem.precedence))) == len(devices)
    return DagCost(
        tuple(load.values()),
        tuple(memory.values()),
        max(load.values()) if contiguous else math.inf,
        _latency(problem, places, load),
        tuple(broken),
    )


def _latency(problem: DagProblem, places: Sequence[Place], load: dict[Place, float]) -> float:
    """Time of one request: a share off the host starts when all that it reads is in the host's memory."""
    unit: list[tuple[int, ...]] = [
        (-1, item) if problem.kinds[place[0]].host else place for item, place in enumerate(places)
    ]
    duration: dict[tuple[int, ...], float] = {}
    for item, key in enumerate(unit):
        duration[key] = float(problem.kinds[places[item][0]].item_ms[item]) if key[0] == -1 else load[places[item]]
    before: dict[tuple[int, ...], set[tuple[int, ...]]] = {key: set() for key in duration}
    for output in problem.outputs:
        for reader in output.readers:
            if unit[reader] != unit[output.writer]:
                before[unit[reader]].add(unit[output.writer])
    finish: dict[tuple[int, ...], float] = {}
    waiting = dict(before)
    while waiting:
        ready = [key for key, needs in waiting.items() if all(need in finish for need in needs)]
        if not ready:
            return math.inf  # two shares wait for each other
        for key in ready:
            finish[key] = duration[key] + max((finish[need] for need in waiting.pop(key)), default=0.0)
    return max(finish.values())
