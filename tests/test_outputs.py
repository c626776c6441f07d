"""Outputs replace a regular file, or a folder that is empty or pepper's own, and nothing else."""

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from pepper.errors import ConfigError
from pepper.graph.cuts import find_cuts
from pepper.graph.load import load_graph
from pepper.graph.manifest import MANIFEST, is_split, read_manifest
from pepper.graph.split import split
from pepper.outputs import fill_folder, output_file, output_folder, replace_folder, results_folder, write_file
from tests.graph import models
from tests.harness import Desk


def _device(place: Path) -> None:
    if os.geteuid():
        pytest.skip("only root makes device nodes")
    os.mknod(place, 0o600 | stat.S_IFCHR, os.makedev(1, 3))  # what /dev/null is


def _socket(place: Path) -> None:
    before = Path.cwd()
    os.chdir(place.parent)  # a socket's path may have some hundred letters only
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(place.name)
    finally:
        os.chdir(before)


def _link(place: Path) -> None:
    target = place.with_name("of the user")
    target.mkdir()
    (target / "thesis.txt").write_text("years of work")
    place.symlink_to(target)


def _link_to_file(place: Path) -> None:
    target = place.with_name("thesis.txt")
    target.write_text("years of work")
    place.symlink_to(target)


def _dangling(place: Path) -> None:
    place.symlink_to("nowhere")


NODES: dict[str, Callable[[Path], None]] = {
    "device": _device,
    "FIFO": os.mkfifo,
    "socket": _socket,
    "link to a folder": _link,
    "link to a file": _link_to_file,
    "link to nowhere": _dangling,
}


def look(folder: Path) -> dict[str, tuple[int, int, bytes | None]]:
    """Kind, inode and content of all that is in a folder."""
    return {
        str(path.relative_to(folder)): (
            stat.S_IFMT(path.lstat().st_mode),
            path.lstat().st_ino,
            path.read_bytes() if path.is_file() and not path.is_symlink() else None,
        )
        for path in folder.rglob("*")
    }


def _fresh(folder: Path) -> None:
    (folder / "mine").write_text("new")


@pytest.mark.parametrize("node", NODES)
@pytest.mark.parametrize(
    "put",
    [
        lambda out, _: output_file("out", str(out)),
        lambda out, _: write_file("out", out, "new"),
        lambda out, _: results_folder("out", str(out)),
        lambda out, _: output_folder("out", out, lambda _: True),
        lambda out, _: replace_folder("out", out, lambda _: True, _fresh),
        lambda out, full: fill_folder("out", full, out),
        lambda out, full: fill_folder("out", full, out.parent),  # which has the node in a result's place
    ],
    ids=["file", "write", "results", "folder", "replace", "fill", "fill around"],
)
def test_only_files_and_folders_are_replaced(put: Callable[[Path, Path], object], node: str, tmp_path: Path) -> None:
    full, home = tmp_path / "full", tmp_path / "home"
    full.mkdir()
    home.mkdir()
    (full / "place").write_text("new")
    NODES[node](home / "place")
    before = look(home)
    with pytest.raises(ConfigError, match=r"^out=\S+/place: is a[\w ]+, which no result .*; choose another"):
        put(home / "place", full)
    assert look(home) == before


def test_what_appears_in_the_meantime_is_not_replaced_either(tmp_path: Path) -> None:
    """The place is looked at before the work, and again when the result is put there."""
    victim = tmp_path / "thesis.txt"
    victim.write_text("years of work")

    def slowly(folder: Path) -> None:
        _fresh(folder)
        (tmp_path / "out").symlink_to(victim)

    with pytest.raises(ConfigError, match="is a symbolic link"):
        replace_folder("out", tmp_path / "out", lambda _: True, slowly)
    assert (tmp_path / "out").is_symlink()
    assert victim.read_text() == "years of work"
    assert len(list(tmp_path.iterdir())) == 2


def test_what_may_be_replaced_is(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "report.html"
    for text in ("first", "second"):
        write_file("out", output_file("out", str(out)), text)
        assert out.read_text() == text
    assert [path.name for path in out.parent.iterdir()] == ["report.html"]
    assert out.stat().st_mode & 0o777 == 0o666 & ~_umask()
    folder = tmp_path / "folder"
    for own in (False, True):  # the first time it is empty
        folder.mkdir(exist_ok=True)
        replace_folder("out", folder, lambda _, own=own: own, _fresh)
    assert [path.name for path in folder.iterdir()] == ["mine"]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize(
    ("manifest", "beside"),
    [
        ('{"name": "my app", "icons": []}', "index.html"),  # what browsers call a manifest
        ("[]", "a"),
        ("{", "a"),
        (None, "thesis.txt"),  # a split, and something of the user's
    ],
)
def test_a_folder_is_a_split_by_what_it_holds(manifest: str | None, beside: str, tmp_path: Path) -> None:
    graph = load_graph(models.save(models.chain(), tmp_path / "c.onnx"))
    out = tmp_path / "parts"
    split(graph, find_cuts(graph)[:2], out)
    assert is_split(out)
    split(graph, find_cuts(graph)[:1], out)
    assert len(read_manifest(out).parts) == 2
    if manifest is not None:
        (out / MANIFEST).write_text(manifest)
    (out / beside).touch()
    before = look(out)
    with pytest.raises(ConfigError, match=r"split\.out=.*parts: holds what pepper did not write there"):
        split(graph, find_cuts(graph), out)
    assert look(out) == before


@pytest.mark.parametrize("key", ["split.out", "report.out", "place.out", "execute.out"])
def test_every_task_says_so_before_its_work(key: str, desk: Desk, tmp_path: Path) -> None:
    """Before the model is read or the store is made: neither is there."""
    place = tmp_path / "place"
    os.mkfifo(place)
    outcome = desk(f"task={key.split('.')[0]}", f"{key}={place}", "model=onnx", "model.path=none", "execute.plan=none")
    assert outcome.status == 2
    assert f"{key}={place}: is a FIFO" in outcome.error
    assert stat.S_ISFIFO(place.lstat().st_mode)
