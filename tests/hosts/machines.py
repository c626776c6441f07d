"""A head, and machines that join it: network namespaces with a link each, caches and wall clocks of their own."""

import os
import signal
import ssl
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
from harness import ROOT, free_port, wait_until

from benchmarks.namespaces import Namespace, linked
from benchmarks.rough.clocks import OwnClock, clock_library
from pepper.config.hosting import HEAD
from pepper.hosts.bundles import Bundle, read_bundle
from pepper.hosts.remote import Joined

NAMES = ("edge", "twin", "other")
KINDS = {"edge": "board", "twin": "board"}
PORTS = {"other": (23400, 23415)}
"""At which some listen only."""

SAY_S = 120.0
"""What is awaited of a machine comes within this, or does not come."""


@dataclass
class Machines:
    """A head and what has joined it.

    Attributes:
        folder: The head's; its bundles are in ``fleet``.
        address: Where the head listens.
        spaces: The network namespace of each host; empty where these are not allowed.
        clocks: The wall clock of each host and the head; empty where there is no C compiler.
    """

    folder: Path
    address: str = ""
    spaces: dict[str, Namespace] = field(default_factory=dict)
    clocks: dict[str, OwnClock] = field(default_factory=dict)
    programs: dict[str, subprocess.Popen[str]] = field(default_factory=dict)
    _stack: ExitStack = field(default_factory=ExitStack)

    def lay(self) -> None:
        """Give each host a namespace with a link to here; where that is not allowed all use the loopback address."""
        try:
            for name in NAMES:
                self.spaces[name] = self._stack.enter_context(linked())
        except OSError as error:
            warnings.warn(f"hosts share the loopback address, namespaces are not allowed: {error}", stacklevel=1)
            self.clear()
        if library := clock_library(self.folder):
            self.clocks = {name: OwnClock(library, self.folder / f"{name}.clock") for name in (*NAMES, HEAD)}
        here = self.spaces[NAMES[0]].here if self.spaces else "127.0.0.1"
        self.address = f"{here}:{free_port()}"

    def start(self, name: str, *arguments: str) -> None:
        """Start a task as a machine of this name."""
        kept = {key: value for key, value in os.environ.items() if key != "TMPDIR"}  # a running command's own
        inside = self.spaces[name].within if name in self.spaces else []
        clock = self.clocks[name].begin() if name in self.clocks else {}
        self.programs[name] = subprocess.Popen(
            [*inside, sys.executable, "-m", "pepper.run", *arguments],
            cwd=self.folder,
            env={**kept, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(self.cache(name)), **clock},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def await_said(self, name: str, words: str) -> None:
        """Wait until a machine has said something."""
        program, said = self.programs[name], []
        assert program.stdout is not None
        with ending(program, SAY_S):
            for line in program.stdout:
                said.append(line)
                if words in line:
                    return
        raise AssertionError("".join(said))

    def cache(self, name: str) -> Path:
        return self.folder / "caches" / name

    def head(self) -> None:
        names = f"hosts.names=[{','.join(NAMES)}]"
        self.start("head", "task=head", f"hosts.address={self.address}", names)
        self.await_said("head", "head at")

    def join(self, *names: str) -> None:
        """Let machines join, at one time."""
        for name in names:
            kind = [f"hosts.kind={KINDS[name]}"] if name in KINDS else []
            ports = [f"hosts.ports=[{PORTS[name][0]},{PORTS[name][1]}]"] if name in PORTS else []
            self.start(name, "task=join", f"hosts.bundle=fleet/{name}.json", *kind, *ports)
        for name in names:
            self.await_said(name, f"as {name}")

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to all programs of a machine."""
        program = psutil.Process(self.programs[name].pid)
        for each in (program, *program.children(recursive=True)):
            each.send_signal(number)

    def listens_at(self, name: str) -> set[int]:
        """The ports at which programs listen for others in the namespace of a machine."""
        found = set()
        for table in ("tcp", "tcp6"):
            for line in Path(f"/proc/{self.programs[name].pid}/net/{table}").read_text().splitlines()[1:]:
                _, local, _, state, *_ = line.split()
                address, _, port = local.partition(":")
                if state == "0A" and address != "0100007F":  # LISTEN, beyond 127.0.0.1
                    found.add(int(port, 16))
        return found

    def link_of(self, name: str) -> str:
        """The network device, here, that leads to a machine in a namespace."""
        return self.spaces[name].device

    def await_joined(self, *names: str) -> None:
        """Wait until the head, which is asked, has these machines."""
        with Joined(read_bundle(self.folder / "fleet" / f"{HEAD}.json"), patience_s=SAY_S) as joined:
            wait_until(lambda: {*names} <= joined.present().keys(), SAY_S)

    def gone(self, name: str) -> None:
        """Let a machine vanish, from one moment to the next."""
        self.signal(name, signal.SIGKILL)
        self.programs.pop(name).wait()

    def clear(self) -> None:
        for name in list(self.programs):
            if self.programs[name].poll() is None:
                self.gone(name)
        self._stack.close()
        self.spaces.clear()


@contextmanager
def ending(program: subprocess.Popen[str], seconds: float) -> Iterator[None]:
    """Kill a program that a block waits for in vain, so that the wait has an end."""
    timer = threading.Timer(seconds, program.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def client(bundle: Bundle) -> ssl.SSLContext:
    """What somebody who has a bundle connects with."""
    context = ssl.create_default_context(cadata=bundle.authority)
    context.check_hostname = False
    with TemporaryDirectory() as folder:
        for name, text in (("certificate", bundle.certificate), ("key", bundle.key)):
            Path(folder, name).write_text(text)
        context.load_cert_chain(Path(folder, "certificate"), Path(folder, "key"))
    return context
