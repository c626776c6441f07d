"""Links between hosts as they were measured, kept for some minutes with their age."""

import contextlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pepper.caches import cache_folder
from pepper.config.hosting import HERE, KIND
from pepper.config.placing import MEASURED
from pepper.documents import read_json
from pepper.errors import ConfigError
from pepper.hosts import ports, probing
from pepper.hosts.remote import Joined

KEPT_S = 600.0
_LARGEST = str(max(probing.SIZES))


@dataclass(frozen=True)
class LinkSpeed:
    """What one way between two hosts carries.

    Attributes:
        bandwidth_mbit_s: Megabits (10^6) of payload a second, of the largest messages.
        latency_ms: Half of the round trip.
        spread_percent: Half of the range that the middle half of the messages' times spans.
        measured_s: When it was measured, seconds since 1970.
    """

    bandwidth_mbit_s: float
    latency_ms: float
    spread_percent: float
    measured_s: float


def link_between(joined: Joined, source: str | None, target: str | None) -> LinkSpeed:
    """Return what the way from one host to another carries, measured if that is some minutes old.

    Args:
        joined: The hosts.
        source: A host's name; None is this machine.
        target: Another one's.

    Raises:
        ConfigError: The cache cannot be written, or a host is a kind of hosts.
        DeviceError: One is lost, or the other cannot be reached from it.
    """
    for name in (source, target):
        if name is not None and name.startswith(KIND):
            raise ConfigError(f"link={MEASURED}: {name} is any one of several hosts; give the link's numbers")
    listening, connecting = sorted((source or HERE, target or HERE), key=lambda name: (name != HERE, name))
    file = cache_folder("links") / f"{joined.head}-{listening}-{connecting}.json".replace(":", "_")
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):  # absent, old or damaged: measured (again)
        kept = read_json(file)
        if 0 <= time.time() - float(kept["measured_s"]) < KEPT_S:
            speeds = {way: LinkSpeed(**kept[way]) for way in ("there", "back")}
            return speeds["back" if (source or HERE) == listening else "there"]
    found = _probed(joined, listening, connecting)
    speeds = {way: _speed(found, way) for way in ("there", "back")}
    draft = file.with_suffix(f".{os.getpid()}")
    draft.write_text(json.dumps({"measured_s": time.time(), **{way: asdict(speed) for way, speed in speeds.items()}}))
    draft.replace(file)
    return speeds["back" if (source or HERE) == listening else "there"]


def _probed(joined: Joined, listening: str, connecting: str) -> dict[str, Any]:
    """Let one host listen and the other one probe the way to it."""
    if listening == HERE:
        heard, address = probing.listen(), ports.towards(joined.address_of(connecting))
    else:
        heard, address = joined.ask(listening, "listen"), joined.address_of(listening)
    return dict(joined.ask(connecting, "probe", address=address, **heard))


def _speed(found: Mapping[str, Any], way: str) -> LinkSpeed:
    largest = found[way][_LARGEST]
    return LinkSpeed(largest["mbit_s"], found["round_trip_ms"] / 2, largest["spread_percent"], time.time())
