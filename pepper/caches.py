"""Where pepper keeps what can be made again: the user's cache (XDG base directories)."""

import os
from pathlib import Path

from pepper.errors import ConfigError


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
