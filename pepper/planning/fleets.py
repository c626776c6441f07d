"""The fleet that the configuration names: its devices with their loads, and the links between them."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pepper.config import FleetDeviceConfig, LinkConfig, LoadConfig, PepperConfig, typed
from pepper.config.composing import Composition, explain
from pepper.config.hosting import IMAGINED
from pepper.config.overrides import assign
from pepper.config.placing import FOUND, MEASURED
from pepper.errors import ConfigError, DeviceError, argument, nearest
from pepper.execution.pool import specs
from pepper.fleet import Fleet, FleetDevice, Link, connected
from pepper.graph.needs import needs_of
from pepper.hosts import prometheus, reach
from pepper.hosts.host import Host
from pepper.hosts.link_speeds import link_between
from pepper.hosts.local import here
from pepper.hosts.reach import host_at
from pepper.measure.loads import check_load
from pepper.measure.sent import refuse_unreadable

_GROUPS = ("device", "load", "link")
_NUMBERS = ("bandwidth_mbit_s", "latency_ms")
_MORE_NUMBERS = ("energy_nj_per_byte",)


def assemble(composition: Composition) -> Fleet:
    """Compose the fleet's options, each once, and sample the loads that are to be found.

    Args:
        composition: The configuration, and what its fleet's options are composed from.

    Raises:
        ConfigError: A device, link, source or sink is not what it must be, or devices want more of a core than
            there is; the message names the key.
    """
    config, overrides = composition.config, composition.overrides
    kept = [override for override in overrides if _group(override) not in _GROUPS]  # the fleet's options are whole

    @cache
    def option(group: str, name: str) -> DictConfig:
        return composition.compose([*kept, f"{group}={name}"])

    reach.use(config.hosts)
    names = list(config.fleet.devices)
    check_devices("fleet.source", [config.fleet.source] if config.fleet.source else [], names)
    check_devices("fleet.sink", [config.fleet.sink] if config.fleet.sink else [], names)
    devices = {}
    for name, entry in config.fleet.devices.items():
        try:
            devices[name] = _device(config, entry, option)
        except ConfigError as error:
            raise ConfigError(f"fleet.devices.{name}: {error}") from error
    on = {name: device.device.host for name, device in devices.items() if device.device is not None}
    fleet = Fleet(devices, connected(_links(config, on, option)), config.fleet.source, config.fleet.sink)
    try:
        here().devices([spec for spec in specs(fleet).values() if spec.host is None])
    except ConfigError as error:
        raise ConfigError(f"fleet.devices: {error}") from error
    return fleet


def _group(override: str) -> str:
    """Return the group whose option or key an override sets."""
    return override.lstrip("+~").partition("=")[0].partition(".")[0]


def check_devices(key: str, given: Iterable[str], names: Sequence[str]) -> None:
    """Check that these are devices of the fleet.

    Raises:
        ConfigError: One is not; the message suggests the nearest.
    """
    for name in given:
        if name not in names:
            hint = nearest(name, names) or f"; its devices are {', '.join(names)}"
            raise ConfigError(f"{key}: the fleet has no device {name!r}{hint}")


def check_readable(fleet: Fleet, file: Path, excluded: Collection[str]) -> None:
    """Check that onnxruntime on the devices' hosts reads a model's format and operator sets, whatever part they get.

    Args:
        fleet: The devices.
        file: The model's.
        excluded: Devices that get no part.

    Raises:
        ConfigError: One does not.
    """
    away = {name: each.device.host for name, each in fleet.devices.items() if each.device and name not in excluded}
    for name, host in away.items():
        if host not in (None, IMAGINED):
            try:
                refuse_unreadable(reach.joined_hosts(), host, replace(needs_of(file), operators=()))
            except DeviceError as error:
                raise ConfigError(f"fleet.devices.{name}: {error}, or give place.excluded=[{name}]") from error


def _device(config: PepperConfig, entry: FleetDeviceConfig, option: Callable[[str, str], DictConfig]) -> FleetDevice:
    composed = option("device", entry.device).copy()
    changes = dict(entry.overrides)
    host_name = changes.get("host", composed.device.host)
    if entry.cores is not None and host_name != IMAGINED:
        changes["cores"] = _cores(entry.cores, host_at(host_name))
    for key, value in changes.items():
        try:
            assign(composed, f"device.{key}", value)
        except OmegaConfBaseException as error:
            reason = nearest(key, composed.device) or f": {explain(error)}"
            raise ConfigError(f"overrides.{key}={value!r}: the device cannot have it{reason}") from error
    device = typed(composed).device
    spec = host_at(device.host).resolve(device)
    if entry.load == MEASURED:
        raise ConfigError(f"load={MEASURED}: what others use is called {FOUND} now; write load: {FOUND}")
    if entry.load != FOUND:
        chosen = option("load", entry.load)
        if OmegaConf.is_missing(chosen.load, "percent"):
            raise ConfigError(f"load={entry.load}: does not say which percent; give an option that does, such as cpu50")
        load = typed(chosen).load
    elif device.kind != "emulated":
        host, server = host_at(device.host), config.prometheus
        busy = host.busy_percent(spec) if server.url is None else prometheus.busy_percent(server, host, spec)
        load = LoadConfig(percent=round(busy, 1), name=FOUND)
    else:
        raise ConfigError(f"load={FOUND}: an emulated device has only the load given to it; give an option of load")
    check_load(load, spec)
    return FleetDevice(device, load, entry.count, entry.power_w)


def _cores(positions: Sequence[int], host: Host) -> list[int]:
    """Turn positions among a host's cores into their numbers."""
    allowed = host.cores()
    for position in positions:
        if not -len(allowed) <= position < len(allowed):
            raise ConfigError(
                f"cores={list(positions)}: the host {host.name} has {len(allowed)} cores; 0 is the first, -1 the last"
            )
    return [allowed[position] for position in positions]


