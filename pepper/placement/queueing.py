"""What requests wait for each other: a plan's devices and links as queues, played event by event.

Each part and each message is work for one device or link, which serves, of those that are there, the oldest request
first. One request alone takes the plan's latency, and many at once leave one after the other at its period; what lies
between, when requests arise at random, is what this tells.
"""

import heapq
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pepper.placement.branched import OUTSIDE, BranchedProblem, evaluate_branched
from pepper.placement.evaluate import Stages, evaluate, instances, unit
from pepper.placement.problem import ChainProblem

REQUESTS = 10_000
"""Of a simulated stream, of which those after the first tenth count: until then queues fill."""

_READY, _FREE = range(2)


@dataclass(frozen=True)
class Visit:
    """What one device or link does for a request.

    Attributes:
        resource: Name of the device, or ``from->to`` of the link.
        busy_ms: For how long it is taken.
        delay_ms: How long it takes after that until the next ones can begin.
        after: Numbers of the works before it.
        begin_ms: Earliest start from when the request arose.
    """

    resource: str
    busy_ms: float
    delay_ms: float = 0.0
    after: tuple[int, ...] = ()
    begin_ms: float = 0.0


@dataclass(frozen=True)
class SimulatedSpan:
    """One resource busy with one request, from `start_ms` to `stop_ms`.

    Attributes:
        request: Number of the request.
        work: Number of the work.
        resource: Name of a device (see `unit`), or ``from->to`` of a link.
        start_ms: Begin.
        stop_ms: End; a link's propagation comes on top.
    """

    request: int
    work: int
    resource: str
    start_ms: float
    stop_ms: float


@dataclass(frozen=True)
class UnderLoad:
    """Latencies of requests that arise at random times (a Poisson process).

    Attributes:
        rate_per_s: How many a second, on average.
        utilisation: The same over what the plan can give.
        p50_ms: Median latency; infinite where more arise than the plan can give.
        p95_ms: 95th percentile.
        p99_ms: 99th percentile.
    """

    rate_per_s: float
    utilisation: float
    p50_ms: float
    p95_ms: float
    p99_ms: float


def chain_works(problem: ChainProblem, stages: Stages) -> list[Visit]:
    """Return what a request asks of devices and links, one after the other."""
    result = evaluate(problem, stages)
    names = [unit(problem, s.device, k) for s, k in zip(stages, instances(problem, stages), strict=True)]
    ends = [problem.source or "", *names, problem.sink or ""]
    works: list[Visit] = []

    def add(work: Visit) -> None:
        works.append(replace(work, after=(len(works) - 1,)) if works else work)

    for k, hop in enumerate(result.hops):
        busy_ms = wait_ms = 0.0
        if k < len(stages):
            handled_ms = float(problem.handling_ms[stages[k].start, stages[k].device])
            busy_ms, wait_ms = result.stage_ms[k] + handled_ms, result.pickup_ms[k] - handled_ms
        if hop is not None:
            add(Visit(f"{ends[k]}->{ends[k + 1]}", hop.occupied_ms, hop.time_ms - hop.occupied_ms + wait_ms))
        if k < len(stages):
            add(Visit(names[k], busy_ms, begin_ms=wait_ms if k == 0 and hop is None else 0.0))
    return works


def branched_works(problem: BranchedProblem, stages: Stages) -> list[Visit]:
    """Return what a request asks of devices and links, where parts run side by side: messages, and then their part.

    Devices and links serve what is there: no part waits for one before it in the plan's order that is not ready yet.
    """
    chain, cost = problem.chain, evaluate_branched(problem, stages)
    places = [chain.source, *(chain.devices[stage.device].name for stage in stages), chain.sink]
    sent = {(each.sender, each.receiver): each for each in cost.handovers}
    works: list[Visit] = []
    part_at: dict[int, int] = {}  # the number of each part's work
    for number, senders in enumerate(cost.reads):
        is_part = number < len(stages)
        wait_ms = cost.pickup_ms[number] - cost.handled_ms[number] if is_part else 0.0
        after, begin_ms = list[int](), 0.0 if senders else wait_ms
        for sender in senders:
            before = () if sender == OUTSIDE else (part_at[sender],)
            message = sent.get((sender, number))
            if message is not None:
                link = str(places[sender + 1]), str(places[number + 1])
                pair = chain.index(link[0]), chain.index(link[1])
                busy_ms = message.sent_bytes * float(chain.links.occupied_ms_per_byte[pair])
                works.append(Visit("->".join(link), busy_ms, message.time_ms - busy_ms + wait_ms, before))
                after.append(len(works) - 1)
            elif sender == OUTSIDE:
                begin_ms = wait_ms
            else:
                after += before
        if is_part:
            part_at[number] = len(works)
            busy_ms = cost.stage_ms[number] + cost.handled_ms[number]
            works.append(Visit(places[number + 1] or "", busy_ms, 0.0, tuple(after), begin_ms))
    return works


