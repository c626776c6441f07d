"""Wall clocks of their own for programs, which may be set at any time (``clock.c``)."""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


def clock_library(folder: Path) -> Path | None:
    """Make what gives a program another clock, in a folder; None where there is no C compiler."""
    compiler, made = shutil.which("cc"), folder / "clock.so"
    if compiler is None:
        return None
    source = Path(__file__).with_name("clock.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", made, source], check=True, timeout=60)
    return made


@dataclass(frozen=True)
class OwnClock:
    """The wall clock of a program and of all that it starts; monotonic clocks stay the system's.

    Attributes:
        library: As `clock_library` makes it.
        file: Says how far it is ahead.
    """

    library: Path
    file: Path

    def set(self, ahead_s: int) -> None:
        """Let it be ahead of the system's by this from now on; negative is behind."""
        with self.file.open("r+b" if self.file.exists() else "wb", buffering=0) as stream:
            stream.write(ahead_s.to_bytes(8, sys.byteorder, signed=True))

    def begin(self) -> dict[str, str]:
        """Let it be right, and return the environment variables that give it to a program."""
        self.set(0)
        return {"LD_PRELOAD": str(self.library), "CLOCK_AHEAD": str(self.file)}
