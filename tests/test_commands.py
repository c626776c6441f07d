"""Every command that the documents show is run, in the order of its document, on the files that they show.

The tutorial comes first, from its model to the report: the latency model and the plan that it ends with are what the
other documents' commands find. What is added to a command makes it shorter, never another task.
"""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import pytest
from documents import FILES, PEPPER, SERVE, commands, name, titled, write_files
from harness import ROOT, Desk, MakeDesk, Outcome, free_port, make_model, server
from onnx import helper

from pepper.devices import host

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(len(host.allowed_cores()) < 2, reason="the default fleet takes two cores"),
]

# What is not run, and why.
NOT_RUN = {
    "pip install '.[cpu]'": "sets up an environment",
    "pip install '.[cpu,service]'": "sets up an environment",
    f"{PEPPER} task=serve": "a server that nothing ends; tests/service/test_service.py starts it",
    "make run": "sets up an environment, and then runs +sweep=loads, which is run here",
    "make test": "runs this",
    "make lint": "part of make test",
    "make ui": "a server that nothing ends; test_documents.py looks for the target",
    "source .venv/bin/activate": "the environment is that of the tests",
    '.venv/bin/python -m pytest -m "not slow"': "runs tests like this one",
    "python docs/generate.py": "writes to the repository; test_documents.py runs it with --check",
    "python -m benchmarks.retest": "takes minutes; its figures depend on the machine",
    "pip download --no-deps silero-vad": "downloads; write_models makes a model with such inputs",
    "git checkout main": "changes the repository",
    "git checkout -": "changes the repository",
    f"{PEPPER} GROUP=OPTION KEY=VALUE": "the form of all commands",
    f"{PEPPER} model=squeezenet device.provider=OpenVINOExecutionProvider device.library=onnxruntime_ep_openvino": (
        "needs an Intel processor; tests/tasks/test_accelerators.py runs other plug-ins"
    ),
    f"{PEPPER} task=place model=resnet50 fleet=cores_and_gpu fleet.devices.gpu.device=webgpu": (
        "needs a graphics device that WebGPU can use"
    ),
    f"{PEPPER} model=squeezenet device=cuda load=gpu50": (
        "needs an NVIDIA GPU; tests/measure/test_accelerator_load.py loads another accelerator"
    ),
    "taskset": "a program's name, not a command",
    "source": "a column's name, not a command",
    f"{PEPPER} task=head hosts.address=192.168.1.2:8786 hosts.names=[camera,edge]": "a server that nothing ends",
    f"{PEPPER} task=head hosts.withdraw=[camera] hosts.names=[camera]": "a head that made a bundle of it is needed",
    "pip install 'pepper-harness[cpu,fleet]'": "installs",
    "pip install 'pepper-harness[host]'": "installs",
    "pip install 'pepper-harness[host,service]'": "installs",
    f"{PEPPER} task=join hosts.bundle=edge.json": "a server that nothing ends; tests/hosts/test_fleet.py starts one",
    f"{PEPPER} device.host=edge": "needs a host; tests/hosts/test_sweeps.py has some",
    f"{PEPPER} model=resnet50 device.host=edge": "needs a host; tests/hosts/test_sweeps.py has some",
    f"{PEPPER} task=fleet": "needs a head; tests/hosts/test_fleet.py starts one",
    f"{PEPPER} task=train tuning.hosts=[edge,server]": "needs hosts; tests/hosts/test_learning.py has some",
    f"{PEPPER} task=join hosts.bundle=camera.json": "a server that nothing ends; tests/hosts/test_fleet.py starts one",
    SERVE: "a server that nothing ends; tests/tasks/test_promote.py starts it",
}

FLEET_TUTORIAL = ROOT / "docs" / "tutorial_fleet.md"
"""What it shows needs other machines: tests/hosts/test_tutorial.py runs it."""

TESTED_WITH_HOSTS = {"head", "join", "fleet"}
"""Tasks that need other machines: tests/hosts runs them."""

