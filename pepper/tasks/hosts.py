"""``task=head``, ``task=join`` and ``task=fleet``: machines that join a head, and what they are."""

import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from pepper.config.composing import Composition
from pepper.console.tables import plain_table, show
from pepper.errors import ConfigError
from pepper.hosts import engine, ports, reach
from pepper.hosts.bundles import issue, read_bundle, withdraw, withdrawn
from pepper.hosts.roll import hosts_there
from pepper.tasks.result import Result


def head(composition: Composition) -> Result:
    """Write the bundles of hosts, and let these join until a signal comes; or withdraw certificates, and end."""
    config = composition.config.hosts
    if config.withdraw:
        withdraw(config)
        show(f"withdrawn: {', '.join(config.withdraw)}; the head refuses them from now on, also one that runs")
        if not config.names:
            return Result()
    own, *others = issue(config)
    show(f"bundles (whoever has one can run programs on the others): {', '.join(map(str, others)) or 'none'}")
    if not config.withdraw:
        bundle = read_bundle(own)
        engine.head(
            bundle,
            lambda: withdrawn(Path(config.folder)),
            lambda: show(f"head at {bundle.address}; Ctrl-C ends it"),
        )
    return Result()


def join(composition: Composition) -> Result:
    """Measure for a head until a signal comes."""
    config = composition.config.hosts
    if config.bundle is None:
        raise ConfigError("hosts.bundle: has no value; give hosts.bundle=FILE, which task=head wrote for this host")
    ports.use(config.ports)
    engine.join(read_bundle(Path(config.bundle)), config.kind, show)
    return Result()


def fleet(composition: Composition) -> Result:
    """List the hosts that are there.

    Returns:
        Its status is 0, or 1 if one does not answer or is of another version of pepper.
    """
    reach.use(composition.config.hosts)
    hosts = hosts_there(reach.joined_hosts())
    texts, numbers = (
        ("host", "kind", "processor", "onnxruntime", "providers", "runs"),
        ("cores", "memory GiB", "load", "pace", "clock ms", "agent MiB", "seen s"),
    )
    table = plain_table(texts, numbers)
    for host in hosts:
        table.add_row(
            host.name, host.kind or "", host.processor, host.onnxruntime or "none",
            ", ".join(map(_called, host.providers)), ", ".join(host.runs), str(host.cores),
            f"{host.memory_bytes / 2**30:.1f}", f"{host.load:.2f}", "" if host.pace is None else f"{host.pace:.2f}",
            f"{host.clock_ms:+.0f} ± {host.clock_within_ms:.0f}", f"{host.agent_memory_bytes / 2**20:.0f}",
            f"{host.seen_s:.0f}",
        )  # fmt: skip
    show(table if hosts else "no host has joined", hosts=[asdict(host) for host in hosts])
    for host in hosts:
        if host.said:
            print(f"warning: {host.name}: {host.said}", file=sys.stderr)
    return Result(1 if any(host.said for host in hosts) else 0)


def _called(provider: Mapping[str, str]) -> str:
    """How a table calls a provider: by its short name, and what it computes on besides the cores."""
    name = provider["name"].removesuffix("ExecutionProvider")
    return f"{name} on {provider['hardware']}" if "hardware" in provider else name
