"""A head on this machine and hosts in network namespaces, and what can be done to them."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil

from benchmarks.namespaces import Namespace, linked
from benchmarks.rough.clocks import OwnClock, clock_library
from pepper.config import HostsConfig
from pepper.config.hosting import AUTHORITY, HEAD
from pepper.hosts.bundles import issue, read_bundle
from pepper.hosts.remote import Joined

ROOT = Path(__file__).parent.parent.parent
HOSTS = ("camera", "edge")
DISK_BYTES = 64 * 2**20
READY_S = 90.0
"""What is awaited of a machine comes within this, or does not come."""


class Program:
    """A machine's program.

    Args:
        folder: The head's; bundles are in ``fleet``.
        name: The machine's.
        within: What its command begins with.
        clock: What gives it a clock of its own; None is the system's.
    """

    def __init__(self, folder: Path, name: str, within: Sequence[str] = (), clock: Path | None = None) -> None:
        self.name, self._folder, self._within = name, folder, within
        self.home = folder / name
        self.home.mkdir()
        self.said = self.home.with_suffix(".said")
        self.clock = OwnClock(clock, self.home.with_suffix(".clock")) if clock else None
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *arguments: str) -> None:
        """Start it; its cache and its temporary folder are in its own folder."""
        variables = {
            "PYTHONPATH": str(ROOT),
            "XDG_CACHE_HOME": f"{self.home}/cache",
            "TMPDIR": f"{self.home}/tmp",
            **(self.clock.begin() if self.clock else {}),
        }
        (self.home / "tmp").mkdir(exist_ok=True)
        with self.said.open("ab") as stream:
            self.process = subprocess.Popen(
                [*self._within, sys.executable, "-m", "pepper.run", *arguments],
                cwd=self._folder,
                env={**os.environ, **variables},
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )

    def await_said(self, words: str) -> None:
        """Wait until it has said something.

        Raises:
            RuntimeError: It does not.
        """
        end = time.monotonic() + READY_S
        while words not in (said := self.said.read_text(errors="replace")):
            if time.monotonic() > end:
                raise RuntimeError(f"{self.name}: {said}")
            time.sleep(0.1)

    def kill(self) -> None:
        """Kill -9; what it has started is left to itself."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def signal_all(self, number: signal.Signals) -> None:
        """Send a signal to it and to all that it has started."""
        assert self.process is not None
        for each in (psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                each.send_signal(number)


class Hosts:
    """A head and the hosts that have joined it, whole again after each trial.

    Args:
        folder: An empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stack = ExitStack()
        self.spaces: dict[str, Namespace] = {}
        self.programs: dict[str, Program] = {}
        self.clock: Path | None = None

    def __enter__(self) -> "Hosts":
        self.clock = clock_library(self.folder)
        with ExitStack() as stack:
            self.spaces = {name: stack.enter_context(linked()) for name in HOSTS}
            for name, space in self.spaces.items():
                self.programs[name] = Program(self.folder, name, space.within, self.clock)
                stack.enter_context(_disk(self.programs[name].home))
            self.programs[HEAD] = Program(self.folder, HEAD)
            stack.callback(self._end)
            self.address = f"{self.spaces[HOSTS[0]].here}:8786"
            issue(HostsConfig(self.bundles, self.address, list(HOSTS)))
            self.start(HEAD)
            self.programs[HEAD].await_said("head at")
            for name in HOSTS:
                self.start(name)
            for name in HOSTS:
                self.programs[name].await_said(f"as {name}")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def bundles(self) -> str:
        """Where the head keeps them."""
        return f"{self.folder}/fleet"

    def start(self, name: str) -> None:
        """Let the head, or a host, start."""
        names = f"hosts.names=[{','.join(HOSTS)}]"
        if name == HEAD:
            self.programs[name].start("task=head", f"hosts.address={self.address}", names)
        else:
            self.programs[name].start("task=join", f"hosts.bundle=fleet/{name}.json")

    def plug(self, name: str, state: str) -> None:
        """Cut (``down``) or mend (``up``) the link to a host."""
        subprocess.run(["ip", "link", "set", self.spaces[name].device, state], check=True, timeout=30)

    def fill(self, name: str) -> None:
        """Fill a host's disk, which has forgotten all models and calibrations."""
        home = self.programs[name].home
        shutil.rmtree(home / "cache", ignore_errors=True)
        with contextlib.suppress(OSError), (home / "filler").open("wb", buffering=0) as stream:
            while stream.write(b"\0" * 2**16):
                pass

    def free(self, name: str) -> None:
        """Free the disk again."""
        (self.programs[name].home / "filler").unlink(missing_ok=True)

    def let_expire(self, name: str, seconds: float) -> None:
        """Give a host's bundle a certificate that expires in this time."""
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        file = Path(self.bundles, f"{name}.json")
        bundle, authority = (json.loads(Path(self.bundles, f"{each}.json").read_text()) for each in (name, AUTHORITY))
        old = x509.load_pem_x509_certificate(bundle["certificate"].encode())
        signer = serialization.load_pem_private_key(authority["key"].encode(), None)
        assert isinstance(signer, ec.EllipticCurvePrivateKey)
        new = x509.CertificateBuilder(
            old.issuer, old.subject, old.public_key(), x509.random_serial_number(), old.not_valid_before_utc,
            datetime.now(UTC) + timedelta(seconds=seconds), list(old.extensions),
        ).sign(signer, hashes.SHA256())  # fmt: skip
        file.write_text(json.dumps({**bundle, "certificate": new.public_bytes(serialization.Encoding.PEM).decode()}))

    def renew(self, name: str) -> None:
        """Give a host a bundle that is good, and let it join with that."""
        Path(self.bundles, f"{name}.json").unlink()
        issue(HostsConfig(self.bundles, self.address, list(HOSTS)))
        self.programs[name].kill()
        self.start(name)

    def await_whole(self) -> None:
        """Wait until all hosts are there and answer; to be called in a process of its own.

        Raises:
            RuntimeError: They do not.
        """
        end = time.monotonic() + READY_S
        with Joined(read_bundle(Path(self.bundles, f"{HEAD}.json")), READY_S) as joined:
            while not {*HOSTS} <= joined.present().keys():
                if time.monotonic() > end:
                    raise RuntimeError(f"joined are {', '.join(joined.present()) or 'none'}")
                time.sleep(0.5)
            for name in HOSTS:
                joined.ask(name, "describe")

    def left(self, patience_s: float) -> list[str]:
        """Return what runs besides the machines' own programs after a moment's patience, and end it."""
        own = {program.process.pid for program in self.programs.values() if program.process is not None}
        deadline = time.monotonic() + patience_s
        while found := [each for each in psutil.Process().children(recursive=True) if _counts(each, own)]:
            if time.monotonic() > deadline:
                break
            time.sleep(0.2)
        names = []
        for each in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                names.append(" ".join(each.cmdline()[:4]))
                each.kill()
        for program in psutil.Process().children():  # what was adopted is to be waited for, too
            if program.pid not in own:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(program.pid, os.WNOHANG)
        return names

    def _end(self) -> None:
        for program in self.programs.values():
            if program.process is not None and program.process.poll() is None:
                program.signal_all(signal.SIGKILL)
                program.process.wait()


def _counts(process: psutil.Process, own: set[int]) -> bool:
    """Whether a process works or has been left by its machine's program, and is not at its end.

    What waits for a program's end to remove its temporary folder is rightly there as long as that.
    """
    try:
        works = any(word.startswith("pepper.") and word != "pepper.run" for word in process.cmdline())
        left = process.ppid() == os.getpid() and process.pid not in own
        return (works or left) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@contextlib.contextmanager
def _disk(folder: Path) -> Iterator[None]:
    """Put a small disk at a folder."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "pepper", str(folder)]
    subprocess.run(command, check=True, timeout=30)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True, timeout=30)
