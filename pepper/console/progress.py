"""Progress of a task of many steps: how many are done and failed, and the time left."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Self, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from pepper.interrupts import check

Item = TypeVar("Item")

Told = Callable[[str, str], None]
"""Is told what was done, and what came of it."""

SELDOM_S = 2.0
"""Seconds between lines; so what takes less than this shows none."""


class StepProgress:
    """A bar on a terminal, a line a step elsewhere, on stderr; drawn only when a step ends, never while one is timed.

    Args:
        steps: How many steps there will be, each of about the same length.
        silent: Whether nothing is shown.
        seldom: Whether steps are no news by themselves: then at most a line is shown in `SELDOM_S`, and a bar as ever.
    """

    def __init__(self, steps: int, silent: bool = False, seldom: bool = False) -> None:
        self._silent = silent
        self._every_s = SELDOM_S if seldom else 0.0
        self._steps = steps
        self._done = self._failed = 0
        self._start = self._shown = time.monotonic()
        self._bar: Progress | None = None
        if sys.stderr.isatty() and not silent:
            self._bar = Progress(
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[failed]} failed", style="red"),
                TextColumn("{task.fields[left]} left"),
                TextColumn("{task.description}", markup=False),
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

    def extend(self, steps: int) -> None:
        """Add steps."""
        self.skip(-steps)

    def advance(self, name: str, outcome: str = "", *, failed: bool = False) -> None:
        """Count a finished step; between steps, a signal may end the task."""
        self._done += 1
        self._failed += failed
        now = time.monotonic()
        each_s = (now - self._start) / self._done
        left_s = round(each_s * max(0, self._steps - self._done))
        left = f"{left_s // 60}:{left_s % 60:02d}"
        said = f"{name}: {outcome}" if outcome else name
        if self._bar is not None:
            self._bar.update(self._task, advance=1, description=said, failed=self._failed, left=left)
            self._bar.refresh()
        elif not self._silent and now - self._shown >= self._every_s:
            self._shown = now
            print(f"[{self._done}/{self._steps}] {said} ({left} left)", file=sys.stderr, flush=True)
        check()

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


def untold(name: str, outcome: str) -> None:
    """Show nothing of a step."""


def stepwise(what: str, silent: bool) -> Callable[[Sequence[Item]], Iterator[Item]]:
    """Return what passes items on and meanwhile shows how many are done, if that takes its time.

    Args:
        what: What is done with each.
        silent: Whether nothing is shown.
    """

    def passed(items: Sequence[Item]) -> Iterator[Item]:
        with StepProgress(len(items), silent, seldom=True) as progress:
            for item in items:
                yield item
                progress.advance(what)

    return passed
