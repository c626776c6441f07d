"""Other machines as hosts: where their head listens, and who may join it."""

import re
from dataclasses import dataclass, field

from pepper.config.checks import MISSING, within
from pepper.errors import ConfigError

HERE = "here"
"""What the machine is called that pepper is started on."""

HEAD, AUTHORITY = "head", "authority"
"""Whose bundle it is that sends work to hosts, and who signs all of them."""

IMAGINED = "imagined"
"""The host of devices that do not exist yet."""

KIND = "kind:"
"""What a kind of hosts begins with, where a device says on which host it is."""

_NAME, _ADDRESS = (
    re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}"),
    re.compile(r"([^\s/:\[\]]+|\[[0-9a-fA-F:.]+\]):\d{1,5}"),
)


@dataclass
class HostsConfig:
    """Machines that join a head and measure for it.

    Attributes:
        folder: Where the head keeps its authority and writes a bundle for each host.
        address: Where the head listens, ``ADDRESS:PORT`` (``[ADDRESS]:PORT`` of IPv6), as the hosts reach it.
        names: The hosts that may join.
        withdraw: Hosts whose certificates are to be withdrawn.
        kind: What this machine is one of several of, which can stand in for each other: ``device.host=kind:KIND``.
        bundle: What lets this machine in: its file; None is the head's own, in the folder.
        valid_days: How long a new bundle is good for.
        ports: The first and last port at which this machine listens for others, besides the head's own; None is any.
        patience_seconds: How long a host that is away is waited for; then its cells fail.
    """

    folder: str = MISSING
    address: str | None = None
    names: list[str] = field(default_factory=list)
    withdraw: list[str] = field(default_factory=list)
    kind: str | None = None
    bundle: str | None = None
    valid_days: int = 365
    ports: list[int] | None = None
    patience_seconds: float = 60.0

    def __post_init__(self) -> None:
        within("hosts.valid_days", self.valid_days, 1, 3650)
        within("hosts.patience_seconds", self.patience_seconds, 0)
        if self.ports is not None and not (len(self.ports) == 2 and 1024 <= self.ports[0] <= self.ports[1] <= 65535):
            raise ConfigError(f"hosts.ports={self.ports}: give [LOW,HIGH], such as hosts.ports=[8800,8831]")
        if self.address is not None and not _ADDRESS.fullmatch(self.address):
            raise ConfigError(
                f"hosts.address={self.address}: give ADDRESS:PORT, such as 192.168.1.2:8786 or [fd00::2]:8786"
            )
        if self.kind is not None and not _NAME.fullmatch(self.kind):
            raise ConfigError(f"hosts.kind={self.kind}: give another name, of letters, digits, - and _")
        for name in self.names:
            if not _NAME.fullmatch(name) or name in (HERE, HEAD, AUTHORITY, IMAGINED):
                raise ConfigError(f"hosts.names: {name!r}: give other names, of letters, digits, - and _")


def check_host(name: str) -> None:
    """Make sure that this can be a host's name, or a kind of hosts.

    Raises:
        ConfigError: It cannot.
    """
    if not _NAME.fullmatch(name.removeprefix(KIND)) or name in (HEAD, AUTHORITY):
        raise ConfigError(
            f"device.host={name}: give the name of a host that joined, or {KIND}KIND for any one of a kind"
        )
