"""How much memory this process has, and has had."""

import os
from pathlib import Path

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def memory_bytes() -> int:
    """Return what is resident now, bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES


def peak_memory_bytes() -> int:
    """Return the most memory that was resident at a time, bytes.

    From ``VmHWM`` (proc(5)): the figure of getrusage survives exec, so it may be that of the process that started this.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
