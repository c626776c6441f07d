"""Folders of the user's own for a task's results: checked before the work, filled before anything else can fail."""

import shutil
import tempfile
from pathlib import Path

from pepper.errors import ConfigError, refusal


def results_folder(key: str, given: str | None) -> Path | None:
    """Return the folder for results, made now: one that cannot be written is said before anything is computed.

    Args:
        key: The configuration's key, for the error.
        given: Its value; None where no folder is wanted.

    Raises:
        ConfigError: The folder cannot be made or written.
    """
    if not given:
        return None
    folder = Path(given)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):  # an existing folder may be read-only
            pass
    except OSError as error:
        raise _unwritable(key, folder, error) from error
    return folder


def keep_results(key: str, folder: Path, out: Path) -> None:
    """Copy results to the user's folder.

    Raises:
        ConfigError: There is no room, or the folder cannot be written any more.
    """
    try:
        shutil.copytree(folder, out, dirs_exist_ok=True)
    except OSError as error:
        raise _unwritable(key, out, error) from error


def _unwritable(key: str, folder: Path, error: OSError) -> ConfigError:
    return ConfigError(f"{key}={folder}: cannot be written ({refusal(error)}); choose another folder")
