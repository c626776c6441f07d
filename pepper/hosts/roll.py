"""The roll of a fleet: what each host that joined says of itself, and how its clock goes."""

import time
from dataclasses import dataclass
from typing import Any

import pepper
from pepper.config.hosting import KIND
from pepper.errors import DeviceError
from pepper.hosts import engine
from pepper.hosts.remote import Joined

_TRIPS = 4


@dataclass(frozen=True)
class HostThere:
    """A host that is there.

    Attributes:
        name: Its name.
        kind: What it is one of several of; None is nothing.
        processor: Its processor's name.
        onnxruntime: The version of it; None if there is none.
        providers: Its execution providers: the name, and of those that compute on more than the cores the package, the
            hardware and the driver.
        pepper: The version of pepper; empty if it does not answer.
        cores: How many of its cores programs may use.
        memory_bytes: Its memory.
        load: Its load average of a minute.
        pace: How fast its cores compute now, 1 is as fast as they were calibrated; None where the whole host never was,
            or while something is measured.
        runs: What it measures, calibrates or lends now, in words.
        clock_ms: How far its clock is ahead of this machine's.
        clock_within_ms: How far off that may be: half of the shortest round trip.
        agent_memory_bytes: What pepper takes there while nothing is measured.
        seen_s: How long ago the head last heard of it.
        said: What is wrong with it; empty if nothing is.
    """

    name: str
    kind: str | None = None
    processor: str = ""
    onnxruntime: str | None = None
    providers: tuple[dict[str, str], ...] = ()
    pepper: str = ""
    cores: int = 0
    memory_bytes: int = 0
    load: float = 0.0
    pace: float | None = None
    runs: tuple[str, ...] = ()
    clock_ms: float = 0.0
    clock_within_ms: float = 0.0
    agent_memory_bytes: int = 0
    seen_s: float = 0.0
    said: str = ""


def hosts_there(joined: Joined) -> list[HostThere]:
    """Return the hosts that are there, by their names.

    Raises:
        DeviceError: The head does not answer.
    """
    joined.reach_again()
    return [_there(joined, name, known) for name, known in sorted(joined.present().items())]


def _there(joined: Joined, name: str, known: dict[str, Any]) -> HostThere:
    seen_s = float(known["seen_s"])
    kind = next((each.removeprefix(KIND) for each in engine.kinds_of(known)), None)
    trips = []
    try:
        found = joined.ask(name, "describe")
        for _ in range(_TRIPS):
            sent_s = time.time()
            at_s = joined.ask(name, "clock")
            got_s = time.time()
            trips.append((got_s - sent_s, at_s - (sent_s + got_s) / 2))
    except DeviceError as error:
        return HostThere(name, kind, seen_s=seen_s, said=str(error))
    trip_s, ahead_s = min(trips)
    other = found["pepper"] != pepper.__version__
    return HostThere(
        name,
        kind,
        processor=found["facts"]["cpu_model"],
        onnxruntime=found["onnxruntime"],
        providers=tuple(found["providers"]),
        pepper=found["pepper"],
        cores=len(found["cores"]),
        memory_bytes=found["facts"]["memory_bytes"],
        load=found["state"]["load_average"][0],
        pace=found["pace"],
        runs=tuple(found["runs"]),
        clock_ms=1000 * ahead_s,
        clock_within_ms=500 * trip_s,
        agent_memory_bytes=found["agent_memory_bytes"],
        seen_s=seen_s,
        said=f"has pepper {found['pepper']}; install {pepper.__version__}" if other else "",
    )
