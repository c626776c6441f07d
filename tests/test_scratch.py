"""Temporary folders end with their process, however it ends."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from harness import ROOT, wait_until

from pepper import scratch
from pepper.errors import ConfigError
from pepper.scratch import own_temporary_folder

PROGRAM = """
import tempfile, time
from pathlib import Path
from pepper.scratch import own_temporary_folder
with own_temporary_folder():
    (Path(tempfile.mkdtemp()) / "part.onnx").write_bytes(bytes(1000))
    print(repr(tempfile.gettempdir()), flush=True)
    time.sleep(3600)
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, with a space, quotes, an end of a line and backslashes in its name."""
    folder = tmp_path / "its 'own'\n\\n\\folder"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


Start = Callable[[], subprocess.Popen[str]]


@pytest.fixture
def start(temporary: Path) -> Iterator[Start]:
    """Start a program that has a temporary folder and sleeps; killed with the test."""
    with contextlib.ExitStack() as ends:

        def start() -> subprocess.Popen[str]:
            process = ends.enter_context(
                subprocess.Popen([sys.executable, "-c", PROGRAM], cwd=ROOT, stdout=subprocess.PIPE, text=True)
            )
            ends.callback(process.kill)
            assert process.stdout is not None
            assert re.search("pepper-scratch-", process.stdout.readline())
            return process

        yield start


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_when_the_process_ends(temporary: Path, start: Start, number: int) -> None:
    process = start()
    assert len(list(temporary.iterdir())) == 1
    process.send_signal(number)
    process.communicate(timeout=30)
    wait_until(lambda: not list(temporary.iterdir()), timeout_s=10)


def test_the_next_start_removes_what_was_left(temporary: Path, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a process that was killed together with its shell; not of one that lives, nor what others have put there."""
    killed, _ = start(), start()
    (left,) = (folder for folder in temporary.iterdir() if _of(killed, folder))
    os.kill(psutil.Process(killed.pid).children()[0].pid, signal.SIGKILL)
    killed.kill()
    killed.wait()
    assert left.exists()
    others = [temporary / name for name in ("pepper-scratch-notes", "pepper-scratch-abcdefg1", "pepper-mine")]
    others[0].mkdir()
    others[1].symlink_to(others[0])
    others[2].mkdir()
    with own_temporary_folder():
        assert left.exists(), "too young"
    monkeypatch.setattr(scratch, "_LEAST_AGE_S", 0.0)
    time.sleep(0.02)
    with own_temporary_folder():
        assert not left.exists()
        assert all(other.exists() for other in others)
        assert len(list(temporary.iterdir())) == len(others) + 2
    assert len(list(temporary.iterdir())) == len(others) + 1


def _of(process: subprocess.Popen[str], folder: Path) -> bool:
    return any(folder == fd.readlink() for fd in Path(f"/proc/{process.pid}/fd").iterdir())


def test_the_surroundings_are_as_before(temporary: Path) -> None:
    before = set(psutil.Process().children())
    with own_temporary_folder():
        assert Path(os.environ["TMPDIR"]).parent == temporary
        assert Path(tempfile.gettempdir()).parent == temporary
    assert os.environ["TMPDIR"] == str(temporary)
    assert list(temporary.iterdir()) == []
    assert set(psutil.Process().children()) <= before


def test_a_shell_that_is_killed_is_replaced(temporary: Path) -> None:
    mine = temporary / "mine"
    mine.mkdir()
    with own_temporary_folder():
        shell = scratch._remover._shell
        assert shell is not None
        shell.kill()
        shell.wait()
        scratch.remove_at_end(mine)
        mine.rmdir()
        scratch.removed(mine)
    assert list(temporary.iterdir()) == []


def test_no_room_for_temporary_files_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with (
        pytest.raises(ConfigError, match=r"^TMPDIR=.*: no temporary folder can be made \(No such file"),
        own_temporary_folder(),
    ):
        pass
