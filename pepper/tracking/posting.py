"""Logs what waits on disk. What cannot be logged is set aside, so that it stops nothing else."""

import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pepper.errors import TrackingError
from pepper.tracking import runs
from pepper.tracking.executions import KeptExecution, Unlogged, log_again
from pepper.tracking.locks import lock
from pepper.tracking.outbox import Outbox, SetAside, UnusableError
from pepper.tracking.records import Pending, Record
from pepper.tracking.store import RefusedError, Store, insist
from pepper.tracking.sweeps import Ends, SweepEnd, end_sweep


@dataclass
class Posted:
    """What became of what waited.

    Attributes:
        cells: The runs of the records that were logged, by the records' keys.
        ends: The runs of the sweeps that were ended.
        executions: The runs of the executions that were logged.
        set_aside: What cannot be logged.
        failure: Why the rest still waits; None if nothing does.
    """

    cells: dict[str, str] = field(default_factory=dict)
    ends: list[str] = field(default_factory=list)
    executions: list[str] = field(default_factory=list)
    set_aside: list[SetAside] = field(default_factory=list)
    failure: TrackingError | None = None

    @property
    def count(self) -> int:
        """How many were logged."""
        return len(self.cells) + len(self.ends) + len(self.executions)


def outboxes(folder: Path) -> tuple[Pending, Ends, Unlogged]:
    """Return all that may wait in a tracking folder: cells, the ends of sweeps, and executions."""
    return Pending(folder), Ends(folder), Unlogged(folder)


def addresses(folder: Path) -> list[tuple[str | None, str | None]]:
    """Return the stores and experiments that something waits for in a tracking folder, each once.

    Raises:
        TrackingError: An outbox cannot be read.
    """
    found: dict[tuple[str | None, str | None], None] = {}
    for box in outboxes(folder):
        for entry in box.entries():
            with contextlib.suppress(UnusableError):
                kept: Record | SweepEnd | KeptExecution | None = box.read(entry)
                if kept is not None:
                    found[kept.uri, kept.experiment] = None
    return list(found)


def flush(
    store: Store, kept_for: str | None = None, track: Callable[[Sequence[Path]], Iterable[Path]] = iter
) -> Posted:
    """Log what waits for this store and experiment.

    Args:
        store: The store.
        kept_for: Log what was kept for another store instead, by its URI.
        track: Passes the entries on, and may show how far that is.
    """
    posted = Posted()

    def log(kept: Record | SweepEnd | KeptExecution) -> None:
        if isinstance(kept, Record):
            posted.cells[kept.key] = _log_record(store, kept)
        elif isinstance(kept, SweepEnd):
            insist(store, lambda: end_sweep(store, kept))
            posted.ends.append(kept.run_id)
        else:
            posted.executions.append(insist(store, lambda: log_again(store, kept.execution)))

    boxes: Sequence[Outbox[Any]] = [box for box in outboxes(store.folder) if box.folder.exists()]
    if boxes:
        try:
            with lock(store.folder):
                for box in boxes:
                    box.clean()
                    for entry in track(_meant_for(store, kept_for, box, posted)):
                        _post(box, entry, log, posted)
        except TrackingError as error:
            posted.failure = error
    return posted


def _meant_for(store: Store, kept_for: str | None, box: Outbox[Any], posted: Posted) -> list[Path]:
    """Return the entries for a store; what cannot be read is set aside."""
    found = []
    for entry in box.entries():
        try:
            kept = box.read(entry)
        except UnusableError as error:
            posted.set_aside.append(box.set_aside(entry, str(error)))
            continue
        if (
            kept is not None
            and kept.uri in (None, kept_for or store.uri)
            and kept.experiment in (None, store.config.experiment)
        ):
            found.append(entry)
    return found


def _post(box: Outbox[Any], entry: Path, log: Callable[[Any], None], posted: Posted) -> None:
    """Log an entry and forget it, or set it aside."""
    try:
        kept = box.read(entry)  # again, one by one: all samples at once would fill the memory
        if kept is not None:
            log(kept)
    except (UnusableError, RefusedError) as error:
        posted.set_aside.append(box.set_aside(entry, str(error)))
    else:
        box.remove(entry)


def _log_record(store: Store, record: Record) -> str:
    try:
        return insist(store, lambda: runs.log_once(store, record))
    except RefusedError:
        runs.forget(store, record)
        raise
