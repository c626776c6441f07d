"""Standard output and standard error that may be closed, full or gone: a task goes on, and what it measures is kept."""

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator
from typing import Any

from pepper.errors import PepperError, refusal


class _Lasting:
    """A stream that can no longer be written to takes what is written all the same, and remembers why.

    Args:
        stream: The stream.
        pipe: Whether a reader that has ended is passed on, as with ``| head``.
    """

    def __init__(self, stream: Any, pipe: bool) -> None:
        self._stream = stream
        self._pipe = pipe
        self.lost: OSError | None = None

    def write(self, text: str) -> int:
        """Write a text."""
        with self._losing():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Write what waits to be written."""
        with self._losing():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextlib.contextmanager
    def _losing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno == errno.EPIPE and self._pipe:
                raise
            self.lost = self.lost or error
            discard(self._stream.fileno())


def discard(descriptor: int) -> None:
    """Let whatever is written to a descriptor from now on go nowhere."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere != descriptor:
        os.dup2(nowhere, descriptor)
        os.close(nowhere)


def reopen_closed() -> None:
    """Open standard streams that the caller has closed: else the next file that is opened takes their place."""
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(descriptor)
        except OSError:
            discard(descriptor)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(descriptor, mode, closefd=False))


@contextlib.contextmanager
def lasting() -> Iterator[None]:
    """Let the program outlive its streams; characters that a stream's encoding lacks are written as their numbers.

    Raises:
        PepperError: At the end: standard output could not be written, though all else was done.
        BrokenPipeError: Standard output's reader has ended.
    """
    before = sys.stdout, sys.stderr
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    out, err = _Lasting(sys.stdout, pipe=True), _Lasting(sys.stderr, pipe=False)
    sys.stdout, sys.stderr = out, err
    try:
        yield
        out.flush()
    finally:
        err.flush()
        sys.stdout, sys.stderr = before
    if out.lost is not None:
        raise PepperError(f"stdout: cannot be written ({refusal(out.lost)}); send it elsewhere") from out.lost
