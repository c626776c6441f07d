"""Measures the cells of a sweep, one worker for each model and device."""

import random
import time
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Protocol

from pepper.errors import DeviceError, MeasureError
from pepper.graph.model import changed
from pepper.interrupts import check
from pepper.measure.launcher import Bench, failed, killed
from pepper.measure.profile import Profile
from pepper.sweep.cells import Cell

_TOO_LONG = "under way in another sweep for longer than it may take; end that one, and run this again"

Record = Callable[[Cell, Profile], None]
"""Takes each finished cell, in the order of measurement."""


def blocks(cells: Sequence[Cell], seed: int) -> list[list[Cell]]:
    """Group the cells that one worker can serve, in random order within and between the groups.

    A randomised block design: a drift of the machine does not look like an effect of a load, a device or
    a model.
    """
    rng = random.Random(seed)
    by_key = [list(group) for _, group in groupby(sorted(cells, key=lambda c: c.bench_key), lambda c: c.bench_key)]
    rng.shuffle(by_key)
    for block in by_key:
        rng.shuffle(block)
    return by_key


class Claims(Protocol):
    """Who measures which cell, where several sweeps may be at work on the same ones."""

    def take(self, cells: Sequence[Cell]) -> tuple[list[Cell], list[Cell]]:
        """Return those to measure now, and those that another sweep has under way; the rest needs no measuring."""

    def give_back(self, cells: Sequence[Cell]) -> None:
        """Let others have what was taken."""

    def wait(self, cells: Sequence[Cell]) -> bool:
        """Wait until one of the cells that another has under way is free; False if that takes too long."""


class Alone:
    """Claims where nobody else measures: each cell is this sweep's."""

    def take(self, cells: Sequence[Cell]) -> tuple[list[Cell], list[Cell]]:
        """Return all of them to be measured now."""
        return list(cells), []

    def give_back(self, cells: Sequence[Cell]) -> None:
        """There is nobody to have them."""

    def wait(self, cells: Sequence[Cell]) -> bool:
        """There is nothing to wait for."""
        return True


def run(
    cells: Sequence[Cell], seed: int, record: Record, between: Callable[[], None], claims: Claims | None = None
) -> None:
    """Measure every cell and hand over its profile, failed ones too.

    What another sweep has under way comes last, when that has ended.

    Args:
        cells: What to measure.
        seed: Seed of the order.
        record: Called with every cell as soon as it has ended.
        between: Called where nothing is being timed and no load runs.
        claims: Who measures which cell; None if there is no other sweep.

    Raises:
        KeyboardInterrupt: After the running cell was recorded as KILLED.
    """
    claims = claims or Alone()
    left = blocks(cells, seed)
    while left:
        elsewhere = []
        for block in left:
            waiting, theirs = claims.take(block)
            taken = list(waiting)
            try:
                while waiting:
                    check()
                    waiting = _run_block(waiting, record)
                if taken:
                    between()
            finally:
                claims.give_back(taken)
            elsewhere += [theirs] if theirs else []
        left = elsewhere
        under_way = [cell for block in elsewhere for cell in block]
        if under_way and not claims.wait(under_way):
            for cell in under_way:
                record(cell, failed(MeasureError(_TOO_LONG), time.time()))
            break


def _run_block(cells: list[Cell], record: Record) -> list[Cell]:
    """Measure cells with one worker; return those that need a new one, since this one died."""
    first, started_s = cells[0], time.time()
    unusable = first.error or (changed(first.model) if first.model else None)
    if first.model is None or unusable:
        for cell in cells:
            record(cell, failed(MeasureError(cell.error or str(unusable)), started_s))
        return []
    generator = first.load.generator if any(cell.load.percent for cell in cells) else None
    current = 0
    try:
        with Bench(first.model, first.device, first.measure, generator) as bench:
            for current, cell in enumerate(cells):
                started_s = time.time()
                try:
                    profile = bench.profile(cell.load)
                except (MeasureError, DeviceError) as error:
                    record(cell, failed(error, started_s))
                    return cells[current + 1 :]
                record(cell, profile)
                current += 1
    except (MeasureError, DeviceError) as error:  # the worker never opened the model: no load will change that
        for cell in cells:
            record(cell, failed(error, started_s))
    except KeyboardInterrupt:
        if current < len(cells):
            record(cells[current], killed(started_s))
        raise
    return []
