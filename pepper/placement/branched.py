"""The branched problem: parts of a chain's steps that run as soon as what they read is there.

The steps are those of a chain (`pepper.placement.problem`) in an order that keeps branches together, and a part holds
consecutive steps. But nothing is relayed: each part hands what it gives straight to those that read it, so that parts
of different branches run at the same time on different devices, and a device may hold several parts.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pepper.errors import PlacementError
from pepper.placement.evaluate import TOLERANCE, Stage, Stages
from pepper.placement.problem import ChainProblem, Floats

OUTSIDE = -1
"""The writer of a model's inputs, in place of a step."""


@dataclass(frozen=True, eq=False)
class Flow:
    """A tensor between steps.

    Attributes:
        writer: The step that writes it; `OUTSIDE` for an input of the model.
        readers: The steps that read it, ascending; the number of steps stands for whoever wants the model's outputs.
        size_bytes: What it takes.
    """

    writer: int
    readers: tuple[int, ...]
    size_bytes: float


@dataclass(frozen=True)
class BranchedProblem:
    """Where to cut, which device runs each part, and what flows between the steps.

    Semantics, shared by the solver and by `evaluate_branched`:

    - What a part reads of another comes in one message, when the other is done; from one device to another it occupies
      their link after the messages before it, and takes the link's latency besides. A request comes from the source
      likewise. Parts on one device pass theirs for nothing.
    - A part starts when its messages are there (and the device's wait is over, for those that come from elsewhere) and
      its device is done with the parts before it in the order.
    - Latency is the time until all outputs are at the sink. Period is the largest load of a device or link. Energy is
      what the devices take for parts and messages, and the links for what they carry, as in a chain.

    Attributes:
        chain: Steps, devices (each a single one), part times, links, pins, exclusions and limits. Its own costs of
            messages (`boundary_bytes`, `handling_ms`) count for where cuts are allowed only.
        flows: The tensors that are written by one step, or come from outside, and are read by others.
        message_ms: (D,) work of a device on each message that a part gets, whatever its size; on one at least.
        byte_ms: (D,) the same, for each byte that comes in.

    Raises:
        PlacementError: A kind has several devices, or a flow names no step.
    """

    chain: ChainProblem
    flows: tuple[Flow, ...]
    message_ms: Floats
    byte_ms: Floats

    def __post_init__(self) -> None:
        for device in self.chain.devices:
            if device.count > 1:
                raise PlacementError(f"device {device.name!r}: list its {device.count} devices one by one")
        for flow in self.flows:
            if not (flow.readers and OUTSIDE <= flow.writer < flow.readers[0] <= flow.readers[-1] <= self.n_steps):
                raise PlacementError(f"flows: {flow} does not lead from a step to later ones")

    @property
    def n_steps(self) -> int:
        """Number of steps."""
        return self.chain.n_steps

    @cached_property
    def entering(self) -> tuple[tuple[Flow, ...], ...]:
        """By step, and last by the sink: the flows that each reads."""
        found: list[list[Flow]] = [[] for _ in range(self.n_steps + 1)]
        for flow in self.flows:
            for reader in flow.readers:
                found[reader].append(flow)
        return tuple(map(tuple, found))

    @cached_property
    def allowed(self) -> tuple[int, ...]:
        """The borders at which a part may begin or end, both ends of the chain included."""
        inner = np.flatnonzero(np.isfinite(self.chain.boundary_bytes[1:-1])) + 1
        return (0, *inner.tolist(), self.n_steps)

    @cached_property
    def able(self) -> tuple[int, ...]:
        """The devices that may hold parts."""
        return tuple(k for k, d in enumerate(self.chain.devices) if d.name not in self.chain.excluded)


@dataclass(frozen=True)
class Handover:
    """A message of one request.

    Attributes:
        sender: Number of the part that sends it; `OUTSIDE` for the request itself.
        receiver: Number of the part that reads it; the number of parts for the answer.
        sent_bytes: Bytes over a link; 0 where both are on one device.
        time_ms: From the sender's end until it is there, without waiting for the link.
        start_ms: When the link takes it up.
    """

    sender: int
    receiver: int
    sent_bytes: float
    time_ms: float
    start_ms: float


