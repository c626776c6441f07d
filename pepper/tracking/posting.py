"""Logs records or keeps them on disk; logs what waits there. What cannot be logged is set aside and stops nothing."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pepper.errors import TrackingError
from pepper.tracking import earlier
from pepper.tracking.entries import UnusableError
from pepper.tracking.locks import lock
from pepper.tracking.outbox import Outbox, SetAside
from pepper.tracking.record import Record
from pepper.tracking.store import DeletedError, RefusedError, Store, insist
from pepper.tracking.writer import Written, begin, forget, write


@dataclass
class Posted:
    """What became of what waited.

    Attributes:
        written: What became of the records that were logged, by their keys.
        set_aside: What cannot be logged.
        failure: Why the rest still waits; None if nothing does.
    """

    written: dict[str, Written] = field(default_factory=dict)
    set_aside: list[SetAside] = field(default_factory=list)
    failure: TrackingError | None = None


def log(store: Store, record: Record, what: str) -> Written:
    """Log a record; where that fails or is interrupted, keep it on disk for ``task=import``.

    Args:
        store: The store.
        record: The record.
        what: What it holds, as the error says it: ``what was measured``.

    Raises:
        TrackingError: The store does not answer; the message says where the record is.
    """
    try:
        return write(store, record)
    except (TrackingError, KeyboardInterrupt) as error:
        if isinstance(error, DeletedError) and record.run_id is not None:  # it has no run to wait for
            raise
        try:
            entry = Outbox(store.folder).add(record, store.uri, store.config.experiment)
            where = f"{what} is in {entry}: log it with task=import"
        except TrackingError as another:
            where = str(another)
        if isinstance(error, KeyboardInterrupt):
            error.args = (where,)
            raise
        raise TrackingError(f"{error}; {where}") from error


def begun(store: Store, record: Record, called: str) -> tuple[Record, dict[str, str]]:
    """Begin a record's run before what it holds is whole, so that this can name it.

    Args:
        store: The store.
        record: The record.
        called: What its run is to those who name it: ``placement``.

    Returns:
        The record with its run, and what leads to it: the run, or where the store does not answer the record's key, by
        which it is found once it is logged.
    """
    try:
        record = replace(record, run_id=begin(store, replace(record, artifacts=None, data_of=None)))
    except TrackingError:
        return record, {f"{called}_record": record.key}
    return record, {f"{called}_run": str(record.run_id)}


def waiting(folder: Path) -> list[Path]:
    """Return all that waits in a tracking folder.

    Raises:
        TrackingError: It cannot be read.
    """
    return [entry for box in _boxes(folder) for entry in box.entries()]


def _boxes(folder: Path) -> list[Outbox]:
    return [Outbox(folder), *earlier.boxes(folder).values()]


def adopt(folder: Path) -> list[SetAside]:
    """Make records of what versions before left in a tracking folder, and return what cannot be used.

    Raises:
        TrackingError: The outbox cannot be read, or a record cannot be written.
    """
    if not waiting(folder):
        return []
    with lock(folder):
        return earlier.adopt(folder)


def addresses(folder: Path) -> list[tuple[str | None, str | None]]:
    """Return the stores and experiments that a record waits for in a tracking folder, each once.

    Raises:
        TrackingError: The outbox cannot be read.
    """
    return list(dict.fromkeys((kept.uri, kept.experiment) for kept in Outbox(folder).all()))


def flush(
    store: Store, kept_for: str | None = None, track: Callable[[Sequence[Path]], Iterable[Path]] = iter
) -> Posted:
    """Log what waits for this store and experiment.

    Args:
        store: The store.
        kept_for: Log what was kept for another store instead, by its URI.
        track: Passes the entries on, and may show how far that is.
    """
    posted, box = Posted(), Outbox(store.folder)
    try:
        if any(each.folder.exists() for each in _boxes(store.folder)):
            with lock(store.folder):
                for each in _boxes(store.folder):
                    each.clean()
                posted.set_aside += earlier.adopt(store.folder)
                for entry in track(_meant_for(store, kept_for, box, posted)):
                    _post(store, box, entry, posted)
    except TrackingError as error:
        posted.failure = error
    return posted


def _meant_for(store: Store, kept_for: str | None, box: Outbox, posted: Posted) -> list[Path]:
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


def _post(store: Store, box: Outbox, entry: Path, posted: Posted) -> None:
    """Log an entry and forget it, or set it aside."""
    try:
        kept = box.read(entry)  # again, one by one: all records at once would fill the memory
        if kept is not None:
            posted.written[kept.record.key] = _log(store, kept.record)
    except (UnusableError, RefusedError) as error:
        posted.set_aside.append(box.set_aside(entry, str(error)))
    else:
        box.remove(entry)


def _log(store: Store, record: Record) -> Written:
    try:
        return insist(store, lambda: write(store, record))
    except RefusedError:
        forget(store, record)
        raise