def _links(
    config: PepperConfig, on: Mapping[str, str | None], option: Callable[[str, str], DictConfig]
) -> dict[tuple[str, str], Link]:
    """Return the links of the fleet's devices, whose hosts are given by their names."""
    fleet, names = config.fleet, list(on)

    def link(key: str, value: Any) -> Link | None:
        """Make a link from the name of an option or from its numbers; None is to be measured."""
        if value == MEASURED:
            return None
        numbers = isinstance(value, dict) and set(value) - set(_MORE_NUMBERS) == set(_NUMBERS)
        if not isinstance(value, str) and not (
            numbers and all(isinstance(number, int | float) for number in value.values())
        ):
            raise ConfigError(f"{key}={value}: no link; give an option of link, or {' and '.join(_NUMBERS)}")
        try:
            chosen = typed(option("link", value)).link if isinstance(value, str) else LinkConfig(**value)
            return _link(chosen)
        except (ConfigError, ValueError) as error:
            raise ConfigError(f"{key}: {error}") from error

    if fleet.hub:
        check_devices("fleet.hub", fleet.hub, names)
        missing = [name for name in names if name not in fleet.hub]
        if missing:
            raise ConfigError(
                f"fleet.hub: no link of {missing[0]!r}; give {argument(f'fleet.hub.{missing[0]}', 'OPTION')} of link"
            )
        sides = {}
        for side in ("up", "down"):
            given = {name: fleet.hub[name] for name in names}
            chosen = {n: v[side] if isinstance(v, dict) and side in v else v for n, v in given.items()}
            for name, value in chosen.items():
                if value == MEASURED:
                    raise ConfigError(
                        f"fleet.hub.{name}: a link to a hub cannot be measured; give an option or numbers"
                    )
            sides[side] = {n: link(f"fleet.hub.{n}", value) or Link() for n, value in chosen.items()}
        return {(a, b): Link.through_hub(sides["up"][a], sides["down"][b]) for a in names for b in names}
    named = config.link.name == MEASURED
    default = None if named else _link(config.link)
    pairs = {(a, b): default for a in names for b in names if fleet.mesh}
    for key, value in fleet.links.items():
        source, target = (end.strip() for end in key.split("->"))
        check_devices(f"fleet.links.{key}", [source, target], names)
        pairs[source, target] = link(f"fleet.links.{key}", value)
        back = f"{target}->{source}"
        if back not in {other.replace(" ", "") for other in fleet.links}:
            pairs[target, source] = pairs[source, target]
    return {(a, b): found or _measured(on[a], on[b]) for (a, b), found in pairs.items()}


def _link(config: LinkConfig) -> Link:
    return Link(config.bandwidth_mbit_s, config.latency_ms, energy_nj_per_byte=config.energy_nj_per_byte)


def _measured(source: str | None, target: str | None) -> Link:
    """Return the link from one host to another as it was measured."""
    if IMAGINED in (source, target):
        raise ConfigError(
            f"link={MEASURED}: none to or from an imagined device can be; give an option of link, or numbers"
        )
    if source == target:
        return Link()
    speed = link_between(reach.joined_hosts(), source, target)
    return Link(speed.bandwidth_mbit_s, speed.latency_ms)
