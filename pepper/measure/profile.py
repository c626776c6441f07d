"""What one cell's measurement gives: samples, figures, surroundings and a verdict."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np


class Again(StrEnum):
    """Why a sweep measures a cell again that it has measured."""

    retry = "retry"  # it was INVALID; the newest result counts
    retest = "retest"  # to see how far two measurements differ; the first result counts
    repeat = "repeat"  # two measurements of it lay far apart; the newest result counts
    order = "order"  # it contradicted another cell; what was measured of it before counts no more


@dataclass
class Profile:
    """The samples of a cell with their statistics and verdict.

    Attributes:
        status: ``FINISHED``, ``FAILED`` or ``KILLED``.
        verdict: ``VALID`` or ``INVALID``; empty where nothing was measured.
        reasons: Why it is INVALID or FAILED, one sentence each.
        notes: What else to know of the figures, one sentence each.
        metrics: Figures; each name carries its unit.
        samples: ``start_ns`` (since the timed span's start) and ``latency_ns``, shape (n,) each.
        environment: State of the machine before and after, and facts of the worker.
        operators: onnxruntime's per-operator profile (JSON text), where asked for.
        started_s: When it began, seconds since 1970.
        ended_s: When it ended.
    """

    status: Literal["FINISHED", "FAILED", "KILLED"]
    started_s: float
    ended_s: float
    verdict: str = ""
    reasons: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    samples: "dict[str, np.ndarray[Any, Any]]" = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    operators: str | None = None

    @property
    def trusted(self) -> bool:
        """Whether the figures may be used."""
        return self.status == "FINISHED" and self.verdict == "VALID"
