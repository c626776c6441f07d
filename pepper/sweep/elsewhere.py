"""Blocks of a sweep on hosts that joined: side by side, one at a time on each, while this machine measures its own."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Self

from pepper.errors import MeasureError, PepperError
from pepper.hosts.reach import joined_hosts
from pepper.interrupts import check
from pepper.measure.block import Block
from pepper.measure.launcher import failed, killed
from pepper.measure.profile import Profile
from pepper.measure.sent import measured_on
from pepper.sweep.cells import Cell

Take = Callable[[Sequence[Cell]], list[Cell]]
"""Returns which cells of a block to measure now."""

_LOOK_S = 0.5


class Elsewhere:
    """Measures blocks on other hosts, from when it is entered.

    Cells are taken and handed over in the thread that calls `step` and `finish`. A host that is lost is waited for;
    then its cells fail.

    Args:
        blocks: Cells that one worker can serve each, in the order of measurement.
        take: Asked for each block before it is measured.
        record: Takes each finished cell.
        ended: Called with the cells of a block when they are recorded.
    """

    def __init__(
        self,
        blocks: Sequence[list[Cell]],
        take: Take,
        record: Callable[[Cell, Profile], None],
        ended: Callable[[list[Cell]], None],
    ) -> None:
        self._waiting = list(blocks)
        self._take, self._record, self._ended = take, record, ended
        self._running: dict[Future[list[Profile]], list[Cell]] = {}
        self._left = False

    def __enter__(self) -> Self:
        wanted = {_where(block) for block in self._waiting}
        self._hosts = joined_hosts()
        self._room = {where: max(1, len(self._hosts.members(where))) for where in wanted}
        self._pool = ThreadPoolExecutor(max(1, sum(self._room.values())), "pepper-host")
        self.step()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left = True
        self._pool.shutdown(wait=False, cancel_futures=True)
        for cells in self._running.values():
            if isinstance(error, KeyboardInterrupt):
                self._record(cells[0], killed(time.time()))
            self._ended(cells)

    def step(self) -> None:
        """Hand over what has come, and give each host that is free its next block."""
        for future in [future for future in self._running if future.done()]:
            cells = self._running.pop(future)
            for cell, profile in zip(cells, future.result(), strict=True):
                self._record(cell, profile)
            self._ended(cells)
        busy = Counter(_where(cells) for cells in self._running.values())
        for block in list(self._waiting):
            where = _where(block)
            if busy[where] < self._room[where]:
                self._waiting.remove(block)
                if cells := self._take(block):
                    busy[where] += 1
                    self._running[self._pool.submit(self._measured, cells)] = cells

    def finish(self) -> None:
        """Wait for all blocks, and hand them over as they come."""
        while self._running or self._waiting:
            check()
            wait(self._running, _LOOK_S, "FIRST_COMPLETED")
            self.step()

    def _measured(self, cells: list[Cell]) -> list[Profile]:
        first, started_s = cells[0], time.time()
        assert first.model is not None
        block = Block(first.model, first.device, first.measure, tuple(cell.load for cell in cells))
        try:
            return measured_on(self._hosts, block, self._still)
        except PepperError as error:
            return [failed(error, started_s) for _ in cells]

    def _still(self) -> None:
        check()
        if self._left:
            raise MeasureError("nobody waits for it any more")


def _where(block: Sequence[Cell]) -> str:
    return str(block[0].device.host)
