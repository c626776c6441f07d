"""Hosts by their names: this machine, and those that joined a head, which is asked for them when one is wanted."""

import atexit
from functools import cache
from pathlib import Path

from pepper.config.hosting import HEAD, IMAGINED, HostsConfig
from pepper.errors import ConfigError
from pepper.hosts import ports
from pepper.hosts.bundles import Bundle, read_bundle
from pepper.hosts.host import Host
from pepper.hosts.imagined import ImaginedHost
from pepper.hosts.local import here
from pepper.hosts.remote import Joined, RemoteHost

_settings: list[HostsConfig] = []


def use(config: HostsConfig) -> None:
    """Say how hosts that joined a head are reached from now on; nothing is connected yet."""
    _settings[:] = [config]
    ports.use(config.ports)


def host_at(name: str | None) -> Host:
    """Return a host by its name, or as one of a kind; None is this machine, ``imagined`` that of imagined devices.

    Raises:
        ConfigError: There is no bundle that lets this process in.
        DeviceError: The head does not answer, or knows no such host.
    """
    if name is None:
        return here()
    if name == IMAGINED:
        return ImaginedHost()
    joined = joined_hosts()
    joined.require(name)
    return RemoteHost(name, joined)


def joined_hosts() -> Joined:
    """Return the hosts of the head, connected to when first asked for; later the head may be away.

    Raises:
        ConfigError: There is no bundle that lets this process in.
        DeviceError: The head does not answer when it is first asked for.
    """
    if not _settings:
        raise ConfigError("hosts: nothing says how they are reached")
    config = _settings[0]
    return _connected(bundle_of(config), config.patience_seconds)


def bundle_of(config: HostsConfig) -> Bundle:
    """Return what lets this process in: the bundle that is given, or the head's own."""
    return read_bundle(Path(config.bundle or Path(config.folder, f"{HEAD}.json")))


@cache
def _connected(bundle: Bundle, patience_s: float) -> Joined:
    joined = Joined(bundle, patience_s)
    atexit.register(joined.close)
    return joined
