"""What every task returns."""

from dataclasses import dataclass
from typing import Self

from pepper.tracking.writer import Written

TRAINING = "training"
"""The kind of run that a version of the latency model comes from."""


@dataclass(frozen=True)
class Result:
    """What came of a task; those whose outcome others go on with add it.

    Attributes:
        status: The command line's exit status: 0 if it did what was asked.
    """

    status: int = 0


@dataclass(frozen=True, kw_only=True)
class Registered(Result):
    """What came of a training or an adaptation: a version of the latency model.

    Attributes:
        version: The registered version.
        run_id: Its run.
    """

    version: int
    run_id: str

    @classmethod
    def of(cls, written: Written) -> Self:
        """Return what a task returns that wrote a run with a version."""
        assert written.version is not None
        return cls(version=written.version, run_id=written.run_id)
