"""Who is busy when: the values from which every picture of a timeline is drawn."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

_TOUCHING = 0.1  # of the shorter bar: so little may lie under the next one, as where a link's latency overlaps


@dataclass(frozen=True)
class Busy:
    """A device or a link at work on a request.

    Attributes:
        lane: The device, or the link as ``from -> to``.
        device: Whose colour it has: the device, or where the link leads.
        request: 1, 2, ...
        label: What it does.
        start_ms: When it begins.
        stop_ms: When it ends.
    """

    lane: str
    device: str
    request: int
    label: str
    start_ms: float
    stop_ms: float

    @property
    def took_ms(self) -> float:
        """How long it takes."""
        return self.stop_ms - self.start_ms

    @property
    def moves(self) -> bool:
        """Whether it is a transfer."""
        return self.lane != self.device

    @property
    def hint(self) -> str:
        """All that is known of it."""
        return f"{self.label}, {self.lane}: {self.start_ms:.4g} to {self.stop_ms:.4g} ms ({self.took_ms:.3g} ms)"


def lanes(*pictures: Sequence[Busy]) -> list[str]:
    """Return the lanes along the way of a request: of the most complete one of each picture."""
    found: dict[str, None] = {}
    for events in pictures:
        count = Counter(event.request for event in events)
        found |= dict.fromkeys(e.lane for e in sorted(events, key=lambda e: (-count[e.request], e.start_ms)))
    return list(found)


def side_by_side(events: Sequence[Busy]) -> list[tuple[int, int]]:
    """Return for each event its track within its lane, and how many tracks that lane needs.

    What waits in a queue on a link, or takes turns on a device, overlaps; no bar may hide another one.
    """
    last: dict[str, list[Busy]] = {}
    track = [0] * len(events)
    for index in sorted(range(len(events)), key=lambda index: events[index].start_ms):
        event = events[index]
        before = last.setdefault(event.lane, [])
        free = (k for k, one in enumerate(before) if _hardly_overlap(one, event))
        track[index] = next(free, len(before))
        before[track[index] : track[index] + 1] = [event]
    return [(track[index], len(last[event.lane])) for index, event in enumerate(events)]


def _hardly_overlap(one: Busy, later: Busy) -> bool:
    return one.stop_ms - later.start_ms <= _TOUCHING * min(one.took_ms, later.took_ms)
