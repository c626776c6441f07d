"""Progress of a sweep: cells done and failed, and the time left."""

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn


class CellProgress:
    """A bar on a terminal, a line a cell elsewhere; drawn only when a cell ends, never while one is timed.

    Args:
        cells: How many cells will be measured.
        silent: Whether nothing is shown.
    """

    def __init__(self, cells: int, silent: bool = False) -> None:
        self._silent = silent
        self._cells = cells
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
            self._task = self._bar.add_task("", total=cells, failed=0, left="?")

    def advance(self, name: str, outcome: str, *, failed: bool) -> None:
        """Count a finished cell."""
        self._done += 1
        self._failed += failed
        each_s = (time.monotonic() - self._start) / self._done
        left_s = round(each_s * (self._cells - self._done))
        left = f"{left_s // 60}:{left_s % 60:02d}"
        if self._bar is not None:
            self._bar.update(self._task, advance=1, description=f"{name}: {outcome}", failed=self._failed, left=left)
            self._bar.refresh()
        elif not self._silent:
            print(f"[{self._done}/{self._cells}] {name}: {outcome} ({left} left)", file=sys.stderr, flush=True)

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