# By task: little to learn from, few plans to choose from, few requests. The tutorial's model is a small one.
# A cell of few samples, but enough of them on a slow device: it must be VALID to be learned from.
_MEASURE = ("measure.max_seconds=2",)
_TRAIN = ("tuning.trials=2", "tuning.folds=2")
_EXECUTE = (
    "execute.trials.seconds=0.1",
    "execute.trials.min_requests=5",
    "execute.moves.seconds=1",
    "execute.others.positions=1",
)
_PLACE = ("model=watch", "place.max_cuts=4", "place.samples=100", *_EXECUTE)
SHORT = {
    "train": _TRAIN,
    "adapt": ("adapt.measurements=3",),
    "place": _PLACE,
    "execute": _EXECUTE,
    "quickstart": (*_TRAIN, *_PLACE),
}
# By sweep: few cells.
AXES = {
    "learn": "{model.variant:[0,1,2],model.part:[0],device:[share100,share50],load:[idle,cpu25,cpu50]}",
    "families": "{model.variant:[recommender-0],model.part:[0],device:[share50],load:[idle]}",
    "informative": "{model:[squeezenet],model.part:[0,1],device:[share50],load:[idle,cpu50]}",
    "loads": "{model:[watch],device:[share50],load:[idle,cpu50]}",
    "parts": "{model:[squeezenet],model.part:[0,1],device:[share50],load:[idle,cpu50]}",
    "quickstart": "{model:[squeezenet],model.part:[0,1],device:[share50]}",
    "mine": "{model:[watch]}",
    "repeat": "{model:[watch],measure.seed:[0,1]}",
}
SWEEP_OF = {"adapt": "parts", "quickstart": "quickstart"}
"""What these tasks measure where the command names no sweep."""

ANSWERS_NO = 3
"""The exit status of tasks that answer a question, where the answer depends on the measurements."""


def task_of(command: str) -> str:
    named = re.search(r"\btask=(\w+)", command)
    return named[1] if named else "profile"


def shortened(command: str) -> list[str]:
    """The command's arguments, and what makes it short."""
    given = shlex.split(command.removeprefix(PEPPER))
    task = task_of(command)
    sweep = re.search(r"\+sweep=(\w+)", command)
    named = sweep[1] if sweep else SWEEP_OF.get(task)
    axes = [f"sweep.axes={AXES[named]}"] if named else []
    if named and not sweep:
        axes.insert(0, f"+sweep={named}")
    return [*given, *axes, *_MEASURE, *SHORT.get(task, ())]


TUTORIAL = ROOT / "docs" / "tutorial.md"
VERSIONS = (f"{PEPPER} task=train", f"{PEPPER} task=adapt device=share25")
"""What makes versions 2 and 3 of the latency model, of which the documents speak."""
SERVER = "http://host:5000"


@dataclass
class Shell:
    """Runs commands in a folder, each once; knows what a script assigned to its variables."""

    desk: Desk
    database: Path
    ran: set[str] = field(default_factory=set)
    variables: dict[str, str] = field(default_factory=dict)

    def __call__(self, command: str) -> None:
        if command in NOT_RUN or command in self.ran:
            return
        self.ran.add(command)
        if re.fullmatch(r"python \w+\.py", command):
            # In a process of its own: MLflow keeps open stores by URI, and here that is the same in every folder.
            subprocess.run([sys.executable, command.removeprefix("python ")], check=True)
        elif assigned := re.fullmatch(rf"(\w+)=\$\(({re.escape(PEPPER)} .*) \| jq -r \.(\w+)\)", command):
            variable, inner, key = assigned.groups()
            self.variables[variable] = json.loads(self.pepper(inner).out)[key]
        else:
            assert command.startswith(PEPPER), f"{command}: neither run nor listed in NOT_RUN"
            self.pepper(command)

    def pepper(self, command: str) -> Outcome:
        """Run one of pepper's commands, with what stands for a value in it."""
        if SERVER in command:
            database, port = self.desk.folder / "server.db", free_port()
            shutil.copy(self.database, database)
            with server(self.desk.folder, database, port):
                return self.pepper(command.replace(SERVER, f"http://127.0.0.1:{port} tracking.artifacts=null"))
        profile = self.desk.runs()[0].info.run_id if "=RUN" in command else ""
        written = re.sub(r"\$(\w+)", lambda found: self.variables[found[1]], command).replace("=RUN", f"={profile}")
        done = self.desk(*shortened(written))
        answers = ANSWERS_NO if task_of(command) in ("promote", "compare") else 0
        assert done.status in (0, answers), f"{command}: {done.err}"
        return done


