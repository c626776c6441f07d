"""A store that the version before has made: every task goes on with it, and says what it said then.

`data/store_before.tar.xz` holds a tracking folder with sweeps, a champion, a placement and an execution, a plan, a cell
and an execution that wait to be logged, and the keys of the documents that ``output=json`` printed then.
"""

import json
import os
import sqlite3
import tarfile
from pathlib import Path
from typing import Any

import pytest
from harness import Desk, MakeDesk

from pepper.devices import host

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(len(host.allowed_cores()) < 2, reason="the plan's devices need two cores"),
]

ARCHIVE = Path(__file__).parent / "data" / "store_before.tar.xz"
THERE = "/pepper-before"
"""The folder as the store names it."""


@pytest.fixture(scope="module")
def desk(make_desk: MakeDesk, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    desk = make_desk(tmp_path_factory.mktemp("before") / "desk")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(desk.folder, filter="data")
    _move(desk.folder)
    return desk


def _move(folder: Path) -> None:
    """Let all that names the folder name this one."""
    with sqlite3.connect(folder / "mlruns" / "mlflow.db") as database:
        tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (table,) in tables:
            for _, column, *_ in database.execute(f'PRAGMA table_info("{table}")').fetchall():
                database.execute(
                    f'UPDATE "{table}" SET "{column}" = replace("{column}", ?, ?) WHERE typeof("{column}") = \'text\'',
                    (THERE, str(folder)),
                )
    database.close()
    for root, _, files in os.walk(folder):
        for file in (Path(root) / name for name in files if name.endswith((".json", "MLmodel"))):
            file.write_text(file.read_text().replace(THERE, str(folder)))


@pytest.fixture(scope="module")
def documents(desk: Desk) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((desk.folder / "documents.json").read_text())
    return found


def keys(document: Any) -> Any:
    """The same with nothing but its keys; a list by what any of its items has."""
    if isinstance(document, dict):
        return {key: keys(value) for key, value in document.items()}
    if isinstance(document, list):
        found: dict[str, Any] = {}
        for item in map(keys, document):
            found |= item if isinstance(item, dict) else {}
        return [found] if found else []
    return None


def lacks(before: Any, now: Any, where: str = "") -> list[str]:
    """What a document no longer has of what it had."""
    if isinstance(before, dict):
        if not isinstance(now, dict):
            return [where]
        return [line for key in before for line in (lacks(before[key], now.get(key, ...), f"{where}.{key}"))]
    if isinstance(before, list) and before:
        return lacks(before[0], now[0] if isinstance(now, list) and now else ..., where)
    return [where] if now is ... else []


TASKS = {
    "import": (0, ()),
    "train": (0, ("tuning.trials=1", "tuning.folds=2", "latency.test_fraction=0.1")),
    "promote": (0, ("promote.version=2",)),
    "predict": (0, ("model=onnx", "model.path={folder}/net.onnx", "device=share50")),
    "place": (
        0,
        ("model=onnx", "model.path={folder}/net.onnx", "place.max_cuts=6", "place.samples=100", "place.confidence=0"),
    ),
    "execute": (
        0,
        ("execute.plan={folder}/placed/plan.json", "execute.trials.seconds=0.1", "execute.trials.min_requests=5"),
    ),
    "compare": (
        None,
        ("compare.baseline={runs[baseline]}", "compare.candidate={runs[candidate]}", "compare.force=true"),
    ),
    "report": (0, ("report.out={folder}/report.html",)),
}
"""The exit status, None where the answer depends on what was measured; and what is given.

The champion is of another feature list: it is trained anew from what the store holds, and gives way.
"""


@pytest.mark.parametrize("task", TASKS)
def test_a_task_goes_on_with_it(desk: Desk, documents: dict[str, Any], task: str) -> None:
    status, given = TASKS[task]
    filled = [each.format(folder=desk.folder, runs=documents["runs"]) for each in given]
    done = desk(f"task={task}", *filled, "output=json")
    assert done.status == status or (status is None and done.status in (0, 3)), done.err
    document = json.loads(done.out)
    if task == "import":
        assert list(document["logged"].values()) == [2], "a cell and an execution"
        return
    found = keys(document)
    if task == "promote":
        assert document["champion"] == 2
        return
    assert lacks(documents[task], found) == []
