"""Small real models, options of a user's own, and the command line, in this process or in one of its own."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).parent.parent

# A cell in a tenth of a second. Other work on the machine that runs the tests must not decide their outcome:
# so the limits of a verdict are wide, except where a test sets one.
QUICK = (
    "measure.min_seconds=0.02",
    "measure.min_samples=5",
    "measure.ci_percent=50",
    "measure.max_seconds=0.05",
    "measure.warmup_min_seconds=0",
    "measure.warmup_max_seconds=0.02",
    "measure.verify_load_seconds=0.05",
    "measure.time_limit_seconds=30",
    *(
        f"measure.limits.{name}=1e9"
        for name in (
            "ci_percent",
            "drift_percent",
            "load_points",
            "share_percent",
            "foreign_percent",
            "steal_percent",
        )
    ),
)


def make_model(
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, Sequence[int | str | None]],
    outputs: dict[str, Sequence[int | str | None]],
    weights: dict[str, np.ndarray] | None = None,
) -> onnx.ModelProto:
    """A float model of these nodes, in an IR version that every supported onnxruntime reads."""
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def mlp(width: int = 16, batch: int | str = 1) -> onnx.ModelProto:
    """Two layers; microseconds."""
    rng = np.random.default_rng(width)
    weights = {name: rng.random((width, width), dtype=np.float32) for name in ("w1", "w2")}
    nodes = [
        helper.make_node("MatMul", ["input", "w1"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w2"], ["output"]),
    ]
    return make_model(nodes, {"input": [batch, width]}, {"output": [batch, width]}, weights)


def convnet() -> onnx.ModelProto:
    """One convolution of 150 MFLOP; milliseconds."""
    weight = np.random.default_rng(0).random((64, 32, 3, 3), dtype=np.float32)
    nodes = [helper.make_node("Conv", ["input", "w"], ["output"], pads=[1, 1, 1, 1])]
    return make_model(nodes, {"input": [1, 32, 64, 64]}, {"output": [1, 64, 64, 64]}, {"w": weight})


def endless() -> onnx.ModelProto:
    """A loop of 2^60 rounds."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["on"], ["on_out"]),
            helper.make_node("Relu", ["x"], ["x_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1]),
        ],
        [
            helper.make_tensor_value_info("on_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x_out", TensorProto.FLOAT, [1]),
        ],
    )
    nodes = [helper.make_node("Loop", ["rounds", "", "input"], ["output"], body=body)]
    return make_model(nodes, {"input": [1]}, {"output": [1]}, {"rounds": np.array(2**60, dtype=np.int64)})


def unknown_operator() -> onnx.ModelProto:
    """A model that onnx reads and onnxruntime cannot run."""
    nodes = [helper.make_node("Frobnicate", ["input"], ["output"])]
    return make_model(nodes, {"input": [1]}, {"output": [1]})


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files of small models by name."""
    folder = tmp_path_factory.mktemp("models")
    made = {
        "tiny": mlp(),
        "small": mlp(24),
        "dynamic": mlp(16, "N"),
        "conv": convnet(),
        "endless": endless(),
        "unknown": unknown_operator(),
    }
    for name, model in made.items():
        onnx.save(model, folder / f"{name}.onnx")
    (folder / "corrupt.onnx").write_bytes(b"not a model")
    return {file.stem: file for file in folder.glob("*.onnx")}


@pytest.fixture(scope="session")
def options(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for ``--config-dir``: the small models as options of the group ``model``."""
    folder = tmp_path_factory.mktemp("options")
    for group in ("model", "sweep"):
        (folder / group).mkdir()
    for name, file in models.items():
        (folder / "model" / f"{name}.yaml").write_text(f"# A test's.\nname: {name}\npath: {file}\n")
    return folder


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where calibrations are kept, for all tests: each device is calibrated once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def fresh_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's database with its tables and nothing else; making one takes seconds, copying it none."""
    from mlflow import MlflowClient

    file = tmp_path_factory.mktemp("database") / "mlflow.db"
    MlflowClient(f"sqlite:///{file}").search_experiments()
    return file


