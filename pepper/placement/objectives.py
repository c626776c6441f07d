"""What a plan can be best at, each as a value: how costs combine along a plan, and what of a run shows it."""

from dataclasses import dataclass
from typing import Annotated, Protocol

from annotated_types import Ge

from pepper.errors import PlacementError, nearest
from pepper.units import period_of_ms


class Costed(Protocol):
    """What a plan is predicted to cost."""

    @property
    def latency_ms(self) -> float:
        """Mean time of one request."""

    @property
    def period_ms(self) -> float:
        """Time between two results of a stream."""

    @property
    def energy_j(self) -> float:
        """Energy of one request above idle; infinite where a device's is not known."""

    @property
    def part_count(self) -> int:
        """How many parts it has."""


@dataclass(frozen=True)
class Objective:
    """What is minimised.

    Attributes:
        name: How configurations, plans and runs call it.
        what: What a sentence calls its value.
        bottleneck: Whether the costs of parts and transfers combine by their maximum, as for a stream; else they add
            up, as for one request.
        per_ms: Weight of the time. At 0 it only decides between plans that are equal otherwise.
        per_part: Cost of a part, in milliseconds where time counts.
        per_joule: Weight of the energy, likewise.

    Raises:
        ValueError: Nothing counts.
    """

    name: str
    what: str
    bottleneck: bool = False
    per_ms: Annotated[float, Ge(0)] = 1.0
    per_part: Annotated[float, Ge(0)] = 0.0
    per_joule: Annotated[float, Ge(0)] = 0.0

    def __post_init__(self) -> None:
        if not self.per_ms and not self.per_part and not self.per_joule:
            raise ValueError("nothing counts; give a weight of ms, joule or part")
        if self.bottleneck and (self.per_part or self.per_joule or self.per_ms != 1):
            raise ValueError("the largest of a plan's costs is a time, without weights")

    @property
    def counts(self) -> bool:
        """Whether its values are whole numbers: time only decides between equals."""
        return not self.per_ms and not self.per_joule

    @property
    def unit(self) -> str:
        """Of its values."""
        return "J" if self.per_joule and not self.per_ms and not self.per_part else "ms"

    def value(self, cost: Costed) -> float:
        """Return its value for a plan."""
        if self.bottleneck:
            return cost.period_ms
        joules = self.per_joule * cost.energy_j if self.per_joule else 0.0
        return self.per_ms * cost.latency_ms + self.per_part * cost.part_count + joules

    def measured(self, latency_ms: float, rate_per_s: float, parts: int) -> float | None:
        """Return its value for a plan that was run; None where energy counts, which runs do not measure.

        Args:
            latency_ms: Mean of single requests.
            rate_per_s: Results a second of a saturated stream.
            parts: How many parts it has.
        """
        if self.per_joule:
            return None
        if self.bottleneck:
            return period_of_ms(rate_per_s)
        return self.per_ms * latency_ms + self.per_part * parts


LATENCY = Objective("latency", "latency")
THROUGHPUT = Objective("throughput", "time between results", bottleneck=True)
ENERGY = Objective("energy", "energy of a request", per_ms=0.0, per_joule=1.0)
FEWEST_PARTS = Objective("parts", "number of parts", per_ms=0.0, per_part=1.0)
"""Not to be asked for: it decides between plans of the same period, and says how few parts a limit leaves."""

OBJECTIVES = {objective.name: objective for objective in (LATENCY, THROUGHPUT, ENERGY)}
"""Those that go by their names alone."""


def objective_named(name: str) -> Objective:
    """Return the objective of a name.

    Raises:
        PlacementError: There is none.
    """
    if name not in OBJECTIVES:
        hint = nearest(name, OBJECTIVES)
        raise PlacementError(f"objective: unknown {name!r:.60}{hint}; use one of {', '.join(OBJECTIVES)}")
    return OBJECTIVES[name]
