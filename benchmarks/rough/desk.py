"""A place to work at: pepper's command line in a folder of its own, and what is left there."""

import ctypes
import hashlib
import io
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import onnx
import psutil
from onnx import TensorProto, helper, numpy_helper

from pepper.config import LimitsConfig

HOME = Path(__file__).parent.parent.parent
CELLS = 4
LONGEST_S = 90.0
OUTBOXES = ("pending", "ends", "unlogged")
LIMITS = [field.name for field in fields(LimitsConfig)]
# A tenth of a second a cell, and no verdict but VALID: an INVALID cell is rightly measured again.
SHORT = (
    "measure.min_seconds=0.1",
    "measure.min_samples=5",
    "measure.ci_percent=50",
    "measure.max_seconds=0.2",
    "measure.warmup_min_seconds=0",
    "measure.warmup_max_seconds=0.02",
    "measure.verify_load_seconds=0.05",
    "measure.time_limit_seconds=30",
    *(f"measure.limits.{name}=1e9" for name in LIMITS),
)
SWEEP = """# Four short cells.
name: four
axes:
  model: [tiny]
  device: [share50, share100]
  load: [idle, cpu50]
"""
_PR_SET_CHILD_SUBREAPER = 36
_MEASURED = re.compile(r"^\[\d+/\d+\] (.*): [^:]* ms, (?:IN)?VALID", re.M)


def adopt() -> None:
    """Let what loses its parent become this process's child: so nothing that is left behind is overlooked."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "no subreaper")


def left_running(patience_s: float = 5.0) -> list[str]:
    """Return what runs below this process after a moment's patience, and end it."""
    deadline = time.monotonic() + patience_s
    while found := [p for p in psutil.Process().children(recursive=True) if not _ended(p)]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    names = [" ".join(process.cmdline()[:4]) for process in found if not _ended(process)]
    for process in found:
        process.kill()
    while True:  # what was adopted is to be waited for, too
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                return names
        except ChildProcessError:
            return names


