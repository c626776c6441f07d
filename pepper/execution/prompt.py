"""What carries requests goes first: it stands for the network and the world outside, not for a device's work.

Otherwise a device that is busy (or the filler beside it) would keep the driver, or a transport's thread, from its core
for some milliseconds at each hop, and that would count as the plan's latency. Both use little time. Where the system
does not allow it, nothing changes.
"""

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def prompt_driver() -> Iterator[None]:
    """Run this thread before all others; processes that it starts are not preferred."""
    prefer(0)
    try:
        yield
    finally:
        with contextlib.suppress(OSError, AttributeError):
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def prefer(task: int) -> None:
    """Run a thread of this machine (0: this one) before all that are not preferred."""
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setscheduler(task, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
