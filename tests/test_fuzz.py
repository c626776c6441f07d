"""A few damaged inputs of most kinds through the doors that take them; benchmarks/fuzz.py tries thousands, of all."""

import json
from pathlib import Path
from random import Random

import pytest

from benchmarks.fuzzing.doors import DOORS, Door
from benchmarks.fuzzing.mutations import damage, fresh
from pepper.devices.protocol import GarbledError
from pepper.errors import PepperError

INPUTS = 5  # of each door
QUICK = [door for door in DOORS if door.name not in ("configurations", "command lines", "tuning studies")]


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("originals")
    for door in QUICK:
        (folder / door.name).mkdir()
        door.make(folder / door.name)
    return folder


@pytest.mark.parametrize("door", QUICK, ids=lambda door: door.name)
def test_what_is_damaged_is_taken_or_refused_in_a_line(
    door: Door, originals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "planned.json").write_text(json.dumps(str(originals / "planned.onnx")))
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(b"years of work")
    inbox = tmp_path / "inbox"
    for number in range(INPUTS):
        rng = Random(f"{door.name}/{number}")
        fresh(rng.choice(sorted(path for path in (originals / door.name).iterdir() if path.is_dir())), inbox)
        door.enter(inbox)  # as it is, it is taken
        damage(rng.choice(sorted(path for path in inbox.rglob("*") if path.is_file())), rng)
        said = ""
        try:
            door.enter(inbox)
        except (PepperError, GarbledError) as refused:
            said = str(refused)
        assert "\n" not in said
    assert (tmp_path / "outside" / "secret").read_bytes() == b"years of work"
