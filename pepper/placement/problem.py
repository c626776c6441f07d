"""The chain problem: cut a model into consecutive parts and give each part a device.

A model of `n` *steps* has `n + 1` *boundaries*; a **part** `(start, stop)` holds the steps between two
boundaries. Boundary 0 is the model's input and boundary `n` its output. Everything here is a plain value in
milliseconds and bytes; ``inf`` says "cannot".
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pepper.errors import PlacementError, nearest
from pepper.fleet import Link

Floats = NDArray[np.float64]
PartTimes = Callable[[int, int, int], float]


@dataclass(frozen=True)
class DeviceKind:
    """A device, or `count` devices of one kind that differ in nothing.

    Attributes:
        name: Unique name within the problem.
        memory_bytes: What the parts on one such device may take together.
        count: Number of devices of this kind.
        wait_ms: How long a request that comes to an idle device waits until it is taken up.
        power_w: What it takes above idle while it works; ``inf`` where that is not known.
    """

    name: str
    memory_bytes: float = math.inf
    count: int = 1
    wait_ms: float = 0.0
    power_w: float = math.inf

    def work_j(self, busy_ms: float) -> float:
        """Return the energy of working so long."""
        return self.power_w * busy_ms / 1000 if math.isfinite(self.power_w) else math.inf


@dataclass(frozen=True)
class Links:
    """Connections between all pairs of D devices, as (D, D) matrices indexed [from, to].

    The diagonal connects two devices *of one kind*; what stays on one device moves for nothing.

    Attributes:
        latency_ms: Propagation time; ``inf`` where there is no link.
        ms_per_byte: Time of a byte from end to end.
        occupied_ms_per_byte: Time that a byte occupies the busiest hop; it bounds the throughput.
        joules_per_byte: Energy of a byte, at both ends together; empty is none anywhere.
    """

    latency_ms: Floats
    ms_per_byte: Floats
    occupied_ms_per_byte: Floats
    joules_per_byte: Floats = field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        if not self.joules_per_byte.size:
            object.__setattr__(self, "joules_per_byte", np.zeros_like(self.latency_ms))

    @classmethod
    def uniform(cls, n_devices: int, link: Link) -> "Links":
        """Connect every device to every other by its own `link`."""
        full = np.ones((n_devices, n_devices))
        return cls(
            full * link.latency_ms,
            full * link.ms_per_byte,
            full * link.occupied_ms_per_byte,
            full * link.joules_per_byte,
        )

    @classmethod
    def pairs(cls, names: Sequence[str], links: Mapping[tuple[str, str], Link]) -> "Links":
        """Connect the named pairs only, each in its own direction.

        Args:
            names: The devices, in the problem's order.
            links: Link of each (from, to); a pair of one name connects two devices of that kind.

        Raises:
            PlacementError: If a pair names an unknown device.
        """
        index = {name: k for k, name in enumerate(names)}
        latency_ms = np.full((len(names), len(names)), math.inf)
        ms_per_byte, occupied = np.full_like(latency_ms, math.inf), np.full_like(latency_ms, math.inf)
        joules = np.zeros_like(latency_ms)
        for (a, b), link in links.items():
            pair = _index_of(a, index, "links"), _index_of(b, index, "links")
            latency_ms[pair] = link.latency_ms
            ms_per_byte[pair] = link.ms_per_byte
            occupied[pair] = link.occupied_ms_per_byte
            joules[pair] = link.joules_per_byte
        return cls(latency_ms, ms_per_byte, occupied, joules)


@dataclass(frozen=True)
class Limits:
    """What a plan must keep to, besides the devices' own memory.

    Attributes:
        latency_ms: Most time of one request.
        period_ms: Most time between two results of the pipeline (1000 / throughput per second).
        energy_j: Most energy of one request above idle.
        sent_bytes: Most bytes of one request over all links.
        parts: Most parts.
    """

    latency_ms: float = math.inf
    period_ms: float = math.inf
    energy_j: float = math.inf
    sent_bytes: float = math.inf
    parts: float = math.inf


@dataclass(frozen=True)
class ChainProblem:
    """Where to cut a chain of `n` steps, and which of D devices runs each part.

    Semantics, shared by every solver and by `pepper.placement.evaluate`:

    - Latency is the sum of the parts' times and handling and of the transfers between consecutive parts, from
      `source` to the first part and from the last part to `sink`, and of the receiving devices' waits, that of the
      first part's device included. Two parts on one device transfer nothing and do not wait.
    - Period (the inverse of throughput) is the largest load of a device (the sum of its parts' times and handling)
      or of a link from one device to another (the sum of its transfers, without propagation).
    - Energy is what the devices take above idle for the parts' times and handling, and the links for what they
      carry; waits take none. It is infinite where a part's device has an unknown power.
    - Memory of a device is the sum over its parts.
    - Without `reuse` a device holds at most one part; with it, any number.

    Attributes:
        devices: The D kinds of device.
        part_ms: Time of a part on a kind: (n, D) when additive over steps, else (n + 1, n + 1, D) indexed
            [start, stop, device]; ``inf`` where a device cannot run it.
        boundary_bytes: (n + 1,) bytes that cross each boundary; ``inf`` where a cut is not allowed.
        links: Connections between the devices.
        part_bytes: Memory of a part: (n,) when additive, else (n + 1, n + 1).
        handling_ms: (n + 1, D) time for which a device works on the messages of a part that begins at a boundary.
        moved_ms: Of `part_ms`, what a part's inputs take into a device's own memory and its outputs back,
            (n + 1, n + 1, D); empty where nothing has a memory of its own. Each part pays both, also between two of one
            device: each is a process of its own.
        link_wait_ms: How long a message waits for its link before it goes over it, (n + 1, D, D) by boundary, sender
            and receiver; empty where links are free.
        forms: Which of several forms of a part on a kind `part_ms` is the time of, (n + 1, n + 1, D); empty where each
            has one.
        source: Name of the device at which the input arises; None if its transfer is not counted.
        sink: Name of the device at which the output is wanted; None if its transfer is not counted.
        reuse: Whether a device may hold several parts (each device then has a count of one).
        pinned: Device name of each pinned step.
        excluded: Names of the devices that hold no part.
        limits: What the plan must keep to.
        labels: What the steps are, for messages; may be empty.

    Raises:
        PlacementError: On contradictory, missing or negative input, naming it.
    """

    devices: tuple[DeviceKind, ...]
    part_ms: Floats
    boundary_bytes: Floats
    links: Links
    part_bytes: Floats
    handling_ms: Floats
    moved_ms: Floats = field(default_factory=lambda: np.zeros(0))
    link_wait_ms: Floats = field(default_factory=lambda: np.zeros(0))
    forms: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    source: str | None = None
    sink: str | None = None
    reuse: bool = False
    pinned: Mapping[int, str] = field(default_factory=dict)
    excluded: frozenset[str] = frozenset()
    limits: Limits = field(default_factory=Limits)
    labels: Sequence[str] = ()

    @classmethod
    def of(
        cls,
        devices: Iterable[DeviceKind],
        part_ms: ArrayLike | PartTimes,
        boundary_bytes: ArrayLike,
        links: Links,
        part_bytes: ArrayLike = 0.0,
        handling_ms: ArrayLike = 0.0,
        excluded: Iterable[str] = (),
        **options: Any,
    ) -> "ChainProblem":
        """Build a problem from anything array-like; `part_ms` may be a function of (start, stop, device).

        Args:
            devices: The kinds of device.
            part_ms: Array as for the class, or a function, called once for each part and device.
            boundary_bytes: As for the class.
            links: As for the class.
            part_bytes: As for the class; one number stands for every step.
            handling_ms: As for the class; one number stands for every boundary and device.
            excluded: As for the class.
            **options: Further attributes of the class.
        """
        kinds = tuple(devices)
        crossing = np.asarray(boundary_bytes, dtype=float)
        n = crossing.size - 1
        if callable(part_ms):
            times = np.full((n + 1, n + 1, len(kinds)), math.inf)
            for start in range(n):
                for stop in range(start + 1, n + 1):
                    times[start, stop] = [part_ms(start, stop, d) for d in range(len(kinds))]
        else:
            times = np.asarray(part_ms, dtype=float)
        memory = np.asarray(part_bytes, dtype=float)
        memory = np.full(n, float(memory)) if memory.ndim == 0 else memory
        handling = np.broadcast_to(np.asarray(handling_ms, dtype=float), (n + 1, len(kinds)))
        return cls(kinds, times, crossing, links, memory, handling, excluded=frozenset(excluded), **options)

    def __post_init__(self) -> None:
        n, n_devices = self.n_steps, len(self.devices)
        if n < 1 or n_devices < 1:
            raise PlacementError(f"problem: {n} steps and {n_devices} devices; give at least one of each")
        index = self._index
        if len(index) < n_devices:
            raise PlacementError(f"devices: names repeat in {[d.name for d in self.devices]}; use each once")
        for device in self.devices:
            if device.count < 1 or not device.memory_bytes >= 0 or not 0 <= device.wait_ms < math.inf:
                raise PlacementError(
                    f"device {device.name!r}: count {device.count}, memory_bytes {device.memory_bytes} and wait_ms "
                    f"{device.wait_ms}; give a count of at least 1, and bytes and a time of at least 0"
                )
            if not device.power_w >= 0:
                raise PlacementError(f"device {device.name!r}: power_w {device.power_w}; give a number of at least 0")
            if device.count > 1 and (self.reuse or device.name in (self.source, self.sink)):
                raise PlacementError(
                    f"device {device.name!r}: a source, a sink or a reused device stands for itself; "
                    f"list its {device.count} devices one by one"
                )
        _check_numbers("part_ms", self.part_ms, (n, n_devices), (n + 1, n + 1, n_devices))
        _check_numbers("part_bytes", self.part_bytes, (n,), (n + 1, n + 1))
        _check_numbers("boundary_bytes", self.boundary_bytes, (n + 1,))
        _check_numbers("handling_ms", self.handling_ms, (n + 1, n_devices))
        _check_numbers("moved_ms", self.moved_ms, (0,), (n + 1, n + 1, n_devices))
        if self.link_wait_ms.size:
            _check_numbers("link_wait_ms", self.link_wait_ms, (n + 1, n_devices, n_devices))
        for name in ("latency_ms", "ms_per_byte", "occupied_ms_per_byte", "joules_per_byte"):
            _check_numbers(f"links.{name}", getattr(self.links, name), (n_devices, n_devices))
        for name in ("latency_ms", "period_ms", "energy_j", "sent_bytes", "parts"):
            value = getattr(self.limits, name)
            if math.isnan(value) or value < (1 if name == "parts" else 0):
                raise PlacementError(f"limits.{name} is {value}; give a number of at least 0 (1 for parts)")
        for key, named in (("source", self.source), ("sink", self.sink)):
            if named is not None:
                _index_of(named, index, key)
        for name in self.excluded:
            _index_of(name, index, "excluded")
        for step, name in self.pinned.items():
            _index_of(name, index, "pinned")
            if not 0 <= step < n:
                raise PlacementError(f"pinned: step {step} does not exist; steps are 0 to {n - 1}")
            if name in self.excluded:
                raise PlacementError(f"pinned: {self.step(step)} is pinned to {name!r}, which is excluded")

    @property
    def n_steps(self) -> int:
        """Number of steps between neighbouring boundaries."""
        return int(self.boundary_bytes.size) - 1

    @property
    def wait_ms(self) -> Floats:
        """The devices' waits, shape (D,)."""
        return np.array([device.wait_ms for device in self.devices])

    @property
    def power_w(self) -> Floats:
        """The devices' powers above idle, shape (D,)."""
        return np.array([device.power_w for device in self.devices])

    @property
    def _index(self) -> dict[str, int]:
        return {device.name: k for k, device in enumerate(self.devices)}

    def index(self, name: str) -> int:
        """Return the position of the device called `name`.

        Raises:
            PlacementError: If there is none; the message suggests the nearest.
        """
        return _index_of(name, self._index, "device")

    def step(self, number: int) -> str:
        """Name a step in a message."""
        return f"step {number} ({self.labels[number]})" if self.labels else f"step {number}"

    def part_time_ms(self, start: int, stop: int, device: int) -> float:
        """Return the time of one part on one device."""
        if self.part_ms.ndim == 2:
            return float(self.part_ms[start:stop, device].sum())
        return float(self.part_ms[start, stop, device])

    def part_moved_ms(self, start: int, stop: int, device: int) -> float:
        """Return what of that goes into the device's own memory and back."""
        return float(self.moved_ms[start, stop, device]) if self.moved_ms.size else 0.0

    def link_waits_ms(self, boundary: int) -> Floats:
        """Return how long a message at a boundary waits for each link, shape (D, D)."""
        return self.link_wait_ms[boundary] if self.link_wait_ms.size else np.zeros_like(self.links.latency_ms)

    def part_form(self, start: int, stop: int, device: int) -> int:
        """Return which of its forms a part has on one device."""
        return int(self.forms[start, stop, device]) if self.forms.size else 0

    def part_memory_bytes(self, start: int, stop: int) -> float:
        """Return the memory of one part."""
        if self.part_bytes.ndim == 1:
            return float(self.part_bytes[start:stop].sum())
        return float(self.part_bytes[start, stop])

    def with_limits(self, **changes: float) -> "ChainProblem":
        """Return the same problem under changed limits."""
        return replace(self, limits=replace(self.limits, **changes))


def _index_of(name: str, index: Mapping[str, int], key: str) -> int:
    if name not in index:
        hint = nearest(name, index) or f"; known: {', '.join(index)}"
        raise PlacementError(f"{key}: unknown device {name!r}{hint}")
    return index[name]


def _check_numbers(name: str, values: Floats, *shapes: tuple[int, ...]) -> None:
    if values.shape not in shapes:
        raise PlacementError(f"{name} has shape {values.shape}; expected {' or '.join(map(str, shapes))}")
    # A (start, stop) table says nothing where stop <= start.
    table = len(shapes) == 2 and values.shape == shapes[1]
    used = values[np.triu_indices(values.shape[0], 1)] if table else values
    if np.isnan(used).any() or (used < 0).any():
        bad = used[np.isnan(used) | (used < 0)][0]
        raise PlacementError(f"{name} holds {bad}; times and bytes are numbers of at least 0 (inf: cannot)")
