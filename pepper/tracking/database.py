"""MLflow's tables in an SQLite file: made aside and moved in whole.

MLflow makes its tables one by one, for seconds. A process that is ended meanwhile would leave some of them, which
MLflow then neither uses nor completes.
"""

import contextlib
import sqlite3
from pathlib import Path
from urllib.parse import quote

_DRAFT = ".mlflow.db"
_SEEDED = frozenset({"alembic_version", "experiments", "workspaces"})
"""Tables in which MLflow itself writes rows when it makes them."""
_FIRST = 1
"""Rows of such a table that are MLflow's own."""
_COPY = "_alembic_tmp_"
"""How the name of a table begins to which another is just being copied, with the columns of the next version."""


def make_whole(file: Path, folder: Path) -> None:
    """Make sure that an SQLite file has MLflow's tables, all of them, if nothing is in it yet.

    Any other file is left as it is: MLflow says what is wrong with it.

    Args:
        file: The database; it may be absent.
        folder: Where the tables are made; its lock is held.

    Raises:
        OSError: The file's folder cannot be made.
        sqlite3.Error: The file cannot be written.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    tables = _empty_tables(file) if file.exists() else []
    if tables is None or (tables and _opens(file)):
        return
    draft = folder / _DRAFT
    for left in folder.glob(f"{_DRAFT}*"):  # by a process that was killed here
        left.unlink()
    _opens(draft)
    if set(tables) <= set(_empty_tables(draft) or ()):
        with contextlib.closing(sqlite3.connect(draft)) as source, contextlib.closing(sqlite3.connect(file)) as target:
            source.backup(target)  # in one transaction
    draft.unlink()


def _empty_tables(file: Path) -> list[str] | None:
    """Return the names of a database's tables; None if one of them has rows, or it is no database that can be read.

    A copy under way counts for nothing by itself: the table that it is made of is there, too.
    """
    address = f"file:{quote(str(file.absolute()))}?mode=rw"  # not ro: what a killed writer left is to be rolled back
    try:
        with contextlib.closing(sqlite3.connect(address, uri=True)) as database:
            names = [str(name) for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            for name in names:
                most = _FIRST if name.removeprefix(_COPY) in _SEEDED else 0
                quoted = '"' + name.replace('"', '""') + '"'
                if len(database.execute(f"SELECT 1 FROM {quoted} LIMIT {most + 1}").fetchall()) > most:
                    return None
            return [name for name in names if not name.startswith(_COPY)]
    except sqlite3.Error:
        return None


def _opens(file: Path) -> bool:
    """Tell whether MLflow takes a file for a database of its own; it makes the tables of a new one."""
    from mlflow.exceptions import MlflowException
    from mlflow.store.tracking import DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH as ARTIFACTS
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from sqlalchemy.exc import SQLAlchemyError

    try:
        store = SqlAlchemyStore(f"sqlite:///{file}", ARTIFACTS)  # type: ignore[no-untyped-call]
    except (MlflowException, SQLAlchemyError):
        return False
    store.engine.dispose()
    return True
