"""How a plan becomes a standing pipeline."""

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pepper.config.checks import by_name, within
from pepper.errors import ConfigError

_NAME = re.compile(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?")
_ADDRESS = re.compile(r"[A-Za-z0-9._-]+")
MOST_IN_FLIGHT = 256


class ExportKind(StrEnum):
    """What starts the pipeline's programs, and starts them again."""

    compose = "compose"
    k3s = "k3s"
    systemd = "systemd"


@dataclass
class ExportConfig:
    """The standing pipeline that ``task=export`` writes.

    Attributes:
        plan: The plan's file.
        kind: For what: ``compose`` (a Compose file a host), ``k3s`` (a kustomization) or ``systemd`` (units).
        out: The folder to write.
        name: What the pipeline and its model are called there; None is the model's name.
        image: The container image of ``compose`` and ``k3s``; `deploy/` has its Dockerfile.
        at: The folder on the hosts in which a copy of the exported one lies, under the pipeline's name (``k3s``,
            ``systemd``).
        python: The interpreter of the hosts' pepper (``systemd``).
        here: What this machine is called among the hosts; None is its host name.
        addresses: Where the hosts reach each other, by host; one that is not named is reached by its name.
        listen: Address at which the gateway listens (``compose``, ``systemd``): loopback; a proxy with TLS and a check
            of who asks stands in front for others.
        port: Port at which the gateway listens; the stages take those behind it.
        in_flight: Most requests at a time; beyond, they are refused.
        time_limit_seconds: Longest time that a request may take.
    """

    plan: str | None = None
    kind: ExportKind = ExportKind.systemd
    out: str | None = None
    name: str | None = None
    image: str = "pepper-host:0.1.0"
    at: str = "/opt/pepper"
    python: str = "/opt/pepper/venv/bin/python"
    here: str | None = None
    addresses: dict[str, Any] = field(default_factory=dict)
    listen: str = "127.0.0.1"
    port: int = 8790
    in_flight: int = 16
    time_limit_seconds: float = 30.0

    def __post_init__(self) -> None:
        within("export.port", self.port, 1, 65000)
        within("export.in_flight", self.in_flight, 1, MOST_IN_FLIGHT)
        within("export.time_limit_seconds", self.time_limit_seconds, 0, above=True)
        if self.name is not None and not _NAME.fullmatch(self.name):
            raise ConfigError(
                f"export.name={self.name}: give a name of small letters, digits and -, at most 40, that begins with a"
                " letter"
            )
        for key in ("at", "python"):
            if not re.fullmatch(r"(/[\w.+-]+)+", getattr(self, key)):
                raise ConfigError(
                    f"export.{key}={getattr(self, key)}: must be a whole path, such as /opt/pepper, without spaces"
                )
        for key in ("here", "listen"):
            if (value := getattr(self, key)) is not None and not _ADDRESS.fullmatch(value):
                raise ConfigError(f"export.{key}={value}: must be a name or an address")
        if not re.fullmatch(r"[\w./:@-]+", self.image):
            raise ConfigError(f"export.image={self.image}: must be an image, such as registry.local/pepper-host:0.1.0")
        by_name("export.addresses", self.addresses)
        for host, address in self.addresses.items():
            if not _ADDRESS.fullmatch(str(address)):
                raise ConfigError(f"export.addresses.{host}={address}: must be a name or an address")
