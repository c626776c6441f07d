"""``task=promote`` where the champion cannot be used any more, or is to be taken back."""

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from documents import SERVE, commands
from harness import ROOT, Desk, MakeDesk, composed, free_port, stop, wait_until

from pepper.latency.features import FEATURES
from pepper.latency.model import LatencyModel
from pepper.planning.latency_models import open_registry
from pepper.tracking.registry import MODEL_FOLDER, Registry, promotion
from tests.latency.measured import measured
from tests.tasks.champion import register

if TYPE_CHECKING:
    import pandas as pd


@pytest.fixture
def desk(make_desk: MakeDesk, tmp_path: Path) -> Desk:
    """A desk with three versions of a latency model, the first of them champion."""
    made = make_desk(tmp_path / "desk")
    register(made, errors=(0.0, 0.0, 0.0))
    return made


def registry_of(desk: Desk) -> Registry:
    return open_registry(composed(f"tracking.uri={desk.uri}", f"tracking.folder={desk.folder}/mlruns"))


def make_old(desk: Desk, version: int) -> None:
    """Make a version one of another feature list."""
    from mlflow import MlflowClient

    client = MlflowClient(desk.uri)
    run = client.get_run(client.get_model_version("pepper-latency", str(version)).run_id)
    file = Path(run.info.artifact_uri.removeprefix("file://")) / "model" / "latency_model.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "features_digest": "old", "features": FEATURES[1:]}))


def test_a_champion_that_cannot_be_used_gives_way(desk: Desk) -> None:
    make_old(desk, 1)
    assert "version 1: trained on another feature list" in desk("task=predict", "model=tiny").error
    make_old(desk, 2)
    assert "version 2: trained on another feature list" in desk("task=promote", "promote.version=2").error
    assert registry_of(desk).champion() == 1
    done = desk("task=promote")
    assert done.status == 0, done.err
    (line,) = done.out.splitlines()
    assert line.startswith("version 3 is the champion, after version 1: the champion cannot be used: pepper-latency v")
    assert "feature list" in registry_of(desk).history()[-1].why
    assert desk("task=predict", "model=tiny").status == 0


def test_rollbacks_go_back_one_after_the_other(desk: Desk) -> None:
    registry = registry_of(desk)
    for version in (2, 3):
        registry.promote(promotion(version, version - 1, "better"))
    back = ("task=promote", "promote.rollback=true")
    assert desk(*back).out.strip() == "version 2 is the champion again, after version 3"
    assert desk(*back).out.strip() == "version 1 is the champion again, after version 2"
    assert "no champion before this one" in desk(*back).error
    registry.promote(promotion(3, 1, "better"))
    assert desk(*back).out.strip() == "version 1 is the champion again, after version 3"


def test_a_champion_deleted_meanwhile_is_named(desk: Desk) -> None:
    from mlflow import MlflowClient

    registry = registry_of(desk)
    for version in (2, 3):
        registry.promote(promotion(version, version - 1, "better"))
    MlflowClient(desk.uri).delete_model_version("pepper-latency", "2")
    error = desk("task=promote", "promote.rollback=true").error
    assert "version 2 of pepper-latency, the champion before version 3, was deleted" in error
    assert "promote.version=... (versions: 1, 3)" in error
    done = desk("task=promote", "promote.rollback=true", "promote.version=1")
    assert done.out.strip() == "version 1 is the champion again, after version 3"
    assert "set promote.version" in desk("task=promote", "promote.rollback=true").error
    done = desk("task=promote", "promote.rollback=true", "promote.version=3")
    assert done.out.strip() == "version 3 is the champion again, after version 1"
    error = desk("task=promote", "promote.rollback=true", "promote.version=2").error
    assert error.startswith("error: pepper-latency has no version 2; choose another with promote.version=...")


def as_frame(features: np.ndarray) -> "pd.DataFrame":
    import pandas as pd

    return pd.DataFrame(features, columns=list(FEATURES))


def test_mlflow_loads_and_predicts_with_a_version(desk: Desk) -> None:
    from mlflow import pyfunc

    registry = registry_of(desk)
    features = measured(models=2, parts=2).features
    frame = as_frame(features).sample(frac=1, axis=1, random_state=0)
    with registry.artifacts(1, MODEL_FOLDER) as folder:
        found = pyfunc.load_model(str(folder)).predict(frame)
        expected = LatencyModel.load(folder).predict(features)
    assert list(found.columns) == ["p50_ms", "p95_ms", "low_ms", "high_ms"]
    assert np.array_equal(found["p50_ms"], expected.p50_ms)


@pytest.mark.slow
def test_the_documents_command_serves_the_champion(desk: Desk) -> None:
    from mlflow import pyfunc

    assert SERVE in commands(ROOT / "docs" / "tasks" / "promote.md")
    registry = registry_of(desk)
    features = measured(models=2, parts=2).features
    with serving(desk) as ask:
        rows = ask({"dataframe_split": {"columns": list(FEATURES), "data": features.tolist()}})["predictions"]
    with registry.artifacts(1, MODEL_FOLDER) as folder:
        assert rows == pyfunc.load_model(str(folder)).predict(as_frame(features)).to_dict("records")
        assert [row["p50_ms"] for row in rows] == LatencyModel.load(folder).predict(features).p50_ms.tolist()


@contextmanager
def serving(desk: Desk) -> Iterator[Callable[[dict[str, Any]], dict[str, Any]]]:
    """A server of the champion, as the documents start it; gives what asks it."""
    port = free_port()
    process = subprocess.Popen(
        SERVE.replace("5001", str(port)),
        shell=True,
        cwd=desk.folder,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )

    def ask(question: dict[str, Any]) -> dict[str, Any]:
        body, kind = json.dumps(question).encode(), {"Content-Type": "application/json"}
        asked = urllib.request.Request(f"http://127.0.0.1:{port}/invocations", body, kind)
        with urllib.request.urlopen(asked, timeout=30) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def up() -> bool:
        assert process.poll() is None, "the server ended"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=1):
                return True
        except OSError:
            return False

    try:
        wait_until(up, timeout_s=90)
        yield ask
    finally:
        stop(process)
