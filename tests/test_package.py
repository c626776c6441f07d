"""pepper as a user gets it: a wheel, installed somewhere, run from anywhere; and how soon it answers."""

import os
import subprocess
import sys
import sysconfig
import time
import zipfile
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import pytest
from harness import QUICK, ROOT
from mlflow import MlflowClient

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    if find_spec("hatchling"):
        command.append("--no-build-isolation")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "No matching distribution" in done.stderr or "Could not find a version" in done.stderr:
        pytest.skip("the build backend cannot be fetched here")
    assert done.returncode == 0, done.stderr
    (file,) = folder.glob("*.whl")
    return file


def test_the_wheel_holds_the_configuration_and_nothing_foreign(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    conf = {f"pepper/conf/{file.relative_to(ROOT / 'conf')}" for file in (ROOT / "conf").rglob("*.yaml")}
    assert conf <= names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"pepper", "pepper_harness"}


def test_the_wheel_runs_from_any_directory(wheel: Path, models: dict[str, Path], tmp_path: Path) -> None:
    venv, work = tmp_path / "venv", tmp_path / "work"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    python = venv / "bin" / "python"
    purelib = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    # Its dependencies are those of the environment that runs this test; pepper itself comes from the wheel.
    (Path(purelib) / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    zipfile.ZipFile(wheel).extractall(purelib)
    work.mkdir()
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def pepper(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [python, "-m", "pepper.run", *arguments],
            cwd=work,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    where = subprocess.run(
        [python, "-c", "import pepper.config; print(pepper.config.conf_dir())"],
        cwd=work,
        capture_output=True,
        text=True,
    )
    assert Path(where.stdout.strip()) == Path(purelib) / "pepper" / "conf"
    shown = pepper("--help")
    assert shown.returncode == 0
    assert "squeezenet" in shown.stdout
    assert list(work.iterdir()) == []
    done = pepper("model=onnx", f"model.path={models['tiny']}", "device=share100", *QUICK)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in work.iterdir()] == ["mlruns"]
    client = MlflowClient(f"sqlite:///{work}/mlruns/mlflow.db")
    experiment = client.get_experiment_by_name("pepper/profiles")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.info.artifact_uri.startswith(f"file://{work}/mlruns/artifacts/")


def test_help_lists_every_option(options: Path) -> None:
    command = [sys.executable, "-m", "pepper.run", "--help", "--config-dir", str(options)]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for file in (ROOT / "conf").rglob("*/*.yaml"):
        assert f"  {file.stem} " in shown
        assert file.read_text().splitlines()[0].strip("# .") in shown
    assert "  tiny " in shown, "the user's own options too"


def seconds(*command: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, check=True)
    return time.perf_counter() - start


def test_help_comes_soon() -> None:
    """No more than twice what ``import hydra`` takes."""
    pairs = [(seconds("-m", "pepper.run", "--help"), seconds("-c", "import hydra")) for _ in range(5)]
    ours, theirs = (median(column) for column in zip(*pairs, strict=True))
    assert ours <= 2 * theirs
