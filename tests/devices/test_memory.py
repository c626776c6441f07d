"""A process's own memory, not that of the one that started it."""

import subprocess
import sys

from pepper.devices.memory import peak_memory_bytes

PRINT = "from pepper.devices.memory import peak_memory_bytes; print(peak_memory_bytes())"


def test_the_parents_memory_does_not_count() -> None:
    ballast = bytearray(400_000_000)
    ballast[::4096] = b"1" * len(ballast[::4096])
    assert peak_memory_bytes() > 400e6
    child = int(subprocess.run([sys.executable, "-c", PRINT], capture_output=True, check=True).stdout)
    assert 1e6 < child < 200e6
