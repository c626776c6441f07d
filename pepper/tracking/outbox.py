"""Folders of what waits to be logged: an entry is a folder, complete or absent, and known by its own name.

What an entry's files say is only ever content: no path is made of it, and no link in an entry is followed.
"""

import contextlib
import json
import os
import shutil
import stat
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from pepper.errors import TrackingError, refusal

ARTIFACTS = "artifacts"
SET_ASIDE = "refused"
"""Folder beside the outboxes for entries that cannot be logged: a folder each, with the reason."""
STALE_S = 3600.0  # an entry is written within seconds
MOST_FACTS_BYTES = 32 * 2**20  # JSON takes up to thirty times as much in memory
_MOST_REASON = 300  # characters


class UnusableError(ValueError):
    """An entry that cannot be logged; the message says why."""


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


class Addressed(Protocol):
    """What waits for a store."""

    @property
    def uri(self) -> str | None:
        """The store that it is meant for (a whole path for SQLite); None is whichever takes it."""

    @property
    def experiment(self) -> str | None:
        """The experiment there."""


Kept = TypeVar("Kept", bound=Addressed, covariant=True)


class Outbox(ABC, Generic[Kept]):
    """Entries of one kind that wait to be logged.

    Args:
        folder: The tracking folder.
    """

    NAME: ClassVar[str]
    """The outbox's own folder in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / self.NAME
        self._set_aside = folder / SET_ASIDE

    @abstractmethod
    def read(self, entry: Path) -> Kept | None:
        """Return what an entry holds; None if it is gone: another process has logged it.

        Raises:
            UnusableError: It cannot be logged: it is damaged, say.
        """

    def put(self, name: str, write: Callable[[Path], None]) -> Path:
        """Keep an entry, written into a folder that appears when it is complete.

        Raises:
            TrackingError: It cannot be written (the disk is full, say); the message says where it is kept instead.
        """
        try:
            return _write_whole(self.folder, name, write)
        except OSError as error:
            kept = self._keep_elsewhere(name, write)
            said = (
                f"then python -m pepper.run task=import tracking.folder={kept} logs what was measured last: it is there"
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
                    _write_whole(folder / self.NAME, name, write)
                except OSError:
                    for empty in (folder / self.NAME, folder):
                        empty.rmdir()
                    raise
                return folder
        return None

    def put_facts(self, name: str, file: str, facts: Mapping[str, Any], artifacts: Path) -> Path:
        """Keep an entry of a JSON file and a folder of artifacts.

        Raises:
            TrackingError: It cannot be written.
        """

        def write(folder: Path) -> None:
            shutil.copytree(artifacts, folder / ARTIFACTS)
            (folder / file).write_text(json.dumps(facts))

        return self.put(name, write)

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

    def all(self) -> list[Kept]:
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


def read_file(entry: Path, name: str, most_bytes: int) -> bytes:
    """Return the content of an entry's file.

    Args:
        entry: The entry.
        name: The file's name.
        most_bytes: Larger files are not read.

    Raises:
        FileNotFoundError: The file, or the entry, is not there.
        UnusableError: It is something else than a plain file, or too large.
    """
    try:
        folder = os.open(entry, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
        finally:
            os.close(folder)
        with os.fdopen(file, "rb") as stream:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                raise UnusableError(f"{name} is no plain file")
            if status.st_size > most_bytes:
                raise UnusableError(f"{name} is larger than {most_bytes // 2**20} MiB")
            return stream.read(most_bytes)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UnusableError(f"{name} cannot be read ({error.strerror})") from error


def read_facts(entry: Path, name: str) -> dict[str, Any] | None:
    """Return what an entry's JSON file says; None if the entry is gone: another process has logged it.

    Raises:
        UnusableError: There is no such file, or it is not the JSON of an object.
    """
    try:
        facts = json.loads(read_file(entry, name, MOST_FACTS_BYTES))
    except FileNotFoundError as error:
        if not os.path.lexists(entry):
            return None
        raise UnusableError(f"has no {name}") from error
    except (ValueError, RecursionError) as error:
        raise error if isinstance(error, UnusableError) else UnusableError(f"{name} is no JSON ({error})") from error
    if not isinstance(facts, dict):
        raise UnusableError(f"{name} holds no object")
    return facts


def artifacts(entry: Path) -> Path:
    """Return an entry's folder of artifacts: plain files and folders only, so that no link leads out of it.

    Raises:
        UnusableError: There is none, or it holds something else.
    """
    folder = entry / ARTIFACTS
    try:
        modes = {path: path.lstat().st_mode for path in (folder, *folder.rglob("*"))}
    except OSError as error:
        raise UnusableError(f"{ARTIFACTS} cannot be read ({error.strerror})") from error
    for path, mode in modes.items():
        if not (stat.S_ISDIR(mode) or (stat.S_ISREG(mode) and path != folder)):
            raise UnusableError(f"{path.relative_to(entry)} is no plain {'folder' if path == folder else 'file'}")
    return folder
