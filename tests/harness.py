"""What the tests share: small models, pepper's command line, processes to watch."""

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
from hydra import compose, initialize_config_dir
from onnx import TensorProto, helper, numpy_helper

from pepper import config
from pepper.config import LimitsConfig, PepperConfig
from pepper.tracking.abandoned import OWNER_TAG, owner

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
    *(f"measure.limits.{field.name}=1e9" for field in fields(LimitsConfig)),
)


def lasting(seconds: float) -> tuple[str, ...]:
    """Overrides that make a cell of a small model last this long."""
    return (f"measure.min_seconds={seconds}", f"measure.max_seconds={seconds}", "measure.max_samples=100000000")


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


def half_accelerated() -> onnx.ModelProto:
    """Two operators that any accelerator has, two that WebGPU's provider lacks."""
    nodes = [
        helper.make_node("MatMul", ["input", "w"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("NonZero", ["r"], ["positions"]),
        helper.make_node("Cast", ["positions"], ["output"], to=TensorProto.FLOAT),
    ]
    weight = np.random.default_rng(0).random((16, 16), dtype=np.float32)
    return make_model(nodes, {"input": [1, 16]}, {"output": [2, None]}, {"w": weight})


def positions() -> onnx.ModelProto:
    """An operator that accelerators lack, and one that they have."""
    nodes = [
        helper.make_node("NonZero", ["input"], ["positions"]),
        helper.make_node("Cast", ["positions"], ["output"], to=TensorProto.FLOAT),
    ]
    return make_model(nodes, {"input": [1, 16]}, {"output": [2, None]})


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


def composed(*overrides: str) -> PepperConfig:
    """The configuration that these command-line overrides make."""
    config.register()
    with initialize_config_dir(str(config.conf_dir()), version_base="1.3"):
        return config.typed(compose("run", overrides=list(overrides)))


@dataclass
class Outcome:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line that it said, progress apart."""
        lines = [line for line in self.err.strip().splitlines() if not re.match(r"\[\d+/\d+\] ", line)]
        assert len(lines) == 1, self.err
        return lines[0]


@dataclass
class Desk:
    """A working folder with a tracking store and options of its own, and pepper's command line on it."""

    folder: Path
    options: Path
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
            *(flag for flag in overrides if flag == "-m"),  # Hydra wants its flags before the overrides
            "--config-dir",
            str(self.options),
            *QUICK,
            f"tracking.uri={self.uri}",
            f"tracking.artifacts={store}/artifacts",
            f"tracking.folder={store}",
            *(override for override in overrides if override != "-m"),
        ]

    def sweep(self, name: str, text: str) -> None:
        """Write a sweep of the user's own."""
        (self.options / "sweep" / f"{name}.yaml").write_text(text)

    def __call__(self, *overrides: str) -> Outcome:
        """Run the command in this process: quicker, since mlflow is imported once."""
        from pepper.run import main

        with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
            status = main(self.arguments(*overrides))
        return Outcome(status, out.getvalue(), err.getvalue())

    def start(self, *overrides: str) -> subprocess.Popen[str]:
        """Start ``python -m pepper.run`` in a process of its own."""
        process = subprocess.Popen(
            [sys.executable, "-m", "pepper.run", *self.arguments(*overrides)],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A shell's background job, and so its children, would ignore Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        self.running.append(process)
        return process

    def finish(self, process: subprocess.Popen[str], timeout_s: float = 60) -> Outcome:
        """Wait for a started command."""
        out, err = process.communicate(timeout=timeout_s)
        return Outcome(process.returncode, out, err)

    def clear(self) -> None:
        """End what was started and still runs, or is stopped, with all that it has started."""
        for process in self.running:
            if process.poll() is None:
                for each in (*descendants(process.pid), psutil.Process(process.pid)):
                    with suppress(psutil.NoSuchProcess):
                        each.kill()
                process.wait()
        self.running.clear()

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


@contextmanager
def ends_what_was_abandoned(uri: str, experiment: str) -> Iterator[None]:
    """Leave a run behind as a process that is killed does, and look that it has ended with the block."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    where = client.create_experiment(experiment) if found is None else found.experiment_id
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    tags = {OWNER_TAG: json.dumps({**json.loads(owner()), "pid": gone.pid})}
    run_id = client.create_run(where, tags=tags).info.run_id
    yield
    assert client.get_run(run_id).info.status == "KILLED"


MakeDesk = Callable[[Path], Desk]


def descendants(pid: int) -> list[psutil.Process]:
    """What a process has started, and what these have."""
    return psutil.Process(pid).children(recursive=True)


def alive(processes: Sequence[psutil.Process]) -> list[psutil.Process]:
    """Those that still exist (zombies wait for init only)."""
    found = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):  # it has ended between two looks
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def running(word: str, under: int) -> list[psutil.Process]:
    """The programs under a process whose command line holds this word."""
    found = []
    for process in alive(psutil.Process(under).children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            if word in process.cmdline():
                found.append(process)
    return found


def wait_until(condition: Callable[[], Any], timeout_s: float = 30) -> Any:
    """Poll until the condition holds and return its value."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return value


def undisturbed(measure: Callable[[], float], expected: Any, looks: int = 5) -> float:
    """Measure until the value is as expected, a few times at most, and return the last one.

    Other work on the machine takes CPU time for moments; a wrong share or load is wrong at every look.
    """
    for _ in range(looks):
        if (value := measure()) == expected:
            break
    return value


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def server(folder: Path, database: Path | str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A real tracking server, on a database in a file or at an address."""
    store = f"sqlite:///{database}" if isinstance(database, Path) else database
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            f"--port={port}",
            "--workers=1",
            f"--backend-store-uri={store}",
            f"--artifacts-destination={folder / 'server'}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        start_new_session=True,
        env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
    )

    def up() -> bool:
        assert process.poll() is None, "the server ended"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    try:
        wait_until(up, timeout_s=60)
        yield process
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, 9)
        process.wait()
