"""Temporary files that do not outlive pepper, not even by ``kill -9``.

A small shell waits for the end of a pipe whose other end only this process has: the kernel closes that with the
process, however it ends. Then the shell removes what it was told to. What is left all the same, since both were killed,
the next start removes: the folder of a process that lives is locked.
"""

import atexit
import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from pepper.errors import ConfigError, refusal

_PREFIX = "pepper-scratch-"
_NAME = re.compile(_PREFIX + r"[a-z0-9_]{8}")
_LEAST_AGE_S = 60.0  # a folder that is younger may be about to be locked
_SHELL = "/bin/sh"
# A control group can be removed once its processes have ended, which takes a moment; files by `rm`.
# A path comes as a line; ends of lines and backslashes in it are escaped.
_REMOVE = """
while IFS= read -r line; do path=$(printf '%b.' "$line"); set -- "$@" "${path%.}"; done
for path; do
    tries=0
    until rmdir -- "$path" || [ ! -e "$path" ] || [ $tries -ge 50 ]; do
        rm -rf -- "$path"
        tries=$((tries + 1))
        sleep 0.1
    done
done
"""


class _Remover:
    """The shell, and what it is to remove."""

    def __init__(self) -> None:
        self._shell: subprocess.Popen[bytes] | None = None
        self._paths: list[Path] = []

    def add(self, path: Path) -> None:
        """Remove this folder when this process has ended."""
        self._paths.append(path)
        if self._shell is None or self._shell.poll() is not None:
            self._start()
            self._tell(*self._paths)
        else:
            self._tell(path)

    def _start(self) -> None:
        self._shell = subprocess.Popen(
            [_SHELL, "-c", _REMOVE],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={"PATH": "/usr/bin:/bin"},
            start_new_session=True,
        )

    def _tell(self, *paths: Path) -> None:
        assert self._shell is not None
        assert self._shell.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it was killed just now: the next start removes
            for path in paths:
                line = os.fsencode(path.absolute()).replace(b"\\", rb"\\").replace(b"\n", rb"\n")
                self._shell.stdin.write(line + b"\n")
            self._shell.stdin.flush()

    def forget(self, path: Path) -> None:
        """Take a folder for removed; without any, the shell ends."""
        self._paths.remove(path)
        if not self._paths:
            self.end()

    def end(self) -> None:
        """Remove everything now."""
        if self._shell is not None:
            with contextlib.suppress(BrokenPipeError):
                self._shell.communicate()
        self._shell = None
        self._paths.clear()


_remover = _Remover()
atexit.register(_remover.end)


def remove_at_end(folder: Path) -> None:
    """Remove a folder of this process's own, such as a control group, when the process has ended, however it ends."""
    _remover.add(folder)


def removed(folder: Path) -> None:
    """Say that such a folder has been removed."""
    _remover.forget(folder)


@contextlib.contextmanager
def own_temporary_folder() -> Iterator[None]:
    """Give this process, its libraries and its children a temporary folder that ends with it.

    Raises:
        ConfigError: No temporary folder can be made.
    """
    before, variable = tempfile.tempdir, os.environ.get("TMPDIR")
    try:
        parent = Path(tempfile.gettempdir())
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    except OSError as error:
        raise ConfigError(
            f"TMPDIR={variable or ''}: no temporary folder can be made ({refusal(error)});"
            " let TMPDIR name a folder with room"
        ) from error
    remove_at_end(folder)
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH)
        _remove_left_behind(parent)
        tempfile.tempdir = os.environ["TMPDIR"] = str(folder)
        yield
    finally:
        tempfile.tempdir = before
        if variable is None:
            os.environ.pop("TMPDIR", None)
        else:
            os.environ["TMPDIR"] = variable
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)
        removed(folder)


def _remove_left_behind(parent: Path) -> None:
    """Remove the folders of processes that were killed together with their shell."""
    for folder in parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if not _NAME.fullmatch(folder.name):
                continue
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                found = os.fstat(lock)
                if found.st_uid == os.getuid() and time.time() - found.st_ctime > _LEAST_AGE_S:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # refused while its process lives
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
