"""The files of what waits to be logged, read within limits: others may have written or changed them."""

import os
import stat
from pathlib import Path
from typing import Any

from pepper.documents import MOST_BYTES, parse_json

ARTIFACTS = "artifacts"


class UnusableError(ValueError):
    """An entry that cannot be logged; the message says why."""


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
        return parse_json(read_file(entry, name, MOST_BYTES))
    except FileNotFoundError as error:
        if not os.path.lexists(entry):
            return None
        raise UnusableError(f"has no {name}") from error
    except ValueError as error:
        raise error if isinstance(error, UnusableError) else UnusableError(f"{name} is no JSON ({error})") from error


def files_below(folder: Path) -> list[Path]:
    """Return the files of a folder, which holds plain files and folders only, so that no link leads out of it.

    Raises:
        UnusableError: There is none, or it holds something else.
    """
    try:
        modes = {path: path.lstat().st_mode for path in (folder, *sorted(folder.rglob("*")))}
    except OSError as error:
        raise UnusableError(f"{folder.name} cannot be read ({error.strerror})") from error
    for path, mode in modes.items():
        if not (stat.S_ISDIR(mode) or (stat.S_ISREG(mode) and path != folder)):
            what = "folder" if path == folder else "file"
            raise UnusableError(f"{path.relative_to(folder.parent)} is no plain {what}")
    return [path for path, mode in modes.items() if stat.S_ISREG(mode)]
