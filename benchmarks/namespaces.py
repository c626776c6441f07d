"""Network namespaces as hosts of their own, each behind a link to this one; needs root and iproute2."""

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import psutil

FRAME, PAYLOAD = 1514, 1448
"""Bytes of a full Ethernet frame as the kernel counts it, and of TCP's data in it."""
BURST_BYTES = 2 * FRAME
"""What a narrow link lets through at once."""
LIMIT_BYTES = 64 * 2**20
"""What waits for it; nothing is dropped."""

_NUMBERS = count()
_OURS = re.compile(r"pepper(\d+)n\d+")


@dataclass(frozen=True)
class Namespace:
    """A network namespace.

    Attributes:
        name: As ip(8) knows it.
        device: The end, here, of the link that leads there.
        here: This end's address.
        there: The other end's.
    """

    name: str
    device: str
    here: str
    there: str

    @property
    def within(self) -> list[str]:
        """What a command begins with to run there."""
        return ["ip", "netns", "exec", self.name]


@contextlib.contextmanager
def linked() -> Iterator[Namespace]:
    """Make a namespace with a link to here, until the block's end; those of processes that were killed are taken away.

    Raises:
        OSError: There is no ip(8), or it may not do that.
    """
    _tidy()
    number = f"{os.getpid()}n{next(_NUMBERS)}"
    name, device = f"pepper{number}", f"pp{number}"
    _ip("netns", "add", name)
    try:
        _ip("link", "add", device, "type", "veth", "peer", "name", "eth0", "netns", name)
        # No two devices here have the same index: so no two links have the same addresses, whoever made them.
        first = int(_ip("-o", "link", "show", device).split(":")[0]) % 2**14 * 4
        here, there = (f"10.213.{(first + end) // 256}.{(first + end) % 256}" for end in (1, 2))
        _ip("addr", "add", f"{here}/30", "dev", device)
        _ip("link", "set", device, "up")
        Path(f"/proc/sys/net/ipv4/conf/{device}/forwarding").write_text("1")  # to other namespaces
        for command in (
            ["addr", "add", f"{there}/30", "dev", "eth0"],
            ["link", "set", "eth0", "up"],
            ["link", "set", "lo", "up"],
            ["route", "add", "default", "via", here],
        ):
            _ip("-n", name, *command)
        yield Namespace(name, device, here, there)
    finally:
        _ip("netns", "delete", name)  # and its link


def shaped(device: str, rate: str) -> None:
    """Let a device send at most at a rate, as tc(8) writes it."""
    _run("tc", "qdisc", "replace", "dev", device, "root", "tbf", "rate", rate, "burst", "256kb", "latency", "50ms")


def narrowed(space: Namespace, mbit_s: float) -> None:
    """Let the link to a namespace carry so many megabits (10^6) of TCP's payload a second, each way: hardly more comes
    at once, and what waits is not dropped."""
    rate = f"{mbit_s * FRAME / PAYLOAD:.6f}mbit"
    bucket = ["tbf", "rate", rate, "burst", f"{BURST_BYTES}", "limit", f"{LIMIT_BYTES}"]
    _run("tc", "qdisc", "replace", "dev", space.device, "root", *bucket)
    _run("tc", "-n", space.name, "qdisc", "replace", "dev", "eth0", "root", *bucket)


def _tidy() -> None:
    for line in _ip("netns", "list").splitlines():
        if (found := _OURS.match(line)) and not psutil.pid_exists(int(found[1])):
            _ip("netns", "delete", found[0])


def _ip(*arguments: str) -> str:
    return _run("ip", *arguments)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
