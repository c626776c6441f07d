"""What is done to a sweep: a function a kind, which starts the sweep, does harm, and returns how it ended.

Whatever is broken is whole again when a function returns, as after a user has read what pepper says.
"""

import contextlib
import os
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from random import Random

import psutil

from benchmarks.rough.desk import Command, Desk, Ended
from benchmarks.rough.plan import save_plan

Fault = Callable[[Desk, Random], list[Ended]]
ENDED_BEFORE_S = 1.0  # a signal that comes as the sweep ends by itself is no signal lost


class SwallowedError(Exception):
    """A signal was sent, and the sweep went on to its end."""


def wait(command: Command, desk: Desk, rng: Random) -> None:
    """Wait for a random moment of the sweep."""
    until = command.started + rng.uniform(0.0, 1.05) * desk.rig.seconds
    while command.runs and time.monotonic() < until:
        time.sleep(0.005)


def _signalled(number: int, *overrides: str) -> Fault:
    def fault(desk: Desk, rng: Random) -> list[Ended]:
        desk.sweep += overrides
        command = desk.start()
        wait(command, desk, rng)
        sent, at = command.send(number), time.monotonic()
        ended = command.end()
        late = ended.at - at < ENDED_BEFORE_S and ended.status in (0, 1)
        if sent and not late and ended.status not in (-number, 128 + number):
            raise SwallowedError(f"{signal.Signals(number).name}: exit status {ended.status}")
        return [ended]

    return fault


def _two_signals(desk: Desk, rng: Random) -> list[Ended]:
    command = desk.start()
    wait(command, desk, rng)
    number, sent = signal.SIGTERM, command.send(signal.SIGTERM)
    time.sleep(rng.uniform(0, 1.5))
    command.send(rng.choice((signal.SIGTERM, signal.SIGINT)))
    at = time.monotonic()
    ended = command.end()
    if sent and ended.at - at > ENDED_BEFORE_S and ended.status in (0, 1):
        raise SwallowedError(f"{number.name}: exit status {ended.status}")
    return [ended]


def _paused(desk: Desk, rng: Random) -> list[Ended]:
    command = desk.start()
    wait(command, desk, rng)
    if command.send(signal.SIGSTOP):
        time.sleep(rng.uniform(0.1, 2.0))
        command.send(signal.SIGCONT)
    return [command.end()]


def _helper_killed(module: str, *overrides: str) -> Fault:
    """Kill one process of the sweep's own, at a random moment from its start on."""

    def fault(desk: Desk, rng: Random) -> list[Ended]:
        desk.sweep += overrides
        command = desk.start()
        wait(command, desk, rng)
        while command.runs and not (found := desk.pepper_children(command, module)):
            time.sleep(0.01)
        if command.runs:
            with contextlib.suppress(psutil.NoSuchProcess):
                rng.choice(found).send_signal(rng.choice((signal.SIGKILL, signal.SIGSEGV)))
        return [command.end()]

    return fault


def _killed_with_shell(desk: Desk, rng: Random) -> list[Ended]:
    """Kill the sweep and what removes its temporary folder, at once."""
    command = desk.start()
    wait(command, desk, rng)
    for shell in desk.pepper_children(command, "/bin/sh"):
        shell.kill()
    command.send(signal.SIGKILL)
    ended = command.end()
    for folder in desk.temporary.glob("pepper-scratch-*"):
        os.utime(folder)  # the next start removes it once it is a minute old; not waited for here
        shutil.rmtree(folder)
    return [ended]


