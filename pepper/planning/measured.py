"""All that was measured of a plan."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pepper.execution.adapting import Move
from pepper.execution.conditions import Condition
from pepper.execution.links import MeasuredHop
from pepper.execution.runner import Answer, Event
from pepper.execution.trials import Trial, steps
from pepper.planning.other_plans import Others


@dataclass(frozen=True)
class Adapted:
    """A stream at a rate, during which the pipeline could move to other plans.

    Attributes:
        trial: The stream.
        started_ns: When it began (monotonic clock).
        moves: The moves.
        events: What happened to the pipeline.
    """

    trial: Trial
    started_ns: int
    moves: list[Move]
    events: list[Event]


@dataclass(frozen=True)
class MeasuredPlan:
    """All that was measured of a plan.

    Attributes:
        hops: Its transfers, measured before the run.
        single: One request at a time.
        stream: As many as possible.
        arrivals: At a rate.
        rate_per_s: That rate.
        usage: CPU time and memory of each stage.
        devices: Of the parts of what ran at the end of the three trials.
        events: What happened to the pipeline in the three trials.
        conditions: What its devices gave meanwhile.
        faults: What of that makes the figures INVALID.
        adapted: A stream during which it could move to other plans, if one was run.
        others: What came of other plans.
        refused: Connections from outside of the run that its queues refused.
    """

    hops: list[MeasuredHop]
    single: Trial
    stream: Trial
    arrivals: Trial
    rate_per_s: float
    usage: list[dict[str, Any]]
    devices: tuple[str, ...]
    events: list[Event]
    conditions: list[Condition]
    faults: list[str]
    adapted: Adapted | None = None
    others: Others = field(default_factory=Others)
    refused: int = 0

    @property
    def trials(self) -> tuple[Trial, ...]:
        """The three trials, and the fourth if there is one."""
        return (self.single, self.stream, self.arrivals, *([self.adapted.trial] if self.adapted else []))

    @property
    def lost(self) -> bool:
        """Whether a device was lost in the three trials: they then measured more than the plan."""
        return any(event.kind == "lost" for event in self.events)

    @property
    def all_events(self) -> list[Event]:
        """What happened to the pipeline in any trial, also of other plans."""
        return [*self.events, *(self.adapted.events if self.adapted else []), *self.others.events]

    @property
    def failures(self) -> list[str]:
        """Why requests failed, in any trial; and why other plans did."""
        return [*(reason for trial in self.trials for reason in trial.failures), *self.others.failures]

    @property
    def latency_ms(self) -> float:
        """Mean of single requests."""
        return float(np.mean(self.single.latency_ms))

    @property
    def difference(self) -> float:
        """Largest difference to the whole model's outputs, of any answer."""
        return max(*(trial.difference for trial in self.trials), *(run.difference for run in self.others.runs))

    @property
    def refusals(self) -> list[str]:
        """That its queues refused connections from outside of the run, if they did."""
        count = f"{self.refused} connection{'s' if self.refused > 1 else ''}"
        return [f"execute.transport.port: {count} from outside of the run refused"] if self.refused else []

    @property
    def excess(self) -> float:
        """Largest multiple of the accepted difference, of any answer."""
        return max(trial.excess for trial in self.trials)


@dataclass
class Kept:
    """What is there to keep, however the run ends.

    Attributes:
        answers: Of each trial, by its name; a trial adds to its list.
        events: What happened to the pipeline.
        others: What came of the other plans.
        logged: Whether the run is in MLflow, or beside it.
    """

    answers: dict[str, list[Answer]] = field(default_factory=lambda: defaultdict(list))
    events: list[Event] = field(default_factory=list)
    others: Others = field(default_factory=Others)
    logged: bool = False

    def rows(self) -> list[dict[str, Any]]:
        """Return a row a request: when it arose, how long it took, and where that time went (ms)."""
        return [
            {
                "trial": name,
                "request": answer.seq,
                "arose_ms": (answer.submitted_ns - answers[0].submitted_ns) / 1e6,
                "latency_ms": answer.latency_ms if answer.error is None else None,
                "error": answer.error,
                "plan": answer.layout,
                "attempts": answer.attempts,
                **_steps(answer),
            }
            for name, answers in self.answers.items()
            for answer in answers
        ]


def _steps(answer: Answer) -> dict[str, float]:
    """Return a request's steps by name: those before the first stage have number 1."""
    if not answer.stamps:
        return {}
    return {
        f"{name}_{number}_ms": value
        for name, values in vars(steps(answer)).items()
        for number, value in enumerate(values, 1)
    }
