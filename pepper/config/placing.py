"""Where parts may run and what is wanted: fleets, links, objectives."""

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pepper.config.checks import MISSING, a_name, one_of, within
from pepper.errors import ConfigError, nearest


class PlanGraph(StrEnum):
    """How the parts of a plan belong together."""

    chain = "chain"
    dag = "dag"


class Precision(StrEnum):
    """What a part computes in."""

    fp32 = "fp32"
    fp16 = "fp16"
    int8 = "int8"


PARETO = "pareto"
"""The objective that asks for all trade-offs of latency and throughput."""

PARETO_ENERGY = "pareto_energy"
"""The one that asks for all trade-offs of these and energy."""

ENERGY = "energy"
"""The objective of the least energy."""

FOUND = "found"
"""In place of a load's option: what other programs use of the device right now."""

MEASURED = "measured"
"""In place of a link's numbers: what the way between two hosts carries right now."""


@dataclass
class LinkConfig:
    """A connection of two devices, each direction for itself.

    Attributes:
        name: How tables call it.
        bandwidth_mbit_s: What it carries, in megabits (1e6) a second of payload; None is unlimited.
        latency_ms: Time that a message takes besides, one way.
        energy_nj_per_byte: What sending and receiving a byte takes above idle, nanojoules; 0 is not counted.
    """

    bandwidth_mbit_s: float | None = MISSING
    latency_ms: float = MISSING
    name: str | None = None
    energy_nj_per_byte: float = 0.0

    def __post_init__(self) -> None:
        within("link.bandwidth_mbit_s", self.bandwidth_mbit_s, 0, above=True)
        within("link.latency_ms", self.latency_ms, 0)
        within("link.energy_nj_per_byte", self.energy_nj_per_byte, 0)


@dataclass
class FleetDeviceConfig:
    """A device of a fleet, or several equal ones.

    Attributes:
        device: Option of the group ``device``.
        load: Option of the group ``load``, or ``found``.
        cores: Which of this machine's cores: 0 is the first, -1 the last; None leaves it to the device.
        count: How many there are of it.
        overrides: Keys of the device that differ from the option's.
        power_w: What it takes above idle while it works, as stated; None is not known.
    """

    device: str = MISSING
    load: str = "idle"
    cores: list[int] | None = None
    count: int = 1
    overrides: dict[str, Any] = field(default_factory=dict)
    power_w: float | None = None

    def __post_init__(self) -> None:
        within("fleet.devices.count", self.count, 1)
        within("fleet.devices.power_w", self.power_w, 0)


@dataclass
class FleetConfig:
    """Devices and how they are connected.

    Attributes:
        name: How runs and tables call it.
        devices: The devices by name.
        source: Where the input arises; None: everywhere, its transfer is not counted.
        sink: Where the output is wanted; None: anywhere, its transfer is not counted.
        links: Links of pairs, such as ``camera->server: lte``: an option of the group ``link`` or its numbers.
            Such a link serves both directions unless the other one is listed too.
        mesh: Whether pairs that are not listed are connected as the group ``link`` says.
        hub: Each device's link to a hub that everything goes through, in place of ``links``; ``up`` and
            ``down`` where the directions differ.
    """

    name: str = MISSING
    devices: dict[str, FleetDeviceConfig] = field(default_factory=dict)
    source: str | None = None
    sink: str | None = None
    links: dict[str, Any] = field(default_factory=dict)
    mesh: bool = True
    hub: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.devices:
            raise ConfigError(
                "fleet.devices: is empty; list some in the fleet's option file, or give fleet=three_shares"
            )
        if self.hub and self.links:
            raise ConfigError("fleet.hub: fleet.links connects the devices already; drop one of them")
        for device in self.devices:
            if not re.fullmatch(r"[\w. -]+", device):
                raise ConfigError(f"fleet.devices.{device!r}: write its name with letters, digits, spaces and _.- only")
        for pair in self.links:
            if pair.count("->") != 1:
                raise ConfigError(f"fleet.links.{pair}: must name two devices; write FROM->TO")


@dataclass
class ObjectiveConfig:
    """What the best plan is best at, and what every plan must keep to.

    Attributes:
        name: ``latency`` (of one request), ``throughput`` (of a stream), ``energy`` (of one request), ``pareto`` (all
            trade-offs of the first two), ``pareto_energy`` (of all three), or a name of your own for weights.
        weights: What a plan of your own objective costs: ``ms`` for each millisecond of a request (1 where it is not
            given), ``joule`` for each joule of it, ``part`` for each part.
        max_latency_ms: Most time of one request.
        min_per_second: Least results a second of a stream.
        max_energy_j: Most energy of one request above idle, of devices and links.
        max_memory_bytes: Most memory of the parts on any device, besides the device's own limit.
        max_sent_bytes: Most bytes of one request over all links.
    """

    name: str = MISSING
    weights: dict[str, float] = field(default_factory=dict)
    max_latency_ms: float | None = None
    min_per_second: float | None = None
    max_energy_j: float | None = None
    max_memory_bytes: float | None = None
    max_sent_bytes: float | None = None

    def __post_init__(self) -> None:
        named = ("latency", "throughput", ENERGY, PARETO, PARETO_ENERGY)
        if not self.weights:
            one_of("objective.name", self.name, named)
        elif self.name in named:
            raise ConfigError(f"objective.name={self.name}: has no weights; give objective.name one of your own")
        else:
            for key, weight in self.weights.items():
                one_of("objective.weights", key, ("ms", "joule", "part"))
                within(f"objective.weights.{key}", weight, 0)
        within("objective.max_latency_ms", self.max_latency_ms, 0, above=True)
        within("objective.min_per_second", self.min_per_second, 0, above=True)
        within("objective.max_energy_j", self.max_energy_j, 0)
        within("objective.max_memory_bytes", self.max_memory_bytes, 0)
        within("objective.max_sent_bytes", self.max_sent_bytes, 0)

    @property
    def counts_energy(self) -> bool:
        """Whether plans are judged by their energy."""
        named = self.name in (ENERGY, PARETO_ENERGY)
        return named or self.max_energy_j is not None or bool(self.weights.get("joule"))

    @property
    def wants_front(self) -> bool:
        """Whether all trade-offs are wanted."""
        return self.name in (PARETO, PARETO_ENERGY)