def _ended(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        status: Its exit status; the signal's number, negative, if one ended it.
        said: What it wrote to standard error.
        seconds: How long it took from its start.
        at: When it had ended (monotonic time, s).
    """

    status: int
    said: str
    seconds: float
    at: float

    @property
    def measured(self) -> set[str]:
        """The cells that it said it had measured."""
        return set(_MEASURED.findall(self.said))


@dataclass
class Command:
    """A command under way.

    Attributes:
        pid: Its process.
        errors: Where its standard error goes.
        started: When (monotonic time, s).
    """

    pid: int
    errors: Path
    started: float
    _status: int | None = None

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._status = os.waitstatus_to_exitcode(status)
        return self._status is None

    def send(self, number: int) -> bool:
        """Send a signal if it still runs; return whether."""
        if runs := self.runs:
            os.kill(self.pid, number)
        return runs

    def end(self, longest_s: float = LONGEST_S) -> Ended:
        """Wait for its end; one that takes far too long is killed."""
        while self.runs:
            if time.monotonic() - self.started > longest_s:
                self.send(signal.SIGKILL)
            time.sleep(0.005)
        assert self._status is not None
        said = self.errors.read_text(errors="replace") if self.errors.is_file() else ""
        now = time.monotonic()
        return Ended(self._status, said, now - self.started, now)


class Rig:
    """What all trials share: a model, a sweep, an empty database, calibrations, and things that nobody may touch.

    Args:
        root: An empty folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.options, self.cache, self.canary = root / "options", root / "cache", root / "canary"
        for name in ("options/model", "options/sweep", "cache", "canary/mlruns", "home"):
            (root / name).mkdir(parents=True)
        for name in ("notes.txt", "mlruns/mlflow.db"):
            (self.canary / name).write_text("whoever changes this has left their own folder\n")
        self.model = root / "tiny.onnx"
        onnx.save(_mlp(), self.model)
        (self.options / "model" / "tiny.yaml").write_text(f"# Two layers.\nname: tiny\npath: {self.model}\n")
        (self.options / "sweep" / "four.yaml").write_text(SWEEP)
        self.database: Path | None = None
        first = Desk(self, root / "first")
        done = first.start().end()
        if done.status != 0:
            raise RuntimeError(f"the first sweep failed: {done.said}")
        with closing(sqlite3.connect(first.file)) as store:
            for table in ("tags", "params", "metrics", "latest_metrics", "runs"):
                store.execute(f"DELETE FROM {table}")
            store.commit()
        self.database = root / "empty.db"
        shutil.move(first.file, self.database)
        shutil.rmtree(first.folder)
        left_running()
        usual = Desk(self, root / "usual")
        self.seconds = usual.start().end().seconds
        """How long an undisturbed sweep takes."""
        shutil.rmtree(usual.folder)
        left_running()
        self.untouched = self.look()

    def look(self) -> dict[str, str]:
        """Return a hash of each file that no trial may touch."""
        places = (self.canary, self.options, self.root / "home")
        # Besides what MLflow and onnxruntime keep of their own in the user's folder.
        own = {".cache", ".config"}
        files = [file for place in places for file in place.rglob("*") if file.is_file() and not own & {*file.parts}]
        found = {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in (*files, self.model)}
        return found | {str(entry): "" for entry in self.root.iterdir() if not entry.name.startswith("trial")}


class Desk:
    """A trial's own folder.

    Args:
        rig: What all trials share.
        folder: Where; made here.
        fresh: Whether the database is yet to be made.
    """

    def __init__(self, rig: Rig, folder: Path, fresh: bool = False) -> None:
        self.rig, self.folder = rig, folder
        self.mlruns, self.temporary = folder / "mlruns", folder / "tmp"
        self.file = self.mlruns / "mlflow.db"
        self.uri = f"sqlite:///{self.file}"
        self.cells = CELLS
        self.sweep: tuple[str, ...] = ("+sweep=four",)
        self.mlruns.mkdir(parents=True)
        self.temporary.mkdir()
        if rig.database is not None and not fresh:
            shutil.copy(rig.database, self.file)

    def arguments(self, *overrides: str) -> list[str]:
        """Return the command's arguments; what all trials need comes first."""
        where = (f"tracking.uri={self.uri}", f"tracking.folder={self.mlruns}")
        artifacts = () if self.uri.startswith("http") else (f"tracking.artifacts={self.mlruns}/artifacts",)
        return ["--config-dir", str(self.rig.options), *SHORT, *where, *artifacts, *overrides]

    def start(
        self,
        *overrides: str,
        errors: Path | None = None,
        prepare: Callable[[], None] = lambda: None,
        program: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> Command:
        """Start the sweep, or what the overrides ask for.

        Args:
            overrides: Of the configuration.
            errors: Where standard error goes; a file of its own if None.
            prepare: Called in the new process first.
            program: Whether as a program of its own; else in a copy of this process, which is quicker.
            environment: More variables.
        """
        arguments = self.arguments(*(overrides or self.sweep))
        if not program:
            return self.copy(lambda: _pepper(arguments), errors, prepare, environment)
        file, variables, started = errors or self._errors(), self._variables(environment), time.monotonic()
        with file.open("w") as stream:
            child = subprocess.Popen(
                [sys.executable, "-m", "pepper.run", *arguments],
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": str(HOME), **variables},
                stdout=subprocess.DEVNULL,
                stderr=stream,
                preexec_fn=prepare,
            )
        child.returncode = 0  # waited for here
        return Command(child.pid, file, started)

    def copy(
        self,
        work: Callable[[], int | None],
        errors: Path | None = None,
        prepare: Callable[[], None] = lambda: None,
        environment: Mapping[str, str] | None = None,
    ) -> Command:
        """Start work, which may return an exit status, in a copy of this process; otherwise as `start`."""
        file, started = errors or self._errors(), time.monotonic()
        pid = os.fork()
        if pid == 0:
            self._work(work, file, self._variables(environment), prepare)
        return Command(pid, file, started)

    def _errors(self) -> Path:
        return self.folder / f"errors-{time.monotonic_ns()}.txt"

    def _variables(self, more: Mapping[str, str] | None) -> dict[str, str]:
        return {
            "TMPDIR": str(self.temporary),
            "XDG_CACHE_HOME": str(self.rig.cache),
            "XDG_STATE_HOME": str(self.folder / "state"),
            "HOME": str(self.rig.root / "home"),
            **(more or {}),
        }

    def _work(
        self, work: Callable[[], int | None], errors: Path, variables: Mapping[str, str], prepare: Callable[[], None]
    ) -> None:
        """Work, to this process's end."""
        status = 70
        try:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            os.chdir(self.folder)
            os.environ.update(variables)
            tempfile.tempdir = None
            with errors.open("w") as stream, Path(os.devnull).open("w") as nowhere:
                os.dup2(nowhere.fileno(), 1)
                os.dup2(stream.fileno(), 2)
            sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb", closefd=False))
            sys.stderr = io.TextIOWrapper(os.fdopen(2, "wb", closefd=False), write_through=True)
            prepare()
            status = work() or 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)

    def pepper_children(self, command: Command, module: str) -> list[psutil.Process]:
        """Return the processes below a command that run a module or program."""
        try:
            below = psutil.Process(command.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        found = []
        for process in below:
            try:
                if any(module in word for word in process.cmdline()):
                    found.append(process)
            except psutil.NoSuchProcess:
                continue
        return found

    def waiting(self) -> list[str]:
        """Return what waits to be logged, what was set aside apart."""
        return [
            f"{box}/{entry.name}"
            for box in OUTBOXES
            for entry in ((self.mlruns / box).iterdir() if (self.mlruns / box).is_dir() else ())
        ]

    def runs(self, file: Path | None = None) -> tuple[Counter[str], int]:
        """Return how often each cell is finished in the store, and how many runs are under way in it."""
        with closing(sqlite3.connect(file or self.file)) as store:
            finished = store.execute(
                "SELECT cell.value FROM runs JOIN tags kind USING (run_uuid) JOIN tags cell USING (run_uuid)"
                " WHERE lifecycle_stage = 'active' AND status = 'FINISHED'"
                " AND kind.key = 'pepper.kind' AND kind.value = 'cell' AND cell.key = 'pepper.cell'"
            ).fetchall()
            ((running,),) = store.execute(
                "SELECT count(*) FROM runs WHERE lifecycle_stage = 'active' AND status IN ('RUNNING', 'SCHEDULED')"
            ).fetchall()
        return Counter(cell for (cell,) in finished), int(running)


def _pepper(arguments: Sequence[str]) -> int:
    from pepper.run import main

    return main(arguments)


def _mlp(width: int = 16) -> onnx.ModelProto:
    rng = np.random.default_rng(width)
    weights = [numpy_helper.from_array(rng.random((width, width), dtype=np.float32), name) for name in ("w1", "w2")]
    nodes = [
        helper.make_node("MatMul", ["input", "w1"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w2"], ["output"]),
    ]
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, width]) for name in ("input", "output")]
    graph = helper.make_graph(nodes, "tiny", value[:1], value[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
