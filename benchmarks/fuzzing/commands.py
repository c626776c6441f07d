"""Configurations and command lines: composed by the command itself, with all that a task composes of them."""

import contextlib
import io
import json
from pathlib import Path

import yaml

from pepper import run
from pepper.config.composing import Composition
from pepper.errors import PepperError
from pepper.planning.fleets import assemble
from pepper.sweep.axes import plan
from pepper.tasks.result import Result

_OPTIONS = {
    "model/fuzzed.yaml": {"name": "net", "path": "MODEL", "batch": 1, "shapes": {"x": [1, 3, 8, 8]}},
    "device/fuzzed.yaml": {"name": "half", "kind": "emulated", "cores": [0], "threads": 1, "share": 0.5},
    "load/fuzzed.yaml": {"name": "cpu30", "percent": 30, "generator": "pepper"},
    "link/fuzzed.yaml": {"name": "slow", "bandwidth_mbit_s": 3.5, "latency_ms": 9},
    "sweep/fuzzed.yaml": {"name": "mine", "axes": {"model": ["squeezenet"], "load": ["idle", "cpu50"]}},
    "fleet/fuzzed.yaml": {
        "name": "mine",
        "source": "a",
        "sink": "b",
        "devices": {
            "a": {"device": "share25", "load": "idle"},
            "b": {"device": "share50", "overrides": {"share": 0.3}},
        },
        "links": {"a->b": {"bandwidth_mbit_s": 10, "latency_ms": 1}},
    },
}


def make_options(folder: Path) -> None:
    for path, content in _OPTIONS.items():
        file = folder / path.split("/")[0] / path
        file.parent.mkdir(parents=True)
        text = yaml.safe_dump(content).replace("MODEL", str(folder.parent / "planned.onnx"))
        file.write_text(f"# an option\n{text}")


def option_words(folder: Path) -> list[str]:
    groups = [group.name for group in folder.iterdir()]
    chosen = [f"{'+' if group == 'sweep' else ''}{group}=fuzzed" for group in groups]
    model = [] if "model" in groups else ["model=squeezenet"]
    return ["--config-dir", str(folder), "task=cuts", "output=quiet", *model, *chosen]


def enter_options(folder: Path) -> None:
    _run([*option_words(folder), f"task.name={_COMPOSED}"])


_COMPOSED = "composed"
"""A task that composes all that a configuration can say, and measures nothing."""
run.TASKS[_COMPOSED] = run.Task(__name__, "compose_all")


def compose_all(composition: Composition) -> Result:
    """Compose the sweep's cells and the fleet of a configuration."""
    plan(composition)
    assemble(composition)
    return Result()


def _run(arguments: list[str]) -> None:
    """Run a command in this process.

    Raises:
        PepperError: It refuses, with what it says.
    """
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        try:
            status = run.main(arguments)
        except SystemExit as error:  # of a flag that argparse does not know
            raise PepperError(said.getvalue().splitlines()[-1]) from error
    assert status in (0, 2), f"exit status {status}"
    if status:
        lines = said.getvalue().strip().splitlines()
        assert lines[-1:] == [line for line in lines if line.startswith("error: ")], f"says {lines[-3:]}"
        raise PepperError("\n".join(line for line in lines if not line.startswith("warning: ")))


def make_words(folder: Path) -> None:
    for number, words in enumerate(_OVERRIDES):
        (folder / f"{number}").mkdir()
        (folder / f"{number}" / "words.json").write_text(json.dumps(words))


_OVERRIDES = (
    ["model=squeezenet", "device.threads=1", "load=cpu50", "load.cores=1"],
    ["model=squeezenet", "model.shapes.data_0=[1,3,224,224]", "model.inputs.data_0=0.5", "measure.min_seconds=0.5"],
    ["model=squeezenet", "+sweep=loads", "sweep.axes.load=[idle,cpu25]", "sweep.rerun=all", "sweep.seed=3"],
    ["model=squeezenet", "place.pinned.camera=4", "objective.min_per_second=2", "link=lte", "fleet.source=camera"],
    [
        "model=squeezenet",
        "split.parts=3",
        "split.out=parts",
        "cuts.max_tensors=2",
        "execute.moves.allowed=true",
        "execute.moves.load_change.camera=50",
    ],
)


def enter_words(folder: Path) -> None:
    try:
        words = _words(folder / "words.json")
    except (OSError, ValueError, RecursionError):  # not what a shell can hand over
        return
    _run(["task=cuts", "output=quiet", f"task.name={_COMPOSED}", *words])


def _words(file: Path) -> list[str]:
    """Return words as a shell hands them over: without NUL, and not without end."""
    with file.open("rb") as stream:
        found = json.loads(stream.read(2**20))
    return [str(word).replace("\0", "")[:100_000] for word in (found if isinstance(found, list) else [found])]
