"""The MLflow store: opened once, checked before anything is measured."""

import contextlib
import logging
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pepper.config import TrackingConfig
from pepper.errors import TrackingError
from pepper.tracking import database
from pepper.tracking.locks import lock

if TYPE_CHECKING:
    from mlflow import MlflowClient

T = TypeVar("T")

LEAST_FREE_BYTES = 50 * 2**20


def check_folder(folder: Path) -> None:
    """Make sure that results can be kept on disk.

    Raises:
        TrackingError: The folder is read-only, or the disk is full.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"0")
    except OSError as error:
        raise TrackingError(
            f"tracking.folder={folder}: cannot be written ({error.strerror}); free it or set tracking.folder"
        ) from error
    free = shutil.disk_usage(folder).free
    if free < LEAST_FREE_BYTES:
        raise TrackingError(
            f"tracking.folder={folder}: the disk is full ({free // 2**20} MiB left); free 50 MiB or set tracking.folder"
        )


class Store:
    """An open tracking store and pepper's experiment in it.

    Args:
        config: Where runs are kept.

    Raises:
        TrackingError: The folder cannot be written, or the store does not answer.
    """

    def __init__(self, config: TrackingConfig) -> None:
        self.config = config
        self.folder = Path(config.folder)
        check_folder(self.folder)
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(config.timeout_seconds))
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        with lock(self.folder), reaching(config):
            self.client = self._connect()
            self.experiment_id = self._experiment()

    @property
    def uri(self) -> str:
        """Where it is, the same from every working directory."""
        scheme, mark, path = self.config.uri.partition(":///")
        return f"{scheme}{mark}{Path(path).absolute()}" if scheme == "sqlite" else self.config.uri

    def _connect(self) -> "MlflowClient":
        from mlflow import MlflowClient

        # MLflow sets its loggers' levels when it is imported. What fails, pepper says itself, in a line.
        for name in ("mlflow", "mlflow.store", "alembic", "urllib3"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        scheme, _, path = self.config.uri.partition(":///")
        if scheme == "sqlite":
            database.make_whole(Path(path.partition("?")[0]), self.folder)
        return MlflowClient(self.config.uri)

    def _experiment(self) -> str:
        from mlflow.exceptions import MlflowException

        name = self.config.experiment
        found = self.client.get_experiment_by_name(name)
        if found is None:
            artifacts = Path(self.config.artifacts).absolute().as_uri() if self.config.artifacts else None
            # The UI then opens the experiment with the columns of training runs, not of language-model traces.
            tags = {"mlflow.experimentKind": "custom_model_development"}
            try:
                return str(self.client.create_experiment(name, artifact_location=artifacts, tags=tags))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                return self._experiment()  # another machine has made it just now
        if found.lifecycle_stage != "active":
            raise TrackingError(
                f"tracking.experiment={name}: was deleted in MLflow; restore it there or set tracking.experiment"
            )
        return str(found.experiment_id)


def check_writable(store: Store) -> None:
    """Make sure that the store takes what is written: its experiment gets a tag.

    Raises:
        TrackingError: The store does not answer, or refuses.
    """
    with reaching(store.config):
        store.client.set_experiment_tag(store.experiment_id, "pepper.checked_unix_s", f"{time.time():.0f}")


class RefusedError(TrackingError):
    """The store takes other things, but not this."""


class DeletedError(TrackingError):
    """What is written belongs to a run that was deleted in MLflow."""


def insist(store: Store, log: Callable[[], T]) -> T:
    """Log something, twice if need be: what is wrong with it is told from a store that fails.

    Raises:
        RefusedError: The store takes other things, but twice not this.
        TrackingError: The store does not answer.
    """
    try:
        with reaching(store.config):
            return log()
    except TrackingError as error:
        if isinstance(error.__cause__, OSError):  # the network, or the disk: no answer about what was logged
            raise
    check_writable(store)
    try:
        with reaching(store.config):
            return log()
    except TrackingError as error:
        if isinstance(error.__cause__, OSError):
            raise
        check_writable(store)
        raise RefusedError(f"the store refuses it ({' '.join(str(error.__cause__).split())})") from error


@contextlib.contextmanager
def reaching(config: TrackingConfig) -> Iterator[None]:
    """Turn what the store throws into one clear line.

    Raises:
        TrackingError: The store is unreachable, refuses, or its disk is full.
    """
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, sqlite3.Error, RequestException, OSError) as error:
        cause = " ".join(str(error).split())[:200]
        if "must be in the 'active' state" in cause:
            raise DeletedError(
                f"tracking.uri={config.uri}: a run was deleted in MLflow meanwhile ({cause}); restore it there"
            ) from error
        raise TrackingError(
            f"tracking.uri={config.uri}: the store does not answer ({cause}); check it or set tracking.uri"
        ) from error
