"""Loads of hosts as a Prometheus server knows them, by node_exporter's metrics."""

import math
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from pepper.config import PrometheusConfig
from pepper.devices.device import DeviceSpec
from pepper.documents import MOST_BYTES, parse_json
from pepper.errors import ConfigError, argument
from pepper.hosts.host import Host

_WAIT_S = 5


def busy_percent(config: PrometheusConfig, host: Host, spec: DeviceSpec) -> float:
    """Return how much of a device's cores is used, 0 to 100, as the server last saw it.

    An instance is a host's if its address, without the port, is one of the host's; ``prometheus.instances`` wins.

    Args:
        config: Where the server is, and what it is asked.
        host: The device's.
        spec: The device; its cores are told by the label ``cpu``.

    Raises:
        ConfigError: The server does not answer, or does not know the host or its cores.
    """
    used = _used(config)
    instances = sorted({instance for instance, _ in used})
    ours, key = host.addresses(), argument(f"prometheus.instances.{host.name}", "ADDRESS:PORT")
    wanted = config.instances.get(host.name)
    found = [each for each in instances if each == wanted or (wanted is None and _address(each) in ours)]
    if len(found) != 1:
        which = "no instance" if not found else f"more than one instance ({', '.join(found)})"
        raise ConfigError(
            f"prometheus.url={config.url}: {which} is the host {host.name}; give {key}, one of"
            f" {', '.join(instances) or 'none'}"
        )
    missing = [core for core in spec.cores if (found[0], str(core)) not in used]
    if missing:
        raise ConfigError(
            f"prometheus.cpu: tells nothing of core {missing[0]} of {found[0]}; its series need the labels instance"
            " and cpu"
        )
    values = [used[found[0], str(core)] for core in spec.cores]
    return max(0.0, min(100.0, sum(values) / len(values)))


def _used(config: PrometheusConfig) -> dict[tuple[str, str], float]:
    """Return how much of each core is used, percent, by instance and core."""
    said = f"prometheus.url={config.url}"
    address = f"{str(config.url).rstrip('/')}/api/v1/query?{urllib.parse.urlencode({'query': config.cpu})}"
    try:
        with urllib.request.urlopen(address, timeout=_WAIT_S) as answer:
            found = parse_json(answer.read(MOST_BYTES))
        return {
            (str(series["metric"]["instance"]), str(series["metric"]["cpu"])): _number(series["value"])
            for series in found["data"]["result"]
        }
    except urllib.error.HTTPError as error:
        raise ConfigError(f"{said}: refuses prometheus.cpu ({error.reason}); check the query") from error
    except OSError as error:
        reason = getattr(error, "reason", None) or error
        raise ConfigError(f"{said}: does not answer ({reason}); give the address of a Prometheus server") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{said}: answers with no series by instance and cpu; check prometheus.cpu") from error


def _number(value: Any) -> float:
    number = float(value[1])
    if not math.isfinite(number):
        raise ValueError("no number")
    return number


def _address(instance: str) -> str:
    """Return an instance without its port."""
    return instance.rpartition(":")[0].strip("[]") or instance
