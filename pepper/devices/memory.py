"""How much memory this process has had."""

from pathlib import Path


def peak_memory_bytes() -> int:
    """Return the most memory that was resident at a time, bytes.

    From ``VmHWM`` (proc(5)): the figure of getrusage survives exec, so it may be that of the process that started this.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
