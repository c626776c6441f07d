"""Several models on one fleet: what parts that share a device, or messages that share a link, cost each other.

Each model is a chain of its own (`pepper.placement.problem`), whose requests arise at random (Poisson) at a rate. What
is shared makes each wait for the others:

- On a device the parts of different models run at one time, each a process of its own, and the requests of one model
  one after the other. With `b` the work of a request there, `x` the part of the time for which its own model keeps the
  device busy and `o` the part that the others do, an inference takes ``s = b / (1 - o)`` (processor sharing), and waits
  for those before it as in a queue of constant service (Pollaczek and Khinchine): ``s x / (2 (1 - o - x))``.
- On a link messages go one after the other: all wait for ``sum(rate b^2) / (2 (1 - busy))``.

(Kleinrock, "Queueing Systems", volume 2, 1976, chapters 1 and 4; that devices and links in a row may be looked at one
by one is an approximation.)

A device holds at most one part of a model. So, the other models' plans given, what a plan of one model costs *all* of
them is a sum over its parts and transfers: a chain problem again, that the chain's solvers solve exactly. And the more
there is already, the more another plan adds: so the plans of some models alone bound those of all from below.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from pepper.errors import PlacementError
from pepper.placement.evaluate import TOLERANCE, Stages, evaluate
from pepper.placement.problem import ChainProblem, DeviceKind, Floats, Limits

MOST_BUSY = 0.95
"""Part of the time for which a device or link of a plan may be busy: close to all of it, waits grow without end."""

Resource = int | tuple[int, int]
"""The index of a device, or those of the two that a link leads from and to."""


@dataclass(frozen=True)
class ModelStream:
    """A model, and how often it is asked.

    Attributes:
        name: Unique among the models.
        problem: Where its parts may run, each with the devices to itself; `part_ms` by start and stop.
        rate_per_s: Requests a second.
        priority: What the time of one of its requests weighs, against one of another model.
    """

    name: str
    problem: ChainProblem
    rate_per_s: float
    priority: float = 1.0


@dataclass(frozen=True)
class _User:
    """A model at a device or link: what the wait of its request weighs, requests a millisecond, work of one (ms)."""

    weight: float
    rate: float
    busy_ms: Floats


@dataclass(frozen=True)
class JointCost:
    """What plans of several models cost at their rates.

    Attributes:
        latency_ms: Mean time of a request of each model; infinite where its plan cannot carry the rate.
        alone_ms: The same where no other request is there.
        mean_ms: Mean over all requests, weighted by priority: what is minimised.
        busy: By device, or ``from->to`` of a link, the part of the time for which it is busy.
        memory_bytes: By device.
        violations: What the plans break, one line each.
    """

    latency_ms: tuple[float, ...]
    alone_ms: tuple[float, ...]
    mean_ms: float
    busy: Mapping[str, float]
    memory_bytes: Mapping[str, float]
    violations: tuple[str, ...]


@dataclass(frozen=True)
class JointProblem:
    """Models to be placed on one fleet.

    Attributes:
        streams: The models; their problems have the same devices and links.

    Raises:
        PlacementError: There is no model, a device is of several, a rate is none, or a problem's own limits cannot be
            kept here.
    """

    streams: tuple[ModelStream, ...]

    def __post_init__(self) -> None:
        if not self.streams:
            raise PlacementError("streams: is empty; give at least one model")
        for stream in self.streams:
            problem = stream.problem
            if problem.devices != self.devices or problem.reuse or any(each.count > 1 for each in problem.devices):
                raise PlacementError(f"{stream.name}: give all models the same single devices, each for one part")
            if problem.part_ms.ndim == 2:
                raise PlacementError(f"{stream.name}: give part_ms by start and stop")
            if not 0 < stream.rate_per_s < math.inf or not 0 < stream.priority < math.inf:
                raise PlacementError(f"{stream.name}: rate and priority must be above 0 and finite")
            kept = Limits(sent_bytes=problem.limits.sent_bytes, parts=problem.limits.parts)
            if problem.limits != kept:
                raise PlacementError(f"{stream.name}: limits of time and energy do not hold for several models")

    @property
    def devices(self) -> tuple[DeviceKind, ...]:
        """The devices, which all models share."""
        return self.streams[0].problem.devices

    @cached_property
    def weights(self) -> tuple[float, ...]:
        """Part of each model in the mean over all requests."""
        each = [stream.rate_per_s * stream.priority for stream in self.streams]
        return tuple(one / sum(each) for one in each)

    def scaled(self, factor: float) -> "JointProblem":
        """Return the same with rates so many times as high."""
        return JointProblem(tuple(replace(each, rate_per_s=each.rate_per_s * factor) for each in self.streams))

    def evaluate(self, plans: Mapping[int, Stages]) -> JointCost:
        """Cost plans of some or all models, by the models' numbers, and list every rule that they break."""
        plans = dict(sorted(plans.items()))
        costs = {who: evaluate(self.streams[who].problem, stages) for who, stages in plans.items()}
        broken = [f"{self.streams[who].name}: {line}" for who, cost in costs.items() for line in cost.violations]
        latency_ms = {who: cost.latency_ms for who, cost in costs.items()}
        busy: dict[str, float] = {}
        for resource, found in self._users(plans).items():
            users = [user for _, user in found]
            part = busy[self._name(resource)] = float(sum(_part(user) for user in users))
            if part > MOST_BUSY * (1 + TOLERANCE):
                broken.append(f"{self._name(resource)} is busy for {part:.0%} of the time, over {MOST_BUSY:.0%}")
            for (who, _), delay in zip(found, _delays_ms(users, resource), strict=True):
                latency_ms[who] += float(delay)
        memory: dict[str, float] = defaultdict(float)
        for device, used in self._memory(plans).items():
            kind = self.devices[device]
            memory[kind.name] = used
            if used > kind.memory_bytes * (1 + TOLERANCE):
                broken.append(f"{kind.name}: {used:.0f} bytes in {kind.memory_bytes:.0f}")
        return JointCost(
            tuple(latency_ms.values()),
            tuple(cost.latency_ms for cost in costs.values()),
            sum(self.weights[who] * ms for who, ms in latency_ms.items()),
            busy,
            memory,
            tuple(broken),
        )

    def beside(self, who: int, plans: Mapping[int, Stages]) -> ChainProblem:
        """Return the chain problem of one model beside the plans of others.

        The latency of its plans there is by how much they raise the mean over all requests, over this model's weight;
        what others leave no time or memory for is impossible. (A plan that uses one link for both its input and its
        output, from the source to a first part at the sink and from a last part at the source, raises it by more.)
        """
        stream, weight = self.streams[who], self.weights[who]
        chain, rate = stream.problem, stream.rate_per_s / 1000
        users, memory = self._users(plans), self._memory(plans)
        n_devices = len(chain.devices)
        part_ms = chain.part_ms.copy()
        for device in range(n_devices):
            work_ms = chain.part_ms[..., device] + chain.handling_ms[:, None, device]
            theirs = [user for _, user in users.get(device, ())]
            part_ms[..., device] += _added_ms(theirs, _User(weight, rate, work_ms), device)
        waits_ms = np.zeros((chain.n_steps + 1, n_devices, n_devices))
        for pair in np.ndindex(n_devices, n_devices):
            rate_ms = chain.links.occupied_ms_per_byte[pair]
            if pair[0] != pair[1] and math.isfinite(rate_ms):
                sent_ms = np.nan_to_num(chain.boundary_bytes, posinf=0.0) * rate_ms
                theirs = [user for _, user in users.get(pair, ())]
                waits_ms[:, pair[0], pair[1]] = _added_ms(theirs, _User(weight, rate, sent_ms), pair)
        left = tuple(
            replace(device, memory_bytes=max(0.0, device.memory_bytes - memory.get(k, 0.0)))
            for k, device in enumerate(chain.devices)
        )
        return replace(chain, devices=left, part_ms=part_ms, link_wait_ms=waits_ms)

    def _users(self, plans: Mapping[int, Stages]) -> dict[Resource, list[tuple[int, _User]]]:
        """Return which models are at each device and link."""
        found: dict[Resource, list[tuple[int, _User]]] = defaultdict(list)
        for who, stages in plans.items():
            stream = self.streams[who]
            cost = evaluate(stream.problem, stages)
            works: list[tuple[Resource, float]] = [
                (stage.device, time_ms + float(stream.problem.handling_ms[stage.start, stage.device]))
                for stage, time_ms in zip(stages, cost.stage_ms, strict=True)
            ]
            works += [((hop.move[1], hop.move[2]), hop.occupied_ms) for hop in cost.hops if hop and hop.occupied_ms]
            for resource, busy_ms in works:
                found[resource].append((who, _User(self.weights[who], stream.rate_per_s / 1000, np.array(busy_ms))))
        return found

    def _memory(self, plans: Mapping[int, Stages]) -> dict[int, float]:
        used: dict[int, float] = defaultdict(float)
        for who, stages in plans.items():
            for stage in stages:
                used[stage.device] += self.streams[who].problem.part_memory_bytes(stage.start, stage.stop)
        return used

    def _name(self, resource: Resource) -> str:
        names = [device.name for device in self.devices]
        if isinstance(resource, int):
            return names[resource]
        return f"{names[resource[0]]}->{names[resource[1]]}"


