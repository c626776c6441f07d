"""Small real models, options of a user's own, and the command line, in this process or in one of its own."""

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import onnx
import psutil
import pytest
from browsers import browser, picture  # noqa: F401 - fixtures
from harness import Desk, MakeDesk, alive, convnet, endless, half_accelerated, mlp, positions, unknown_operator

TIMED = ("devices", "measure", "execution", "planning", "service", "sweep", "tasks")
"""Folders whose tests throttle cores or time what runs there: two at once would disturb each other much."""
JOINED = "hosts"
"""A folder whose tests share what takes long to set up: a head, and what has joined it."""
LONGEST = "test_commands.py"


def pytest_configure() -> None:
    """Let SIGINT end the programs that tests start, also where these run behind a shell's ``&``, which ignores it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)  # before the groups are read
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With several processes (``--dist loadgroup``), each file stays in one, and all that is timed in the same.

    What takes longest begins first, so that no process is left with it at the end.
    """
    items.sort(key=lambda item: item.path.name != LONGEST)
    for item in items:
        folder = item.path.parent.name
        group = "timed" if folder in TIMED else folder if folder == JOINED else item.path.name
        item.add_marker(pytest.mark.xdist_group(group))


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
        "mixed": half_accelerated(),
        "positions": positions(),
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


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep calibrations apart from the user's, and for all tests of a process: each device is calibrated once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session")
def fresh_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's database with its tables and nothing else; making one takes seconds, copying it none."""
    from mlflow import MlflowClient

    file = tmp_path_factory.mktemp("database") / "mlflow.db"
    MlflowClient(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture(scope="session")
def make_desk(options: Path, fresh_database: Path) -> Iterator[MakeDesk]:
    """Set up desks; whatever they started is ended with the session."""
    desks = []

    def make(folder: Path) -> Desk:
        (folder / "mlruns").mkdir(parents=True)
        shutil.copy(fresh_database, folder / "mlruns" / "mlflow.db")
        shutil.copytree(options, folder / "options")
        desks.append(Desk(folder, folder / "options"))
        return desks[-1]

    yield make
    for desk in desks:
        desk.clear()


@pytest.fixture
def desk(make_desk: MakeDesk, tmp_path: Path) -> Iterator[Desk]:
    """A desk in the test's own folder; what it started ends with the test."""
    desk = make_desk(tmp_path / "desk")
    yield desk
    desk.clear()


@pytest.fixture
def started() -> Iterator[list[psutil.Process]]:
    """Processes that the test expects to be gone at its end; killed if they are not."""
    processes: list[psutil.Process] = []
    yield processes
    left = alive(processes)
    for process in left:
        process.send_signal(signal.SIGKILL)
    assert not left
