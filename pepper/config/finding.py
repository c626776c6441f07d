"""Where the loads of devices are found."""

from dataclasses import dataclass, field

from pepper.config.checks import MISSING
from pepper.errors import ConfigError


@dataclass
class PrometheusConfig:
    """A Prometheus server that watches the hosts with node_exporter, for devices with ``load: found``.

    Attributes:
        url: Where it is, such as ``http://127.0.0.1:9090``; None looks at the host itself, for a second.
        cpu: What is asked: how much of each core is used, percent, by the labels ``instance`` and ``cpu``.
        instances: Which instance a host is, ``ADDRESS:PORT`` by its name (``here`` is this machine), where that cannot
            be told by its address.
    """

    url: str | None = None
    cpu: str = MISSING
    instances: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.url is not None and not self.url.startswith(("http://", "https://")):
            raise ConfigError(f"prometheus.url={self.url}: give an address such as http://127.0.0.1:9090")
