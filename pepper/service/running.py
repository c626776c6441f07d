"""Runs jobs, one after the other: measurements must not disturb each other."""

import asyncio
import contextlib
import fcntl
import json
import os
import sys
from pathlib import Path
from typing import Any

from pepper.service.child import environment
from pepper.service.jobs import ENDED, Job, JobStore, State
from pepper.service.problems import Refused, refusal_in

ANSWER, ERRORS, LOCK = "answer.json", "errors.txt", "lock"
_GRACE_S = 10.0
_LOOK_S = 0.05
_EXPIRE_S = 60.0
_KEPT_BYTES = 4096


class JobRunner:
    """Runs each job as a command line of pepper's, in a process that ends with this one.

    Args:
        store: The jobs.
        limit_s: Longest time of a job.
    """

    def __init__(self, store: JobStore, limit_s: float) -> None:
        self._store, self._limit_s = store, limit_s
        self._came = asyncio.Event()
        self._stopped: set[str] = set()
        self._running: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, with what waited when the service ended before."""
        self._came.set()
        self._running = asyncio.create_task(self._run())

    async def close(self) -> None:
        """End what runs; its job runs again when the service does."""
        assert self._running is not None
        self._running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._running

    def wake(self) -> None:
        """Say, from any thread, that a job has come."""
        assert self._running is not None
        self._running.get_loop().call_soon_threadsafe(self._came.set)

    def cancel(self, job: str) -> None:
        """Cancel a job, whether it waits or runs."""
        self._stopped.add(job)
        self._store.end(job, State.cancelled)

    async def ended(self, job: str, seconds: float) -> Job:
        """Return a job once it has ended, or after some seconds as it is then.

        Raises:
            Refused: There is none.
        """
        deadline = asyncio.get_running_loop().time() + seconds
        while (found := self._store.get(job)).state not in ENDED and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(_LOOK_S)
        return found

    async def _run(self) -> None:
        while True:
            self._store.expire()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._came.wait(), _EXPIRE_S)
            self._came.clear()
            while (taken := self._store.take()) is not None:
                await self._run_job(taken[0].job, taken[1])

    async def _run_job(self, job: str, arguments: list[str]) -> None:
        try:
            problem = await self._problem_of(job, arguments)
        except OSError as error:
            said = f"the job's folder cannot be written ({error.strerror})"
            problem = Refused(503, said, "serve.folder", "make room there, and ask again")
        if job in self._stopped:
            self._stopped.discard(job)
        elif problem is None:
            self._store.end(job, State.done)
        else:
            self._store.end(job, State.error, problem.problem())

    async def _problem_of(self, job: str, arguments: list[str]) -> Refused | None:
        """Run a job, unless it came to its end when nobody could note that; None if it did what was asked."""
        home = self._store.home(job)
        home.mkdir(exist_ok=True)
        while _runs(home) and job not in self._stopped:  # that of a service which was killed, and is just ending
            await asyncio.sleep(_LOOK_S)
        if finished(home) is None and not await self._process(job, home, arguments):
            limit = f"serve.job_seconds={self._limit_s:g}"
            return refusal_in(f"{limit}: the job took longer; ask for less, or have it raised", 422)
        answer = finished(home)
        if answer is not None and answer["status"] == 0:
            return None
        line = str(answer["error"]) if answer is not None and "error" in answer else _last_words(home)
        return refusal_in(line.replace(f"{home}/", "").replace(str(home.parents[1]), ""), 422)

    async def _process(self, job: str, home: Path, arguments: list[str]) -> bool:
        """Run a job's command line until it ends; False if it had to be ended for its time."""
        with (home / ANSWER).open("wb") as answer, (home / ERRORS).open("wb") as errors:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "pepper.service.child", str(os.getpid()), str(home / LOCK), *arguments),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=answer,
                stderr=errors,
                env=environment(),
                start_new_session=True,
            )
        ends = asyncio.get_running_loop().time() + self._limit_s
        try:
            while process.returncode is None and job not in self._stopped:
                if asyncio.get_running_loop().time() > ends:
                    return False
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(asyncio.shield(process.wait()), _LOOK_S)
            return True
        finally:
            if process.returncode is None:
                process.terminate()
                try:
                    await asyncio.wait_for(process.wait(), _GRACE_S)
                except TimeoutError:
                    process.kill()
                    await process.wait()


def _runs(home: Path) -> bool:
    """Whether a process holds the job's lock."""
    with (home / LOCK).open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def finished(home: Path) -> dict[str, Any] | None:
    """Return the document of a job that came to its end; None if it did not: the document is its last word."""
    try:
        answer = json.loads((home / ANSWER).read_bytes())
    except (OSError, ValueError):
        return None
    return answer if isinstance(answer, dict) and "status" in answer else None


def result_of(job: Job, home: Path) -> bytes:
    """Return what a job gave, with no path of the service's own.

    Raises:
        Refused: It has not ended, or in an error.
    """
    if job.state != State.done:
        wait = f"ask again with GET /v1/jobs/{job.job}?wait_seconds=60"
        fix = wait if job.state not in ENDED else "ask for another job"
        raise Refused(409, f"job {job.job}: is {job.state}, and gave no result", "job", fix)
    root = json.dumps(str(home.parents[1]))[1:-1]
    return (home / ANSWER).read_bytes().replace(f"{root}/".encode(), b"")


def _last_words(home: Path) -> str:
    with (home / ERRORS).open("rb") as stream:
        stream.seek(max(0, stream.seek(0, os.SEEK_END) - _KEPT_BYTES))
        lines = stream.read().decode(errors="replace").strip().splitlines()
    return lines[-1].removeprefix("error: ") if lines else "the job's process was killed, likely out of memory"
