"""A store of the test's own."""

from pathlib import Path

import pytest

from pepper.config import TrackingConfig
from pepper.tracking.store import Store


@pytest.fixture
def store(tmp_path: Path, fresh_database: Path) -> Store:
    """An SQLite store with its tables, its outboxes and artifacts beside it."""
    folder = tmp_path / "mlruns"
    folder.mkdir()
    (folder / "mlflow.db").write_bytes(fresh_database.read_bytes())
    config = TrackingConfig(
        uri=f"sqlite:///{folder}/mlflow.db",
        experiment="pepper/profiles",
        folder=str(folder),
        artifacts=str(folder / "artifacts"),
    )
    return Store(config)
