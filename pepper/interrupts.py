"""Signals that ask pepper to end: each is remembered until it has ended what runs, so that none is lost.

A handler that raises can be called anywhere, also where a C library has called back into Python: what it raises there
is printed and forgotten. So a signal only leaves its mark, which is looked at between one piece of work and the next
(`check`) and by whoever waits (`wait_readable`). Where neither comes within `GRACE_S`, in a library's long loop, it is
raised wherever the program is, and again until it is on its way out.
"""

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from types import FrameType

GRACE_S = 1.0
"""How long the next safe point may be away. A second signal after that hurries: it is raised at once."""

AGAIN_S = 0.02
"""How soon an interrupt is raised again that has got lost in a callback or a finaliser."""

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """A signal asked pepper to end; unwinds like Ctrl-C, so that children end and what is finished is kept.

    Args:
        number: The signal.
    """

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__()
        self.number = number

    @property
    def word(self) -> str:
        """How people call it."""
        return "interrupted" if self.number == signal.SIGINT else "terminated"

    @property
    def status(self) -> int:
        """The exit status, as of a program that the signal has ended."""
        return 128 + self.number


class _Wish:
    """The first signal that came, and a descriptor that is readable from then on."""

    def __init__(self, wakeup: int) -> None:
        self.wakeup = wakeup
        self.number: int | None = None
        self.since_s = 0.0


_wish: _Wish | None = None


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """Heed signals until the block's end, in the main thread.

    Raises:
        Interrupted: A signal came.
    """
    global _wish
    read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    _wish = _Wish(read)
    # What is ignored stays so: nohup, and a script's background jobs, count on it.
    handlers = {number: _note for number in _ENDING if signal.getsignal(number) is not signal.SIG_IGN}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    before[signal.SIGALRM] = signal.signal(signal.SIGALRM, _insist)
    before_wakeup, before_hook = signal.set_wakeup_fd(write, warn_on_full_buffer=False), sys.unraisablehook
    # What gets lost in a callback is raised again, and no news.
    sys.unraisablehook = lambda lost: None if lost.exc_type is Interrupted else before_hook(lost)
    try:
        yield
    finally:
        for number, handler in before.items():  # the alarm's is the last: until then it may be set
            if number == signal.SIGALRM:
                signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(number, handler)
        signal.set_wakeup_fd(before_wakeup)
        sys.unraisablehook = before_hook
        came, _wish = _wish.number, None
        os.close(read)
        os.close(write)
        if came is not None and not isinstance(sys.exception(), KeyboardInterrupt):
            raise Interrupted(came)  # it came too late for a safe point, or what it raised became another error


def check() -> None:
    """End here if a signal has asked for it: a safe point.

    Raises:
        Interrupted: It has, and nothing is ending yet.
    """
    if _wish is not None and _wish.number is not None and not _ending():
        raise Interrupted(_wish.number)


def wait_readable(descriptors: Sequence[int], timeout_ms: int | None = None) -> list[int]:
    """Wait until something can be read, without using CPU time; a signal ends the wait.

    Args:
        descriptors: What to wait for.
        timeout_ms: Longest wait; None is no limit.

    Returns:
        Those that are readable, or closed at the other end; none after the timeout.

    Raises:
        Interrupted: A signal came.
    """
    check()
    poller = select.poll()
    for descriptor in descriptors:
        poller.register(descriptor, select.POLLIN)
    wish = _wish if not _ending() else None
    if wish is not None:
        poller.register(wish.wakeup, select.POLLIN)
    ready = [descriptor for descriptor, _ in poller.poll(timeout_ms)]
    if wish is not None and wish.wakeup in ready:
        raise Interrupted(wish.number or signal.SIGINT)  # in another thread, the handler may be yet to run
    return ready


@contextlib.contextmanager
def signals_deferred() -> Iterator[None]:
    """Hold signals back until the block's end, where a C library calls back into Python, or a step must be whole."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python runs handlers in the main thread only
        return
    came: list[tuple[int, FrameType | None]] = []
    before = {number: signal.signal(number, lambda *what: came.append(what)) for number in (*_ENDING, signal.SIGALRM)}
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


def _note(number: int, frame: FrameType | None) -> None:
    """Remember the first signal; a later one hurries."""
    assert _wish is not None
    if _wish.number is None:
        _wish.number, _wish.since_s = number, time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, GRACE_S, AGAIN_S)
    elif time.monotonic() - _wish.since_s > GRACE_S:
        raise Interrupted(_wish.number)


def _insist(number: int, frame: FrameType | None) -> None:
    """Raise where the program is: no safe point has come, or what was raised got lost."""
    check()


def _ending() -> bool:
    """Whether an interrupt is on its way out: what runs in this thread is only what cleans up after it."""
    error = sys.exception()
    while error is not None and not isinstance(error, Interrupted):
        error = error.__context__
    return error is not None
