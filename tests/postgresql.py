"""A PostgreSQL server of the tests' own."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from harness import free_port, wait_until


class Cluster:
    """A server in a folder of its own, of a user who may run one: it refuses root.

    Args:
        programs: Where PostgreSQL's programs are.
        folder: The user's.
        user: Who runs it.
        address: At which it listens.
        port: At which it listens.
    """

    def __init__(self, programs: Path, folder: Path, user: str, address: str, port: int) -> None:
        self._programs, self._folder, self._user = programs, folder, user
        self.address, self.port = address, port
        self._server: subprocess.Popen[bytes] | None = None
        settings = ("--auth=trust", "--username=pepper", "--no-sync", "--encoding=UTF8", "--locale=C")
        subprocess.run([programs / "initdb", f"--pgdata={folder}/data", *settings], check=True, **self._as_user())
        with (folder / "data" / "pg_hba.conf").open("a") as stream:
            stream.write("host all all all trust\n")

    def _as_user(self) -> dict[str, Any]:
        mine = pwd.getpwuid(os.getuid()).pw_name == self._user
        whose = {} if mine else {"user": self._user, "group": pwd.getpwnam(self._user).pw_gid, "extra_groups": []}
        return {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": self._folder, **whose}

    def start(self) -> None:
        """Start it, and wait until it answers."""
        places = ("-D", f"{self._folder}/data", "-h", self.address, "-p", str(self.port), "-k", str(self._folder), "-F")
        self._server = subprocess.Popen([self._programs / "postgres", *places], **self._as_user())
        wait_until(self._answers)

    def _answers(self) -> bool:
        from psycopg2 import OperationalError

        with suppress(OperationalError):
            self.do("SELECT 1")
            return True
        return False

    def do(self, statement: str) -> None:
        """Execute a statement."""
        import psycopg2

        with closing(psycopg2.connect(host=self.address, port=self.port, user="pepper", dbname="postgres")) as session:
            session.autocommit = True
            session.cursor().execute(statement)

    def end(self, number: int = signal.SIGQUIT) -> None:
        """End it; by SIGQUIT at once, whoever is at work."""
        if self._server is not None:
            self._server.send_signal(number)
            self._server.wait()
            self._server = None

    def database(self, name: str, template: str = "template1") -> str:
        """Make a database, and return its address."""
        self.do(f"CREATE DATABASE {name} TEMPLATE {template}")
        return f"postgresql+psycopg2://pepper@{self.address}:{self.port}/{name}"


@contextmanager
def running(address: str = "127.0.0.1", port: int | None = None) -> Iterator[Cluster]:
    """Run a server until the block's end; skip the test where PostgreSQL's programs are missing."""
    pytest.importorskip("psycopg2")
    found = [Path(where).parent for where in (shutil.which("initdb"),) if where]
    found += sorted(path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("PostgreSQL's programs are not here: apt-get install postgresql")
    user = "postgres" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # pytest's own is closed to other users
        shutil.chown(folder, user)
        cluster = Cluster(found[-1], Path(folder), user, address, port or free_port())
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.end()
