"""The fleet: devices under their loads, and the links between them. Plain values, all of which a plan's file holds."""

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt

from pepper.config import DeviceConfig, LoadConfig
from pepper.units import ms_per_byte

_LONGEST_NAME = 250
_NAME = re.compile(r"[\w. -]+(#\d+)?")
"""What MLflow takes as a part of a metric's name, and the number of a device of several equal ones."""


@dataclass(frozen=True)
class Link:
    """The way from one device to another.

    Attributes:
        bandwidth_mbit_s: Megabits (10^6) a second; None is unlimited.
        latency_ms: Delay of every byte; it does not occupy the link.
        forwarded_mbit_s: Where a hub is between them: how fast it sends on what it has received. Of the two ways
            this is the quicker one, which does not bound the throughput. None: there is none, or it takes no time.
        energy_nj_per_byte: What sending and receiving a byte takes, above idle; 0 where it is not counted.

    Raises:
        ValueError: A number is out of range.
    """

    bandwidth_mbit_s: Annotated[float, Gt(0)] | None = None
    latency_ms: Annotated[float, Ge(0)] = 0.0
    forwarded_mbit_s: Annotated[float, Gt(0)] | None = None
    energy_nj_per_byte: Annotated[float, Ge(0)] = 0.0

    def __post_init__(self) -> None:
        for name in ("bandwidth_mbit_s", "forwarded_mbit_s"):
            rate = getattr(self, name)
            if rate is not None and not rate > 0:
                raise ValueError(f"{name} is {rate}; give a number above 0")
        for name in ("latency_ms", "energy_nj_per_byte"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; give a number of at least 0")

    @property
    def is_free(self) -> bool:
        """Whether what goes over it takes no time."""
        return not self.ms_per_byte and not self.latency_ms

    @property
    def occupied_ms_per_byte(self) -> float:
        """How long a byte occupies the busiest hop."""
        return ms_per_byte(self.bandwidth_mbit_s)

    @property
    def ms_per_byte(self) -> float:
        """How long a byte takes from end to end: a hub sends a message on only when all of it is there."""
        return self.occupied_ms_per_byte + ms_per_byte(self.forwarded_mbit_s)

    @property
    def joules_per_byte(self) -> float:
        """Energy of a byte."""
        return self.energy_nj_per_byte / 1e9

    def transfer_ms(self, count: float) -> float:
        """Return how long this many bytes take if nothing else is on the link."""
        return self.latency_ms + count * self.ms_per_byte

    @classmethod
    def through_hub(cls, up: "Link", down: "Link") -> "Link":
        """Join the ways to and from a hub that stores and forwards."""
        rates = [link.bandwidth_mbit_s or math.inf for link in (up, down)]
        slower, quicker = (rate if rate < math.inf else None for rate in sorted(rates))
        energy_nj = up.energy_nj_per_byte + down.energy_nj_per_byte
        return cls(slower, up.latency_ms + down.latency_ms, quicker, energy_nj)


@dataclass(frozen=True, kw_only=True)
class FleetLink(Link):
    """A link, and whom it connects.

    Attributes:
        origin: Name of the device that sends.
        target: Name of the device that receives.
    """

    __pydantic_config__: ClassVar = {"alias_generator": lambda name: {"origin": "from", "target": "to"}.get(name, name)}

    origin: str
    target: str


@dataclass(frozen=True)
class FleetDevice:
    """A device of a fleet, under its load.

    Attributes:
        device: What it is, cores included; None where a plan came from numbers alone.
        load: What else runs there; None likewise.
        count: How many there are of it.
        power_w: What each takes above idle while it works; None is not known.
    """

    device: DeviceConfig | None = None
    load: LoadConfig | None = None
    count: Annotated[int, Ge(1)] = 1
    power_w: Annotated[float, Ge(0)] | None = None


@dataclass(frozen=True)
class Fleet:
    """Devices, the links between them, and where inputs arise and outputs are wanted.

    Attributes:
        devices: By name, in order.
        links: From one device to another; where there is none, nothing can be sent.
        source: Name of the device at which the input arises; None: its transfer is not counted.
        sink: Name of the device at which the output is wanted; None: its transfer is not counted.

    Raises:
        ValueError: A name is none, or is not among the devices.
    """

    devices: Mapping[str, FleetDevice]
    links: tuple[FleetLink, ...] = ()
    source: str | None = None
    sink: str | None = None

    def __post_init__(self) -> None:
        for name in self.devices:
            if not _NAME.fullmatch(name) or len(name) > _LONGEST_NAME:
                raise ValueError(f"device {name!r:.60}: give a name of letters, digits, spaces and _.-")
        ends = [end for link in self.links for end in (link.origin, link.target)]
        for end in (*ends, self.source, self.sink):
            if end is not None and end not in self.devices:
                raise ValueError(f"{end!r} is not among the fleet's devices")

    @property
    def load_percent(self) -> dict[str, float]:
        """The percentage of each device's load, by device; 0 where none is said."""
        return {name: entry.load.percent if entry.load else 0.0 for name, entry in self.devices.items()}

    @property
    def unmeasured(self) -> tuple[str, ...]:
        """The devices whose power is not known."""
        return tuple(name for name, entry in self.devices.items() if entry.power_w is None)

    @cached_property
    def between(self) -> Mapping[tuple[str, str], FleetLink]:
        """The links by the names of the two devices, in the direction of travel."""
        return {(link.origin, link.target): link for link in self.links}


def everywhere(names: Collection[str], link: Link) -> tuple[FleetLink, ...]:
    """Return links of one kind between all devices."""
    return connected({(origin, target): link for origin in names for target in names if origin != target})


def connected(links: Mapping[tuple[str, str], Link]) -> tuple[FleetLink, ...]:
    """Return links by the names of the two devices as a fleet's."""
    return tuple(FleetLink(**vars(link), origin=origin, target=target) for (origin, target), link in links.items())
