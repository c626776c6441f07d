"""Which cells are this sweep's, where others on the same tracking folder measure the same ones."""

import sys
import time
from collections.abc import Sequence
from typing import Any

from pepper.config.measuring import Rerun
from pepper.errors import TrackingError
from pepper.interrupts import wait_readable
from pepper.sweep.cells import Cell
from pepper.tasks.cell_log import CellLog, cell_row
from pepper.tracking.history import STANDING, finished_cells, history
from pepper.tracking.leases import Leases
from pepper.tracking.locks import LOOK_MS, WORD_AFTER_S
from pepper.tracking.outbox import Outbox
from pepper.tracking.profiles import outcome
from pepper.tracking.runs import CELL
from pepper.tracking.store import Store

_FINISHED = STANDING[Rerun.none]


class SharedCells:
    """Claims that other sweeps respect, and that respect theirs; implements `pepper.sweep.runner.Claims`.

    What another sweep has finished since this one began is taken over, whatever its verdict.

    Args:
        leases: The cells under way.
        store: Where results are logged.
        log: Takes what others have measured.
        before: The newest results of the cells that this sweep knows of, by their identities.
    """

    def __init__(self, leases: Leases, store: Store, log: CellLog, before: dict[str, dict[str, Any]]) -> None:
        self._leases = leases
        self._store = store
        self._log = log
        self._before = before

    def take(self, cells: Sequence[Cell]) -> tuple[list[Cell], list[Cell]]:
        """Return those to measure now, and those that another sweep has under way; the rest is taken over."""
        ours: list[Cell] = []
        theirs: list[Cell] = []
        for cell in cells:
            (ours if self._leases.take(cell.identity) else theirs).append(cell)
        finished = {} if self._leases.alone else self._finished(ours)  # asked for once nobody else can be at them
        for cell in ours:
            if cell.identity in finished:
                self._log.reuse(cell, finished[cell.identity])
                self._leases.give_back(cell.identity)
        return [cell for cell in ours if cell.identity not in finished], theirs

    def give_back(self, cells: Sequence[Cell]) -> None:
        """Let others have what was taken."""
        for cell in cells:
            self._leases.give_back(cell.identity)

    def wait(self, cells: Sequence[Cell]) -> bool:
        """Wait until one of the cells that another has under way is free; False if that takes too long."""
        started, told = time.monotonic(), False
        limit_s = sum(cell.measure.time_limit_seconds for cell in cells)
        while all(holders := [self._leases.holder(cell.identity) is not None for cell in cells]):
            waited_s = time.monotonic() - started
            if waited_s > limit_s:
                return False
            if waited_s > WORD_AFTER_S and not told:
                told = True
                print(
                    f"waiting for {len(holders)} cells that process {self._leases.holder(cells[0].identity)} measures",
                    file=sys.stderr,
                    flush=True,
                )
            wait_readable([], LOOK_MS)
        return True

    def _finished(self, cells: Sequence[Cell]) -> dict[str, dict[str, Any]]:
        """Return what others have finished of some cells: first what waits to be logged, then what is logged."""
        wanted = {cell.identity: cell for cell in cells}
        found = {}
        for waiting in Outbox(self._store.folder).all() if wanted else ():
            record = waiting.record
            identity = str(record.tags.get("pepper.cell"))
            theirs = record.kind == CELL and not self._log.has(record.key)
            if theirs and identity in wanted and record.status == "FINISHED":
                found[identity] = cell_row(wanted[identity], outcome(record))
        try:
            logged = finished_cells(history(self._store), _FINISHED, wanted) if wanted else {}
        except TrackingError:  # it will be said when this sweep logs its own
            logged = {}
        before = {identity: result.get("run_id") for identity, result in self._before.items()}
        return found | {key: result for key, result in logged.items() if before.get(key) != result["run_id"]}
