"""A program for the tests of processes: ``python -m programs FD PARENT_PID``."""

import os
import signal
import sys
import time
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from pepper.devices.protocol import serve


def echo(text: str, **arrays: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"text": text}, arrays


def refuse() -> None:
    raise ValueError("not like this")


def leave(code: int) -> None:
    print("first words\nlast words", file=sys.stderr)
    os._exit(code)


def die() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def babble() -> None:
    connection = Connection(int(sys.argv[1]))
    connection.send_bytes(b"\x00garbage")
    time.sleep(3600)


def hang() -> None:
    time.sleep(3600)


def facts() -> dict[str, Any]:
    return {"environment": dict(os.environ), "affinity": sorted(os.sched_getaffinity(0)), "pid": os.getpid()}


def spin(seconds: float) -> dict[str, float]:
    end = time.perf_counter() + seconds
    start, cpu = time.perf_counter(), time.process_time()
    while time.perf_counter() < end:
        pass
    return {"fraction": (time.process_time() - cpu) / (time.perf_counter() - start)}


def cpu() -> dict[str, float]:
    return {"cpu_s": time.process_time()}


def grab(mebibytes: int) -> dict[str, int]:
    return {"bytes": int(np.ones(mebibytes * 2**17).nbytes)}


if __name__ == "__main__":
    serve({f.__name__: f for f in (echo, refuse, leave, die, hang, facts, spin, cpu, grab, babble)})
