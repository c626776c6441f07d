"""Requests of several models on one fleet, played event by event.

A device works on one request of each model at a time, and gives those that are there equal parts of itself, as a system
does with processes; a link takes one message after the other. What `pepper.placement.joint` counts in formulas comes
out here without them.
"""

import heapq
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pepper.placement.queueing import Visit

STREAMED = 10_000
"""Requests of a simulation, of all models together; those in its first tenth do not count: until then queues fill."""
WARM_UP = 0.1

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class StreamLatency:
    """Latencies of one model's requests that arise at random times (a Poisson process).

    Attributes:
        mean_ms: Their mean.
        p50_ms: Their median.
        p95_ms: 95th percentile.
    """

    mean_ms: float
    p50_ms: float
    p95_ms: float

    @classmethod
    def of(cls, latency_ms: Floats) -> "StreamLatency":
        """Sum up latencies, shape (n,)."""
        return cls(float(np.mean(latency_ms)), *np.quantile(latency_ms, [0.5, 0.95]).tolist())


_Job = tuple[float, int, int, int]
"""When its request arose, its stream, its request's number and its work's: the oldest request goes first."""


@dataclass
class _Server:
    """A device or link at work.

    Attributes:
        queues: By lane, the jobs that are there; the first of each is being worked on.
        left_ms: By lane, the work that is left of it.
        at_ms: Until when that is counted.
        version: Of the last event that was foretold: earlier ones are none.
    """

    queues: dict[int, list[_Job]] = field(default_factory=lambda: defaultdict(list))
    left_ms: dict[int, float] = field(default_factory=dict)
    now: dict[int, _Job] = field(default_factory=dict)
    at_ms: float = 0.0
    version: int = 0

    def advance(self, at_ms: float) -> None:
        """Work until then: all lanes alike."""
        for lane in self.left_ms:
            self.left_ms[lane] -= (at_ms - self.at_ms) / len(self.now)
        self.at_ms = at_ms

    def next_ms(self) -> float:
        """When the first of the jobs at work will be done, if none comes."""
        return self.at_ms + max(0.0, min(self.left_ms.values())) * len(self.now)


def play_streams(streams: Sequence[tuple[Sequence[Visit], Sequence[float]]]) -> list[Floats]:
    """Play requests of several models; return when each is answered, an array for each model.

    Args:
        streams: Of each model what a request asks for, and when its requests arise, ascending.
    """
    answered = [np.zeros(len(arise_ms)) for _, arise_ms in streams]
    followers = [_followers(works) for works, _ in streams]
    missing = [[[len({*work.after}) for work in works] for _ in arise_ms] for works, arise_ms in streams]
    there_ms = [[[0.0] * len(works) for _ in arise_ms] for works, arise_ms in streams]
    servers: dict[str, _Server] = defaultdict(_Server)
    events: list[tuple[float, int, str, _Job | None]] = []  # of a server: a job that comes, or the version of an end
    for stream, (works, arise_ms) in enumerate(streams):
        for request, at_ms in enumerate(arise_ms):
            for number, work in enumerate(works):
                if not work.after:
                    job = (at_ms, stream, request, number)
                    events.append((at_ms + work.begin_ms, -1, work.resource, job))
    heapq.heapify(events)
    while events:
        at_ms, version, resource, came = heapq.heappop(events)
        server = servers[resource]
        if came is None and version != server.version:
            continue
        server.advance(at_ms)
        done: list[int] = []
        if came is None:
            least = min(server.left_ms.values())
            done = [lane for lane, left in server.left_ms.items() if left <= least + 1e-9]
        else:
            heapq.heappush(server.queues[_lane(resource, came)], came)
        for lane in done:
            arose_ms, stream, request, number = server.now.pop(lane)
            del server.left_ms[lane]
            works = streams[stream][0]
            end_ms = at_ms + works[number].delay_ms
            answered[stream][request] = max(answered[stream][request], end_ms)
            for follower in followers[stream][number]:
                there = there_ms[stream][request]
                there[follower] = max(there[follower], arose_ms + works[follower].begin_ms, end_ms)
                missing[stream][request][follower] -= 1
                if not missing[stream][request][follower]:
                    job = (arose_ms, stream, request, follower)
                    heapq.heappush(events, (there[follower], -1, works[follower].resource, job))
        for lane, queue in server.queues.items():
            if queue and lane not in server.now:
                job = server.now[lane] = heapq.heappop(queue)
                server.left_ms[lane] = streams[job[1]][0][job[3]].busy_ms
        server.version += 1
        if server.now:
            heapq.heappush(events, (server.next_ms(), server.version, resource, None))
    return answered


def stream_latencies(
    streams: Sequence[tuple[Sequence[Visit], float]], seed: int = 0, requests: int = STREAMED
) -> list[StreamLatency]:
    """Return the latencies of each model's requests at its rate, where each work takes its time.

    Args:
        streams: Of each model what a request asks for, and how many arise a second.
        seed: Of the times.
        requests: How many are played, about.
    """
    span_ms = 1000 * requests / sum(rate for _, rate in streams)
    arise_ms = []
    for number, (_, rate) in enumerate(streams):
        gaps = np.random.default_rng([seed, number]).exponential(1000 / rate, max(20, math.ceil(span_ms * rate / 1000)))
        arise_ms.append(np.cumsum(gaps))
    answered = play_streams([(works, at.tolist()) for (works, _), at in zip(streams, arise_ms, strict=True)])
    return [
        StreamLatency.of((ends - at)[int(WARM_UP * len(at)) :]) for ends, at in zip(answered, arise_ms, strict=True)
    ]


def _followers(works: Sequence[Visit]) -> list[list[int]]:
    found: list[list[int]] = [[] for _ in works]
    for number, work in enumerate(works):
        for before in {*work.after}:
            found[before].append(number)
    return found


def _lane(resource: str, job: _Job) -> int:
    """Return what a job queues in: on a device each model has its own, on a link all have one."""
    return 0 if "->" in resource else job[1]