@dataclass
class PlaceConfig:
    """How ``task=place`` chooses, and where it writes.

    Attributes:
        models: Several options of ``model`` to be placed together, in place of the one model.
        rates: Of each of these, the requests a second; 1 where it is not given.
        priorities: Of each, what the time of a request weighs; 1 where it is not given.
        graph: ``chain`` (one part after the other) or ``dag`` (parts of branches run side by side on several devices,
            where that is better).
        out: Folder for plan.json and the figures; None writes none.
        split: Whether the parts are written there too.
        execute: Whether the plan is run at once, as ``task=execute`` runs it.
        pinned: By device, the operators that must stay there: how many of the first, or ``[start, end]``.
        excluded: Devices of the fleet that get no part.
        max_parts: Most parts; None is one a device, or any number where they run side by side.
        max_cuts: Most cuts to choose from; of more, those that make parts of equal work are taken.
        variants: Precisions in which a part may run; each part and device gets the quickest. ``fp32`` is the model's
            own form, whatever it computes in.
        max_error: Most that an answer may differ from the model's own, where a part runs in another precision: the
            largest difference of an element over the largest magnitude of its output, over all outputs and samples.
        calibration: ``.npz`` file of samples, arrays by input name with one axis more than the input, to measure ranges
            for 8 bits and that error on; None draws some.
        confidence: Least probability that splitting is better, for a plan that splits.
        samples: Samples of the prediction's error behind that probability.
        seed: Seed of the samples.
        time_limit_seconds: Then the best plan found is taken, with its gap.
        experiment: MLflow experiment of placements.
    """

    models: list[str] = field(default_factory=list)
    rates: dict[str, float] = field(default_factory=dict)
    priorities: dict[str, float] = field(default_factory=dict)
    graph: PlanGraph = PlanGraph.chain
    out: str | None = None
    split: bool = False
    execute: bool = False
    pinned: dict[str, Any] = field(default_factory=dict)
    excluded: list[str] = field(default_factory=list)
    max_parts: int | None = None
    max_cuts: int = 200
    variants: list[Precision] = field(default_factory=lambda: [Precision.fp32])
    max_error: float = 0.1
    calibration: str | None = None
    confidence: float = 0.6
    samples: int = 2000
    seed: int = 0
    time_limit_seconds: float = 30.0
    experiment: str = "pepper/placements"

    def __post_init__(self) -> None:
        a_name("place.experiment", self.experiment)
        within("place.max_parts", self.max_parts, 1)
        within("place.max_cuts", self.max_cuts, 1)
        within("place.max_error", self.max_error, 0, above=True)
        if not self.variants:
            raise ConfigError(f"place.variants=[]: leaves none; give some of [{','.join(Precision)}]")
        within("place.confidence", self.confidence, 0, 1)
        within("place.samples", self.samples, 1)
        within("place.seed", self.seed, 0)
        within("place.time_limit_seconds", self.time_limit_seconds, 0, above=True)
        if self.models and set(self.variants) != {Precision.fp32}:
            raise ConfigError(
                f"place.variants=[{','.join(self.variants)}]: several models are placed in their own precisions; leave"
                " it out, or place.models"
            )
        for name in self.models:
            if self.models.count(name) > 1:
                raise ConfigError(f"place.models: names {name!r} twice; give it once, at the sum of the rates")
        for key, given in (("rates", self.rates), ("priorities", self.priorities)):
            for name, value in given.items():
                if name not in self.models:
                    hint = nearest(name, self.models) or "; add it there, or leave this out"
                    raise ConfigError(f"place.{key}.{name}={value:g}: place.models does not have it{hint}")
                within(f"place.{key}.{name}", value, 0, above=True)
        for device, pin in self.pinned.items():
            start, end = _span(f"place.pinned.{device}", pin)
            self.pinned[device] = [start, end]
        if self.split and not self.out:
            raise ConfigError("place.split=true: has nowhere to write to; give place.out=DIR")


def _span(key: str, pin: Any) -> tuple[int, int]:
    """Read a pin: the first so many operators, or those from a start to an end."""
    ends = pin if isinstance(pin, list) else [0, pin]
    if len(ends) != 2 or not all(type(end) is int for end in ends) or not 0 <= ends[0] < ends[1]:
        raise ConfigError(f"{key}={pin}: give how many of the first operators, or [START,END]")
    return ends[0], ends[1]