@contextlib.contextmanager
def _mounted(folder: Path, *arguments: str) -> Iterator[None]:
    subprocess.run(["mount", *arguments, str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _disk_full(desk: Desk, rng: Random) -> list[Ended]:
    kept = desk.folder.with_name(f"{desk.folder.name}-kept")
    shutil.copytree(desk.mlruns, kept)
    with _mounted(desk.mlruns, "-t", "tmpfs", "-o", "size=80m", "tmpfs"):
        shutil.copytree(kept, desk.mlruns, dirs_exist_ok=True)
        command = desk.start()
        wait(command, desk, rng)
        _fill(desk.mlruns / "filler")
        ended = command.end()
        (desk.mlruns / "filler").unlink()
        shutil.rmtree(kept)
        shutil.copytree(desk.mlruns, kept)
    shutil.copytree(kept, desk.mlruns, dirs_exist_ok=True)
    shutil.rmtree(kept)
    return [ended]


def _temporary_full(desk: Desk, rng: Random) -> list[Ended]:
    with _mounted(desk.temporary, "-t", "tmpfs", "-o", "size=1m", "tmpfs"):
        command = desk.start()
        wait(command, desk, rng)
        _fill(desk.temporary / "filler")
        ended = command.end()
        (desk.temporary / "filler").unlink()
        left = list(desk.temporary.iterdir())
        if left and ended.status >= 0:
            raise RuntimeError(f"left in the temporary folder: {left}")
    return [ended]


def _fill(file: Path) -> None:
    with contextlib.suppress(OSError), file.open("wb", buffering=0) as stream:
        for size in (2**20, 2**12, 1):
            with contextlib.suppress(OSError):
                while True:
                    stream.write(bytes(size))


def _read_only(desk: Desk, rng: Random) -> list[Ended]:
    command = desk.start()
    wait(command, desk, rng)
    with _mounted(desk.mlruns, "--bind", str(desk.mlruns)):
        subprocess.run(["mount", "-o", "remount,ro,bind", str(desk.mlruns)], check=True)
        ended = command.end()
    return [ended]


def _locked(desk: Desk, rng: Random) -> list[Ended]:
    command = desk.start()
    wait(command, desk, rng)
    with closing(sqlite3.connect(desk.file, isolation_level=None, timeout=30)) as store:
        store.execute("BEGIN EXCLUSIVE")
        time.sleep(rng.uniform(0.5, 8))
        store.execute("ROLLBACK")
    return [command.end()]


def _moved(desk: Desk, rng: Random) -> list[Ended]:
    command = desk.start()
    wait(command, desk, rng)
    while command.runs and not (desk.mlruns / "leases").exists():  # a store that is gone before is rightly made anew
        time.sleep(0.01)
    what = rng.choice((desk.file, desk.mlruns))
    away = what.with_name(f"{what.name}.away")
    with closing(sqlite3.connect(desk.file, isolation_level=None, timeout=30)) as store:
        store.execute("BEGIN IMMEDIATE")  # whoever moves a database does not do it in mid-transaction
        what.rename(away)
        store.execute("ROLLBACK")
    time.sleep(rng.uniform(0, 2))
    ended = command.end()
    if what.is_dir():  # pepper has made another one: what it kept there is logged from there
        for box in ("pending", "ends"):
            if (what / box).is_dir():
                shutil.copytree(what / box, away / box, dirs_exist_ok=True)
        shutil.rmtree(what)
    what.unlink(missing_ok=True)
    away.rename(what)
    return [ended]


def _corrupt(desk: Desk, rng: Random) -> list[Ended]:
    command = desk.start()
    wait(command, desk, rng)
    kept = desk.folder / "backup.db"
    with closing(sqlite3.connect(desk.file, isolation_level=None, timeout=30)) as store:
        store.execute("BEGIN IMMEDIATE")
        shutil.copy(desk.file, kept)
        content = bytearray(desk.file.read_bytes())
        for start in (0, rng.randrange(len(content) // 2)):
            content[start : start + 4096] = rng.randbytes(4096)
        with desk.file.open("r+b") as stream:
            stream.write(content)
    ended = command.end()
    for file in desk.mlruns.glob("mlflow.db*"):
        file.unlink()
    kept.rename(desk.file)
    return [ended]


def _two_at_once(desk: Desk, rng: Random) -> list[Ended]:
    first = desk.start()
    time.sleep(rng.uniform(0, 0.5) * desk.rig.seconds)
    second = desk.start()
    if rng.random() < 0.4:
        wait(second, desk, rng)
        rng.choice((first, second)).send(rng.choice((signal.SIGKILL, signal.SIGTERM)))
    return [first.end(), second.end()]


def _bad_records(desk: Desk, rng: Random) -> list[Ended]:
    for box in ("pending", "ends", "unlogged"):
        for _ in range(rng.randrange(4)):
            entry = desk.mlruns / box / rng.choice((rng.randbytes(16).hex(), "x", "a b", "é[x]"))
            if entry.exists():
                continue
            entry.parent.mkdir(exist_ok=True)
            kind = rng.randrange(6)
            if kind == 0:
                entry.write_bytes(rng.randbytes(50))
            elif kind == 1:
                entry.symlink_to(desk.rig.canary)
            elif kind == 2:
                os.mkfifo(entry)
            else:
                entry.mkdir()
                name = {"pending": "record.json", "ends": "sweep.json", "unlogged": "execution.json"}[box]
                text = ('{"schema": 1, "key": "../../../canary"}', "[" * 100_000, "{}", "\x00\xff", '{"schema": 1e999}')
                (entry / name).write_text(rng.choice(text))
                if kind == 5:
                    (entry / "artifacts").symlink_to(desk.rig.canary)
    return [desk.start().end()]


def _streams(desk: Desk, rng: Random) -> list[Ended]:
    full = desk.folder / "full"
    os.mknod(full, stat.S_IFCHR | 0o600, os.makedev(1, 7))
    which = rng.choice(("stderr closed", "stderr full", "both full", "stdin closed"))

    def prepare() -> None:
        if which == "stderr closed":
            os.close(2)
        elif which == "stdin closed":
            os.close(0)
        else:
            node = os.open(full, os.O_WRONLY)
            for descriptor in (1, 2) if which == "both full" else (2,):
                os.dup2(node, descriptor)

    ended = desk.start(program=True, prepare=prepare).end()
    if ended.status != (2 if which == "both full" else 0):
        raise RuntimeError(f"{which}: exit status {ended.status}")
    full.unlink()
    return [ended]


def _surroundings(desk: Desk, rng: Random) -> list[Ended]:
    folder = desk.folder / rng.choice(("a b", "it's", "[red]x", "größe", "new\nline", "-rf", "%d{x}"))
    folder.mkdir()
    locale = rng.choice(("C", "POSIX", "tr_TR.UTF-8", "xx_YY", "", "C.UTF-8"))
    command = desk.start(program=True, environment={"TMPDIR": str(folder), "LC_ALL": locale, "LANG": locale})
    if rng.random() < 0.5:
        time.sleep(4)  # what such a start takes by itself
        wait(command, desk, rng)
        command.send(rng.choice((signal.SIGKILL, signal.SIGTERM)))
    ended = command.end()
    deadline = time.monotonic() + 8
    while list(folder.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.05)
    folder.rmdir()
    return [ended]


def _other_clock(desk: Desk, rng: Random) -> list[Ended]:
    """Let part of the sweep be written by someone whose clock is wrong."""
    ahead_s = rng.choice((-1, 1)) * rng.choice((30.0, 300.0, 86400.0, 4e7))

    def prepare() -> None:
        right = time.time
        time.time = lambda: right() + ahead_s

    command = desk.start("+sweep=four", f"load={rng.choice(('idle', 'cpu50'))}", prepare=prepare)
    if rng.random() < 0.5:
        wait(command, desk, rng)
        command.send(signal.SIGTERM)
    return [command.end()]


def _first_run(number: int) -> Fault:
    """End the sweep while it makes its database, mostly."""

    def fault(desk: Desk, rng: Random) -> list[Ended]:
        desk.file.unlink()
        command = desk.start()
        time.sleep(rng.uniform(0, 6))
        command.send(number)
        return [command.end()]

    return fault


def _server_away(desk: Desk, rng: Random) -> list[Ended]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    desk.uri = f"http://127.0.0.1:{port}"
    with contextlib.ExitStack() as servers:
        first = servers.enter_context(_server(desk, port))
        command = desk.start("+sweep=four", "tracking.timeout_seconds=3")
        wait(command, desk, rng)
        os.killpg(first.pid, signal.SIGKILL)
        if rng.random() < 0.5:
            servers.enter_context(_server(desk, port))
            ended = command.end()
        else:
            ended = command.end()
            servers.enter_context(_server(desk, port))
        again = desk.start("+sweep=four", "tracking.timeout_seconds=10").end()
        if again.status != 0:
            raise RuntimeError(f"with the server back: exit status {again.status}: {again.said[-300:]}")
    desk.uri = f"sqlite:///{desk.file}"
    return [ended, again]


@contextlib.contextmanager
def _server(desk: Desk, port: int) -> Iterator["subprocess.Popen[bytes]"]:
    places = (f"--backend-store-uri=sqlite:///{desk.file}", f"--artifacts-destination={desk.mlruns}/served")
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", f"--port={port}", "--workers=1", *places],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=desk.folder,
        start_new_session=True,
        env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
    )
    try:
        for _ in range(600):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
                break
            time.sleep(0.1)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _plan_killed(desk: Desk, rng: Random) -> list[Ended]:
    """Kill what runs a plan: its stages, parts and run must not outlive it."""
    plan = desk.folder / "plan.json"
    save_plan(desk.rig.model, plan)
    desk.cells = 0
    desk.sweep = ("task=execute", f"execute.plan={plan}", "execute.trials.seconds=0.3", "execute.trials.min_requests=5")
    return _signalled(rng.choice((signal.SIGKILL, signal.SIGTERM)))(desk, rng)


FAULTS: dict[str, Fault] = {
    "kill -9": _signalled(signal.SIGKILL),
    "SIGTERM": _signalled(signal.SIGTERM),
    "SIGINT": _signalled(signal.SIGINT),
    "SIGHUP": _signalled(signal.SIGHUP),
    "two signals": _two_signals,
    "SIGSTOP, SIGCONT": _paused,
    "kill -9, its shell too": _killed_with_shell,
    "kill -9 beside stress-ng": _signalled(signal.SIGKILL, "load.generator=stress-ng"),
    "worker killed": _helper_killed("pepper.measure.worker"),
    "suspender killed": _helper_killed("pepper.devices.suspender"),
    "load generator killed": _helper_killed("pepper.devices.spin"),
    "stress-ng killed": _helper_killed("stress-ng", "load.generator=stress-ng"),
    "first run: kill -9": _first_run(signal.SIGKILL),
    "first run: SIGINT": _first_run(signal.SIGINT),
    "disk full": _disk_full,
    "temporary folder full": _temporary_full,
    "mlruns read-only": _read_only,
    "database locked": _locked,
    "store moved away": _moved,
    "store corrupt": _corrupt,
    "server killed, back": _server_away,
    "two at once": _two_at_once,
    "bad records": _bad_records,
    "stderr closed, full": _streams,
    "locale, folder's name": _surroundings,
    "another's clock": _other_clock,
    "task=execute killed": _plan_killed,
}
"""By the kind's name."""
