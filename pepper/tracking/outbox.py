"""What waits on disk to be logged: an entry is a folder, complete or absent, and known by its own name.

What an entry's files say is only ever content: no path is made of it, and no link in an entry is followed.
"""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal

from annotated_types import Predicate

from pepper.documents import first_fault
from pepper.errors import TrackingError, argument, refusal
from pepper.tracking.entries import ARTIFACTS, UnusableError, files_below, read_facts
from pepper.tracking.record import InnerPath, Name, Record, Strict

PENDING = "pending"
"""The outbox's own folder below the tracking folder."""
SET_ASIDE = "refused"
"""Folder beside it for entries that cannot be logged: a folder each, with the reason."""
FILE = "record.json"
SCHEMA: Final = 2
STALE_S = 3600.0  # an entry is written within seconds
_MOST_BYTES = 2**29  # of one artifact
_MOST_REASON = 300  # characters


@dataclass(frozen=True)
class SetAside:
    """An entry that cannot be logged.

    Attributes:
        name: Its name in the outbox.
        reason: Why.
        folder: Where it is now.
    """

    name: str
    reason: str
    folder: Path


def _is_digest(text: str) -> bool:
    return len(text) == 64 and set(text) <= set("0123456789abcdef")


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A record that waits; as JSON, what its entry's file holds.

    Attributes:
        record: The record.
        uri: The store that it is meant for (a whole path for SQLite); None is whichever takes it.
        experiment: The experiment there.
        files: Hashes (SHA-256) of its artifacts, by their paths; None where it has none.
        schema: The version of this form.
    """

    __pydantic_config__: ClassVar = Strict

    record: Record
    uri: Name | None = None
    experiment: Name | None = None
    files: Mapping[InnerPath, Annotated[str, Predicate(_is_digest)]] | None = None
    schema: Literal[2] = 2


def import_command(folder: str | Path) -> str:
    """Return the command that logs what waits in a tracking folder."""
    return f"python -m pepper.run task=import {argument('tracking.folder', folder)}"


class Outbox:
    """The records that wait to be logged, of whatever kind.

    Args:
        folder: The tracking folder.
        name: The outbox's own folder in it.
    """

    def __init__(self, folder: Path, name: str = PENDING) -> None:
        self.folder = folder / name
        self._set_aside = folder / SET_ASIDE

    def add(
        self,
        record: Record,
        uri: str | None = None,
        experiment: str | None = None,
        fill: Callable[[Path], None] | None = None,
    ) -> Path:
        """Keep a record with its artifacts, and return its entry.

        Args:
            record: The record.
            uri: The store that it is meant for.
            experiment: The experiment there.
            fill: Writes its artifacts into a new folder, where the record names none.

        Raises:
            TrackingError: It cannot be written (the disk is full, say); the message says where it is kept instead.
        """

        def write(folder: Path) -> None:
            if fill is not None:
                (folder / ARTIFACTS).mkdir()
                fill(folder / ARTIFACTS)
            elif record.artifacts is not None:
                shutil.copytree(record.artifacts, folder / ARTIFACTS)
            files = _hashes(folder / ARTIFACTS) if (folder / ARTIFACTS).exists() else None
            kept = Waiting(record=replace(record, artifacts=None), uri=uri, experiment=experiment, files=files)
            (folder / FILE).write_text(json.dumps(asdict(kept), default=str))

        return self.put(record.key, write)

    def put(self, name: str, write: Callable[[Path], None]) -> Path:
        """Keep an entry, written into a folder that appears when it is complete.

        Raises:
            TrackingError: As of `add`.
        """
        try:
            return _write_whole(self.folder, name, write)
        except OSError as error:
            kept = self._keep_elsewhere(name, write)
            said = (
                f"then {import_command(kept)} logs what was measured last: it is there"
                if kept
                else "what was measured last is lost: nor can the user's folder for states or /var/tmp be written"
            )
            raise TrackingError(
                f"{self.folder}: cannot keep results ({refusal(error)}); free some space or make it writable; {said}"
            ) from error

    def _keep_elsewhere(self, name: str, write: Callable[[Path], None]) -> Path | None:
        """Keep an entry in another tracking folder; None if there is no room anywhere."""
        state = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "pepper"
        for parent in (state, Path("/var/tmp")):
            with contextlib.suppress(OSError):
                folder = _instead_of(self.folder.parent, parent)
                try:
                    _write_whole(folder / PENDING, name, write)
                except OSError:
                    for empty in (folder / PENDING, folder):
                        empty.rmdir()
                    raise
                return folder
        return None

    def read(self, entry: Path) -> Waiting | None:
        """Return what an entry holds; None if it is gone: another process has logged it.

        Raises:
            UnusableError: It is damaged, or of a version that this pepper does not know.
        """
        from pydantic import TypeAdapter, ValidationError

        facts = read_facts(entry, FILE)
        if facts is None:
            return None
        if facts.get("schema") != SCHEMA:
            schema = facts.get("schema")
            raise UnusableError(f"{FILE} is of schema {schema!r}, not {SCHEMA}: log it with the pepper that wrote it")
        try:
            kept = TypeAdapter(Waiting).validate_json(json.dumps(facts), strict=True)
        except (ValidationError, ValueError) as error:
            raise UnusableError(first_fault(error) if isinstance(error, ValidationError) else str(error)) from error
        if kept.record.key != entry.name:
            raise UnusableError(f"{FILE} is of another record than its folder's name says")
        if kept.record.artifacts is not None:
            raise UnusableError(f"{FILE} names a folder of artifacts: they lie in the entry's own")
        if kept.files is None:
            return kept
        try:
            found = _hashes(entry / ARTIFACTS)
        except UnusableError:
            if not os.path.lexists(entry):
                return None
            raise
        if found != kept.files:
            raise UnusableError(f"{ARTIFACTS} are not those that {FILE} says")
        return replace(kept, record=replace(kept.record, artifacts=entry / ARTIFACTS))

    def entries(self) -> list[Path]:
        """Return what waits, oldest first.

        Raises:
            TrackingError: The outbox cannot be read.
        """
        found: list[tuple[int, Path]] = []
        try:
            with os.scandir(self.folder) as listing:
                for entry in listing:
                    if not entry.name.startswith("."):
                        with contextlib.suppress(FileNotFoundError):  # logged by another process just now
                            found.append((entry.stat(follow_symlinks=False).st_mtime_ns, Path(entry.path)))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise TrackingError(f"{self.folder}: cannot be read ({error.strerror}); mend or remove it") from error
        return [path for _, path in sorted(found)]

    def all(self) -> list[Waiting]:
        """Return all that waits and can be logged, oldest first.

        Raises:
            TrackingError: The outbox cannot be read.
        """
        found = []
        for entry in self.entries():
            with contextlib.suppress(UnusableError):
                found.append(self.read(entry))
        return [kept for kept in found if kept is not None]

    def remove(self, entry: Path) -> None:
        """Forget an entry of this outbox: a reader sees it whole or not at all."""
        gone = self.folder / f".{entry.name}"
        with contextlib.suppress(FileNotFoundError):
            (self.folder / entry.name).rename(gone)
        shutil.rmtree(gone, ignore_errors=True)

    def clean(self) -> None:
        """Remove what a process left half-written when it was killed."""
        for draft in self.folder.glob(".*"):
            with contextlib.suppress(OSError):  # its writer has just finished it
                if time.time() - draft.lstat().st_mtime > STALE_S:
                    shutil.rmtree(draft, ignore_errors=True)

    def set_aside(self, entry: Path, reason: str) -> SetAside:
        """Move an entry, whatever it is, out of the way of the others, with the reason beside it."""
        reason = " ".join(reason.split())[:_MOST_REASON]
        try:
            self._set_aside.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(prefix=time.strftime("%Y-%m-%d_%H-%M-%S_"), dir=self._set_aside))
            (folder / "reason.txt").write_text(f"{reason}\n", encoding="utf-8", errors="backslashreplace")
            (self.folder / entry.name).rename(folder / entry.name)
        except OSError as error:  # it stays where it is, and is passed over each time
            return SetAside(entry.name, f"{reason}; and it cannot be moved ({error.strerror})", self.folder)
        return SetAside(entry.name, reason, folder)


@cache
def _instead_of(folder: Path, parent: Path) -> Path:
    """Make a tracking folder, one a process: a single command logs all that is kept in it."""
    parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="pepper-kept-", dir=parent))


def _write_whole(outbox: Path, name: str, write: Callable[[Path], None]) -> Path:
    """Write an entry that appears when it is complete."""
    draft = outbox / f".{name}"
    try:
        draft.mkdir(parents=True)
        write(draft)
        return draft.rename(outbox / name)
    except OSError:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def _hashes(folder: Path) -> dict[str, str]:
    """Return the hash of each file in a folder, by its path there.

    Raises:
        UnusableError: The folder holds something else than plain files and folders.
    """
    found = {}
    for file in files_below(folder):
        try:
            if file.stat().st_size > _MOST_BYTES:
                raise UnusableError(f"{file.relative_to(folder.parent)} is larger than any that pepper writes")
            with file.open("rb") as stream:
                found[str(file.relative_to(folder))] = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise UnusableError(f"{file.relative_to(folder.parent)} cannot be read ({error.strerror})") from error
    return found
