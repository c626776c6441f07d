"""Programs that run on a device, and the channel to them."""

import contextlib
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from pepper.devices.protocol import Arrays, GarbledError, Json, receive, send
from pepper.errors import HungError, MeasureError
from pepper.interrupts import wait_readable

PACKAGE_ROOT = str(Path(__file__).parents[2])

CHOOSING = (
    "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER",
    "HIP_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
    "ZE_AFFINITY_MASK",
    "VK_DRIVER_FILES",
    "VK_ICD_FILENAMES",
    "ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER",
)
"""Variables by which users say which accelerators there are for a program: part of what a device is."""

# All else is left out: a stray OMP_* or ORT_* setting must not change what is measured.
ENVIRONMENT_KEPT = (
    *CHOOSING,
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "VIRTUAL_ENV",
    "PYTHONPATH",
)
STDERR_KEPT_BYTES = 4096


class Process:
    """A Python program in a process of its own, answering requests (see :mod:`pepper.devices.protocol`).

    The parent blocks while it waits: it uses no CPU time beside the measurement.

    Args:
        module: What to run, as in ``python -m``.
        cores: CPU indices that it may use.
        threads: Threads that numerical libraries may use.

    Attributes:
        helpers: Processes without which no answer can be trusted, or comes at all: first the one that stops and
            continues it, if any, which is never stopped itself; then those that are stopped in turn with it.
    """

    def __init__(self, module: str, cores: Sequence[int], threads: int = 1) -> None:
        self.module = module
        self._connection, theirs = multiprocessing.Pipe()
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        environment = {key: os.environ[key] for key in ENVIRONMENT_KEPT if key in os.environ}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (PACKAGE_ROOT, environment.get("PYTHONPATH"))))
        for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            environment[variable] = str(threads)
        with theirs:
            # A session of its own: Ctrl-C in the terminal reaches the parent only, which then ends its children.
            self._popen = subprocess.Popen(
                [sys.executable, "-m", module, str(theirs.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._stderr,
                env=environment,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        with contextlib.suppress(ProcessLookupError):  # it has ended already: the first request says how
            os.sched_setaffinity(self._popen.pid, cores)  # long before it starts threads
        self._ended = os.pidfd_open(self._popen.pid)
        self.helpers: Sequence[Process] = ()

    @property
    def pid(self) -> int:
        """The process's identifier."""
        return self._popen.pid

    def request(
        self, op: str, *, timeout_s: float, arrays: Arrays | None = None, **fields: Any
    ) -> tuple[Json, dict[str, Any]]:
        """Send a request and wait for its answer, as :meth:`pepper.devices.device.Program.request` does."""
        try:
            send(self._connection, {"op": op, **fields}, arrays)
            self._wait(op, timeout_s)
            message, answered = receive(self._connection)
        except (EOFError, OSError) as error:
            raise MeasureError(self._obituary(op)) from error
        except GarbledError as error:
            self.kill()  # where the next answer would begin is unknown
            raise MeasureError(
                f"{self.module}: no answer to {op!r} but something else ({error}); it was killed"
            ) from error
        if isinstance(result := message.get("result"), dict):
            return result, answered
        raise MeasureError(str(message.get("error", f"{self.module}: neither a result nor an error")))

    def _wait(self, op: str, timeout_s: float) -> None:
        """Wait for an answer.

        Raises:
            MeasureError: None came in time, or a helper ended first.
        """
        ready = wait_readable(self.ends(), math.ceil(1000 * timeout_s))
        if self._connection.fileno() in ready:
            return
        self.kill()
        for helper in self.helpers:
            if not helper.alive:
                raise MeasureError(helper._obituary(op))
        if stopped := [helper.module for helper in self.helpers[:1] if helper.stopped]:
            raise MeasureError(f"{stopped[0]}: was stopped by a signal, so {self.module} could not answer {op!r}")
        raise HungError(f"{self.module}: no answer to {op!r} within {timeout_s:g} s (hung); it was killed")

    def ends(self) -> list[int]:
        """Return file descriptors of which one becomes readable, between requests, when it or a helper ends."""
        return [self._connection.fileno(), *(helper._ended for helper in self.helpers)]

    def _obituary(self, op: str) -> str:
        """Say in one line how the process ended."""
        if self._stderr.closed:
            return f"{self.module}: was ended before {op!r}"
        try:
            code = self._popen.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.kill()
            return f"{self.module}: closed its connection during {op!r}"
        end = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        if code == -signal.SIGKILL:
            end += ", likely out of memory"
        self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, self._stderr.tell() - STDERR_KEPT_BYTES))
        last_words = self._stderr.read().decode(errors="replace").strip().splitlines()
        return f"{self.module}: crashed during {op!r} ({end}){': ' + last_words[-1] if last_words else ''}"

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._popen.poll() is None

    @property
    def stopped(self) -> bool:
        """Whether a signal holds it."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.pid).status() == psutil.STATUS_STOPPED
        return False

    def kill(self) -> None:
        """End the process now, whatever it does, and wait until it is gone."""
        self._popen.kill()  # SIGKILL ends a stopped process too
        self._popen.wait()

    def close(self) -> None:
        """End the process: it stops by itself when its connection closes, else it is killed."""
        self._connection.close()
        deadline = time.monotonic() + 0.5
        while self.alive and time.monotonic() < deadline:
            time.sleep(0.002)
        self.kill()
        if self._ended >= 0:
            os.close(self._ended)
            self._ended = -1
        self._stderr.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.kill()
        self.close()
