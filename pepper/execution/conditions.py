"""What devices really gave while a plan ran: figures of a disturbed run are not to be trusted."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from pepper.config import LimitsConfig
from pepper.execution.loads import LoadMeter
from pepper.execution.pool import StagePool


@dataclass(frozen=True)
class Condition:
    """What a device gave during a span.

    Attributes:
        device: Its name.
        share: CPU share that it should give.
        given: The part of the time in which its stages were not stopped; None where nothing stops them.
        foreign_percent: CPU time on its cores that went to processes outside of the run.
        throttled_periods: In how many periods a CPU quota on the host's programs was used up.
    """

    device: str
    share: float
    given: float | None
    foreign_percent: float
    throttled_periods: int = 0

    def faults(self, limits: LimitsConfig) -> Iterator[str]:
        """Say what breaks a limit, one line each."""
        if self.given is not None and abs(self.given / self.share - 1) > limits.share_percent / 100:
            yield (
                f"share missed: {self.device} gave {self.given:.3f} of its cores, asked for {self.share:g}"
                f" (limit {limits.share_percent:g} %)"
            )
        if self.foreign_percent > limits.foreign_percent:
            yield (
                f"noisy neighbour: {self.foreign_percent:.1f} % of {self.device}'s cores went to others"
                f" (limit {limits.foreign_percent:g} %)"
            )
        if self.throttled_periods:
            yield f"CPU quota used up: the control group stopped {self.device} in {self.throttled_periods} periods"


class ConditionMeter:
    """Reads the conditions from when it is made.

    Args:
        pool: The devices in use.
    """

    def __init__(self, pool: StagePool) -> None:
        self._pool = pool
        self._before = self._given()
        self._loads = LoadMeter(pool)

    def read(self, devices: Collection[str]) -> list[Condition]:
        """Return what these devices gave since then, in the fleet's order."""
        loads, after = self._loads.read(), self._given()
        found = []
        for name, spec in self._pool.specs.items():
            if name in devices:
                (ran_s, wall_s), (ran_before_s, wall_before_s) = after[name], self._before[name]
                span_s = wall_s - wall_before_s
                given = (ran_s - ran_before_s) / span_s if span_s > 0 else None
                found.append(
                    Condition(name, spec.share, given, loads[name].foreign_percent, loads[name].throttled_periods)
                )
        return found

    def _given(self) -> dict[str, tuple[float, float]]:
        return {name: self._pool.device(name).given() or (0.0, 0.0) for name in self._pool.specs}
