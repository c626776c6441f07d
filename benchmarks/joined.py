"""A head on this machine, and hosts that have joined it as processes of their own, for the benchmarks of hosts.

    python -m benchmarks.joined FOLDER NAME...

joins under each name, all in one process: that is how a benchmark has hundreds of light hosts.
"""

import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.namespaces import Namespace
from pepper.config import HostsConfig
from pepper.hosts import engine
from pepper.hosts.bundles import issue, read_bundle
from pepper.hosts.remote import Joined

ROOT = Path(__file__).parent.parent
_A_PROCESS = 20
"""Hosts in one process, where they are light."""


@dataclass
class JoinedHosts:
    """A head, what has joined it, and the first host's process."""

    hosts: Joined
    first: subprocess.Popen[str]


@contextlib.contextmanager
def joined(folder: Path, names: Sequence[str], spaces: Sequence[Namespace] = ()) -> Iterator[JoinedHosts]:
    """Start a head and let hosts join it, until the block's end.

    Args:
        folder: Where bundles and caches are.
        names: The hosts.
        spaces: The network namespace of each; without any, all are in this machine's.
    """
    address = spaces[0].here if spaces else "127.0.0.1"
    with socket.socket() as probe:
        probe.bind((address, 0))
        port = probe.getsockname()[1]
    fleet = folder / "fleet"
    issue(HostsConfig(str(fleet), f"{address}:{port}", list(names)))
    programs = []
    together = _A_PROCESS if not spaces else 1
    try:
        listed = f"[{','.join(names)}]"
        head = ["pepper.run", "task=head", f"hosts.address={address}:{port}", f"hosts.names={listed}"]
        programs.append(_started(folder, "head", [], *head))
        for at in range(0, len(names), together):
            some, within = names[at : at + together], spaces[at].within if spaces else []
            programs.append(_started(folder, some[0], within, "benchmarks.joined", str(fleet), *some))
        with Joined(read_bundle(fleet / "head.json"), 60) as hosts:
            yield JoinedHosts(hosts, programs[1])
    finally:
        for program in programs:
            program.kill()
            program.wait()


def _started(folder: Path, name: str, within: Sequence[str], module: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a program and wait for its last word before it is ready."""
    cache = folder / "caches" / name
    program = subprocess.Popen(
        [*within, sys.executable, "-m", module, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(cache)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None
    waiting = 1 if module == "pepper.run" else len(arguments) - 1
    for line in program.stdout:
        waiting -= line.startswith(("head at", "joined "))
        if not waiting:
            return program
    raise SystemExit(f"{name} did not start")


def main() -> None:
    folder, *names = sys.argv[1:]
    said = threading.Lock()

    def say(line: str) -> None:
        with said:
            print(line, flush=True)

    def join(name: str) -> None:
        engine.join(read_bundle(Path(folder, f"{name}.json")), None, say)

    if names[1:]:
        threads = [threading.Thread(target=join, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    else:
        join(names[0])


if __name__ == "__main__":
    main()
