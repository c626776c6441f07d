"""What leads to runs in MLflow and into them: kinds that are read back, figures by their address, more artifacts."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pepper.tracking.store import Store, reaching

if TYPE_CHECKING:
    import pandas as pd

CELL, SWEEP, EXECUTION = "cell", "sweep", "execution"
"""Kinds of runs that are found again by what they are."""
RESULTS = "results.parquet"
"""A sweep's artifact: its cells and their figures."""
LOGGED_METRIC = "logged_unix_s"
"""When a cell was handed over to be logged (UNIX time): a run without it is being logged just now."""


@contextmanager
def artifacts(store: Store, run_id: str) -> Iterator[Path]:
    """Give a folder; what is put there becomes the run's artifacts."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
        with reaching(store.config):
            store.client.log_artifacts(run_id, folder)


def figure_address(run_id: str, file: str) -> str:
    """Return where MLflow's UI finds an artifact of a run, for a picture in a description."""
    return f"get-artifact?path={file}&run_uuid={run_id}"


def write_table(frame: "pd.DataFrame", folder: Path) -> None:
    """Write a sweep's results as ``results.csv`` and ``results.parquet``."""
    frame.to_csv(folder / "results.csv", index=False)
    frame.to_parquet(folder / RESULTS, index=False)
