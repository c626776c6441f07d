"""What the links of a running plan really do, measured before anything is claimed of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from pepper.execution.pipeline import Arrival, Hop
from pepper.execution.runner import Runner

SMALL_BYTES, MOST_BYTES, LEAST_BYTES = 64, 2**20, 2**14
LARGE_MS = 50.0  # of the slowest link's time
REPEATS = 5


@dataclass(frozen=True)
class MeasuredHop:
    """A hop, as wanted and as found.

    Attributes:
        hop: What was wanted.
        latency_ms: Time of a small message.
        bandwidth_mbit_s: From the further time that a large one takes.
    """

    hop: Hop
    latency_ms: float
    bandwidth_mbit_s: float


def measure_hops(runner: Runner) -> list[MeasuredHop]:
    """Send small and large messages through the idle pipeline; medians of a few.

    A stage that is throttled receives in its turns only: its hops show that.

    Raises:
        StageLost: They do not come through.
    """
    rates = [hop.link.bandwidth_mbit_s for hop in runner.hops if hop.link and hop.link.bandwidth_mbit_s]
    large = MOST_BYTES if not rates else min(MOST_BYTES, max(LEAST_BYTES, round(min(rates) * LARGE_MS / 0.008)))
    runner.probe(large)  # connects, and fills the buffers
    small_ms = _times([runner.probe(SMALL_BYTES) for _ in range(REPEATS)])
    large_ms = _times([runner.probe(large) for _ in range(REPEATS)])
    return [
        MeasuredHop(hop, small, 0.008 * (large - SMALL_BYTES) / max(more - small, 1e-3))
        for hop, small, more in zip(runner.hops, small_ms, large_ms, strict=True)
    ]


def _times(arrivals: Sequence[Arrival]) -> list[float]:
    rows = []
    for message, at_ns in arrivals:
        there = [*(stamp.arrived for stamp in message.stamps[1:]), at_ns]
        rows.append([(end - stamp.sent) / 1e6 for stamp, end in zip(message.stamps, there, strict=True)])
    return [median(column) for column in zip(*rows, strict=True)]
