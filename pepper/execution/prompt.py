"""What carries requests goes first: it stands for the network and the world outside, not for a device's work.

Otherwise a device that is busy (or the filler beside it) would keep a transport's thread from its core for some
milliseconds at each hop, and that would count as the plan's latency. Both use little time. Where the system
does not allow it, nothing changes.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import zmq

_TRANSPORT = "ZMQbg"  # what libzmq calls its threads


def prompt_transport(context: "zmq.Context[zmq.Socket[bytes]]") -> None:
    """Run the context's own threads before all others of the machine."""
    context.socket(zmq.PAIR).close()  # starts them
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            if (task / "comm").read_text().startswith(_TRANSPORT):
                _prefer(int(task.name))


@contextlib.contextmanager
def prompt_driver() -> Iterator[None]:
    """Run this thread before all others; processes that it starts are not preferred."""
    _prefer(0)
    try:
        yield
    finally:
        with contextlib.suppress(OSError, AttributeError):
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def _prefer(task: int) -> None:
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setscheduler(task, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
