"""A clock that nobody sets, for the engine: whose wall clock is set must be neither silent nor taken for lost.

The engine plans its heartbeats by the wall clock (tornado's `IOLoop.time`): where that is set back, none is sent for as
long. The head judges by it who was silent for too long.
"""

import time
from typing import Any

_BEGAN_S = time.time() - time.monotonic()


def now_s() -> float:
    """Return seconds since 1970, by the wall clock as it went when this process began."""
    return _BEGAN_S + time.monotonic()


def give(distributed: Any) -> None:
    """Let the engine, in this process, go by this clock."""
    from tornado.ioloop import IOLoop

    IOLoop.time = lambda self: now_s()  # type: ignore[method-assign]
    distributed.scheduler.time = now_s
