"""Progress of a task of many steps: how many are done and failed, and the time left."""

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn


class StepProgress:
    """A bar on a terminal, a line a step elsewhere, on stderr; drawn only when a step ends, never while one is timed.

    Args:
        steps: How many steps there will be, each of about the same length.
        silent: Whether nothing is shown.
    """

    def __init__(self, steps: int, silent: bool = False) -> None:
        self._silent = silent
        self._steps = steps
        self._done = self._failed = 0
        self._start = time.monotonic()
        self._bar: Progress | None = None
        if sys.stderr.isatty() and not silent:
            self._bar = Progress(
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("[red]{task.fields[failed]} failed"),
                TextColumn("{task.fields[left]} left"),
                TextColumn("{task.description}"),
                console=Console(stderr=True),
                auto_refresh=False,
                transient=True,
            )
            self._task = self._bar.add_task("", total=steps, failed=0, left="?")

    def skip(self, steps: int) -> None:
        """Leave out steps that were done before."""
        self._steps -= steps
        if self._bar is not None:
            self._bar.update(self._task, total=self._steps)

    def advance(self, name: str, outcome: str, *, failed: bool = False) -> None:
        """Count a finished step."""
        self._done += 1
        self._failed += failed
        each_s = (time.monotonic() - self._start) / self._done
        left_s = round(each_s * max(0, self._steps - self._done))
        left = f"{left_s // 60}:{left_s % 60:02d}"
        if self._bar is not None:
            self._bar.update(self._task, advance=1, description=f"{name}: {outcome}", failed=self._failed, left=left)
            self._bar.refresh()
        elif not self._silent:
            print(f"[{self._done}/{self._steps}] {name}: {outcome} ({left} left)", file=sys.stderr, flush=True)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