def _part(user: _User) -> Floats:
    """Return for which part of the time a model keeps something busy."""
    return np.asarray(user.rate * user.busy_ms)


def _delays_ms(users: Sequence[_User], resource: Resource) -> list[Floats]:
    """Return by how much longer each model's request is at a device or link than its work takes."""
    total = sum((_part(user) for user in users), np.zeros(()))
    with np.errstate(invalid="ignore", divide="ignore"):
        room = np.where(total < 1, 1 - total, 0.0)
        if not isinstance(resource, int):
            wait_ms = sum((_part(user) * user.busy_ms for user in users), np.zeros(())) / (2 * room)
            return [np.where(room > 0, wait_ms, math.inf)] * len(users)
        delays = []
        for user in users:
            own = _part(user)
            slower = 1 / (room + own)
            delays.append(np.where(room > 0, user.busy_ms * (slower * (1 + own / (2 * room)) - 1), math.inf))
    return delays


def _added_ms(theirs: Sequence[_User], mine: _User, resource: Resource) -> Floats:
    """Return by how much a work raises all requests' weighted time, over its own weight; ``inf`` where it is too much.

    Args:
        theirs: Who is there.
        mine: Who comes; its work may be an array.
        resource: The device or link.
    """
    busy = sum((_part(user) for user in theirs), np.zeros(())) + _part(mine)
    before = sum(user.weight * delay for user, delay in zip(theirs, _delays_ms(theirs, resource), strict=True))
    users = [*theirs, mine]
    with np.errstate(invalid="ignore"):
        after = sum(user.weight * delay for user, delay in zip(users, _delays_ms(users, resource), strict=True))
        added = (after - before) / mine.weight
    return np.where(mine.busy_ms == 0, 0.0, np.where(busy <= MOST_BUSY, added, math.inf))
