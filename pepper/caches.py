"""Where pepper keeps what can be made again: the user's cache (XDG base directories), and tables beside a store."""

import contextlib
import hashlib
import io
import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pepper.documents import read_bytes
from pepper.errors import ConfigError

_HASH_BYTES = 64
_MOST_BYTES = 2**29  # of a table, packed

if TYPE_CHECKING:
    import pandas as pd


def cache_folder(name: str) -> Path:
    """Return a folder of this user's cache, made where it is not there.

    Raises:
        ConfigError: It cannot be made or written.
    """
    root = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    folder = root / "pepper" / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror
    else:
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
        reason = "Permission denied"
    raise ConfigError(f"{folder}: cannot be written ({reason}); set XDG_CACHE_HOME to a folder that can")


def write_table(table: "pd.DataFrame", file: Path) -> None:
    """Keep a table that can be made again, as Parquet, and its hash beside it; where it cannot be written it is not."""
    content = io.BytesIO()
    table.to_parquet(content, index=False)
    with contextlib.suppress(OSError):  # whoever needs it makes it again
        file.parent.mkdir(parents=True, exist_ok=True)
        for path, data in ((file, content.getvalue()), (hash_file(file), digest(content.getvalue()))):
            draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
            try:
                draft.write_bytes(data)
                draft.replace(path)
            finally:
                draft.unlink(missing_ok=True)


def read_table(file: Path, columns: Sequence[str]) -> "pd.DataFrame | None":
    """Return what `write_table` kept; None if it is absent, damaged or lacks a column: it is to be made again.

    The hash is checked before anything parses the content.
    """
    import pandas as pd

    try:
        content = read_bytes(file, _MOST_BYTES)
        if read_bytes(hash_file(file), _HASH_BYTES) != digest(content):
            return None
    except (OSError, ValueError):
        return None
    table = pd.read_parquet(io.BytesIO(content))
    return table if {*columns} <= {*table.columns} else None


def hash_file(file: Path) -> Path:
    """Return the file that keeps another one's hash, beside it."""
    return file.with_name(f"{file.name}.sha256")


def digest(content: bytes) -> bytes:
    """Return the SHA-256 of a file's content, as its `hash_file` holds it."""
    return hashlib.sha256(content).hexdigest().encode()
