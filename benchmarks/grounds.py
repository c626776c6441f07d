"""Where the cases of `prediction_vs_execution` run: on this machine, or on hosts that joined it over TCP."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmarks.common import composed
from benchmarks.joined import joined
from benchmarks.namespaces import Namespace, linked, narrowed
from pepper.caches import cache_folder

HOSTS = ("edge", "server")
"""Devices of the default fleet that are on hosts of their own; the camera only sends, and takes the answers."""
EXCLUDED = "camera"


class Ground(Protocol):
    """The fleet's devices and links.

    Attributes:
        overrides: What the configuration says of them.
    """

    overrides: Sequence[str]

    def link(self, name: str) -> str:
        """Return how the configuration calls a link."""

    def lay(self, name: str) -> None:
        """Let links be of this kind from now on."""


class Emulated:
    """Devices of this machine, and links in software."""

    overrides: Sequence[str] = ()

    def link(self, name: str) -> str:
        """Return an option's name."""
        return name

    def lay(self, name: str) -> None:
        """Do nothing: each pipeline lays its own."""


@dataclass
class OnHosts:
    """Hosts in network namespaces, whose links the kernel holds to a bandwidth; what they carry is measured.

    Attributes:
        overrides: What the configuration says of them.
        spaces: Their namespaces.
        laid: Of which kind the links are.
    """

    overrides: Sequence[str]
    spaces: Sequence[Namespace]
    laid: str | None = None

    def link(self, name: str) -> str:
        """Return what stands for links that are measured."""
        return "measured"

    def lay(self, name: str) -> None:
        """Give all links the bandwidth of an option, without its latency: not every kernel can delay."""
        if name == self.laid:
            return
        bandwidth = composed(f"link={name}").link.bandwidth_mbit_s
        assert bandwidth is not None
        for space in self.spaces:
            narrowed(space, bandwidth)
        shutil.rmtree(cache_folder("links"))
        self.laid = name


@contextlib.contextmanager
def ground_of(hosts: bool) -> Iterator[Ground]:
    """Return where cases run, until the block's end; hosts join meanwhile, if these are wanted.

    Raises:
        OSError: There is no ip(8), or it may not make namespaces.
    """
    if not hosts:
        yield Emulated()
        return
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pepper-")))
        os.environ["XDG_CACHE_HOME"] = str(folder / "caches" / "here")  # its links are these hosts'
        spaces = [stack.enter_context(linked()) for _ in HOSTS]
        stack.enter_context(joined(folder, HOSTS, spaces))
        overrides = [f"hosts.folder={folder}/fleet", f"place.excluded=[{EXCLUDED}]"]
        overrides += [f"+fleet.devices.{name}.overrides.host={name}" for name in HOSTS]
        yield OnHosts(overrides, spaces)
