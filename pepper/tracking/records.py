"""Finished cells, kept on disk until MLflow has them: nothing measured is lost."""

import contextlib
import json
import shutil
import time
import uuid
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from pepper.errors import TrackingError
from pepper.measure.profile import Profile

SCHEMA = 1
STALE_S = 3600.0  # a record is written within seconds


@dataclass
class Record:
    """All that a run in MLflow needs.

    Attributes:
        name: The run's name.
        cell: The cell's identity.
        params: The cell's facts.
        profile: What was measured.
        config: The resolved configuration (YAML).
        parent: The sweep's run; None for a single run.
        uri: The store that it is meant for (a whole path for SQLite); None is whichever takes it.
        experiment: The experiment there.
        key: Unique to this measurement; the run carries it as a tag, so that it is logged once.
    """

    name: str
    cell: str
    params: dict[str, Any]
    profile: Profile
    config: str
    parent: str | None = None
    uri: str | None = None
    experiment: str | None = None
    key: str = field(default_factory=lambda: uuid.uuid4().hex)


class Pending:
    """The records that wait to be logged: one folder each, complete or absent.

    Args:
        folder: Where they wait.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "pending"

    def add(self, record: Record) -> None:
        """Keep a record on disk.

        Raises:
            TrackingError: It cannot be written (the disk is full, say).
        """
        draft = self.folder / f".{record.key}"
        try:
            draft.mkdir(parents=True)
            facts = asdict(record)
            samples = facts["profile"].pop("samples")
            if samples:
                np.savez(draft / "samples.npz", **samples)
            (draft / "record.json").write_text(json.dumps({"schema": SCHEMA, **facts}))
            draft.rename(self.folder / record.key)
        except OSError as error:
            shutil.rmtree(draft, ignore_errors=True)
            raise TrackingError(f"{self.folder}: cannot keep results ({error.strerror}); free some space") from error

    def clean(self) -> None:
        """Remove what a process left half-written when it was killed."""
        for draft in self.folder.glob(".*"):
            with contextlib.suppress(OSError):  # its writer has just finished it
                if time.time() - draft.stat().st_mtime > STALE_S:
                    shutil.rmtree(draft, ignore_errors=True)

    def all(self) -> list[Record]:
        """Return the waiting records, oldest first.

        Raises:
            TrackingError: A record is damaged, or of a version that this pepper does not know.
        """
        files = sorted(self.folder.glob("[!.]*/record.json"), key=lambda file: file.stat().st_mtime_ns)
        return [self._read(file) for file in files]

    def _read(self, file: Path) -> Record:
        try:
            facts = json.loads(file.read_text())
            if facts.pop("schema") == SCHEMA:
                return self._record(file, facts)
        except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, BadZipFile) as error:
            raise TrackingError(f"{file}: damaged ({error}); remove its folder to go on without it") from error
        raise TrackingError(f"{file}: written by another version of pepper; import it with that one")

    def _record(self, file: Path, facts: dict[str, Any]) -> Record:
        samples_file = file.with_name("samples.npz")
        samples = dict(np.load(samples_file)) if samples_file.exists() else {}
        facts["profile"] = Profile(**facts["profile"], samples=samples)
        return Record(**facts)

    def remove(self, record: Record) -> None:
        """Forget a record that MLflow has."""
        shutil.rmtree(self.folder / record.key, ignore_errors=True)
