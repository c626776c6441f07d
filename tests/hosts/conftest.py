"""A head and a host that joined it, as processes of their own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from harness import ROOT, free_port


@dataclass
class Joined:
    """A head's folder, its address, and the programs that run."""

    folder: Path
    address: str
    programs: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, *arguments: str, until: str) -> subprocess.Popen[str]:
        """Start a task, wait until it has said so, and return it."""
        program = subprocess.Popen(
            [sys.executable, "-m", "pepper.run", *arguments],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(self.folder / "cache")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.programs.append(program)
        assert program.stdout is not None
        said = []
        for line in program.stdout:
            said.append(line)
            if until in line:
                return program
        raise AssertionError("".join(said))

    def join(self, name: str) -> subprocess.Popen[str]:
        return self.start("task=join", f"hosts.bundle=fleet/{name}.json", until=f"as {name}")


@pytest.fixture(scope="session")
def joined(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Joined]:
    """A head that runs, with the host ``edge`` joined."""
    pytest.importorskip("distributed")
    found = Joined(tmp_path_factory.mktemp("head"), f"127.0.0.1:{free_port()}")
    try:
        found.start("task=head", f"hosts.address={found.address}", "hosts.names=[edge,gone]", until="head at")
        found.join("edge")
        yield found
    finally:
        for program in found.programs:
            program.kill()
            program.wait()