def play(
    works: Sequence[Visit], arise_ms: Sequence[float], busy_ms: npt.NDArray[np.float64] | None = None
) -> Iterator[SimulatedSpan]:
    """Play requests, and yield each work as it is taken up; O(N W log(N W)) for N requests of W works.

    Args:
        works: What each request asks for.
        arise_ms: When each arises, ascending, shape (N,).
        busy_ms: For how long each work of each request takes its resource, shape (N, W); None: as the work says.
    """
    followers: list[list[int]] = [[] for _ in works]
    for number, work in enumerate(works):
        for before in {*work.after}:
            followers[before].append(number)
    first = [number for number, work in enumerate(works) if not work.after]
    missing = [[len({*work.after}) for work in works] for _ in arise_ms]
    there_ms = [[0.0] * len(works) for _ in arise_ms]
    taken: set[str] = set()
    queues: dict[str, list[tuple[int, int]]] = defaultdict(list)
    events = [(at + works[number].begin_ms, _READY, n, number) for n, at in enumerate(arise_ms) for number in first]
    heapq.heapify(events)
    while events:
        now_ms, kind, request, number = heapq.heappop(events)
        resource = works[number].resource
        if kind == _READY:
            heapq.heappush(queues[resource], (request, number))
        else:
            taken.discard(resource)
        if resource in taken or not queues[resource]:
            continue
        request, number = heapq.heappop(queues[resource])
        work = works[number]
        stop_ms = now_ms + (work.busy_ms if busy_ms is None else float(busy_ms[request, number]))
        taken.add(resource)
        heapq.heappush(events, (stop_ms, _FREE, request, number))
        yield SimulatedSpan(request, number, resource, now_ms, stop_ms)
        for follower in followers[number]:
            begin_ms = arise_ms[request] + works[follower].begin_ms
            there_ms[request][follower] = max(there_ms[request][follower], begin_ms, stop_ms + work.delay_ms)
            missing[request][follower] -= 1
            if not missing[request][follower]:
                heapq.heappush(events, (there_ms[request][follower], _READY, request, follower))


def answered_ms(
    works: Sequence[Visit], arise_ms: Sequence[float], busy_ms: npt.NDArray[np.float64] | None = None
) -> npt.NDArray[np.float64]:
    """Return when each request is answered, shape (N,); arguments as of `play`."""
    answered = np.zeros(len(arise_ms))
    for span in play(works, arise_ms, busy_ms):
        answered[span.request] = max(answered[span.request], span.stop_ms + works[span.work].delay_ms)
    return answered


def under_load(works: Sequence[Visit], rate_per_s: float, seed: int = 0, requests: int = REQUESTS) -> UnderLoad:
    """Return the latencies of requests that arise at random times, at a rate, where each work takes its time.

    Args:
        works: What each request asks for.
        rate_per_s: How many a second.
        seed: Of the times.
        requests: How many are played.
    """
    load: dict[str, float] = defaultdict(float)
    for work in works:
        load[work.resource] += work.busy_ms
    utilisation = rate_per_s * max(load.values(), default=0.0) / 1000
    if utilisation >= 1:
        return UnderLoad(rate_per_s, utilisation, math.inf, math.inf, math.inf)
    arise_ms = np.cumsum(np.random.default_rng(seed).exponential(1000 / rate_per_s, requests))
    settled = (answered_ms(works, arise_ms.tolist()) - arise_ms)[requests // 10 :]
    return UnderLoad(rate_per_s, utilisation, *np.quantile(settled, [0.5, 0.95, 0.99]).tolist())