@dataclass(frozen=True)
class BranchedCost:
    """The cost of a plan; lists run along its parts.

    Attributes:
        stage_ms: Time of each part.
        pickup_ms: Work on its messages, and the wait for its device where one comes from elsewhere.
        stage_bytes: Memory of each part.
        stage_j: Energy of each part above idle; infinite where its device's power is not known.
        handled_ms: Of `pickup_ms`, the work on its messages.
        reads: Whose messages each part reads, and last whose the answer is: numbers of parts, or `OUTSIDE`.
        begin_ms: When the inference of each begins in one request.
        handovers: The messages that take time.
        latency_ms: Time of one request.
        period_ms: Largest load of a device or link.
        links_j: Energy of one request's messages.
        sent_bytes: Bytes of one request over all links.
        excess: By how much rules are broken, each relative to its limit; 0 when none is, infinite where a part cannot
            run or be reached.
        violations: What the plan breaks, one line each.
    """

    stage_ms: tuple[float, ...]
    pickup_ms: tuple[float, ...]
    stage_bytes: tuple[float, ...]
    stage_j: tuple[float, ...]
    handled_ms: tuple[float, ...]
    reads: tuple[tuple[int, ...], ...]
    begin_ms: tuple[float, ...]
    handovers: tuple[Handover, ...]
    latency_ms: float
    period_ms: float
    links_j: float
    sent_bytes: float
    excess: float
    violations: tuple[str, ...]

    @property
    def part_count(self) -> int:
        """How many parts the plan has."""
        return len(self.stage_ms)

    @property
    def energy_j(self) -> float:
        """Energy of one request above idle."""
        return sum(self.stage_j) + self.links_j


