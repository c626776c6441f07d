"""The process that tries damaged inputs: within a limit of memory, and watched for what it touches."""

import contextlib
import faulthandler
import io
import os
import resource
import subprocess
import sys
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.fuzzing.mutations import damage, fresh

FAULTS = ("traceback", "hang", "beyond 2 GB", "crash", "outside")
TRYING = "trying"
STACK, STACK_S = "stack", 15.0
"""File of a home that says where the process was when it died, or after so long."""
MOST_BYTES = 2 * 2**30
COMMAND_BYTES = 4 * 2**30
_NO_MEMORY = ("bad_alloc", "bad allocation", "Unable to allocate", "Failed to allocate", "std::length_error")
_WRITES = {
    "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.symlink", "os.link", "os.chmod", "os.truncate",
    "shutil.rmtree", "os.mkfifo", "os.mknod",
}  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What came of one input.

    Attributes:
        number: Its number.
        door: What came in.
        how: How it was damaged.
        kind: ``taken``, ``refused``, or one of `FAULTS`.
        detail: What was seen.
        where: Where, to tell faults apart.
        command: Whether it went through the command line, too.
    """

    number: int
    door: str
    how: str
    kind: str
    detail: str = ""
    where: str = ""
    command: bool = False


class Watch:
    """Sees what Python opens, makes or removes outside of where it may.

    Args:
        home: Where this process may write, all but the folder ``outside`` in it.
    """

    def __init__(self, home: Path) -> None:
        self._home, self._outside = str(home), str(home / "outside")
        self.on = False
        self.reads = True
        self.seen: list[str] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, given: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event == "open":
            path, _, flags = given
            writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) if isinstance(flags, int) else 0
            self._look(path, -1, bool(writes))
        elif event in _WRITES:
            folders = [value for value in given[1:] if isinstance(value, int)]
            for path in given[:2] if event in ("os.rename", "os.link", "os.symlink") else given[:1]:
                if event == "os.symlink" and path is given[0]:
                    continue
                self._look(path, folders[-1] if folders and event in ("os.remove", "os.rmdir") else -1, True)

    def _look(self, path: Any, folder: int, writes: bool) -> None:
        if not isinstance(path, str | bytes | os.PathLike):
            return
        name = os.fsdecode(path)
        if folder >= 0 and not name.startswith("/"):
            with contextlib.suppress(OSError):
                name = f"{os.readlink(f'/proc/self/fd/{folder}')}/{name}"  # noqa: PTH115 - no recursion into the hook
        whole = os.path.abspath(name)  # noqa: PTH100 - links are not followed
        inside = whole.startswith(self._home) and not whole.startswith(self._outside)
        if writes and not inside and not whole.startswith(("/dev/", "/proc/self/")):
            self.seen.append(f"wrote {whole}")
        elif self.reads and whole.startswith(self._outside):
            self.seen.append(f"read {whole}")


def work(connection: Connection, originals: Path, home: Path, seed: int, every: int) -> None:
    """Try the inputs whose numbers arrive, until there is none."""
    outside = home / "outside"
    (home / "tmp").mkdir(parents=True)
    outside.mkdir()
    (outside / "secret").write_bytes(b"years of work" * 1000)
    os.environ.update(XDG_CACHE_HOME=str(home / "cache"), TMPDIR=str(home / "tmp"), HOME=str(home))
    os.environ["PYTHONPATH"] = str(Path.cwd())
    os.chdir(home)
    (home / "planned.json").write_text((originals / "planned.json").read_text())
    from benchmarks.fuzzing.doors import DOORS
    from pepper.devices.protocol import GarbledError
    from pepper.errors import PepperError

    refusals = (PepperError, GarbledError)
    inbox = home / "inbox"
    sink = io.StringIO()
    for door in DOORS:  # the originals are taken, and all that is imported on the way is there
        for original in sorted(path for path in (originals / door.name).iterdir() if path.is_dir()):
            fresh(original, inbox)
            with contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
                door.enter(inbox)
    watch = Watch(home)
    base = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (base + MOST_BYTES, -1))
    weights = [door.weight for door in DOORS]
    before = _state(outside)
    stack = (home / STACK).open("w")
    faulthandler.enable(stack)
    connection.send(None)
    while (number := connection.recv()) is not None:
        rng = Random(f"{seed}/{number}")
        (door,) = rng.choices(DOORS, weights)
        original = rng.choice(sorted(path for path in (originals / door.name).iterdir() if path.is_dir()))
        fresh(original, inbox)
        file = rng.choice(sorted(path for path in inbox.rglob("*") if path.is_file()))
        how = f"{original.name}: {damage(file, rng)}"
        connection.send(Outcome(number, door.name, how[:200], TRYING))
        watch.seen.clear()
        stack.seek(0)
        stack.truncate()
        faulthandler.dump_traceback_later(STACK_S, file=stack)
        watch.on, watch.reads = True, not door.names_files
        kind, detail, where = "taken", "", ""
        try:
            with contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
                door.enter(inbox)
        except refusals as error:
            kind, detail = "refused", str(error)
            if any(word in detail for word in _NO_MEMORY):
                kind = where = "beyond 2 GB"
            elif "\n" in detail:
                kind, where = "traceback", "lines"
        except MemoryError as error:
            kind, detail, where = "beyond 2 GB", *_said(error)
        except BaseException as error:
            kind, detail, where = "traceback", *_said(error)
        watch.on = False
        faulthandler.cancel_dump_traceback_later()
        command = bool(every) and number % every == 0 and door.command is not None
        if command and kind in ("taken", "refused") and door.command is not None:
            kind, detail = _through_command(door.command(inbox), home) or (kind, detail)
        if (now := _state(outside)) != before or watch.seen:
            kind, detail, where = "outside", f"{watch.seen[:3]} {now ^ before}", "outside"
            before = now
        sink.seek(0)
        sink.truncate()
        connection.send(Outcome(number, door.name, how[:200], kind, detail[:600], where, command))


def _said(error: BaseException) -> tuple[str, str]:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/pepper/" in frame.filename or "/benchmarks/" in frame.filename]
    where = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else ""
    path = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames[-6:]))
    return f"{type(error).__name__}: {str(error)[:200]} at {path}", where


def _through_command(arguments: list[str], home: Path) -> tuple[str, str] | None:
    """Run a command, and return what is wrong with its end."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (COMMAND_BYTES, COMMAND_BYTES))

    try:
        done = subprocess.run(
            [sys.executable, "-m", "pepper.run", *arguments],
            cwd=home, capture_output=True, text=True, errors="replace", timeout=60, preexec_fn=limit,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return "hang", " ".join(arguments)
    if "Traceback" in done.stderr or "Exception ignored" in done.stderr:
        return "traceback", f"{' '.join(arguments)}: {done.stderr[-400:]}"
    if done.returncode not in (0, 1, 2):
        return "crash", f"{' '.join(arguments)}: exit status {done.returncode}"
    return None


def _state(folder: Path) -> frozenset[tuple[str, int, int]]:
    paths = [folder, *folder.rglob("*")]
    return frozenset((str(path), path.lstat().st_mtime_ns, path.lstat().st_size) for path in paths)
