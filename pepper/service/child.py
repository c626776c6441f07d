"""How the service starts pepper's programs: so that none outlives it.

``python -m pepper.service.child PARENT LOCK ARGUMENT...`` takes the lock of a job's folder, so that no two run the same
job, asks to be ended with its parent, and becomes ``python -m pepper.run ARGUMENT...``.
"""

import ctypes
import fcntl
import os
import signal
import sys
from pathlib import Path

_PACKAGE_ROOT = str(Path(__file__).parents[2])
_PR_SET_PDEATHSIG = 1


def environment() -> dict[str, str]:
    """Return the environment of a child: this pepper's, wherever it is."""
    path = os.pathsep.join(filter(None, (_PACKAGE_ROOT, os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path}


def _main(parent: int, lock: str, arguments: list[str]) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        return  # it has ended already
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)  # until who ran the job before has ended
    os.set_inheritable(descriptor, True)
    os.execv(sys.executable, [sys.executable, "-m", "pepper.run", *arguments])


if __name__ == "__main__":
    _main(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
