"""Where results go: only what may be replaced ever is, and what cannot be is said before the work begins.

A result takes the place of nothing, of a regular file, or of a folder that is empty or that pepper made. It never takes
that of a device, a FIFO, a socket or a symbolic link. What is new is written beside its place and renamed into it,
which follows no link and leaves nothing half written.
"""

import contextlib
import os
import shutil
import stat
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from pepper.errors import ConfigError, refusal

Own = Callable[[Path], bool]
"""Tells whether a folder that is not empty holds what pepper wrote, and nothing else."""

_SPECIAL = {
    stat.S_IFBLK: "a block device",
    stat.S_IFCHR: "a character device",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFSOCK: "a socket",
}


def output_file(key: str, given: str) -> Path:
    """Return the place of a result that is a file; its folder is made.

    Args:
        key: The configuration's key, for the error.
        given: Its value.

    Raises:
        ConfigError: Something else than a regular file is there, or it cannot be written.
    """
    return _ready(key, Path(given), "file", None)


def results_folder(key: str, given: str | None) -> Path | None:
    """Return the user's folder for results, made now; None where none is wanted.

    Args:
        key: The configuration's key, for the error.
        given: Its value.

    Raises:
        ConfigError: Something else than a folder is there, or it cannot be made or written.
    """
    return _ready(key, Path(given), "folder", None) if given else None


def output_folder(key: str, out: Path, own: Own) -> Path:
    """Return the place of results that are a folder; the folder that it lies in is made.

    Args:
        key: The configuration's key, for the error.
        out: Its value.
        own: Whether the folder that is there may be replaced.

    Raises:
        ConfigError: Something else than such a folder is there, or it cannot be written.
    """
    return _ready(key, out, "folder", own)


def write_file(key: str, out: Path, content: str) -> None:
    """Write a result that is a file, whole or not at all.

    Raises:
        ConfigError: Something else than a regular file is there by now, or it cannot be written.
    """
    with _said(key, out, "file"):
        _check(key, out, "file", None)
        draft = out.with_name(f".pepper-{uuid.uuid4().hex}")
        try:
            with draft.open("x", encoding="utf-8") as stream:
                stream.write(content)
            draft.replace(out)
        finally:
            draft.unlink(missing_ok=True)


def replace_folder(key: str, out: Path, own: Own, write: Callable[[Path], None]) -> None:
    """Write results that are a folder: it appears whole or not at all, in place of an earlier one.

    Args:
        key: The configuration's key, for the error.
        out: The folder.
        own: Whether the folder that is there may be replaced.
        write: Fills the new folder.

    Raises:
        ConfigError: Something else is there, or it cannot be written.
    """
    _ready(key, out, "folder", own)
    with _said(key, out, "folder"), tempfile.TemporaryDirectory(prefix=".pepper-", dir=out.parent) as scratch:
        fresh, old = Path(scratch) / "new", Path(scratch) / "old"
        fresh.mkdir()
        write(fresh)
        if os.path.lexists(out):
            out.rename(old)
            try:  # looked at where nobody else knows it
                _check(key, old, "folder", own, named=out)
            except ConfigError:
                old.rename(out)
                raise
        fresh.rename(out)  # the kernel puts a folder in the place of nothing but an empty folder


def fill_folder(key: str, folder: Path, out: Path) -> None:
    """Copy results into the user's folder, each file whole; what else is there stays.

    Raises:
        ConfigError: There is no room, something else than a regular file is in a file's place, or the folder cannot be
            written any more.
    """

    def put(source: str, target: str) -> None:
        place = Path(target)
        _check(key, place, "file", None)
        draft = place.with_name(f".pepper-{uuid.uuid4().hex}")
        try:
            shutil.copy(source, draft, follow_symlinks=False)
            draft.replace(place)
        finally:
            draft.unlink(missing_ok=True)

    with _said(key, out, "folder"):
        _check(key, out, "folder", None)
        shutil.copytree(folder, out, dirs_exist_ok=True, copy_function=put)


def remove_stale(files: Iterable[Path]) -> None:
    """Remove results of an earlier run; what is no regular file stays."""
    for file in files:
        if file.is_file() and not file.is_symlink():
            file.unlink()


def _ready(key: str, out: Path, kind: str, own: Own | None) -> Path:
    with _said(key, out, kind):
        _check(key, out, kind, own)
        home = out if kind == "folder" and own is None else out.parent
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home):  # an existing folder may be read-only
            pass
    return out


def _check(key: str, out: Path, kind: str, own: Own | None, named: Path | None = None) -> None:
    """Make sure that nothing is in the result's place but what may be replaced (or added to)."""
    try:
        mode = out.lstat().st_mode
    except FileNotFoundError:
        return
    name = f"{key}={named or out}"
    if (special := _SPECIAL.get(stat.S_IFMT(mode))) is not None:
        raise ConfigError(f"{name}: is {special}, which no result takes the place of; choose another {kind}")
    if stat.S_ISDIR(mode) and kind == "file":
        raise ConfigError(f"{name}: cannot be written (Is a directory); choose another file")
    if kind == "folder" and not stat.S_ISDIR(mode):
        raise ConfigError(f"{name}: cannot be written (Not a directory); choose another folder")
    if own is not None and any(out.iterdir()) and not own(out):
        raise ConfigError(f"{name}: holds what pepper did not write there; choose another folder")


@contextlib.contextmanager
def _said(key: str, out: Path, kind: str) -> Iterator[None]:
    """Say in a line what the system refuses."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{key}={out}: cannot be written ({refusal(error)}); choose another {kind}") from error