@pytest.fixture(scope="module")
def shell(make_desk: MakeDesk, fresh_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A shell in a folder with all files that the documents show or speak of, after the tutorial."""
    desk = make_desk(tmp_path_factory.mktemp("documents") / "desk")
    desk.options = desk.folder / "my"
    write_files(desk.folder)
    write_models(desk.folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(desk.folder)
        made = Shell(desk, fresh_database)
        for command in (*commands(TUTORIAL), *VERSIONS):
            made(command)
        yield made


def write_models(folder: Path) -> None:
    """Write the models that the documents take for granted."""
    weights = {"w": np.random.default_rng(0).random((4, 3, 3, 3), dtype=np.float32)}
    see, read = helper.make_node("Conv", ["input", "w"], ["seen"]), helper.make_node("Relu", ["words"], ["read"])
    mine = make_model(
        [see, read],
        {"input": [1, 3, 640, 640], "words": ["sequence", 8]},
        {"seen": [1, 4, 638, 638], "read": ["sequence", 8]},
        weights,
    )
    onnx.save(mine, folder / "my.onnx")
    heard = [
        helper.make_node("Cast", ["sr"], ["rate"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Mul", ["input", "rate"], ["louder"]),
        helper.make_node("ReduceMean", ["louder"], ["output"], axes=[1], keepdims=1),
        helper.make_node("Relu", ["state"], ["stateN"]),
    ]
    vad = make_model(
        heard,
        {"input": [None, None], "state": [2, None, 128]},
        {"output": [None, 1], "stateN": [2, None, 128]},
        {},
    )
    vad.graph.input.append(helper.make_tensor_value_info("sr", onnx.TensorProto.INT64, []))
    onnx.save(vad, folder / "silero_vad.onnx")
    see = helper.make_node("Conv", ["image", "w"], ["seen"])
    (folder / "models").mkdir()
    onnx.save(
        make_model([see], {"image": ["batch", 3, 640, 640]}, {"seen": ["batch", 4, 638, 638]}, weights),
        folder / "models" / "mine.onnx",
    )


def test_the_tutorial_leads_to_a_plan_that_ran_on_a_model_that_is_none_of_ours(shell: Shell) -> None:
    plan = json.loads((shell.desk.folder / "placed" / "plan.json").read_text())
    assert plan["model"]["name"] == "watch"
    assert plan["provenance"]["latency_model_version"] == 1
    assert len(list((shell.desk.folder / "parts").glob("*.onnx"))) == 3
    devices = " - ".join(part["device"] for part in plan["parts"])
    assert f"watch on {devices}" in (shell.desk.folder / "report.html").read_text()


@pytest.mark.parametrize("file", [file for file in FILES if file != FLEET_TUTORIAL], ids=name)
def test_the_commands_of_a_document_run(shell: Shell, file: Path) -> None:
    for shown in titled(file):
        if shown.endswith(".py"):
            shell(f"python {shown}")
    for command in commands(file):
        shell(command)


def test_each_task_has_its_commands() -> None:
    shown = {task_of(command) for file in FILES for command in commands(file) if command not in NOT_RUN}
    assert shown | TESTED_WITH_HOSTS == {file.stem for file in (ROOT / "conf" / "task").glob("*.yaml")}


def test_what_is_not_run_is_still_shown() -> None:
    assert set(NOT_RUN) <= {command for file in FILES for command in commands(file)}