class Play:
    """One request on its way through parts that are added in order.

    Attributes:
        stages: The parts so far.
        owner: The number of the part that holds each step so far.
        done_ms: When each part is done.
        free_ms: By device, when it is done with its parts.
        link_ms: By pair of devices, when their link is done with its messages.
        load_ms: By device or pair of devices, for how long it is taken.
        memory_bytes: By device.
        sent_bytes: Over all links.
        links_j: The same in energy.
        energy_j: Of the parts and links.
    """

    def __init__(self, problem: BranchedProblem) -> None:
        self._problem = problem
        chain = problem.chain
        self._source = None if chain.source is None else chain.index(chain.source)
        self._sink = None if chain.sink is None else chain.index(chain.sink)
        self.stages: list[Stage] = []
        self.owner: list[int] = []
        self.done_ms: list[float] = []
        self.begin_ms: list[float] = []
        self.stage_ms: list[float] = []
        self.pickup_ms: list[float] = []
        self.handled_ms: list[float] = []
        self.reads: list[tuple[int, ...]] = []
        self.stage_bytes: list[float] = []
        self.stage_j: list[float] = []
        self.handovers: list[Handover] = []
        self.free_ms: dict[int, float] = {}
        self.link_ms: dict[tuple[int, int], float] = {}
        self.load_ms: dict[object, float] = {}
        self.memory_bytes: dict[int, float] = {}
        self.sent_bytes = self.links_j = 0.0

    @property
    def energy_j(self) -> float:
        """Energy of the parts and messages so far."""
        return sum(self.stage_j) + self.links_j

    def copy(self) -> "Play":
        """Return the same play, to go on in another way."""
        other = Play.__new__(Play)
        other.__dict__.update(
            {name: value.copy() if isinstance(value, list | dict) else value for name, value in vars(self).items()}
        )
        return other

    def add(self, stage: Stage, stage_ms: float | None = None) -> None:
        """Run the next part."""
        problem, device, number = self._problem, stage.device, len(self.stages)
        chain = problem.chain
        if stage_ms is None:
            stage_ms = chain.part_time_ms(stage.start, stage.stop, device)
        self.owner += [number] * (stage.stop - stage.start)
        self.stages.append(stage)
        messages = self._messages(number, range(stage.start, stage.stop))
        wait_ms = chain.devices[device].wait_ms
        ready, waited = (0.0, False) if messages else (wait_ms, True)
        for sender, size in messages.items():
            there, foreign = self._arrive(sender, number, device, size)
            ready = max(ready, there + wait_ms * foreign)
            waited = waited or foreign
        received = max(1, len(messages)) * problem.message_ms[device]
        busy_ms = float(received + problem.byte_ms[device] * sum(messages.values()))
        begin = max(ready, self.free_ms.get(device, 0.0))
        self.begin_ms.append(begin + busy_ms)
        self.stage_ms.append(stage_ms)
        self.done_ms.append(begin + busy_ms + stage_ms)
        self.free_ms[device] = self.done_ms[-1]
        self.pickup_ms.append(busy_ms + wait_ms * waited)
        self.handled_ms.append(busy_ms)
        self.reads.append(tuple(messages))
        self.stage_j.append(chain.devices[device].work_j(busy_ms + stage_ms))
        self.load_ms[device] = self.load_ms.get(device, 0.0) + busy_ms + stage_ms
        self.stage_bytes.append(chain.part_memory_bytes(stage.start, stage.stop))
        self.memory_bytes[device] = self.memory_bytes.get(device, 0.0) + self.stage_bytes[-1]

    def cost(self) -> BranchedCost:
        """Hand the outputs to the sink, when all parts are there, and sum up; nothing can be added then."""
        chain = self._problem.chain
        number = len(self.stages)
        answers = self._messages(number, [self._problem.n_steps])
        ends = [self._arrive(sender, number, self._sink, size)[0] for sender, size in answers.items()]
        latency_ms, period_ms = max([*self.done_ms, *ends]), max(self.load_ms.values())
        names = [chain.devices[stage.device].name for stage in self.stages]
        broken = [f"{name} is excluded" for name in dict.fromkeys(names) if name in chain.excluded]
        for step, pin in chain.pinned.items():
            if names[self.owner[step]] != pin:
                broken.append(f"{chain.step(step)} is pinned to {pin}, not {names[self.owner[step]]}")
        excess = float(len(broken))
        if math.isinf(latency_ms):
            broken.append("a part cannot run where it is, or a link is missing")
            excess = math.inf
        for what, value, limit in self.limited(latency_ms, period_ms, self.energy_j):
            if _exceeds(value, limit):
                broken.append(f"{what} {value:g} is over the limit of {limit:g}")
                excess += (value - limit) / max(limit, 1e-9)
        return BranchedCost(
            tuple(self.stage_ms),
            tuple(self.pickup_ms),
            tuple(self.stage_bytes),
            tuple(self.stage_j),
            tuple(self.handled_ms),
            (*self.reads, tuple(answers)),
            tuple(self.begin_ms),
            tuple(self.handovers),
            latency_ms,
            period_ms,
            self.links_j,
            self.sent_bytes,
            excess,
            tuple(broken),
        )

    def limited(self, latency_ms: float, period_ms: float, energy_j: float) -> Iterator[tuple[str, float, float]]:
        """Yield what is limited: its name, its value and its limit."""
        chain, limits = self._problem.chain, self._problem.chain.limits
        for device, used in self.memory_bytes.items():
            yield f"{chain.devices[device].name}: bytes", used, chain.devices[device].memory_bytes
        yield "latency_ms", latency_ms, limits.latency_ms
        yield "period_ms", period_ms, limits.period_ms
        yield "energy_j", energy_j, limits.energy_j
        yield "sent_bytes", self.sent_bytes, limits.sent_bytes
        yield "parts", len(self.stages), limits.parts

    def keeps_limits(self, latency_ms: float, period_ms: float, energy_j: float) -> bool:
        """Whether no limit is passed already, of a request that will take at least so much."""
        return not any(_exceeds(value, limit) for _, value, limit in self.limited(latency_ms, period_ms, energy_j))

    def _arrive(self, sender: int, receiver: int, target: int | None, size: float) -> tuple[float, bool]:
        """Return when a message is there, and whether it comes from elsewhere."""
        links = self._problem.chain.links
        origin = self._source if sender == OUTSIDE else self.stages[sender].device
        begun = 0.0 if sender == OUTSIDE else self.done_ms[sender]
        if origin is None or target is None or origin == target:
            return begun, sender == OUTSIDE
        pair = origin, target
        if math.isinf(links.latency_ms[pair]) or math.isinf(links.ms_per_byte[pair]):
            return math.inf, True
        occupied = size * float(links.occupied_ms_per_byte[pair])
        whole = float(links.latency_ms[pair]) + size * float(links.ms_per_byte[pair])
        start = max(begun, self.link_ms.get(pair, 0.0))
        self.link_ms[pair] = start + occupied
        self.load_ms[pair] = self.load_ms.get(pair, 0.0) + occupied
        self.sent_bytes += size
        self.links_j += size * float(links.joules_per_byte[pair])
        self.handovers.append(Handover(sender, receiver, size, whole, start))
        return start + whole, True

    def _messages(self, number: int, steps: Iterable[int]) -> dict[int, float]:
        """Return the bytes that a part reads of each part before it, by the part's number, in order."""
        sizes: dict[int, float] = {}
        for flow in dict.fromkeys(flow for step in steps for flow in self._problem.entering[step]):
            sender = OUTSIDE if flow.writer == OUTSIDE else self.owner[flow.writer]
            if sender != number:
                sizes[sender] = sizes.get(sender, 0.0) + flow.size_bytes
        return dict(sorted(sizes.items()))


def evaluate_branched(
    problem: BranchedProblem, stages: Stages, stage_ms: Sequence[float] | None = None
) -> BranchedCost:
    """Play one request through the parts, and list every rule that they break.

    Args:
        problem: The problem.
        stages: Parts that follow one another, from the first step to the last.
        stage_ms: Times of the parts in place of the problem's.
    """
    play = Play(problem)
    for number, stage in enumerate(stages):
        play.add(stage, None if stage_ms is None else stage_ms[number])
    return play.cost()


def _exceeds(value: float, limit: float) -> bool:
    return value > limit and value - limit > TOLERANCE * abs(limit)


def whole_on(problem: BranchedProblem, device: int) -> Stages:
    """Return the plan that does not split."""
    return (Stage(0, problem.n_steps, device),)
