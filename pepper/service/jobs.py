"""Jobs that take long, in a store that survives the service: a row of SQLite and a folder each."""

import json
import shutil
import sqlite3
import threading
import time
import uuid
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, StringConstraints

from pepper.service.problems import Problem, Refused

_TABLE = """
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    job TEXT UNIQUE NOT NULL,
    task TEXT NOT NULL,
    owner TEXT NOT NULL,
    arguments TEXT NOT NULL,
    state TEXT NOT NULL,
    created REAL NOT NULL,
    started REAL,
    ended REAL,
    problem TEXT
)
"""
_COLUMNS = "job, task, owner, state, created, started, ended, problem"
_RETRY_S = 10
_REMEMBERED = 10
"""For how many times as long as a result is kept its job is remembered as expired."""

JobId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]


HOME = "{home}"
"""Stands for a job's folder in its command line."""


class State(StrEnum):
    """How far a job is."""

    pending = "pending"
    processing = "processing"
    done = "done"
    error = "error"
    cancelled = "cancelled"
    expired = "expired"


ENDED = (State.done, State.error, State.cancelled)


class Job(BaseModel):
    """A job."""

    job: JobId = Field(description="How requests name it", examples=["0" * 32])
    task: str = Field(examples=["place"])
    owner: str = Field(description="Whose token asked for it")
    state: State
    created: float = Field(description="Unix time (s), as the others")
    started: float | None
    ended: float | None
    problem: Problem | None = Field(description="Why it ended in an error")


class JobStore:
    """All jobs; each change is on disk before anybody is told of it.

    Args:
        folder: Where the database and the jobs' folders are.
        most_waiting: Most pending jobs.
        keep_s: How long results are kept.
    """

    def __init__(self, folder: Path, most_waiting: int, keep_s: float) -> None:
        self._folder, self._most_waiting, self._keep_s = folder.absolute(), most_waiting, keep_s
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._database = sqlite3.connect(folder / "jobs.db", check_same_thread=False, isolation_level=None)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = FULL")
        self._database.execute(_TABLE)
        self._do("UPDATE jobs SET state = 'pending' WHERE state = 'processing'")  # the service ended amid them

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def home(self, job: str) -> Path:
        """Return the folder of what a job gives."""
        return self._folder / job

    def add(self, task: str, owner: str, arguments: Sequence[str]) -> Job:
        """Take a job.

        Args:
            task: What it does.
            owner: Whose token asks for it.
            arguments: The command line; `HOME` in it stands for the job's folder.

        Raises:
            Refused: Too many wait already.
        """
        job = uuid.uuid4().hex
        line = json.dumps([argument.replace(HOME, str(self.home(job))) for argument in arguments])
        values = (job, task, owner, line, State.pending, time.time(), self._most_waiting)
        added = self._do(
            "INSERT INTO jobs (job, task, owner, arguments, state, created) SELECT ?, ?, ?, ?, ?, ?"
            " WHERE (SELECT count(*) FROM jobs WHERE state = 'pending') < ?",
            *values,
        )
        if not added:
            raise Refused(
                429,
                f"{self._most_waiting} jobs wait already, the most that may",
                "serve.queue",
                "ask again later, or cancel a job with DELETE /v1/jobs/JOB",
                {"Retry-After": str(_RETRY_S)},
            )
        return self.get(job)

    def get(self, job: str) -> Job:
        """Return a job.

        Raises:
            Refused: There is none, or its result has expired.
        """
        rows = self._rows(f"SELECT {_COLUMNS} FROM jobs WHERE job = ?", job)
        if not rows:
            raise Refused(404, f"job {job}: there is none", "job", "GET /v1/jobs lists them")
        if rows[0].state == State.expired:
            raise Refused(410, f"job {job}: its result has expired", "job", "ask for it again")
        return rows[0]

    def all(self) -> list[Job]:
        """Return all jobs that have not expired, oldest first."""
        return self._rows(f"SELECT {_COLUMNS} FROM jobs WHERE state != 'expired' ORDER BY number")

    def counts(self) -> dict[str, int]:
        """Return how many jobs there are, by state."""
        with self._lock:
            found = dict(self._database.execute("SELECT state, count(*) FROM jobs GROUP BY state").fetchall())
        return {state: found.get(state, 0) for state in State}

    def take(self) -> tuple[Job, list[str]] | None:
        """Return the oldest pending job, which is processing from now on, and its command line; None if none waits."""
        with self._lock:
            found = self._database.execute(
                "UPDATE jobs SET state = 'processing', started = ? WHERE number ="
                " (SELECT min(number) FROM jobs WHERE state = 'pending') RETURNING job, arguments",
                (time.time(),),
            ).fetchall()
        return (self.get(found[0][0]), json.loads(found[0][1])) if found else None

    def end(self, job: str, state: State, problem: Problem | None = None) -> None:
        """Note how a job ended; one that has ended already stays as it is."""
        said = None if problem is None else problem.model_dump_json()
        self._do(
            "UPDATE jobs SET state = ?, ended = ?, problem = ? WHERE job = ? AND state IN ('pending', 'processing')",
            *(state, time.time(), said, job),
        )

    def expire(self) -> None:
        """Delete the results that have been kept for long enough."""
        now = time.time()
        old = [job.job for job in self.all() if job.ended is not None and now - job.ended > self._keep_s]
        for job in old:
            self._do("UPDATE jobs SET state = 'expired' WHERE job = ?", job)
            shutil.rmtree(self.home(job), ignore_errors=True)
        self._do("DELETE FROM jobs WHERE state = 'expired' AND ended < ?", now - _REMEMBERED * self._keep_s)

    def _do(self, statement: str, *values: Any) -> int:
        with self._lock:
            return self._database.execute(statement, values).rowcount

    def _rows(self, query: str, *values: Any) -> list[Job]:
        names = _COLUMNS.split(", ")
        with self._lock:
            rows = [dict(zip(names, row, strict=True)) for row in self._database.execute(query, values).fetchall()]
        for row in rows:
            row["problem"] = None if row["problem"] is None else Problem.model_validate_json(row["problem"])
        return [Job(**row) for row in rows]
