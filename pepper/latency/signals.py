"""Signals that wait."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def held() -> Iterator[None]:
    """Hold Ctrl-C and termination back until the block's end.

    A Python exception in a callback that a C library has called does not come out of the library as what it was.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Python runs handlers in the main thread only
        return
    came: list[tuple[int, FrameType | None]] = []
    before = {
        number: signal.signal(number, lambda *what: came.append(what)) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for which, frame in came:
        handler = before[signal.Signals(which)]
        if callable(handler):
            handler(which, frame)
        elif handler == signal.SIG_DFL:
            signal.raise_signal(which)
