"""Measures the cells of a sweep, one worker for each model and device; those on other hosts side by side."""

import contextlib
import random
import time
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Protocol

from pepper.errors import MeasureError
from pepper.measure.block import Block, measure_block
from pepper.measure.launcher import failed
from pepper.measure.profile import Profile
from pepper.sweep.cells import Cell
from pepper.sweep.elsewhere import Elsewhere

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
        under_way: list[list[Cell]] = []

        def take(block: Sequence[Cell], under_way: list[list[Cell]] = under_way) -> list[Cell]:
            ours, theirs = claims.take(block)
            under_way += [theirs] if theirs else []
            return ours

        def ended(block: list[Cell]) -> None:
            between()
            claims.give_back(block)

        away = [block for block in left if _is_elsewhere(block)]
        with Elsewhere(away, take, record, ended) if away else contextlib.nullcontext() as elsewhere:
            step = elsewhere.step if elsewhere else _nothing
            for block in left:
                if not _is_elsewhere(block) and (taken := take(block)):
                    try:
                        _run_block(taken, record, step)
                        between()
                    finally:
                        claims.give_back(taken)
            if elsewhere:
                elsewhere.finish()
        left = under_way
        others = [cell for block in under_way for cell in block]
        if others and not claims.wait(others):
            for cell in others:
                record(cell, failed(MeasureError(_TOO_LONG), time.time()))
            break


def _is_elsewhere(block: Sequence[Cell]) -> bool:
    """Whether a block that can be measured is to be measured on another host."""
    first = block[0]
    return first.device.host is not None and first.model is not None and first.error is None


def _nothing() -> None:
    """There is nothing else to do."""


def _run_block(cells: list[Cell], record: Record, step: Callable[[], None]) -> None:
    """Measure cells here with one worker, or record why they cannot be; `step` is called after each."""
    first = cells[0]
    if first.model is None or first.error:
        for cell in cells:
            record(cell, failed(MeasureError(str(first.error)), time.time()))
        return
    block = Block(first.model, first.device, first.measure, tuple(cell.load for cell in cells))

    def done(place: int, profile: Profile) -> None:
        record(cells[place], profile)
        step()

    measure_block(block, done)
