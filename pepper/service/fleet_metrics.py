"""What ``/metrics`` shows of the hosts that joined: whether each is there, when it was last seen, and its pace."""

import math
import threading
import time
from collections.abc import Callable, Iterable

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from pepper.errors import PepperError
from pepper.hosts.roll import HostThere


class FleetMetrics(Collector):
    """Shows what the hosts said last, and asks them in the background: a scrape never waits for one that hangs.

    Args:
        ask: Asks the hosts that are there.
        age_s: How old what is shown may be before they are asked anew: each is made to compute for some milliseconds.
    """

    def __init__(self, ask: Callable[[], list[HostThere]], age_s: float = 10.0) -> None:
        self._ask, self._age_s = ask, age_s
        self._lock = threading.Lock()
        self._asked_s = -math.inf
        self._asks: threading.Thread | None = None
        self._last: dict[str, tuple[float, float | None]] = {}
        self._there: set[str] = set()

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Return the gauges, as Prometheus's client asks for them."""
        with self._lock:
            if (self._asks is None or not self._asks.is_alive()) and time.monotonic() - self._asked_s > self._age_s:
                self._asked_s = time.monotonic()
                self._asks = threading.Thread(target=self._refresh, daemon=True)
                self._asks.start()
            last, there = dict(self._last), set(self._there)
        up = GaugeMetricFamily("pepper_host_up", "Whether the host answered when it was last asked.", labels=["host"])
        seen = GaugeMetricFamily(
            "pepper_host_last_seen_timestamp_seconds", "When the head last heard of the host.", labels=["host"]
        )
        pace = GaugeMetricFamily(
            "pepper_host_pace", "How fast its cores computed, 1 is as fast as calibrated.", labels=["host"]
        )
        for name, (seen_s, its_pace) in last.items():
            up.add_metric([name], float(name in there))
            seen.add_metric([name], seen_s)
            if its_pace is not None and name in there:
                pace.add_metric([name], its_pace)
        return up, seen, pace

    def _refresh(self) -> None:
        try:
            found = self._ask()
        except PepperError:  # the head is away: what was seen last stays
            found = []
        now_s = time.time()
        with self._lock:
            self._there = {host.name for host in found if host.pepper}
            self._last.update({host.name: (now_s - host.seen_s, host.pace) for host in found})
