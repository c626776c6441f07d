"""A sweep's parent run: started before its first cell, ended with its table; an end that the store misses is kept."""

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pepper.tracking.outbox import Outbox, artifacts, read_facts
from pepper.tracking.runs import SWEEP
from pepper.tracking.starting import start_run
from pepper.tracking.store import Store, reaching

_FILE = "sweep.json"


@dataclass(frozen=True)
class SweepEnd:
    """How a sweep ended.

    Attributes:
        run_id: Its parent run.
        status: ``FINISHED``, ``FAILED`` or ``KILLED``.
        metrics: Figures of the whole sweep.
        note: Its description (Markdown).
        artifacts: A folder whose content becomes the run's artifacts.
        uri: The store that it is meant for (a whole path for SQLite).
        experiment: The experiment there.
        ended_s: When it was over (UNIX time).
    """

    run_id: str
    status: str
    metrics: Mapping[str, float]
    note: str
    artifacts: Path
    uri: str
    experiment: str
    ended_s: float = field(default_factory=time.time)


def start_sweep(store: Store, name: str, cells: int, config: str) -> str:
    """Start a sweep's parent run and return its identifier.

    Raises:
        TrackingError: The store does not answer.
    """
    run_id = start_run(store, SWEEP, name, {"pepper.sweep": name})
    with reaching(store.config):
        store.client.log_param(run_id, "cells", cells)
        store.client.log_text(run_id, config, "config.yaml")
    return run_id


def end_sweep(store: Store, end: SweepEnd) -> None:
    """End a sweep's parent run with its artifacts.

    Raises:
        TrackingError: The store does not answer, or the run was deleted.
    """
    from mlflow.entities import Metric, RunTag

    ended_ms = round(end.ended_s * 1000)
    with reaching(store.config):
        store.client.log_artifacts(end.run_id, str(end.artifacts))
        store.client.log_batch(
            end.run_id,
            metrics=[Metric(key, value, ended_ms, 0) for key, value in end.metrics.items()],
            tags=[RunTag("mlflow.note.content", end.note)],
        )
        store.client.set_terminated(end.run_id, end.status, ended_ms)


class Ends(Outbox[SweepEnd]):
    """The ends of sweeps that wait to be logged."""

    NAME = "ends"

    def add(self, end: SweepEnd) -> Path:
        """Keep an end on disk.

        Raises:
            TrackingError: It cannot be written.
        """
        facts = {name: value for name, value in vars(end).items() if name != "artifacts"}
        return self.put_facts(uuid.uuid4().hex, _FILE, facts, end.artifacts)

    def read(self, entry: Path) -> SweepEnd | None:
        """Return an entry's end; None if it is gone: another process has logged it.

        Raises:
            UnusableError: It is damaged.
        """
        from pepper.tracking.schemas import checked_end

        facts = read_facts(entry, _FILE)
        return None if facts is None else SweepEnd(**{**checked_end(facts), "artifacts": artifacts(entry)})
