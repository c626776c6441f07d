"""The tutorial of a fleet, as written: its commands, in order, with two hosts that joined."""

import json
import shlex
from pathlib import Path

import pytest
from documents import PEPPER, commands, titled
from harness import ROOT, MakeDesk
from machines import Machines

pytestmark = pytest.mark.slow
pytest.importorskip("distributed")

TUTORIAL = ROOT / "docs" / "tutorial_fleet.md"
CAMERA = "other"
"""The machine that is the tutorial's camera; its edge box has the same name here."""

ELSEWHERE = ("pip install", f"{PEPPER} task=head", f"{PEPPER} task=join")
"""What the machines have been set up with."""

SHORT = {
    "task=place": ("place.samples=100",),
    "task=execute": ("execute.trials.seconds=0.3", "execute.trials.min_requests=5"),
}


def meant(text: str) -> str:
    """The text with its hosts called as the machines are."""
    return text.replace("host: camera", f"host: {CAMERA}").replace("[camera, edge, null]", f"[{CAMERA}, edge, null]")


def test_its_commands_lead_to_a_plan_that_ran_across_hosts(
    make_desk: MakeDesk, machines: Machines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = make_desk(tmp_path / "desk")
    desk.options = desk.folder / "my"
    for name, body in titled(TUTORIAL).items():
        (desk.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (desk.folder / name).write_text(meant(body))
    monkeypatch.chdir(desk.folder)
    said = {}
    for command in commands(TUTORIAL):
        if not command.startswith(ELSEWHERE):
            given = shlex.split(command.removeprefix(PEPPER).replace("--config-dir my", ""))
            task = next((word for word in given if word.startswith("task=")), "")
            done = desk(*given, *SHORT.get(task, ()), f"hosts.folder={machines.folder}/fleet")
            assert done.status == 0, f"{command}: {done.err}"
            said[command] = done.out
    plan = json.loads((desk.folder / "across" / "plan.json").read_text())
    assert {"camera", "edge"} <= {part["device"] for part in plan["parts"]}
    assert {run.data.params.get("host") for run in desk.runs()} == {CAMERA, "edge", "None"}
    assert "requests/s (Poisson)" in said[command]
