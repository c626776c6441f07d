"""What a sweep measures again at its end: INVALID cells, a few VALID ones, and those that contradict one another."""

import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from pepper.config import SweepConfig
from pepper.measure.noise import floor_of
from pepper.measure.profile import Again, Profile
from pepper.sweep.cells import Cell
from pepper.sweep.orders import Contradiction, TimedCell, contradictions
from pepper.sweep.runner import Claims, Record, run

Rows = Mapping[str, Mapping[str, Any]]


class Log(Protocol):
    """Takes what is measured."""

    repeats: list[tuple[float, float]]
    """Medians of cells that were measured twice, ms."""

    def extend(self, cells: int) -> None:
        """Expect more cells."""

    def record(self, cell: Cell, profile: Profile, again: Again | None = None) -> None:
        """Keep a finished cell, and why it was measured again."""

    def flush(self) -> None:
        """Log what waits; afterwards what is its own, and what is another sweep's, is told by the runs."""


class SecondLooks:
    """Measures cells of a sweep again, each in another worker than before.

    Args:
        sweep: The sweep.
        log: Takes what is measured.
        results: The newest result of each cell, by its identity, as the log keeps them.
        claims: Returns who measures which cell from now on.
    """

    def __init__(self, sweep: SweepConfig, log: Log, results: Rows, claims: Callable[[], Claims]) -> None:
        self._sweep, self._log, self._results, self._claims = sweep, log, results, claims

    def retry(self, cells: Sequence[Cell]) -> None:
        """Measure INVALID cells again, up to ``sweep.retries`` times, when the others are done."""
        for attempt in range(self._sweep.retries):
            self._run([cell for cell in cells if self._verdict(cell) == "INVALID"], Again.retry, attempt)

    def retest(self, cells: Sequence[Cell]) -> None:
        """Measure a seeded choice of VALID cells, ``sweep.retest`` of them, a second time.

        Where the two lie too far apart, a third one counts, and is INVALID if it agrees with neither.
        """
        valid = [
            cell for cell in cells if self._verdict(cell) == "VALID" and not self._results[cell.identity]["reused"]
        ]
        chosen = random.Random(self._sweep.seed).sample(valid, round(self._sweep.retest * len(valid)))
        medians: dict[str, list[float]] = {}

        def compare(cell: Cell, profile: Profile) -> None:
            first_ms = float(self._results[cell.identity]["latency_p50_ms"])
            if profile.trusted and _apart(cell, first_ms, profile.metrics["latency_p50_ms"]):
                medians[cell.identity] = [first_ms, profile.metrics["latency_p50_ms"]]
            self._log.record(cell, profile, Again.retest)

        def decide(cell: Cell, profile: Profile) -> None:
            found_ms, before_ms = profile.metrics.get("latency_p50_ms", 0.0), medians[cell.identity]
            if profile.trusted and all(_apart(cell, found_ms, each) for each in before_ms):
                profile.verdict = "INVALID"
                said = " and ".join(f"{each:.3g}" for each in before_ms)
                profile.reasons.append(f"far from its repeats: {found_ms:.3g} ms after {said} ms")
            self._log.record(cell, profile, Again.repeat)

        self._run(chosen, Again.retest, record=compare)
        self._run([cell for cell in chosen if cell.identity in medians], Again.repeat, record=decide)

    def settle(self, cells: Sequence[Cell], prepare: Callable[[Sequence[Cell]], list[Cell]]) -> None:
        """Measure cells whose order cannot be again, and make those INVALID whose order is the same again.

        Args:
            cells: All cells of the sweep.
            prepare: Makes cells ready that this run has not measured itself.
        """
        floor = floor_of(self._log.repeats)
        noise_percent = floor.p90_percent if floor else 0.0
        doubtful = _involved(contradictions(self._measured(cells, {}), noise_percent))
        if not doubtful:
            return
        held: dict[str, tuple[Cell, Profile]] = {}
        ready = prepare([cell for cell in cells if cell.identity in doubtful])
        try:
            self._run(ready, Again.order, record=lambda cell, profile: held.update({cell.identity: (cell, profile)}))
            stay = contradictions(self._measured(cells, {key: p for key, (_, p) in held.items()}), noise_percent)
            for cell, profile in held.values():
                said = next((each.reason(cell) for each in stay if cell.identity in _involved([each])), None)
                if said and profile.trusted:
                    profile.verdict = "INVALID"
                    profile.reasons.append(said)
        finally:
            for cell, profile in held.values():
                self._log.record(cell, profile, Again.order)

    def _run(self, cells: Sequence[Cell], again: Again, attempt: int = 0, record: Record | None = None) -> None:
        if not cells:
            return
        self._log.extend(len(cells))
        self._log.flush()
        record = record or partial(self._log.record, again=again)
        run(cells, self._sweep.seed + 1 + attempt, record, self._log.flush, self._claims())

    def _verdict(self, cell: Cell) -> str:
        return str(self._results[cell.identity]["verdict"])

    def _measured(self, cells: Sequence[Cell], held: Mapping[str, Profile]) -> list[TimedCell]:
        """Return what is VALID of the cells."""
        found = []
        for cell in cells:
            profile = held.get(cell.identity)
            row: Mapping[str, Any] = self._results[cell.identity]
            verdict, figures = (row["verdict"], row) if profile is None else (profile.verdict, profile.metrics)
            if profile is not None and profile.status != "FINISHED":
                verdict, figures = row["verdict"], row
            if verdict == "VALID":
                median, low, high = (figures[f"latency_p50_{end}ms"] for end in ("", "low_", "high_"))
                found.append(TimedCell(cell, median, low, high))
        return found


def _apart(cell: Cell, one_ms: float, other_ms: float) -> bool:
    """Whether two medians of a cell differ by more than its limit."""
    low_ms, high_ms = sorted((one_ms, other_ms))
    return 100 * (high_ms / low_ms - 1) > cell.measure.limits.repeat_percent


def _involved(pairs: Sequence[Contradiction]) -> set[str]:
    return {side.cell.identity for pair in pairs for side in (pair.harder, pair.easier)}