@dataclass
class Outcome:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line that it said."""
        lines = self.err.strip().splitlines()
        assert len(lines) == 1, self.err
        return lines[0]


@dataclass
class Desk:
    """A working folder with a tracking store and options of its own, and pepper's command line on it."""

    folder: Path
    options: Path
    cache: Path
    capture: Any = None
    running: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.folder}/mlruns/mlflow.db"

    @property
    def pending(self) -> list[Path]:
        return sorted((self.folder / "mlruns" / "pending").glob("[!.]*"))

    def arguments(self, *overrides: str) -> list[str]:
        # MLflow keeps open stores by URI: one process that works in several folders needs whole paths.
        store = f"{self.folder}/mlruns"
        return [
            "--config-dir",
            str(self.options),
            *QUICK,
            f"tracking.uri={self.uri}",
            f"tracking.artifacts={store}/artifacts",
            f"tracking.folder={store}",
            *overrides,
        ]

    def sweep(self, name: str, text: str) -> None:
        """Write a sweep of the user's own."""
        (self.options / "sweep" / f"{name}.yaml").write_text(text)

    def __call__(self, *overrides: str) -> Outcome:
        """Run the command in this process: quicker, since mlflow is imported once."""
        from pepper.run import main

        self.capture.readouterr()
        status = main(self.arguments(*overrides))
        return Outcome(status, *self.capture.readouterr())

    def start(self, *overrides: str) -> subprocess.Popen[str]:
        """Start ``python -m pepper.run`` in a process of its own."""
        process = subprocess.Popen(
            [sys.executable, "-m", "pepper.run", *self.arguments(*overrides)],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(self.cache)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.running.append(process)
        return process

    def finish(self, process: subprocess.Popen[str], timeout_s: float = 60) -> Outcome:
        """Wait for a started command."""
        out, err = process.communicate(timeout=timeout_s)
        return Outcome(process.returncode, out, err)

    def runs(self, kind: str = "cell", uri: str | None = None) -> list[Any]:
        """The logged runs of a kind, oldest first."""
        from mlflow import MlflowClient

        client = MlflowClient(uri or self.uri)
        experiment = client.get_experiment_by_name("pepper/profiles")
        if experiment is None:
            return []
        return client.search_runs(
            [experiment.experiment_id], f"tags.`pepper.kind` = '{kind}'", order_by=["attributes.start_time"]
        )


MakeDesk = Callable[[Path], Desk]


@pytest.fixture
def make_desk(
    options: Path, cache: Path, fresh_database: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> Iterator[MakeDesk]:
    """Set up desks; whatever they started is ended afterwards."""
    desks = []

    def make(folder: Path) -> Desk:
        (folder / "mlruns").mkdir(parents=True)
        shutil.copy(fresh_database, folder / "mlruns" / "mlflow.db")
        shutil.copytree(options, folder / "options")
        desks.append(Desk(folder, folder / "options", cache, capsys))
        return desks[-1]

    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    yield make
    for process in (process for desk in desks for process in desk.running):
        if process.poll() is None:
            process.kill()
            process.communicate()


@pytest.fixture
def desk(make_desk: MakeDesk, tmp_path: Path) -> Desk:
    """A desk in the test's own folder."""
    return make_desk(tmp_path / "desk")


def descendants(pid: int) -> list[psutil.Process]:
    """What a process has started, and what these have."""
    return psutil.Process(pid).children(recursive=True)


def alive(processes: Sequence[psutil.Process]) -> list[psutil.Process]:
    """Those that still exist (zombies wait for init only)."""
    return [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def wait_until(condition: Callable[[], Any], timeout_s: float = 30) -> Any:
    """Poll until the condition holds and return its value."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return value


@pytest.fixture
def started() -> Iterator[list[psutil.Process]]:
    """Processes that the test expects to be gone at its end; killed if they are not."""
    processes: list[psutil.Process] = []
    yield processes
    left = alive(processes)
    for process in left:
        process.send_signal(signal.SIGKILL)
    assert not left
