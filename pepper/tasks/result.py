"""What every task returns."""

from dataclasses import dataclass


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
