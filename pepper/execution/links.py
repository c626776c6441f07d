"""What the links of a running plan really do, measured before anything is claimed of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from pepper.execution.pipeline import Arrival, Hop
from pepper.execution.runner import Runner
from pepper.units import bandwidth_mbit_s

SMALL_BYTES, MOST_BYTES, LEAST_BYTES = 64, 2**20, 2**14
LARGE_MS = 50.0  # of the slowest link's time
LIMIT_FRACTION = 0.1  # of the time limit that a message may take on all links together
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

    A stage that is throttled receives in its turns only: its hops show that. If a device is lost meanwhile, the
    hops are those of the next layout. Where parts run side by side, messages meet on their way, so that there is
    nothing to tell of single hops: then there are none.

    Raises:
        ExecutionError: The messages do not come through, or no layout is left to go on with.
    """
    while not (layout := runner.layout).direct:
        large = _large_bytes(runner)
        runner.probe(large)  # connects, and fills the buffers
        small = [runner.probe(SMALL_BYTES) for _ in range(REPEATS)]
        more = [runner.probe(large) for _ in range(REPEATS)]
        if runner.layout is layout:
            return [
                MeasuredHop(hop, small_ms, bandwidth_mbit_s(large - SMALL_BYTES, max(large_ms - small_ms, 1e-3)))
                for hop, small_ms, large_ms in zip(runner.hops, _times(small), _times(more), strict=True)
            ]
    return []


def _large_bytes(runner: Runner) -> int:
    """Return the size of a large message: its time on the slowest link is long enough to measure, and that on all
    links together far below the time limit."""
    byte_ms = [hop.link.occupied_ms_per_byte for hop in runner.hops if hop.link and hop.link.occupied_ms_per_byte]
    if not byte_ms:
        return MOST_BYTES
    wanted = min(MOST_BYTES, max(LEAST_BYTES, round(LARGE_MS / max(byte_ms))))
    most_ms = LIMIT_FRACTION * 1000 * runner.time_limit_s
    return max(2 * SMALL_BYTES, min(wanted, int(most_ms / sum(byte_ms))))


def _times(arrivals: Sequence[Arrival]) -> list[float]:
    rows = []
    for message, at_ns in arrivals:
        there = [*(stamp.arrived for stamp in message.stamps[1:]), at_ns]
        rows.append([(end - stamp.sent) / 1e6 for stamp, end in zip(message.stamps, there, strict=True)])
    return [median(column) for column in zip(*rows, strict=True)]
