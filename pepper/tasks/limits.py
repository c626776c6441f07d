"""Limits that no plan keeps to, by the keys that the user set."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import attrgetter

from pepper.config import PepperConfig
from pepper.errors import PlacementError
from pepper.placement.shortage import LimitError, TimeLimitError

_KEYS = {
    "latency_ms": "objective.max_latency_ms",
    "period_ms": "objective.min_per_second",
    "sent_bytes": "objective.max_sent_bytes",
    "parts": "place.max_parts",
}
_TIME_KEY = "place.time_limit_seconds"


@contextmanager
def named_by_key(config: PepperConfig) -> Iterator[None]:
    """Say which keys a solver's limits come from, and what could be had in their place.

    Raises:
        PlacementError: In place of an error of limits or of time.
    """
    try:
        yield
    except LimitError as error:
        keys = [_KEYS[limit] for limit in error.limits]
        given = ", ".join(f"{key}={attrgetter(key)(config):.10g}" for key in keys)
        if error.best is None:
            raise PlacementError(
                f"{given}: no plan keeps to them, nor with any one of them lifted; relax several"
            ) from error
        if error.limits == ("period_ms",):
            reach, change = _rounded(1000 / error.best, math.floor), "lower"
        else:
            reach, change = _rounded(error.best, math.ceil), "raise"
        raise PlacementError(f"{given}: no plan keeps to it; {reach} can be reached: {change} it") from error
    except TimeLimitError as error:
        seconds = attrgetter(_TIME_KEY)(config)
        raise PlacementError(f"{_TIME_KEY}={seconds:g}: no plan found in time, and none ruled out; raise it") from error


def _rounded(value: float, way: Callable[[float], int]) -> str:
    """Write a number to four digits, rounded so that it can be reached, too."""
    digits = max(0, 3 - math.floor(math.log10(value)))
    text = f"{way(value * 10**digits) / 10**digits:.{digits}f}"
    return text.rstrip("0").rstrip(".") if digits else text
