"""Orders that cannot be: a cell with more load or less share of the device that is faster all the same."""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import permutations

from pepper.sweep.cells import Cell


@dataclass(frozen=True)
class TimedCell:
    """A cell's median and its 95 % interval, ms."""

    cell: Cell
    p50_ms: float
    low_ms: float
    high_ms: float


@dataclass(frozen=True)
class Contradiction:
    """Two measurements of which one must be wrong: ``harder`` has more load or less share, and took less time."""

    harder: TimedCell
    easier: TimedCell

    def reason(self, of: Cell) -> str:
        """Say what is wrong with one of the two."""
        if of.identity == self.harder.cell.identity:
            mine, other, how = self.harder, self.easier, "faster"
        else:
            mine, other, how = self.easier, self.harder, "slower"
        where = f"{other.cell.device.name} under {other.cell.load.name}"
        return f"impossible order: {mine.p50_ms:.3g} ms is {how} than {other.p50_ms:.3g} ms on {where}"


def contradictions(measured: Sequence[TimedCell], noise_percent: float) -> list[Contradiction]:
    """Return the pairs that contradict each other beyond noise: their intervals lie apart, and their medians too.

    Args:
        measured: Cells of which no two are the same.
        noise_percent: How far the medians of one cell were seen to differ; the cells' ``measure.limits.order_percent``
            counts instead if it is more.
    """
    families: defaultdict[str, list[TimedCell]] = defaultdict(list)
    for each in measured:
        families[_family(each.cell)].append(each)
    return [
        Contradiction(harder, easier)
        for family in families.values()
        for harder, easier in permutations(family, 2)
        if _is_harder(harder.cell, easier.cell)
        and harder.high_ms < easier.low_ms
        and harder.p50_ms * (1 + max(noise_percent, harder.cell.measure.limits.order_percent) / 100) < easier.p50_ms
    ]


def _family(cell: Cell) -> str:
    """Equal for cells that differ in load and share only."""
    device = {key: value for key, value in cell.device.facts().items() if key not in ("share", "period_ms")}
    model = (cell.model.content_hash, cell.model.shapes, cell.model.described_inputs()) if cell.model else cell.name
    return json.dumps([model, device, asdict(cell.measure)], sort_keys=True)


def _is_harder(cell: Cell, than: Cell) -> bool:
    """Whether a cell can be no faster than another of its family: it has as much load, of the same kind, and no more
    share, and is not the same in both."""
    mine, other = cell.load, than.load
    alike = not other.percent or (mine.generator, mine.cores, mine.period_ms) == (
        other.generator,
        other.cores,
        other.period_ms,
    )
    less_room = (
        (-mine.percent, -mine.accelerator_percent, cell.device.share),
        (-other.percent, -other.accelerator_percent, than.device.share),
    )
    return alike and less_room[0] != less_room[1] and all(a <= b for a, b in zip(*less_room, strict=True))
